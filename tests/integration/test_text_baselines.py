"""The masked language model and the comparison with it run; what they measure is not tested."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from data2vec2.interop.folder import load_encoder
from data2vec2.modalities import get_recipe
from tests.integration.helpers import run_here

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CONFIG = get_recipe("text_tiny").model
TOPICS = {"sea": "the ship sails over waves and water", "kitchen": "the cook stirs soup and fries an onion"}
SMALL = [
    *("--model.encoder.depth", "1", "--model.targets.average-layers", "1", "--model.encoder.embed-dim", "16"),
    *("--model.decoder.dim", "16", "--model.modality.vocab-size", "300", "--model.modality.max-tokens", "32"),
    *("--train.processes", "1", "--train.batch-size", "4", "--train.updates", "3"),
]


@pytest.fixture
def masked_language_model(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import masked_language_model

    return masked_language_model


def write_table(path: Path, rows: int) -> Path:
    lines = [
        json.dumps({"text": f"{text} {number}", "label": label})
        for number in range(rows)
        for label, text in TOPICS.items()
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines), "utf-8")
    return path.parent


def test_only_asked_tokens_are_scored_and_most_are_hidden(masked_language_model: ModuleType) -> None:
    torch.manual_seed(0)
    model = masked_language_model.MaskedLanguageModel(CONFIG, mask_id=3_999)
    ids = torch.randint(4, 3_999, (16, 128))
    asked = torch.stack([torch.randperm(128)[:40].sort().values for _ in ids])
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loss = model(ids, asked)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(4_000.0)).item(), abs=0.2)
    changed = seen[0] != ids
    places = torch.zeros_like(changed).scatter(1, asked, True)
    assert not changed[~places].any()
    shown = seen[0][places]
    assert (shown == 3_999).float().mean().item() == pytest.approx(0.8, abs=0.06)
    assert changed[places].float().mean().item() == pytest.approx(0.9, abs=0.05)


def test_it_learns(masked_language_model: ModuleType) -> None:
    torch.manual_seed(0)
    model = masked_language_model.MaskedLanguageModel(CONFIG, mask_id=3_999)
    ids = torch.arange(10, 42).repeat(8, 4)
    asked = torch.arange(0, 128, 7).expand(8, -1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        losses.append(model(ids, asked))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_the_comparison(
    masked_language_model: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import compare_pretraining

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unlabelled = write_table(tmp_path / "unlabelled" / "train.jsonl", 60)
    data = write_table(tmp_path / "labelled" / "train.jsonl", 8)
    write_table(data / "test.jsonl", 8)
    run, out, tuning = tmp_path / "seed-3", tmp_path / "out", tmp_path / "finetune.yaml"
    assert run_here(["pretrain", "text_tiny", unlabelled, "--out", run, *SMALL, "--train.seed", "3"]) == 0
    train = {"updates": 2, "batch_size": 64, "processes": 1, "device": "cpu", "precision": "float32"}
    tuning.write_text(json.dumps({"recipe": "text_finetune_tiny", "data": {"kind": "text"}, "train": train}))
    flags = ["--unlabelled", str(unlabelled), "--labels", "1,3", "--seeds", "1", "--seconds", "0.3"]
    flags += ["--finetune", str(tuning), "--finetune-labels", "2"]
    monkeypatch.setattr(sys, "argv", ["compare_pretraining.py", str(data), str(run), "--out", str(out), *flags])
    capsys.readouterr()
    shutil.rmtree(tmp_path / "cache")  # the run has its tokenizer
    compare_pretraining.main()
    header, _, *rows = capsys.readouterr().out.splitlines()
    names = [name.strip() for name in header.strip("|").split("|")][1:]
    assert names[:2] == ["data2vec2", "masked language model"]
    assert {"random initialisation", "majority class"} < set(names[2:])
    assert rows[-1].split("|")[1].strip() == "finetune, 2 a class"
    cells = [cell.strip() for cell in rows[-1].split("|")[2:-1]]
    assert sum(re.fullmatch(r"\d+\.\d", cell) is not None for cell in cells) == 3  # from both models and from scratch
    encoder, info = load_encoder(out / "seed-3")
    own, own_info = load_encoder(run / "exported")
    usual = replace(own_info.model, modality=replace(own_info.model.modality, token_scale=1.0))
    assert info.model == usual
    assert not torch.equal(encoder.blocks[0].mlp.fc1.weight, own.blocks[0].mlp.fc1.weight)
