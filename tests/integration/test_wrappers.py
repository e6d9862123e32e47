"""What others wrap around models: PEFT's adapters, sentence-transformers, torch.compile, and training in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

import data2vec2
from data2vec2.interop.folder import export_model
from data2vec2.modalities.data import ModelInfo
from data2vec2.modalities.text.config import TextDataConfig
from tests.unit.interop.conftest import make_encoder
from tests.unit.interop.test_transformers_heads import config_of, inputs_of, tokenizer_folder
from tests.unit.interop.test_transformers_usual import new

CLASSES, LETTERS = torch.tensor([2, 0]), torch.tensor([[1, 2, 2], [3, 1, -100]])
HEADS = {
    "picture": ("image", AutoModelForImageClassification, CLASSES, None),
    "sound": ("audio", AutoModelForAudioClassification, CLASSES, "SEQ_CLS"),
    "text": ("text", AutoModelForSequenceClassification, CLASSES, "SEQ_CLS"),
    "speech": ("audio", AutoModelForCTC, LETTERS, None),
    "features of pictures": ("image", AutoModel, None, "FEATURE_EXTRACTION"),
    "features of sounds": ("audio", AutoModel, None, "FEATURE_EXTRACTION"),
    "features of texts": ("text", AutoModel, None, "FEATURE_EXTRACTION"),
}
"""Modality, Auto class, labels of two samples, and PEFT's type of the task."""
EVERY_HEAD = pytest.mark.parametrize("head", HEADS)


def made(head: str) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """A model with random weights, always the same, and two samples with labels."""
    kind, auto, labels, _ = HEADS[head]
    torch.manual_seed(0)
    model = new(kind, auto, **({"num_labels": 3} if labels is CLASSES else {}))
    return model, inputs_of(kind)[1] | ({} if labels is None else {"labels": labels})


def first(output: object, given: dict[str, Tensor]) -> Tensor:
    """Logits or features."""
    return output[1 if "labels" in given else 0]


@EVERY_HEAD
def test_low_rank_adapters(head: str, tmp_path: Path) -> None:
    """They alone learn, beside the head that PEFT lets learn; saved and merged they compute the same."""
    model, given = made(head)
    task = HEADS[head][3]
    config = peft.LoraConfig(task_type=task, r=2, target_modules=["qkv", "proj", "fc1", "fc2"])
    adapted = peft.get_peft_model(model, config)
    learning = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name or "classifier.modules_to_save" in name for name in learning)
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    optimizer, errors = torch.optim.Adam(learning.values(), lr=0.02), []
    for _ in range(5):
        output = adapted(**given)
        error = output.loss if "labels" in given else output.pooler_output.square().mean()
        error.backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(error))
    assert errors[-1] < errors[0]
    changed = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert changed and changed <= learning.keys()
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        expected = first(adapted(**given), given)
        again = peft.PeftModel.from_pretrained(made(head)[0], tmp_path).eval()
        torch.testing.assert_close(first(again(**given), given), expected)
        merged = again.merge_and_unload()
        torch.testing.assert_close(first(merged(**given), given), expected, atol=1e-4, rtol=1e-4)


def test_sentence_transformers(tmp_path: Path) -> None:
    """Their mean of tokens is ours."""
    config = config_of("text")
    data = TextDataConfig(tokenizer=str(tokenizer_folder(tmp_path / "tokenizer")))
    export_model(make_encoder(config), ModelInfo(model=config, data=data), tmp_path / "out", "")
    texts = ["what a noun", "a longer text that stands for much more than this model takes at a time"]
    sentences = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert sentences.max_seq_length == config.modality.max_tokens
    vectors = sentences.encode(texts)
    np.testing.assert_allclose(vectors, data2vec2.load(tmp_path / "out", device="cpu").embed(texts), atol=1e-5)
    sentences.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu").encode(texts)
    np.testing.assert_allclose(again, vectors, atol=1e-6)


@EVERY_HEAD
def test_compiled(head: str) -> None:
    """The same outputs and gradients; without C++, which takes minutes."""
    model, given = made(head)
    found = []
    for run in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        output = run(**given)
        (output.loss if "labels" in given else output.pooler_output.square().mean()).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((first(output, given).detach(), gradients))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@EVERY_HEAD
def test_bfloat16(head: str) -> None:
    """As weights and by autocast: close to float32, with gradients."""
    model, given = made(head)
    expected = first(model(**given), given).detach()
    for cast in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            output = (model if cast else model.bfloat16())(**given)
        (output.loss if "labels" in given else output.pooler_output.square().mean()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        real = expected.isfinite()
        found = first(output, given).detach().float()
        assert torch.equal(found.isfinite(), real)
        assert (found - expected)[real].abs().max() < 0.1 * expected[real].abs().max()
        model.zero_grad()


def test_prompt_tuning(tmp_path: Path) -> None:
    """Prompts, which are embeddings in front of a text's, and the head learn; saved they compute the same."""
    model, given = made("text")
    given = {name: row[:, :8] if name != "labels" else row for name, row in given.items()}
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
    adapted = peft.get_peft_model(model, config)
    learning = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("prompt_encoder" in name or "classifier.modules_to_save" in name for name in learning)
    optimizer, errors = torch.optim.Adam(learning.values(), lr=0.05), []
    for _ in range(8):
        error = adapted(**given).loss
        error.backward()
        assert next(p.grad for name, p in learning.items() if "prompt" in name).abs().sum() > 0
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(error))
    assert errors[-1] < errors[0]
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        expected = adapted(**given).logits
        again = peft.PeftModel.from_pretrained(made("text")[0], tmp_path).eval()
        torch.testing.assert_close(again(**given).logits, expected)
