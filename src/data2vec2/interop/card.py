"""The model card: README.md of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from data2vec2.config.run import FinetuneConfig, RunConfig
from data2vec2.modalities import spec_of
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import example_of, interop_of
from data2vec2.version import __version__

_MEANING = {
    "encoder": "a vector for each token, and their mean (of pictures without the CLS token, which stands first)",
    "classifier": "of each class, in the order of `id2label` in config.json",
    "regressor": "the number",
    "recogniser": "of each letter in vocab.json, at every 20 ms; padding is blank (0)",
}
_LOAD_ONNX = 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("PATH/model.onnx")'
_LOAD_TORCH = 'import torch\n\nprogram = torch.export.load("PATH/model.pt2").module()'
_PROGRAMS = {
    "onnx": ("ONNX Runtime", "np", "numpy", _LOAD_ONNX, "session.run(None, dict(inputs))"),
    "torch": ("torch.export", "pt", "torch", _LOAD_TORCH, "program(**inputs)"),
}
"""What runs a program, what arrays it takes, from which library; how it is loaded and run."""


def model_card(config: RunConfig, data: str) -> str:
    """Of a pre-trained encoder: what it is, how it was made, how to load it."""
    info = ModelInfo(model=config.model, data=config.data)
    made = f"Pre-trained without labels by data2vec2 {__version__} (recipe `{config.recipe}`)."
    rows = {"data": data, "updates x batch": f"{config.train.updates:,} x {config.train.batch_size}"}
    return _card(info, made, rows, _loading(info))


def finetuned_card(config: FinetuneConfig, info: ModelInfo, data: str, scores: Mapping[str, Any]) -> str:
    """Of a model with a head; `scores` as in scores.json, or empty."""
    start = "random initialisation" if config.from_scratch else "an encoder that was pre-trained without labels"
    made = f"Fine-tuned from {start} by data2vec2 {__version__} (recipe `{config.recipe}`)."
    rows = {"data": data, **_outputs(info)}
    for key, name in _measures(info).items():
        rows[name] = f"{scores[key]:.4f} on {scores['samples']:,} samples ({scores['part']} part)" if scores else "none"
    rows["updates x batch"] = f"{config.train.updates:,} x {config.train.batch_size}"
    use = _with_verb(info)
    if usage := interop_of(info.kind).usage(info.model.modality):
        use = f"""```python
import data2vec2
from transformers import pipeline

print(pipeline("{_task(info)}", model="PATH")({usage.pipeline}))
```"""
    if info.letters is not None:
        use += "\n\n`data2vec2 transcribe PATH FILES` writes down what is said, in recordings of any length."
    return _card(info, made, rows, use, pipeline_tag=_task(info))


def converted_card(info: ModelInfo, about: Mapping[str, Any]) -> str:
    """Of a model that was converted from a checkpoint of the original; `about` as in original.json."""
    licence = interop_of(info.kind).licence
    made = f"Trained by the authors of data2vec 2.0, or with their code, and converted by data2vec2 {__version__}."
    rows = {
        "source": f"`{about['source']}`, SHA-256 `{about['sha256']}`",
        "licence": f"{licence[1]}, if it is one of the released models",
        "weights": f"the {about['weights']}'s",
        **({"output": "a number, on the scale that it was trained with"} if info.regression else {}),
        "dropped": ", ".join(about["dropped"]) or "nothing",
    }
    use = _loading(info) if info.what == "encoder" else _with_verb(info)
    back = """Decoder and teacher, if the source has them, and the original's configuration stand in \
`original.safetensors` and `original.json`: `data2vec2 convert PATH OUT.pt --to fairseq` makes the checkpoint \
of them again."""
    return _card(info, made, rows, f"{back}\n\n{use}", license=licence[0])


