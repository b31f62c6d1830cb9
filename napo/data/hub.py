"""The Hugging Face hub: the files of a repository and their download, errors as sentences."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from napo.config.profile import Source
from napo.data.downloads import AGAIN
from napo.errors import NapoError, connection_failure
from napo.workspace.files import writing
from napo.workspace.hashing import cached_digest, differing


def cache_folder(source: Source, commit: str) -> Path:
    """Where the hub's cache keeps the files of a commit; the folder may be missing."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=source.repo, repo_type=source.kind)
    return Path(constants.HF_HUB_CACHE) / name / "snapshots" / (commit or "unknown")


class HubFile(NamedTuple):
    """A file as the hub lists it: bytes, and SHA-256, or git's SHA-1 for a small file."""

    size: int
    digest: str


def list_files(source: Source, revision: str) -> tuple[str, dict[str, HubFile]]:
    """The commit of a revision (empty: the newest), and its files with their bytes and hashes.

    `snapshot_download(dry_run=True)` asks for each file apart and makes folders; this is one list.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    repo = {"repo_id": source.repo, "repo_type": source.kind}
    with errors_explained(source):
        commit = HfApi().repo_info(**repo, revision=revision or None, timeout=20).sha
        tree = HfApi().list_repo_tree(**repo, revision=commit, recursive=True)
        files = {
            entry.path: HubFile(entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
            for entry in tree
            if isinstance(entry, RepoFile)
        }
    names = list(filter_repo_objects(files, allow_patterns=list(source.files) or None))
    if not names:
        patterns = ", ".join(source.files)
        raise NapoError(f"{source.repo} has no file like {patterns}; correct the profile.")
    return commit, {name: files[name] for name in names}


def download(source: Source, commit: str, files: Mapping[str, HubFile], folder: Path) -> None:
    """Download the files that `list_files` gave; an interrupted download is continued.

    A file with other bytes than the hub's is removed first: the client trusts what is there.
    """
    from huggingface_hub import snapshot_download

    digests = {name: file.digest for name, file in files.items()}
    for path in (folder / name for name in differing(folder, digests)):
        if cached_digest(path):
            path.resolve().unlink()
        path.unlink()
    with errors_explained(source), writing(folder):
        snapshot_download(
            source.repo,
            repo_type=source.kind,
            revision=commit,
            allow_patterns=list(source.files) or None,
            local_dir=folder if source.to else None,
        )
    lost = [name for name in files if not (folder / name).is_file()]
    lost += differing(folder, digests)
    if lost:
        raise NapoError(
            f"{', '.join(lost[:3])} did not arrive with the hash that the hub gives; {AGAIN}."
        )
    if source.to:  # the client's notes hold dates, and the folder's content is an input of stages
        shutil.rmtree(folder / ".cache", ignore_errors=True)


@contextmanager
def errors_explained(source: Source) -> Iterator[None]:
    """Turn the client's errors into sentences without the request, which holds the token."""
    from huggingface_hub import errors

    sentences = {
        errors.GatedRepoError: "is gated; accept its terms on its page and set HF_TOKEN",
        errors.RepositoryNotFoundError: "is not on the hub, or needs a token; set HF_TOKEN",
        errors.HFValidationError: "is not a valid name on the hub; correct it in the profile",
        errors.RevisionNotFoundError: f"has no revision {source.revision!r}; correct the profile",
    }
    try:
        yield
    except NapoError:
        raise
    except Exception as error:  # three libraries below the client raise errors of their own
        for kind, sentence in sentences.items():
            if isinstance(error, kind):
                raise NapoError(f"{source.repo} {sentence}.") from None
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        remedy = "unset HF_HUB_OFFLINE" if offline else "check the network"
        raise NapoError(
            f"The hub cannot be reached ({connection_failure(error)}); {remedy}, then {AGAIN}."
        ) from None
