"""Separation statistics: how well a log-prob margin separates noise from noise-free (Fig. 4).

The AUROC of a margin is the chance that a noise-free response has a larger margin than noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from napo.config.variants import BIASED

STATISTICS = {"sum": "margin_sum", "mean": "margin_mean"}
PAPERS_CHOICE = {"language_biased": "mean", "vision_biased": "sum"}  # §3.2, Fig. 4
LEFT_OUT = "no-image"  # questions that need no image say nothing about bias
# Of each label: with 5 a 95 % bootstrap interval of the AUROC holds the truth in 79 to 85 % of
# simulations (true AUROC 0.76 and 0.92), with 10 in 86 to 93 %.
ENOUGH = 10


def separation(margins: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """How well each margin separates noise-free from noise.

    One row for each kind, group, choice about responses equal to the chosen one, and statistic.
    Unsure labels and questions that need no image are left out. `resamples` are drawn within noise
    and within noise-free.

    Returns:
        Columns `kind`, `group` ("all" and each group among the labels), `equal_kept` (bool),
        `statistic` ("sum" or "mean"), `n`, `noise`, `equal`, `noise_equal` (counts; the last of
        noise that equals the chosen response), `noise_share`, `median_noise`, `median_noise_free`,
        `auroc`, and `gain` (this AUROC minus the other statistic's, paired); shares, AUROCs and
        gains with 95 % intervals `_low`, `_high`. Intervals are missing with fewer than 10 of
        either label, and for an AUROC of 0 or 1, because every resample repeats it.
    """
    decided = margins[margins["label"].isin(("biased", "unbiased"))]
    rows: list[dict[str, Any]] = []
    for kind, group, part in groups(decided):
        for equal_kept in (True, False) if len(part) else ():
            cell = part if equal_kept else part[~part["equal_to_chosen"].astype(bool)]
            facts = {"kind": kind, "group": group, "equal_kept": equal_kept}
            rows += [{**facts, **row} for row in _separate(cell, resamples, seed)]
    return pd.DataFrame(rows)


def groups(labels: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Each kind's labels as a whole ("all") and by known group, without `LEFT_OUT`.

    Yields:
        Kind, group, and their rows; "all" may have none.
    """
    labels = labels[labels["group"] != LEFT_OUT]
    for kind in BIASED:
        of_kind = labels[labels["kind"] == kind]
        yield kind, "all", of_kind
        yield from ((kind, group, part) for group, part in of_kind.groupby("group") if group)


def auroc(noise_free: Sequence[float], noise: Sequence[float]) -> float:
    """Chance that a noise-free response has the larger margin, ties counted half.

    0.5 is chance, 1 separates fully, 0 separates with the opposite sign; missing if a side is
    empty.
    """
    if len(noise_free) == 0 or len(noise) == 0:
        return float("nan")
    ones = np.ones((1, len(noise_free))), np.ones((1, len(noise)))
    return float(_aurocs(np.asarray(noise_free, float), np.asarray(noise, float), *ones)[0])


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share."""
    from scipy.stats import binomtest

    if total == 0:
        return float("nan"), float("nan")
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def headline(separation: pd.DataFrame) -> pd.DataFrame:
    """The rows that Fig. 4 shows: questions where groups are known, otherwise everything.

    Descriptions are reported separately: a description that claims nothing false is always noise.
    """
    parts = [
        part[part["group"] == ("question" if "question" in set(part["group"]) else "all")]
        for _, part in (separation.groupby("kind", sort=False) if len(separation) else ())
    ]
    return pd.concat(parts, ignore_index=True) if parts else separation


def describe(separation: pd.DataFrame) -> str:
    """What the margins of each kind show, in words: one paragraph for each kind."""
    if separation.empty:
        return "No response is labelled as noise or noise-free, so there is nothing to compare."
    kinds = headline(separation).groupby("kind", sort=False)
    return "\n\n".join(_paragraph(kind, part) for kind, part in kinds)


def separation_to_read(separation: pd.DataFrame) -> pd.DataFrame:
    """The separation as a table of texts, a row for each kind, group and statistic.

    `without equal` is the AUROC without the responses that equal the chosen one.
    """
    rows = []
    by = ["kind", "group", "statistic"]
    for key, part in separation.groupby(by, sort=False) if len(separation) else ():
        kept, without = (part[part["equal_kept"] == keep].iloc[0] for keep in (True, False))
        medians = (kept["median_noise_free"], kept["median_noise"])
        shown = ("" if pd.isna(value) else f"{value:.2f}" for value in medians)
        areas = (value_with_interval(row, "auroc") for row in (kept, without))
        rows.append((*key, *kept[["n", "noise", "equal"]], *areas, *shown))
    columns = [*by, "n", "noise", "equal", "AUROC", "without equal"]
    columns += ["median noise-free", "median noise"]
    return pd.DataFrame(rows, columns=columns).set_index(by)


def papers_reading(separation: pd.DataFrame) -> pd.DataFrame:
    """What the paper reads in Fig. 4, a row each, beside what these margins say.

    The paper's own choice of margin is tested twice: whether noise has the smaller one, and whether
    it separates better than the other margin.

    Returns:
        Index `the paper reads`; columns `here` (an AUROC, or a difference of two, with its
        interval) and `holds` ("yes", "no", or "not decided": the interval contains chance).
    """
    names = {"sum": "summed margin", "mean": "per-token margin"}
    rows = []
    for row in headline(separation).to_dict("records"):
        if not row["equal_kept"] or row["statistic"] != PAPERS_CHOICE[row["kind"]]:
            continue
        kind, margin = row["kind"].replace("_", "-"), names[row["statistic"]]
        for text, name, chance in (
            (f"{kind}: noise has the smaller {margin}", "auroc", 0.5),
            (f"{kind}: the {margin} separates better", "gain", 0.0),
        ):
            here = value_with_interval(row, name, "+" if name == "gain" else "")
            above = row[f"{name}_low"] > chance or (name, row[name]) == ("auroc", 1)
            below = row[f"{name}_high"] < chance
            holds = "yes" if above else "no" if below else "not decided"
            rows.append((text, f"{'AUROC' if name == 'auroc' else 'difference'} {here}", holds))
    return pd.DataFrame(rows, columns=["the paper reads", "here", "holds"]).set_index(
        "the paper reads"
    )


def value_with_interval(row: Mapping[str, Any], name: str, sign: str = "") -> str:
    """A column of the separation and its interval as text, such as "0.812 [0.701, 0.905]"."""
    if np.isnan(row[name]):
        return "not defined"
    value, low, high = (f"{row[name + end]:{sign}.3f}" for end in ("", "_low", "_high"))
    return value if np.isnan(row[f"{name}_low"]) else f"{value} [{low}, {high}]"


def _separate(cell: pd.DataFrame, resamples: int, seed: int) -> list[dict[str, Any]]:
    """The rows of `separation` for one set of labelled responses, a row for each statistic."""
    is_noise = (cell["label"] == "unbiased").to_numpy()
    equal = cell["equal_to_chosen"].to_numpy(bool)
    noise, n = int(is_noise.sum()), len(cell)
    noise_low, noise_high = wilson(noise, n)
    sides = {
        name: (cell[column].to_numpy(float)[~is_noise], cell[column].to_numpy(float)[is_noise])
        for name, column in STATISTICS.items()
    }
    areas = {name: auroc(*side) for name, side in sides.items()}
    enough = min(noise, n - noise) >= ENOUGH
    resampled = _bootstrap(sides, resamples, seed) if enough else {}
    missing = np.full(1, np.nan)
    rows = []
    for name, other in (("sum", "mean"), ("mean", "sum")):
        area = areas[name]
        known = resampled[name] if enough and area not in (0, 1) else missing
        gain = resampled[name] - resampled[other] if enough else missing
        (auroc_low, auroc_high), (gain_low, gain_high) = (
            map(float, np.quantile(values, (0.025, 0.975))) for values in (known, gain)
        )
        free, noisy = sides[name]
        rows.append({
            "statistic": name, "n": n, "noise": noise, "equal": int(equal.sum()),
            "noise_equal": int((equal & is_noise).sum()),
            "noise_share": noise / n if n else float("nan"),
            "noise_low": noise_low, "noise_high": noise_high,
            "median_noise": float(np.median(noisy)) if noise else float("nan"),
            "median_noise_free": float(np.median(free)) if noise < n else float("nan"),
            "auroc": area, "auroc_low": auroc_low, "auroc_high": auroc_high,
            "gain": area - areas[other], "gain_low": gain_low, "gain_high": gain_high,
        })  # fmt: skip
    return rows


def _bootstrap(
    sides: Mapping[str, tuple[np.ndarray, np.ndarray]], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of resamples; each statistic gets the same draws, so that differences are paired."""
    rng = np.random.default_rng(seed)
    free, noise = (len(side) for side in sides["sum"])
    rows = max(1, 2_000_000 // (free + noise))  # resamples at a time, to bound memory
    areas: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        counts = [rng.multinomial(n, np.full(n, 1 / n), size=size) for n in (free, noise)]
        for name, (a, b) in sides.items():
            areas[name].append(_aurocs(a, b, *counts))
    return {name: np.concatenate(parts) for name, parts in areas.items()}


def _aurocs(
    free: np.ndarray, noise: np.ndarray, free_counts: np.ndarray, noise_counts: np.ndarray
) -> np.ndarray:
    """AUROC of each resample; counts of each response are (resamples, responses)."""
    pooled = np.concatenate([free, noise])
    order = np.argsort(pooled, kind="stable")
    starts = np.flatnonzero(np.diff(pooled[order], prepend=np.nan))  # where a new value begins
    padded = (
        np.pad(free_counts, ((0, 0), (0, len(noise)))),
        np.pad(noise_counts, ((0, 0), (len(free), 0))),
    )
    free_at, noise_at = (np.add.reduceat(each[:, order], starts, axis=1) for each in padded)
    below = np.cumsum(noise_at, axis=1) - noise_at / 2  # ties count half
    return (free_at * below).sum(axis=1) / (free_at.sum(axis=1) * noise_at.sum(axis=1))


def _paragraph(kind: str, part: pd.DataFrame) -> str:
    """One kind: its share of noise, both AUROCs, and which margin separates better."""
    by = {(row["equal_kept"], row["statistic"]): row for row in part.to_dict("records")}
    total, mean = by[True, "sum"], by[True, "mean"]
    share, low, high = (f"{100 * total[f'noise_{end}']:.0f} %" for end in ("share", "low", "high"))
    name = kind.replace("_", "-").capitalize() + " responses"
    rows = "" if total["group"] == "all" else f" ({total['group']} rows)"
    noise_free = total["equal"] - total["noise_equal"]
    sentences = [
        f"{name}{rows}: {total['noise']} of {total['n']} are noise ({share}, 95 % interval {low} "
        f"to {high}); {total['equal']} equal the chosen response"
        + (f", {noise_free} of these are labelled noise-free." if noise_free else ".")
    ]
    if np.isnan(total["auroc"]):
        label = "noise" if total["noise"] else "noise-free"
        return f"{sentences[0]} All are {label}, so the AUROC is not defined."
    sentences += [
        f"AUROC (0.5 is chance, 1 is full separation): {value_with_interval(total, 'auroc')} for "
        f"the summed margin, {value_with_interval(mean, 'auroc')} for the per-token margin.",
        _comparison(total, mean, PAPERS_CHOICE[kind]),
    ]
    total, mean = by[False, "sum"], by[False, "mean"]
    if by[True, "sum"]["equal"] and not np.isnan(total["auroc"]):
        sentences.append(
            f"Without responses that equal the chosen one: {100 * total['noise_share']:.0f} % are "
            f"noise; AUROC {value_with_interval(total, 'auroc')} for the summed margin, "
            f"{value_with_interval(mean, 'auroc')} for the per-token margin."
        )
    return " ".join(sentences)


def _comparison(total: Mapping[str, Any], mean: Mapping[str, Any], papers: str) -> str:
    """Which margin separates better, as far as the interval of the difference shows it."""
    names = {"sum": "summed margin", "mean": "per-token margin"}
    paper = f"in the paper's Fig. 4 the {names[papers]} separates better"
    if total["noise_equal"] == total["noise"]:
        return (
            "All noise equals the chosen response, so its margins are 0 by definition: the AUROC "
            "shows only how often noise-free margins are positive, and these labels cannot show "
            f"which margin is better ({paper})."
        )
    if np.isnan(total["gain_low"]):
        counts = {"noise": total["noise"], "noise-free": total["n"] - total["noise"]}
        rarer = min(counts, key=lambda label: counts[label])
        return (
            f"Only {counts[rarer]} labelled {rarer}: too few for an interval (at least {ENOUGH} "
            f"are needed), so these labels do not show which margin is better ({paper})."
        )
    difference = value_with_interval(total, "gain", sign="+")
    gap = f"difference of the AUROCs, summed minus per-token, {difference}"
    if total["gain_low"] > 0 or total["gain_high"] < 0:
        better = "sum" if total["gain_low"] > 0 else "mean"
        agrees = "as in the paper's Fig. 4" if better == papers else f"but {paper}"
        words = f"The {names[better]} separates better ({gap}), {agrees}."
    else:
        words = f"The interval does not show which margin separates better ({gap}); {paper}."
    for row in (total, mean):
        name = names[row["statistic"]]
        if row["auroc"] == 0 or row["auroc_high"] < 0.5:
            words += f" The {name} is larger for noise, against the paper's claim."
        elif row["auroc_low"] <= 0.5:
            words += f" The interval of the {name} includes 0.5: it may not separate at all."
    return words
