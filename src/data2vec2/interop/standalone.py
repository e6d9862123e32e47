"""A model's own code as one file beside its weights, for Transformers where this package is not installed.

The file is made of this package's source: what the modality's classes for Transformers need, definition by definition,
as it stands here. What only pre-training needs is left out, and so are methods that mention it.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from data2vec2.errors import UserError
from data2vec2.files import read_json
from data2vec2.modalities import spec_of
from data2vec2.modalities.fields import class_name
from data2vec2.version import __version__

PACKAGE = __name__.partition(".")[0]
LEFT_OUT = frozenset({"RunConfig", "ModelConfig", "EmaConfig"})
"""Names that the file lacks, with the methods that mention them."""


def code_file(kind: str) -> str:
    """Name of the file of a modality: "modeling_data2vec2_image.py"."""
    return f"modeling_{PACKAGE}_{kind}.py"


def write_code(folder: Path, kind: str) -> None:
    """Put the code of a modality into an exported folder, whose JSON files then name it.

    `UserError` for a modality whose package has no classes of its own for Transformers.
    """
    spec = spec_of(kind)
    if not spec.transformers:
        raise UserError(
            f"models of {spec.words.many} have no classes of their own for Transformers (Spec.transformers), so there "
            "is no code to write; export without --standalone"
        )
    from data2vec2.modalities.transformers import REGISTERED

    found, file = REGISTERED[class_name(kind, "Config")], code_file(kind)
    used = {auto: made for auto, made in found.models.items() if not made.__name__.endswith("ForPreTraining")}
    models = {auto.__name__: made for auto, made in used.items()}
    files: dict[str, Mapping[str, type]] = {"config.json": {"AutoConfig": found.config, **models}, **found.files}
    wanted = [made for classes in files.values() for made in classes.values()] + list(found.also)
    (folder / file).write_text(source_of(wanted, f"Models of {spec.words.many}"), encoding="utf-8")
    for name, classes in files.items():
        if (path := folder / name).is_file():
            named = {auto: _reference(auto, f"{Path(file).stem}.{made.__name__}") for auto, made in classes.items()}
            path.write_text(json.dumps(read_json(path) | {"auto_map": named}, indent=2) + "\n", encoding="utf-8")


RUN = """
import json, sys
sys.modules["PACKAGE"] = None
import torch, transformers
from safetensors.torch import load_file, save_file

folder, work = sys.argv[1:]
config = json.load(open(f"{folder}/config.json", encoding="utf-8"))
(auto,) = [auto for auto, made in config["auto_map"].items() if made.split(".")[1] == config["architectures"][0]]
model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
for number in range(BATCHES):
    with torch.no_grad():
        found = model(**load_file(f"{work}/{number}.in")).to_tuple()
    save_file({str(place): tensor.contiguous() for place, tensor in enumerate(found)}, f"{work}/{number}.out")
"""
"""Runs a folder's model by its own code, in a process that can't import this package."""


def run_alone(folder: Path, batches: Sequence[Mapping[str, Tensor]]) -> list[tuple[Tensor, ...]]:
    """Outputs for batches of inputs by name, from the code in `folder`; `UserError` if it fails."""
    program = RUN.replace("PACKAGE", PACKAGE).replace("BATCHES", str(len(batches)))
    with tempfile.TemporaryDirectory() as work:
        for number, inputs in enumerate(batches):
            save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, Path(work) / f"{number}.in")
        environment = os.environ | {"HF_MODULES_CACHE": f"{work}/code", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", program, str(folder), work]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1:]
            raise UserError(f"the written code does not run here: {''.join(why)}; nothing was written")
        outputs = [load_file(Path(work) / f"{number}.out") for number in range(len(batches))]
    return [tuple(found[str(place)] for place in range(len(found))) for found in outputs]


def _reference(auto: str, name: str) -> Any:
    """A class as Transformers' files name it; of tokenizers there are two, slow and fast."""
    return [name, None] if auto == "AutoTokenizer" else name


