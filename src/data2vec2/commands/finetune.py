"""finetune classify MODEL DATA --out RUN."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from data2vec2.commands.environment import environment
from data2vec2.commands.finetuned import write_result
from data2vec2.commands.kinds import Log
from data2vec2.commands.labelled import LabelledData, look_at, open_labelled_data
from data2vec2.commands.plan import keep_started
from data2vec2.commands.running import fitted, help_task, placed, run_task
from data2vec2.config import FinetuneConfig, ImageConfig, ModelConfig, from_dict, to_dict
from data2vec2.data.augment import Augment, needs_timm
from data2vec2.data.loader import default_workers
from data2vec2.data.skipped import Skipped
from data2vec2.errors import UserError
from data2vec2.interop.export import ExportInfo, export_of, load_encoder
from data2vec2.losses import classification
from data2vec2.modalities import build_modality
from data2vec2.models import Classifier, Encoder
from data2vec2.recipes.finetune import get_finetune_recipe
from data2vec2.tasks.classify import ClassifyTask
from data2vec2.training.device import cpu_threads
from data2vec2.training.loop import Outcome
from data2vec2.training.optim import peak_lr
from data2vec2.training.parallel import World, is_helper, local_device
from data2vec2.training.progress import console
from data2vec2.training.run import CONFIG, SPLIT, RunFolder, write_text

HELPER = "from data2vec2.commands.finetune import help_finetune; help_finetune()"


def finetune(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    config: FinetuneConfig | str = "image_finetune_tiny",
    val: str | Path | None = None,
    from_scratch: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Outcome:
    """Train a classifier from a pre-trained encoder on the labels of DATA, into the run folder `out`.

    `model` is a run folder or an exported model; `config` a recipe's name or a complete configuration. `from_scratch`
    takes the model's shape but not its weights (the baseline). The model that is exported is the best on the validation
    part: `val`, or DATA's own, or a part of DATA that is held out. It is scored on DATA's test part if there is one
    (scores.json, mistakes.npz). `resume`, `overwrite` and `dry_run` as in `pretrain`.

    Returns how the run ended. Raises `UserError` (model, data or folder can't be used) or `ValueError` (configuration).
    """
    if is_helper():
        return help_finetune()
    if resume and overwrite:
        raise ValueError("--resume goes on with a run and --overwrite deletes it; give one of them")
    run, data, val, say = RunFolder(Path(out)), Path(data), Path(val) if val else None, console().print
    run.check(resume=resume, overwrite=overwrite)
    source = export_of(Path(model))
    encoder, info = load_encoder(source)
    config = _started(run, config, from_scratch, _sha256(source)) if resume else _planned(config, from_scratch, say)
    config, shape = _completed(config, info, _sha256(source))
    labelled = open_labelled_data(config, shape, data, val)
    say(f"data: {data}: {labelled.description}")
    skipped = look_at(labelled, config.data.max_bad, say)
    config = _with_workers(config, labelled)
    device = local_device(torch.device(config.train.device))
    with cpu_threads(config.train.threads):
        classifier = _build(config, shape, encoder, len(labelled.classes), device)
        config = _fitted(config, classifier, shape, device)
        _explain(config, classifier, say)
        if dry_run:
            _show_first_batch(config, labelled, say)
            return Outcome("planned", 0)
        with run.locked():
            run.check(resume=resume, overwrite=overwrite)
            if not resume:
                run.clear()
            _write_start(run, config, labelled, Path(model), skipped)
            job = {"config": to_dict(config), "model": str(source), "data": str(data), "val": str(val) if val else None}
            place = {"run": str(run.path.resolve()), "device": config.train.device, "threads": config.train.threads}
            return run_task(
                run,
                config,
                lambda world: _task(classifier, config, labelled, device, skipped, run, world),
                job={**job, **place},
                helper=HELPER,
                fingerprint=labelled.train.records.fingerprint,
                resume=resume,
                skipped=skipped,
                finish=lambda log: write_result(run, config, shape, classifier, labelled, log),
            )


def help_finetune() -> Outcome:
    """Compute a share of the gradients of another process's run."""

    def build(job: dict[str, Any], device: torch.device) -> tuple[FinetuneConfig, str, Callable[[World], ClassifyTask]]:
        config, run = from_dict(FinetuneConfig, job["config"]), RunFolder(Path(job["run"]))
        encoder, info = load_encoder(Path(job["model"]))
        shape = _completed(config, info, config.weights or "")[1]
        val = Path(job["val"]) if job["val"] else None
        data = open_labelled_data(config, shape, Path(job["data"]), val)
        model = _build(config, shape, encoder, len(data.classes), device)
        skipped, fingerprint = Skipped(len(data.train.records), 1.0), data.train.records.fingerprint
        return config, fingerprint, lambda world: _task(model, config, data, device, skipped, run, world)

    return help_task(build)


def _sha256(source: Path) -> str:
    with (source / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _planned(config: FinetuneConfig | str, from_scratch: bool, say: Log) -> FinetuneConfig:
    """The configuration with a warm-up that fits the number of updates."""
    config = get_finetune_recipe(config) if isinstance(config, str) else config
    planned = _with_warmup(replace(config, from_scratch=from_scratch or config.from_scratch, weights=None))
    if planned.optim != config.optim:
        say(f"schedule: {config.train.updates:,} updates: warm-up {planned.optim.warmup_updates:,}")
    return planned


def _with_warmup(config: FinetuneConfig) -> FinetuneConfig:
    """A warm-up as much shorter as the run is shorter than the recipe's, unless it was set."""
    recipe = get_finetune_recipe(config.recipe)
    ratio = config.train.updates / recipe.train.updates
    if ratio >= 1 or config.optim.warmup_updates != recipe.optim.warmup_updates:
        return config
    return replace(config, optim=replace(config.optim, warmup_updates=round(ratio * recipe.optim.warmup_updates)))


def saved_finetune_config(run: Path) -> FinetuneConfig:
    """The configuration in a run folder; `UserError` if it can't be read."""
    try:
        return from_dict(FinetuneConfig, yaml.safe_load((run / CONFIG).read_text()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise UserError(f"{run / CONFIG} is not of a fine-tuning run: {error}") from error


def _started(run: RunFolder, asked: FinetuneConfig | str, from_scratch: bool, weights: str) -> FinetuneConfig:
    """The run's own configuration, with what may change as asked; `UserError` for any other change."""
    saved = saved_finetune_config(run.path)
    recipe = asked if isinstance(asked, str) else asked.recipe
    if recipe != saved.recipe:
        raise UserError(f"the folder holds a run of {saved.recipe}, not of {recipe}")
    if weights != saved.weights:
        raise UserError("MODEL is not the one that the run was started from; resume with the same")
    if from_scratch and not saved.from_scratch:
        raise UserError("--from-scratch can't change on --resume: the run was started from MODEL's weights")
    return saved if isinstance(asked, str) else keep_started(saved, asked, _with_warmup(asked))


def _completed(config: FinetuneConfig, info: ExportInfo, weights: str) -> tuple[FinetuneConfig, ModelConfig]:
    """The configuration with what it leaves to model and machine, and the shape of the encoder at its image size."""
    (modality, of_model), data = info.image, config.data
    channels = modality.num_channels
    if data.mean is None or data.std is None:
        data = replace(data, mean=of_model.mean, std=of_model.std)
    elif not len(data.mean) == len(data.std) == channels:
        raise ValueError(f"data.mean and data.std have {len(data.mean)} values; the model has {channels} channels")
    size = config.model.image_size
    if size is not None and size != modality.image_size:
        if size % modality.patch_size:
            raise ValueError(
                f"model.image_size is {size}; it must be a multiple of {modality.patch_size}, the patch size"
            )
        modality = replace(modality, image_size=size, position_size=modality.position_size or modality.image_size)
    config = replace(config, data=data, train=placed(config.train), weights=weights)
    if needs_timm(config.augment):  # what is wrong with it is said before anything is written
        Augment(config.augment, modality.image_size, data.mean or (), data.std or (), config.train.seed)
    return config, replace(info.model, modality=modality)


def _with_workers(config: FinetuneConfig, data: LabelledData) -> FinetuneConfig:
    """The configuration with the number of reader processes."""
    if config.data.workers is not None:
        return config
    in_memory = data.train.records.source.in_memory and not needs_timm(config.augment)
    return replace(config, data=replace(config.data, workers=default_workers(in_memory)))


def _build(
    config: FinetuneConfig, shape: ModelConfig, source: Encoder, classes: int, device: torch.device
) -> Classifier:
    """The classifier on its device, with the source's weights or random ones."""
    torch.manual_seed(config.train.seed)
    encoder = Encoder(shape.encoder, build_modality(shape))
    if not config.from_scratch:
        encoder.load_state_dict(source.state_dict())
    return Classifier(encoder, classes, config.model.drop_path).to(device)


def _fitted(config: FinetuneConfig, model: Classifier, shape: ModelConfig, device: torch.device) -> FinetuneConfig:
    """The configuration with precision and micro-batch filled in."""
    modality = shape.modality
    assert isinstance(modality, ImageConfig)
    picture = torch.zeros(1, modality.num_channels, modality.image_size, modality.image_size, device=device)
    target = torch.zeros(1, model.head.out_features, device=device)
    config = replace(config, train=fitted(config.train, lambda: classification(model(picture), target, False), device))
    model.zero_grad()
    return config


def _task(
    model: Classifier,
    config: FinetuneConfig,
    data: LabelledData,
    device: torch.device,
    skipped: Skipped,
    run: RunFolder,
    world: World,
) -> ClassifyTask:
    return ClassifyTask(model, config, data.train, data.val, device, skipped, run.path / "skipped.jsonl", world)


def _explain(config: FinetuneConfig, model: Classifier, say: Log) -> None:
    """Print the plan."""
    start, train = "from random initialisation" if config.from_scratch else "pre-trained", config.train
    say(f"model: {sum(p.numel() for p in model.parameters()):,} parameters, {start}; {model.head.out_features} classes")
    processes = f" by each of {train.processes} processes" if train.processes != 1 else ""
    say(
        f"plan: {train.updates:,} updates of {train.batch_size} pictures ({train.micro_batch} at once{processes}) on "
        f"{train.device} in {train.precision}; peak learning rate {peak_lr(config.optim, train.batch_size):g} after "
        f"{config.optim.warmup_updates:,} updates, layer decay {config.optim.layer_decay:g}"
    )


def _show_first_batch(config: FinetuneConfig, data: LabelledData, say: Log) -> None:
    """Print the first batch's shapes and the configuration."""
    modality, batch = data.train.config, config.train.batch_size
    say(f"first batch: pictures {(batch, modality.num_channels, modality.image_size, modality.image_size)}")
    say(f"first batch: targets {(batch, len(data.classes))}")
    say(yaml.safe_dump(to_dict(config), sort_keys=False).rstrip())


def _write_start(run: RunFolder, config: FinetuneConfig, data: LabelledData, model: Path, skipped: Skipped) -> None:
    """What the folder says about the run before it begins."""
    write_text(run.path / CONFIG, yaml.safe_dump(to_dict(config), sort_keys=False))
    run.write_json("environment.json", {"data": data.description, "model": str(model), **environment()})
    run.write_json(SPLIT, {"validation": list(data.val.records.names) if data.val else []})
    if skipped.reasons:
        skipped.write(run.path / "skipped.jsonl")
