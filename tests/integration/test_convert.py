"""Checkpoints of the original become folders that everything reads, and files of the original again."""

from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel

import data2vec2
from data2vec2.data.letters import Letters
from data2vec2.errors import UsageError, UserError
from data2vec2.interop.fairseq import keys
from data2vec2.interop.fairseq.original import StandIn, read_checkpoint
from data2vec2.interop.folder import export_model, load_classifier, load_encoder, load_recognizer
from data2vec2.method.heads import SpeechRecognizer
from data2vec2.modalities import get_recipe, read_run_config
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.image.model import sincos_2d
from tests.integration.helpers import SMALL, run_here, small_npz, words
from tests.parity.cases import GOLDEN, GoldenCase, relative_error
from tests.parity.originals import (
    LETTERS,
    file_of,
    finetuned,
    pretrained,
    pretraining_cfg,
    save_with_dictionary,
    write_bpe,
)

KINDS = ("image", "audio", "text")


@pytest.fixture(scope="module")
def cases() -> dict[str, GoldenCase]:
    return {kind: GoldenCase(f"{kind}_tiny") for kind in KINDS}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder for checkpoints, with what belongs to a model of text beside them."""
    write_bpe(tmp_path, 128)
    return tmp_path


def save(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


def same(a: Any, b: Any) -> bool:
    """Whether nested values are equal: tensors in type, shape and every bit, mappings also in their kind."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Namespace):
        return isinstance(b, Namespace) and same(vars(a), vars(b))
    return bool(type(a) is type(b) and a == b)


def real_inputs(folder: Path, kind: str) -> Path:
    """Two files of a kind."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        if kind == "image":
            pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        elif kind == "audio":
            soundfile.write(folder / f"{number}.wav", rng.standard_normal(8_000) / 10, 16_000)
    if kind == "text":
        (folder / "lines.csv").write_text("text\nabc de\nmore of it\n")
        return folder / "lines.csv"
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_golden_features_come_out_of_a_converted_file(files: Path, kind: str, cases: dict[str, GoldenCase]) -> None:
    case = cases[kind]
    source = save(pretrained(case), files / "old.pt")
    assert run_here(["convert", source, files / "out"]) == 0
    encoder, info = load_encoder(files / "out")
    inputs, golden = case.tensors["source"], case.tensors["features"]
    with torch.no_grad():
        assert relative_error(encoder(inputs).features_NTD, golden) < 1e-5
        hidden = AutoModel.from_pretrained(files / "out")(inputs).last_hidden_state
    assert relative_error(hidden[:, info.model.modality.kind == "image" :], golden) < 1e-5
    embedded = ["embed", files / "out", real_inputs(files / "inputs", kind), "--out", files / "f.parquet"]
    assert run_here([*embedded, "--device", "cpu"]) == 0
    features = np.stack(pq.read_table(files / "f.parquet")["features"].to_pylist())
    assert features.shape == (2, 48) and np.isfinite(features).all()
    card = (files / "out" / "README.md").read_text()
    assert "old.pt" in card and ("cc-by-nc-4.0" in card) == (kind == "image")
    assert "extra_state, last_optimizer_state, optimizer_history" in card
    run = read_run_config(yaml.safe_load((files / "out" / "pretraining.yaml").read_text()))
    assert run.model == case.config
    assert (run.optim.beta2, run.optim.clip_norm, run.optim.warmup_updates) == (0.98, None, 8000)


@pytest.mark.parametrize("weights", ["student", "teacher"])
@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_and_there(files: Path, kind: str, weights: str, cases: dict[str, GoldenCase]) -> None:
    content = pretrained(cases[kind])
    first, second = files / "first", files / "second"
    data2vec2.convert(save(content, files / "old.pt"), first, weights=weights)
    assert run_here(["convert", first, files / "new.pt", "--to", "fairseq"]) == 0
    new = read_checkpoint(files / "new.pt")
    assert same(new["model"], content["model"])
    assert same(new["cfg"], content["cfg"])
    assert new.keys() == content.keys()
    data2vec2.convert(files / "new.pt", second, weights=weights)
    for name in ("config.json", "model.safetensors", "original.safetensors", "pretraining.yaml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_teacher_lacks_is_the_students(files: Path, kind: str, cases: dict[str, GoldenCase]) -> None:
    case = cases[kind]
    data2vec2.convert(save(pretrained(case), files / "old.pt"), files / "out", weights="teacher")
    found = load_encoder(files / "out")[0].state_dict()
    own, student = case.model.teacher.state_dict(), case.model.student.state_dict()
    assert found.keys() == student.keys()
    assert all(torch.equal(tensor, own.get(name, student[name])) for name, tensor in found.items())
    assert any(not torch.equal(own[name], student[name]) for name in own)


def test_old_variants(tmp_path: Path, cases: dict[str, GoldenCase]) -> None:
    """ALiBi scales without their first axis, the positions' former name, a mask that means nothing, half precision."""
    audio, image = pretrained(cases["audio"]), pretrained(cases["image"])
    name = "modality_encoders.AUDIO.alibi_scale"
    audio["model"][name] = audio["model"][name][0]
    positions = image["model"].pop(keys.POSITIONS)
    image["model"]["modality_encoders.IMAGE.positional_encoder.pos_embed"] = positions.half()
    image["model"]["_ema"]["encoder_mask"] = torch.zeros(1)
    for kind, content in (("audio", audio), ("image", image)):
        done = data2vec2.convert(save(content, tmp_path / f"{kind}.pt"), tmp_path / kind)
        assert ("encoder_mask" in done.dropped) == (kind == "image")
        data2vec2.convert(tmp_path / kind, tmp_path / f"{kind}-new.pt", to="fairseq")
        new, expected = read_checkpoint(tmp_path / f"{kind}-new.pt")["model"], pretrained(cases[kind])["model"]
        expected[keys.POSITIONS] = positions.half()
        assert all(same(new[key], expected[key]) for key in new)