def source_of(wanted: Sequence[type], title: str) -> str:
    """A module that defines `wanted` and whatever of this package they use; `ValueError` if two things share a name."""
    parts = _needed(wanted)
    modules = _in_order({module for module, _ in parts})
    imports = set[tuple[str, str]]()
    sections, names = [], dict[str, str]()
    for module in modules:
        own = _read(module)
        kept = [part for part in own.parts if part.names and (module, part.names[0]) in parts]
        for name in (name for part in kept for name in part.names):
            if names.setdefault(name, module) != module:
                raise ValueError(f"{name} is defined in {names[name]} and in {module}; rename one")
        known = {name for part in kept for name in part.names}
        effects = [part for part in own.parts if not part.names and _holds(own, part, parts, known)]
        shown = sorted((*kept, *effects), key=lambda part: part.first)
        if not shown:
            continue
        imports |= {own.outside[name] for part in shown for name in part.uses if name in own.outside}
        heading = "\n".join(f"# {line}".rstrip() for line in (ast.get_docstring(own.tree) or "").splitlines())
        sections.append("\n\n\n".join([heading, *(own.text(part) for part in shown)]))
    about = (
        f'"""{title} of {PACKAGE} {__version__} for Hugging Face Transformers, without that package.\n\n'
        f"Made from its source by `{PACKAGE} export --standalone`; change it there.\n"
        '"""'
    )
    return "\n\n\n".join([f"{about}\n\n{_import_lines(imports)}", *sections]) + "\n"


def _import_lines(imports: Iterable[tuple[str, str]]) -> str:
    """Statements for (module, thing), the thing "" for the module itself, of which the future's come first."""
    whole = sorted(f"import {module}" for module, thing in imports if not thing)
    some = dict[str, list[str]]()
    for module, thing in sorted(imports):
        if thing:
            some.setdefault(module, []).append(thing)
    lines = [f"from {module} import {', '.join(things)}" for module, things in some.items()]
    return "\n".join(["from __future__ import annotations\n", *whole, *lines])


@dataclass(frozen=True)
class Part:
    """One statement of a module."""

    first: int
    last: int
    """Lines, from 1, with decorators and the docstring of a value."""
    names: tuple[str, ...]
    """What it defines; nothing: it only has an effect."""
    uses: frozenset[str]
    """Names that it reads."""
    cut: tuple[tuple[int, int], ...] = ()
    """Lines in it that are left out: methods."""
    through: tuple[ast.Attribute, ...] = field(default=(), compare=False)
    """Things of modules of this package, `module.thing`."""


@dataclass(frozen=True)
class Source:
    """A module of this package, taken apart."""

    tree: ast.Module
    lines: Sequence[str]
    parts: Sequence[Part]
    inside: Mapping[str, tuple[str, str]]
    """Names that it imports of this package: module and name there, "" for the module itself."""
    outside: Mapping[str, tuple[str, str]]
    """And of others, in the same way, with "as ..." where it has another name here."""

    def text(self, part: Part) -> str:
        """The part as it stands in a file without this package."""
        lines = {number: self.lines[number - 1] for number in range(part.first, part.last + 1)}
        for found in sorted(part.through, key=lambda found: (found.lineno, found.col_offset), reverse=True):
            line, start = lines[found.lineno], found.col_offset
            assert found.lineno == found.end_lineno and found.end_col_offset is not None and line.isascii()
            lines[found.lineno] = line[:start] + found.attr + line[found.end_col_offset :]
        for first, last in part.cut:
            for number in range(first, last + 1):
                del lines[number]
        return "\n".join(lines.values()).rstrip()

    def defined(self, name: str) -> Part | None:
        """Where a name is defined."""
        return next((part for part in self.parts if name in part.names), None)


@cache
def _read(module: str) -> Source:
    """Take a module apart."""
    source = inspect.getsource(importlib.import_module(module))
    tree, lines = ast.parse(source), source.splitlines()
    inside, outside = dict[str, tuple[str, str]](), dict[str, tuple[str, str]]()
    statements = list[ast.stmt]()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                _sort_import(node, alias, inside, outside)
        else:
            statements.append(node)
    parts = list[Part]()
    for node in statements:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and parts and parts[-1].last == node.lineno - 1:
            parts[-1] = replace(parts[-1], last=node.end_lineno or 0)
        elif not is_text:
            parts.append(_part(node, inside, lines))
    return Source(tree, lines, parts, inside, outside)


