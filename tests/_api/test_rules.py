"""
What each field of a request may hold.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from veo_async._api.models import (
    ASPECT_RATIOS,
    MOTION_TYPES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    UPSAMPLE_TARGETS,
)
from veo_async._api.records import Video, VideoResult
from veo_async._api.requests import (
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Reshoot,
    TextToVideo,
    Upsample,
)

from .barest import BAREST, A, B, C, D, barest, violations


@pytest.mark.parametrize("prompt", ["", " ", "\n\t\u2003", None, 7, b"a whale", ["a whale"]])
def test_a_prompt_has_words(prompt: Any) -> None:
    """An empty, blank or missing prompt, and one that is no string, is refused by that name."""
    for make in (lambda: TextToVideo(prompt), lambda: InsertObject("video-1", prompt)):
        [violation] = violations(make)
        assert violation.startswith("prompt must ")


@pytest.mark.parametrize("prompt", ["a whale", "海", "\ud83d\udc0b", "x" * 100_000, "a\nb\0c"])
def test_a_prompt_may_be_anything_else(prompt: str) -> None:
    """Length, language and odd characters are the server's business."""
    assert prompt == TextToVideo(prompt).prompt


@pytest.mark.parametrize("name", ["IngredientsToVideo", "Extend"])
def test_some_prompts_are_optional(name: str) -> None:
    """Where the API can do without a prompt, None is fine, but a blank one is still a mistake."""
    assert () == violations(lambda: barest(name, prompt=None))
    assert ("prompt must not be empty",) == violations(lambda: barest(name, prompt="  "))


@pytest.mark.parametrize("model", ["", "  ", None, 31])
@pytest.mark.parametrize("name", ["TextToVideo", "ImageToVideo", "IngredientsToVideo", "Get1080p", "Extend"])
def test_a_model_has_a_name(name: str, model: Any) -> None:
    """The model is always sent, so there has to be one."""
    [violation] = violations(lambda: barest(name, model=model))
    assert violation.startswith("model must ")


@pytest.mark.parametrize("flag", [None, 0, 1, "true", "false"])
def test_translation_is_a_flag(flag: Any) -> None:
    """Only True and False are taken: the word `false` is not read as true."""
    assert (f"translation must be True or False, not {flag!r}",) == violations(
        lambda: TextToVideo("a whale", translation=flag)
    )


@pytest.mark.parametrize(
    "url",
    [
        "a.jpg",
        "/a.jpg",
        "//images.example/a.jpg",
        "www.images.example/a.jpg",
        "ftp://images.example/a.jpg",
        "file:///a.jpg",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "https:///a.jpg",
        "https://:443/a.jpg",
        "https://[::1/a.jpg",
        "https://images.example:0/a.jpg",
        "https://images.example:65536/a.jpg",
        "https://images.example:https/a.jpg",
        "https://images.example/a b.jpg",
        " https://images.example/a.jpg",
        "https://images.example/a.jpg\n",
        "https://images.example/\x00.jpg",
        "",
        None,
        7,
        b"https://images.example/a.jpg",
    ],
)
def test_an_address_is_absolute_and_on_the_web(url: Any) -> None:
    """A relative, blank, broken or non-http URL is refused, and the violation says which one it is."""
    [violation] = violations(lambda: ImageToVideo("a whale", [A, url]))
    assert violation.startswith("image_urls[1] must be an absolute http or https URL, not ")
    if url is not None:
        [violation] = violations(lambda: TextToVideo("a whale", callback_url=url))
        assert violation.startswith("callback_url must be an absolute http or https URL, not ")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/a.jpg",
        "HTTPS://images.example/a.jpg",
        "https://[::1]:443/a.jpg",
        "https://bücher.example/ü.jpg?size=large&x=%20#top",
        "https://user:secret@images.example/a.jpg",
    ],
)
def test_an_address_may_be_any_on_the_web(url: str) -> None:
    """Ports, IPv6, queries and letters beyond ASCII are fine."""
    assert (url,) == ImageToVideo("a whale", [url]).image_urls


