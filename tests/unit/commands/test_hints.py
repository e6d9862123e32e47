"""What a command says to go on with can be typed as it stands."""

from __future__ import annotations

from data2vec2.commands.hints import next_command


def test_columns_that_were_named_are_named_again() -> None:
    told = next_command("evaluate", model="m", data="d", text_columns=("a b", "c"), label_column="queue")
    assert told.endswith("--out runs/finetuned --data.text-columns 'a b' c --data.label-column queue")
    assert next_command("evaluate", model="m", data="d", text_columns=(), label_column=None).endswith("runs/finetuned")
    assert next_command("tokenizer", data="d", out="t", text_column="body").endswith(" --data.text-column body")


def test_flags_of_an_estimate_are_those_of_the_run() -> None:
    told = next_command("estimate", config="text_tiny", data=("d",), flags=("--data.text-column", "my body"))
    assert told == "next: data2vec2 pretrain text_tiny d --out runs/pretrained --data.text-column 'my body'"
    assert next_command("estimate", config="c", data=("d",), flags=()).endswith(" --out runs/pretrained")


def test_evaluate_takes_one_data_set_and_embed_several() -> None:
    assert next_command("embed", model="m", data=("d",)) == "next: data2vec2 evaluate m d (needs labels)"
    assert next_command("embed", model="m", data=("d", "e")) == "next: data2vec2 evaluate m DATA (needs labels)"
