"""Separation statistics: how well a log-prob margin tells noise from noise-free (Fig. 4).

The AUROC of a margin is the chance that a noise-free response has a larger one than noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from napo.config.variants import BIASED

Separation: TypeAlias = pd.DataFrame

STATISTICS = {"sum": "margin_sum", "mean": "margin_mean"}
PAPERS_CHOICE = {"language_biased": "mean", "vision_biased": "sum"}  # §3.2, Fig. 4
LEFT_OUT = "no-image"  # questions that need no image say nothing about bias
# Of each label: with 5 a 95 % bootstrap interval of the AUROC holds the truth in 79 to 85 % of
# simulations (true AUROC 0.76 and 0.92), with 10 in 86 to 93 %.
ENOUGH = 10


def separation(margins: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> Separation:
    """How well each margin tells noise-free from noise.

    A row for each kind, group, choice about responses equal to the chosen one, and statistic.
    Unsure labels and questions that need no image are left out.

    Args:
        margins: as `margins` gives them.
        resamples: bootstrap resamples, drawn within noise and noise-free.
        seed: of the resamples.

    Returns:
        Columns `kind`, `group` ("all" and each group that is there), `equal_kept` (bool),
        `statistic` ("sum" or "mean"), `n`, `noise`, `equal`, `noise_equal` (counts; the last of
        noise that equals the chosen response), `noise_share` with its 95 % Wilson interval
        `noise_low`, `noise_high`, `median_noise`, `median_noise_free`, `auroc` with its 95 %
        interval `auroc_low`, `auroc_high`, and `gain`, `gain_low`, `gain_high`: by how much this
        AUROC is above the other statistic's, paired. Intervals are missing with fewer than 10 of
        either label, and that of an AUROC of 0 or 1, of which resamples know no other; medians and
        AUROC are missing with none.
    """
    decided = margins[margins["label"].isin(("biased", "unbiased"))]
    decided = decided[decided["group"] != LEFT_OUT]
    found: list[dict[str, Any]] = []
    for kind in [kind for kind in BIASED if kind in set(decided["kind"])]:
        of_kind = decided[decided["kind"] == kind]
        groups = {name: part for name, part in of_kind.groupby("group") if name}
        for group, part in {"all": of_kind, **groups}.items():
            for equal_kept in (True, False):
                cell = part if equal_kept else part[~part["equal_to_chosen"].astype(bool)]
                facts = {"kind": kind, "group": group, "equal_kept": equal_kept}
                found += [{**facts, **row} for row in _separate(cell, resamples, seed)]
    return pd.DataFrame(found)


def auroc(noise_free: Sequence[float], noise: Sequence[float]) -> float:
    """Chance that a noise-free response has the larger margin, ties counted half.

    0.5 says nothing, 1 separates fully, 0 the wrong way round; missing if a side is empty.
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


