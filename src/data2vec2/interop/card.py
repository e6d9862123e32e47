"""The model card: README.md of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.evaluation.dense import MEASURES
from data2vec2.interop.onnx import output_names
from data2vec2.modalities import spec_of
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import example_of, interop_of
from data2vec2.version import __version__

_MEANING = {
    "encoder": "a vector for each token, and their mean (for pictures, without the CLS token, which comes first)",
    "classifier": "of each class, in the order of `id2label` in config.json",
    "regressor": "the number",
    "token classifier": "of each class, in the order of `id2label` in config.json, of each token",
    "question answerer": "of where the answer starts and of where it ends, of each token",
    "recogniser": "of each letter in vocab.json, every 20 ms; padding is blank (0)",
}
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("data2vec2.interop"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def model_card(config: RunConfig, data: str) -> str:
    """Of a pre-trained encoder: what it is, how it was made, how to load it."""
    info = ModelInfo(model=config.model, data=config.data)
    made = f"Pre-trained without labels by data2vec2 {__version__} (recipe `{config.recipe}`)."
    rows = {"data": data, "updates x batch": f"{config.train.updates:,} x {config.train.batch_size}"}
    return _card(info, made, rows)


def finetuned_card(config: FinetuneConfig, info: ModelInfo, data: str, scores: Mapping[str, Any]) -> str:
    """Of a model with a head; `scores` as in scores.json, or empty."""
    start = "random initialisation" if config.from_scratch else "an encoder that was pre-trained without labels"
    made = f"Fine-tuned from {start} by data2vec2 {__version__} (recipe `{config.recipe}`)."
    rows, results, task = {"data": data, **_outputs(info)}, [], _task(info)
    for rival in scores.get("baselines", ()):
        shares = ", ".join(f"{MEASURES[key]} {value:.4f}" for key, value in rival.items() if key in MEASURES)
        rows[f"baseline: {rival['name']}"] = shares
    for key, name in _measures(info, scores).items():
        if key in scores:
            result = EvalResult(task or "token-classification", "own", data, key, float(scores[key]), metric_name=name)
            result.dataset_split = scores["part"]
            results.append(result)
            bar = " (95 % interval {:.4f} to {:.4f})".format(*scores["intervals"][key]) if "intervals" in scores else ""
            rows[name] = f"{scores[key]:.4f}{bar} on {scores['samples']:,} samples ({scores['part']} part)"
        else:
            rows[name] = "none"
    rows["updates x batch"] = f"{config.train.updates:,} x {config.train.batch_size}"
    return _card(info, made, rows, eval_results=results or None, model_name=f"data2vec2 {config.recipe}")


def standalone_card(info: ModelInfo, export: Path, name: str, licence: str | None) -> str:
    """The card of an export that has its own code: the one in `export`, if it is there, for `name`.

    `name` is a path or that on a hub, `licence` as a hub has it; none: as the card says. Calls of Transformers are
    those without this package.
    """
    made = f"Exported by data2vec2 {__version__}."
    card = export.read_text("utf-8") if export.is_file() else _card(info, made, _outputs(info))
    ours = _use(info, own_code=True, path=name)
    theirs = [_use(info, own_code=False, path="PATH", converted=converted) for converted in (False, True)]
    found = next((use for use in theirs if use in card), None)
    text = card.replace(found, ours) if found else f"{card}\n{ours}\n"
    if not text.startswith("---"):
        text = f"---\n{ModelCardData(library_name='transformers', tags=['data2vec2']).to_yaml()}\n---\n\n{text}"
    found_card = ModelCard(text.replace("`data2vec2 transcribe PATH ", f"`data2vec2 transcribe {name} "))
    found_card.data["tags"] = [*(found_card.data.get("tags") or []), "custom_code"]
    if licence:
        found_card.data["license"] = licence
    return str(found_card)


def converted_card(info: ModelInfo, about: Mapping[str, Any]) -> str:
    """Of a model that was converted from a checkpoint of the original; `about` as in original.json."""
    licence = interop_of(info.kind).licence
    if getattr(info.model.modality, "num_extra_tokens", 0):
        licence = "other", "that of emotion2vec, which this program does not know"
    made = f"Trained by the authors of data2vec 2.0, or with their code, and converted by data2vec2 {__version__}."
    rows = {
        "source": f"`{about['source']}`, SHA-256 `{about['sha256']}`",
        "licence": f"{licence[1]}, if it is one of the released models",
        "weights": f"the {about['weights']}'s",
        **({"output": "a number, on the scale that it was trained with"} if info.regression else {}),
        "dropped": ", ".join(about["dropped"]) or "nothing",
    }
    return _card(info, made, rows, converted=True, license=licence[0])


def portable_card(info: ModelInfo, to: str, difference: float, int8: str | None) -> str:
    """Of a model for ONNX Runtime (`to` "onnx") or torch.export ("torch")."""
    inputs, meaning = interop_of(info.kind).named(example_of(info.model)), _MEANING[info.what]
    shown = {"onnx": to == "onnx", "difference": difference, "int8": int8}
    return _filled("program.md.j2", info, inputs=inputs, outputs=output_names(info), meaning=meaning, **shown)


def _card(info: ModelInfo, made: str, rows: Mapping[str, str], *, converted: bool = False, **header: Any) -> str:
    """A header that hubs read, what the model is, a table, and how to use it."""
    tags = ["data2vec2", *(["self-supervised"] if info.what == "encoder" else []), info.kind]
    data = ModelCardData(library_name="transformers", pipeline_tag=_task(info) or None, tags=tags, **header)
    use = _use(info, converted=converted, own_code=False, path="PATH")
    return _filled("card.md.j2", info, header=data.to_yaml(), made=made, rows=rows, converted=converted, use=use)


def _use(info: ModelInfo, *, own_code: bool, path: str, converted: bool = False) -> str:
    """How to call a model with Transformers, or else with this package."""
    return _filled("use.md.j2", info, converted=converted, own_code=own_code, path=path).rstrip()


def _filled(template: str, info: ModelInfo, **shown: Any) -> str:
    """A template with what is known of a model."""
    interop, modality = interop_of(info.kind), info.model.modality
    page = _TEMPLATES.get_template(template).render(
        info=info,
        usage=interop.usage(modality),
        takes=interop.describe(modality),
        fixed_size=interop.fixed_size,
        many=spec_of(info.kind).words.many,
        task=_task(info),
        ones=partial(_ones, info),
        version=__version__,
        **shown,
    )
    return page.encode("utf-8", "backslashreplace").decode()  # classes may have names that are no text


def _ones(info: ModelInfo, library: str) -> str:
    """Python for inputs of the right shapes, where no processor makes them."""
    named = interop_of(info.kind).named(example_of(info.model))
    types = {name: str(tensor.dtype).replace("torch", library) for name, tensor in named.items()}
    made = [f'"{n}": {library}.ones({tuple(named[n].shape)}, dtype={dtype})' for n, dtype in types.items()]
    return "{" + ", ".join(made) + "}"


def _task(info: ModelInfo) -> str:
    """What a pipeline is asked for, as hubs name it; "" where there is none."""
    if info.what == "encoder":
        return interop_of(info.kind).features_task
    if info.answers:
        return "question-answering"
    if info.dense:
        return interop_of(info.kind).dense_task
    if info.letters is not None:
        return "automatic-speech-recognition"
    return interop_of(info.kind).classes_task or f"{info.kind}-classification"


def _outputs(info: ModelInfo) -> dict[str, str]:
    """What the head tells apart."""
    if info.letters is not None:
        return {"letters": f"{len(info.letters) - 3}: {' '.join(info.letters.symbols[3:])}"}
    if info.regression:
        return {"output": "a number"}
    if info.answers:
        return {"output": "where an answer starts and ends" + ", or that there is none" * info.unanswerable}
    names = ", ".join(info.classes[:20]) + (", ..." if len(info.classes) > 20 else "")
    return {"classes": f"{len(info.classes)}{', several a sample' if info.multi_label else ''}: {names}"}


def _measures(info: ModelInfo, scores: Mapping[str, Any]) -> dict[str, str]:
    """Keys of scores.json that belong on a card, and what they are called."""
    if info.dense:
        least = "exact_match" if info.answers else "accuracy"
        return {key: name for key, name in MEASURES.items() if key in scores or key == least}
    if info.letters is not None:
        return {"wer": "word error rate (greedy)", "cer": "character error rate (greedy)"}
    if info.regression:
        return {"pearson": "Pearson correlation"}
    return {"map": "mean average precision"} if info.multi_label else {"accuracy": "accuracy"}
