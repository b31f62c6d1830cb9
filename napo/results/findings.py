"""What happened, in a few sentences computed from the numbers: the first lines of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napo.config.benchmarks import BENCHMARKS, metrics
from napo.config.runs import trained
from napo.results.collect import Results, signed
from napo.results.compact import in_words
from napo.results.notes import marks

if TYPE_CHECKING:
    import pandas as pd

SAME_PAIRS = (("A1", "A3"), ("LB1", "LB2"), ("VB1", "VB2"))  # NaPO and DPO on the same pairs
LP = "VLind LP"
FEW = 5  # names that a sentence lists
PROBLEMS = {"△": "answers fell apart (△)", "▽": "descriptions say much less (▽)"}


def what_ran(results: Results, planned: Sequence[str], title: str) -> str:
    """What was trained and scored, on what; which variants are missing."""
    variants = [name for name in results.runs if name != "base"]
    counts = sorted({len(results.runs[name]) for name in variants if trained(name)})
    text = f"{title}: {len(variants)} of {len(planned)} variants"
    if counts:
        seeds = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        rows = results.settings.get("rows", {}).get("count")
        text += f", {sum(map(trained, variants))} of them trained"
        text += f" on {rows:,} rows" if rows else ""
        text += f" with {seeds} seed{'' if seeds == '1' else 's'} each"
    runs = results.names[:1]
    sizes = [
        f"{entry.title} ({len(results.items(run, name)):,} items)"
        for run in runs
        for name, entry in BENCHMARKS.items()
        if (results.folder / run / f"{name}.json").is_file()
    ]
    text += f"; scored on {', '.join(sizes)}." if sizes else "."
    missing = [name for name in planned if name not in results.runs]
    return text + (f" Not run: {', '.join(missing)}." if missing else "")


def what_was_found(results: Results, claims: pd.DataFrame) -> list[str]:
    """The highest LP, the full method against DPO, and NaPO against DPO on the same pairs."""
    sentences = [highest_lp(results)]
    full = claims[(claims["variant"] == "A1") & (claims["other"] == "dpo")]
    if (full["answer"] != "not run").any():
        sentences.append(f"The full method (A1) against DPO (dpo): {tally(full, 'metrics')}.")
    ran = claims[claims["answer"] != "not run"]
    pairs = zip(ran["variant"], ran["other"], strict=True)
    same = ran[[pair in SAME_PAIRS for pair in pairs]]
    if len(same):
        compared = dict.fromkeys(f"{row.variant} over {row.other}" for row in same.itertuples())
        words = tally(same, "comparisons", listed=False)
        sentences.append(f"NaPO against DPO on the same pairs ({', '.join(compared)}): {words}.")
    return list(filter(None, sentences)) or ["No comparison of the paper ran."]


def highest_lp(results: Results) -> str:
    """A sentence about the variant with the highest LP; empty if LP was not scored."""
    metric = next((metric for metric in metrics() if metric.name == LP), None)
    if metric is None:
        return ""
    scores = {name: results.estimate(name, metric) for name in results.runs}
    values = {name: score.value for name, score in scores.items() if score}
    values = {name: value for name, value in values.items() if np.isfinite(value)}
    if len(values) < 2:
        return ""
    best = max(values, key=lambda name: values[name])
    text = (
        f"The highest {LP} (judging by the picture, against common sense) is {values[best]:.1f}, "
        f"of {in_words(best)} ({best})"
    )
    change = results.difference(best, "base", metric) if best != "base" else None
    if change:
        word = "" if change.decided else ", not decided"
        numbers = signed(change.value, change.low, change.high)
        text += f": {numbers} points compared with the base{word}"
    return f"{text}."


def tally(rows: pd.DataFrame, unit: str, *, listed: bool = True) -> str:
    """On how many metrics a variant is better, worse, or not decided; `listed` names a few."""
    parts = []
    for answer in ("better", "worse"):
        names = [title.rpartition(" ")[0] for title in rows.loc[rows["answer"] == answer, "metric"]]
        words = f" ({', '.join(names)})" if listed and 0 < len(names) <= FEW else ""
        parts.append(f"{answer} on {len(names) or 'none'}{words}")
    undecided = (~rows["answer"].isin(["better", "worse"])).sum()
    return f"of {len(rows)} {unit}, {', '.join(parts)}, not decided on {undecided or 'none'}"


def what_is_open(claims: pd.DataFrame) -> str:
    """How many comparisons behind the paper's claims are not decided, and how many did not run."""
    counts = claims["answer"].value_counts()
    ran = len(claims) - counts.get("not run", 0)
    if not ran:
        return "None of the comparisons behind the paper's claims ran."
    text = f"{counts.get('not decided', 0)} of {ran} comparisons behind the paper's claims have an "
    text += "interval that contains 0, or seeds of different signs"
    if same := counts.get("the same", 0):
        text += f"; in {same} more every item scores the same"
    if undefined := counts.get("undefined", 0):
        text += f"; {undefined} more are undefined"
    if missing := counts.get("not run", 0):
        text += f"; {missing} of {len(claims)} did not run"
    return f"{text}."


def beside_the_paper(scale: str, model: str, title: str) -> str:
    """Whether our numbers compare with the published ones."""
    if scale == "tiny":
        return (
            f"No. Here: {title}. The paper: RLAIF-V, LLaVA-1.5-{model}. Values do not compare; "
            "the signs of differences between variants may."
        )
    return (
        f"Yes, with care. Here: {title}. The paper: RLAIF-V, LLaVA-1.5-{model}. It does not name "
        "every extractor and judge; the notes of the full editions say what was used here."
    )


def what_to_distrust(results: Results, problems: Sequence[str]) -> list[str]:
    """Marked variants, single seeds, a judge that is a rule, and the given problems."""
    sentences = []
    for mark, words in PROBLEMS.items():
        named = [name for name in results.runs if mark in marks(results, name)]
        if named:
            sentences.append(f"Rows whose {words}: {', '.join(named)}.")
    if any(len(runs) > 1 for runs in results.runs.values()):
        sentences.append("Intervals resample items and average the seeds: the spread over seeds is "
                         "not in them; the full editions have it.")  # fmt: skip
    single = [name for name, runs in results.runs.items() if trained(name) and len(runs) == 1]
    if single:
        listed = ", ".join(single) if len(single) <= FEW else f"{len(single)} variants"
        sentences.append(f"One seed only, so no spread over seeds is known: {listed}.")
    judges = {
        results.result(run, "mmhal")["settings"].get("judge")
        for variant in results.runs
        for run in results.ran(variant, "mmhal")
    }
    if "rule" in judges:
        sentences.append("MMHal-Bench was rated by a rule, not by GPT-4.")
    if "base" not in results.runs:
        sentences.append("The base did not run, so no row can be marked for degenerate answers.")
    return [*sentences, *problems] or ["Nothing is marked."]
