"""Decoding and cropping of single pictures."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec2.data.source import BadSample
from data2vec2.modalities.image.reader import MAX_PIXELS, central_box, crop, decode, picture_array, random_box
from tests.unit.data.pictures import clothes, encoded, mean_difference, photo, pixels, png_claiming

WHOLE = partial(central_box, 1.0)

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest's filters replace those of the package


def reason_of(raw: bytes) -> str:
    with pytest.raises(BadSample) as crop_error:
        crop(raw, WHOLE, 32, 3)
    with pytest.raises(BadSample) as decode_error:
        decode(raw, 3)
    assert crop_error.value.reason == decode_error.value.reason
    return crop_error.value.reason


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("GIF", {}, 12),
    ],
)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_every_format(kind: str, options: dict[str, object], tolerance: float, num_channels: int) -> None:
    mode = {1: "L", 3: "RGB"}[num_channels]
    picture = decode(encoded(photo(), kind, **options), num_channels)
    assert picture.shape[2:] == {"L": (), "RGB": (3,)}[mode]
    assert mean_difference(picture, photo().convert(mode)) <= tolerance
    assert crop(encoded(photo(), kind, **options), WHOLE, 32, num_channels).shape[2:] == {"L": (), "RGB": (3,)}[mode]


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_first_of_several_frames(kind: str) -> None:
    first, second = photo().convert("L").convert("RGB"), Image.new("RGB", photo().size, "blue")
    raw = encoded(first, kind, save_all=True, append_images=[second])
    assert mean_difference(decode(raw, 3), first) < 6


def test_arrays_are_what_they_hold() -> None:
    grey = clothes().read(3)
    assert isinstance(grey, np.ndarray)
    assert np.array_equal(pixels(decode(grey, 1)), grey)
    assert np.array_equal(pixels(decode(grey[..., None], 1)), grey)
    assert np.array_equal(pixels(decode(grey, 3)), np.repeat(grey[..., None], 3, axis=2))
    colour = np.asarray(photo())
    assert np.array_equal(pixels(decode(colour, 3)), colour)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_becomes_white(kind: str) -> None:
    picture = photo().convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 64, 96))
    options = {"lossless": True} if kind == "WEBP" else {}
    shown = pixels(decode(encoded(picture, kind, **options), 3))
    assert (shown[:, :64] == 255).all()
    assert np.array_equal(shown[:, 64:], pixels(photo())[:, 64:])
    assert (pixels(decode(encoded(picture, kind, **options), 1))[:, :64] == 255).all()


def test_half_transparent_black_is_grey() -> None:
    assert abs(int(pixels(decode(encoded(Image.new("LA", (8, 8), (0, 128)), "PNG"), 1))[0, 0]) - 127) <= 1


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette(kind: str) -> None:
    palette = photo().quantize(16)
    index = palette.getpixel((0, 0))
    hidden = np.asarray(palette) == index
    shown = pixels(decode(encoded(palette, kind, transparency=index), 3))
    assert (shown[hidden] == 255).all()
    assert np.abs(shown - pixels(palette.convert("RGB")))[~hidden].max() == 0


def test_transparent_colour_of_png() -> None:
    picture = photo().copy()
    picture.paste((1, 2, 3), (0, 0, 20, 20))
    assert (pixels(decode(encoded(picture, "PNG", transparency=(1, 2, 3)), 3))[:20, :20] == 255).all()


@pytest.mark.parametrize(("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32)])
def test_sixteen_bits_are_scaled_to_eight(kind: str, dtype: type) -> None:
    grey = np.asarray(photo().convert("L"))
    image = Image.fromarray(grey.astype(dtype) * 257)
    assert image.mode.startswith("I")
    assert np.array_equal(pixels(decode(encoded(image, kind), 1)), grey)


def test_cmyk_and_two_colours() -> None:
    assert mean_difference(decode(encoded(photo().convert("CMYK"), "JPEG", quality=95), 3), photo()) < 5
    assert mean_difference(crop(encoded(photo().convert("CMYK"), "TIFF"), WHOLE, 48, 3), crop_of_photo(48)) < 2
    assert set(np.unique(pixels(decode(encoded(photo().convert("1"), "PNG"), 1)))) == {0, 255}


def test_float_pixels_are_refused() -> None:
    assert reason_of(encoded(photo().convert("F"), "TIFF")) == "floating-point pixels"


def crop_of_photo(size: int) -> Image.Image:
    return crop(np.asarray(photo()), WHOLE, size, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    stored_by = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = photo().transpose(stored_by[orientation]) if orientation > 1 else photo()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    raw = encoded(stored, kind, exif=exif, **options)
    upright = encoded(photo(), kind, **options)
    box = partial(central_box, 0.875)
    assert mean_difference(crop(raw, box, 40, 3), crop(upright, box, 40, 3)) < 1.5


def test_damaged_exif_is_no_reason_to_drop_a_picture() -> None:
    raw = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\0\0")
    assert crop(raw, WHOLE, 32, 3).shape[:2] == (32, 32)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("JPEG", "truncated"), ("PNG", "truncated"), ("BMP", "truncated"), ("GIF", "truncated"), ("WEBP", "damaged")],
)
def test_cut_files(kind: str, reason: str) -> None:
    raw = encoded(photo(), kind)
    assert reason_of(raw[: len(raw) // 2]) == reason


def test_not_images() -> None:
    assert reason_of(b"hello, I am a text file\n" * 20) == "not an image"
    assert reason_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "not an image"
    assert reason_of(encoded(photo(), "JPEG")[:20]) == "damaged"


def test_large_pictures_are_refused_before_decoding() -> None:
    assert reason_of(png_claiming(60_000, 60_000)).startswith("too large, above 100,000,000 pixels (--data.max-pixels")
    assert reason_of(png_claiming(10_001, MAX_PIXELS // 10_000)).startswith("too large")
    assert reason_of(png_claiming(10_000, MAX_PIXELS // 10_000)) == "truncated"  # large enough for Pillow's warning


def test_pillow_warns_the_user_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_claiming(10_000, 10_000))
    (tmp_path / "b.jpg").write_bytes(encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\0\0"))
    program = (
        "import sys, pathlib; from data2vec2.modalities.image.reader import crop, central_box\n"
        "for path in sys.argv[1:]:\n"
        "  try: crop(pathlib.Path(path).read_bytes(), lambda w, h: central_box(1, w, h), 32, 3)\n"
        "  except Exception as error: print(error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.png"), str(tmp_path / "b.jpg")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["truncated"]
    assert result.stderr == ""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_random_damage_never_raises_anything_else(kind: str) -> None:
    raw = encoded(photo(64, 48), kind)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(raw)
        reach = generator.choice([60, len(raw)])  # many in the header
        for place in generator.integers(0, min(reach, len(raw)), size=generator.integers(1, 12)):
            broken[place] = generator.integers(256)
        try:
            crop(bytes(broken), WHOLE, 16, 3)
        except BadSample as error:
            refused += 1
            reasons = {"not an image", "truncated", "damaged", "too large", "floating-point pixels"}
            assert error.reason.split(",")[0] in reasons or "channels, where" in error.reason, error.reason
    assert refused > 0


def test_random_boxes_have_the_stated_distribution() -> None:
    draws = np.random.default_rng(0).random((20_000, 23)).tolist()
    boxes = np.array([random_box(row, 0.2, 400, 400) for row in draws])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes.max() <= 400
    area, aspect = width * height / 400**2, width / height
    assert area.min() >= 0.2
    assert aspect.min() >= 0.75 - 1e-9
    assert aspect.max() <= 4 / 3 + 1e-9
    small = area < 0.7  # every shape of these fits, so the draw is not conditioned on fitting
    assert abs(area[small].mean() - 0.45) < 0.01
    assert abs(np.log(aspect[small]).mean()) < 0.01
    assert abs(np.log(aspect[small]).std() - np.log(4 / 3) / np.sqrt(3)) < 0.01
    assert abs((boxes[:, 0] / (400 - width + 1e-9)).mean() - 0.5) < 0.01


@pytest.mark.parametrize(("width", "height"), [(1000, 10), (10, 1000), (1, 1), (1, 5000)])
def test_boxes_of_odd_pictures_stay_inside(width: int, height: int) -> None:
    for row in np.random.default_rng(0).random((200, 23)).tolist():
        left, top, right, bottom = random_box(row, 0.2, width, height)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
    raw = np.zeros((height, width), np.uint8)
    assert crop(raw, partial(random_box, row, 0.2), 8, 1).shape == (8, 8)


def test_where_no_try_fits_the_central_box_is_taken() -> None:
    assert random_box([0.9] * 23, 0.5, 1000, 10) == pytest.approx((500 - 20 / 3, 0, 500 + 20 / 3, 10))


@pytest.mark.parametrize("num_channels", [1, 3])
def test_reduced_jpeg_is_near_the_whole_one(num_channels: int) -> None:
    large = photo(1030, 771)
    raw, exact = encoded(large, "JPEG", quality=95), np.asarray(large)
    for row in np.random.default_rng(1).random((5, 23)).tolist():
        box = partial(random_box, row, 0.2)
        for size in (32, 64, 160):
            difference = mean_difference(crop(raw, box, size, num_channels), crop(exact, box, size, num_channels))
            assert difference < 4, (size, difference)


def test_mirror() -> None:
    plain, mirrored = (crop(np.asarray(photo()), WHOLE, 32, 3, mirror) for mirror in (False, True))
    assert np.array_equal(pixels(plain)[:, ::-1], pixels(mirrored))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_channels_of_an_array_are_found_in_front_and_behind(channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, channels), dtype=np.uint8)
    for given in (picture, picture.transpose(2, 0, 1)):
        assert np.array_equal(picture_array(given), picture[..., 0] if channels == 1 else picture)


def test_a_row_of_a_picture_is_no_picture() -> None:
    with pytest.raises(
        BadSample, match=r"a row of pixels of shape \[24, 3\]; give one picture in colour as \[picture\]"
    ):
        picture_array(np.zeros((16, 24, 3))[0])
