"""The image processor: forms of pictures, transparency, sizes and steps."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, ImageClassificationPipeline, PreTrainedModel, pipeline

from data2vec2.errors import UsageError
from data2vec2.modalities.image.processor import Data2Vec2ImageProcessor
from data2vec2.modalities.image.reader import central_box, crop

SIDE = 24


@pytest.fixture
def processor() -> Data2Vec2ImageProcessor:
    return Data2Vec2ImageProcessor(size=SIDE, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.25, 0.3))


@pytest.fixture
def sticker() -> Image.Image:
    """Colours with all degrees of transparency; what is fully transparent is black underneath."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (5, 6, 4), dtype=np.uint8)
    pixels[0] = 0
    return Image.fromarray(pixels).resize((60, 50), Image.Resampling.NEAREST)


def png(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def values(processor: Data2Vec2ImageProcessor, picture: object, **options: object) -> NDArray[np.float32]:
    return processor(picture, return_tensors="np", **options)["pixel_values"][0]


def seen(raw: bytes) -> NDArray[np.float32]:
    """What evaluation makes of a file."""
    found = crop(raw, partial(central_box, 0.875), SIDE, 3).astype(np.float32) / 255
    return ((found - (0.4, 0.5, 0.6)) / (0.2, 0.25, 0.3)).transpose(2, 0, 1)


@pytest.fixture
def address(sticker: Image.Image) -> Iterator[str]:
    """Of a server that has the sticker."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png(sticker))

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/sticker.png"
    server.shutdown()


def test_transparent_pictures_in_all_forms(
    processor: Data2Vec2ImageProcessor, sticker: Image.Image, tmp_path: Path, address: str
) -> None:
    raw = png(sticker)
    (tmp_path / "sticker.png").write_bytes(raw)
    text, pixels = base64.b64encode(raw).decode(), np.asarray(sticker)
    named = [tmp_path / "sticker.png", str(tmp_path / "sticker.png"), address, text, f"data:image/png;base64,{text}"]
    for form in (raw, *named, sticker, Image.open(io.BytesIO(raw)), pixels, pixels.transpose(2, 0, 1)):
        np.testing.assert_allclose(values(processor, form), seen(raw), atol=1e-5)
    lost = values(processor, sticker.convert("RGB"))
    assert np.abs(lost - seen(raw)).max() > 1  # black under what is transparent


def test_one_colour_or_a_palette_that_is_transparent(processor: Data2Vec2ImageProcessor, sticker: Image.Image) -> None:
    for picture, key in ((sticker.convert("RGB"), (0, 0, 0)), (sticker.convert("L"), 0), (sticker.quantize(8), 0)):
        raw = png(picture, transparency=key)
        opened = Image.open(io.BytesIO(raw))
        assert opened.has_transparency_data
        np.testing.assert_allclose(values(processor, opened), seen(raw), atol=1e-5)
    with pytest.raises(UsageError, match="no file, no address"):
        processor(str(Path("no") / "such picture.png"))


def test_sizes(processor: Data2Vec2ImageProcessor, sticker: Image.Image) -> None:
    assert processor.size == {"height": SIDE, "width": SIDE}
    expected = values(processor, sticker, size=32)
    assert expected.shape == (3, 32, 32) and values(processor, sticker).shape == (3, SIDE, SIDE)
    assert np.array_equal(values(processor, sticker, size={"height": 32, "width": 32}), expected)
    for size in ({"shortest_edge": 32}, {"height": 32}, {"height": 32, "width": 24}, "large", 0, -3, (32, 32)):
        with pytest.raises(UsageError, match="size is"):
            values(processor, sticker, size=size)
    with pytest.raises(UsageError, match="crop_size"):
        values(processor, sticker, crop_size=24)
    with pytest.raises(UsageError, match="one a channel"):
        values(processor, sticker, image_mean=(0.5,))


def test_steps(processor: Data2Vec2ImageProcessor, sticker: Image.Image, tmp_path: Path) -> None:
    usual, std = values(processor, sticker), np.array((0.2, 0.25, 0.3))[:, None, None]
    mean = np.array((0.4, 0.5, 0.6))[:, None, None]
    unit = values(processor, sticker, do_normalize=False)
    np.testing.assert_allclose((unit - mean) / std, usual, atol=1e-5)
    assert unit.min() >= 0 and unit.max() <= 1
    raw = values(processor, sticker, do_normalize=False, do_rescale=False)
    np.testing.assert_allclose(raw / 255, unit, atol=1e-6)
    whole = values(processor, sticker, do_resize=False, do_normalize=False, do_rescale=False)
    over = Image.alpha_composite(Image.new("RGBA", sticker.size, "white"), sticker).convert("RGB")
    assert np.array_equal(whole.transpose(1, 2, 0), np.asarray(over))
    grey = values(processor, sticker, image_mean=[0.5], image_std=[1.0])
    assert grey.shape == (1, SIDE, SIDE)
    assert np.array_equal(values(processor, sticker, do_normalize=None, size=None), usual)

    Data2Vec2ImageProcessor(size=SIDE, do_normalize=False).save_pretrained(tmp_path)
    kept = AutoImageProcessor.from_pretrained(tmp_path)
    np.testing.assert_allclose(values(kept, sticker), unit, atol=1e-6)
    assert AutoImageProcessor.from_pretrained(tmp_path, size=32).size == {"height": 32, "width": 32}


def test_another_rule_for_transparency_is_refused() -> None:
    with pytest.raises(UsageError, match="'black'"):
        Data2Vec2ImageProcessor(transparency="black")


@pytest.fixture
def others_model() -> PreTrainedModel:
    from transformers import ViTConfig, ViTForImageClassification

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return ViTForImageClassification(ViTConfig(**shape, image_size=SIDE, patch_size=8))


def test_pipelines_of_other_models_are_as_ever(
    others_model: PreTrainedModel, sticker: Image.Image, recwarn: pytest.WarningsRecorder
) -> None:
    from transformers import ViTImageProcessor

    made = {"model": others_model, "image_processor": ViTImageProcessor(size={"height": SIDE, "width": SIDE})}
    ours, theirs = pipeline("image-classification", **made), ImageClassificationPipeline(**made)
    assert ours(sticker) == theirs(sticker)
    assert not [one for one in recwarn if "transparent" in str(one.message)]
    assert not hasattr(type(ours), "_registered_impl")  # which would be saved with the model
