"""The model card."""

from __future__ import annotations

from data2vec2.config import RunConfig
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
