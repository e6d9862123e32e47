"""Pictures of more than 8 bits, of other channels than one and three, transparent ones, and those with odd metadata."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from data2vec2.data.records import Parts
from data2vec2.data.source import BadSample
from data2vec2.modalities.data import Columns
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.pictures import MAX_PIXELS, find_levels, picture_facts, scaled
from data2vec2.modalities.image.reader import ImageReader, central_box, crop, decode, survey
from data2vec2.modalities.image.tools import num_channels
from data2vec2.modalities.tools import tools_of
from tests.unit.data.pictures import encoded, photo, png_claiming

WHOLE = partial(central_box, 1.0)
GREY = np.asarray(photo().convert("L"))
COLOUR = np.asarray(photo())


def opened(folder: Path, files: dict[str, bytes]) -> Parts:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return tools_of("image").open_labelled(folder, Columns(), "classes")


def png16(values: np.ndarray, kind: int) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write in colour; `kind` is PNG's."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values.reshape(height, -1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


# Levels


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (np.array([0, 1], np.int32), (0, 1)),
        (np.array([0, 19], np.uint16), (0, 31)),
        (np.array([3, 255], np.uint16), (0, 255)),
        (np.array([0, 1000], np.uint16), (0, 1023)),
        (np.array([0, 4095], np.uint16), (0, 4095)),
        (np.array([0, 4096], np.uint16), (0, 8191)),
        (np.array([0, 65535], np.uint16), (0, 65535)),
        (np.array([-1024, 3000], np.int16), (-1024, 4095)),
        (np.array([0.1, 0.9], np.float32), (0, 1)),
        (np.array([0.1, 250], np.float32), (0, 255)),
        (np.array([0.5, 12.25], np.float32), (0.5, 12.25)),
        (np.array([-3, 2], np.float32), (-3, 2)),
        (np.array([np.nan, 7, 9], np.float32), (7, 9)),
        (np.array([7, 7], np.float32), (7, 8)),
    ],
)
def test_levels_of_what_a_data_set_holds(tmp_path: Path, values: np.ndarray, levels: tuple[float, float]) -> None:
    raw = tiff(np.resize(values, (4, 6)), photometric="minisblack")
    parts = opened(tmp_path, {"a.tif": raw, "b.jpg": encoded(photo(), "JPEG")})
    assert parts.train.levels == levels
    assert "of more than 8 bits" in parts.description
    assert any("of more than 8 bits" in choice for choice in parts.account.choices)


def test_eight_bits_have_no_levels(tmp_path: Path) -> None:
    parts = opened(tmp_path, {"a.png": encoded(photo(), "PNG"), "b.gif": encoded(photo(), "GIF"), "c.bmp": b"bad"})
    assert parts.train.levels is None
    assert parts.account.choices == []


def test_levels_hold_for_all_parts_and_files(tmp_path: Path) -> None:
    files = {
        f"{part}/{place}.png": png16(GREY * factor, 0)
        for part, factors in (("train", (1, 4)), ("test", (16,)))
        for place, factor in enumerate(np.uint16(factors))
    }
    parts = opened(tmp_path, files)
    assert parts.test is not None
    assert parts.train.levels == parts.test.levels == (0, 4095)
    config, data = ImageConfig(image_size=96, patch_size=16, num_channels=1), ImageDataConfig(eval_crop=1.0)
    bright, dark = ImageReader(parts.test, config, data, 0).whole(0), ImageReader(parts.train, config, data, 0).whole(0)
    assert bright.max() > 200
    assert abs(bright.astype(float) - 16.0 * dark).max() < 16  # nothing is stretched by itself
    of_model = ImageReader(parts.test, config, ImageDataConfig(eval_crop=1.0, levels=(0, 65535)), 0)
    assert of_model.whole(0).max() < 17


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_whole_numbers_are_scaled_as_by_exact_division(top: int) -> None:
    values = np.arange(top + 1, dtype=np.uint16)
    assert np.array_equal(scaled(values, (0.0, float(top))), (values.astype(int) * 255 + top // 2) // top)
    assert scaled(np.array([9999], np.int32), (0.0, 255.0)) == 255


def test_what_is_no_number_is_refused() -> None:
    raw = tiff(np.array([[0, np.nan], [1, 2]], np.float32))
    with pytest.raises(BadSample, match="pixels that are not numbers"):
        decode(raw, 1, (0.0, 1.0))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "zlib", "big", "planes"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_sixteen_bit_colour_keeps_what_it_holds(tmp_path: Path, kind: str, bits: int) -> None:
    values = (COLOUR.astype(np.uint16) << (bits - 8)) | (COLOUR >> (16 - bits))
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    written = {
        "PNG": lambda: png16(values, 2),
        "TIFF": lambda: tiff(values, photometric="rgb"),
        "zlib": lambda: tiff(values, photometric="rgb", compression="zlib", predictor=True),
        "big": lambda: tiff(values, photometric="rgb", byteorder=">"),
        "planes": lambda: tiff(values.transpose(2, 0, 1), **planes),
    }
    raw = written[kind]()
    levels = opened(tmp_path, {f"a.{'png' if kind == 'PNG' else 'tif'}": raw}).train.levels
    assert levels == (0, 2**bits - 1)
    assert abs(decode(raw, 3, levels).astype(int) - COLOUR).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_tiff_in_which_zero_is_white(tmp_path: Path, kind: Any) -> None:
    dark = GREY if kind == np.uint8 else GREY * np.uint16(257) if kind == np.uint16 else GREY / np.float32(255)
    tifffile.imwrite(tmp_path / "a.tif", dark, photometric="miniswhite")
    parts = tools_of("image").open_labelled(tmp_path, Columns(), "classes")
    assert np.array_equal(decode(parts.train.read(0), 1, parts.train.levels), 255 - GREY)


@pytest.mark.parametrize(
    ("kind", "none"),
    [
        (np.float32, "-9999"),
        (np.float32, "nan"),
        (np.float32, "-3.4028234663852886e+38"),
        (np.float64, "-1.7976931348623157e+308"),
        (np.int16, "-32768"),
        (np.int8, "-128.0 "),
        (np.uint16, "65535"),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_without_data_are_no_levels_and_black(tmp_path: Path, kind: Any, none: str, colour: bool) -> None:
    values = (COLOUR if colour else GREY) // 2
    some = values.astype(kind)
    some[:, :9] = float(none)
    options = {"photometric": "rgb" if colour else "minisblack", "extratags": [(42113, "s", 0, none, True)]}
    files = {"a.tif": tiff(some, **options), "b.tif": tiff(np.full_like(some, float(none)), **options)}
    train = opened(tmp_path, files).train
    assert train.levels == (0, 127)
    shown = decode(train.read(0), 3 if colour else 1, train.levels)
    assert (shown[:, :9] == 0).all()
    assert np.array_equal(shown[:, 9:], scaled(values.astype(np.uint16), train.levels)[:, 9:])
    with pytest.raises(BadSample, match="no data in it"):
        decode(train.read(1), 3, train.levels)


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    train = opened(tmp_path, {"a.tif": tiff(GREY.astype(np.complex64)), "b.tif": tiff(GREY.astype(np.float16))}).train
    with pytest.raises(BadSample, match="pixels of type complex64"):
        decode(train.read(0), 1, train.levels)
    assert np.array_equal(decode(train.read(1), 1, (0, 255)), GREY)


def test_a_tag_that_says_nothing_leaves_all_pixels() -> None:
    raw = tiff(GREY.astype(np.int16), extratags=[(42113, "s", 0, "none", True)])
    assert np.array_equal(decode(raw, 1, (0, 255)), GREY)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_with_negative_values(tmp_path: Path, kind: Any, compression: str | None, order: str) -> None:
    values = GREY.astype(np.int16) - 128
    parts = opened(tmp_path, {"a.tif": tiff(values.astype(kind), byteorder=order, compression=compression)})
    low, high = (-128, 127) if np.issubdtype(kind, np.integer) else (values.min(), values.max())
    assert parts.train.levels == (low, high)
    assert np.array_equal(decode(parts.train.read(0), 1, (-128, 127)), GREY)


def test_tiff_of_32_bits_without_a_sign(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY * np.uint32(16843009))
    parts = tools_of("image").open_labelled(tmp_path, Columns(), "classes")
    assert parts.train.levels == (0, 2**32 - 1)
    assert np.array_equal(decode(parts.train.read(0), 1, parts.train.levels), GREY)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_tiff_with_a_sign(tmp_path: Path, kind: Any) -> None:
    half = 2 ** (8 * np.dtype(kind).itemsize - 1)
    values = (GREY.astype(np.int64) - 128) * (half // 128)
    tifffile.imwrite(tmp_path / "a.tif", values.astype(kind), photometric="minisblack")
    parts = opened(tmp_path, {})
    assert parts.train.levels == (-half, half - 1)
    assert abs(decode(parts.train.read(0), 1, parts.train.levels).astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_portable_grey_maps(tmp_path: Path, top: int) -> None:
    values = np.rint(GREY / 255 * top).astype(">u2" if top > 255 else np.uint8)
    head = f"P5\n# by hand\n{values.shape[1]} {values.shape[0]}\n{top}\n".encode()
    parts = opened(tmp_path, {"a.pgm": head + values.tobytes()})
    assert np.array_equal(decode(parts.train.read(0), 1, parts.train.levels), GREY)


def test_what_phones_and_several_frames_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BadSample, match="HEIC or AVIF, not read"):
        decode(b"\0\0\0\x18ftypheic" + bytes(99), 3)
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    moving, still = (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:shown]) for shown in (2, 1))
    assert (decode(moving, 3) == (255, 0, 0)).all()
    assert [picture_facts(one)["mode"] for one in (moving, still)] == ["P, first of several", "P"]


@pytest.mark.parametrize("kind", [4, 6])
def test_sixteen_bits_with_transparency(tmp_path: Path, kind: int) -> None:
    colour = (GREY[..., None] if kind == 4 else COLOUR).astype(np.uint16) * 16
    alpha = np.full((*GREY.shape, 1), 65535, np.uint16)
    alpha[:, :20] = 0
    raw = png16(np.concatenate([colour, alpha], axis=2), kind)
    levels = opened(tmp_path, {"a.png": raw}).train.levels
    assert levels == (0, 4095)
    shown = decode(raw, 3, levels).astype(int)
    assert (shown[:, :20] == 255).all()
    assert abs(shown - (COLOUR if kind == 6 else GREY[..., None]))[:, 20:].max() <= 1


# Transparency


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_an_alpha_that_is_zero_everywhere_is_none(kind: str) -> None:
    picture = photo().convert("RGBA")
    picture.putalpha(0)
    assert np.array_equal(decode(encoded(picture, kind), 3), COLOUR)


def test_white_on_transparent_is_laid_over_black() -> None:
    values = np.full((32, 32, 4), 255, np.uint8)
    values[..., 3] = 0
    values[8:24, 8:24, 3] = 255
    values[8, :, 3] = 128
    shown = decode(encoded(Image.fromarray(values), "PNG"), 3)
    assert (shown[10:24, 8:24] == 255).all()
    assert (shown[:8] == 0).all()
    values[9:12, 9:12, :3] = 30  # something dark: white again
    assert (decode(encoded(Image.fromarray(values), "PNG"), 3)[:8] == 255).all()
    assert (decode(encoded(Image.new("RGBA", (8, 8), "white"), "PNG"), 3) == 255).all()


# Metadata


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_much_text_or_a_large_profile(after: bool, bits: int) -> None:
    picture = photo() if bits == 8 else Image.fromarray(GREY.astype(np.uint16) * 257)
    info = PngImagePlugin.PngInfo()
    info.add_text("XML:com.adobe.xmp", "x" * 1_300_000, zip=True)
    raw = encoded(picture, "PNG", pnginfo=info)
    if after:  # behind the pixels
        plain, place = encoded(picture, "PNG"), raw.index(b"zTXt") - 4
        size = int.from_bytes(raw[place : place + 4], "big") + 12
        raw = plain[:-12] + raw[place : place + size] + plain[-12:]
    want = COLOUR if bits == 8 else GREY
    for one in (raw, encoded(picture, "PNG", icc_profile=b"\0" * 1_500_000)):
        assert np.array_equal(decode(one, 3 if bits == 8 else 1), want)
        assert crop(one, WHOLE, 32, 3).shape == (32, 32, 3)


def test_the_largest_size_can_be_raised(tmp_path: Path) -> None:
    assert ImageDataConfig().max_pixels == MAX_PIXELS
    large = encoded(Image.new("L", (20_000, 9_100), 7), "PNG")
    with pytest.raises(BadSample, match=r"too large, above 100,000,000 pixels \(--data.max-pixels"):
        crop(large, WHOLE, 8, 1)
    with pytest.raises(BadSample, match="truncated"):
        decode(png_claiming(60_000, 6_000), 1, max_pixels=400_000_000)
    assert (crop(large, WHOLE, 8, 1, max_pixels=200_000_000) == 7).all()
    with pytest.raises(BadSample, match="above 100 pixels"):
        crop(encoded(photo(), "JPEG"), WHOLE, 8, 3, max_pixels=100)


# Channels


@pytest.mark.parametrize("channels", [2, 4, 5, 7])
@pytest.mark.parametrize("kind", ["npz", "contig", "separate", "rgb", "imagej", "ome", "lzw"])
def test_other_numbers_of_channels(tmp_path: Path, kind: str, channels: int) -> None:
    values = np.stack([np.roll(GREY, 9 * place, axis=1) for place in range(channels)], axis=2)
    first, last = values.transpose(2, 0, 1), values
    if kind == "rgb" and channels < 4:
        pytest.skip("colour has three")
    written = {
        "contig": lambda: tiff(last, photometric="minisblack", planarconfig="contig"),
        "separate": lambda: tiff(first, photometric="minisblack", planarconfig="separate"),
        "rgb": lambda: tiff(last, photometric="rgb", extrasamples=(0,) * (channels - 3)),
        "imagej": lambda: tiff(first[None].repeat(2, axis=0), imagej=True, metadata={"axes": "ZCYX"}),
        "ome": lambda: tiff(first, ome=True, metadata={"axes": "CYX"}, photometric="minisblack"),
        "lzw": lambda: tiff(last, photometric="minisblack", planarconfig="contig", compression="lzw"),
    }
    if kind == "npz":
        np.savez(tmp_path / "a.npz", x=values[None])
        train = tools_of("image").open_labelled(tmp_path / "a.npz", Columns(), "classes").train
    else:
        train = opened(tmp_path, {"a.tif": written[kind]()}).train
    assert train.levels is None
    assert num_channels(train) == channels
    assert np.array_equal(decode(train.read(0), channels), values)
    config = ImageConfig(image_size=32, patch_size=16, num_channels=channels)
    reader = ImageReader(train, config, ImageDataConfig(), 0)
    seen = reader.whole(0)
    assert seen.shape == (channels, 32, 32)
    grey = ImageReader(train, ImageConfig(image_size=32, patch_size=16, num_channels=1), ImageDataConfig(), 0)
    box = partial(central_box, 0.875)
    for place in range(channels):
        assert np.array_equal(seen[place], crop(values[..., place], box, 32, 1))
    assert reader.entirely(0).shape[0] == channels
    assert reader.shown(np.array([0]))["pictures"].shape[3] == (3 if channels > 2 else 1)
    with pytest.raises(BadSample, match=f"{channels} channels, where the model takes 9"):
        decode(train.read(0), 9)
    if channels > 4:
        with pytest.raises(BadSample, match=f"{channels} channels, where the model takes 1"):
            grey.whole(0)


def test_twelve_bit_channels_share_levels(tmp_path: Path) -> None:
    values = np.stack([GREY.astype(np.uint16) * 16] * 5, axis=2)
    train = opened(tmp_path, {"a.tif": tiff(values, photometric="minisblack", planarconfig="contig")}).train
    assert find_levels([train]) == train.levels == (0, 4095)
    assert abs(decode(train.read(0), 5, train.levels).astype(int) - GREY[..., None]).max() <= 1


def test_a_spare_channel_beside_colour_is_left_out_for_a_model_of_three() -> None:
    raw = tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=(0,))
    assert np.array_equal(decode(raw, 3), COLOUR)
    assert np.array_equal(decode(raw, 4)[..., 3], GREY)


def test_a_single_colour_is_remarked(tmp_path: Path) -> None:
    np.savez(tmp_path / "flat.npz", x=np.full((4, 8, 8), 51, np.uint8))
    train = tools_of("image").open_labelled(tmp_path / "flat.npz", Columns(), "classes").train
    config = ImageConfig(image_size=8, patch_size=4, num_channels=1)
    found, *_ = survey(ImageReader(train, config, ImageDataConfig(), 0))
    assert "the pictures hardly vary: the standard deviation is below 0.001" in found.remarks[0]
