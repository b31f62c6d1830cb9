"""Ask a model the benchmarks, keep its answers as they come, score them, write the results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Request, module
from napo.benchmarks.intervals import bootstrap
from napo.errors import NapoError
from napo.progress import Progress
from napo.workspace import atomic_file, versions, write_json

if TYPE_CHECKING:
    from napo.config import Evaluation

CHUNK = 1024  # answers between two writes: what an interruption can lose


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
    judge: Callable[[Mapping[str, Any], str], str] | None = None,
) -> None:
    """Evaluate a model on the benchmarks that the settings name.

    For each benchmark it writes `<name>.answers.jsonl` (chunk by chunk; an interrupted call goes
    on after the last whole line), `<name>.items.csv` (what intervals are resampled from) and
    `<name>.json`.

    Args:
        model: the model.
        processor: its processor.
        benchmarks: folder of the benchmarks' folders.
        out: where the results go.
        settings: decoding, and the options of the scorers.
        run: the name of the run in the results.
        seed: of the run, and of sampled decoding.
        fingerprints: of model and data, for the record.
        judge: rates an answer of MMHal-Bench: (item, answer) -> reply.

    Raises:
        NapoError: for an unknown benchmark, or what `load` and `evaluate` of a benchmark raise.
    """
    loaded = {}
    for name in settings.benchmarks:
        scorer = module(name)
        benchmark = scorer.load(benchmarks / name)
        options = scorer.options(settings, judge)
        loaded[name] = (scorer, benchmark, options, scorer.requests(benchmark, **options.asking))
    asked = sum(len(requests) for *_, requests in loaded.values())
    done = sum(len(_read(out / f"{name}.answers.jsonl")) for name in loaded)
    with Progress(asked, f"evaluate {run}", "answers", done=done) as progress:
        for name, (scorer, benchmark, options, requests) in loaded.items():
            path = out / f"{name}.answers.jsonl"
            entries = answer(model, processor, requests, path, settings, seed, progress)
            answers = {entry["id"]: entry["answer"] for entry in entries}
            metrics, items = scorer.evaluate(benchmark, answers, **options.scoring)
            with atomic_file(out / f"{name}.items.csv") as temporary:
                items.to_csv(temporary, index=False, float_format="%.10g")
            result = {
                "benchmark": name,
                "run": run,
                "seed": seed,
                "metrics": with_intervals(metrics, items, scorer.RATIOS),
                "answers": {
                    "count": len(entries),
                    "mean_tokens": sum(entry["tokens"] for entry in entries) / len(entries),
                    "cut": sum(entry["cut"] for entry in entries),
                    "unreadable": scorer.unreadable(answers),
                },
                "settings": {"decoding": settings.decoding.model_dump(), **options.named},
                "fingerprints": dict(fingerprints),
                "versions": versions(),
            }
            write_json(out / f"{name}.json", result)


def with_intervals(metrics: Mapping[str, float], items: Any, ratios: Mapping[str, Any]) -> dict:
    """Each metric with its 95 % interval (none for a metric that is no ratio of sums) and n."""
    found = {}
    for name, value in metrics.items():
        low, high = bootstrap(items, ratios[name]) if name in ratios else (math.nan, math.nan)
        count = int((items[ratios[name].denominator] > 0).sum()) if name in ratios else len(items)
        entry = {"value": value, "low": low, "high": high, "n": count}
        found[name] = {k: None if isinstance(v, float) and math.isnan(v) else v
                       for k, v in entry.items()}  # fmt: skip
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
    """The model's answers to all requests; what the file already holds is not asked again."""
    from napo.generate import Prompt, generate

    entries = _read(path)
    known = [request.id for request in requests[: len(entries)]]
    if [entry["id"] for entry in entries] != known:
        raise NapoError(f"{path} holds answers to other questions; delete it and evaluate again.")
    _truncate(path, entries)
    with open(path, "a", encoding="utf-8") as file:
        # Chunks start at multiples of CHUNK, so that sampling does not depend on interruptions.
        for start in range(len(entries), len(requests), CHUNK):
            part = requests[start : start + CHUNK]
            prompts = [Prompt(request.text, request.open()) for request in part]
            generated = generate(
                model,
                processor,
                prompts,
                settings.decoding,
                batch_size=settings.batch_size,
                seed=seed + start,
            )
            new = [
                {"id": request.id, "answer": g.text, "tokens": g.tokens, "cut": g.cut}
                for request, g in zip(part, generated, strict=True)
            ]
            file.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in new)
            file.flush()
            os.fsync(file.fileno())
            entries += new
            progress.advance(len(new))
    return entries


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole chunks of answers that a file holds."""
    if not path.is_file():
        return []
    entries = list(_whole_lines(path))
    return entries


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            yield json.loads(line)
        except ValueError:
            return


def _truncate(path: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Cut a half-written line away."""
    if path.is_file():
        whole = sum(len(json.dumps(e, ensure_ascii=False).encode()) + 1 for e in entries)
        if path.stat().st_size != whole:
            os.truncate(path, whole)
