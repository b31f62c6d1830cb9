"""RLAIF-V-Bias and the reference's log-probs, in one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config.profile import Profile
from napo.config.variants import CORRUPTED, RESPONSES
from napo.data import sources
from napo.data.rows import Build, shards, write_rows, write_scores
from napo.errors import NapoError
from napo.progress import Progress
from napo.stages import launch
from napo.stages.inputs import (
    CURRENT,
    base_model,
    model_settings,
    source_folder,
)
from napo.stages.ranks import worker
from napo.stages.session import Session
from napo.workspace.files import fingerprint, finished_files, write_json
from napo.workspace.hashing import content_hash
from napo.workspace.locks import work_on
from napo.workspace.manifests import manifest_fingerprint, require

if TYPE_CHECKING:
    from napo.models.generate import Generated, Prompt


def build_rows(session: Session) -> Path:
    """Build RLAIF-V-Bias: the base model answers each row with one modality masked (Eqs. 7, 8)."""
    profile, folder = session.profile, session.workspace.rows
    data = profile.data.model_dump(include={"count", "bad_rows", "shard_rows", "seed"})
    settings = {
        "source": _source_fingerprint(session),
        **data,
        **profile.masks.model_dump(),
        **model_settings(profile),
    }
    with work_on(folder, settings) as todo:
        if todo:
            launch.shared(session, build_share)
            total = sources.number_of_rows(source_folder(session), profile.data.count)
            _all_there(folder, -(-total // profile.data.shard_rows))
    return folder


def build_share(session: Session) -> None:
    """One process's share of `build_rows`; the first one sees all parts done before it returns."""
    profile, folder = session.profile, session.workspace.rows
    source, made = source_folder(session), []

    def generate(rows: list[dict[str, Any]]) -> Mapping[str, Sequence[Any]]:
        if not made:  # the released RLAIF-V-Bias needs no model here
            made.append(_generator(profile))
        return made[0](rows)

    total = sources.number_of_rows(source, profile.data.count)
    with _Parts(folder, total, profile.data.shard_rows, "build biased responses") as parts:
        write_rows(
            source,
            folder,
            generate,
            size=profile.data.shard_rows,
            count=profile.data.count,
            bad_rows=profile.data.bad_rows,
            worker=worker(),
            done=parts.done,
        )


def _generator(profile: Profile) -> Build:
    """What writes the two biased responses of a batch of rows."""
    from napo.models.generate import Prompt

    masks, answer = profile.masks, _engine(profile)
    hidden = {
        "language_biased": {"image_mask": masks.image},
        "vision_biased": {"text_mask": masks.text},
    }

    def biased(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            name: answer(
                [
                    Prompt(row["question"], row["image"], **mask, key=f"{row['id']} {name}")
                    for row in rows
                ]
            )
            for name, mask in hidden.items()
        }

    return biased


def _engine(profile: Profile) -> Callable[[Sequence[Prompt]], list[Generated]]:
    """The base model as something that answers prompts, through transformers or vLLM."""
    masks, seed = profile.masks, profile.data.seed
    if masks.engine == "vllm":
        from napo.models.vllm import load_engine

        return partial(load_engine(profile), decoding=masks.decoding, seed=seed)
    from napo.models.generate import generate

    model, processor = base_model(profile)
    settings = {"decoding": masks.decoding, "batch_size": masks.batch_size, "seed": seed}
    return lambda prompts: generate(model, processor, prompts, **settings)


class _Parts:
    """Progress over the parts of all processes, told by the first, which waits for the others.

    It looks at the folder, not at a barrier: a barrier of hours would time out.
    """

    def __init__(self, folder: Path, rows: int, size: int, label: str) -> None:
        self._folder, self._rows, self._size = folder, rows, size
        self._parts = -(-rows // size)
        self._rank, _ = worker()
        self._progress = Progress(rows, label, done=self._there())

    def _there(self) -> int:
        found = len(finished_files(self._folder, "part-*.parquet"))
        return min(found * self._size, self._rows)

    def done(self, rows: int) -> None:
        if self._rank == 0:
            self._progress.advance(self._there() - self._progress.done)

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._rank:
            return
        while error is None and self._there() < self._rows:
            time.sleep(0.2)
            self.done(0)
        self._progress.__exit__(kind, error, trace)


def _all_there(folder: Path, parts: int) -> None:
    """Stop before a folder is sealed whose processes did not all do their share."""
    found = len(shards(folder))
    if found != parts:
        raise NapoError(
            f"{folder} has {found} of {parts} parts; what is there is kept, run it again."
        )


def _source_fingerprint(session: Session) -> str:
    if session.profile.data.source:
        folder = source_folder(session)
        return content_hash(sources.files(folder), folder)
    return manifest_fingerprint(require(session.workspace.source))


def score_reference(session: Session) -> Path:
    """Score the four responses (and the chosen one under a corrupted image) by the base model."""
    profile, workspace = session.profile, session.workspace
    settings = {
        "rows": manifest_fingerprint(require(workspace.rows)),
        "responses": [*RESPONSES, CORRUPTED],
        "max_length": profile.training.max_length,
        **model_settings(profile),
    }
    folder = workspace.reference(fingerprint(settings))
    with work_on(folder, settings) as todo:
        if todo:
            launch.shared(session, score_share, folder=folder.name)
            _all_there(folder, len(shards(workspace.rows)))
    write_json(workspace.data / "reference" / CURRENT, {"folder": folder.name})
    return folder


def score_share(session: Session, folder: str) -> None:
    """One process's share of `score_reference`."""
    from napo.method.logprobs import score_reference as score

    profile, workspace = session.profile, session.workspace
    target = workspace.reference(folder)
    model, processor = base_model(profile)
    responses = [*RESPONSES, CORRUPTED]

    def scored(rows: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
        limits = {
            "max_length": profile.training.max_length,
            "logits_mb": profile.training.logits_mb,
        }
        return list(score(model, processor, rows, responses, **limits))

    size = profile.data.shard_rows
    total = len(shards(workspace.rows)) * size
    with _Parts(target, total, size, "score by the reference") as parts:
        write_scores(workspace.rows, target, scored, worker=worker(), done=parts.done)
