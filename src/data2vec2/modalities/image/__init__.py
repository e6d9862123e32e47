"""Pictures."""

from __future__ import annotations

from pathlib import Path

from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageFinetuneDataConfig, ImageTaskConfig
from data2vec2.modalities.image.recipes import FINETUNE, RECIPES
from data2vec2.modalities.spec import Demo, Spec, Words


def fashion_mnist() -> Path:
    """10,000 training and 2,000 test pictures of Fashion-MNIST (28 x 28, grey, 10 classes), for `open_data`."""
    return Path(__file__).parents[2] / "data" / "bundled" / "fashion_mnist" / "fashion_mnist.npz"


SPEC = Spec(
    name="image",
    words=Words(one="picture", many="pictures", unit="pictures", token="patch", largest="a picture", raw="raw pixels"),
    config=ImageConfig,
    data=ImageDataConfig,
    finetune_data=ImageFinetuneDataConfig,
    task=ImageTaskConfig,
    recipes=RECIPES,
    finetune={"classify": FINETUNE},
    probes=("knn", "linear", "attentive"),
    demo=Demo(recipe="image_tiny", data=fashion_mnist, about="10,000 small pictures of clothes, without their labels"),
    tools="data2vec2.modalities.image.tools:ImageTools",
    transformers="data2vec2.modalities.image.transformers",
)
