"""Pictures of a report: they are those of the run, of every shape, and small."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data2vec2.modalities.image.show import ImageShow
from data2vec2.reporting.build import write_report
from data2vec2.reporting.charts import MAP_COLOURS, data_uri, draw_map
from tests.unit.reporting.pages import fill, gallery, read_page


def decoded(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def shown_pictures(run: Path) -> list[str]:
    """Sources of the pictures on a run's page, in order."""
    return [value for name, value in read_page(write_report(run)).attributes if name == "src"]


def test_masked_patches_are_see_through_and_the_others_unchanged(tmp_path: Path) -> None:
    with np.load(fill(tmp_path) / "masks.npz") as arrays:
        shown, images = ImageShow().masks(dict(arrays)), arrays["images"]
    assert (shown["masks"], shown["kept"], shown["tokens"]) == (2, 2, 6)
    sources = shown_pictures(tmp_path)
    for image, place in zip(images, (0, 3), strict=True):  # whole, then under its two masks
        np.testing.assert_array_equal(decoded(sources[place]), image)
    first = decoded(sources[1])  # keeps the patches 0 and 1 of 2 x 3
    np.testing.assert_array_equal(first[:4, :8, :3], images[0][:4, :8])
    seen = np.zeros((8, 12), dtype=bool)
    seen[:4, :8] = True
    np.testing.assert_array_equal(first[..., 3] == 255, seen)
    np.testing.assert_array_equal(first[..., 3] == 0, ~seen)


def test_the_masks_of_one_picture_are_read_too(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 1), np.uint8)
    np.savez(tmp_path / "masks.npz", image=image, keep_ids=np.array([[0], [3]]), patch_size=4)
    (tmp_path / "config.yaml").write_text("model:\n  modality:\n    kind: image\n")
    assert len(shown_pictures(tmp_path)) == 3


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


def drawn_map(arrays: dict[str, np.ndarray]) -> tuple[str, list[tuple[str, str, str, int]]]:
    shown = ImageShow().gallery(arrays)
    return draw_map(shown["map"], shown["map_labels"], shown["classes"])


def test_the_map_has_a_dot_for_every_sample_and_names_its_classes() -> None:
    svg, legend = drawn_map(gallery(np.random.default_rng(0)))
    assert svg.count("h0") == 40
    assert [(name, count) for name, _, _, count in legend] == [("dog", 20), ("cat", 19), ("others", 1)]
    assert svg.count("<text") == 2


def test_a_class_is_named_where_most_of_it_is_and_names_are_whole_and_apart() -> None:
    rng = np.random.default_rng(0)
    clusters = [rng.normal(middle, 0.01, (count, 2)) for middle, count in (((0, 0), 30), ((1, 1), 20), ((0, 0), 30))]
    labels = np.repeat([0, 0, 1], [30, 20, 30])
    svg, _ = draw_map(np.concatenate(clusters).astype(np.float32), labels, ["a long name of a class", "another one"])
    (x, y), (other_x, other_y) = [tuple(map(int, place)) for place in re.findall(r'<text x="(\d+)" y="(\d+)"', svg)]
    assert 80 < x < 140, "at the left, where most are, but not cut"
    assert y < 60 and other_x < 140
    assert abs(y - other_y) >= 18


def test_colours_of_the_map_are_apart_for_people_who_see_no_red_or_green() -> None:
    # Vienot, Brettel and Mollon (1999): what is left of linear red, green and blue
    deuteranope = np.array([[0.293, 0.707, 0.0], [0.293, 0.707, 0.0], [-0.022, 0.022, 1.0]])
    protanope = np.array([[0.113, 0.887, 0.0], [0.113, 0.887, 0.0], [0.004, -0.004, 1.0]])
    for colours in MAP_COLOURS.values():
        shares = np.array([[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in colours])
        for seen in (deuteranope, protanope):
            lab = lab_of(np.clip(shares**2.2 @ seen.T, 0, 1))
            distances = np.linalg.norm(lab[:, None] - lab, axis=2)[np.triu_indices(len(lab), 1)]
            assert distances.min() > 15, (colours, distances.min())


def lab_of(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])  # white is 1
    x, y, z = np.cbrt(linear @ to_xyz.T).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("num_classes", [0, 3, 10, 15])
def test_classes_on_the_map_differ_in_colour_or_shape(num_classes: int) -> None:
    arrays = gallery(np.random.default_rng(0), classes=tuple(f"class {place}" for place in range(num_classes)))
    arrays["map_labels"] = np.arange(40) % num_classes if num_classes else np.full(40, -1)
    _, legend = drawn_map(arrays)
    looks = [(colour, shape) for _, colour, shape, _ in legend]
    assert len(looks) == len(set(looks)) == min(max(num_classes, 1), 11)
    assert sum(count for *_, count in legend) == 40


def test_neighbours_of_another_class_are_told_apart() -> None:
    first, second = ImageShow().gallery(gallery(np.random.default_rng(0)))["samples"]
    assert [near["same"] for near in first["neighbours"]] == [True, True, False]
    assert [near["same"] for near in second["neighbours"]] == [True, True, True]
    assert [near["label"] for near in first["neighbours"]] == ["cat", "cat", "dog"]
