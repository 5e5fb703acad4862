"use strict";
(() => {
  // A browser opens a few dozen players at most, so a video has one only while it is near the window.
  const videos = [...document.querySelectorAll("video")];
  const addresses = new Map(videos.map((video) => [video, video.getAttribute("src")]));
  const opened = new Set();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

  const play = (video) => video.play().catch(() => {}); // refused or interrupted: the picture stays, no harm
  const near = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (isIntersecting) {
        opened.add(target);
        target.preload = "metadata";
        if (!target.hasAttribute("src")) target.setAttribute("src", addresses.get(target));
      } else if (opened.delete(target)) {
        target.preload = "none";
        target.removeAttribute("src");
        target.load();
      }
    }
  }, { rootMargin: "400px 0px" });
  const seen = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      if (!isIntersecting) target.pause();
      else if (!still && !target.dataset.paused) play(target);
    }
  }, { threshold: 0.1 });

  const toggle = (video) => {
    if (video.paused) {
      delete video.dataset.paused;
      play(video);
    } else {
      video.dataset.paused = "yes";
      video.pause();
    }
  };
  for (const video of videos) {
    video.muted = true; // the attribute alone does not count everywhere, and sound would forbid playing
    video.controls = still;
    video.tabIndex = 0;
    if (!still) video.addEventListener("click", () => toggle(video));
    video.addEventListener("keydown", (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      toggle(video);
    });
    near.observe(video);
    seen.observe(video);
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
