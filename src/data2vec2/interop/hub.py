"""An exported folder on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from data2vec2.errors import UsageError, UserError


def check_push(name: str) -> None:
    """Raise `UsageError` for a name that the hub does not allow, `UserError` for a user who is not logged in."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push {name}: {error}") from error
    if get_token() is None:
        raise UserError("nobody is logged in to the hub; run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload all files of a folder to the model `name`, made `private` if it is new; returns its address.

    `UserError` if the hub can't be reached or refuses; the folder stays.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Upload {folder.name} with data2vec2")
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{folder} is written, but was not uploaded to {name}: {why}; try again with: hf upload {name} {folder} ."
        ) from error
    return str(address)
