"""The structure of the code: who may import whom, who may ask for a modality by name, what is never used."""

import ast
import graphlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import data2vec2

SOURCE = Path(data2vec2.__file__).parent
ROOT = "data2vec2"

# A module or folder directly under data2vec2, and its layer. Imports go down, or sideways inside one folder.
LAYERS = {
    "errors": 0, "version": 0, "registration": 0, "rng": 0,
    "config": 1, "files": 1,
    "data": 2, "training": 2,
    "method": 3,
    "evaluation": 4,
    "tasks": 5,
    "modalities": 6,
    "interop": 7, "reporting": 7,
    "commands": 8,
    "api": 9,
    "cli": 10,
    "__main__": 11,
    "torchrun": 11,
}  # fmt: skip
LIGHT = {"errors", "version", "registration", "config"}
"""Parts that use nothing but the standard library, so that `--help` and `import data2vec2` are quick."""
NOT_AT_IMPORT = {
    "torchvision", "torchaudio", "torchcodec", "timm", "lightning", "pytorch_lightning", "accelerate",
    "onnx", "onnxscript", "onnxruntime",
}  # fmt: skip
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    *(
        "os.system",
        "os.popen",
        "subprocess.getoutput",
        "subprocess.getstatusoutput",
        "torch.hub.load",
        "runpy.run_path",
    ),
    *(f"yaml.{name}" for name in ("load", "load_all", "full_load", "unsafe_load", "safe_load", "Loader", "FullLoader")),
    *("yaml.UnsafeLoader", "json.load", "json.loads"),
}
UNSAFE = {"shell": "True", "trust_remote_code": "True", "weights_only": "False", "autoescape": "False"}
"""Arguments that no call may have."""
ALLOWED = {
    "data2vec2.interop.fairseq.original": {"torch.save"},  # files for the original's tools, which read nothing else
    "data2vec2.files": {"json.loads", "yaml.load"},  # where they are bounded
}
"""The modules that may use what is dangerous, and why."""

KIND = r"""["'](image|audio|text)["']"""
DECIDES = re.compile(
    rf"(==|!=)\s*{KIND}|\bin\s*[(\[{{]\s*{KIND}|isinstance\([^)]*\b(Image|Audio|Text)[A-Z]\w*|{KIND}\s*:|case {KIND}"
)
ASKS_FOR_A_MODALITY = {
    "interop/fairseq/config.py": "the original has three modalities, with names and settings of their own",
    "interop/fairseq/keys.py": "and their tensors have names of their own",
}
"""Files outside `modalities/` that decide by modality, with their reasons: at most five."""
LONG_FILE, LONG_FUNCTION = 330, 70
LONG_FOR_A_REASON = {
    "data/records.py": "how any source is found, becomes samples and is kept stands in one place",
    "commands/options.py": "every verb's options stand in one place",
    "cli.py": "every verb's words and what is said of its result stand in one place",
}
"""Longer files than most; another one is a warning, not an error."""

