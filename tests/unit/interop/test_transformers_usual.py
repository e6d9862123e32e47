"""What users of Transformers expect of any model: names, a base model, embeddings, padding, arguments of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
    PreTrainedModel,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

import data2vec2
from data2vec2.errors import UsageError
from data2vec2.interop.folder import load_encoder
from data2vec2.modalities import spec_of
from data2vec2.modalities.audio.recipes import audio_tiny
from tests.unit.interop.test_transformers_heads import inputs_of, make_case
from tests.unit.interop.test_transformers_pretraining import inputs_of as new_inputs
from tests.unit.interop.test_transformers_pretraining import new_model

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_prenet_layers": 0, "num_attention_heads": 2}
OWN = {
    "image": {"image_size": 24, "patch_size": 8},
    "audio": {"stem": "waveform", "conv_dim": 8, "num_conv_pos_embedding_groups": 4, "vocab_size": 9},
    "text": {"vocab_size": 300, "max_position_embeddings": 16},
}
HEADS = {
    "image": AutoModelForImageClassification,
    "audio": AutoModelForAudioClassification,
    "text": AutoModelForSequenceClassification,
}
TEXT_HEADS = (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoModelForQuestionAnswering,
)
KINDS = pytest.mark.parametrize("kind", ["image", "audio", "text"])


def new(kind: str, auto: type = AutoModel, **options: object) -> PreTrainedModel:
    """A model with random weights."""
    return auto.from_config(AutoConfig.for_model(f"data2vec2-{kind}", **SHAPE, **OWN[kind], **options)).eval()


def test_fields_have_their_usual_names_and_the_older_ones() -> None:
    audio = data2vec2.Data2Vec2AudioConfig.from_model_config(audio_tiny().model)
    shape = audio_tiny().model.modality
    assert audio.sampling_rate == audio.sample_rate == shape.sample_rate
    assert tuple(audio.conv_kernel) == tuple(audio.conv_kernels) == shape.conv_kernels
    assert audio.num_conv_pos_embedding_groups == shape.position_groups
    text = data2vec2.Data2Vec2TextConfig(pad_id=3, max_tokens=20, hidden_dropout=0.25)
    assert (text.pad_token_id, text.bos_token_id, text.eos_token_id, text.max_position_embeddings) == (3, 0, 2, 20)
    assert text.pad_id == 3 and text.hidden_dropout_prob == 0.25
    text.pad_token_id = 1
    assert text.to_model_config().modality.pad_id == 1
    assert not set(text.to_dict()) & {"pad_id", "bos_id", "eos_id", "max_tokens"}
    image = data2vec2.Data2Vec2ImageConfig()
    assert (image.image_size, image.patch_size, image.num_channels, image.hidden_size) == (224, 16, 3, 768)
    assert (image.num_hidden_layers, image.num_attention_heads) == (10, 12)


@KINDS
def test_an_older_export_loads(kind: str, tmp_path: Path) -> None:
    """Its config.json has our names."""
    folder = make_case(kind, tmp_path).folder
    fields = json.loads((folder / "config.json").read_text())
    ours = spec_of(kind).config.usual_names
    older = {ours.get(name, name): value for name, value in fields.items()}
    assert (older == fields) == (kind == "image")
    before, info = HEADS[kind].from_pretrained(folder), load_encoder(folder)[1]
    (folder / "config.json").write_text(json.dumps(older))
    assert load_encoder(folder)[1] == info
    theirs = inputs_of(kind)[1]
    assert torch.equal(HEADS[kind].from_pretrained(folder)(**theirs).logits, before(**theirs).logits)


@KINDS
def test_freezing_the_base_model_leaves_the_head_to_learn(kind: str) -> None:
    model = new(kind, HEADS[kind], num_labels=3)
    assert model.base_model is model.encoder is getattr(model, model.base_model_prefix)
    model.base_model.requires_grad_(False)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {"norm.weight", "norm.bias", "classifier.weight", "classifier.bias"}
    assert not model.supports_tp_plan


@KINDS
def test_arguments_of_other_models_may_be_none(kind: str) -> None:
    model = new(kind)
    full = {model.main_input_name: new_inputs(kind)}
    others = {"inputs_embeds": None, "head_mask": None} | ({} if kind == "text" else {"input_ids": None})
    for any_model in (model, new(kind, HEADS[kind], num_labels=3), new_model(kind)):
        assert any_model(**full, **others)[0].isfinite().all()
        with pytest.raises(UsageError, match="position_ids can't"):
            any_model(**full, position_ids=torch.zeros(1))


@pytest.mark.parametrize("head", [AutoModel, *TEXT_HEADS])
def test_embeddings_in_place_of_ids(head: type) -> None:
    """They give what ids give, also where some are padding; padding in front, both and neither are refused."""
    model = new("text", head, **({"num_labels": 3} if head is not AutoModel else {})).eval()
    ids = torch.tensor([[0, 7, 8, 9, 2], [0, 9, 2, 1, 1]])
    embedded, mask = model.get_input_embeddings()(ids), (ids != 1).long()
    for given in ({}, {"attention_mask": mask}):
        rows = slice(None) if given else slice(1)  # without a mask nothing is padding
        expected = model(ids[rows])[0]
        found = model(inputs_embeds=embedded[rows], **given)[0]
        real = mask[rows].bool() if found.shape[:2] == mask[rows].shape else slice(None)
        torch.testing.assert_close(found[real], expected[real])
    with pytest.raises(UsageError, match="padding in front"):
        model(inputs_embeds=embedded, attention_mask=mask.flip(1))
    with pytest.raises(UsageError, match="both input_ids and inputs_embeds"):
        model(ids, inputs_embeds=embedded)
    with pytest.raises(UsageError, match="neither input_ids"):
        model()


def test_embeddings_of_a_text_can_be_resized(tmp_path: Path) -> None:
    model = new("text", AutoModelForSequenceClassification, num_labels=3)
    embeddings, theirs = model.get_input_embeddings(), inputs_of("text")[1]
    assert isinstance(embeddings, torch.nn.Embedding) and embeddings is model.encoder.modality.stem.tokens
    before = model(**theirs).logits
    model.resize_token_embeddings(320)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 320
    assert model.get_input_embeddings().padding_idx == 1
    assert torch.equal(model(**theirs).logits, before)
    assert model(torch.tensor([[0, 319, 2]])).logits.isfinite().all()
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(**theirs).logits, before) and again.config.vocab_size == 320
    other = torch.nn.Embedding(320, 16, padding_idx=1)
    again.set_input_embeddings(other)
    assert again.encoder.modality.stem.tokens is other


@pytest.mark.parametrize("kind", ["audio", "sound"])
def test_a_mask_says_something_of_every_sample(kind: str) -> None:
    """Its length is that of the inputs, not of their tokens; a sample of which too little is real has no classes."""
    model = AutoModelForAudioClassification.from_config(
        AutoConfig.for_model(f"data2vec2-{kind}", **SHAPE, **OWN.get(kind, {}))
    )
    given = {"input_values": torch.randn(2, 4_000), "attention_mask": torch.ones(2, 4_000, dtype=torch.long)}
    with pytest.raises(UsageError, match=r"attention_mask is \(2, 12\), and must be as long as inputs, \(2, 4000\)"):
        model(**given | {"attention_mask": torch.ones(2, 12, dtype=torch.long)})
    given["attention_mask"][1, 100:] = 0
    with pytest.raises(UsageError, match="sample 1 of the batch is too short or all padding"):
        model(**given)


def test_a_text_without_a_batch_is_refused() -> None:
    with pytest.raises(UsageError, match=r"token ids of shape \(3,\)"):
        new("text")(input_ids=torch.tensor([5, 6, 7]))


@pytest.mark.parametrize(("kind", "own"), [("audio", {"stem": "mel"}), ("sound", {"num_mel_bins": 32})])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_spectra_stay_float32(kind: str, own: dict[str, object], dtype: torch.dtype) -> None:
    """So quiet bands are not lost beside loud ones; all else computes in the type that was asked for."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(f"data2vec2-{kind}", **SHAPE, **OWN.get(kind, {}) | own)
    model, waveforms, seen = AutoModel.from_config(config).eval(), torch.randn(2, 4_000), []
    expected = model(waveforms).last_hidden_state
    spectra = model.encoder.modality.stem.spectra
    model.encoder.modality.stem.spectra = lambda x: seen.append(spectra(x)) or seen[-1]
    model(waveforms)
    found = model.to(dtype)(waveforms).last_hidden_state
    assert torch.equal(*seen)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_text_may_be_filled_up_in_front(pooling: str) -> None:
    ids = torch.tensor([[0, 17, 250, 33, 2]])
    model = new("text", AutoModelForSequenceClassification, num_labels=3, pooling=pooling)
    alone = model(ids).logits
    left = torch.cat([torch.ones(1, 4, dtype=torch.long), ids], dim=1)
    torch.testing.assert_close(model(left, attention_mask=(left != 1).long()).logits, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(left).logits, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForAudioClassification, AutoModelForCTC])
