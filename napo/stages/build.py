"""RLAIF-V-Bias and the reference's log-probs, in one process or several."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config.profile import Profile
from napo.config.variants import CORRUPTED, RESPONSES
from napo.data import sources
from napo.data.fetch import require_unchanged
from napo.data.rows import Build, row_ids, shards, skipped, write_rows, write_scores
from napo.data.source_files import ParquetFile
from napo.data.sources import BadRow
from napo.errors import NapoError
from napo.progress import Progress
from napo.stages import launch
from napo.stages.inputs import (
    CURRENT,
    base_fingerprint,
    base_model,
    source_fingerprint,
    source_folder,
)
from napo.stages.ranks import worker
from napo.stages.session import Session
from napo.stages.settings import of_reference, of_rows
from napo.workspace.files import fingerprint, finished_files, write_json
from napo.workspace.locks import work_on
from napo.workspace.manifests import manifest_fingerprint, require

if TYPE_CHECKING:
    from napo.models.generate import Prompt


def build_rows(session: Session) -> Path:
    """Build RLAIF-V-Bias: the base model answers each row with one modality masked (Eqs. 7, 8).

    Raises:
        NapoError: if the source cannot be read, a row cannot be used, or a part is missing.
    """
    profile, folder = session.profile, session.workspace.rows
    if profile.data.source:
        require_unchanged(profile, session.workspace)
    settings = of_rows(profile, base_fingerprint(profile), source_fingerprint(session))
    with work_on(folder, settings) as todo:
        if todo:
            launch.shared(session, build_share)
            total = sources.number_of_rows(source_folder(session), profile.data.count)
            require_parts(folder, -(-total // profile.data.shard_rows))
            if not sum(ParquetFile(path).count for path in shards(folder)):
                raise BadRow(f"No row can be used; the first: {skipped(folder)[0]['reason']}")
    return folder


def build_share(session: Session) -> None:
    """One process's share of `build_rows`."""
    from napo.method.layout import row_check
    from napo.models.files import load_processor

    data, folder = session.profile.data, session.workspace.rows
    model, max_length = session.profile.model, session.profile.training.max_length
    source = source_folder(session)
    total = sources.number_of_rows(source, data.count)
    # Loaded when the first row needs it: rows of the released RLAIF-V-Bias need no model.
    generator = cache(partial(load_generator, session.profile, folder))
    with parts_progress(folder, total, data.shard_rows, "build biased responses") as update:
        write_rows(
            source,
            folder,
            lambda rows: generator()(rows),
            size=data.shard_rows,
            check=row_check(load_processor(model.location, **model.preprocessing), max_length),
            count=data.count,
            bad_rows=data.bad_rows,
            worker=worker(),
            done=update,
        )


def load_generator(profile: Profile, folder: Path) -> Build:
    """Load the base model, in transformers or vLLM, as a generator of both biased responses.

    `decoding.json` in the folder gets what decides the answers, token ids included.
    """
    from napo.models.decoding import decoding_record
    from napo.models.generate import biased_prompts, generate
    from napo.models.load import unwrap

    masks, seed = profile.masks, profile.data.seed
    options: dict[str, Any] = {"decoding": masks.decoding, "seed": seed}
    if masks.engine == "vllm":
        from napo.models.vllm import load_engine

        answer, record = load_engine(profile)
    else:
        model, processor = base_model(profile)
        answer = partial(generate, model, processor, batch_size=masks.batch_size)
        record = decoding_record(unwrap(model).generation_config, processor, masks.decoding)
    write_json(folder / "decoding.json", record)

    def biased(rows: list[dict[str, Any]]) -> dict[str, Any]:
        prompts = biased_prompts(rows, masks)
        return {name: answer(prompts[name], **options) for name in prompts}

    return biased


def answer_prompts(session: Session, prompts: Sequence[Prompt]) -> list[str]:
    """The base model's answers to a few prompts, with the decoding and seed of the biased ones.

    The model is loaded for this call only, so that its memory is free for the build.
    """
    import torch

    from napo.models.generate import generate
    from napo.models.load import load_model

    model, masks = session.profile.model, session.profile.masks
    with launch.one_gpu(session) as device:
        loaded = load_model(model.location, **model.loading, device=device)
        options = {"batch_size": masks.batch_size, "seed": session.profile.data.seed}
        answers = generate(*loaded, prompts, masks.decoding, **options)
        del loaded
        torch.cuda.empty_cache()  # does nothing without a GPU
    return [answer.text for answer in answers]


@contextmanager
def parts_progress(
    folder: Path, rows: int, size: int, label: str
) -> Iterator[Callable[[int], None]]:
    """Progress of a stage that several processes do in parts; gives its update after a part.

    It counts the parts in the folder, `size` rows each, and at the end the first process waits
    there for the others. A barrier would time out after some hours.
    """

    def finished_rows() -> int:
        return min(len(finished_files(folder, "part-*.parquet")) * size, rows)

    def update(_: int = 0) -> None:
        progress.advance(finished_rows() - progress.done)

    with Progress(rows, label, done=finished_rows()) as progress:
        yield update
        while worker()[0] == 0 and finished_rows() < rows:
            time.sleep(0.2)
            update()


def require_parts(folder: Path, count: int) -> None:
    """Stop before an incomplete folder is sealed.

    Raises:
        NapoError: if a process did not write all its parts.
    """
    parts = len(shards(folder))
    if parts != count:
        raise NapoError(
            f"{folder} has {parts} of {count} parts; run it again, the finished parts are kept."
        )


def score_reference(session: Session) -> Path:
    """Score the four responses, and mDPO's with the corrupted image, by the base model.

    Raises:
        NapoError: if the rows are missing or cannot be scored, or a part is missing.
    """
    profile, workspace = session.profile, session.workspace
    rows = manifest_fingerprint(require(workspace.rows))
    settings = of_reference(profile, base_fingerprint(profile), rows)
    folder = workspace.reference(fingerprint(settings))
    with work_on(folder, settings) as todo:
        if todo:
            launch.shared(session, score_share, folder=folder.name)
            require_parts(folder, len(shards(workspace.rows)))
    write_json(workspace.data / "reference" / CURRENT, {"folder": folder.name})
    return folder


def score_share(session: Session, folder: str) -> None:
    """One process's share of `score_reference`."""
    from napo.method.logprobs import score_reference as score

    workspace, training = session.workspace, session.profile.training
    target = workspace.reference(folder)
    scores = partial(
        score,
        *base_model(session.profile),
        responses=(*RESPONSES, CORRUPTED),
        max_length=training.max_length,
        logits_mb=training.logits_mb,
    )
    size, total = session.profile.data.shard_rows, len(row_ids(workspace.rows))
    with parts_progress(target, total, size, "score by the reference") as update:
        write_scores(workspace.rows, target, scores, worker=worker(), done=update)
