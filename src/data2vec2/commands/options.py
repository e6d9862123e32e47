"""The options of every command: one dataclass each, from which command line, Python function and docs are made.
Importing this needs no torch.

Fields before `kw_only` are positional. Types are those of the command line; Python may also give strings for paths, one
path for several, and complete configurations for recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from data2vec2.config.tree import require
from data2vec2.errors import UsageError
from data2vec2.evaluation.decoding import AnyPath, Decoding
from data2vec2.modalities.spec import EmbedOptions

T = TypeVar("T")
WHOLE_NUMBERS = ConstructorRegistry()
"""How tyro reads integers: as `whole_number` does."""


def whole_number(word: str) -> int:
    """The integer in a word, also in one such as 1e3 or 5_000; `ValueError` for any other word."""
    with suppress(ValueError):
        return int(word)
    with suppress(ValueError):
        if (number := float(word)).is_integer():
            return int(number)
    raise ValueError(f"{word!r} is not a whole number")


def _numbers(flag: str, given: Any, of: Callable[[str], Any]) -> tuple[Any, ...]:
    """Numbers that Python gave; `UsageError` for what is none."""
    try:
        return several(given, of)
    except ValueError as error:
        raise UsageError(f"{flag} is {given!r}: {error}") from None


@WHOLE_NUMBERS.primitive_rule
def _integers(of: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if of.type is not int:
        return None
    how: dict[str, Any] = {"is_instance": lambda value: type(value) is int, "str_from_instance": lambda n: [str(n)]}
    return PrimitiveConstructorSpec(1, "INT", lambda words: whole_number(words[0]), **how)


def several(given: Any, of: Callable[[str], Any] = str) -> tuple[Any, ...]:
    """The values in a word with commas between them, as on the command line, or of a sequence, or a single one."""
    if isinstance(given, str):
        return tuple(of(word.strip()) for word in given.split(",") if word.strip())
    return tuple(given) if isinstance(given, Iterable) else (given,)


if TYPE_CHECKING:
    from data2vec2.config.run import FinetuneConfig, RunConfig

    AnyData = Any  # a path, or a data set in Python
    SeveralData = Any  # also a list of paths
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
            instance_from_str=lambda words: several(words[0], of),
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda values: [",".join(map(str, values))],
        )

    AnyData, Paths, Recipe, FinetuneRecipe = str, tuple[Path, ...], str, str
    SeveralData = tuple[str, ...]
    Words = Annotated[tuple[str, ...], _listed(str, "A,B")]
    Counts = Annotated[tuple[int, ...], _listed(whole_number, "N,N")]
    Rates = Annotated[tuple[float, ...], _listed(float, "X,X")]

Model = Annotated[Positional[AnyPath], arg(metavar="MODEL")]
Data = Annotated[Positional[AnyData], arg(metavar="DATA")]
MANY = arg(help_behavior_hint="(one or more)")
DataSets = Annotated[Positional[SeveralData], arg(metavar="DATA"), MANY]
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
    """Tables of text: the column of texts, or the two columns of pairs; default: those that a fine-tuned MODEL learned
    from, or found by their usual names."""
    label_column: str | None = None
    """Tables of text: the column of labels; default: found by its usual names."""
    encoding: str | None = None
    """Text: encoding of the files, such as cp1252; default: UTF-8, or UTF-16 with a byte-order mark."""


@dataclass
class Starting:
    """How a run starts or continues."""

    _: KW_ONLY
    val: AnyData | None = None
    """Validation data; default: the validation part of DATA, or a held-out part of it."""
    resume: bool = False
    """Resume the run in the folder."""
    overwrite: bool = False
    """Delete the run in the folder and start anew."""
    dry_run: bool = False
    """Measure a few updates, print what the run would do and need, and stop."""
    show_config: bool = False
    """With --dry-run, also print the whole configuration."""
    track: Words = ()
    """Trackers that get the metrics, separated by commas: tensorboard, wandb, mlflow, trackio; default: tensorboard
    (RUN/tb) if it is installed."""
    callback: Annotated[Any, tyro.conf.Suppress] = None
    """A function that is called with each line of metrics.jsonl, a dictionary of metrics with their `step`."""
    flags: Flags = ()
    """Command-line flags that set fields of the configuration: ("--train.updates", "100")."""

    def __post_init__(self) -> None:
        self.track = several(self.track)
        if self.show_config and not self.dry_run:
            raise UsageError("--show-config goes with --dry-run")


@dataclass
class Pretrain(Starting):
    """Pre-train on your own data."""

    config: Annotated[Positional[Recipe], arg(metavar="RECIPE")]
    """A recipe, or the config.yaml of a run. data2vec2 pretrain RECIPE --help lists its flags."""
    data: DataSets
    """A folder of images or recordings, .parquet or .tar files, IDX arrays, one such file, a .npz or fairseq .tsv
    file, a URL of .parquet or .tar files, or hf:NAME. For text: .txt, .jsonl, .json, .csv, .tsv or .parquet files, a
    folder or a URL of them, or hf:NAME. Several are joined; --data.weights mixes them."""
    out: Annotated[AnyPath, arg(name="out")]
    """Run folder to write; a new one."""
    _: KW_ONLY
    init_from: AnyPath | None = None
    """Initial weights: a run, an exported model, a .pt checkpoint of the original, or a folder or hf:NAME of wav2vec
    2.0, HuBERT, data2vec 1, BERT, RoBERTa, ViT, MAE, DINO or DINOv2; the shape of the model follows them. Default:
    random."""


@dataclass
class Estimate:
    """Estimate updates, memory, disk, and the time on this machine and common GPUs for pre-training."""

    config: Annotated[Positional[Recipe], arg(metavar="RECIPE")]
    """A recipe, or the config.yaml of a run; flags set its fields, as in pretrain."""
    data: DataSets
    """The data to pre-train on."""
    _: KW_ONLY
    val: AnyData | None = None
    """Validation data; default: the validation part of DATA, or a held-out part of it."""
    show_config: bool = False
    """Also print the whole configuration."""
    flags: Flags = ()
    """As in pretrain."""


@dataclass
class Recipes:
    """List the pre-training recipes with purpose, size, memory, and time on this machine and on GPUs."""


@dataclass
class Finetune(Starting):
    """Fine-tune a pre-trained model for classes, numbers, speech recognition, classes of its tokens, or answers."""

    model: Model
    """A run folder or an exported model."""
    data: Data
    """Labelled data, with one or several labels per sample; for regress, texts with numbers; for ctc, recordings with
    transcripts; for tokens, words with tags; for frames, recordings with segments; for patches, pictures with masks;
    for answers, questions with contexts, as SQuAD has them."""
    out: Annotated[AnyPath, arg(name="out")]
    """Run folder to write; a new one."""
    _: KW_ONLY
    task: Annotated[str, tyro.conf.Suppress] = "classify"
    """classify (classes or tags), regress (numbers), ctc (transcripts of speech), a class of each of the tokens of
    text (words), frames of recordings or patches of pictures (pixels), or answers (to questions, in texts)."""
    config: Annotated[FinetuneRecipe | None, arg(name="recipe")] = None
    """A recipe or the config.yaml of a run; default: the tiny recipe of the task."""
    from_scratch: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start from random weights instead of the model's, to show the gain of pre-training; a recipe file with
    `from_scratch: true` does so too."""
    sweep: Rates = ()
    """Peak learning rates to try, separated by commas, as in 1e-5,2e-5. OUT then holds a run for each rate and seed,
    and the rate with the highest median validation score is printed. --resume keeps finished runs."""
    seeds: int = 1
    """Number of seeds for each rate of --sweep, or for the recipe's rate, starting from train.seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sweep = _numbers("--sweep", self.sweep, float)


@dataclass
class Demo:
    """Pre-train on bundled pictures, speech, sounds or text in minutes on a CPU, and score the result."""

    kind: Annotated[str, tyro.conf.Suppress] = "image"
    """The modality."""
    config: Annotated[Recipe | None, tyro.conf.Suppress] = None
    """A recipe; default: the modality's demo recipe."""
    out: AnyPath | None = None
    """Run folder to write; default: a new one under runs/."""
    _: KW_ONLY
    resume: bool = False
    """Resume an interrupted demo: that in OUT, or the last one under runs/."""
    overwrite: bool = False
    """Replace the demo in OUT, or the last one under runs/."""
    flags: Flags = ()
    """As in pretrain."""


