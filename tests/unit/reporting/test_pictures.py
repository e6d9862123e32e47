"""Pictures of a report: they are those of the run, of every shape, and small."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec2.reporting.pictures import NAMED, data_uri, read_gallery, read_masks
from tests.unit.reporting.pages import fill, gallery


def decoded(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_masked_patches_are_see_through_and_the_others_unchanged(tmp_path: Path) -> None:
    with np.load(fill(tmp_path) / "masks.npz") as arrays:
        images = arrays["images"]
    shown = read_masks(tmp_path / "masks.npz")
    assert (shown["masks"], shown["kept"], shown["patches"]) == (2, 2, 6)
    for image, strip in zip(images, shown["strips"], strict=True):
        np.testing.assert_array_equal(decoded(strip[0]), image)
    first = decoded(shown["strips"][0][1])  # keeps the patches 0 and 1 of 2 x 3
    np.testing.assert_array_equal(first[:4, :8, :3], images[0][:4, :8])
    seen = np.zeros((8, 12), dtype=bool)
    seen[:4, :8] = True
    np.testing.assert_array_equal(first[..., 3] == 255, seen)
    np.testing.assert_array_equal(first[..., 3] == 0, ~seen)


def test_the_masks_of_one_picture_are_read_too(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 1), np.uint8)
    np.savez(tmp_path / "masks.npz", image=image, keep_ids=np.array([[0], [3]]), patch_size=4)
    (strip,) = read_masks(tmp_path / "masks.npz")["strips"]
    assert len(strip) == 3


@pytest.mark.parametrize(
    "shape", [(8, 8), (8, 8, 1), (8, 8, 3), (9, 11), (8, 8, 2), (8, 8, 5), (224, 200, 3), (224, 224)]
)
def test_pictures_of_every_shape(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    shown = decoded(data_uri(picture))
    assert shown.shape[:2] == shape[:2]
    if max(shape) <= 64:
        expected = picture if picture.shape[2:] in ((), (3,)) else picture[:, :, 0]
        np.testing.assert_array_equal(shown, expected)
    masked = decoded(data_uri(picture, np.zeros((8, 8), dtype=bool)))
    assert (masked[:8, :8, -1] == 0).all()


def test_a_large_picture_is_small_on_the_page() -> None:
    rows, columns = np.mgrid[:224, :224]
    picture = np.stack((rows, columns, 127 + 60 * np.sin(rows / 9)), axis=2).astype(np.uint8)
    uri = data_uri(picture)
    assert len(uri) < 15_000
    assert np.abs(decoded(uri).astype(int) - picture).mean() < 4


def test_the_map_has_a_dot_for_every_sample_and_names_its_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "gallery.npz", **gallery(np.random.default_rng(0)))
    shown = read_gallery(tmp_path / "gallery.npz")
    assert shown["map"].count("h0") == 40
    assert [(name, count) for name, _, _, count in shown["legend"]] == [("dog", 20), ("cat", 19), ("others", 1)]
    assert shown["map"].count("<text") == 2


@pytest.mark.parametrize("num_classes", [0, 3, NAMED, NAMED + 5])
def test_classes_on_the_map_differ_in_colour_or_shape(tmp_path: Path, num_classes: int) -> None:
    arrays = gallery(np.random.default_rng(0), classes=tuple(f"class {place}" for place in range(num_classes)))
    arrays["map_labels"] = np.arange(40) % num_classes if num_classes else np.full(40, -1)
    np.savez(tmp_path / "gallery.npz", **arrays)
    legend = read_gallery(tmp_path / "gallery.npz")["legend"]
    looks = [(colour, shape) for _, colour, shape, _ in legend]
    assert len(looks) == len(set(looks)) == min(max(num_classes, 1), NAMED + 1)
    assert sum(count for *_, count in legend) == 40


def test_neighbours_of_another_class_are_told_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "gallery.npz", **gallery(np.random.default_rng(0)))
    first, second = read_gallery(tmp_path / "gallery.npz")["pictures"]
    assert [near["same"] for near in first["neighbours"]] == [True, True, False]
    assert [near["same"] for near in second["neighbours"]] == [True, True, True]
    assert [near["label"] for near in first["neighbours"]] == ["cat", "cat", "dog"]
