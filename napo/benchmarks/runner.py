"""Answer the benchmarks with a model, keep the answers as they come, score them, write results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict

from napo.benchmarks import Request, judges, module, readings
from napo.benchmarks import options as options_of
from napo.benchmarks.chat import NothingSent, Plan
from napo.benchmarks.intervals import bootstrap
from napo.benchmarks.words import clean_answer, repeats
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError
from napo.progress import Progress
from napo.workspace.files import append, atomic_file, make_folder, parse_json, write_json
from napo.workspace.manifests import versions

if TYPE_CHECKING:
    import pandas as pd

    from napo.config.benchmarks import Ratio
    from napo.config.profile import Evaluation

CHUNK = 512  # answers between two writes: lost at most by an interruption, and images in memory


class Answer(TypedDict):
    """A line of the answers."""

    id: str
    answer: str
    tokens: int
    cut: bool


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
) -> Plan:
    """Evaluate a model on the benchmarks that the settings name.

    For each benchmark it writes `<name>.answers.jsonl` (chunk by chunk; after an interruption the
    next call continues with the last whole chunk and ends with the same bytes), `<name>.items.csv`
    (intervals are resampled from it) and `<name>.json`.

    A dry run sends nothing to a judge behind an endpoint; a benchmark that needs the judge gets its
    answers and no result.

    Returns:
        The requests that were not sent: none, unless this was a dry run.

    Raises:
        NapoError: for an unknown benchmark, or from `load` and `evaluate` of a benchmark.
    """
    from napo.models.decoding import decoding_record
    from napo.models.load import unwrap

    checkpoint = unwrap(model).generation_config
    decoding = decoding_record(checkpoint, processor, settings.decoding)
    judged = "mmhal" in settings.benchmarks or settings.extractor == "llm"
    rater = judges.make(settings, benchmarks, judge, dry_run=dry_run) if judged else None
    loaded, done, unsent = {}, 0, Plan()
    for name in settings.benchmarks:
        scorer = module(name)
        benchmark = scorer.load(benchmarks / name)
        options = options_of(name, settings, rater)
        requests = scorer.requests(benchmark, **options.asking)
        loaded[name] = (scorer, benchmark, options, requests)
        done += len(kept(out / f"{name}.answers.jsonl", requests)[0])
    total = sum(len(requests) for *_, requests in loaded.values())
    with Progress(total, f"evaluate {run}", "answers", done=done) as progress:
        for name, (scorer, benchmark, options, requests) in loaded.items():
            path = out / f"{name}.answers.jsonl"
            entries = answer(model, processor, requests, path, settings, seed, progress)
            answers = {entry["id"]: entry["answer"] for entry in entries}
            try:
                metrics, items = scorer.evaluate(benchmark, answers, **options.scoring)
            except NothingSent as dry:
                unsent += dry.plan
                continue
            with atomic_file(out / f"{name}.items.csv") as temporary:
                items.to_csv(temporary, index=False, float_format="%.10g")
            record = options_of(name, settings, rater).record  # now it names the model that judged
            scores = with_intervals(metrics, items, BENCHMARKS[name].ratios)
            unreadable, lenient = read_again(name, benchmark, answers, options.scoring, scores)
            result = {
                "benchmark": name,
                "run": run,
                "seed": seed,
                "metrics": scores,
                "answers": {
                    **counts(entries),
                    **counts_by_task(entries, requests),
                    "unreadable": unreadable,
                },
                "lenient": lenient,
                "settings": {"decoding": decoding, **record},
                "fingerprints": dict(fingerprints),
                "versions": versions(),
            }
            write_json(out / f"{name}.json", result)
    return unsent


def read_again(
    name: str,
    benchmark: Any,
    answers: Mapping[str, str],
    scoring: Mapping[str, Any],
    official: Mapping[str, Any],
) -> tuple[int, dict[str, Any]]:
    """How many texts the official reader cannot read, and the lenient section of a result.

    The section has the numbers of `texts` (read), of `differing` ones (that the lenient reader
    reads otherwise) and of `unreadable` ones (for both readers), and `metrics`: as the `official`
    scores with intervals, from the lenient readings.
    """
    both = readings(name, benchmark, answers, scoring)
    section = {
        "texts": len(both),
        "differing": sum(reading.differs for reading in both),
        "unreadable": sum(reading.official is reading.lenient is None for reading in both),
        "metrics": official if both else {},
    }
    if section["differing"]:
        metrics, items = module(name).evaluate(benchmark, answers, **scoring, lenient=True)
        section["metrics"] = with_intervals(metrics, items, BENCHMARKS[name].ratios)
    return sum(reading.official is None for reading in both), section


def counts(entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The number of answers, their mean length, and how many are degenerate, for each reason.

    Degenerate are answers that are empty, cut by the length limit, or that `repeats` finds.
    """
    reasons = {
        "empty": [not clean_answer(entry["answer"]) for entry in entries],
        "cut": [bool(entry["cut"]) for entry in entries],
        "repeated": [repeats(entry["answer"]) for entry in entries],
    }
    degenerate = sum(map(any, zip(*reasons.values(), strict=True)))
    return {
        "count": len(entries),
        "mean_tokens": sum(entry["tokens"] for entry in entries) / len(entries),
        **{reason: sum(answers) for reason, answers in reasons.items()},
        "degenerate": degenerate,
        "degenerate_share": degenerate / len(entries),
    }


