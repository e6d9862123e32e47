"""Against tensors of the authors' model."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForPreTraining

from data2vec2.interop.fairseq import keys
from data2vec2.modalities import get_recipe
from data2vec2.training.optim import Ema
from tests.parity.cases import GOLDEN, GoldenCase, build, relative_error, subsample

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["image_tiny", "audio_tiny", "text_tiny"])
def tiny(request: pytest.FixtureRequest) -> GoldenCase:
    return GoldenCase(request.param)


@pytest.fixture(scope="module", params=["image_base_full", "audio_base_full", "text_base_full"])
def base(request: pytest.FixtureRequest) -> GoldenCase:
    return GoldenCase(request.param)


def test_against_golden_features(tiny: GoldenCase) -> None:
    with torch.no_grad():
        encoded = tiny.model.student.eval()(tiny.tensors["source"])
    assert relative_error(encoded.features_NTD, tiny.tensors["features"]) < TOLERANCE
    trunk = encoded.ffn_outputs[tiny.config.encoder.prenet_depth :]
    assert len(trunk) == 3
    for i, ffn in enumerate(trunk):
        assert relative_error(ffn, tiny.tensors[f"layer_results.{i}"]) < TOLERANCE


def test_golden_features_and_loss_through_transformers(
    tiny: GoldenCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the encoder, and of the model that pre-trains, both saved and loaded."""
    kind = tiny.info["config"]["modality"].lower()
    run = replace(get_recipe(f"{kind}_tiny"), model=tiny.config)
    model = AutoModelForPreTraining.from_config(CONFIG_MAPPING[f"data2vec2-{kind}"].from_run_config(run))
    names = {
        f"encoder.{n.removeprefix('student.')}" if n.startswith("student.") else n: n for n in tiny.model.state_dict()
    }
    weights = tiny.model.state_dict()
    missing, unexpected = model.load_state_dict({n: weights[ours] for n, ours in names.items()}, strict=False)
    assert set(missing) == {"passes", "teacher_updates"} and not unexpected
    model.save_pretrained(tmp_path)
    inputs = tiny.tensors["source"]
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path)(inputs)
        extra = output.last_hidden_state.shape[1] - tiny.tensors["features"].shape[1]
        assert relative_error(output.last_hidden_state[:, extra:], tiny.tensors["features"]) < TOLERANCE
        loaded = AutoModelForPreTraining.from_pretrained(tmp_path).train()
        monkeypatch.setattr(type(loaded), "_keep_ids", lambda *_: tiny.keep_ids())
        assert loaded(inputs).loss.item() == pytest.approx(tiny.info["loss"], rel=TOLERANCE)


def test_against_golden_step(tiny: GoldenCase) -> None:
    model = tiny.model.train()
    keep_ids = tiny.keep_ids()
    student = model.student(tiny.tensors["source"], keep_ids_NK=keep_ids)
    assert relative_error(model.decode(student, keep_ids), tiny.tensors["decoder_output"]) < TOLERANCE

    out = model(tiny.tensors["source"], keep_ids)
    assert relative_error(out.targets_BTD, tiny.tensors["targets"]) < TOLERANCE
    rows, info = out.num_rows, tiny.info
    assert (out.loss / rows).item() == pytest.approx(info["loss"], rel=TOLERANCE)
    regression = info["losses"][f"{info['config']['modality'].upper()}_regression"]
    assert out.regression.item() == pytest.approx(regression, rel=TOLERANCE)
    weight = tiny.config.loss.cls_loss_weight
    assert weight * out.cls.item() == pytest.approx(info["losses"].get("cls", 0.0), rel=TOLERANCE)

    model.zero_grad()
    (out.loss / rows).backward()
    parameters = dict(model.named_parameters())
    compared = 0
    for name, norm in info["grad_norms"].items():
        grad = parameters[tiny.our_name(name)].grad
        assert grad is not None
        assert relative_error(grad, tiny.tensors[f"grad.{name}"].view_as(grad)) < TOLERANCE, name
        assert grad.norm().item() == pytest.approx(norm, rel=TOLERANCE)
        compared += 1
    assert compared == sum(p.requires_grad for p in parameters.values())