def test_a_recording_that_is_filled_up_in_front_is_refused(auto: type) -> None:
    mask = torch.ones(2, 4_000, dtype=torch.long)
    mask[1, :500] = 0
    with pytest.raises(UsageError, match="padding in front"):
        new("audio", auto)(torch.randn(2, 4_000), attention_mask=mask)


def test_positions_are_interpolated_unless_that_is_forbidden() -> None:
    for model in (new("image"), new("image", AutoModelForImageClassification)):
        larger = torch.randn(1, 3, 32, 40)
        given = model(larger)[0]
        assert torch.equal(model(larger, interpolate_pos_encoding=True)[0], given)
        with pytest.raises(UsageError, match="interpolate_pos_encoding"):
            model(larger, interpolate_pos_encoding=False)
        assert model(torch.randn(1, 3, 24, 24), interpolate_pos_encoding=False)[0].isfinite().all()


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForAudioClassification, AutoModelForCTC])
def test_the_feature_encoder_can_be_frozen(auto: type) -> None:
    model = new("audio", auto)
    model.freeze_feature_encoder()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[3] for name in frozen} == {"convs", "norms"} and len(frozen) == 7 + 14


@pytest.mark.parametrize("blank", [0, 4, 8])
def test_the_blank_is_the_padding_token(blank: int) -> None:
    """Both in the loss and at padded frames; the loss is that of a model whose letters are in another order."""
    model = new("audio", AutoModelForCTC, pad_token_id=blank)
    theirs = inputs_of("audio")[1]
    first = 1 if blank == 0 else 0  # a letter like any other, even where it is 0
    letters = torch.tensor([[first, 5, 5, 3], [2, first, -100, -100]])
    output = model(**theirs, labels=letters)
    assert (output.logits[1, -1].argmax(), output.logits[1, -1].max()) == (blank, 0)
    log_probs = output.logits.log_softmax(-1).transpose(0, 1)
    frames, lengths = (output.logits[..., blank] != 0).sum(1), torch.tensor([4, 2])
    expected = torch.nn.functional.ctc_loss(
        log_probs, letters.clamp(min=0), frames, lengths, blank=blank, reduction="none"
    )
    torch.testing.assert_close(output.loss, expected.mean())
    filled = model(**theirs, labels=torch.where(letters < 0, blank, letters)).loss
    torch.testing.assert_close(filled, output.loss)