def test_a_classifier_of_images(tmp_path: Path, cases: dict[str, GoldenCase]) -> None:
    case, content = cases["image"], finetuned(cases["image"], 3)
    (tmp_path / "names.txt").write_text("cat\ndog\ncow\n")
    source = save(content, tmp_path / "old.pt")
    assert run_here(["convert", source, tmp_path / "out", "--classes", tmp_path / "names.txt"]) == 0
    model, info = load_classifier(tmp_path / "out")
    assert info.classes == ("cat", "dog", "cow")
    tensors = content["model"]
    with torch.no_grad():
        pooled = case.tensors["features"].mean(1)
        normed = torch.nn.functional.layer_norm(
            pooled, (48,), tensors["fc_norm.weight"], tensors["fc_norm.bias"], eps=1e-6
        )
        expected = normed @ tensors["head.weight"].T + tensors["head.bias"]
        assert relative_error(model(case.tensors["source"]), expected) < 1e-5
    pictures = real_inputs(tmp_path / "pictures", "image")
    found = list(data2vec2.predict(tmp_path / "out", pictures, top=3))
    assert [set(one.classes) for one in found] == [set(info.classes)] * 2
    there_and_back(tmp_path, content)


@pytest.mark.parametrize("letters_from", ["the file", "dict.ltr.txt"])
def test_a_recogniser_of_speech(tmp_path: Path, letters_from: str, cases: dict[str, GoldenCase]) -> None:
    case, content = cases["audio"], finetuned(cases["audio"], len(LETTERS))
    if letters_from == "the file":
        save_with_dictionary(content, tmp_path / "old.pt")
    else:
        save(content, tmp_path / "old.pt")
        (tmp_path / "dict.ltr.txt").write_text("".join(f"{letter} 7\n" for letter in LETTERS[4:]))
    assert run_here(["convert", tmp_path / "old.pt", tmp_path / "out"]) == 0
    model, info = load_recognizer(tmp_path / "out")
    assert info.letters is not None
    assert info.letters.symbols == ("<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvk'xjqz")
    tensors = content["model"]
    with torch.no_grad():
        expected = case.tensors["features"] @ tensors["w2v_encoder.proj.weight"].T + tensors["w2v_encoder.proj.bias"]
        assert relative_error(model(case.tensors["source"]).logits_BTV, expected) < 1e-5
    heard = data2vec2.transcribe(tmp_path / "out", real_inputs(tmp_path / "recordings", "audio"))
    assert all(one.text is not None for one in heard)
    there_and_back(tmp_path, content)
    written = (tmp_path / "back" / "dict.ltr.txt").read_text().splitlines()
    assert [line.split()[0] for line in written] == list(LETTERS[4:])


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_model_of_glue(files: Path, outputs: int, cases: dict[str, GoldenCase]) -> None:
    case, content = cases["text"], finetuned(cases["text"], outputs)
    source = save(content, files / "old.pt")
    with pytest.raises(UserError, match="--pretrained names"):
        data2vec2.convert(source, files / "out")
    before = save(pretrained(case), files / "pretrained.pt")
    assert run_here(["convert", source, files / "out", "--pretrained", before]) == 0
    model, info = load_classifier(files / "out")
    assert (info.regression, info.pooling) == (outputs == 1, "first")
    tensors = content["model"]
    with torch.no_grad():
        first = case.tensors["features"][:, 0]
        dense = (
            first @ tensors["classification_heads.rte.dense.weight"].T + tensors["classification_heads.rte.dense.bias"]
        )
        out = tensors["classification_heads.rte.out_proj.weight"], tensors["classification_heads.rte.out_proj.bias"]
        assert relative_error(model(case.tensors["source"]), dense.tanh() @ out[0].T + out[1]) < 1e-5
    assert len(list(data2vec2.predict(files / "out", real_inputs(files / "inputs", "text")))) == 2
    there_and_back(files, content)


