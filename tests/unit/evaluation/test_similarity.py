"""The gallery: pictures as they are, features that tell patches apart, true neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data2vec2.config.model import EncoderConfig
from data2vec2.evaluation.similarity import MAPPED
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.model import ImageModality
from data2vec2.modalities.image.reader import ImageReader, Normalise
from data2vec2.modalities.image.show import write_gallery
from tests.integration.helpers import small_npz
from tests.unit.data.pictures import encoded, open_pictures, photo

CPU = torch.device("cpu")


def gallery(
    folder: Path, data: Path, config: ImageConfig, samples: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], ImageReader]:
    """The arrays that a small, untrained encoder of fixed weights leaves."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(embed_dim=16, num_heads=2, depth=1, prenet_depth=0), ImageModality(config, 16))
    reader = ImageReader(open_pictures(data).train, config, ImageDataConfig(eval_crop=1.0), 0)
    if samples is None:
        samples = np.arange(len(reader.records))
    values = (0.5,) * config.channels
    write_gallery(folder, encoder.eval(), reader, samples, Normalise(values, values, CPU), CPU)
    assert [path.name for path in folder.glob("*gallery*")] == ["gallery.npz"], "no draft is left"
    with np.load(folder / "gallery.npz", allow_pickle=False) as arrays:
        return dict(arrays), reader


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_npz(tmp_path / "data.npz", 100)


def test_the_gallery_of_grey_pictures(tmp_path: Path, data: Path) -> None:
    arrays, reader = gallery(tmp_path, data, ImageConfig(image_size=28, patch_size=4, num_channels=1))
    assert arrays["pictures"].shape == (8, 28, 28, 1)
    assert arrays["colours"].shape == (8, 7, 7, 3)
    assert arrays["neighbours"].shape == (8, 6, 28, 28, 1)
    assert arrays["map"].shape == (100, 2)
    assert str(arrays["map_method"]) == "t-SNE"
    assert len(set(arrays["labels"].tolist())) == 8, "pictures of different classes"
    assert tuple(arrays["classes"]) == reader.records.classes
    np.testing.assert_array_equal(arrays["map_labels"], reader.records.labels)
    known = {reader.records.read(place).tobytes(): label for place, label in enumerate(reader.records.labels)}
    for picture, label in zip(arrays["pictures"], arrays["labels"], strict=True):
        assert known[picture.tobytes()] == label
    for pictures, labels, shown in zip(
        arrays["neighbours"], arrays["neighbour_labels"], arrays["pictures"], strict=True
    ):
        assert [known[picture.tobytes()] for picture in pictures] == labels.tolist()
        assert all((picture != shown).any() for picture in pictures), "a picture is no neighbour of itself"
    assert (np.diff(arrays["neighbour_cosines"], axis=1) <= 0).all()
    assert arrays["colours"].std(axis=(0, 1, 2)).min() > 10


def test_a_copy_is_the_nearest_neighbour(tmp_path: Path, data: Path) -> None:
    with np.load(data) as arrays:
        x, y = arrays["x_train"].copy(), arrays["y_train"]
    firsts = [int(np.flatnonzero(y == label)[0]) for label in range(10)]
    copies = [int(np.flatnonzero(y == label)[-1]) for label in range(10)]
    x[copies] = x[firsts]
    np.savez(data, x_train=x, y_train=y)
    found, _ = gallery(tmp_path, data, ImageConfig(image_size=28, patch_size=4, num_channels=1))
    np.testing.assert_array_equal(found["neighbours"][:, 0], found["pictures"])
    np.testing.assert_allclose(found["neighbour_cosines"][:, 0], 1, atol=1e-5)


def test_large_colour_pictures_are_kept_small(tmp_path: Path, data: Path) -> None:
    arrays, _ = gallery(tmp_path, data, ImageConfig(image_size=256, patch_size=64, num_channels=3), np.arange(20))
    assert arrays["pictures"].shape == (8, 224, 224, 3)
    assert arrays["neighbours"].shape == (8, 6, 96, 96, 3)
    assert arrays["colours"].shape == (8, 4, 4, 3)
    assert str(arrays["map_method"]) == "PCA", "too few for t-SNE"


@pytest.mark.parametrize("count", [2, 5, 9])
def test_few_samples_without_labels(tmp_path: Path, data: Path, count: int) -> None:
    with np.load(data) as arrays:
        np.savez(data, x_train=arrays["x_train"][:count])
    arrays, _ = gallery(tmp_path, data, ImageConfig(image_size=28, patch_size=14, num_channels=1))
    assert len(arrays["pictures"]) == min(count, 8)
    assert arrays["neighbours"].shape[:2] == (min(count, 8), min(count - 1, 6))
    assert set(arrays["labels"].tolist()) == {-1}
    assert np.isfinite(arrays["map"]).all()


def test_equal_pictures_have_a_map_too(tmp_path: Path, data: Path) -> None:
    np.savez(data, x_train=np.zeros((60, 28, 28), np.uint8))
    arrays, _ = gallery(tmp_path, data, ImageConfig(image_size=28, patch_size=14, num_channels=1))
    assert np.isfinite(arrays["map"]).all()


def test_the_same_samples_give_the_same_gallery(tmp_path: Path, data: Path) -> None:
    config = ImageConfig(image_size=28, patch_size=14, num_channels=1)
    (first, _), (second, _) = (gallery(tmp_path, data, config) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert len(first["map"]) <= MAPPED


def test_what_can_not_be_read_is_left_out(tmp_path: Path) -> None:
    for place in range(6):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        content = encoded(photo(40 + place, 40), "PNG")
        (tmp_path / "pictures" / f"{place}.png").write_bytes(content[:60] if place == 2 else content)
    config = ImageConfig(image_size=28, patch_size=14, num_channels=3)
    arrays, _ = gallery(tmp_path, tmp_path / "pictures", config)
    assert len(arrays["map"]) == len(arrays["pictures"]) == 5, "nothing stands in for it"
    assert arrays["neighbours"].shape[:2] == (5, 4)
