"""The only place that knows folders: those of one profile under one root."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from napo.errors import NapoError


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
    def hashes(self) -> Path:
        """The memory of file hashes, see `napo.workspace.hashing`."""
        return self.data / ".hashes.json"

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
    return checkout() or Path.cwd()


def checkout() -> Path | None:
    """The checkout this package lives in; None where it was installed without one."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "Snakefile").is_file() else None


def published_tables() -> Path:
    """The folder with the paper's own numbers, a CSV for each of Tables 1 to 4."""
    return (checkout() or Path.cwd()) / "data" / "paper"


def run_name(variant: str, seed: int, tune: str = "full") -> str:
    """How a run is called in folders and tables: `A1/seed-0`, `A1-lora/seed-0`."""
    return f"{variant}{'' if tune == 'full' else '-' + tune}/seed-{seed}"


def remove(folder: Path) -> None:
    """Remove a folder that is about to be made anew."""
    shutil.rmtree(folder, ignore_errors=True)
