"""The models as Hugging Face Transformers has them (5.0 or later).

Importing this module registers its classes with Transformers' Auto classes; `import data2vec2` sees to that.

There is one model type a modality ("data2vec2-image", "data2vec2-audio", "data2vec2-text"), because their
processors are of different families. A modality adds a configuration with its own fields and models with their
own `forward`; everything else is shared.
"""

from __future__ import annotations

from inspect import signature

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from data2vec2.interop.transformers.base import Data2Vec2PreTrainedModel
from data2vec2.interop.transformers.configuration import (
    Data2Vec2AudioConfig,
    Data2Vec2Config,
    Data2Vec2ImageConfig,
    Data2Vec2TextConfig,
)
from data2vec2.interop.transformers.encoders import Data2Vec2AudioModel, Data2Vec2ImageModel, Data2Vec2TextModel
from data2vec2.interop.transformers.heads import (
    Data2Vec2AudioForAudioClassification,
    Data2Vec2AudioForCTC,
    Data2Vec2ImageForImageClassification,
    Data2Vec2TextForSequenceClassification,
)
from data2vec2.interop.transformers.preprocessing import Data2Vec2CTCTokenizer, Data2Vec2ImageProcessor
from data2vec2.interop.transformers.pretraining import (
    Data2Vec2AudioForPreTraining,
    Data2Vec2ImageForPreTraining,
    Data2Vec2PreTrainingOutput,
    Data2Vec2TextForPreTraining,
    TeacherUpdate,
)

__all__ = [
    "Data2Vec2AudioConfig",
    "Data2Vec2AudioForAudioClassification",
    "Data2Vec2AudioForCTC",
    "Data2Vec2AudioForPreTraining",
    "Data2Vec2AudioModel",
    "Data2Vec2CTCTokenizer",
    "Data2Vec2Config",
    "Data2Vec2ImageConfig",
    "Data2Vec2ImageForImageClassification",
    "Data2Vec2ImageForPreTraining",
    "Data2Vec2ImageModel",
    "Data2Vec2ImageProcessor",
    "Data2Vec2PreTrainedModel",
    "Data2Vec2PreTrainingOutput",
    "Data2Vec2TextConfig",
    "Data2Vec2TextForPreTraining",
    "Data2Vec2TextForSequenceClassification",
    "Data2Vec2TextModel",
    "TeacherUpdate",
]

for _config in (Data2Vec2ImageConfig, Data2Vec2AudioConfig, Data2Vec2TextConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
for _auto, _model in (
    (AutoModel, Data2Vec2ImageModel),
    (AutoModel, Data2Vec2AudioModel),
    (AutoModel, Data2Vec2TextModel),
    (AutoModelForPreTraining, Data2Vec2ImageForPreTraining),
    (AutoModelForPreTraining, Data2Vec2AudioForPreTraining),
    (AutoModelForPreTraining, Data2Vec2TextForPreTraining),
    (AutoModelForImageClassification, Data2Vec2ImageForImageClassification),
    (AutoModelForAudioClassification, Data2Vec2AudioForAudioClassification),
    (AutoModelForCTC, Data2Vec2AudioForCTC),
    (AutoModelForSequenceClassification, Data2Vec2TextForSequenceClassification),
):
    _auto.register(_model.config_class, _model, exist_ok=True)
_forms = dict.fromkeys(("pil", "torchvision"), Data2Vec2ImageProcessor)  # one class, whatever is installed
_named = (
    "image_processor_classes" in signature(AutoImageProcessor.register).parameters
)  # not in the first releases of 5
_processors = {"image_processor_classes": _forms} if _named else {"slow_image_processor_class": _forms["pil"]}
AutoImageProcessor.register(Data2Vec2ImageConfig, exist_ok=True, **_processors)
AutoTokenizer.register(  # type: ignore[no-untyped-call]
    Data2Vec2AudioConfig, slow_tokenizer_class=Data2Vec2CTCTokenizer, exist_ok=True
)