def headline(separation: Separation) -> Separation:
    """The rows that speak for Fig. 4: questions where groups are known, otherwise everything.

    Descriptions are reported apart: every one of them that claims nothing false is noise.
    """
    parts = [
        part[part["group"] == ("question" if "question" in set(part["group"]) else "all")]
        for _, part in separation.groupby("kind", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else separation


def describe(separation: Separation) -> str:
    """Which margin tells noise from noise-free for which bias, in words computed from the data.

    A paragraph for each kind.
    """
    if separation.empty:
        return "No response is labelled as noise or noise-free, so there is nothing to compare."
    told = [_tell(kind, part) for kind, part in headline(separation).groupby("kind", sort=False)]
    return "\n\n".join(told)


def separation_to_read(separation: Separation) -> pd.DataFrame:
    """What `separation` found, one line for each kind, group and statistic, intervals in brackets.

    Returns:
        Index `kind`, `group`, `statistic`; columns `n`, `noise`, `equal` (counts), `AUROC`,
        `without equal` (AUROC without the responses that equal the chosen one), `median noise-free`
        and `median noise`, texts.
    """
    found = []
    by = ["kind", "group", "statistic"]
    for key, part in separation.groupby(by, sort=False) if len(separation) else ():
        kept, without = (part[part["equal_kept"] == keep].iloc[0] for keep in (True, False))
        medians = (kept["median_noise_free"], kept["median_noise"])
        shown = ("" if pd.isna(value) else f"{value:.2f}" for value in medians)
        counts = kept[["n", "noise", "equal"]]
        found.append((*key, *counts, _said(kept), _said(without), *shown))
    columns = [*by, "n", "noise", "equal", "AUROC", "without equal"]
    columns += ["median noise-free", "median noise"]
    return pd.DataFrame(found, columns=columns).set_index(by)


def _separate(cell: pd.DataFrame, resamples: int, seed: int) -> list[dict[str, Any]]:
    """The rows of `separation` for one set of labelled responses, a row for each statistic."""
    is_noise = (cell["label"] == "unbiased").to_numpy()
    equal = cell["equal_to_chosen"].to_numpy(bool)
    noise, n = int(is_noise.sum()), len(cell)
    low, high = wilson(noise, n)
    sides = {
        name: (cell[column].to_numpy(float)[~is_noise], cell[column].to_numpy(float)[is_noise])
        for name, column in STATISTICS.items()
    }
    drawn = _bootstrap(sides, resamples, seed) if min(noise, n - noise) >= ENOUGH else None
    found = []
    for name, other in (("sum", "mean"), ("mean", "sum")):
        free, noisy = sides[name]
        area = auroc(free, noisy)
        row = {
            "statistic": name,
            "n": n,
            "noise": noise,
            "equal": int(equal.sum()),
            "noise_equal": int((equal & is_noise).sum()),
            "noise_share": noise / n if n else float("nan"),
            "noise_low": low,
            "noise_high": high,
            "median_noise": float(np.median(noisy)) if noise else float("nan"),
            "median_noise_free": float(np.median(free)) if noise < n else float("nan"),
            "auroc": area,
        }
        known = drawn if area not in (0, 1) else None
        row["auroc_low"], row["auroc_high"] = _interval(known and known[name])
        row["gain"] = area - auroc(*sides[other])
        row["gain_low"], row["gain_high"] = _interval(drawn and drawn[name] - drawn[other])
        found.append(row)
    return found


def _interval(values: np.ndarray | None) -> tuple[float, float]:
    if values is None:
        return float("nan"), float("nan")
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _bootstrap(
    sides: Mapping[str, tuple[np.ndarray, np.ndarray]], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of resamples, the same responses drawn for each statistic so that they pair."""
    rng = np.random.default_rng(seed)
    free, noise = (len(side) for side in sides["sum"])
    rows = max(1, 2_000_000 // (free + noise))  # resamples at a time, to bound memory
    found: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        times = [
            rng.multinomial(count, np.full(count, 1 / count), size=size) for count in (free, noise)
        ]
        for name, (a, b) in sides.items():
            found[name].append(_aurocs(a, b, *times))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _aurocs(
    free: np.ndarray, noise: np.ndarray, free_times: np.ndarray, noise_times: np.ndarray
) -> np.ndarray:
    """AUROC with each response counted so many times; times are (resamples, responses)."""
    pooled = np.concatenate([free, noise])
    order = np.argsort(pooled, kind="stable")
    starts = np.flatnonzero(np.diff(pooled[order], prepend=np.nan))  # where a new value begins
    at_free = np.pad(free_times, ((0, 0), (0, len(noise))))[:, order]
    at_noise = np.pad(noise_times, ((0, 0), (len(free), 0)))[:, order]
    at_free, at_noise = (np.add.reduceat(at, starts, axis=1) for at in (at_free, at_noise))
    below = np.cumsum(at_noise, axis=1) - at_noise / 2  # ties count half
    return (at_free * below).sum(axis=1) / (at_free.sum(axis=1) * at_noise.sum(axis=1))


def _tell(kind: str, part: pd.DataFrame) -> str:
    """One kind's paragraph."""
    by = {(row["equal_kept"], row["statistic"]): row for row in part.to_dict("records")}
    total, mean = by[True, "sum"], by[True, "mean"]
    name, group = kind.replace("_", "-"), total["group"]
    where = "" if group == "all" else f" ({group} rows)"
    said = [
        f"{name.capitalize()} responses{where}: {total['noise']} of {total['n']} are noise "
        f"({_percent(total['noise_share'])}, 95 % interval {_percent(total['noise_low'])} to "
        f"{_percent(total['noise_high'])}); {total['equal']} equal the chosen response"
    ]
    called_free = total["equal"] - total["noise_equal"]
    said[0] += f", {called_free} of them labelled noise-free." if called_free else "."
    if np.isnan(total["auroc"]):
        only = "noise" if total["noise"] else "noise-free"
        return f"{said[0]} All are {only}, so no margin can be asked to separate them."
    said.append(
        f"AUROC of the summed margin {_range(total, 'auroc')}, "
        f"of the per-token margin {_range(mean, 'auroc')}."
    )
    said.append(_verdict(total, mean, PAPERS_CHOICE[kind]))
    without = by[False, "sum"], by[False, "mean"]
    if total["equal"] and not np.isnan(without[0]["auroc"]):
        said.append(
            f"Without those that equal the chosen response (noise share "
            f"{_percent(without[0]['noise_share'])}): summed {_range(without[0], 'auroc')}, "
            f"per token {_range(without[1], 'auroc')}."
        )
    return " ".join(said)


def _verdict(total: Mapping[str, Any], mean: Mapping[str, Any], papers: str) -> str:
    """Whether sum or mean separates better, and whether the interval decides it."""
    called = {"sum": "the sum", "mean": "the per-token average"}
    reading = f"(the paper reads {called[papers]} from its Fig. 4)"
    if total["noise_equal"] == total["noise"]:
        return (
            "All of the noise equals the chosen response, so its margins are 0 by definition: the "
            "AUROC only says how often noise-free margins are positive, and which statistic is "
            f"better cannot be told from these {reading}."
        )
    if np.isnan(total["gain_low"]):
        few = min(total["noise"], total["n"] - total["noise"])
        rarer = "noise" if total["noise"] == few else "noise-free"
        return f"With only {few} {rarer} there is no interval, so nothing is decided {reading}."
    gap = f"sum minus average {_range(total, 'gain', sign=True)}"
    if total["gain_low"] > 0 or total["gain_high"] < 0:
        winner = "sum" if total["gain_low"] > 0 else "mean"
        sides = "as the paper reads it" if winner == papers else f"against {called[papers]}"
        verdict = f"{called[winner].capitalize()} separates better ({gap}), {sides}"
        verdict += "." if winner == papers else ", which the paper reads from its Fig. 4."
    else:
        verdict = f"The interval does not decide which separates better ({gap}) {reading}."
    for row in (total, mean):
        name = called[row["statistic"]]
        if row["auroc"] == 0 or row["auroc_high"] < 0.5:
            verdict += f" By {name}, noise has the larger margins: the wrong way round."
        elif row["auroc_low"] <= 0.5:
            verdict += f" The interval of {name} holds 0.5: perhaps it says nothing."
    return verdict


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _said(row: Mapping[str, Any]) -> str:
    return "not defined" if pd.isna(row["auroc"]) else _range(row, "auroc")


def _range(row: Mapping[str, Any], name: str, sign: bool = False) -> str:
    plus = "+" if sign else ""
    value = f"{row[name]:{plus}.3f}"
    if np.isnan(row[f"{name}_low"]):
        return value
    return f"{value} [{row[f'{name}_low']:{plus}.3f}, {row[f'{name}_high']:{plus}.3f}]"
