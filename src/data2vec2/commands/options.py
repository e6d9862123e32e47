"""What every verb can be asked for: one dataclass a verb, from which the command line, the Python function and the docs
come. Importing this needs no torch.

Fields before `kw_only` are positional. Types are those of the command line; Python may also give strings for paths, one
path for several, and complete configurations for recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from data2vec2.config.tree import require
from data2vec2.errors import UsageError
from data2vec2.evaluation.decoding import DecoderName

T = TypeVar("T")

if TYPE_CHECKING:
    from data2vec2.config.run import FinetuneConfig, RunConfig

    AnyPath = str | Path
    Paths = AnyPath | Sequence[AnyPath]
    Recipe = RunConfig | str
    FinetuneRecipe = FinetuneConfig | str
    Words = Sequence[str]
    Counts = Sequence[int]
    Rates = Sequence[float]
else:

    def _listed(of: Callable[[str], Any], metavar: str) -> PrimitiveConstructorSpec:
        """Values with commas between them, as one word."""
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=lambda words: tuple(of(word) for word in words[0].split(",") if word),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda values: [",".join(map(str, values))],
        )

    AnyPath, Paths, Recipe, FinetuneRecipe = Path, tuple[Path, ...], str, str
    Words = Annotated[tuple[str, ...], _listed(str, "A,B")]
    Counts = Annotated[tuple[int, ...], _listed(int, "N,N")]
    Rates = Annotated[tuple[float, ...], _listed(float, "X,X")]

Model = Annotated[Positional[AnyPath], arg(metavar="MODEL")]
Data = Annotated[Positional[AnyPath], arg(metavar="DATA")]
MANY = arg(help_behavior_hint="(one or more)")
Flags = Annotated[tuple[str, ...], tyro.conf.Suppress]


@dataclass
class OnDevice:
    """Where a model runs."""

    _: KW_ONLY
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


@dataclass
class OfColumns:
    """Which columns of tables of text are read."""

    _: KW_ONLY
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as one; none: by their usual names."""
    label_column: str | None = None
    """Of tables of text: the column of labels; none: by its usual names."""
    encoding: str | None = None
    """Of text: encoding of its files, as cp1252; none: UTF-8, or UTF-16 where a file begins so."""


@dataclass
class OfDecoding:
    """How letters become text."""

    _: KW_ONLY
    decoder: DecoderName | None = None
    """Of speech: greedy, beam (without a language model), lm; none: lm where one is given, else greedy."""
    beam: int | None = None
    """Prefixes that are kept; none: 25, with a language model 500."""
    lm: AnyPath | None = None
    """An n-gram model of words, as an ARPA file; needs pip install 'data2vec2[lm]'."""
    lm_weight: float = 2.0
    """Weight of the language model."""
    word_score: float = 0.0
    """Added for each word."""


@dataclass
class Starting:
    """How a run begins or goes on."""

    _: KW_ONLY
    val: AnyPath | None = None
    """Data for validation; none: DATA's own part, or part of DATA is held out."""
    resume: bool = False
    """Go on with the run that the folder holds."""
    overwrite: bool = False
    """Delete the run that the folder holds."""
    dry_run: bool = False
    """Only print plan, schedule, and the first batch's shapes."""
    flags: Flags = ()
    """Words of a command line that set fields of the configuration: ("--train.updates", "100")."""


@dataclass
class Pretrain(Starting):
    """Pre-train on your own data."""

    config: Annotated[Positional[Recipe], arg(metavar="RECIPE")]
    """A recipe, or the config.yaml of a run. data2vec2 pretrain RECIPE --help shows the fields that flags can set."""
    data: Data
    """A folder of images or recordings, .parquet or .tar files, IDX arrays, one such file, a .npz or fairseq .tsv
    file, or hf:NAME. Of text: .txt, .jsonl, .csv, .tsv or .parquet files, a folder of them, or hf:NAME."""
    out: Annotated[AnyPath, arg(name="out")]
    """Run folder to write; a new one."""
    _: KW_ONLY
    init_from: AnyPath | None = None
    """Weights to start from: a run, an exported model, or a .pt checkpoint of the original; none: random ones."""