@dataclass
class Evaluate(OnDevice, OfColumns, Decoding):
    """Score frozen features beside baselines, or what a fine-tuned model says of labelled data."""

    model: Model
    """A run folder or an exported model."""
    data: Data
    """Labelled data; for a speech recogniser (finetune ctc), recordings with transcripts; for another fine-tuned model,
    data of its task."""
    _: KW_ONLY
    test: AnyData | None = None
    """Data to score on; default: the test or validation part of DATA, what the run held out of it, or a fifth."""
    before: AnyPath | None = None
    """Another model, such as the one that this one was continued from, to score beside it on the same samples; also of
    another family, as for --init-from of pretrain."""
    max_samples: int = 10_000
    """Most samples to use of each part, evenly spread."""
    probes: Words = ("knn", "linear")
    """Probes, separated by commas: knn, linear, attentive (pictures), phones (speech)."""
    labels: Counts = ()
    """Labels per class for low-label curves, separated by commas, as in 10,100,1000; empty: no curves."""
    seeds: int = 3
    """Random draws of labels for each point of the curves."""
    finetune: FinetuneRecipe | None = None
    """Add curves of fine-tuning with this recipe (image_finetune_tiny, audio_classify_tiny) or config.yaml."""
    seed: int = 0
    """Seed of the split and the random initialisation."""
    baselines: Annotated[bool, tyro.conf.Suppress] = True
    """Also score the untrained network and raw inputs."""

    def __post_init__(self) -> None:
        require(self.max_samples >= 1, "--max-samples", self.max_samples, "at least 1")
        self.probes, self.labels = several(self.probes), _numbers("--labels", self.labels, whole_number)
        if not self.probes:
            raise UsageError("--probes is empty; it must be some of knn, linear, attentive, phones")
        if any(count < 1 for count in self.labels) or list(self.labels) != sorted(set(self.labels)):
            raise UsageError(f"--labels is {','.join(map(str, self.labels))}; it must be increasing numbers above 0")
        require(self.seeds >= 1, "--seeds", self.seeds, "at least 1")
        if not self.labels:
            refuse(
                self, ("finetune", "seeds"), "is of the low-label curves, so it needs --labels, as in --labels 10,100"
            )
        require(self.seed >= 0, "--seed", self.seed, "0 or more")