def test_a_long_value_is_cut_in_the_violation() -> None:
    """A whole image pasted where a URL belongs does not fill the log."""
    [violation] = violations(lambda: ImageToVideo("a whale", ["data:image/png;base64," + "A" * 1_000_000]))
    assert len(violation) < 200
    assert "..." in violation


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("cat.png", "nor is it a picture on this machine: No such file or directory"),
        (Path("/no/cat.png"), "nor is it a picture on this machine: No such file or directory"),
        (Path(__file__), "nor is it a picture on this machine: it is not a picture"),
        (__file__, "nor is it a picture on this machine: it is not a picture"),
        ("/dev/zero", "nor is it a picture on this machine: it is not a regular file"),
        (b"<html>", "nor is it a picture on this machine: it is not a picture"),
        ("file:///tmp/cat.png", "pass the path of a file itself"),
    ],
)
def test_a_file_that_is_no_picture_is_refused_with_the_reason(image: Any, words: str) -> None:
    """Whoever passes an image of his own reads why it cannot be used."""
    [violation] = violations(lambda: ImageToVideo("a whale", [image]))
    assert violation.endswith(f"; {words}")


@pytest.mark.parametrize("image", ["", "ftp://x/cat.png", 7])
def test_what_is_no_file_gets_no_such_remedy(image: Any) -> None:
    """Another mistake is not taken for that one."""
    [violation] = violations(lambda: ImageToVideo("a whale", [image]))
    assert "file" not in violation


def _one_by_one() -> Iterator[str]:
    yield A
    yield B


@pytest.mark.parametrize(
    "urls", [[A, B], (A, B), _one_by_one(), deque([A, B])], ids=lambda urls: type(urls).__name__
)
def test_image_urls_become_a_tuple(urls: Any) -> None:
    """Any sequence or generator of URLs is taken, and kept as what cannot change."""
    assert (A, B) == ImageToVideo("a whale", urls).image_urls


@pytest.mark.parametrize(
    ("urls", "word"),
    [(A, "str: put it in a list"), (b"x", "bytes"), (None, "NoneType"), ({A}, "set"), ({A: 1}, "dict")],
)
def test_image_urls_are_an_ordered_many(urls: Any, word: str) -> None:
    """A bare string is not taken for its letters, and a set has no first frame."""
    assert (f"image_urls must be a sequence of URLs, not one {word}",) == violations(
        lambda: ImageToVideo("a whale", urls)
    )
    assert (f"image_urls must be a sequence of URLs, not one {word}",) == violations(
        lambda: IngredientsToVideo(urls)
    )


@pytest.mark.parametrize("urls", [[], [A, B, C, D]])
def test_there_are_one_to_three_images(urls: list[str]) -> None:
    """No version of the documents takes none or more than three."""
    wanted = (f"image_urls must hold 1 to 3 URLs, not {len(urls)}",)
    assert wanted == violations(lambda: ImageToVideo("a whale", urls))
    assert wanted == violations(lambda: IngredientsToVideo(urls))
    assert wanted == violations(lambda: ImageToVideo("a whale", urls, model="veo2-fast"))