def counts_by_task(
    entries: Sequence[Mapping[str, Any]], requests: Sequence[Request]
) -> dict[str, Any]:
    """The `counts` of each task, where the requests name several."""
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for entry, request in zip(entries, requests, strict=True):
        tasks.setdefault(request.task, []).append(entry)
    parts = {task: counts(part) for task, part in tasks.items()}
    return {"tasks": parts} if len(parts) > 1 else {}


def with_intervals(
    metrics: Mapping[str, float], items: pd.DataFrame, ratios: Mapping[str, Ratio]
) -> dict[str, dict[str, float | None]]:
    """Each metric with its 95 % interval and n; undefined numbers, as CHAIR of no object, are None.

    A metric that is no ratio of sums has no interval.
    """
    results = {}
    for name, value in metrics.items():
        low, high, count = math.nan, math.nan, len(items)
        if name in ratios:
            low, high = bootstrap(items, ratios[name])
            count = int((items[ratios[name].denominator] > 0).sum())
        numbers = {"value": value, "low": low, "high": high}
        numbers = {key: None if math.isnan(number) else number for key, number in numbers.items()}
        results[name] = {**numbers, "n": count}
    return results


def answer(
    model: Any,
    processor: Any,
    requests: Sequence[Request],
    path: Path,
    settings: Evaluation,
    seed: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The model's answers to all requests; it skips those that the file holds already.

    Raises:
        NapoError: when the file belongs to other requests, or an image does not open.
    """
    from napo.models.generate import Prompt, generate

    entries, length = kept(path, requests)
    make_folder(path.parent)
    if path.is_file():
        os.truncate(path, length)
    for start in range(len(entries), len(requests), CHUNK):
        part = requests[start : start + CHUNK]
        openers = {request.image: request for request in part}  # one for each image
        images = {image: request.open() for image, request in openers.items()}
        generated = generate(
            model,
            processor,
            [Prompt(request.text, images[request.image], key=str(request.id)) for request in part],
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


def kept(path: Path, requests: Sequence[Request]) -> tuple[list[dict[str, Any]], int]:
    """The answers of whole chunks in a file, and their length in bytes.

    A chunk that was cut short is answered again as a whole: batches and random draws then equal
    those of an uninterrupted call.

    Raises:
        NapoError: when the file belongs to other requests.
    """
    entries, ends = [], [0]
    lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
    for line in lines:
        try:
            entries.append(parse_json(line.decode(), str(path), Answer))
        except (NapoError, UnicodeDecodeError):  # torn by a kill or a full disk
            break
        ends.append(ends[-1] + len(line) + 1)
    if [e["id"] for e in entries] != [request.id for request in requests[: len(entries)]]:
        raise NapoError(f"{path} holds answers to other questions; delete it and evaluate again.")
    whole = len(entries)
    if whole < len(requests):
        whole -= whole % CHUNK
    return entries[:whole], ends[whole]
