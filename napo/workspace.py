"""The only place that knows folders: paths, atomic writes, manifests.

A file that exists is whole: it is written beside its place, flushed to the disk, and renamed. A
folder that is complete has a manifest with the hashes of its files; a stage refuses an input
folder without one, and refuses to continue a folder that other settings began. Commit and machine
stand beside the manifest (`napo.provenance`): they may differ where the content does not.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napo import provenance
from napo.errors import NapoError
from napo.storage import sync, writing

MANIFEST = "manifest.json"
_TEMPORARY = re.compile(r"\..+\.(\d+)\.part(\..+)?")  # see atomic_file; the number is a process
SETTINGS = "settings.json"  # there from the beginning; the manifest seals a finished folder
UNHASHED = (MANIFEST, SETTINGS, provenance.FILE)

# Which notebook makes a folder, for the sentence that a missing input gets.
MADE_BY = {
    "source": "00_icon_world.ipynb",
    "benchmarks": "00_icon_world.ipynb",
    "rows": "01_build_biased_data.ipynb",
    "reference": "01_build_biased_data.ipynb",
    "annotations": "02_annotate_noise.ipynb",
    "runs": "05_train.ipynb",
    "results": "06_evaluate.ipynb",
    "tables": "07_results.ipynb",
}


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can hold: 16 hexadecimal digits of SHA-256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping as it comes back from a JSON file."""
    return json.loads(json.dumps(dict(value), default=str))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found = {}
    for name in ("napo", "torch", "transformers", "peft", "tokenizers", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@contextmanager
def atomic_file(path: Path, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; flush and rename it to `path` on success.

    On an error the temporary file is removed and `path` stays as it was.

    Args:
        path: the file.
        flush: wait until the disk has it. Not worth it for thousands of small files that are made
            again if their folder has no manifest; against a kill the renaming alone is enough.

    Raises:
        NapoError: when the disk refuses, see `napo.storage.writing`.
    """
    path = Path(path)
    # The suffix stays last: writers such as matplotlib choose a format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            if flush:
                sync(temporary)
            os.replace(temporary, path)
            if flush:
                sync(path.parent)
        finally:
            _discard(temporary)


def _discard(path: Path) -> None:
    with suppress(NotADirectoryError):  # the error that led here says so
        path.unlink(missing_ok=True)


def finished_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match a pattern, in order, without those of unfinished writers."""
    return sorted(path for path in folder.glob(pattern) if not _TEMPORARY.fullmatch(path.name))


def sweep(folder: Path) -> None:
    """Remove what writers left there that were killed; those that still run keep theirs."""
    for path in folder.rglob(".*.part*"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted, so that the same value is the same bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        NapoError: when the file is missing or cut short.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NapoError(f"{path} is missing; run the stage that writes it again.") from None
    except (ValueError, RecursionError):
        raise NapoError(
            f"{path} is damaged (not valid JSON); delete it and run the stage that writes it again."
        ) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder, its files not looked at.

    Raises:
        NapoError: when it is damaged.
    """
    found = read_json(folder / MANIFEST)
    lacks = [name for name in ("files", "settings", "versions") if not _maps(found, name)]
    if lacks:
        raise NapoError(
            f"{folder / MANIFEST} is damaged (it has no {' and no '.join(lacks)}); delete {folder} "
            "and make it again."
        )
    return found


def _maps(found: Any, name: str) -> bool:
    return isinstance(found, dict) and isinstance(found.get(name), dict)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that claimed a folder; of a finished one whose file was lost, the manifest's.

    Raises:
        NapoError: when they are damaged.
    """
    path = folder / SETTINGS
    if not path.is_file() and complete(folder):
        write_json(path, read_manifest(folder)["settings"])
    found = read_json(path)
    if not isinstance(found, dict):
        raise NapoError(f"{path} is damaged (it holds no settings); delete {folder}.")
    return found


def complete(folder: Path) -> bool:
    """Whether a folder's stage has finished."""
    return (folder / MANIFEST).is_file()


def finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is complete and was made with these settings."""
    return complete(folder) and read_settings(folder) == json_value(settings)


def whole(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder is `finished` and none of its files was deleted since."""
    return finished(folder, settings) and all(
        (folder / name).is_file() for name in read_manifest(folder)["files"]
    )


def begin(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Claim a folder for these settings, before anything is written to it.

    Settings hold everything that decides the folder's content, fingerprints of inputs included.

    Returns:
        True if there is work to do, False if the folder is already complete.

    Raises:
        NapoError: when other settings began or finished it, naming those that differ.
    """
    wanted = json_value(settings)
    if not complete(folder):
        sweep(folder)
    if not (folder / SETTINGS).is_file() and not complete(folder):
        write_json(folder / SETTINGS, wanted)
        return True
    there = read_settings(folder)
    if there != wanted and _bare(folder):  # claimed by a call that was refused
        write_json(folder / SETTINGS, wanted)
        return True
    if there != wanted:
        keys = sorted(k for k in {*there, *wanted} if there.get(k) != wanted.get(k))
        raise NapoError(
            f"{folder} was made with other settings ({', '.join(keys)} differ); "
            "use another workspace, or delete that folder to make it again."
        )
    return not complete(folder)


def _bare(folder: Path) -> bool:
    """Whether a folder holds no file but its settings and hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return all(path.name == SETTINGS or path.name.startswith(".") for path in files)


def restart(folder: Path, settings: Mapping[str, Any]) -> None:
    """Open a folder to be made again with these settings, whatever made it before.

    Its files stay until the making replaces them one by one, so that a kill on the way leaves each
    of them there, old or new; what the making does not write goes at its end (`keep_only`).
    """
    sweep(folder)
    (folder / MANIFEST).unlink(missing_ok=True)  # first: it never seals other settings' files
    write_json(folder / SETTINGS, json_value(settings))


def keep_only(folder: Path, files: Iterable[Path]) -> None:
    """Remove what an earlier making left in a folder: all but these files and what seals it."""
    kept = {*files, *(folder / name for name in UNHASHED)}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or path.name.startswith("."):
            continue
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def finish(folder: Path, keep_open: str = "") -> dict[str, Any]:
    """Seal a folder that `begin` claimed: write the manifest with the hash of every file in it.

    The manifest comes last: until it is there, the folder is one to go on with.

    Args:
        folder: the folder.
        keep_open: a pattern of files that go on changing and are left out, such as labels.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in UNHASHED
        and not path.name.startswith(".")  # locks, and what unfinished writers left
        and not (keep_open and path.match(keep_open))
    )
    manifest = {
        "settings": read_settings(folder),
        "versions": versions(),
        "files": {path.relative_to(folder).as_posix(): hash_file(path) for path in files},
    }
    write_json(folder / provenance.FILE, provenance.record())
    write_json(folder / MANIFEST, manifest)
    return manifest


def require(folder: Path) -> dict[str, Any]:
    """The manifest of an input folder whose files are all there and unchanged in size and hash.

    Raises:
        NapoError: when the folder is missing or unfinished (naming the notebook that makes it), or
            a file in it is missing or was changed.
    """
    if not complete(folder):
        raise NapoError(f"{folder} is not there or not finished; run {_maker(folder)} first.")
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problem = "missing"
        elif hash_file(path) != digest:
            problem = "damaged (its hash is not the one that was recorded)"
        else:
            continue
        raise NapoError(f"{path} is {problem}; delete {folder} and run {_maker(folder)} again.")
    return manifest


def _maker(folder: Path) -> str:
    """The notebook that makes a folder; for a run or its results, with the parameters to give."""
    from napo.settings import TUNES

    stage = next((part for part in reversed(folder.parts) if part in MADE_BY), "")
    if not stage:
        return "the stage that makes it"
    notebook = f"notebooks/{MADE_BY[stage]}"
    run = folder.parts[len(folder.parts) - folder.parts[::-1].index(stage) :]
    if stage not in ("runs", "results") or not run or run[0].startswith("model-"):
        return notebook
    variant, _, tune = run[0].rpartition("-")
    given = f"variant {variant}, tune {tune}" if tune in TUNES else f"variant {run[0]}"
    seed = f", seeds {run[1].removeprefix('seed-')}" if len(run) > 1 else ""
    return f"{notebook} with {given}{seed}"


def manifest_fingerprint(manifest: Mapping[str, Any]) -> str:
    """The fingerprint of a folder's content, for the manifests and results made from it."""
    return fingerprint(manifest["files"])


@dataclass(frozen=True)
class Workspace:
    """The folders of one profile under one root."""

    root: Path
    profile: str

    @classmethod
    def open(cls, root: str, profile: str, *, write: bool = True) -> Workspace:
        """The workspace at `root`; empty: the checkout this package lives in, else this folder.

        Raises:
            NapoError: when the folder is none, or cannot be written to and has to be.
        """
        try:
            path = _place(root)
            there = next(folder for folder in (path, *path.parents) if folder.exists())
        except (OSError, RuntimeError, ValueError) as error:  # a loop, nobody's home, a null ...
            problem = getattr(error, "strerror", None) or str(error)
            raise NapoError(
                f"The workspace {root[:200]!r} is no place ({problem}); name another with "
                "`workspace`."
            ) from None
        if not there.is_dir():
            raise NapoError(f"The workspace {path} is no folder; name one with `workspace`.")
        if write and not os.access(there, os.W_OK):
            raise NapoError(f"The workspace {path} is read-only; name another with `workspace`.")
        return cls(path, profile)

    def path(self, name: str) -> Path:
        """A folder that a profile names: absolute, in the home folder, or under the root.

        Raises:
            NapoError: when it is in the home folder of somebody who has none.
        """
        try:
            return self.root / Path(name).expanduser()
        except RuntimeError:
            raise NapoError(f"{name} is in nobody's home folder; write the whole path.") from None

    @property
    def data(self) -> Path:
        """Everything this profile generates, figures apart."""
        return self.root / "data" / self.profile

    @property
    def source(self) -> Path:
        """Preference rows as they would be downloaded (tiny: as the world made them)."""
        return self.data / "source"

    @property
    def rows(self) -> Path:
        """RLAIF-V-Bias."""
        return self.data / "rows"

    @property
    def annotations(self) -> Path:
        """Samples and labels."""
        return self.data / "annotations"

    @property
    def benchmarks(self) -> Path:
        """The four benchmarks, a folder each."""
        return self.data / "benchmarks"

    @property
    def results(self) -> Path:
        """Results and answers, a folder a run."""
        return self.data / "results"

    @property
    def tables(self) -> Path:
        """Tables 1 to 4 and the report."""
        return self.data / "tables"

    @property
    def notebooks(self) -> Path:
        """Executed notebooks."""
        return self.data / "notebooks"

    @property
    def figures(self) -> Path:
        """Figures of this profile."""
        return self.root / "figures" / self.profile

    def reference(self, digest: str) -> Path:
        """Reference log-probs made with the model, data and preprocessing of this fingerprint."""
        return self.data / "reference" / digest

    def run(self, variant: str, seed: int, tune: str) -> Path:
        """One training run: `runs/A1/seed-0`, or `runs/A1-lora/seed-0`."""
        return self.data / "runs" / run_name(variant, seed, tune)

    def result(self, run: str) -> Path:
        """The results of a run, by the name that `run_name` gives, or `base`."""
        return self.results / run


def _place(root: str) -> Path:
    """The folder that a workspace's name stands for."""
    if root:
        path = Path(root).expanduser().resolve()
        os.fsencode(path).decode()  # YAML, JSON and the notebooks hold UTF-8 alone
        return path
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "Snakefile").is_file() else Path.cwd()


def run_name(variant: str, seed: int, tune: str = "full") -> str:
    """How a run is called in folders and tables: `A1/seed-0`, `A1-lora/seed-0`."""
    return f"{variant}{'' if tune == 'full' else '-' + tune}/seed-{seed}"


def remove(folder: Path) -> None:
    """Remove a folder that is about to be made anew."""
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    from napo.verify import main

    if sys.argv[1:2] != ["verify"]:
        print("usage: python -m napo.workspace verify [--profile P] [--workspace W]")
        sys.exit(2)
    sys.exit(main(sys.argv[2:]))
