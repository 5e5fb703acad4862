"""
Scripts decide what becomes of the submits that they describe.
"""

from __future__ import annotations

from typing import Any

import pytest

from veo_async.simulator import Core, Script, Settings

NOW = 1_767_225_600.0
WHALE = {"action": "text2video", "prompt": "a whale", "model": "veo31-fast", "async": True}
STORM = WHALE | {"prompt": "a storm at sea"}


def _core(*scripts: Script, **settings: Any) -> Core:
    core = Core(Settings(mean=100.0, sigma=0.0, **settings), clock=lambda: NOW)
    core.scripts.extend(scripts)
    return core


def _accepted(core: Core, body: dict[str, Any], path: str = "/veo/videos") -> Any:
    return core.tasks[core.post(path, body).json()["task_id"]]


def test_a_task_fails_as_scripted_when_it_ends() -> None:
    """The submit is accepted; the task ends after its usual time, with the script's code and message."""
    task = _accepted(_core(Script(prompt="*storm*", fails="forbidden", message="no storms")), STORM)
    assert ("forbidden", "no storms") == task.error
    assert (NOW + 100.0, "pending", "failed") == (task.ends_at, task.state(NOW), task.state(NOW + 100.0))


def test_a_submit_is_refused_as_scripted() -> None:
    """Nothing is accepted, and the answer has the code's own status."""
    core = _core(Script(refused="used_up"))
    reply = core.post("/veo/videos", WHALE)
    assert (403, "used_up", 0) == (reply.status, reply.json()["error"]["code"], core.accepted)


def test_a_task_takes_as_long_and_makes_as_many_videos_as_scripted() -> None:
    """Its seconds are divided by the speed, as those of the settings are."""
    task = _accepted(_core(Script(takes=300.0, videos=3), speed=10.0), WHALE)
    assert (NOW + 30.0, 3, None) == (task.ends_at, task.videos, task.error)


def test_without_an_outcome_the_settings_decide() -> None:
    """A script that says nothing else only keeps its submits from later ones."""
    core = _core(Script(prompt="a whale"), Script(fails="forbidden"))
    assert [None, ("forbidden", "the script says so")] == [
        _accepted(core, body).error for body in (WHALE, STORM)
    ]


def test_the_first_script_that_matches_is_used_as_often_as_it_says() -> None:
    """Once its times are used up, the next one is; who never matched has a count of zero."""
    scripts = Script(fails="timeout", times=1), Script(prompt="a *", fails="forbidden"), Script()
    core = _core(*scripts)
    assert ["timeout", "forbidden", "forbidden"] == [_accepted(core, WHALE).error[0] for _ in range(3)]
    assert [1, 2, 0] == [script.matched for script in scripts]


def test_what_is_malformed_is_no_match() -> None:
    """A submit that the API would refuse anyway uses up no script."""
    script = Script()
    assert 400 == _core(script).post("/veo/videos", {"action": "text2video"}).status
    assert 0 == script.matched


PICTURE = WHALE | {"action": "image2video", "image_urls": ["https://example.com/a.jpg"]}
INGREDIENTS = {"action": "ingredients2video", "image_urls": ["https://example.com/a.jpg"]}


@pytest.mark.parametrize(
    ("script", "body", "matches"),
    [
        (Script(), WHALE, True),
        (Script(prompt="*STORM*"), STORM, False),
        (Script(prompt="*"), INGREDIENTS, True),
        (Script(prompt="?*"), INGREDIENTS, False),
        (Script(type="text2video"), WHALE, True),
        (Script(type="image2video"), WHALE, False),
        (Script(type="image2video"), PICTURE, True),
        (Script(model="veo31"), WHALE, False),
        (Script(model="veo31*"), WHALE, True),
        (Script(model="veo31-fast-ingredients"), INGREDIENTS, True),
        (Script(prompt="a whale", type="text2video", model="veo3"), WHALE, False),
    ],
)
def test_a_script_matches_by_prompt_type_and_model(
    script: Script, body: dict[str, Any], matches: bool
) -> None:
    """All that it names must fit; the model is the one that the server would take."""
    assert matches == script.matches("/veo/videos", body, Settings())


def test_other_endpoints_are_types_of_their_own() -> None:
    """An upsample has an action, too, but its type is the endpoint."""
    body = {"action": "1080p", "video_id": "abc"}
    assert Script(type="upsample").matches("/veo/upsample", body, Settings())
    assert not Script(type="extend").matches("/veo/upsample", body, Settings())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "TextToVideo"}, "'type' must be in"),
        ({"refused": "forbiden"}, "'forbiden' is no code of a refusal, only token_mismatched"),
        ({"refused": "forbidden", "takes": 3.0}, "what is refused has no task"),
        ({"takes": -1.0}, "'takes' must be >= 0"),
        ({"videos": 9}, "'videos' must be in"),
        ({"times": 0}, "'times' must be > 0"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    """What could never match, or has no meaning, is an error where it is written."""
    with pytest.raises(ValueError, match=words):
        Script(**fields)
