"""Keys on a command line are not written into a run's folder."""

import pytest

from data2vec2.commands.doctor import without_secrets


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--token", "abc"], ["--token", "***"]),
        (["--hub.api-key=abc", "x"], ["--hub.api-key=***", "x"]),
        (["WANDB_API_KEY=abc"], ["WANDB_API_KEY=***"]),
        (["--password", "a", "b"], ["--password", "***", "b"]),
        (["https://me:abc@host/x?y=1"], ["https://***@host/x?y=1"]),
        (["https://abc@host/x"], ["https://***@host/x"]),
        (["s3://b/x?X-Amz-Signature=abc&part=2"], ["s3://b/x?X-Amz-Signature=***&part=2"]),
        (["https://host/x?part=2&access_token=abc#y"], ["https://host/x?part=2&access_token=***#y"]),
        (["--model", f"hf_{'a' * 34}"], ["--model", "***"]),
        (["--token", "--other", "x"], ["--token", "--other", "x"]),
    ],
)
def test_secrets_are_hidden(words: list[str], shown: list[str]) -> None:
    assert without_secrets(words) == shown


def test_all_else_is_written_as_it_is() -> None:
    words = "pretrain audio_base data/keys --data.tokenizer token --out runs/a@b --optim.lr 1e-3 hf:me/hf_data a?b=c"
    assert without_secrets(words.split()) == words.split()
