"""Ask a model the benchmarks, keep its answers as they come, score them, write the results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Request, judges, module, unreadable
from napo.benchmarks import options as options_of
from napo.benchmarks.intervals import bootstrap
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError
from napo.progress import Progress
from napo.workspace.files import append, atomic_file, make_folder, write_json
from napo.workspace.manifests import versions

if TYPE_CHECKING:
    from napo.config.profile import Evaluation

CHUNK = 512  # answers between two writes: what an interruption can lose, and images held


def evaluate_run(
    model: Any,
    processor: Any,
    benchmarks: Path,
    out: Path,
    *,
    settings: Evaluation,
    run: str,
    seed: int,
    fingerprints: Mapping[str, str],
    judge: judges.Rule | None = None,
    dry_run: bool = False,
) -> judges.Plan:
    """Evaluate a model on the benchmarks that the settings name.

    For each benchmark it writes `<name>.answers.jsonl` (chunk by chunk; an interrupted call goes
    on after the last whole chunk and ends with the same bytes), `<name>.items.csv` (what intervals
    are resampled from) and `<name>.json`.

    Args:
        model: the model.
        processor: its processor.
        benchmarks: folder of the benchmarks' folders.
        out: where the results go.
        settings: decoding, and the options of the scorers.
        run: the name of the run in the results.
        seed: of the run, and of sampled decoding.
        fingerprints: of model and data, for the record.
        judge: the world's rule that rates an answer of MMHal-Bench, for `settings.judge == "rule"`:
            (item, answer) -> reply.
        dry_run: send nothing to a judge behind an endpoint; a benchmark that needs it gets its
            answers and no result.

    Returns:
        What is still to be sent: nothing, unless this was a dry run.

    Raises:
        NapoError: for an unknown benchmark, or what `load` and `evaluate` of a benchmark raise.
    """
    judged = "mmhal" in settings.benchmarks or settings.extractor == "llm"
    rater = judges.make(settings, benchmarks, judge, dry_run=dry_run) if judged else None
    loaded, done, unsent = {}, 0, judges.Plan()
    for name in settings.benchmarks:
        scorer = module(name)
        benchmark = scorer.load(benchmarks / name)
        options = options_of(name, settings, rater)
        requests = scorer.requests(benchmark, **options.asking)
        loaded[name] = (scorer, benchmark, options, requests)
        done += len(kept(out / f"{name}.answers.jsonl", requests)[0])
    asked = sum(len(requests) for *_, requests in loaded.values())
    with Progress(asked, f"evaluate {run}", "answers", done=done) as progress:
        for name, (scorer, benchmark, options, requests) in loaded.items():
            path = out / f"{name}.answers.jsonl"
            entries = answer(model, processor, requests, path, settings, seed, progress)
            answers = {entry["id"]: entry["answer"] for entry in entries}
            try:
                metrics, items = scorer.evaluate(benchmark, answers, **options.scoring)
            except judges.NothingSent as dry:
                unsent += dry.plan
                continue
            with atomic_file(out / f"{name}.items.csv") as temporary:
                items.to_csv(temporary, index=False, float_format="%.10g")
            named = options_of(name, settings, rater).named  # again: now it is known who judged
            result = {
                "benchmark": name,
                "run": run,
                "seed": seed,
                "metrics": with_intervals(metrics, items, BENCHMARKS[name].ratios),
                "answers": {
                    "count": len(entries),
                    "mean_tokens": sum(entry["tokens"] for entry in entries) / len(entries),
                    "cut": sum(entry["cut"] for entry in entries),
                    "unreadable": unreadable(name, answers),
                },
                "settings": {"decoding": settings.decoding.model_dump(), **named},
                "fingerprints": dict(fingerprints),
                "versions": versions(),
            }
            write_json(out / f"{name}.json", result)
    return unsent


def with_intervals(metrics: Mapping[str, float], items: Any, ratios: Mapping[str, Any]) -> dict:
    """Each metric with its 95 % interval (none for a metric that is no ratio of sums) and n.

    A value or an interval that is not defined, as CHAIR without any object, is None.
    """
    found = {}
    for name, value in metrics.items():
        low, high = bootstrap(items, ratios[name]) if name in ratios else (math.nan, math.nan)
        count = int((items[ratios[name].denominator] > 0).sum()) if name in ratios else len(items)
        numbers = {"value": value, "low": low, "high": high}
        numbers = {key: None if math.isnan(number) else number for key, number in numbers.items()}
        found[name] = {**numbers, "n": count}
    return found


def answer(
    model: Any,
    processor: Any,
    requests: Sequence[Request],
    path: Path,
    settings: Evaluation,
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The model's answers to all requests; what the file already holds is not asked again.

    Raises:
        NapoError: when the file answers other questions, or an image does not open.
    """
    from napo.models.generate import Prompt, generate

    entries, length = kept(path, requests)
    make_folder(path.parent)
    if path.is_file():
        os.truncate(path, length)
    for start in range(len(entries), len(requests), CHUNK):
        part = requests[start : start + CHUNK]
        images = {request.image: request.open() for request in _distinct(part)}
        generated = generate(
            model,
            processor,
            [Prompt(each.text, images[each.image], key=str(each.id)) for each in part],
            settings.decoding,
            batch_size=settings.batch_size,
            seed=seed,
            progress=progress,
        )
        new = [
            {"id": request.id, "answer": g.text, "tokens": g.tokens, "cut": g.cut}
            for request, g in zip(part, generated, strict=True)
        ]
        lines = (f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in new)
        append(path, "".join(lines).encode())
        entries += new
    return entries


def _distinct(requests: Sequence[Request]) -> list[Request]:
    """One request for each image: several questions about one image share what opens it."""
    return list({request.image: request for request in requests}.values())


def kept(path: Path, requests: Sequence[Request]) -> tuple[list[dict[str, Any]], int]:
    """The answers of whole chunks that a file holds, and their length in bytes.

    A chunk that was cut short is asked again as a whole: so batches, and random draws, are those
    of a call that nothing interrupted.

    Raises:
        NapoError: when the file answers other questions.
    """
    entries, ends = [], [0]
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
        ends.append(ends[-1] + len(line) + 1)
    if [e["id"] for e in entries] != [request.id for request in requests[: len(entries)]]:
        raise NapoError(f"{path} holds answers to other questions; delete it and evaluate again.")
    whole = len(entries)
    if whole < len(requests):
        whole -= whole % CHUNK
    return entries[:whole], ends[whole]
