"""Write down what training and using models computes, number by number, and show later that it is still the same.

    python tests/fingerprints.py record FILE.json               run every case and write what came out
    python tests/fingerprints.py compare FILE.json              run every case again and compare
    python tests/fingerprints.py compare FILE.json OTHER.json   compare two files

This is no test: the numbers hold for one machine and its packages. Record before a change of the code and compare after
it; each takes about five minutes on one core. `--only image` (audio, text) leaves the other modalities out.

All goes through the command line: recipes of pre-training and of fine-tuning, for 20 updates on bundled data, the large
ones narrow and shallow (`record` says which recipes have no case yet); some of these runs resumed from their middle,
which must change nothing; then the models evaluated and used. Kept are the figures of metrics.jsonl, the tensors of all
batches, the exported and saved weights, exported settings, scores, answers, and each recipe's values at its full size.
Left out are `elapsed_s` and `samples_per_s`, which no two runs share, and what is for people to read: README.md,
report.html, train.log, pictures.

Modules can move: `train_loop` searches the package. Change it if the function that makes the updates no longer has
arguments `task`, `config` and `asked_to_stop`, and `Watched` if a task has no `batches(start, stop)`, or these no
`weight` and `split(size)`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "DATA2VEC2_TRACEBACK": "1"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file

import data2vec2
from data2vec2.cli import main as command_line
from data2vec2.modalities import finetune_recipes
from data2vec2.modalities import recipes as pretraining_recipes

KINDS = ["image", "audio", "text"]
LOOP = (
    "--train.updates 20 --train.log-every 1 --train.eval-every 10 --train.save-every 10 --train.threads 1 "
    "--train.processes 1 --train.device cpu --train.precision float32 --data.workers"
)
NARROW = "--model.encoder.embed-dim 32 --model.encoder.num-heads 2 --model.decoder.dim 32"
SHALLOW = "--model.encoder.depth 3 --model.targets.average-layers 2"
PICTURES = f"{NARROW} {SHALLOW} --train.batch-size 4 --train.micro-batch 2 --model.modality.image-size"
SPEECH = f"{NARROW} {SHALLOW} --data.min-seconds 1 --data.max-seconds 3 --train.batch-size 12 --train.micro-batch 6"
WAVES = f"{SPEECH} --model.modality.conv-dim 16"
TEXT = f"{NARROW} {SHALLOW} --train.batch-size 4 --train.micro-batch 2 --model.modality.vocab-size 400"
PRETRAIN = {  # recipe: data, reading processes, flags
    "image_tiny": ("grey.npz", 0, "--train.micro-batch 8"),
    "image_base": ("pictures", 0, f"{PICTURES} 96 --model.encoder.prenet-depth 1"),
    "image_large": ("parquet", 0, f"{PICTURES} 96"),
    "image_huge14": ("tar", 1, f"{PICTURES} 84"),
    "audio_mel_tiny": ("speech", 0, "--train.micro-batch 24"),
    "audio_mel_base": ("speech", 0, SPEECH),
    "audio_tiny": ("speech", 0, "--train.batch-size 6 --train.micro-batch 3"),
    "audio_base": ("speech", 0, WAVES),
    "audio_large": ("speech", 1, f"{WAVES} --model.encoder.prenet-depth 1"),
    "text_tiny": ("glosses.parquet", 0, "--train.micro-batch 16"),
    "text_base": ("glosses.txt", 0, f"{TEXT} --model.modality.max-tokens 64"),
    "text_large": ("glosses.jsonl", 1, f"{TEXT} --model.modality.max-tokens 64 --data.unit document"),
}
EIGHT = "--train.batch-size 8 --train.micro-batch 4"
SECONDS = "--data.max-seconds 4 --train.batch-size 12 --train.micro-batch 6 --masks.channel-length 8"
TOKENS = "--train.batch-size 256 --train.micro-batch 128"
TAGS = f"{SECONDS} --model.pooling linear_softmax"
FINETUNE = {  # recipe (and what is special): task, model, data, reading processes, flags
    "image_finetune_tiny": ("classify", "image_tiny", "grey.npz", 0, "--train.micro-batch 4"),
    "image_finetune_base": ("classify", "image_base", "pictures", 0, EIGHT),
    "image_finetune_base/tags": ("classify", "image_large", "tagged_pictures", 0, EIGHT),
    "image_finetune_large": ("classify", "image_huge14", "pictures", 1, f"{EIGHT} --model.image-size 112"),
    "audio_classify_tiny": ("classify", "audio_tiny", "speech", 0, "--train.micro-batch 6"),
    "audio_classify_base": ("classify", "audio_large", "speech", 1, SECONDS),
    "audio_classify_base/tags": ("classify", "audio_mel_base", "tagged_speech", 0, TAGS),
    "ctc_tiny": ("ctc", "audio_mel_tiny", "speech", 0, "--train.micro-batch 20"),
    "ctc_base_10m": ("ctc", "audio_base", "speech", 0, f"{SECONDS} --data.max-minutes 1"),
    "ctc_base_1h": ("ctc", "audio_base", "speech", 0, SECONDS),
    "ctc_base_10h": ("ctc", "audio_large", "speech", 0, SECONDS),
    "ctc_base_100h": ("ctc", "audio_base", "speech", 0, SECONDS),
    "ctc_base_960h": ("ctc", "audio_large", "speech", 0, SECONDS),
    "text_finetune_tiny": ("classify", "text_tiny", "sentences", 0, "--train.micro-batch 512"),
    "text_finetune_tiny/pairs": ("classify", "text_tiny", "pairs", 0, "--train.micro-batch 512"),
    "text_finetune_tiny/numbers": ("regress", "text_tiny", "numbers", 0, "--train.micro-batch 512"),
    "glue": ("classify", "text_base", "sentences", 0, TOKENS),
    "glue/pairs": ("classify", "text_large", "pairs", 1, TOKENS),
    "glue/numbers": ("regress", "text_base", "numbers", 0, TOKENS),
}
RESUMED = ["image_base", "image_finetune_base", "audio_base", "audio_classify_base", "ctc_base_1h", "text_base", "glue"]
USE = {
    "evaluate image": "evaluate runs/image_tiny grey.npz --probes knn,linear,attentive --labels 5,10 --seeds 2",
    "evaluate audio": "evaluate runs/audio_mel_tiny speech --probes knn,linear,phones",
    "evaluate audio letters": "evaluate runs/ctc_base_10h speech --decoder beam",
    "evaluate text": "evaluate runs/text_tiny sentences --labels 5 --seeds 2",
    "embed image": "embed runs/image_base pictures --part test",
    "embed image patches": "embed runs/image_huge14 pictures --part test --pool none --keep-aspect",
    "embed image cls": "embed runs/image_large pictures --part test --pool cls --layer 2 --size 128",
    "embed audio": "embed runs/audio_base speech --part test",
    "embed audio tokens": "embed runs/audio_mel_tiny speech/test/digits --pool none",
    "embed text": "embed runs/text_base sentences --part test",
    "embed text tokens": "embed runs/text_base pairs --part test --pool none",
}
ASKED = {"grey.npz": "pictures/test", "speech": "speech/test long", "sentences": "sentences/test.csv"}
ASKED |= {"pairs": "pairs/test.tsv", "numbers": "numbers/test.jsonl"}
"""What a model that was trained on these data is asked about; one that was trained on others, about their test part."""


def train_loop() -> Callable[..., Any]:
    """The function that makes all updates of a task."""
    functions = {one for module in modules() for one in vars(module).values() if inspect.isfunction(one)}
    asked = {"task", "config", "asked_to_stop"}
    (found,) = (one for one in functions if asked <= inspect.signature(one).parameters.keys())
    return found


def recipes() -> dict[str, Any]:
    """The configuration of every recipe, with the fields of a task beside the others."""
    functions = pretraining_recipes() | finetune_recipes()
    values = {name: dataclasses.asdict(function()) for name, function in sorted(functions.items())}
    return {name: value | value.pop("task", {}) for name, value in values.items()}


def modules() -> list[ModuleType]:
    """All modules of the package."""
    for info in pkgutil.walk_packages(data2vec2.__path__, "data2vec2."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
    return [module for name, module in sys.modules.items() if name.split(".")[0] == "data2vec2"]


class Watched:
    """A task whose batches are noted."""

    def __init__(self, task: Any, micro_batch: int, seen: list[Any]) -> None:
        self.task, self.micro_batch, self.seen = task, micro_batch, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """Those of the task."""
        for batch in self.task.batches(start, stop):
            hashes, sizes = {digest(one) for one in tensors(batch)}, [len(one) for one in batch.split(self.micro_batch)]
            self.seen.append({"tensors": sorted(hashes), "weight": float(batch.weight), "split": sizes})
            yield batch


def watch(seen: list[Any]) -> None:
    """Give the loop watched tasks, under whatever name a module knows it."""
    loop = train_loop()

    def watched(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(loop).bind(*args, **kwargs)
        train = given.arguments["config"].train
        given.arguments["task"] = Watched(given.arguments["task"], train.micro_batch or train.batch_size, seen)
        return loop(*given.args, **given.kwargs)

    for module in modules():
        for name in [name for name, value in vars(module).items() if value is loop]:
            setattr(module, name, watched)


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in an object's fields, and in theirs."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    if not isinstance(value, list | tuple):
        value = list((value if isinstance(value, Mapping) else getattr(value, "__dict__", {})).values())
    for item in value:
        yield from tensors(item)


def digest(value: torch.Tensor | str) -> str:
    """SHA-256 of a tensor's type, shape and numbers, or of a text."""
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous().numpy()
        return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()
    return hashlib.sha256(value.encode()).hexdigest()