@dataclass
class Finetune(Starting):
    """Train a classifier, a model that gives numbers, or a recogniser of speech from a pre-trained model."""

    model: Model
    """A run folder or an exported model."""
    data: Data
    """Data with labels, one or several a sample; for regress, texts with numbers; for ctc, recordings with
    transcripts."""
    out: Annotated[AnyPath, arg(name="out")]
    """Run folder to write; a new one."""
    _: KW_ONLY
    task: Annotated[str, tyro.conf.Suppress] = "classify"
    """classify (classes or tags), regress (numbers) or ctc (transcripts of speech)."""
    config: Annotated[FinetuneRecipe | None, arg(name="recipe")] = None
    """A recipe or the config.yaml of a run; none: the tiny one of the task."""
    from_scratch: bool = False
    """Take the model's shape but not its weights: what pre-training is worth."""
    sweep: Rates = ()
    """Peak learning rates to try, with commas, as in 1e-5,2e-5; OUT then holds a run for each rate and seed, and the
    rate with the highest median of validation scores is named. With --resume finished runs are kept."""
    seeds: int = 1
    """Seeds for each rate of --sweep, from train.seed on; without --sweep, of the one rate."""


@dataclass
class Demo:
    """Learn from bundled pictures, speech or text in minutes on a CPU, and say what it learned."""

    kind: Annotated[str, tyro.conf.Suppress] = "image"
    """The modality."""
    config: Annotated[Recipe | None, tyro.conf.Suppress] = None
    """A recipe; none: the kind's own."""
    out: AnyPath | None = None
    """Run folder to write; none: a new one under runs/."""
    _: KW_ONLY
    flags: Flags = ()
    """As of pretrain."""


@dataclass
class Evaluate(OnDevice, OfColumns, OfDecoding):
    """Score frozen features beside random initialisation, raw input and the majority class; error rates of speech."""

    model: Model
    """A run folder or an exported model."""
    data: Data
    """Data with labels; for a model of finetune ctc, recordings with transcripts."""
    _: KW_ONLY
    test: AnyPath | None = None
    """Data to score on; none: DATA's own test or validation part, what the run held out of it, or a fifth."""
    max_samples: int = 10_000
    """Samples of each part to use, evenly spread."""
    probes: Words = ("knn", "linear")
    """Which probes to use, with commas: knn, linear; attentive (of pictures); phones (of speech)."""
    labels: Counts = ()
    """Labels a class of low-label curves, with commas, as in 10,100,1000; empty: no curves."""
    seeds: int = 3
    """Draws of labels for each point of the curves."""
    finetune: FinetuneRecipe | None = None
    """Add curves of fine-tuning by this recipe (image_finetune_tiny, audio_classify_tiny) or config.yaml."""
    seed: int = 0
    """Decides the split and the random initialisation."""
    baselines: Annotated[bool, tyro.conf.Suppress] = True
    """Also score the untrained network and raw inputs."""

    def __post_init__(self) -> None:
        require(self.max_samples >= 1, "--max-samples", self.max_samples, "at least 1")
        if not self.probes:
            raise UsageError("--probes is empty; it must be some of knn, linear, attentive, phones")
        if any(count < 1 for count in self.labels) or list(self.labels) != sorted(set(self.labels)):
            raise UsageError(f"--labels is {','.join(map(str, self.labels))}; it must be numbers above 0, each larger")
        require(self.seeds >= 1, "--seeds", self.seeds, "at least 1")
        if self.finetune is not None and not self.labels:
            raise UsageError("--finetune adds to the low-label curves; give --labels with it, as in --labels 10,100")
        require(self.seed >= 0, "--seed", self.seed, "0 or more")