OF_FEATURES = ("before", "probes", "labels", "seeds", "finetune", "seed")
OF_TABLES = tuple(field.name for field in fields(OfColumns))
OF_RECOGNISERS = tuple(field.name for field in fields(Decoding))
"""Options of `evaluate` that not every model has a use for."""


def refuse(given: Any, names: Iterable[str], why: str) -> None:
    """`UsageError` for one of the options that was given another value than its default."""
    for field in fields(given):
        if field.name in names and getattr(given, field.name) != field.default:
            raise UsageError(f"--{field.name.replace('_', '-')} {why}")


@dataclass
class Inspect(OfColumns):
    """Check a data set: show what is used, repaired and left out, why, and what a model sees."""

    data: Data
    """A data set, as `pretrain` and `finetune` take it."""
    _: KW_ONLY
    kind: Annotated[str | None, arg(name="as", metavar="KIND")] = None
    """Modality to read it as; default: the first one that finds samples."""
    out: AnyPath | None = None
    """Page (.html) or file (.json) to write."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass
class Embed(OnDevice, OfColumns, EmbedOptions):
    """Write the features of pictures, recordings or texts to a file."""

    model: Model
    """A run folder or an exported model."""
    data: DataSets
    """A data set (folder, arrays, .parquet, .tar, .tsv, hf:NAME), or files and folders. For text: one table (.csv,
    .tsv, .jsonl, .json, .parquet), a folder of tables or of .txt files by class, a .txt file with one text per line, or
    hf:NAME."""
    out: Annotated[AnyPath, arg(name="out")]
    """File to write: .parquet, or for one vector per sample also .csv, .npz, .npy."""
    _: KW_ONLY
    part: Literal["train", "val", "test", "all"] = "all"
    """Part of the data set."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format in the file."""
    overwrite: bool = False
    """Replace an existing file."""