@pytest.mark.parametrize("name", ["image_tiny", "audio_tiny", "text_tiny"])
def test_against_golden_teacher_after_one_step(name: str) -> None:
    case = GoldenCase(name)
    model = case.model.train()
    out = model(case.tensors["source"], case.keep_ids())
    (out.loss / out.num_rows).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    ema_config = case.info["config"]["model"]
    ema = Ema(
        model.teacher,
        model.student,
        start=ema_config["ema_decay"],
        end=ema_config["ema_end_decay"],
        anneal_updates=ema_config["ema_anneal_end_step"],
    )
    assert ema.decay(1) == pytest.approx(case.info["ema_decay_at_1"], abs=1e-12)
    ema.update(1)
    teacher = dict(model.named_parameters())
    names = [n.removeprefix("ema_after.") for n in case.tensors if n.startswith("ema_after.")]
    names = [n for n in names if n != keys.POSITIONS]
    assert len(names) == sum(1 for _ in model.teacher.parameters())
    for name in names:
        ours = teacher[case.our_name(name, "teacher")]
        assert relative_error(ours, case.tensors[f"ema_after.{name}"].view_as(ours)) < 1e-6, name


def test_against_golden_base_size(base: GoldenCase) -> None:
    source, model = base.full_source(), base.model
    with torch.no_grad():
        features = model.student.eval()(source).features_NTD
    assert relative_error(subsample(features), base.tensors["features"]) < TOLERANCE
    model.train()
    out = model(source, base.keep_ids())
    assert relative_error(subsample(out.targets_BTD), base.tensors["targets"]) < TOLERANCE
    with torch.no_grad():
        decoded = model.decode(out.student, base.keep_ids())
    assert relative_error(subsample(decoded), base.tensors["decoder_output"]) < TOLERANCE
    assert (out.loss / out.num_rows).item() == pytest.approx(base.info["loss"], rel=TOLERANCE)
    (out.loss / out.num_rows).backward()
    parameters = dict(model.named_parameters())
    for name, norm in base.info["grad_norms"].items():
        grad = parameters[base.our_name(name)].grad
        assert grad is not None
        assert grad.norm().item() == pytest.approx(norm, rel=TOLERANCE), name


@pytest.mark.parametrize(
    "recipe", ["image_base", "image_large", "image_huge14", "audio_base", "audio_large", "text_base"]
)
def test_every_released_key_has_a_place(recipe: str) -> None:
    manifest = json.loads((GOLDEN / "manifests" / f"{recipe}.json").read_text())
    config = get_recipe(recipe).model
    with torch.device("meta"):
        model = build(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {}
    for encoder, part in (("student", "state_dict"), ("teacher", "ema")):
        for name, shape in manifest[part].items():
            if name != keys.POSITIONS:
                ours = keys.our_name(name, config.modality.kind, encoder, config.encoder.prenet_depth)
                found[ours] = (math.prod(shape),) if ours.endswith("alibi_scale_H") else tuple(shape)
    assert found == expected
    positions = sum(shape[1] * shape[2] for name, shape in manifest["state_dict"].items() if name == keys.POSITIONS)
    ours = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("teacher."))
    assert ours + positions == manifest["total_parameters"]


def test_against_golden_features_of_a_clip_alone_and_in_a_batch() -> None:
    """The second clip, cut short: alone, and filled up in a batch with the first."""
    case, short = GoldenCase("audio_tiny"), GoldenCase("audio_tiny_short")
    student, clip = case.model.student.eval(), short.tensors["source"]
    golden = short.tensors["features"]
    with torch.no_grad():
        assert relative_error(student(clip).features_NTD, golden) < TOLERANCE
        both = case.tensors["source"].clone()
        both[1, clip.shape[1] :] = 1e3  # whatever stands there
        lengths = torch.tensor([both.shape[1], clip.shape[1]])
        padded = student(both, lengths_B=lengths)
        alone = student(clip).features_NTD
        assert relative_error(padded.features_NTD[1:, : golden.shape[1]], golden) < TOLERANCE
        assert (padded.features_NTD[1:, : golden.shape[1]] - alone).abs().max() < 1e-5
        assert torch.allclose(padded.pooled()[1], alone.mean(1)[0], atol=1e-5)


def test_against_golden_features_of_padded_text() -> None:
    case = GoldenCase("text_tiny_padded")
    student, ids, golden = case.model.student.eval(), case.tensors["source"], case.tensors["features"]
    lengths = (ids != case.config.modality.pad_id).sum(1)
    assert len(set(lengths.tolist()) - {ids.shape[1]}) > 0
    with torch.no_grad():
        together = student(ids, lengths_B=lengths)
        assert torch.equal(together.tokens.padding_BT, case.tensors["features_padding_mask"].bool())
        for row, length in enumerate(lengths.tolist()):
            assert relative_error(together.features_NTD[row, :length], golden[row, :length]) < TOLERANCE
            alone = student(ids[row : row + 1, :length])
            assert (together.features_NTD[row, :length] - alone.features_NTD[0]).abs().max() < 1e-5
            assert torch.allclose(together.pooled()[row], alone.pooled()[0], atol=1e-5)
