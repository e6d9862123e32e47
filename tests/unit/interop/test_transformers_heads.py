"""Fine-tuned exports as Transformers models: the same logits and losses, and what can be seen of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from data2vec2.config.model import ModelConfig
from data2vec2.data.letters import UNKNOWN, Letters
from data2vec2.errors import UsageError
from data2vec2.interop.folder import export_model, load_classifier, load_recognizer
from data2vec2.method import losses
from data2vec2.method.heads import Classifier, Pooling, SpeechRecognizer
from data2vec2.modalities.audio.config import AudioConfig, AudioDataConfig
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.image.config import ImageDataConfig
from data2vec2.modalities.text.config import TextConfig, TextDataConfig
from data2vec2.modalities.text.tokenizer import save_tokenizer, train_tokenizer
from tests.unit.interop.conftest import export, make_encoder, small_config

CLASSES = ("cat", "dog", "naïve bird")
IMAGES = ImageDataConfig(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
AUTO = {
    "image": AutoModelForImageClassification,
    "audio": AutoModelForAudioClassification,
    "text": AutoModelForSequenceClassification,
}


class Case(NamedTuple):
    """A classifier, its export, and inputs for both."""

    model: Classifier
    folder: Path
    ours: tuple[Tensor, ...]
    theirs: dict[str, Tensor]


def config_of(kind: str) -> ModelConfig:
    if kind == "audio":
        modality = AudioConfig(stem="mel", position_depth=2, position_groups=4)
    elif kind == "text":
        modality = TextConfig(vocab_size=300, max_tokens=16)
    else:
        return small_config()
    return replace(small_config(), modality=modality)


def inputs_of(kind: str) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """A batch, of sounds and texts with padding, as our model takes it and as Transformers' does."""
    draw = torch.Generator().manual_seed(1)
    if kind == "image":
        pictures = torch.randn(2, 3, 24, 24, generator=draw)
        return (pictures,), {"pixel_values": pictures}
    lengths = torch.tensor([5_000, 3_300]) if kind == "audio" else torch.tensor([9, 5])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    if kind == "audio":
        waveforms = torch.randn(2, 5_000, generator=draw) * mask
        return (waveforms, lengths), {"input_values": waveforms, "attention_mask": mask.long()}
    ids = torch.randint(4, 300, (2, 9), generator=draw).masked_fill(~mask, 1)
    return (ids, lengths), {"input_ids": ids, "attention_mask": mask.long()}


def tokenizer_folder(folder: Path) -> Path:
    save_tokenizer(train_tokenizer(["what a noun stands for"] * 3, 300), folder)
    return folder


def make_case(kind: str, tmp_path: Path, pooling: Pooling = "mean", multi_label: bool = False) -> Case:
    config = config_of(kind)
    model = Classifier(make_encoder(config), 3, pooling=pooling).eval()
    for parameter in (model.head.weight, model.head.bias):
        torch.nn.init.normal_(parameter)
    data = {"image": IMAGES, "audio": AudioDataConfig(), "text": TextDataConfig()}[kind]
    if isinstance(data, TextDataConfig):
        data = TextDataConfig(tokenizer=str(tokenizer_folder(tmp_path / "tokenizer")))
    info = ModelInfo(model=config, data=data, classes=CLASSES, multi_label=multi_label, pooling=pooling)
    export_model(model, info, tmp_path / "out", "# A classifier\n")
    return Case(model, tmp_path / "out", *inputs_of(kind))