@dataclass
class Load(OnDevice):
    """Load a model into memory."""

    model: Model
    """A run folder or an exported model."""


@dataclass
class Predict(OnDevice):
    """Predict classes of pictures, recordings, texts or their tokens, or numbers for texts, with a fine-tuned model."""

    model: Model
    """A run folder of finetune, or its exported model."""
    files: Annotated[Positional[Paths], arg(metavar="FILES"), MANY]
    """Files and folders of pictures or recordings; for text, tables or .txt files with one text per line."""
    _: KW_ONLY
    top: int | None = None
    """Number of classes per file, most probable first; default: 1, or all above the threshold for tags."""
    threshold: float = 0.5
    """Lowest probability to show, for models of tags (several classes per sample)."""
    batch: int = 64
    """Batch size; recordings go through the model one by one."""
    text_columns: tuple[str, ...] = ()
    """Tables of text: the column of texts, or the two columns of pairs; default: those that a fine-tuned MODEL learned
    from, or found by their usual names."""
    encoding: str | None = None
    """Text: encoding of the files, such as cp1252; default: UTF-8, or UTF-16 with a byte-order mark."""
    masks: AnyPath | None = None
    """Classes of pixels (finetune patches): folder to write a mask of each picture to, a new one."""

    def __post_init__(self) -> None:
        require(self.top is None or self.top >= 1, "--top", self.top, "at least 1")
        require(0 <= self.threshold <= 1, "--threshold", self.threshold, "from 0 to 1")
        require(self.batch >= 1, "--batch", self.batch, "at least 1")


@dataclass
class Transcribe(OnDevice, Decoding):
    """Transcribe recordings with a fine-tuned speech recogniser (finetune ctc)."""

    model: Model
    """A run folder of finetune ctc, or its exported model."""
    files: Annotated[Positional[Paths], arg(metavar="FILES"), MANY]
    """Recordings and folders of them."""


@dataclass
class Convert:
    """Convert a checkpoint of the original data2vec 2.0 to an exported model, or back."""

    source: Annotated[Positional[AnyPath], arg(metavar="SOURCE")]
    """A .pt file of the original, pre-trained or fine-tuned; with --to fairseq a run folder or an exported model."""
    out: Annotated[Positional[AnyPath], arg(metavar="OUT")]
    """Folder to write, a new one; with --to fairseq a .pt file."""
    _: KW_ONLY
    to: Literal["export", "fairseq"] = "export"
    """export: a folder for all commands and Transformers. fairseq: a checkpoint of the original."""
    weights: Literal["student", "teacher"] = "student"
    """Whose encoder to export. The stem of audio and text is always the student's."""
    vocabulary: AnyPath | None = None
    """Text: a folder with encoder.json, vocab.bpe and dict.txt. Speech recognisers: dict.ltr.txt. Default: beside the
    checkpoint; letters also from the checkpoint itself."""
    classes: AnyPath | None = None
    """Classifiers: a text file with one class name per line; default: numbers, and of emotion2vec tokens.txt beside the
    checkpoint."""
    pretrained: AnyPath | None = None
    """The pre-trained checkpoint behind a fine-tuned one that lacks its model's shape; or FunASR's config.yaml, by
    default the one beside the checkpoint."""
    allow: tuple[str, ...] = ()
    """Classes whose objects are read as plain values; their code is not executed."""


