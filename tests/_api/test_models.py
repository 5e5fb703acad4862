"""
The table of models, cell by cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import pytest

from veo_async._api.models import DEFAULT_MODEL, INGREDIENTS_MODEL, MODELS, Model

from .barest import each_model

# The vendor's documents once more, in another form: tier, text alone, most images, resolutions, retired.
SMALL: Final = ("1080p", "gif")
DOCUMENTED: Final[Mapping[str, tuple[str, bool, int, tuple[str, ...], bool]]] = {
    "veo2": ("quality", True, 3, SMALL, True),
    "veo2-fast": ("fast", True, 1, SMALL, True),
    "veo3": ("quality", True, 3, SMALL, False),
    "veo3-fast": ("fast", True, 3, SMALL, False),
    "veo31": ("quality", True, 3, (*SMALL, "4k"), False),
    "veo31-fast": ("fast", True, 3, SMALL, False),
    "veo31-fast-ingredients": ("fast", False, 3, SMALL, False),
}


def test_the_table_has_the_documented_models() -> None:
    """All seven models are there, each under its own name, and no other."""
    assert list(DOCUMENTED) == list(MODELS)
    assert list(MODELS) == [model.name for model in MODELS.values()]


@each_model
def test_each_cell_says_what_the_documents_say(model: Model) -> None:
    """Tier, text alone, number of images, resolutions and retirement are the vendor's."""
    most = max(model.images)
    cells = (model.tier, model.text, most, model.resolutions, model.retired is not None)
    assert DOCUMENTED[model.name] == cells
    assert list(range(1, most + 1)) == list(model.images)


@each_model
def test_each_cell_has_its_source(model: Model) -> None:
    """No cell of the table is without a source, and none is named that the table does not have."""
    assert {cell.name for cell in attrs.fields(Model)} - {"sources"} == set(model.sources)
    assert all(source.strip() for source in model.sources.values())


@each_model
def test_each_number_of_images_has_a_meaning(model: Model) -> None:
    """Frames are frames and ingredients are fused; one image is never a last frame."""
    frames = {1: "first frame", 2: "first and last frame", 3: "first and last frame"}
    fused = model.name == INGREDIENTS_MODEL
    assert model.images == {count: "fusion" if fused else frames[count] for count in model.images}


def test_the_table_cannot_be_changed() -> None:
    """A program cannot alter a row, nor put one in by accident; rows can be put into a set."""
    with pytest.raises(TypeError):
        MODELS["mine"] = MODELS["veo31"]  # type: ignore[index]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MODELS["veo31"].tier = "fast"  # type: ignore[misc]
    assert 7 == len(set(MODELS.values()))


def test_the_defaults_are_in_the_table() -> None:
    """The model that is sent where none is named can do what is asked."""
    assert MODELS[DEFAULT_MODEL].text
    assert MODELS[DEFAULT_MODEL].retired is None
    assert "fusion" == MODELS[INGREDIENTS_MODEL].images[3]
