"""The model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data2vec2.config import AnyFinetuneConfig, AudioConfig, AudioFinetuneConfig, ImageConfig, RunConfig, TextConfig
from data2vec2.interop.export import ExportInfo
from data2vec2.version import __version__


def model_card(config: RunConfig, data: str) -> str:
    """README.md of an exported model: what it is, how it was made, how to load it."""
    kind, encoder = config.model.modality.kind, config.model.encoder
    return f"""---
library_name: transformers
tags: [data2vec2, self-supervised, {kind}-feature-extraction]
---

# data2vec 2.0 {kind} encoder

Pre-trained without labels by data2vec2 {__version__} (recipe `{config.recipe}`).

| | |
|---|---|
| data | {data} |
| updates x batch | {config.train.updates:,} x {config.train.batch_size} |
| input | {_input(config.model.modality)} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |

{_use(config.model.modality)}
"""


def _input(modality: ImageConfig | AudioConfig | TextConfig) -> str:
    """What the model takes."""
    if isinstance(modality, AudioConfig):
        return f"waveforms of {modality.sample_rate:,} Hz, one channel ({modality.stem} stem)"
    if isinstance(modality, TextConfig):
        return f"up to {modality.max_tokens} tokens of a vocabulary of {modality.vocab_size:,}"
    size = f"{modality.image_size} x {modality.image_size} pixels"
    return f"{size}, {modality.channels} channel(s), patches of {modality.patch_size}"


def _use(modality: ImageConfig | AudioConfig | TextConfig) -> str:
    """How to load the model with Transformers."""
    if isinstance(modality, AudioConfig):
        processor, call = "AutoFeatureExtractor", f"waveform, sampling_rate={modality.sample_rate}"
        note = "`pooler_output` is the mean over time; `last_hidden_state` has one vector for each 20 ms."
    elif isinstance(modality, TextConfig):
        processor, call = "AutoTokenizer", "texts, padding=True, truncation=True"
        note = "`pooler_output` is the mean over the real tokens; `last_hidden_state` has one vector for each token."
    else:
        processor, call = "AutoImageProcessor", "picture"
        note = "`pooler_output` is the mean over patches; `last_hidden_state` starts with the CLS token."
    return f"""```python
import data2vec2
from transformers import {processor}, AutoModel

processor = {processor}.from_pretrained("PATH")
model = AutoModel.from_pretrained("PATH")
features = model(**processor({call}, return_tensors="pt")).pooler_output
```

{note}"""


def classifier_card(config: AnyFinetuneConfig, info: ExportInfo, data: str, scores: Mapping[str, Any]) -> str:
    """README.md of a fine-tuned classifier, or of a model that gives numbers; `scores` as in scores.json, or empty."""
    kind, encoder = info.model.modality.kind, info.model.encoder
    start = (
        "from random initialisation" if config.from_scratch else "from an encoder that was pre-trained without labels"
    )
    names = ", ".join(info.classes[:20]) + (", ..." if len(info.classes) > 20 else "")
    measure = ("mean average precision", "map") if info.multi_label else ("accuracy", "accuracy")
    if info.regression:
        measure = ("Pearson correlation", "pearson")
    outputs = (
        "a number"
        if info.regression
        else f"{len(info.classes)}{', several a sample' if info.multi_label else ''}: {names}"
    )
    score = f"{scores[measure[1]]:.4f} on {scores['samples']:,} samples ({scores['part']} part)" if scores else "none"
    return f"""---
library_name: transformers
pipeline_tag: {kind}-classification
tags: [data2vec2, {kind}-classification]
---

# data2vec 2.0 {kind} {"regression" if info.regression else "classifier"}

Fine-tuned {start} by data2vec2 {__version__} (recipe `{config.recipe}`).

| | |
|---|---|
| data | {data} |
| {"output" if info.regression else "classes"} | {outputs} |
| {measure[0]} | {score} |
| updates x batch | {config.train.updates:,} x {config.train.batch_size} |
| input | {_input(info.model.modality)} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |

{_pipeline(f"{kind}-classification", info.model.modality)}
"""


def recognizer_card(config: AudioFinetuneConfig, info: ExportInfo, data: str, scores: Mapping[str, Any]) -> str:
    """README.md of a recogniser of speech; `scores` as in scores.json, or empty."""
    encoder, letters = info.model.encoder, info.letters
    assert letters is not None
    start = (
        "from random initialisation" if config.from_scratch else "from an encoder that was pre-trained without labels"
    )
    said = (
        f"{scores['wer']:.4f} of words, {scores['cer']:.4f} of characters on {scores['samples']:,} recordings "
        f"({scores['part']} part), greedy"
        if scores
        else "none"
    )
    return f"""---
library_name: transformers
pipeline_tag: automatic-speech-recognition
tags: [data2vec2, automatic-speech-recognition]
---

# data2vec 2.0 speech recogniser

Fine-tuned {start} by data2vec2 {__version__} (recipe `{config.recipe}`).

| | |
|---|---|
| data | {data} |
| letters | {len(letters) - 3}: {" ".join(letters.symbols[3:])} |
| error rate | {said} |
| updates x batch | {config.train.updates:,} x {config.train.batch_size} seconds |
| input | {_input(info.model.modality)} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |

{_pipeline("automatic-speech-recognition", info.model.modality)}

`data2vec2 transcribe PATH FILES` writes down what is said, in recordings of any length.
"""


def converted_card(info: ExportInfo, about: Mapping[str, Any]) -> str:
    """README.md of a model that was converted from a checkpoint of the original; `about` as in original.json."""
    kind, encoder = info.model.modality.kind, info.model.encoder
    what = {"pretraining": "encoder", "classifier": "classifier", "recognizer": "recogniser"}[about["job"]]
    licence = ("cc-by-nc-4.0", "CC-BY-NC 4.0: not for commercial use") if kind == "image" else ("mit", "MIT")
    numbers = "\n| output | a number, on the scale that it was trained with |" if info.regression else ""
    if about["job"] == "pretraining":
        use = _use(info.model.modality)
    else:
        verb = "transcribe PATH FILES" if about["job"] == "recognizer" else f"predict PATH {kind.upper()}S"
        use = f"`data2vec2 {verb}` uses it."
    return f"""---
library_name: transformers
license: {licence[0]}
tags: [data2vec2, {kind}-feature-extraction]
---

# data2vec 2.0 {kind} {what}

Trained by the authors of data2vec 2.0, or with their code, and converted by data2vec2 {__version__}.

| | |
|---|---|
| source | `{about["source"]}`, SHA-256 `{about["sha256"]}` |
| licence | {licence[1]}, if it is one of the released models |
| weights | the {about["weights"]}'s |{numbers}
| input | {_input(info.model.modality)} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |
| dropped | {", ".join(about["dropped"]) or "nothing"} |

Decoder and teacher, if the source has them, and the original's configuration stand in `original.safetensors` and
`original.json`: `data2vec2 convert PATH OUT.pt --to fairseq` makes the checkpoint of them again.

{use}
"""


def kind_of_model(info: ExportInfo) -> str:
    """encoder, classifier, regressor or recogniser."""
    if info.letters is not None:
        return "recogniser"
    return ("regressor" if info.regression else "classifier") if info.classes else "encoder"


def portable_card(info: ExportInfo, to: str, difference: float, int8: str | None) -> str:
    """README.md of a model for ONNX Runtime (`to` "onnx") or torch.export ("torch")."""
    kind, audio = info.model.modality.kind, isinstance(info.model.modality, AudioConfig)
    outputs = ["logits"] if info.classes or info.letters is not None else ["last_hidden_state", "pooler_output"]
    inputs = {"image": "`pixel_values`", "audio": "`input_values`, `attention_mask`"}
    names = inputs.get(kind, "`input_ids`, `attention_mask`")
    processor, call = {
        "image": ("AutoImageProcessor", "picture"),
        "audio": ("AutoFeatureExtractor", f"waveforms, sampling_rate={getattr(info.model.modality, 'sample_rate', 0)}"),
        "text": ("AutoTokenizer", "texts, truncation=True"),
    }[kind]
    call += "" if kind == "image" else ", padding=True"
    arrays, run = ("np", "session.run(None, dict(inputs))") if to == "onnx" else ("pt", "program(**inputs)")
    load = (
        'import onnxruntime\n\nsession = onnxruntime.InferenceSession("PATH/model.onnx")'
        if to == "onnx"
        else 'import torch\n\nprogram = torch.export.load("PATH/model.pt2").module()'
    )
    meaning = {
        "encoder": "a vector for each token, and their mean (of pictures without the CLS token, which stands first)",
        "classifier": "of each class, in the order of `id2label` in config.json",
        "regressor": "the number",
        "recogniser": "of each letter in vocab.json, at every 20 ms; padding is blank (0)",
    }[kind_of_model(info)]
    quantised = f"`model_int8.onnx` is the same with matrices of 8 bits. {int8}." if int8 else ""
    return f"""# data2vec 2.0 {kind} {kind_of_model(info)}, for {"ONNX Runtime" if to == "onnx" else "torch.export"}

Written by data2vec2 {__version__}; largest difference from PyTorch, on real inputs: {difference:.1e}.

| | |
|---|---|
| inputs | {names}; any number of samples{"" if kind == "image" else ", of any length"} |
| outputs | {", ".join(f"`{name}`" for name in outputs)}: {meaning} |
| made for | {_input(info.model.modality)}{"; shorter ones of a batch are filled up with zeros" if audio else ""} |

```python
import data2vec2  # for its processors
from transformers import {processor}
{load}
processor = {processor}.from_pretrained("PATH")
inputs = processor({call}, return_tensors="{arrays}")
{", ".join(outputs)}{"," if len(outputs) == 1 else ""} = {run}
```

{quantised}
"""


def _pipeline(task: str, modality: ImageConfig | AudioConfig | TextConfig) -> str:
    """How to ask a fine-tuned model with Transformers."""
    value = "text" if isinstance(modality, TextConfig) else "picture"
    if isinstance(modality, AudioConfig):
        value = f'{{"raw": waveform, "sampling_rate": {modality.sample_rate}}}'
    return f"""```python
import data2vec2
from transformers import pipeline

print(pipeline("{task}", model="PATH")({value}))
```"""