MODULES = {
    ".".join([ROOT, *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in MODULES.items()}


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


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but the insides of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def dangers(tree: ast.AST) -> list[str]:
    """Uses of what runs code that a file or a word of the user's brings.

    Pickle, unrestricted `torch.load`, `torch.save`, `eval`, `exec`, shells, code of the hub, NumPy's pickled arrays,
    pages that escape nothing; JSON and YAML but by `files.parse_json` and `files.parse_yaml`, which bound them.
    """
    found = [name for name in imported(tree, "") if name.split(".")[0] in NEVER]
    restricted = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "weights_only=True" in map(ast.unparse, node.keywords)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RUNS:
            found.append(node.func.id)
        elif (
            (isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS)
            or (isinstance(node, ast.keyword) and ast.unparse(node.value) == UNSAFE.get(node.arg or "", "?"))
            or (ast.unparse(node) in ("torch.load", "torch.save") and node not in restricted)
        ):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append("allow_pickle")
    return found


def wrong_imports(module: str, tree: ast.AST) -> list[str]:
    """What a module imports that lies above it, or that its part may not use."""
    part, names = part_of(module), imported(tree, module)
    inner = {part_of(name) for name in names if name.startswith(f"{ROOT}.")} & set(LAYERS)
    wrong = [f"{ROOT}.{other}" for other in inner if other != part and LAYERS[other] >= LAYERS[part]]
    foreign = ({name.split(".")[0] for name in names} - sys_names()) if part in LIGHT else set()
    return sorted([*wrong, *foreign])


def sys_names() -> set[str]:
    """Top-level names of the standard library, and ours."""
    import sys

    return {*sys.stdlib_module_names, ROOT}


def test_the_house() -> None:
    """Every part has a layer; imports go down and in no circle; nothing fragile or unsafe is used."""
    assert {part_of(module) for module in MODULES} - {""} == set(LAYERS)
    wrong = {module: wrong_imports(module, tree) for module, tree in TREES.items() if module != ROOT}
    assert not {module: names for module, names in wrong.items() if names}

    lines = [node for node in TREES[ROOT].body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {name for line in lines for name in imported(line, ROOT)}
    assert {part_of(name) for name in names if name.startswith(ROOT)} <= {"registration", "version"}

    graph = {module: {name for name in imported(tree, module) if name in MODULES} for module, tree in TREES.items()}
    del graph[ROOT]  # its imports of other parts happen on first use
    list(graphlib.TopologicalSorter({m: deps - {ROOT, m} for m, deps in graph.items()}).static_order())  # or CycleError

    for module, tree in TREES.items():
        here = [node for node in at_import(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        fragile = {name.split(".")[0] for node in here for name in imported(node, module)} & NOT_AT_IMPORT
        assert not fragile, f"{module} imports {fragile} when it is imported"
        assert set(dangers(tree)) == ALLOWED.get(module, set()), module


def test_only_modalities_know_modalities() -> None:
    """Commands, tasks, reports and the command line ask a `Spec`; the exceptions are listed, and few."""
    files = {path.relative_to(SOURCE).as_posix(): path.read_text("utf-8") for path in MODULES.values()}
    found = {name for name, text in files.items() if not name.startswith("modalities/") and DECIDES.search(text)}
    assert found == set(ASKS_FOR_A_MODALITY)
    assert len(found) <= 5


def test_long_files_and_functions_have_a_reason() -> None:
    """A warning, because a cap bends code: shorten the piece, or give its reason above."""
    long = {}
    for module, path in MODULES.items():
        name, lines = path.relative_to(SOURCE).as_posix(), len(path.read_text("utf-8").splitlines())
        if lines > LONG_FILE:
            long[name] = lines
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONG_FUNCTION:
                    long[f"{name}:{node.name}"] = length
    for name in long.keys() - LONG_FOR_A_REASON.keys():
        warnings.warn(f"{name} has {long[name]} lines, and no reason in {Path(__file__).name}", stacklevel=1)
    assert not LONG_FOR_A_REASON.keys() - long.keys(), "these are short now; take their reasons out"


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "x = torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.safe_load(text)",
        "json.loads(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "jinja2.Environment(autoescape=False)",
    ],
)
def test_the_checks_see_what_is_forbidden(text: str) -> None:
    assert dangers(ast.parse(text))


def test_the_checks_see_wrong_imports_and_decisions() -> None:
    assert not dangers(ast.parse("model.eval(); np.load(f, allow_pickle=False); torch.load(f, weights_only=True)"))
    assert not wrong_imports("data2vec2.cli", ast.parse("from data2vec2.config import RunConfig"))
    assert wrong_imports("data2vec2.config.run", ast.parse("from data2vec2.cli import main")) == ["data2vec2.cli"]
    assert wrong_imports("data2vec2.data.batch", ast.parse("import data2vec2.training.loop"))
    assert wrong_imports("data2vec2.config.run", ast.parse("import torch")) == ["torch"]
    for text in ('kind == "image"', 'x in ("text", 1)', "isinstance(c, (int, AudioConfig))", '{"audio": 1}'):
        assert DECIDES.search(text), text
    assert not DECIDES.search('spec.name == kind or isinstance(data, Mapping) or words["pictures"]')
