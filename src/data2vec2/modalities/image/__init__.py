"""Pictures."""

from __future__ import annotations

from pathlib import Path

from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageFinetuneDataConfig, ImageTaskConfig
from data2vec2.modalities.image.recipes import FINETUNE, RECIPES, SEGMENT
from data2vec2.modalities.spec import Demo, Spec, Words

_BUNDLED = Path(__file__).parents[2] / "data" / "bundled"


def clip_art() -> Path:
    """1,895 training and 510 test drawings of Open Clip Art (64 pixels, colour, 11 classes), for `open_data`."""
    return _BUNDLED / "clip_art"


def fashion_mnist() -> Path:
    """10,000 training and 2,000 test pictures of Fashion-MNIST (28 x 28, grey, 10 classes), for `open_data`."""
    return _BUNDLED / "fashion_mnist" / "fashion_mnist.npz"


SPEC = Spec(
    name="image",
    words=Words(one="picture", many="pictures", unit="pictures", token="patch", largest="a picture", raw="raw pixels"),
    config=ImageConfig,
    data=ImageDataConfig,
    finetune_data=ImageFinetuneDataConfig,
    task=ImageTaskConfig,
    recipes=RECIPES,
    finetune={"classify": FINETUNE, "patches": SEGMENT},
    probes=("knn", "linear", "attentive"),
    demo=Demo(recipe="image_tiny", data=clip_art, about="1,895 drawings, without their labels"),
    tools="data2vec2.modalities.image.tools:ImageTools",
    transformers="data2vec2.modalities.image.transformers",
)
