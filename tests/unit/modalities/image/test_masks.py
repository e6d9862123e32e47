"""Masks of pictures: their files, and the class of each pixel, also of crops."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features
from numpy.typing import NDArray
from PIL import Image

from data2vec2.data.labels import IGNORED
from data2vec2.data.records import Records
from data2vec2.data.sampler import Plan
from data2vec2.errors import UserError
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.masks import INEXACT, MAX_SCORED, OTHER_SIZE, UNMASKED, MaskReader, open_masks
from data2vec2.modalities.image.masks import mask_of as stored
from tests.unit.data.pictures import photo


def mask_of(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Four quarters of different classes, and a corner that has none."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[: height // 2, width // 2 :], mask[height // 2 :, : width // 2], mask[height // 2 :, width // 2 :] = 1, 2, 3
    mask[-8:, -8:] = 255
    return mask


def saved(path: Path, picture: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def put(root: Path, name: str, mask: Image.Image | None, size: tuple[int, int] = (96, 64), part: str = "") -> None:
    saved(root / part / "images" / f"{name}.jpg", photo(*size))
    if mask is not None:
        saved(root / part / "masks" / f"{name}.png", mask)


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_folders_metadata_and_parquet_give_the_same(tmp_path: Path) -> None:
    palette = Image.fromarray(mask_of()).convert("P")
    palette.putpalette([n * 7 % 256 for n in range(768)])
    palette.putdata(mask_of().ravel().tolist())
    folders, metadata, table = tmp_path / "folders", tmp_path / "metadata", tmp_path / "table.parquet"
    for part in ("train", "test"):
        put(folders, "a", palette, part=part)
        put(folders, "b", None, part=part)
    for name in "ab":
        saved(metadata / f"{name}.jpg", photo(96, 64))
    saved(metadata / "masks" / "of_a.png", Image.fromarray(mask_of()))
    (metadata / "metadata.csv").write_text("file_name,mask\na.jpg,masks/of_a.png\nb.jpg,\n")
    pictures = [png(photo(96, 64))] * 2
    pq.write_table(pa.table({"image": pictures, "mask": [png(palette), None]}), table)
    for data in (folders, metadata, table):
        parts = open_masks(str(data))
        assert len(parts.train) == 1, data
        assert parts.train.classes == ("0", "1", "2", "3")
        account = parts.account.part("train")
        assert list(account.left_out.values()) == [UNMASKED]
        assert account.found == 2
        own = MaskReader(parts.train, ImageConfig(image_size=32, patch_size=8), ImageDataConfig(whole=True), 0)
        expected = mask_of().astype(int)
        assert np.array_equal(own.marked(0), np.where(expected == 255, IGNORED, expected)), data
    assert open_masks(str(folders)).test is not None
    assert open_masks(str(folders)).train.fingerprint == open_masks(str(folders)).train.fingerprint


def test_a_data_set_of_datasets(tmp_path: Path) -> None:
    features = Features({"image": datasets.Image(), "annotation": datasets.Image()})
    rows = {"image": [photo(96, 64)] * 3, "annotation": [Image.fromarray(mask_of())] * 3}
    Dataset.from_dict(rows, features).save_to_disk(tmp_path / "saved")
    records, again = (open_masks(f"hf:{tmp_path / 'saved'}").train for _ in range(2))
    assert records.fingerprint == again.fingerprint
    own = MaskReader(records, ImageConfig(image_size=32, patch_size=8), ImageDataConfig(whole=True), 0)
    expected = mask_of().astype(int)
    assert np.array_equal(own.marked(2), np.where(expected == 255, IGNORED, expected))


def test_paths_of_masks_are_below_the_metadata_or_the_folder(tmp_path: Path) -> None:
    for part in ("train", "test"):
        saved(tmp_path / part / "pictures" / "a.jpg", photo(96, 64))
        saved(tmp_path / part / "truth" / "of_a.png", Image.fromarray(mask_of()))
        (tmp_path / part / "metadata.csv").write_text("file_name,mask\npictures/a.jpg,truth/of_a.png\n")
    parts = open_masks(str(tmp_path))
    assert list(parts.train.names) == ["train/pictures/a.jpg"]
    assert parts.account.part("train").left_out == {"train/truth/of_a.png": UNMASKED}
    (tmp_path / "train" / "metadata.csv").write_text("file_name,mask\npictures/a.jpg,../../secret.png\n")
    with pytest.raises(UserError, match="outside the folder"):
        open_masks(str(tmp_path))


def test_masks_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "good", Image.fromarray(mask_of()))
    put(tmp_path, "small", Image.fromarray(mask_of(48, 32)))
    put(tmp_path, "colour", Image.fromarray(mask_of()).convert("RGB"))
    put(tmp_path, "broken", Image.fromarray(mask_of()))
    (tmp_path / "masks" / "broken.png").write_bytes((tmp_path / "masks" / "good.png").read_bytes()[:60])
    put(tmp_path, "inexact", None)
    saved(tmp_path / "masks" / "inexact.jpg", Image.fromarray(mask_of()))
    parts = open_masks(str(tmp_path))
    bad = parts.account.part("train").bad
    assert bad["images/small.jpg"] == OTHER_SIZE
    assert bad["images/colour.jpg"] == "a mask that is no grey or palette picture"
    assert bad["images/broken.jpg"] in ("truncated", "damaged")
    assert bad["images/inexact.jpg"] == INEXACT
    assert list(parts.train.names) == ["images/good.jpg"]
    assert parts.account.part("train").found == 5


@pytest.mark.parametrize("other", ["mask/a.png", "Annotations/a.png", "masks/a.tif"])
def test_several_masks_of_a_picture_are_refused(tmp_path: Path, other: str) -> None:
    put(tmp_path, "a", Image.fromarray(mask_of()))
    saved(tmp_path / other, Image.fromarray(mask_of() * 2))
    first, second = sorted(("masks/a.png", other))
    with pytest.raises(UserError, match=f"images/a.jpg of .* has several masks, {first} and {second}; keep one"):
        open_masks(str(tmp_path))
    (tmp_path / "images/metadata.csv").write_text("file_name,mask\na.jpg,masks/a.png\n")
    assert open_masks(str(tmp_path)).train.classes == ("0", "1", "2", "3")


def test_names_of_classes(tmp_path: Path) -> None:
    put(tmp_path, "a", Image.fromarray(mask_of()))
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\nship\nshore\n")
    assert open_masks(str(tmp_path)).train.classes == ("sky", "sea", "sand", "ship", "shore")
    (tmp_path / "classes.txt").write_text("sky\nsea\n")
    with pytest.raises(UserError, match=r"a mask has the value 3, and .*classes.txt names 2 classes"):
        open_masks(str(tmp_path))
    (tmp_path / "classes.txt").write_text("sky\nsea\nsky\nship\n")
    with pytest.raises(UserError, match="names a class twice"):
        open_masks(str(tmp_path))


def test_values_below_zero_are_no_class_and_greys_are_said(tmp_path: Path) -> None:
    put(tmp_path, "a", None)
    saved(tmp_path / "masks" / "a.tif", Image.fromarray(mask_of().astype(np.int32) - 1))
    parts = open_masks(str(tmp_path))
    assert parts.train.classes == tuple(map(str, range(255)))  # 255 - 1
    assert np.unique(stored(parts.train, 0, 10**6)[0]).tolist() == [0, 1, 2, 254, 255]
    assert parts.account.remarks == ["masks have only the values 0, 1, 2, 254, which makes 255 classes"]


def test_binary_masks_of_0_and_255_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a", Image.fromarray(np.where(mask_of() == 1, 255, 0).astype(np.uint8)))
    with pytest.raises(UserError, match=r"no values but 0 .and 255, which is no class.: write 0, 1"):
        open_masks(str(tmp_path))
    with pytest.raises(UserError, match="no masks to learn from"):
        open_masks(str(saved(tmp_path / "bare" / "a.png", photo()).parent))


def painted(mask: NDArray[np.uint8]) -> Image.Image:
    """A picture whose colour says the class of each pixel."""
    colours = np.array([[0, 0, 0], [250, 0, 0], [0, 250, 0], [0, 0, 250]], dtype=np.uint8)
    return Image.fromarray(colours[np.minimum(mask, 3)])


def told(pixels_CHW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The classes that a painted picture shows; -1 where bicubic resampling has mixed them."""
    found = np.full(pixels_CHW.shape[1:], -1)
    for code, colour in enumerate([(0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250)]):
        near = (np.abs(pixels_CHW.astype(int) - np.array(colour)[:, None, None]) <= 2).all(axis=0)
        found[near] = code
    return found


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("orientation", [1, 3])
def test_a_mask_is_cut_turned_and_mirrored_as_its_picture_is(tmp_path: Path, orientation: int, whole: bool) -> None:
    mask = np.minimum(mask_of(90, 70), 3)
    mask[10:25, 5:20] = 3
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "images").mkdir()
    painted(mask).save(tmp_path / "images" / "a.png", exif=exif)
    saved(tmp_path / "masks" / "a.png", Image.fromarray(mask))
    records: Records = open_masks(str(tmp_path)).train
    config = ImageConfig(image_size=64, patch_size=8)
    own, mirrored = MaskReader(records, config, ImageDataConfig(min_crop=0.3, whole=whole), seed=0), set()
    plan = Plan(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 0)
    for epoch in range(12):
        shown, classes = told(own.crop(0, epoch, plan)), own.marked(0, epoch, plan)
        assert classes.shape == (64, 64)
        assert (shown >= 0).mean() > 0.7
        assert np.array_equal(classes[shown >= 0], shown[shown >= 0]), epoch
        mirrored.add(own.view(0, epoch)[1])
    assert mirrored == {True, False}
    shown, classes = told(own.whole(0)), own.marked(0)
    if whole:
        turned = mask if orientation == 1 else mask[::-1, ::-1]
        assert np.array_equal(classes, turned), "scored on all pixels, as they are"
        classes = np.asarray(Image.fromarray(turned).resize((64, 64), Image.Resampling.NEAREST))
    assert np.array_equal(classes[shown >= 0], shown[shown >= 0])


def test_large_masks_are_scored_smaller(tmp_path: Path) -> None:
    size = (1600, 1200)
    put(tmp_path, "a", Image.fromarray(mask_of(*size)), size)
    data = ImageDataConfig(whole=True)
    own = MaskReader(open_masks(str(tmp_path)).train, ImageConfig(image_size=32, patch_size=8), data, 0)
    height, width = own.marked(0).shape
    assert height * width == pytest.approx(MAX_SCORED, rel=0.01)
    assert width / height == pytest.approx(4 / 3, rel=0.01)