@dataclass
class Export(OfColumns):
    """Write a model for ONNX Runtime, torch.export or Transformers without this package, checked; and upload it."""

    model: Model
    """A run folder or an exported model."""
    out: Annotated[Positional[AnyPath], arg(metavar="OUT")]
    """Folder to write, a new one."""
    _: KW_ONLY
    to: Literal["onnx", "torch"] | None = None
    """onnx (default): model.onnx; needs pip install 'data2vec2[onnx]'. torch: model.pt2, a torch.export program."""
    standalone: bool = False
    """For Transformers, with the model's own code beside the weights: loads where data2vec2 is not installed."""
    data: AnyPath | None = None
    """Data for the check and for measuring the drop in score; default: bundled samples, without a score."""
    int8: bool = False
    """ONNX: also write model_int8.onnx with 8-bit weights, and measure the drop in score; needs --data."""
    push: Annotated[str | None, arg(metavar="NAME")] = None
    """With --standalone: also upload to the Hugging Face hub, as USER/MODEL or ORGANISATION/MODEL."""
    private: bool = False
    """With --push: make a new model private."""
    license: Annotated[str | None, arg(metavar="NAME")] = None
    """With --standalone: licence on the model card, by the hub's name, such as mit or cc-by-nc-4.0."""

    def __post_init__(self) -> None:
        require(self.to in (None, "onnx", "torch"), "--to", self.to, "onnx or torch")
        if self.standalone and self.to:
            raise UsageError(f"--standalone and --to {self.to} are two formats; export twice, to two folders")
        if not self.standalone and (self.push or self.license):
            raise UsageError(f"{'--push' if self.push else '--license'} goes with --standalone")
        if self.private and not self.push:
            raise UsageError("--private goes with --push NAME")
        if self.int8 and (self.standalone or self.to == "torch"):
            raise UsageError("--int8 works only with --to onnx")
        if self.int8 and self.data is None:
            raise UsageError("--int8 needs labelled data to measure the drop in score; give --data DATA")
        if self.data is None and (self.text_columns or self.label_column or self.encoding):
            raise UsageError("--text-columns, --label-column and --encoding describe --data, which is missing")


@dataclass
class Report:
    """Rewrite the report of a run, or compare several runs on one page."""

    runs: Annotated[Positional[Paths], arg(metavar="RUN"), MANY]
    """Run folders: one for its own report, several for a comparison."""
    _: KW_ONLY
    out: AnyPath | None = None
    """File to write; default: RUN/report.html, or comparison.html in the current folder for several runs."""
    overwrite: bool = False
    """Replace an existing file. RUN/report.html is always replaced."""


@dataclass
class Tokenizer:
    """Train a tokenizer on your own text, or build the original one from its files."""

    action: Annotated[Positional[Literal["train", "original"]], arg(metavar="{train,original}")]
    """train: a byte-level BPE on the text in DATA. original: GPT-2's BPE with the ids of the released models."""
    data: Data
    """train: .txt, .jsonl, .csv, .tsv or .parquet files, a folder of them, or hf:NAME. original: a folder with
    encoder.json, vocab.bpe and dict.txt."""
    out: Annotated[AnyPath, arg(name="out")]
    """Folder to write; a new one."""
    _: KW_ONLY
    vocab_size: int = 4_000
    """Size of the vocabulary, including 261 special tokens and single bytes."""
    text_column: str = "text"
    """Column of tables, or key of .jsonl files, with the text."""
    encoding: str | None = None
    """train: encoding of the files, such as cp1252; default: UTF-8, or UTF-16 with a byte-order mark."""


@dataclass
class Bench:
    """Measure training on made-up samples: rate, share of this device's limit, memory, and where time goes."""

    config: Annotated[Positional[Recipe | None], arg(metavar="RECIPE")] = None
    """A recipe, or a run's config.yaml; flags set fields of it, as in pretrain; none: the first of each modality."""
    _: KW_ONLY
    seconds: float = 10.0
    """About as long each recipe is measured."""
    flags: Flags = ()
    """As of pretrain."""


@dataclass
class Doctor:
    """Check this machine: devices, memory, disk, missing extras, and the recipes that fit."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


def paths_of(paths: Any, what: str) -> list[Path]:
    """One path or several as a list; `UsageError` for none."""
    return [Path(name) for name in names_of(paths, what)]


def names_of(data: Any, what: str = "is no DATA: name a folder, an archive, a table or a URL") -> tuple[str, ...]:
    """Paths, URLs and names of one data set or of several; `UsageError` for none."""
    found = (str(data),) if isinstance(data, str | Path) else tuple(map(str, data))
    if not found:
        raise UsageError(f"there {what}")
    return found