@dataclass
class Inspect(OfColumns):
    """Say what a data set holds and what a model would make of it: what is used, mended and left out, and why."""

    data: Data
    """A data set, as `pretrain` and `finetune` take it."""
    _: KW_ONLY
    kind: Annotated[str | None, arg(name="as", metavar="KIND")] = None
    """What to read it as; none: the first that finds samples."""
    out: AnyPath | None = None
    """Page (.html) or file (.json) to write."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass
class Embed(OnDevice, OfColumns):
    """Write the features of pictures, recordings or texts to a file."""

    model: Model
    """A run folder or an exported model."""
    data: Annotated[Positional[Paths], arg(metavar="DATA"), MANY]
    """A data set (folder, arrays, .parquet, .tar, .tsv, hf:NAME), or files and folders of them. Of text: one table
    (.csv, .tsv, .jsonl, .parquet), a folder of them, a .txt file with a text a line, or hf:NAME."""
    out: Annotated[AnyPath, arg(name="out")]
    """File to write: .parquet, or of one vector a sample also .csv, .npz, .npy."""
    _: KW_ONLY
    layer: int | None = None
    """Block whose output is taken, from 1; 0: the stem's tokens; none: the last."""
    pool: Literal["mean", "none", "cls"] = "mean"
    """Mean over patches or tokens, none (a vector for each), or the CLS token of pictures."""
    part: Literal["train", "val", "test", "all"] = "all"
    """Which part of a data set."""
    size: int | None = None
    """Of pictures: side of the model's input in pixels, a multiple of the patch size; none: the model's own."""
    keep_aspect: bool = False
    """Of pictures: cut nothing off: shorter side to the size, longer one in proportion, in whole patches."""
    batch: int | None = None
    """Samples that go through the model at once; none: 64 pictures, 8 recordings, 32 texts."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers in the file."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass
class Predict(OnDevice):
    """Name the classes of pictures, recordings or texts, or numbers of texts, with a fine-tuned model."""

    model: Model
    """A run folder of finetune, or its exported model."""
    files: Annotated[Positional[Paths], arg(metavar="FILES"), MANY]
    """Files and folders of pictures or recordings; of text, tables or .txt files with a text a line."""
    _: KW_ONLY
    top: int | None = None
    """Classes for each file, most probable first; none: 1, or all above the threshold where there can be several."""
    threshold: float = 0.5
    """Smallest probability to show, for models whose samples have several classes."""
    batch: int = 64
    """Samples that go through the model at once."""
    text_columns: tuple[str, ...] = ()
    """Of tables of text: the column of texts, or the two that the model reads as a pair; none: by their usual names."""
    encoding: str | None = None
    """Of text: encoding of its files, as cp1252; none: UTF-8, or UTF-16 where a file begins so."""

    def __post_init__(self) -> None:
        require(self.top is None or self.top >= 1, "--top", self.top, "at least 1")
        require(0 <= self.threshold <= 1, "--threshold", self.threshold, "from 0 to 1")
        require(self.batch >= 1, "--batch", self.batch, "at least 1")


@dataclass
class Transcribe(OnDevice, OfDecoding):
    """Write down what is said in recordings, with a model of finetune ctc."""

    model: Model
    """A run folder of finetune ctc, or its exported model."""
    files: Annotated[Positional[Paths], arg(metavar="FILES"), MANY]
    """Recordings and folders of them."""


@dataclass
class Convert:
    """Turn a checkpoint of the original data2vec 2.0 into an exported model, or a model into such a checkpoint."""

    source: Annotated[Positional[AnyPath], arg(metavar="SOURCE")]
    """A .pt file of the original, pre-trained or fine-tuned; with --to fairseq a run folder or an exported model."""
    out: Annotated[Positional[AnyPath], arg(metavar="OUT")]
    """Folder to write, a new one; with --to fairseq a .pt file."""
    _: KW_ONLY
    to: Literal["export", "fairseq"] = "export"
    """export: a folder that every command reads, and Transformers. fairseq: a checkpoint of the original."""
    weights: Literal["student", "teacher"] = "student"
    """Whose encoder to export. What the teacher has not (the stem of audio and text) is the student's."""
    vocabulary: AnyPath | None = None
    """Of text: a folder with encoder.json, vocab.bpe and dict.txt. Of recognisers of speech: dict.ltr.txt. None: beside
    the checkpoint; letters also from the checkpoint itself."""
    classes: AnyPath | None = None
    """Of classifiers: a text file with the name of a class on each line; none: numbers."""
    pretrained: AnyPath | None = None
    """Of a fine-tuned file that doesn't say its model's shape: the pre-trained file that it was made from."""
    allow: tuple[str, ...] = ()
    """Classes whose objects are read as plain values where a file holds such; nothing of them is run."""


