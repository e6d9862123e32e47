"""The modalities, ours and those that packages beside ours announce, and their recipes by name."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from itertools import chain
from pathlib import Path
from typing import Any

from data2vec2.config.model import ModalityConfig
from data2vec2.config.run import DataConfig, FinetuneConfig, FinetuneDataConfig, RunConfig, TaskConfig
from data2vec2.config.tree import Kinds, from_dict, to_dict, updated
from data2vec2.errors import UsageError, UserError
from data2vec2.files import parse_yaml
from data2vec2.modalities.audio import SPEC as AUDIO
from data2vec2.modalities.image import SPEC as IMAGE
from data2vec2.modalities.sound import SPEC as SOUND
from data2vec2.modalities.spec import Spec
from data2vec2.modalities.text import SPEC as TEXT

GROUP = "data2vec2.modalities"
"""Entry points by which other packages announce a `Spec`."""


@cache
def specs() -> Mapping[str, Spec]:
    """Every modality by its name. A package whose entry point can't be loaded is left out, which stderr says."""
    found: dict[str, Spec] = {spec.name: spec for spec in (IMAGE, AUDIO, TEXT, SOUND)}
    for point in entry_points(group=GROUP):
        try:
            spec = point.load()
            if not isinstance(spec, Spec) or spec.name in found:
                raise UsageError(f"a Spec with a name of its own is needed, not {spec!r:.80}")
            found[spec.name] = spec
        except Exception as error:  # whatever another package does, ours must work
            print(f"data2vec2: the modality {point.name} ({point.value}) is left out: {error}", file=sys.stderr)
    return found


def spec_of(kind: str) -> Spec:
    """The modality of a configuration's `kind`; `UsageError` if no installed package has it."""
    if kind not in specs():
        raise UsageError(f"no modality {kind!r} is installed; there are {', '.join(specs())}")
    return specs()[kind]


def kinds() -> Kinds:
    """Which class each part of a configuration has, by modality."""
    return {
        ModalityConfig: {name: spec.config for name, spec in specs().items()},
        DataConfig: {name: spec.data for name, spec in specs().items()},
        FinetuneDataConfig: {name: spec.finetune_data for name, spec in specs().items()},
        TaskConfig: {name: spec.task for name, spec in specs().items()},
    }


def recipes() -> dict[str, Callable[[], RunConfig]]:
    """Recipes of pre-training, of all modalities."""
    return {name: recipe for spec in specs().values() for name, recipe in spec.recipes.items()}


def finetune_recipes() -> dict[str, Callable[[], FinetuneConfig]]:
    """Recipes of fine-tuning, of all modalities and tasks."""
    found = (recipes.items() for spec in specs().values() for recipes in spec.finetune.values())
    return dict(chain.from_iterable(found))


def get_recipe(name: str) -> RunConfig:
    """The configuration of a recipe; `UsageError` with the nearest name if there is none of this name."""
    if name in finetune_recipes():
        raise UsageError(f"{name} is a recipe of fine-tuning, not of pre-training; there are {', '.join(recipes())}")
    return _of_name(name, recipes(), "recipe")  # type: ignore[no-any-return]


def get_finetune_recipe(name: str) -> FinetuneConfig:
    """The same for recipes of fine-tuning."""
    if name in recipes():
        there = ", ".join(finetune_recipes())
        raise UsageError(f"{name} is a recipe of pre-training, not of fine-tuning; there are {there}")
    return _of_name(name, finetune_recipes(), "fine-tuning recipe")  # type: ignore[no-any-return]


def _of_name(name: str, among: Mapping[str, Callable[[], Any]], what: str) -> Any:
    if name not in among:
        near = difflib.get_close_matches(name, among, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(among)}"
        raise UsageError(f"no {what} {name!r}; {hint}")
    return among[name]()


def run_config(name: str, recipe: Callable[[str], RunConfig] = get_recipe) -> RunConfig:
    """The configuration of a recipe, or of a YAML file, which has what it leaves out from the recipe that it names.

    `UserError` for a file that can't be read, `UsageError` for a recipe or a value that can't be.
    """
    return read_run_config(_file_values(name, recipe)) if is_file_name(name) else recipe(name)


def finetune_config(name: str, recipe: Callable[[str], FinetuneConfig] = get_finetune_recipe) -> FinetuneConfig:
    """The same for fine-tuning."""
    return read_finetune_config(_file_values(name, recipe)) if is_file_name(name) else recipe(name)


def unset_in(asked: object) -> frozenset[str]:
    """The fields that a YAML file says are none, as `optim.clip_norm`, those of a task without its name; else none."""

    def unset(values: Any, prefix: str = "") -> Iterator[str]:
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if value is None:
                yield f"{prefix}{key}"
            yield from unset(value, "" if key == "task" else f"{prefix}{key}.")

    return frozenset(unset(_parsed(asked))) if isinstance(asked, str) and is_file_name(asked) else frozenset()


def read_run_config(values: Any) -> RunConfig:
    """The configuration of pre-training in a nested dictionary; `UsageError` for one that can't be."""
    return from_dict(RunConfig, values, kinds=kinds())


def read_finetune_config(values: Any) -> FinetuneConfig:
    """The configuration of fine-tuning in a nested dictionary, also in the layout before `task`."""
    return from_dict(FinetuneConfig, _with_task(values), kinds=kinds())


def _with_task(values: Any) -> Any:
    """Put `model`, `augment` and `masks` of the former layout into `task`; its `tokenizer` is always the model's."""
    if not isinstance(values, Mapping) or "task" in values:
        return values
    parts = {name: values[name] for name in ("model", "augment", "masks") if name in values}
    others = {name: value for name, value in values.items() if name not in (*parts, "tokenizer")}
    data = values.get("data")
    if isinstance(data, Mapping) and "kind" in data:
        parts["kind"] = data["kind"]
    return {**others, "task": parts}


def is_file_name(name: str) -> bool:
    """Whether a user means a file, not a recipe."""
    return name.endswith((".yaml", ".yml"))


def _parsed(path: str) -> Any:
    try:
        return parse_yaml(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = " ".join((getattr(error, "strerror", None) or str(error)).split())  # YAML's own errors have several lines
        raise UserError(f"{path} can't be read: {why}") from error


def _file_values(path: str, recipe: Callable[[str], Any]) -> Any:
    values = _parsed(path)
    name = values.get("recipe") if isinstance(values, Mapping) else None
    if not isinstance(name, str):
        return values
    given = _with_task(values) if isinstance(recipe(name), FinetuneConfig) else values
    return updated(to_dict(recipe(name)), given)
