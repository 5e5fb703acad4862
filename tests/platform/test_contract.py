"""
What a contract of the platform says of the built-in tables, in whatever shape it comes.
"""

from __future__ import annotations

import pytest

from veo_async import MODELS
from veo_async.platform.contract import differences

CURRENT = sorted(model.name for model in MODELS.values() if not model.retired)


@pytest.mark.parametrize("answer", [None, [], {}, "text", [1, None], {"definition": {"properties": [1]}}])
def test_an_answer_without_models_says_nothing(answer: object) -> None:
    assert None is differences(answer)


@pytest.mark.parametrize("model", [None, 1, {}, {"enum": 1}, {"enum": [None, 1]}])
def test_a_model_without_names_says_nothing(model: object) -> None:
    assert None is differences({"properties": {"model": model}})


def test_values_are_found_wherever_schemas_stand() -> None:
    """Some APIs nest their schemas, and some name them apart; several lists of one field count together."""
    apart = {"schemas": {"A": {"properties": {"model": {"enum": CURRENT[:2]}}}}}
    nested = [{"schema": {"properties": {"inner": {"properties": {"model": {"enum": [*CURRENT[2:], 7]}}}}}}]
    assert [] == differences({"components": apart, "paths": nested})


def test_the_smallest_resolution_may_be_listed_or_left_out() -> None:
    """It is what one gets without any."""
    for resolutions in (["1080p", "4k", "gif"], ["720p", "1080p", "4k", "gif"]):
        found = differences({"properties": {"model": {"enum": CURRENT}, "resolution": {"enum": resolutions}}})
        assert [] == found


def test_a_difference_names_the_field_and_the_values() -> None:
    found = differences({"properties": {"model": {"enum": [*CURRENT, "veo4", "veo2"]}}})
    assert ["model veo4: not known to this version", "model veo2: retired by this version"] == found