def there_and_back(folder: Path, content: dict[str, Any]) -> None:
    """The folder's `out` gives the file that it was made of."""
    (folder / "back").mkdir()
    data2vec2.convert(folder / "out", folder / "back" / "new.pt", to="fairseq")
    new = read_checkpoint(folder / "back" / "new.pt")
    assert same(new["model"], content["model"]) and same(new["cfg"], content["cfg"])


def test_our_own_run_as_a_checkpoint_of_the_original(tmp_path: Path) -> None:
    data, run = small_npz(tmp_path / "small.npz"), tmp_path / "run"
    flags = words("--train.updates 2 --train.eval-every 0 --train.batch-size 8 --model.loss.beta 0.5")
    assert run_here(["pretrain", "image_tiny", data, "--out", run, *SMALL, *flags]) == 0
    assert run_here(["convert", run, tmp_path / "new.pt", "--to", "fairseq"]) == 0
    assert run_here(["convert", tmp_path / "new.pt", tmp_path / "out"]) == 0
    config = read_run_config(yaml.safe_load((run / "config.yaml").read_text()))
    again = read_run_config(yaml.safe_load((tmp_path / "out" / "pretraining.yaml").read_text()))
    assert (again.model, again.ema) == (config.model, config.ema)
    ours = load_file(run / "checkpoints" / "step-2" / "model.safetensors")
    beside, exported = load_file(tmp_path / "out/original.safetensors"), load_file(tmp_path / "out/model.safetensors")
    for name, tensor in ours.items():
        found = exported.get(name.replace("student.", "encoder."), beside.get(name))
        assert found is not None and torch.equal(found, tensor), name
    mean = [json.loads((f / "preprocessor_config.json").read_text()) for f in (run / "exported", tmp_path / "out")]
    assert mean[0] == mean[1]
    # The export alone has neither decoder nor teacher; it becomes a file with the encoder, and that an export.
    assert run_here(["convert", run / "exported", tmp_path / "encoder.pt", "--to", "fairseq"]) == 0
    assert "_ema" not in read_checkpoint(tmp_path / "encoder.pt")["model"]
    assert run_here(["convert", tmp_path / "encoder.pt", tmp_path / "encoder"]) == 0
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        assert (tmp_path / "encoder" / name).read_bytes() == (run / "exported" / name).read_bytes()
    assert not (tmp_path / "encoder" / "pretraining.yaml").exists(), "nothing is known of an objective"