def result(folder: Path) -> dict[str, Any]:
    """What a run has left behind."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    texts = {path.name: path.read_text() for path in [*folder.glob("exported/*.json"), *folder.glob("scores.json")]}
    weights = {name: load_file(folder / name / "model.safetensors") for name in ("exported", "checkpoints/step-20")}
    return {
        "metrics": [
            {k: v for k, v in line.items() if k not in ("elapsed_s", "samples_per_s", "units_per_s", "waited_for_data")}
            for line in lines
        ],
        "files": {k: json.loads(text) if len(text) < 20_000 else digest(text) for k, text in sorted(texts.items())},
        **{name: {k: digest(one) for k, one in sorted(of_name.items())} for name, of_name in weights.items()},
    }


def run(line: str) -> list[Any]:
    """Run a command that must succeed; the lines that it prints, of JSON or as they are."""
    torch.manual_seed(0)
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = command_line(line.split())
    except SystemExit as error:  # of the parser
        code = error.code
    if code:
        sys.exit(f"{out.getvalue()}{err.getvalue()}\n{line}\nended with {code}")
    return [json.loads(text) if text.startswith("{") else text for text in out.getvalue().splitlines()]


def train(name: str, line: str, seen: list[Any]) -> dict[str, Any]:
    """What a training run leaves behind, and its batches."""
    folder = Path("runs", name.replace("/", "-"))
    seen.clear()
    run(f"{line} --out {folder}")
    found, batches = result(folder), list(seen)
    if name in RESUMED:
        shutil.rmtree(folder / "exported")
        shutil.rmtree(folder / "checkpoints" / "step-20")
        run(f"{line} --out {folder} --resume")
        if result(folder) != found or seen != batches + batches[10:]:
            sys.exit(f"{name} is another run when it is resumed")
    return {"batches": batches, **found}


def use(line: str) -> Any:
    """What `evaluate`, `predict` and `transcribe` print, or hashes of the columns that `embed` writes."""
    if not line.startswith("embed"):
        return run(f"{line} --device cpu --json")
    run(f"{line} --device cpu --out features.parquet --overwrite")
    table = pq.read_table("features.parquet")
    return {name: digest(json.dumps(table[name].to_pylist())) for name in table.column_names}


def record(only: list[str]) -> dict[str, Any]:
    """Run all cases of some modalities, in a folder of their own."""
    lines = {name: f"pretrain {name} {data} {flags} {LOOP} {n}" for name, (data, n, flags) in PRETRAIN.items()}
    kinds = {name: name.split("_")[0] for name in PRETRAIN} | {name: name.split()[1] for name in USE}
    asked = {}
    for name, (task, model, data, n, flags) in FINETUNE.items():
        lines[name] = f"finetune {task} runs/{model} {data} --recipe {name.split('/')[0]} {flags} {LOOP} {n}"
        verb = "transcribe" if task == "ctc" else "predict"
        verb += " --top 10" * (task == "classify") + " --threshold 0" * name.endswith("/tags")
        asked[f"ask {name}"] = f"{verb} runs/{name.replace('/', '-')} {ASKED.get(data, f'{data}/test')}"
        kinds[name] = kinds[f"ask {name}"] = kinds[model]
    seen: list[Any] = []
    watch(seen)
    found: dict[str, Any] = {"machine": f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"}
    found["recipes"] = recipes()
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        make_pictures(bundled("fashion_mnist"))
        make_speech(bundled("english_prompts"))
        make_texts(bundled("wordnet_glosses"))
        for name, line in {**lines, **USE, **asked}.items():
            if kinds[name] in only:
                started = time.perf_counter()
                found[name] = train(name, line, seen) if name in lines else use(line)
                print(f"{time.perf_counter() - started:5.1f} s  {name}", file=sys.stderr, flush=True)
    return dict(json.loads(json.dumps(found).replace(scratch, "")))  # of which each run has another


def bundled(name: str) -> Path:
    """The folder of data of the package."""
    return next(Path(data2vec2.__path__[0]).rglob(f"bundled/{name}"))


def write(path: str, lines: list[str]) -> None:
    """Write a text file, and the folders that it is in."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(lines))


