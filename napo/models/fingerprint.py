"""The fingerprint of a model's files, without torch: the pipeline's plan needs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from napo.errors import NapoError
from napo.workspace.hashing import hash_files

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


def model_fingerprint(path: str | Path) -> str:
    """A short hash of the weights and processor files of a folder or a cached hub id.

    Raises:
        NapoError: when there is no such model, or it has no weights.
    """
    folder = Path(path)
    if not folder.is_dir():
        from transformers.utils import cached_file

        try:
            folder = Path(cached_file(str(path), "config.json")).parent
        except (OSError, ValueError) as error:
            problem = next(iter(str(error).strip().splitlines()), "")
            raise NapoError(
                f"{path} is neither a folder nor a model in the cache or hub: {problem}"
            ) from None
    files = sorted({file for name in FINGERPRINTED for file in folder.glob(name) if file.is_file()})
    if not any(file.suffix == ".safetensors" for file in files):
        raise NapoError(f"{path} holds no .safetensors weights; name a model's folder.")
    lines = (f"{file.name}\0{digest}\n" for file, digest in hash_files(files).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
