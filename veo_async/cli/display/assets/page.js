"use strict";
(() => {
  const videos = [...document.querySelectorAll("video")];
  const addresses = new Map(videos.map((video) => [video, video.getAttribute("src")]));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const opened = new Set(); // has a player: a browser has a few dozen at most, so only what is near the window
  const seen = new Set();
  const stopped = new Set(still ? videos : []); // by hand, or from the start for who wants no motion

  // One rule for all events, since they come in any order: loading an address undoes an earlier play().
  const settle = (video) => {
    if (seen.has(video) && opened.has(video) && !stopped.has(video)) {
      video.play().catch(() => {}); // refused or interrupted: the picture stays, no harm
    } else {
      video.pause();
    }
  };
  const open = (video) => {
    opened.add(video);
    video.preload = "metadata";
    if (!video.hasAttribute("src")) video.setAttribute("src", addresses.get(video));
  };
  const close = (video) => {
    if (!opened.delete(video)) return;
    video.preload = "none";
    video.removeAttribute("src");
    video.load();
  };
  const near = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      (isIntersecting ? open : close)(target);
      settle(target);
    }
  }, { rootMargin: "400px 0px" });
  const inWindow = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) seen.add(target);
      else seen.delete(target);
      settle(target);
    }
  }, { threshold: 0.1 });
  const toggle = (video) => {
    if (!stopped.delete(video)) stopped.add(video);
    settle(video);
  };

  // A video that is closed has no shape of its own any more, so the shape is written down.
  const keepShape = (shown) => {
    const width = shown.videoWidth ?? shown.naturalWidth;
    const height = shown.videoHeight ?? shown.naturalHeight;
    if (!width) return; // not known yet
    shown.style.aspectRatio = `${width} / ${height}`;
    shown.closest(".card").classList.toggle("tall", height > width);
  };
  for (const shown of document.querySelectorAll(".frame video, .frame img")) {
    keepShape(shown);
    for (const event of ["load", "loadedmetadata"]) shown.addEventListener(event, () => keepShape(shown));
  }

  for (const video of videos) {
    const mark = () => video.parentElement.classList.toggle("paused", video.paused);
    mark();
    for (const event of ["play", "pause", "emptied"]) video.addEventListener(event, mark);
    video.muted = true; // the attribute alone does not count everywhere, and sound would forbid playing
    video.controls = false;
    video.tabIndex = 0;
    near.observe(video);
    inWindow.observe(video);
    video.addEventListener("canplay", () => settle(video));
    video.addEventListener("click", () => toggle(video));
    video.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      toggle(video);
    });
  }

  const bar = document.getElementById("filter");
  if (!bar) return;
  bar.hidden = false;
  const words = document.getElementById("words");
  const buttons = [...bar.querySelectorAll("button")];
  const cards = [...document.querySelectorAll(".card")].map((card) => ({ card, state: card.dataset.state, text: null }));
  const nothing = document.getElementById("none");
  let state = "";

  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const item of cards) {
      item.text ??= item.card.textContent.toLowerCase();
      const fits = (!state || item.state === state) && wanted.every((word) => item.text.includes(word));
      item.card.hidden = !fits;
      count += fits;
    }
    nothing.hidden = count > 0;
  };
  words.addEventListener("input", show);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      state = button.dataset.state;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      show();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== words) {
      event.preventDefault();
      words.focus();
    }
  });
})();
