"""What samples can be, and how sources tell them from everything else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """One kind of samples."""

    one: str
    many: str
    files: str
    """What a folder of them is said to hold."""
    feature: str
    """The class of `datasets` that such columns have."""
    extensions: frozenset[str]
    """Names of their files end in one of these, in any case."""
    columns: tuple[str, ...]
    """Names under which tables keep them; the first that is there is taken."""
    texts: tuple[str, ...] = ()
    """Names of columns of transcripts, likewise; empty: samples have none."""


PICTURES = Content(
    "picture",
    "pictures",
    "images",
    "Image",
    frozenset((".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")),
    ("image", "img", "picture", "photo", "image_bytes", "jpg", "jpeg", "png", "webp", "content", "bytes"),
)
RECORDINGS = Content(
    "recording",
    "recordings",
    "recordings",
    "Audio",
    frozenset((".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf")),
    ("audio", "speech", "sound", "recording", "audio_bytes", "wav", "flac", "mp3", "ogg", "opus", "content", "bytes"),
    ("transcription", "text", "sentence", "transcript"),
)
