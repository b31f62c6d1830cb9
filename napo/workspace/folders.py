"""The folders of one profile under one root. No other module knows a folder's name."""

from __future__ import annotations

import os
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
        """The workspace at `root`; empty: the checkout of this package, else the current folder.

        Raises:
            NapoError: when `root` is no folder, or is read-only and `write` is set.
        """
        try:
            path = Path(root).expanduser().resolve() if root else checkout() or Path.cwd()
            os.fsencode(path).decode()  # YAML, JSON and notebooks hold UTF-8 only
            existing = next(folder for folder in (path, *path.parents) if folder.exists())
        except (OSError, RuntimeError, ValueError) as error:  # a loop, an unknown home, a null ...
            problem = getattr(error, "strerror", None) or str(error)
            raise NapoError(
                f"The workspace {root[:200]!r} is no path ({problem}); name another with "
                "`workspace`."
            ) from None
        if not existing.is_dir():
            raise NapoError(f"The workspace {path} is no folder; name one with `workspace`.")
        if write and not os.access(existing, os.W_OK):
            raise NapoError(f"The workspace {path} is read-only; name another with `workspace`.")
        return cls(path, profile)

    def path(self, name: str) -> Path:
        """A folder that a profile names: absolute, in a home folder, or under the root.

        Raises:
            NapoError: when the home folder does not exist.
        """
        try:
            return self.root / Path(name).expanduser()
        except RuntimeError:
            raise NapoError(f"{name} is in an unknown home folder; write the full path.") from None

    @property
    def data(self) -> Path:
        """Everything that this profile generates, except figures."""
        return self.root / "data" / self.profile

    @property
    def source(self) -> Path:
        """Preference rows of the world, in place of a download."""
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
    def study(self) -> Path:
        """The noise study: its pairs, and a folder for each cell, such as `long/flip-0.4/...`."""
        return self.data / "study"

    @property
    def study_pairs(self) -> Path:
        """The noise study's clean pairs, with the reference's log-probs."""
        return self.study / "pairs"

    def study_job(self, name: str) -> Path:
        """The file that says that a job of the noise study has ended."""
        return self.study / "jobs" / f"{name}.json"

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
        """Reference log-probs for a fingerprint of model, data and preprocessing."""
        return self.data / "reference" / digest

    def run(self, variant: str, seed: int, tune: str) -> Path:
        """One training run: `runs/A1/seed-0`, or `runs/A1-lora/seed-0`."""
        return self.data / "runs" / run_name(variant, seed, tune)

    def result(self, run: str) -> Path:
        """The results of a run: a name of `run_name`, or `base`."""
        return self.results / run


def checkout() -> Path | None:
    """The checkout of this package; None where it was installed without one."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "Snakefile").is_file() else None


def published_tables() -> Path:
    """The folder with the paper's own numbers, a CSV for each of Tables 1 to 4."""
    return (checkout() or Path.cwd()) / "data" / "paper"


def run_name(variant: str, seed: int, tune: str = "full") -> str:
    """The name of a run in folders and tables: `A1/seed-0`, `A1-lora/seed-0`."""
    return f"{variant}{'' if tune == 'full' else '-' + tune}/seed-{seed}"