def test_the_factor_of_our_token_embeddings_becomes_a_part_of_them(tmp_path: Path) -> None:
    texts, run = tmp_path / "texts.txt", tmp_path / "run"
    texts.write_text("A reader reads what a writer writes.\n\n" * 200)
    flags = words("--train.updates 2 --train.eval-every 0 --train.batch-size 4 --model.modality.vocab-size 300")
    assert run_here(["pretrain", "text_tiny", texts, "--out", run, *SMALL, *flags]) == 0
    assert run_here(["convert", run, tmp_path / "new.pt", "--to", "fairseq"]) == 0
    weights = load_file(run / "exported" / "model.safetensors")
    for name, factor in (("tokens", 50), ("positions", 1)):
        ours = weights[f"encoder.modality.stem.{name}.weight"]
        theirs = read_checkpoint(tmp_path / "new.pt")["model"][
            f"modality_encoders.TEXT.local_encoder.embed_{name}.weight"
        ]
        assert torch.equal(theirs, factor * ours)


def test_our_own_recogniser_as_a_checkpoint_of_the_original(tmp_path: Path, cases: dict[str, GoldenCase]) -> None:
    """Its outputs stand in the original's order, which has more special symbols; they are never said."""
    case, letters = cases["audio"], Letters.of(["ab cab"])
    info = ModelInfo(model=case.config, data=get_recipe("audio_base").data, letters=letters)
    model = SpeechRecognizer(case.model.student, len(letters)).eval()
    export_model(model, info, tmp_path / "ours", "")
    data2vec2.convert(tmp_path / "ours", tmp_path / "new.pt", to="fairseq")
    data2vec2.convert(tmp_path / "new.pt", tmp_path / "again")
    again, found = load_recognizer(tmp_path / "again")
    assert found.letters is not None and found.letters.symbols == ("<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", "c")
    with torch.no_grad():
        a, b = (m(case.tensors["source"]).logits_BTV for m in (model, again))
    assert torch.allclose(a, b[..., [0, 4, 3, 5, 6, 7]], atol=1e-6)
    assert (b[..., 1:3] < -9_000).all()


def test_a_checkpoint_in_full_size(tmp_path: Path) -> None:
    """image_base: every name and shape of the released file, student, decoder and teacher."""
    manifest = json.loads((GOLDEN / "manifests" / "image_base.json").read_text())
    parts = [{name: torch.zeros(shape) for name, shape in manifest[part].items()} for part in ("state_dict", "ema")]
    for part in parts:
        part[keys.POSITIONS] = sincos_2d(768, (14, 14))[None].half().float()
    own = {"prenet_depth": 2, "mask_prob": 0.8, "mask_prob_adjust": 0.07, "mask_length": 3, "inverse_mask": True}
    decoder = {"decoder_dim": 768, "decoder_groups": 16, "decoder_kernel": 3, "decoder_layers": 6, "input_dropout": 0.0}
    model = {"embed_dim": 768, "num_heads": 12, "depth": 10, "norm_eps": 1e-6, "clone_batch": 16, "cls_loss": 0.01}
    model |= {"encoder_dropout": 0.0, "attention_dropout": 0.0, "average_top_k_layers": 10, "layer_norm_targets": True}
    model |= {"instance_norm_target_layer": True, "ema_decay": 0.9998, "ema_end_decay": 0.99999}
    model |= {"ema_anneal_end_step": 100000, "modalities": {"image": {**own, "decoder": decoder}}}
    cfg = {"model": model, "task": {"_name": "mae_image_pretraining"}, "dataset": {"batch_size": 16}}
    source = save(file_of({**parts[0], "_ema": parts[1]}, cfg), tmp_path / "base_imagenet.pt")
    del parts
    data2vec2.convert(source, tmp_path / "out")
    run = read_run_config(yaml.safe_load((tmp_path / "out" / "pretraining.yaml").read_text()))
    assert run == get_recipe("image_base")
    data2vec2.convert(tmp_path / "out", tmp_path / "new.pt", to="fairseq")
    found = read_checkpoint(tmp_path / "new.pt")["model"]
    ema = found.pop("_ema")
    assert {name: list(t.shape) for name, t in found.items()} == manifest["state_dict"]
    assert {name: list(t.shape) for name, t in ema.items()} == manifest["ema"]


class Program:
    """What a hostile file would run on reading."""

    def __reduce__(self) -> tuple[Any, ...]:
        return shutil.copy, ("old.pt", "hostile-file-ran")