def _sort_import(node: ast.Import | ast.ImportFrom, alias: ast.alias, inside: Any, outside: Any) -> None:
    """Put what a statement imports under `alias` into one of the two."""
    shown = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
    name = alias.asname or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
    if isinstance(node, ast.Import):
        outside[name] = shown, ""
    elif node.module == "__future__":
        return
    elif (node.module or "").partition(".")[0] == PACKAGE:
        assert node.module is not None
        is_module = isinstance(vars(importlib.import_module(node.module)).get(alias.name), ModuleType)
        inside[name] = (f"{node.module}.{alias.name}", "") if is_module else (node.module, alias.name)
    else:
        outside[name] = node.module or "", shown


def _part(node: ast.stmt, inside: Mapping[str, tuple[str, str]], lines: Sequence[str]) -> Part:
    """A statement that is no import."""
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(one.lineno for one in decorators)])
    while lines[first - 2].startswith("#"):  # what is said of it
        first -= 1
    names: tuple[str, ...] = ()
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names = (node.name,)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        inner = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
        names = tuple(one.id for one in inner if isinstance(one, ast.Name))
    members = [member for member in getattr(node, "body", ()) if isinstance(member, ast.FunctionDef)]
    without = [member for member in members if LEFT_OUT & set(_names(member))]
    cut = tuple(_span(member, lines) for member in without)
    gone = {id(inner) for member in without for inner in ast.walk(member)}
    kept = [inner for inner in ast.walk(node) if id(inner) not in gone]
    uses = {inner.id for inner in kept if isinstance(inner, ast.Name)}
    through = [
        inner
        for inner in kept
        if isinstance(inner, ast.Attribute)
        and isinstance(inner.value, ast.Name)
        and inside.get(inner.value.id, ("", "-"))[1] == ""
    ]
    return Part(first, node.end_lineno or 0, names, frozenset(uses), cut, tuple(through))


def _names(node: ast.AST) -> Iterator[str]:
    return (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


def _span(member: ast.FunctionDef, lines: Sequence[str]) -> tuple[int, int]:
    """Lines of a method, with decorators and the empty one before."""
    first = min([member.lineno, *(one.lineno for one in member.decorator_list)])
    return first - (not lines[first - 2].strip()), member.end_lineno or 0


def _found_in(own: Source, module: str, part: Part) -> Iterator[tuple[str, str]]:
    """Things of this package that a part of a module uses: module and name."""
    for name in part.uses:
        if own.defined(name):
            yield module, name
        elif name in own.inside and own.inside[name][1]:
            yield own.inside[name]
    for attribute in part.through:
        assert isinstance(attribute.value, ast.Name)
        yield own.inside[attribute.value.id][0], attribute.attr


def _needed(wanted: Iterable[type]) -> set[tuple[str, str]]:
    """Module and name of everything of this package that `wanted` need, themselves included."""
    found, open_ = set[tuple[str, str]](), [(made.__module__, made.__name__) for made in wanted]
    while open_:
        module, name = open_.pop()
        own = _read(module)
        if (part := own.defined(name)) is None:  # imported there from elsewhere
            open_.append(own.inside[name])
            continue
        if (module, part.names[0]) not in found:
            found |= {(module, one) for one in part.names}
            open_ += _found_in(own, module, part)
    return found


def _holds(own: Source, part: Part, parts: set[tuple[str, str]], known: set[str]) -> bool:
    """Whether all that a statement with an effect speaks of is in the file, and something of its module is."""
    own_names = {name for name in part.uses if own.defined(name)}
    others = {own.inside[name] for name in part.uses if name in own.inside}
    return bool(known) and own_names <= known and others <= parts


def _in_order(modules: Iterable[str]) -> list[str]:
    """The modules, each after those that it imports."""
    found = list[str]()

    def visit(module: str) -> None:
        if module not in found and module in wanted:
            for other, _ in sorted(_read(module).inside.values()):
                visit(other)
            if module not in found:
                found.append(module)

    wanted = set(modules)
    for module in sorted(wanted):
        visit(module)
    return found
