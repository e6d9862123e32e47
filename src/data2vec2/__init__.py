"""data2vec 2.0: self-supervised pre-training on your own data.

The commands as functions (`data2vec2.pretrain`, `data2vec2.evaluate`, ...) and the Transformers classes are imported
when first used: `import data2vec2` itself is quick and imports neither PyTorch nor Transformers. It makes sure that
`AutoModel.from_pretrained` knows an exported model, whichever of the two packages is imported first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from data2vec2.registration import register_models
from data2vec2.version import __version__

if TYPE_CHECKING:
    from data2vec2.commands.convert import convert
    from data2vec2.commands.demo import demo
    from data2vec2.commands.doctor import doctor
    from data2vec2.commands.embed import embed
    from data2vec2.commands.evaluate import evaluate
    from data2vec2.commands.export import export
    from data2vec2.commands.finetune import finetune
    from data2vec2.commands.predict import predict
    from data2vec2.commands.pretrain import pretrain
    from data2vec2.commands.report import report
    from data2vec2.commands.transcribe import evaluate_recognizer, transcribe
    from data2vec2.interop.transformers import (
        Data2Vec2AudioConfig,
        Data2Vec2AudioForAudioClassification,
        Data2Vec2AudioForCTC,
        Data2Vec2AudioForPreTraining,
        Data2Vec2AudioModel,
        Data2Vec2CTCTokenizer,
        Data2Vec2ImageConfig,
        Data2Vec2ImageForImageClassification,
        Data2Vec2ImageForPreTraining,
        Data2Vec2ImageModel,
        Data2Vec2ImageProcessor,
        Data2Vec2TextConfig,
        Data2Vec2TextForPreTraining,
        Data2Vec2TextForSequenceClassification,
        Data2Vec2TextModel,
        TeacherUpdate,
    )

__all__ = [
    "Data2Vec2AudioConfig",
    "Data2Vec2AudioForAudioClassification",
    "Data2Vec2AudioForCTC",
    "Data2Vec2AudioForPreTraining",
    "Data2Vec2AudioModel",
    "Data2Vec2CTCTokenizer",
    "Data2Vec2ImageConfig",
    "Data2Vec2ImageForImageClassification",
    "Data2Vec2ImageForPreTraining",
    "Data2Vec2ImageModel",
    "Data2Vec2ImageProcessor",
    "Data2Vec2TextConfig",
    "Data2Vec2TextForPreTraining",
    "Data2Vec2TextForSequenceClassification",
    "Data2Vec2TextModel",
    "TeacherUpdate",
    "__version__",
    "convert",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "evaluate_recognizer",
    "export",
    "finetune",
    "predict",
    "pretrain",
    "report",
    "transcribe",
]

_HOME = {
    "Data2Vec2AudioConfig": "data2vec2.interop.transformers",
    "Data2Vec2AudioForAudioClassification": "data2vec2.interop.transformers",
    "Data2Vec2AudioForCTC": "data2vec2.interop.transformers",
    "Data2Vec2AudioForPreTraining": "data2vec2.interop.transformers",
    "Data2Vec2AudioModel": "data2vec2.interop.transformers",
    "Data2Vec2CTCTokenizer": "data2vec2.interop.transformers",
    "Data2Vec2ImageConfig": "data2vec2.interop.transformers",
    "Data2Vec2ImageForImageClassification": "data2vec2.interop.transformers",
    "Data2Vec2ImageForPreTraining": "data2vec2.interop.transformers",
    "Data2Vec2ImageModel": "data2vec2.interop.transformers",
    "Data2Vec2ImageProcessor": "data2vec2.interop.transformers",
    "Data2Vec2TextConfig": "data2vec2.interop.transformers",
    "Data2Vec2TextForPreTraining": "data2vec2.interop.transformers",
    "Data2Vec2TextForSequenceClassification": "data2vec2.interop.transformers",
    "Data2Vec2TextModel": "data2vec2.interop.transformers",
    "TeacherUpdate": "data2vec2.interop.transformers",
    "convert": "data2vec2.commands.convert",
    "demo": "data2vec2.commands.demo",
    "doctor": "data2vec2.commands.doctor",
    "embed": "data2vec2.commands.embed",
    "evaluate": "data2vec2.commands.evaluate",
    "evaluate_recognizer": "data2vec2.commands.transcribe",
    "export": "data2vec2.commands.export",
    "predict": "data2vec2.commands.predict",
    "finetune": "data2vec2.commands.finetune",
    "pretrain": "data2vec2.commands.pretrain",
    "report": "data2vec2.commands.report",
    "transcribe": "data2vec2.commands.transcribe",
}
"""Where a lazily imported name lives."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_models()