@pytest.fixture(params=["image", "audio", "text"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return make_case(request.param, tmp_path)


def load(case: Case, **options: object) -> PreTrainedModel:
    return AUTO[case.model.encoder.modality.config.kind].from_pretrained(case.folder, **options)


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_an_exported_classifier_says_the_same(case: Case, tmp_path: Path) -> None:
    model, report = load(case, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.config.id2label == dict(enumerate(CLASSES))
    with torch.no_grad():
        expected = case.model(*case.ours)
        output = model(**case.theirs, labels=torch.tensor([2, 0]))
        loss_, logits = model(**case.theirs, labels=torch.tensor([2, 0]), return_dict=False)
    assert torch.equal(output.logits, expected)
    loss = torch.nn.functional.cross_entropy(expected, torch.tensor([2, 0]))
    torch.testing.assert_close(output.loss, loss)
    assert output.hidden_states is None and output.attentions is None
    assert model(**case.theirs).loss is None
    assert torch.equal(logits, output.logits) and torch.equal(loss_, output.loss)

    model.save_pretrained(tmp_path / "again", max_shard_size="20KB")
    assert len(list((tmp_path / "again").glob("*.safetensors"))) > 1
    again = type(model).from_pretrained(tmp_path / "again")
    ours, theirs = dict(model.named_buffers()), dict(again.named_buffers())
    assert ours.keys() == theirs.keys()
    for name, tensor in (ours | dict(model.named_parameters())).items():
        assert torch.equal(tensor, (theirs | dict(again.named_parameters()))[name]), name
    with torch.no_grad():
        assert torch.equal(again(**case.theirs).logits, expected)


@pytest.mark.parametrize(("kind", "pooling"), [("audio", "linear_softmax"), ("text", "first")])
def test_other_poolings_and_several_classes(kind: str, pooling: Pooling, tmp_path: Path) -> None:
    case = make_case(kind, tmp_path, pooling, multi_label=True)
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    output = load(case)(**case.theirs, labels=targets)
    assert torch.equal(output.logits, case.model(*case.ours))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, targets)
    torch.testing.assert_close(output.loss, expected)


def test_what_is_saved_by_transformers_is_read_here(case: Case, tmp_path: Path) -> None:
    model = load(case)
    model.save_pretrained(tmp_path / "again")
    for name in ("preprocessor_config.json", "tokenizer.json"):
        if (case.folder / name).is_file():
            (tmp_path / "again" / name).write_bytes((case.folder / name).read_bytes())
    loaded, info = load_classifier(tmp_path / "again")
    assert info.classes == CLASSES and not info.multi_label
    assert torch.equal(loaded(*case.ours), case.model(*case.ours))


def test_a_number_of_a_text(tmp_path: Path) -> None:
    case = make_case("text", tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        case.folder, num_labels=1, problem_type="regression", ignore_mismatched_sizes=True
    ).eval()
    numbers = torch.tensor([0.5, -2.0])
    output = model(**case.theirs, labels=numbers)
    assert output.logits.shape == (2, 1)
    torch.testing.assert_close(output.loss, ((output.logits[:, 0] - numbers) ** 2).mean())


def test_the_kind_of_labels_is_remembered(exported: Path, pictures: Tensor) -> None:
    kinds = {"single_label_classification": torch.tensor([0, 1]), "multi_label_classification": torch.zeros(2, 3)}
    for kind, labels in kinds.items():
        model = AutoModelForImageClassification.from_pretrained(exported, num_labels=3)
        model(pictures, labels=labels)
        assert model.config.problem_type == kind
    with pytest.raises(ValueError, match="pooling is 'median'"):
        AutoModelForImageClassification.from_pretrained(exported, pooling="median")


def test_labels_of_another_kind_are_refused(case: Case) -> None:
    """By the kind that the export says, whatever number of outputs is asked for."""
    for options, labels in (
        ({}, torch.tensor([[1.0, 0, 0], [0, 1, 1]])),
        ({"problem_type": "multi_label_classification"}, torch.tensor([2, 0])),
        ({"num_labels": 1}, torch.tensor([0, 0])),
    ):
        model = load(case, ignore_mismatched_sizes=True, **options)
        with pytest.raises(UsageError, match=r"labels of shape .* give from_pretrained another problem_type"):
            model(**case.theirs, labels=labels)


def test_hidden_states_and_attention(case: Case) -> None:
    model, sdpa = load(case, attn_implementation="eager"), load(case)
    assert sdpa.config._attn_implementation == "sdpa"
    with torch.no_grad():
        output = model(**case.theirs, output_attentions=True, output_hidden_states=True)
        plain = sdpa(**case.theirs, output_hidden_states=True)
        same = sdpa(**case.theirs, output_attentions=True)
    torch.testing.assert_close(output.logits, plain.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(same.logits, plain.logits, atol=1e-4, rtol=1e-4)
    assert len(plain.hidden_states) == 1 + 3 and len(output.attentions) == 3
    for weights, others in zip(output.attentions, same.attentions, strict=True):
        tokens = plain.hidden_states[0].shape[1]
        assert weights.shape == (2, 2, tokens, tokens)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, tokens))
        torch.testing.assert_close(weights, others)
    if "attention_mask" in case.theirs:  # nobody looks at what only fills up
        assert output.attentions[0][1, :, :, -1].abs().max() == 0
    with torch.no_grad():
        assert torch.equal(sdpa(**case.theirs).logits, plain.logits)  # as before


def test_gradient_checkpointing_changes_nothing(case: Case) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = load(case).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            with pytest.raises(ValueError, match="gradient checkpointing"):
                model(**case.theirs, output_attentions=True)
        calls = []
        model.encoder.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023
        model(**case.theirs, labels=torch.tensor([1, 0])).loss.backward()
        assert len(calls) == 1 + checkpointing
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_bfloat16(case: Case) -> None:
    model = load(case, dtype=torch.bfloat16)
    logits = model(**case.theirs).logits
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.usefixtures("garbage_in_new_tensors")
def test_a_new_head_on_an_exported_encoder(exported: Path, encoder: torch.nn.Module) -> None:
    model, report = AutoModelForImageClassification.from_pretrained(exported, num_labels=5, output_loading_info=True)
    assert set(report["missing_keys"]) == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    assert torch.equal(model.norm.weight, torch.ones(16)) and torch.equal(model.classifier.bias, torch.zeros(5))
    assert 0.01 < model.classifier.weight.std() < 0.03


LETTERS = Letters.of(["it's a dog"])


@pytest.fixture
def recognizer(tmp_path: Path) -> SpeechRecognizer:
    config = config_of("audio")
    model = SpeechRecognizer(make_encoder(config), len(LETTERS)).eval()
    info = ModelInfo(model=config, data=AudioDataConfig(), letters=LETTERS)
    export_model(model, info, tmp_path / "out", "# A recogniser\n")
    return model


def test_an_exported_recogniser_says_the_same(recognizer: SpeechRecognizer, tmp_path: Path) -> None:
    ours, theirs = inputs_of("audio")
    model, report = AutoModelForCTC.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    texts = [LETTERS.encode("a dog"), LETTERS.encode("it")]
    labels = torch.full((2, 6), -100)
    for row, ids in zip(labels, texts, strict=True):
        row[: len(ids)] = torch.from_numpy(ids)
    expected = recognizer(*ours)
    output = model(**theirs, labels=labels)
    assert torch.equal(output.logits, expected.logits_BTV)
    lengths = torch.tensor([len(ids) for ids in texts])
    loss = losses.ctc(expected.logits_BTV, expected.num_tokens_B, labels.clamp(min=0), lengths).loss / 2
    torch.testing.assert_close(output.loss, loss)
    assert loss > 1
    torch.testing.assert_close(model(**theirs, labels=labels.clamp(min=0)).loss, loss)  # filled up with blank
    with pytest.raises(ValueError, match="label 99"):
        model(**theirs, labels=torch.full((2, 6), 99))
    assert model.config.inputs_to_logits_ratio == 320
    model.save_pretrained(tmp_path / "again")
    for name in ("preprocessor_config.json", "vocab.json"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "out" / name).read_bytes())
    loaded, info = load_recognizer(tmp_path / "again")
    assert info.letters == LETTERS
    assert torch.equal(loaded(*ours).logits_BTV, expected.logits_BTV)