class Stranger:
    """An object of another program."""

    def __init__(self) -> None:
        self.number = 3


def test_objects_are_named_and_read_as_plain_values_if_allowed(
    tmp_path: Path, cases: dict[str, GoldenCase], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {**pretrained(cases["image"]), "task_state": {"x": Stranger(), "y": Program()}}
    source = save(content, tmp_path / "old.pt")
    name = f"{Stranger.__module__}.Stranger"
    with pytest.raises(UserError, match=f"object of {name}.*--allow {name}"):
        data2vec2.convert(source, tmp_path / "out")
    with pytest.raises(UserError, match=r"object of shutil\.copy"):
        data2vec2.convert(source, tmp_path / "out", allow=[name])
    assert not (tmp_path / "out").exists()
    assert run_here(["convert", source, tmp_path / "out", "--allow", name, "shutil.copy"]) == 0
    found = read_checkpoint(source, [name, "shutil.copy"])["task_state"]
    assert isinstance(found["x"], StandIn) and found["x"].state == {"number": 3}
    assert found["y"].state == {"arguments": ["old.pt", "hostile-file-ran"]}
    assert not (tmp_path / "hostile-file-ran").exists()
    save({**content, "task_state": {"y": os.system}}, source)
    with pytest.raises(UserError, match=r"calls posix\.system: it is a program in disguise"):
        data2vec2.convert(source, tmp_path / "second", allow=["posix.system"])


def broken(what: str, case: GoldenCase, path: Path) -> tuple[str, str]:
    """Write a file that can't be converted at a path; returns what is said of it, and more arguments."""
    content = pretrained(case)
    model, cfg = content["model"], content["cfg"]
    said = "is not there"
    if what == "html":
        path.write_text("<!DOCTYPE html>\n<html>Not found</html>")
        return "is a web page", ""
    if what in ("text", "empty"):
        path.write_text("not a checkpoint" * (what == "text"))
        return "can't be read as a checkpoint", ""
    if what == "cut short":
        save(content, path)
        path.write_bytes(path.read_bytes()[:20_000])
        return "damaged or cut short", ""
    if what == "missing key":
        del model["blocks.1.attn.qkv.weight"]
        said = r"lacks blocks\.1\.attn\.qkv\.weight; it must be"
    elif what == "missing decoder":
        del model["modality_encoders.IMAGE.decoder.proj.bias"]
        said = "lacks modality_encoders.IMAGE.decoder.proj.bias"
    elif what == "missing in the teacher":
        del model["_ema"]["blocks.0.norm1.bias"], model["_ema"]["blocks.0.norm1.weight"]
        said = r"lacks _ema\.blocks\.0\.norm1\..* and 1 more"
    elif what == "unexpected key":
        model["modality_encoders.IMAGE.surprise"] = torch.zeros(1)
        said = "unknown key 'modality_encoders.IMAGE.surprise'"
    elif what == "unexpected block":
        model["blocks.7.norm1.bias"] = torch.zeros(48)
        said = "has unexpected blocks.7.norm1.bias"
    elif what == "shape":
        model["blocks.0.norm1.bias"] = torch.zeros(47)
        said = r"blocks\.0\.norm1\.bias has shape \[47\], and by its configuration \[48\]"
    elif what == "positions":
        model[keys.POSITIONS] = model[keys.POSITIONS] + 1
        said = "is not the 2-D sine-cosine table"
    elif what == "no configuration":
        content["cfg"] = None
        said = "--pretrained names"
    elif what == "configuration lacks":
        del cfg["model"]["num_heads"]
        said = "cfg has no model.num_heads"
    elif what == "pre-norm":
        cfg["model"]["layer_norm_first"] = True
        said = "model.layer_norm_first is True, and only False can be converted"
    elif what == "first version":
        content["model"] = {"encoder.layers.0.fc1.weight": torch.zeros(2, 2)}
        content["cfg"] = {"model": {"_name": "data2vec_audio"}}
        said = r"not a data2vec 2\.0 model.*data2vec_audio \(version 1 of data2vec\)"
    elif what == "wav2vec 2":
        content["model"] = {"w2v_encoder.w2v_model.feature_extractor.conv_layers.0.0.weight": torch.zeros(2, 2)}
        said = r"not a data2vec 2\.0 model.*wav2vec 2\.0"
    elif what == "no model":
        del content["model"]
        said = "holds no `model` with named tensors"
    elif what == "a list":
        save([1, 2], path)  # type: ignore[arg-type]
        return "holds a list", ""
    elif what == "program":
        content["extra_state"] = Program()
        said = "can't be read as a checkpoint: it holds an object of shutil.copy"
    elif what == "no teacher":
        del model["_ema"]
        save(content, path)
        return "has no teacher", "--weights teacher"
    if what != "nothing":
        save(content, path)
    return said, ""


BROKEN = (
    *words("nothing html text empty shape positions program"),
    *("cut short", "missing key", "missing decoder", "missing in the teacher", "unexpected key", "unexpected block"),
    *("no configuration", "configuration lacks", "pre-norm", "first version", "wav2vec 2", "no model", "a list"),
    "no teacher",
)


@pytest.mark.parametrize("what", BROKEN)
def test_what_can_not_be_converted_is_explained(
    tmp_path: Path,
    what: str,
    cases: dict[str, GoldenCase],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said, more = broken(what, cases["image"], tmp_path / "old.pt")
    assert run_here(["convert", "old.pt", "out", *words(more)]) == 1
    message = capsys.readouterr().err
    assert "old.pt" in message
    with pytest.raises(UserError, match=said):
        raise UserError(message)
    assert {path.name for path in tmp_path.iterdir()} <= {"old.pt"}


def test_mistakes_beside_the_file(files: Path, cases: dict[str, GoldenCase]) -> None:
    text, audio = save(pretrained(cases["text"]), files / "text.pt"), files / "audio.pt"
    save(finetuned(cases["audio"], len(LETTERS)), audio)
    image = save(finetuned(cases["image"], 3), files / "image.pt")
    with pytest.raises(UserError, match="32 outputs, and nothing says which letters; --vocabulary"):
        data2vec2.convert(audio, files / "out")
    (files / "dict.ltr.txt").write_text("| 1\nE 1\n")
    with pytest.raises(UserError, match="the vocabulary has 6 symbols"):
        data2vec2.convert(audio, files / "out")
    (files / "names.txt").write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"--classes has 2 lines, and .* 3 outputs"):
        data2vec2.convert(image, files / "out", classes=files / "names.txt")
    (files / "dict.txt").write_text("1 1\n2 1\n")
    with pytest.raises(UserError, match=r"the tokenizer in .* has 7 entries, and the model 128"):
        data2vec2.convert(text, files / "out")
    (files / "vocab.bpe").unlink()
    with pytest.raises(UserError, match=r"needs its tokenizer: vocab\.bpe is not in"):
        data2vec2.convert(text, files / "out")
    with pytest.raises(UsageError, match=r"--classes is for classifiers, and .*audio\.pt is none"):
        data2vec2.convert(audio, files / "out", classes=files / "names.txt")
    with pytest.raises(UsageError, match=r"--vocabulary is for .*, and .*image\.pt is neither"):
        data2vec2.convert(image, files / "out", vocabulary=files)
    (files / "out").mkdir()
    with pytest.raises(UserError, match="out exists; give a new folder"):
        data2vec2.convert(image, files / "out")
    shutil.rmtree(files / "out")
    data2vec2.convert(image, files / "out")
    with pytest.raises(UserError, match=r"text\.pt exists; give a new file"):
        data2vec2.convert(files / "out", text, to="fairseq")
    with pytest.raises(UserError, match="is not an exported model"):
        data2vec2.convert(files, files / "new.pt", to="fairseq")
    unused = {"weights": "teacher", "vocabulary": files, "classes": files, "pretrained": text, "allow": ("a.b",)}
    for name, value in unused.items():
        with pytest.raises(UsageError, match=f"--{name} is for checkpoints of the original"):
            data2vec2.convert(files / "out", files / "new.pt", to="fairseq", **{name: value})
    assert not list(files.glob(".*"))
    assert pretraining_cfg(cases["text"])["model"]["num_heads"] == 4