def portable_card(info: ModelInfo, to: str, difference: float, int8: str | None) -> str:
    """Of a model for ONNX Runtime (`to` "onnx") or torch.export ("torch")."""
    interop = interop_of(info.kind)
    outputs = ["last_hidden_state", "pooler_output"] if info.what == "encoder" else ["logits"]
    names = ", ".join(f"`{name}`" for name in interop.named(example_of(info.model)))
    program, arrays, library, load, run = _PROGRAMS[to]
    before, make = "import numpy\n" if library == "numpy" else "", f"inputs = {_ones(info, library)}"
    if usage := interop.usage(info.model.modality):
        before = f"import data2vec2  # for its processors\nfrom transformers import {usage.processor}\n"
        make = f'processor = {usage.processor}.from_pretrained("PATH")\n'
        make += f'inputs = processor({usage.several}, return_tensors="{arrays}")'
    any_length = "" if interop.fixed_size else ", of any length; shorter ones of a batch are filled up"
    quantised = f"\n\n`model_int8.onnx` is the same with matrices of 8 bits. {int8}." if int8 else ""
    return f"""# data2vec 2.0 {info.kind} {info.what}, for {program}

Written by data2vec2 {__version__}; largest difference from PyTorch, on real inputs: {difference:.1e}.

| | |
|---|---|
| inputs | {names}; any number of samples{any_length} |
| outputs | {", ".join(f"`{name}`" for name in outputs)}: {_MEANING[info.what]} |
| made for | {interop.describe(info.model.modality)} |

```python
{before}{load}
{make}
{", ".join(outputs)}{"," if len(outputs) == 1 else ""} = {run}
```{quantised}
"""


def _card(info: ModelInfo, made: str, rows: Mapping[str, str], use: str, **header: Any) -> str:
    """A header that hubs read, what the model is, a table, and how to use it."""
    encoder = info.model.encoder
    tag = f"{info.kind}-feature-extraction" if info.what == "encoder" else _task(info)
    tags = ["data2vec2", *(["self-supervised"] if info.what == "encoder" else []), tag]
    data = ModelCardData(library_name="transformers", tags=tags, **header)
    table = {
        **rows,
        "input": interop_of(info.kind).describe(info.model.modality),
        "encoder": f"{encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim}",
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    title = f"# data2vec 2.0 {info.kind} {info.what}"
    return f"---\n{data.to_yaml()}\n---\n\n{title}\n\n{made}\n\n| | |\n|---|---|\n{lines}\n\n{use}\n"


def _loading(info: ModelInfo) -> str:
    """How to load an encoder with Transformers."""
    usage = interop_of(info.kind).usage(info.model.modality)
    if usage is None:
        return f"""```python
import data2vec2
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("PATH")
inputs = {_ones(info, "torch")}
features = model(**inputs).pooler_output
```

`pooler_output` is the mean over the tokens; `attention_mask` is 0 where a batch is only filled up."""
    return f"""```python
import data2vec2
from transformers import {usage.processor}, AutoModel

processor = {usage.processor}.from_pretrained("PATH")
model = AutoModel.from_pretrained("PATH")
features = model(**processor({usage.call}, return_tensors="pt")).pooler_output
```

{usage.note}"""


def _ones(info: ModelInfo, library: str) -> str:
    """Python for inputs of the right shapes, where no processor makes them."""
    named = interop_of(info.kind).named(example_of(info.model))
    types = {name: str(tensor.dtype).replace("torch", library) for name, tensor in named.items()}
    made = [f'"{n}": {library}.ones({tuple(named[n].shape)}, dtype={dtype})' for n, dtype in types.items()]
    return "{" + ", ".join(made) + "}"


def _with_verb(info: ModelInfo) -> str:
    """The command that uses a model with a head."""
    asked = f"predict PATH {spec_of(info.kind).words.many.upper()}" if info.letters is None else "transcribe PATH FILES"
    return f"`data2vec2 {asked}` uses it."


def _task(info: ModelInfo) -> str:
    """What a pipeline is asked for."""
    return "automatic-speech-recognition" if info.letters is not None else f"{info.kind}-classification"


def _outputs(info: ModelInfo) -> dict[str, str]:
    """What the head tells apart."""
    if info.letters is not None:
        return {"letters": f"{len(info.letters) - 3}: {' '.join(info.letters.symbols[3:])}"}
    if info.regression:
        return {"output": "a number"}
    names = ", ".join(info.classes[:20]) + (", ..." if len(info.classes) > 20 else "")
    return {"classes": f"{len(info.classes)}{', several a sample' if info.multi_label else ''}: {names}"}


def _measures(info: ModelInfo) -> dict[str, str]:
    """Keys of scores.json that belong on a card, and what they are called."""
    if info.letters is not None:
        return {"wer": "word error rate (greedy)", "cer": "character error rate (greedy)"}
    if info.regression:
        return {"pearson": "Pearson correlation"}
    return {"map": "mean average precision"} if info.multi_label else {"accuracy": "accuracy"}
