"""The fingerprint of a model's files, without torch: the pipeline's plan needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napo.errors import NapoError, first_line
from napo.workspace.files import read_json
from napo.workspace.hashing import cached_digest, differing, hash_files

FINGERPRINTED = (
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "*processor_config.json",
    "chat_template*",
    "*.safetensors",
    "adapter_config.json",
)


def model_folder(path: str | Path) -> Path:
    """The folder of a model: the path itself, or the snapshot of a hub id.

    Raises:
        NapoError: when there is no such model.
    """
    if Path(path).is_dir():
        return Path(path)
    from transformers.utils import cached_file

    try:
        return Path(cached_file(str(path), "config.json")).parent
    except (OSError, ValueError) as error:
        raise NapoError(
            f"{path} is neither a folder nor a model in the cache or hub: {first_line(error)}"
        ) from None


def model_fingerprint(path: str | Path) -> str:
    """A short hash of the weights and processor files of a folder or a cached hub id.

    Raises:
        NapoError: when there is no such model, it has no weights, or a file of the hub's cache has
            other bytes than the hub's.
    """
    folder = model_folder(path)
    files = sorted({file for name in FINGERPRINTED for file in folder.glob(name) if file.is_file()})
    if not any(file.suffix == ".safetensors" for file in files):
        raise NapoError(f"{path} holds no .safetensors weights; name a model's folder.")
    for name in differing(folder, {f.name: d for f in files if (d := cached_digest(f))}):
        raise NapoError(
            f"{(folder / name).resolve()} is damaged (its hash is not the hub's); delete it and "
            "get it again (make fetch)."
        )
    lines = [f"{file.name}\0{digest}\n" for file, digest in hash_files(files).items()]
    # Of generation_config.json only end tokens have an effect; most are in config.json too.
    names = ("generation_config.json", "config.json")
    if all((folder / name).is_file() for name in names):
        answers, config = (read_json(folder / name, dict[str, Any]) for name in names)
        known = _ends(config) | _ends(config.get("text_config") or {})
        if more := sorted(_ends(answers) - known):
            lines.append(f"end tokens\0{more}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _ends(config: Mapping[str, Any]) -> set[int]:
    ends = config.get("eos_token_id")
    return {*(ends if isinstance(ends, list) else [ends])} - {None}
