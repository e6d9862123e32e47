"""The models as Hugging Face Transformers has them (5.0 or later).

There is one model type a modality ("data2vec2-image"), because their processors are of different families. In the
module that its `Spec.transformers` names, a modality adds what is its own to what stands here:

    class Data2Vec2ImageConfig(Data2Vec2Config, modality=ImageConfig): ...
    class Data2Vec2ImageModel(Data2Vec2Model): ...  # a `forward` that names its inputs
    register(Data2Vec2ImageConfig, {AutoModel: Data2Vec2ImageModel})

Without such a module it gets classes for `input_values` and `attention_mask`. Importing this package tells the Auto
classes about every modality that is installed; `import data2vec2` sees to that.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification

from data2vec2.modalities import specs
from data2vec2.modalities.fields import class_name
from data2vec2.modalities.spec import Spec
from data2vec2.modalities.tools import tools_of
from data2vec2.modalities.transformers import models as base
from data2vec2.modalities.transformers.models import Data2Vec2Config, Data2Vec2PreTrainedModel
from data2vec2.modalities.transformers.pretraining import Data2Vec2ForPreTraining


@dataclass(frozen=True)
class Registered:
    """Classes of one modality."""

    config: type[Data2Vec2Config]
    models: Mapping[Any, type[Data2Vec2PreTrainedModel]]
    """By the Auto class that makes them."""
    files: Mapping[str, Mapping[str, type]]
    """Those of ours that files beside config.json need, by file and Auto class."""
    also: Sequence[type]
    """What else belongs to them."""


REGISTERED: dict[str, Registered] = {}
"""What was registered, by the name of the configuration."""


def register(
    config: type[Data2Vec2Config],
    models: Mapping[Any, type[Data2Vec2PreTrainedModel]],
    files: Mapping[str, Mapping[str, type]] = MappingProxyType({}),
    also: Sequence[type] = (),
) -> None:
    """Tell Transformers of a modality's configuration, and which model of it each Auto class makes.

    `files` and `also` are what an export with its own code takes along, as `Registered` has them.
    """
    REGISTERED[config.__name__] = Registered(config, models, files, also)
    AutoConfig.register(config.model_type, config, exist_ok=True)
    for auto, model in models.items():
        auto.register(config, model, exist_ok=True)


def derive(spec: Spec) -> None:
    """Make and register a modality's configuration, model, classifier and pre-training, which this package then has."""
    config = type(class_name(spec.name, "Config"), (Data2Vec2Config,), {}, modality=spec.config)
    bases = (
        (AutoModel, base.Data2Vec2Model, "Model"),
        (AutoModelForPreTraining, Data2Vec2ForPreTraining, "ForPreTraining"),
        (AutoModelForSequenceClassification, base.Data2Vec2ForClassification, "ForSequenceClassification"),
    )
    own = {"config_class": config, "_modality": lambda _, config: tools_of(spec.name).build(config)}
    models = {auto: type(class_name(spec.name, ending), (parent,), own) for auto, parent, ending in bases}
    register(config, models)
    globals().update({made.__name__: made for made in (config, *models.values())})


for _spec in specs().values():  # last: what is imported here imports the classes above
    try:
        importlib.import_module(_spec.transformers) if _spec.transformers else derive(_spec)
    except Exception as _error:  # whatever another package does, ours must work
        _models = f"data2vec2's models of {_spec.words.many}"
        warnings.warn(f"Transformers' Auto classes will not know {_models}: {_error}", stacklevel=1)