@pytest.mark.parametrize("inner", [-100, 4])
def test_a_blank_between_letters_is_refused(inner: int) -> None:
    model, theirs = new("audio", AutoModelForCTC, pad_token_id=4), inputs_of("audio")[1]
    with pytest.raises(UsageError, match=r"recording 1 .* before a letter"):
        model(**theirs, labels=torch.tensor([[1, 2, 4], [3, inner, 2]]))
    for blank in (9, -1, None):
        with pytest.raises(UsageError, match="pad_token_id"):
            new("audio", AutoModelForCTC, pad_token_id=blank)


def test_a_processor_has_the_tokenizer_that_is_there(tmp_path: Path) -> None:
    """Also a plain one, in a folder as scripts write it; without a tokenizer it is the feature extractor."""
    new("audio").config.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), type(AutoFeatureExtractor.from_pretrained(tmp_path)))
    vocabulary = {letter: place for place, letter in enumerate(["a", "b", "|", "[UNK]", "[PAD]"])}
    (tmp_path / "letters.json").write_text(json.dumps(vocabulary))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "word_delimiter_token": "|"}
    Wav2Vec2CTCTokenizer(tmp_path / "letters.json", **names).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, Wav2Vec2Processor)
    assert type(processor.tokenizer) is Wav2Vec2CTCTokenizer and processor.tokenizer.pad_token_id == 4


def test_weights_of_a_head_and_of_the_encoder_are_not_mixed_up(tmp_path: Path) -> None:
    """Both have a norm; whatever a file lacks is missing."""
    model = new("image", AutoModelForImageClassification, num_labels=3)
    torch.nn.init.normal_(model.norm.weight)
    torch.nn.init.normal_(model.encoder.norm.weight)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(again.norm.weight, model.norm.weight)
    assert torch.equal(again.encoder.norm.weight, model.encoder.norm.weight)
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("norm.")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again, report = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"norm.weight", "norm.bias"}
    assert torch.equal(again.norm.weight, torch.ones(16))
