"""The model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data2vec2.config import FinetuneConfig, RunConfig
from data2vec2.interop.export import ExportInfo
from data2vec2.version import __version__


def model_card(config: RunConfig, data: str) -> str:
    """README.md of an exported model: what it is, how it was made, how to load it."""
    modality, encoder = config.model.modality, config.model.encoder
    pixels, channels = f"{modality.image_size} x {modality.image_size} pixels", f"{modality.num_channels} channel(s)"
    grey = ' The model sees grey pictures: `picture.convert("L")` first.'
    note = grey if modality.num_channels == 1 else ""
    return f"""---
library_name: transformers
tags: [data2vec2, self-supervised, image-feature-extraction]
---

# data2vec 2.0 image encoder

Pre-trained without labels by data2vec2 {__version__} (recipe `{config.recipe}`).

| | |
|---|---|
| data | {data} |
| updates x batch | {config.train.updates:,} x {config.train.batch_size} |
| input | {pixels}, {channels}, patches of {modality.patch_size} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |

```python
import data2vec2
from transformers import AutoImageProcessor, AutoModel

processor = AutoImageProcessor.from_pretrained("PATH")
model = AutoModel.from_pretrained("PATH")
features = model(**processor(picture, return_tensors="pt")).pooler_output
```

`pooler_output` is the mean over patches; `last_hidden_state` starts with the CLS token.{note}
"""


def classifier_card(config: FinetuneConfig, info: ExportInfo, data: str, scores: Mapping[str, Any]) -> str:
    """README.md of a fine-tuned classifier; `scores` as in scores.json, or empty."""
    modality, encoder = info.model.modality, info.model.encoder
    pixels, channels = f"{modality.image_size} x {modality.image_size} pixels", f"{modality.num_channels} channel(s)"
    start = (
        "from random initialisation" if config.from_scratch else "from an encoder that was pre-trained without labels"
    )
    names = ", ".join(info.classes[:20]) + (", ..." if len(info.classes) > 20 else "")
    measure = ("mean average precision", "map") if info.multi_label else ("accuracy", "accuracy")
    score = f"{scores[measure[1]]:.4f} on {scores['samples']:,} pictures ({scores['part']} part)" if scores else "none"
    return f"""---
library_name: transformers
pipeline_tag: image-classification
tags: [data2vec2, image-classification]
---

# data2vec 2.0 image classifier

Fine-tuned {start} by data2vec2 {__version__} (recipe `{config.recipe}`).

| | |
|---|---|
| data | {data} |
| classes | {len(info.classes)}{", several a picture" if info.multi_label else ""}: {names} |
| {measure[0]} | {score} |
| updates x batch | {config.train.updates:,} x {config.train.batch_size} |
| input | {pixels}, {channels}, patches of {modality.patch_size} |
| encoder | {encoder.prenet_depth + encoder.depth} blocks of width {encoder.embed_dim} |
"""
