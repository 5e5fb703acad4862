"""
JsonLogic as far as price lists need it: what is not understood is unknown, and never false.
"""

from __future__ import annotations

from typing import Any

import pytest

from veo_async.platform.json_logic import UnknownRule, evaluate

BODY: dict[str, Any] = {"model": "veo31", "image_urls": ["a", "b"], "n": 2, "deep": {"er": "x"}, "off": False}


def var(name: str) -> dict[str, Any]:
    return {"var": name}


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (7, 7),
        ({}, {}),
        (var("model"), "veo31"),
        (var("deep.er"), "x"),
        (var("image_urls.1"), "b"),
        (var("image_urls.2"), None),
        (var("image_urls." + "9" * 5000), None),
        (var("model.er"), None),
        ({"var": ["missing", "other"]}, "other"),
        ({"var": ""}, BODY),
        ({"or": [var("off"), var("missing")]}, None),
        ({"and": [True, var("n")]}, 2),
        ({"==": [var("model"), "veo31"]}, True),
        ({"==": [var("missing"), None]}, True),
        ({"==": [var("model"), None]}, False),
        ({"!=": [var("model"), "veo3"]}, True),
        ({"===": [1, "1"]}, False),
        ({"===": [True, 1]}, False),
        ({"!==": [1, 1.0]}, False),
        ({"in": [var("model"), ["veo3", "veo31"]]}, True),
        ({"in": ["veo", var("model")]}, True),
        ({"in": ["veo", var("missing")]}, False),
        ({"!": var("off")}, True),
        ({"!!": [[]]}, False),
        ({"!!": ["0"]}, True),
        ({"<": [1, var("n"), 3]}, True),
        ({">=": [var("n"), 3]}, False),
        ({"and": [True, var("off"), {"unheard": 1}]}, False),
        ({"or": [var("off"), "yes", {"unheard": 1}]}, "yes"),
        ({"if": [var("off"), {"unheard": 1}, True, 5, 6]}, 5),
        ({"?:": [var("off"), 1, 2]}, 2),
        ({"if": [False, 1]}, None),
    ],
)
def test_a_known_rule_has_a_value(rule: Any, value: Any) -> None:
    """Each operator does what JsonLogic says, and evaluates no more than it needs."""
    assert value == evaluate(rule, BODY)


def nested(levels: int) -> Any:
    rule: Any = True
    for _ in range(levels):
        rule = {"!": [rule]}
    return rule


@pytest.mark.parametrize(
    "rule",
    [
        {"reduce": [var("image_urls"), 1, 0]},
        {"and": [True, {"unheard": 1}]},
        {"==": [1, "1"]},
        {"==": [True, 1]},
        {"==": [1]},
        {"<": ["a", "b"]},
        {"<": [True, 2]},
        {"<": [1]},
        {"in": ["a", 7]},
        {"var": [True]},
        {"var": [None]},
        {"==": [1, 1], "!=": [1, 2]},
        nested(1000),
    ],
)
def test_an_unknown_rule_is_told(rule: Any) -> None:
    """An operator, a conversion or a depth that is not known here is no answer."""
    with pytest.raises(UnknownRule):
        evaluate(rule, BODY)
