"""embed: features of real pictures as a table."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import data2vec2
from data2vec2.config.model import ArchitectureConfig, EncoderConfig
from data2vec2.interop.folder import export_model, load_encoder
from data2vec2.method.encoder import Encoder
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.fields import build_encoder
from data2vec2.modalities.image import fashion_mnist
from data2vec2.modalities.image.config import ImageConfig, ImageDataConfig
from data2vec2.modalities.image.reader import Normalise, central_box, crop
from tests.integration.helpers import Child, embedded, files, jpeg_folder, run_here, small_npz

SIZE, PATCH, DIM, DEPTH = 24, 8, 16, 3
PHOTO = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
CONFIG = ArchitectureConfig(
    modality=ImageConfig(image_size=SIZE, patch_size=PATCH, num_channels=3),
    encoder=EncoderConfig(embed_dim=DIM, num_heads=2, prenet_depth=1, depth=2),
)


def export(folder: Path, encoder: Encoder, config: ArchitectureConfig = CONFIG, eval_crop: float = 1.0) -> Path:
    data = ImageDataConfig(mean=(0.4,) * 3, std=(0.3,) * 3, eval_crop=eval_crop)
    export_model(encoder, ModelInfo(model=config, data=data), folder, "# A model\n")
    return folder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(3)
    encoder = build_encoder(CONFIG).eval()
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            if "blocks" in name and weight.ndim > 1:
                weight.mul_(8)  # so that blocks do something
    return encoder


@pytest.fixture(scope="module")
def model(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("model") / "exported", encoder, eval_crop=0.875)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jpeg_folder(tmp_path_factory.mktemp("clothes"), 30)


def vectors(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([row["features"] for row in rows])


def grids(rows: list[dict[str, Any]]) -> list[NDArray[np.float64]]:
    """Dense features as (rows, columns, D)."""
    return [np.array(row["features"]).reshape(*row["grid"], -1) for row in rows]


def inputs(picture: Image.Image) -> torch.Tensor:
    """A picture as the model sees it."""
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB")).transpose(2, 0, 1)[None].copy())
    return Normalise((0.4,) * 3, (0.3,) * 3, torch.device("cpu"))(pixels)


def central(path: Path, size: int) -> torch.Tensor:
    return inputs(Image.fromarray(crop(path.read_bytes(), partial(central_box, 0.875), size, 3)))


def blank(path: Path, width: int, height: int, *squares: tuple[int, int]) -> Path:
    """A grey picture with white patches at some (row, column)."""
    pixels = np.full((height, width, 3), 90, dtype=np.uint8)
    for row, column in squares:
        pixels[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 255
    Image.fromarray(pixels).save(path)
    return path


def test_the_table_has_names_parts_labels_and_the_encoders_features(
    model: Path, encoder: Encoder, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "f.parquet"
    rows = embedded(model, clothes, "--batch", 7, "--out", out)
    captured = capsys.readouterr()
    assert captured.out == f"features: {out} (30 pictures, {DIM} numbers each)\n"
    assert [row["name"] for row in rows] == sorted(name for name in files(clothes) if name.endswith(".jpg"))
    assert all(row["part"] == "train" and row["label"] == row["name"].split("/")[0] for row in rows)
    with torch.no_grad():
        expected = torch.cat([encoder(central(clothes / row["name"], SIZE)).pooled() for row in rows]).numpy()
    np.testing.assert_allclose(vectors(rows), expected, atol=2e-5)
    assert expected.std(axis=0).min() > 0.01  # they differ
    assert files(out.parent) == {"f.parquet"}

    schema = pq.read_schema(out)
    assert schema.field("features").type == pa.list_(pa.float32(), DIM)
    about = json.loads(schema.metadata[b"data2vec2"])
    assert (about["model"], about["layer"], about["pool"], about["size"]) == (str(model), DEPTH, "mean", SIZE)
    assert about["versions"]["data2vec2"] == data2vec2.__version__


def test_layers_are_the_blocks_outputs(model: Path, encoder: Encoder, clothes: Path, tmp_path: Path) -> None:
    outputs: list[torch.Tensor] = []
    hooks = [b.register_forward_hook(lambda _, args, out: outputs.append(out.x_NLD)) for b in encoder.blocks]
    picture = sorted(clothes.rglob("*.jpg"))[0]
    encoded = encoder(central(picture, SIZE))
    for hook in hooks:
        hook.remove()
    for layer in range(DEPTH + 1):
        patches = outputs[layer - 1][:, 1:] if layer else encoded.tokens.tokens_BTD
        for pool in ("mean", "none", "cls")[: 3 if layer else 2]:
            (row,) = embedded(model, picture, "--layer", layer, "--pool", pool, "--out", tmp_path / f"{layer}{pool}")
            expected = {"mean": patches.mean(1), "none": patches, "cls": outputs[layer - 1][:, 0]}[pool]
            np.testing.assert_allclose(row["features"], expected.detach().flatten(), atol=2e-5)
            assert row.get("grid") == ([3, 3] if pool == "none" else None)
            assert row["label"] is None


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (4, 1)])
def test_dense_features_are_row_by_row(model: Path, tmp_path: Path, rows: int, columns: int) -> None:
    size = min(rows, columns) * PATCH
    places = [(row, column) for row in range(rows) for column in range(columns)]
    plain = blank(tmp_path / "plain.png", columns * PATCH, rows * PATCH)
    pictures = [
        blank(tmp_path / f"{place:02}.png", columns * PATCH, rows * PATCH, square)
        for place, square in enumerate(places)
    ]
    options = ["--pool", "none", "--keep-aspect", "--size", size, "--layer", 0, "--out", tmp_path / "f"]
    empty, *found = grids(embedded(model, plain, *pictures, *options))
    assert empty.shape == (rows, columns, DIM)
    for place, features in zip(places, found, strict=True):
        changed = np.abs(features - empty).max(axis=2) > 1e-4
        assert [tuple(place) for place in np.argwhere(changed)] == [place]


def test_what_moves_in_the_picture_moves_in_the_features(model: Path, tmp_path: Path) -> None:
    """Also after all blocks, and on a grid that the model was not trained on, a patch is told best by its own place."""
    squares = [(row, column) for row in range(4) for column in range(6)]
    plain = blank(tmp_path / "plain.png", 6 * PATCH, 4 * PATCH)
    pictures = [blank(tmp_path / f"{n:02}.png", 6 * PATCH, 4 * PATCH, square) for n, square in enumerate(squares)]
    options = ["--pool", "none", "--keep-aspect", "--size", 4 * PATCH, "--out", tmp_path / "f"]
    empty, *found = grids(embedded(model, plain, *pictures, *options))
    change = [np.linalg.norm(features - empty, axis=2) for features in found]
    assert [np.unravel_index(difference.argmax(), (4, 6)) for difference in change] == squares


def test_another_size_is_what_an_encoder_moved_there_gives(
    model: Path, encoder: Encoder, clothes: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, modality=replace(CONFIG.modality, image_size=40, position_size=SIZE))
    moved = export(tmp_path / "moved", encoder, config, eval_crop=0.875)
    options = ["--pool", "none", "--out"]
    larger = vectors(embedded(model, clothes, "--size", 40, *options, tmp_path / "a"))
    assert larger.shape == (30, 25 * DIM)
    np.testing.assert_allclose(vectors(embedded(moved, clothes, *options, tmp_path / "b")), larger, atol=1e-6)

    unmoved = replace(config, modality=replace(config.modality, position_size=None))
    own = export(tmp_path / "own", encoder, unmoved, eval_crop=0.875)
    assert np.abs(vectors(embedded(own, clothes, *options, tmp_path / "c")) - larger).max() > 0.01


def test_features_of_a_finer_grid_resemble_those_of_the_own(clothes: Path, encoder: Encoder, tmp_path: Path) -> None:
    """Of an encoder that looks at the mean of a patch, so that a patch and its quarters differ by positions alone."""
    coarse = build_encoder(CONFIG)
    coarse.load_state_dict(encoder.state_dict())
    stem = coarse.modality.stem
    assert isinstance(stem, torch.nn.Conv2d)
    stem.weight.data.copy_(stem.weight.data.sum(dim=(2, 3), keepdim=True).sign().expand_as(stem.weight) / PATCH**2)
    large = replace(CONFIG, modality=replace(CONFIG.modality, image_size=2 * SIZE))
    models = [export(tmp_path / "own", coarse), export(tmp_path / "large", coarse, large)]
    options = ["--pool", "none", "--size"]
    own = np.stack(grids(embedded(models[0], clothes, *options, SIZE, "--out", tmp_path / "a")))
    finer, other_positions = (
        np.stack(grids(embedded(model, clothes, *options, 2 * SIZE, "--out", tmp_path / f"f{number}")))
        for number, model in enumerate(models)
    )
    assert finer.shape == (30, 6, 6, DIM)

    def distance(features: NDArray[np.float64]) -> float:
        quarters = features.reshape(30, 3, 2, 3, 2, DIM).mean(axis=(2, 4))
        return float(np.square(quarters - own).mean() / own.var(axis=0).mean())

    assert distance(finer) < 0.5
    assert distance(finer) < 0.8 * distance(other_positions)


def test_the_aspect_is_kept_and_rounded_to_patches(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    with Image.open(PHOTO) as photo:
        sizes = {"wide": (101, 40), "tall": (50, 70), "tiny": (5, 9), "exact": (48, 24)}
        paths = []
        for name, size in sizes.items():
            paths.append(tmp_path / f"{name}.png")
            photo.resize(size).save(paths[-1])
    rows = embedded(model, *paths, "--keep-aspect", "--pool", "none", "--size", 24, "--out", tmp_path / "f")
    # the longer side over the shorter, times 24 / 8 patches, rounded
    assert [tuple(row["grid"]) for row in rows] == [(3, 8), (4, 3), (5, 3), (3, 6)]
    with Image.open(paths[3]) as picture, torch.no_grad():
        expected = encoder(inputs(picture)).features_NTD.flatten()
    np.testing.assert_allclose(rows[3]["features"], expected, atol=2e-5)
    pooled = embedded(model, *paths, "--keep-aspect", "--size", 24, "--out", tmp_path / "g")
    means = [features.mean(axis=(0, 1)) for features in grids(rows)]
    np.testing.assert_allclose(vectors(pooled), means, atol=2e-5)


def test_pictures_are_upright_also_where_nothing_is_cut(model: Path, tmp_path: Path) -> None:
    with Image.open(PHOTO) as photo:
        upright = photo.resize((48, 24))
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: shown after a turn by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "wrong.png")
    paths = [tmp_path / f"{name}.png" for name in ("upright", "turned", "wrong")]
    first, second, third = grids(embedded(model, *paths, "--keep-aspect", "--pool", "none", "--out", tmp_path / "f"))
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert third.shape == (6, 3, DIM)


def test_half_precision_and_chunks_change_little(model: Path, clothes: Path, tmp_path: Path) -> None:
    full = vectors(embedded(model, clothes, "--batch", 64, "--out", tmp_path / "a"))
    np.testing.assert_allclose(
        vectors(embedded(model, clothes, "--batch", 1, "--out", tmp_path / "b")), full, atol=2e-5
    )
    half = vectors(embedded(model, clothes, "--dtype", "float16", "--out", tmp_path / "c"))
    assert pq.read_schema(tmp_path / "c").field("features").type == pa.list_(pa.float16(), DIM)
    np.testing.assert_array_equal(half, full.astype(np.float32).astype(np.float16))


def test_a_feature_that_half_precision_can_not_hold_is_an_error(
    encoder: Encoder, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = build_encoder(CONFIG)
    huge.load_state_dict(encoder.state_dict())
    huge.blocks[-1].norm2.weight.data.fill_(1e6)
    folder = export(tmp_path / "huge", huge)
    out = tmp_path / "out" / "f"
    assert run_here(["embed", folder, clothes, "--dtype", "float16", "--out", out]) == 1
    assert "try --dtype float32" in capsys.readouterr().err
    assert files(out.parent) == set()
    assert np.abs(vectors(embedded(folder, clothes, "--out", out))).max() > 70_000


def test_parts_and_runs(tmp_path: Path, pretrained: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(small) as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    data, run = tmp_path / "data.npz", tmp_path / "run"
    np.savez(data, x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    shutil.copytree(pretrained, run)

    rows = embedded(run, data, "--out", tmp_path / "all")
    assert [row["part"] for row in rows] == ["train"] * 150 + ["test"] * 50
    assert [int(row["label"]) for row in rows] == y.tolist()
    assert rows[3]["name"] == "x_train[3]"
    assert embedded(run / "exported", data, "--part", "test", "--out", tmp_path / "test") == rows[150:]
    capsys.readouterr()
    assert run_here(["embed", run, data, "--part", "val", "--out", tmp_path / "val"]) == 1
    assert "no val part; there is train, test" in capsys.readouterr().err
    assert run_here(["embed", run, small, "--json", "--out", tmp_path / "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "out": str(tmp_path / "json"),
        "rows": 200,
        "dim": 16,
        "skipped": {},
        "kind": "image",
    }
    shutil.rmtree(run / "exported")
    assert run_here(["embed", run, data, "--out", tmp_path / "none"]) == 1
    assert "has not finished" in capsys.readouterr().err


def test_several_labels_are_a_list(model: Path, clothes: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in clothes.rglob("*.jpg"))[:3]
    for path in clothes.rglob("*.jpg"):
        if path.name in names:
            (tmp_path / "tagged").mkdir(exist_ok=True)
            (tmp_path / "tagged" / path.name).write_bytes(path.read_bytes())
    tags = ["red|blue", "", "blue"]
    lines = ["file_name,labels", *(f"{name},{tag}" for name, tag in zip(names, tags, strict=True))]
    (tmp_path / "tagged" / "metadata.csv").write_text("\n".join(lines) + "\n")
    rows = embedded(model, tmp_path / "tagged", "--out", tmp_path / "f")
    assert [row["label"] for row in rows] == [["blue", "red"], [], ["blue"]]


def test_bad_files_are_counted_listed_and_left_out(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted(clothes.rglob("*.jpg"))[:3]
    (tmp_path / "junk.png").write_bytes(b"\x89PNG and no more")
    (tmp_path / "half.jpg").write_bytes(good[0].read_bytes()[:300])
    Image.new("RGB", (400, 2)).save(tmp_path / "thread.png")
    bad = [tmp_path / name for name in ("junk.png", "half.jpg", "thread.png", "missing.jpg")]
    paths = [good[0], bad[0], good[1], *bad[1:], good[2]]
    rows = embedded(model, *paths, "--keep-aspect", "--out", tmp_path / "f")
    assert [row["name"] for row in rows] == [str(path) for path in good]
    error = capsys.readouterr().err
    assert "4 of 7 pictures are left out: " in error
    for path, reason in zip(bad, ("damaged", "truncated", "too narrow", "unreadable"), strict=True):
        assert f"{path}: {reason}" in error
    alone = embedded(model, good[1], "--keep-aspect", "--out", tmp_path / "g")
    np.testing.assert_allclose(alone[0]["features"], rows[1]["features"], atol=2e-5)

    assert run_here(["embed", model, *bad, "--keep-aspect", "--out", tmp_path / "h"]) == 1
    assert "none of 4 pictures can be used" in capsys.readouterr().err
    assert not {name for name in files(tmp_path) if "h." in name.split("/")[-1] or name == "h"}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--layer", "4"], 2, "--layer is 4; it must be 1 to 3"),
        (["--layer", "-1"], 2, "--layer is -1"),
        (["--layer", "0", "--pool", "cls"], 2, "--layer 0 has no CLS token"),
        (["--size", "30"], 2, "--size is 30; it must be a multiple of the model's patch size (8)"),
        (["--size", "0"], 2, "--size is 0"),
        (["--batch", "0"], 2, "--batch is 0"),
        (["--device", "abacus"], 2, "abacus"),
    ],
)
def test_options_that_can_not_be_are_named(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    assert run_here(["embed", model, clothes, *options, "--out", tmp_path / "f"]) == code
    assert message in capsys.readouterr().err
    assert files(tmp_path) == set()


def test_files_that_must_not_be_written(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.parquet"
    out.write_text("precious")
    assert run_here(["embed", model, clothes, "--out", out]) == 1
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == "precious"
    assert run_here(["embed", model, tmp_path / "nothing", "--out", out, "--overwrite"]) == 1
    assert out.read_text() == "precious"
    assert len(embedded(model, clothes, "--overwrite", "--out", out)) == 30
    assert run_here(["embed", model, clothes, "--out", tmp_path]) == 1
    assert "is a folder" in capsys.readouterr().err
    assert run_here(["embed", clothes, clothes, "--out", tmp_path / "g"]) == 1
    assert "is not an exported model" in capsys.readouterr().err


def test_killed_half_way_it_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    out, temporary = tmp_path / "f.parquet", tmp_path / ".f.parquet.tmp"
    command = ["embed", model, fashion_mnist(), "--batch", "8", "--out", out]
    asked = Child(command, tmp_path / "asked.log")
    asked.until(temporary.exists)
    time.sleep(0.1)  # not in the moment in which the file is made
    asked.signal(signal.SIGTERM)
    assert asked.wait() == 143, asked.output
    assert files(tmp_path) == {"asked.log"}

    killed = Child(command, tmp_path / "killed.log")
    killed.until(temporary.exists)
    killed.signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not out.exists()
    assert run_here(command) == 1  # what was left might be another process's
    assert files(tmp_path) == {"asked.log", "killed.log", temporary.name}
    small = small_npz(tmp_path / "small.npz", 20)
    assert len(embedded(model, small, "--overwrite", "--out", out)) == 20
    assert not temporary.exists()


def test_exports_from_before_there_was_a_position_size(model: Path, clothes: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for path in model.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    fields = json.loads((old / "config.json").read_text())
    assert fields.pop("position_size") is None
    (old / "config.json").write_text(json.dumps(fields))
    assert load_encoder(old)[1] == load_encoder(model)[1]
    rows = embedded(old, clothes, "--size", 32, "--out", tmp_path / "f")
    assert rows == embedded(model, clothes, "--size", 32, "--out", tmp_path / "g")


def test_transformers_takes_other_sizes_too(encoder: Encoder, tmp_path: Path) -> None:
    from transformers import AutoModel  # takes seconds

    config = replace(CONFIG, modality=replace(CONFIG.modality, image_size=40, position_size=SIZE))
    model = AutoModel.from_pretrained(export(tmp_path / "moved", encoder, config))
    assert model.config.position_size == SIZE
    for height, width in ((40, 40), (16, 32)):
        pixels = torch.randn(2, 3, height, width)
        with torch.no_grad():
            assert torch.equal(model(pixels).last_hidden_state, encoder(pixels).x_NLD)


def test_the_function_returns_what_the_command_writes(model: Path, clothes: Path, tmp_path: Path) -> None:
    result = data2vec2.embed(model, clothes, tmp_path / "f", layer=2)
    assert (result.out, result.rows, result.dim, result.skipped) == (tmp_path / "f", 30, DIM, {})
    with pytest.raises(ValueError, match="--pool is 'max'"):
        data2vec2.embed(model, clothes, tmp_path / "g", pool="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no DATA"):
        data2vec2.embed(model, [], tmp_path / "g")


def test_the_name_of_the_file_decides_its_kind(
    model: Path, clothes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = embedded(model, clothes, "--out", tmp_path / "e.parquet")
    assert run_here(["embed", model, clothes, "--out", tmp_path / "e.csv"]) == 0
    with (tmp_path / "e.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [row["name"] for row in table]
    assert [row["label"] for row in rows] == [row["label"] for row in table]
    np.testing.assert_allclose(float(rows[3]["f5"]), table[3]["features"][5], rtol=1e-6)
    for name, options in (("e.xlsx", ()), ("e.txt", ()), ("f.csv", ("--pool", "none"))):
        assert run_here(["embed", model, clothes, "--out", tmp_path / name, *options]) == 2
        assert "are written as .parquet" in capsys.readouterr().err
        assert not (tmp_path / name).exists()
