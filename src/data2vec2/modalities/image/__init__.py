"""Pictures."""

from __future__ import annotations

from data2vec2.data.samples import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig, ImageFinetuneDataConfig, ImageTaskConfig
from data2vec2.modalities.image.recipes import FINETUNE, RECIPES
from data2vec2.modalities.spec import Demo, Spec, Words

SPEC = Spec(
    name="image",
    words=Words(
        one="picture",
        many="pictures",
        unit="pictures",
        token="patch",
        largest="a picture",
        raw="raw pixels",
    ),
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
