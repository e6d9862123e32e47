"""Recipes: functions that return a complete run configuration."""

from __future__ import annotations

import difflib

from data2vec2.config import RunConfig
from data2vec2.recipes.audio import audio_base, audio_large, audio_mel_base, audio_mel_tiny, audio_tiny
from data2vec2.recipes.image import image_base, image_huge14, image_large, image_tiny
from data2vec2.recipes.text import text_base, text_large, text_tiny

_IMAGE = (image_tiny, image_base, image_large, image_huge14)
_AUDIO = (audio_mel_tiny, audio_mel_base, audio_tiny, audio_base, audio_large)
_TEXT = (text_tiny, text_base, text_large)
RECIPES = {recipe.__name__: recipe for recipe in (*_IMAGE, *_AUDIO, *_TEXT)}


DEMO_RECIPES = {"image": "image_tiny", "audio": "audio_mel_tiny", "text": "text_tiny"}
"""Kinds of demonstration, and their recipes."""


def get_recipe(name: str) -> RunConfig:
    """The configuration of a recipe; `ValueError` with the nearest name if there is none of this name."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe {name!r}; {hint}")
    return RECIPES[name]()


__all__ = ["DEMO_RECIPES", "RECIPES", "get_recipe"]