def copy(source: Path, path: str) -> None:
    """Copy a file to where it may need a new folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)


def make_pictures(source: Path) -> None:
    """Arrays of grey pictures; ones with colour, made of three, as files, in a table, in .tar files, and with tags."""
    arrays, sizes, tags = dict(np.load(source / "fashion_mnist.npz")), {"train": 90, "test": 30}, ["file_name,tags"]
    np.savez("grey.npz", **{key: values[: 4 * sizes.get(key[2:], 90)] for key, values in arrays.items()})
    for part, count in sizes.items():
        rows = []
        for place in range(count):
            three, label = arrays[f"x_{part}"][3 * place : 3 * place + 3], arrays[f"y_{part}"][3 * place]
            picture = Path(f"{place}.jpg")
            Image.fromarray(np.stack(three, axis=-1)).resize((120, 100)).save(picture, quality=95)
            copy(picture, f"pictures/{part}/{label}/{picture}")
            copy(picture, f"tagged_pictures/{part}/{picture}")
            tags.append(f"{part}/{picture},{label}{'|bright' if three.mean() > 80 else ''}")
            write(f"tar/{part}/{place}.cls", [str(label)])
            copy(picture, f"tar/{part}/{picture}")
            rows.append({"image": {"bytes": picture.read_bytes()}, "label": int(label)})
        write(f"parquet/{part}.parquet", [])
        pq.write_table(pa.Table.from_pylist(rows), f"parquet/{part}.parquet")
        with tarfile.open(f"tar/{part}.tar", "w") as tar:
            for path in sorted(Path("tar", part).iterdir()):
                tar.add(path, path.name)
        shutil.rmtree(f"tar/{part}")
    write("tagged_pictures/metadata.csv", tags)


def make_speech(source: Path) -> None:
    """A quarter of the recordings with transcripts and phones, the same with tags, and the longest of all."""
    sizes = {path.relative_to(source).as_posix(): path.stat().st_size for path in sorted(source.rglob("*.ogg"))}
    names = [name for name in list(sizes)[::4] if sizes[name] < 60_000]
    for name in names:
        copy(source / name, f"speech/{name}")
        copy(source / name, f"tagged_speech/{name}")
    for table in ("metadata.csv", "phones.csv"):
        head, *rows = (source / table).read_text().splitlines()
        write(f"speech/{table}", [head, *(row for row in rows if row.split(",")[0] in names)])
    tags = [f"{name},{name.split('/')[1]}{'|long' if sizes[name] > 8_000 else ''}" for name in names]
    write("tagged_speech/metadata.csv", ["file_name,tags", *tags])
    copy(source / max(sizes, key=sizes.__getitem__), "long/long.ogg")


def make_texts(source: Path) -> None:
    """Texts in files of three kinds; texts with classes, pairs that are of one class or not, texts with numbers."""
    table = pq.read_table(source / "train.parquet").slice(0, 3_000)
    pq.write_table(table, "glosses.parquet")
    write("glosses.txt", table["text"].to_pylist())
    write("glosses.jsonl", [json.dumps({"text": text}) for text in table["text"].to_pylist()])
    for part, count in {"train": 240, "test": 60}.items():
        rows = [row for row in pq.read_table(source / f"{part}.parquet").to_pylist() if row["label"]]
        texts, labels = zip(*((row["text"], row["label"]) for row in rows[:: len(rows) // count][:count]), strict=True)
        quoted = [text.replace('"', '""') for text in texts]
        write(f"sentences/{part}.csv", ["text,label", *(f'"{a}",{b}' for a, b in zip(quoted, labels, strict=True))])
        others = [place * 7 % count for place in range(count)]
        pairs = [f"{texts[i]}\t{texts[k]}\t{labels[i] == labels[k]}" for i, k in enumerate(others)]
        write(f"pairs/{part}.tsv", ["sentence1\tsentence2\tlabel", *pairs])
        write(f"numbers/{part}.jsonl", [json.dumps({"text": text, "score": len(text) / 10}) for text in texts])


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every number and text with its place."""
    if not isinstance(value, dict | list):
        yield path, json.dumps(value)
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(item, f"{path} > {key}")


def differences(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print what differs, a little of each case; returns how much does."""
    total = 0
    for case in {**old, **new}:
        a, b = (dict(leaves(values.get(case))) for values in (old, new))
        found = [f"  {key}: {a.get(key)} is now {b.get(key)}" for key in {**a, **b} if a.get(key) != b.get(key)]
        if found:
            print("\n".join((f"{case}: {len(found):,} of {len(b):,} differ", *found[:5])))
        total += len(found)
    print(f"{total:,} differences")
    return total


def main() -> int:
    """Record or compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    args = parser.parse_args()
    if args.verb == "record":
        found = record(args.only)
        args.file.write_text(json.dumps(found, indent=1) + "\n")
        left = sorted(found["recipes"].keys() - {name.split("/")[0] for name in (*PRETRAIN, *FINETUNE)})
        print(
            f"recipes without a case, of which only the values are kept: {', '.join(left) or 'none'}", file=sys.stderr
        )
        return 0
    old = json.loads(args.file.read_text())
    new = json.loads(args.other.read_text()) if args.other else record(args.only)
    kept = {name: value for name, value in old.items() if name in new or args.only == KINDS}
    return int(differences(kept, new) > 0)


if __name__ == "__main__":
    sys.exit(main())
