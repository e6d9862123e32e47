"""The modalities as the commands see them."""

from data2vec2.commands.kinds.audio import AudioKind
from data2vec2.commands.kinds.base import AnyData, Kind, Log
from data2vec2.commands.kinds.image import ImageKind
from data2vec2.commands.kinds.text import TextKind

KINDS: dict[str, Kind] = {"image": ImageKind(), "audio": AudioKind(), "text": TextKind()}
"""By `model.modality.kind`."""

__all__ = ["KINDS", "AnyData", "Kind", "Log"]