@pytest.mark.parametrize(
    ("name", "field", "choices"),
    [
        ("TextToVideo", "resolution", RESOLUTIONS),
        ("ImageToVideo", "resolution", RESOLUTIONS),
        ("IngredientsToVideo", "resolution", RESOLUTIONS),
        ("Extend", "resolution", RESOLUTIONS),
        ("TextToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("ImageToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("IngredientsToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("Extend", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("Upsample", "target", UPSAMPLE_TARGETS),
        ("Reshoot", "motion_type", MOTION_TYPES),
    ],
)
@pytest.mark.parametrize("value", ["", "1080P", "8k", "21:9", "forward", 1080, ["1080p"], 16 / 9])
def test_a_choice_is_one_of_those_documented(
    name: str, field: str, choices: tuple[str, ...], value: Any
) -> None:
    """Any other value is refused once, with the whole choice in the sentence."""
    [violation] = violations(lambda: barest(name, **{field: value}))
    told = violation.partition(": did you mean ")[0]
    assert f"{field} must be one of {', '.join(choices)}, not {value!r}" == told


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("motion_type", "FORWRD", "FORWARD"),
        ("motion_type", "left-to-right", "LEFT_TO_RIGHT"),
        ("resolution", "1080P", "1080p"),
        ("resolution", 1080, "1080p"),
        ("resolution", "8k", None),
        ("aspect_ratio", "16x9", "16:9"),
        ("aspect_ratio", "21:9", None),
    ],
)
def test_a_misspelt_choice_is_answered_by_a_question(field: str, value: Any, meant: str | None) -> None:
    """What looks like one of the choices is asked about; another number is not taken for a misspelling."""
    name = "Reshoot" if field == "motion_type" else "TextToVideo"
    [violation] = violations(lambda: barest(name, **{field: value}))
    question = re.search(r": did you mean (.*)\?$", violation)
    assert meant == (question and question[1])


@pytest.mark.parametrize("name", ["Upsample", "Reshoot"])
def test_a_needed_choice_cannot_be_left_open(name: str) -> None:
    """None stands for the server's default where there is one, and nowhere else."""
    field = {"Upsample": "target", "Reshoot": "motion_type"}[name]
    [violation] = violations(lambda: barest(name, **{field: None}))
    assert violation.startswith(f"{field} must be one of ")


@pytest.mark.parametrize("motion", MOTION_TYPES)
def test_every_movement_can_be_asked_for(motion: str) -> None:
    """Each of the fifteen documented movements is taken."""
    assert motion == Reshoot("video-1", motion).motion_type
    assert 15 == len(set(MOTION_TYPES))


@pytest.mark.parametrize("target", ["1080p", "4k", "gif"])
def test_every_larger_form_can_be_asked_for(target: str) -> None:
    """Each of the documented targets is taken."""
    assert target == Upsample("video-1", target).target


def test_a_mask_is_a_url_or_an_image() -> None:
    """The mask is needed to take something out, optional to put something in, and never blank."""
    assert "/9j/4AAQ" == RemoveObject("video-1", "/9j/4AAQ").image_mask
    assert None is InsertObject("video-1", "a hat").image_mask
    assert ("image_mask must not be empty",) == violations(lambda: InsertObject("v", "a hat", image_mask=""))
    assert ("image_mask must be a JPEG, and b'GIF89a' cannot be read as one",) == violations(
        lambda: barest("RemoveObject", image_mask=b"GIF89a")
    )
    for path in ("mask.jpg", "./masks/mask", "file:///tmp/mask.jpg", "a" * 5):
        [words] = violations(partial(RemoveObject, "v", path))
        assert f"must be an http or https URL, or a base64 JPEG, not {path!r}" in words
    assert ("image_mask must be a string, not NoneType",) == violations(
        lambda: barest("RemoveObject", image_mask=None)
    )


@pytest.mark.parametrize("name", [name for name in BAREST if hasattr(BAREST[name][0](), "video_id")])
def test_a_video_stands_for_its_id(name: str) -> None:
    """Post-processing takes a `Video`, its id, or a result with one video, and refuses a result with more."""
    video = Video(id="video-1", task_id="task-1", url=A)
    assert barest(name) == barest(name, video_id=video)
    assert ("video_id must not be empty",) == violations(lambda: barest(name, video_id=""))
    assert barest(name) == barest(name, video_id=VideoResult(task_id="task-1", videos=(video,)))
    result = VideoResult(task_id="task-1", videos=(video, video))
    assert ("video_id must be a string, not VideoResult",) == violations(
        lambda: barest(name, video_id=result)
    )