def test_letters_must_be_counted(recognizer: SpeechRecognizer, tmp_path: Path) -> None:
    config = AutoModel.from_pretrained(tmp_path / "out").config
    config.vocab_size = None
    with pytest.raises(ValueError, match="vocab_size"):
        AutoModelForCTC.from_config(config)


def test_a_tokenizer_of_letters_decodes_as_we_do_without_the_unknown(
    recognizer: SpeechRecognizer, tmp_path: Path
) -> None:
    from data2vec2.evaluation.decoding import greedy

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    draw = np.random.default_rng(0)
    for _ in range(50):
        scores = draw.standard_normal((60, len(LETTERS))).astype(np.float32)
        scores[:, :2] += draw.integers(0, 3)  # more blanks and spaces than letters
        readable = LETTERS.decode(greedy(scores)[0].tolist()).replace(UNKNOWN, "")
        assert tokenizer.decode(scores.argmax(axis=1)) == " ".join(readable.split())
    assert tokenizer("a dog")["input_ids"] == LETTERS.encode("a dog").tolist()


def test_an_exported_tokenizer_gives_what_fine_tuning_sees(tmp_path: Path) -> None:
    case = make_case("text", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(case.folder)
    encoded = tokenizer("what a noun stands for " * 10, truncation=True, return_tensors="pt")
    assert set(encoded) == {"input_ids", "attention_mask"}
    ids = encoded.input_ids[0].tolist()
    assert len(ids) == 16 and (ids[0], ids[-1]) == (0, 2)
    output = load(case)(**encoded)
    assert torch.equal(output.logits, case.model(encoded.input_ids))


def test_a_bare_tokenizer_is_completed(tmp_path: Path) -> None:
    """One of the user's own without special tokens around texts and without a configuration beside it."""
    backend = train_tokenizer(["what a noun stands for"] * 3, 300)
    backend.post_processor = None
    backend.save(str(tmp_path / "tokenizer.json"))
    from data2vec2.modalities.text.tokenizer import export_tokenizer

    (tmp_path / "out").mkdir()
    export_tokenizer(tmp_path / "tokenizer.json", tmp_path / "out", 16)
    (tmp_path / "out" / "config.json").write_text('{"model_type": "data2vec2-text"}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(["a noun", "a"], ["stands", "for"], padding=True)["input_ids"]
    assert ids[0][0] == 0 and ids[0].count(2) == 3 and ids[1][-1] == tokenizer.pad_token_id == 1


def test_names_in_the_file_are_those_of_an_export(case: Case) -> None:
    assert set(load(case).state_dict()) == set(load_file(case.folder / "model.safetensors"))


def test_any_size_of_pictures(exported: Path, make_picture: Callable[..., Tensor]) -> None:
    model = AutoModelForImageClassification.from_pretrained(exported, num_labels=2)
    assert model(make_picture(32, 40)).logits.shape == (1, 2)


@pytest.fixture
def make_picture() -> Callable[..., Tensor]:
    return lambda height, width: torch.randn(1, 3, height, width)


def test_a_grey_model_and_its_processor(tmp_path: Path) -> None:
    from transformers import pipeline

    config = small_config(1)
    export(make_encoder(config), config, tmp_path / "out")
    features = pipeline("image-feature-extraction", model=str(tmp_path / "out"), device="cpu")
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    assert np.asarray(features(picture)).shape == (1, 10, 16)
