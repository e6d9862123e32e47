"""data2vec 2.0: self-supervised pre-training on your own data.

The commands as functions (`data2vec2.pretrain`, `data2vec2.evaluate`, ...) and the Transformers classes are imported
when first used: `import data2vec2` itself is quick and imports neither PyTorch nor Transformers. It makes sure that
`AutoModel.from_pretrained` knows an exported model, whichever of the two packages is imported first.
"""

# ruff: noqa: F403, F405 (the names are those of __all__)
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from data2vec2.registration import register_models
from data2vec2.version import __version__

if TYPE_CHECKING:
    from data2vec2.api import *
    from data2vec2.commands.load import Data2Vec2Features
    from data2vec2.modalities.audio.transformers import *
    from data2vec2.modalities.image.transformers import *
    from data2vec2.modalities.sound.transformers import *
    from data2vec2.modalities.text.transformers import *
    from data2vec2.modalities.transformers.trainer import TeacherUpdate

__all__ = ["TeacherUpdate", "__version__"]
__all__ += ["convert", "demo", "doctor", "embed", "estimate", "evaluate", "evaluate_recognizer", "export", "finetune"]
__all__ += ["Data2Vec2Features", "inspect", "load", "predict", "pretrain", "recipes", "report", "tokenizer"]
__all__ += ["bench", "evaluate_classifier", "evaluate_dense", "transcribe"]
__all__ += ["Data2Vec2AudioConfig", "Data2Vec2AudioForAudioClassification", "Data2Vec2AudioForCTC"]
__all__ += ["Data2Vec2AudioForAudioFrameClassification", "Data2Vec2AudioForPreTraining", "Data2Vec2AudioModel"]
__all__ += ["Data2Vec2CTCTokenizer"]
__all__ += ["Data2Vec2ImageConfig", "Data2Vec2ImageForImageClassification", "Data2Vec2ImageForPreTraining"]
__all__ += ["Data2Vec2ImageForSemanticSegmentation", "Data2Vec2ImageModel", "Data2Vec2ImageProcessor"]
__all__ += ["Data2Vec2SoundConfig", "Data2Vec2SoundForAudioClassification", "Data2Vec2SoundForPreTraining"]
__all__ += ["Data2Vec2SoundModel"]
__all__ += ["Data2Vec2TextConfig", "Data2Vec2TextForPreTraining", "Data2Vec2TextForQuestionAnswering"]
__all__ += ["Data2Vec2TextForSequenceClassification", "Data2Vec2TextForTokenClassification", "Data2Vec2TextModel"]

_FEATURES = "Data2Vec2Features"
_MODELS = (
    *(f"data2vec2.modalities{kind}.transformers" for kind in (".image", ".audio", ".text", ".sound")),
    "data2vec2.modalities.transformers.trainer",
)
"""Where the classes of Transformers stand."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    named = ("data2vec2.api",) if name.islower() else ("data2vec2.commands.load",) if name == _FEATURES else _MODELS
    homes = map(importlib.import_module, named)
    return next(vars(home)[name] for home in homes if name in vars(home))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_models()
