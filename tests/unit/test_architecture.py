"""The structure of the code: who may import whom, how long a piece may be, what is never used."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

import data2vec2
from data2vec2.cli import VERBS
from data2vec2.config import RunConfig, from_dict, to_dict
from data2vec2.models import Data2Vec2
from data2vec2.recipes import RECIPES, get_recipe

SOURCE = Path(data2vec2.__file__).parent
ROOT = "data2vec2"

# A module or folder directly under data2vec2, and its layer. Imports go down, or sideways inside one folder.
LAYERS = {
    "config": 0, "errors": 0, "version": 0, "registration": 0,
    "nn": 1, "masking": 1, "targets": 1, "losses": 1, "rng": 1, "recipes": 1,
    "data": 2, "training": 2,
    "modalities": 3,
    "models": 4,
    "evaluation": 5,
    "tasks": 6,
    "interop": 7, "reporting": 7,
    "commands": 8,
    "cli": 9,
    "__main__": 10,
}  # fmt: skip
PAGES = {"masking", "targets", "losses", "rng"}
"""The single files of layer 1, which stand in one folder."""
ONLY = {"config": set[str](), "errors": set[str](), "version": set[str](), "registration": set[str](), "nn": {"torch"}}
"""Parts that may use nothing but the standard library, the package and these."""
NOT_AT_IMPORT = {
    "torchvision", "torchaudio", "torchcodec", "timm", "lightning", "pytorch_lightning", "accelerate",
    "onnx", "onnxscript", "onnxruntime",
}  # fmt: skip
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
WRITES_PICKLES = "data2vec2.interop.fairseq.files"
"""The one module that may call `torch.save`: files for the original's tools, which read nothing else."""
MAX_FILE, MAX_FUNCTION = 330, 70

MODULES = {
    ".".join([ROOT, *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imported(tree: ast.AST, module: str) -> set[str]:
    """Full names of all that is imported anywhere in a module; of `from a import b` also `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; write the full name"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def part_of(module: str) -> str:
    """The module or folder directly under the package; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def may_import(source: str, target: str) -> bool:
    """Whether a part may import from another."""
    return source == target or LAYERS[target] < LAYERS[source] or {source, target} <= PAGES


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but the insides of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def dangers(tree: ast.AST) -> list[str]:
    """Uses of pickle, unrestricted `torch.load`, `torch.save`, `eval`, `exec` and NumPy's pickled arrays."""
    found = [name for name in imported(tree, "") if name.split(".")[0] in NEVER]
    restricted = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "weights_only=True" in map(ast.unparse, node.keywords)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            found.append(node.func.id)
        elif ast.unparse(node) in ("torch.load", "torch.save") and node not in restricted:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


def test_every_part_has_a_layer() -> None:
    assert {part_of(module) for module in MODULES} - {""} == set(LAYERS)


@pytest.mark.parametrize("module", [module for module in MODULES if module != ROOT])
def test_imports_go_down(module: str) -> None:
    part = part_of(module)
    names = imported(parsed(module), module)
    inner = {part_of(name) for name in names if name.startswith(f"{ROOT}.")} & set(LAYERS)
    wrong = sorted(target for target in inner if not may_import(part, target))
    assert not wrong, f"{module} (layer {LAYERS[part]}) imports from {wrong}"
    if part in ONLY:
        foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {ROOT} - ONLY[part]
        assert not foreign, f"{module} imports {foreign}"


def test_the_package_itself_imports_almost_nothing() -> None:
    lines = [node for node in parsed(ROOT).body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for line in lines for name in imported(line, ROOT)}
    assert {part_of(name) for name in names if name.startswith(ROOT)} <= {"registration", "version"}


def test_no_import_circle() -> None:
    graph = {module: {name for name in imported(parsed(module), module) if name in MODULES} for module in MODULES}
    del graph[ROOT]  # its imports of other parts happen on first use
    for targets in graph.values():
        targets.discard(ROOT)
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which shows the circle


@pytest.mark.parametrize("module", MODULES)
def test_nothing_fragile_is_imported_with_a_module(module: str) -> None:
    names = set().union(
        *(imported(node, module) for node in at_import(parsed(module)) if isinstance(node, ast.Import | ast.ImportFrom))
    )
    assert not {name.split(".")[0] for name in names} & NOT_AT_IMPORT


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle_and_no_eval(module: str) -> None:
    assert dangers(parsed(module)) == (["torch.save"] if module == WRITES_PICKLES else [])


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_are_short(module: str) -> None:
    lines = len(MODULES[module].read_text("utf-8").splitlines())
    assert lines <= MAX_FILE, f"{module} has {lines} lines"
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION, f"{module}.{node.name} has {length} lines"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "x = torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_checks_see_what_is_forbidden(text: str) -> None:
    assert dangers(ast.parse(text))


def test_the_checks_allow_what_is_allowed() -> None:
    assert not dangers(ast.parse("model.eval(); np.load(f, allow_pickle=False); torch.load(f, weights_only=True)"))
    assert may_import("cli", "config")
    assert not may_import("config", "cli")
    assert not may_import("data", "training")


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_needs_no_torch(arguments: list[str]) -> None:
    program = (
        "import sys, atexit\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'matplotlib'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        "from data2vec2.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_round_trips(name: str) -> None:
    config = get_recipe(name)
    assert config.recipe == name
    assert from_dict(RunConfig, to_dict(config)) == config
    assert from_dict(RunConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    with torch.device("meta"):
        assert sum(p.numel() for p in Data2Vec2(config.model).student.parameters()) > 0