@dataclass
class Export(OfColumns):
    """Write a model for ONNX Runtime or torch.export, checked against PyTorch."""

    model: Model
    """A run folder or an exported model."""
    out: Annotated[Positional[AnyPath], arg(metavar="OUT")]
    """Folder to write, a new one."""
    _: KW_ONLY
    to: Literal["onnx", "torch"] = "onnx"
    """onnx: model.onnx; needs pip install 'data2vec2[onnx]'. torch: model.pt2, a program of torch.export."""
    data: AnyPath | None = None
    """Data to check with, and to measure the drop in score on; none: the bundled samples, which have no score."""
    int8: bool = False
    """Of onnx: also write model_int8.onnx, with matrices of 8 bits, and measure its drop in score; needs --data."""

    def __post_init__(self) -> None:
        require(self.to in ("onnx", "torch"), "--to", self.to, "onnx or torch")
        if self.int8 and self.to != "onnx":
            raise UsageError("--int8 is for --to onnx")
        if self.int8 and self.data is None:
            raise UsageError("--int8 needs --data DATA with labels, on which its drop in score is measured")
        if self.data is None and (self.text_columns or self.label_column or self.encoding):
            raise UsageError("--text-columns, --label-column and --encoding are those of --data, which is not given")


@dataclass
class Report:
    """Write the page of a run again, or one page that compares several runs."""

    runs: Annotated[Positional[Paths], arg(metavar="RUN"), MANY]
    """Run folders: one for its own page, several for a comparison."""
    _: KW_ONLY
    out: AnyPath | None = None
    """File to write; none: RUN/report.html, for several runs comparison.html in this folder."""
    overwrite: bool = False
    """Replace an existing file. RUN/report.html is replaced without it."""


@dataclass
class Tokenizer:
    """Make a tokenizer of your own text, or the original's from its files."""

    action: Annotated[Positional[Literal["train", "original"]], arg(metavar="{train,original}")]
    """train: a byte-level BPE of the text of DATA. original: GPT-2's BPE with the ids of the released models."""
    data: Data
    """train: .txt, .jsonl, .csv, .tsv or .parquet files, a folder of them, or hf:NAME. original: a folder with
    encoder.json, vocab.bpe and dict.txt."""
    out: Annotated[AnyPath, arg(name="out")]
    """Folder to write; a new one."""
    _: KW_ONLY
    vocab_size: int = 4_000
    """Entries of the vocabulary, special tokens and single bytes (261) among them."""
    text_column: str = "text"
    """Column of tables, or key of .jsonl files, that holds the text."""
    encoding: str | None = None
    """train: encoding of the files, as cp1252; none: UTF-8, or UTF-16 where a file begins so."""


@dataclass
class Doctor:
    """Say what this machine can do."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


def paths_of(paths: Any, what: str) -> list[Path]:
    """One path or several as a list; `UsageError` for none."""
    found = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not found:
        raise UsageError(f"there {what}")
    return found
