"""Results of runs that never ran: drawn items, and the files that the runner would write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from napo.benchmarks.intervals import value
from napo.config.benchmarks import BENCHMARKS
from napo.config.runs import result_name, seeds_of
from napo.config.variants import VARIANTS
from napo.workspace.files import write_json
from napo.workspace.manifests import begin, finish

COUNT = 60
NAMED = {
    "vlind": {"vote_threshold": 2, "vlind_image": "best"},
    "object_halbench": {"extractor": "vocabulary"},
    "amber": {"extractor": "vocabulary", "similarity": "identity"},
    "mmhal": {"judge": "rule"},
}
CONTRAST = {"alpha": 1.0, "beta": 0.1, "noise_step": 500}
DECODING = {"max_new_tokens": 48, "num_beams": 1, "temperature": 0.0, "top_p": 1.0}


def items(name: str, chance: float, seed: int, count: int = COUNT) -> pd.DataFrame:
    """Items in which each numerator is 1 with a chance, each denominator 1 (`three`: 3)."""
    rng = np.random.default_rng([seed, len(name)])
    ratios = BENCHMARKS[name].ratios.values()
    columns = {ratio.numerator: (rng.random(count) < chance).astype(int) for ratio in ratios}
    columns |= {ratio.denominator: 1 for ratio in ratios if ratio.denominator not in columns}
    return pd.DataFrame(columns, index=range(count))


def settings_of(run: str) -> dict:
    """The least that a result holds of its run's settings."""
    if run in VARIANTS:  # without training
        return {"variant": run, "contrast": CONTRAST}
    variant, _, seed = run.partition("/seed-")
    tune = "lora" if variant.endswith("-lora") else "full"
    name = {"variant": variant.removesuffix("-lora"), "seed": int(seed), "tune": tune}
    return {**name, "data": {}, "objective": {}}


def write(folder: Path, run: str, seed: int, frames: dict[str, pd.DataFrame], **changes) -> None:
    """The result folder of a run, sealed."""
    path = folder / run
    begin(path, {} if run == "base" else {"run": settings_of(run)})
    decoding = {**DECODING, "contrast": CONTRAST} if run in VARIANTS else DECODING
    for name, frame in frames.items():
        frame.to_csv(path / f"{name}.items.csv", index=False)
        found = {key: value(frame, ratio) for key, ratio in BENCHMARKS[name].ratios.items()}
        result = {
            "benchmark": name,
            "run": run,
            "seed": seed,
            "metrics": {
                key: {"value": number, "low": number, "high": number, "n": len(frame)}
                for key, number in found.items()
            },
            "answers": {"count": len(frame), "degenerate_share": 0.0, "unreadable": 0},
            "lenient": {"texts": 0, "differing": 0, "unreadable": 0, "metrics": {}},
            "settings": {**NAMED[name], "decoding": decoding},
            "fingerprints": {"benchmarks_data": "d", "evaluated": run},
            **changes,
        }
        write_json(path / f"{name}.json", result)
    finish(path)


def drawn(folder: Path, variants: dict[str, float], seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Runs of variants, each with its chance; "base" and "vcd" have one run. Gives the folder."""
    for variant, chance in variants.items():
        for seed in seeds_of(variant, seeds):
            run = result_name(variant, seed)
            made = {name: items(name, chance, seed + 1) for name in BENCHMARKS}
            write(folder, run, seed, made)
    return folder


def margin_frame(groups=("",), equal=4, n=30, unsure=0):
    """Margins of both kinds: noise-free around 3, noise around 1, the first few noise equal."""
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("language_biased", "vision_biased"):
        for group in groups:
            for at in range(2 * n + unsure):
                label = "unsure" if at >= 2 * n else ("biased", "unbiased")[at % 2]
                same = label == "unbiased" and at < 2 * equal
                value = 0.0 if same else rng.normal(3.0 if label == "biased" else 1.0)
                rows.append((f"{group}{at}", kind, group, label, same, value, value / 8))
    names = ["id", "kind", "group", "label", "equal_to_chosen", "margin_sum", "margin_mean"]
    return pd.DataFrame(rows, columns=names)


def records(terms=("rejected", "language_biased", "vision_biased"), seeds=2, steps=20):
    """Records as the trainer keeps them; margins grow with the step, q falls."""
    rows = []
    for seed in range(seeds):
        for step in range(steps):
            for id in "ab":
                row = {"step": step, "id": id, "variant": "A1", "seed": seed, "loss": 1.0}
                for at, term in enumerate(terms):
                    row[f"{term}_psi_sum"] = (at + 1) * step + seed
                    row[f"{term}_psi_mean"] = step / 10
                    row[f"{term}_gamma"] = 1 / len(terms)
                    if term.endswith("biased"):
                        row[f"{term}_q"] = 0.5 - step / 100
                rows.append(row)
    return pd.DataFrame(rows)


def summary_frame(variants=("base", "dpo", "A1")):
    rows = []
    for at, name in enumerate(variants):
        for metric in ("CB", "LP"):
            rows.append((name, metric, 40.0 + at, 35.0 + at, 45.0 + at))
            rows.append((name, f"{metric} true", 47.0 + at, np.nan, np.nan))
            rows.append((name, f"{metric} false", 33.0 + at, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["variant", "metric", "value", "low", "high"])


def texts(figure):
    """All words of a figure, panels, titles and legends included."""
    found = [text.get_text() for text in figure.texts]
    for ax in figure.axes:
        found += [text.get_text() for text in ax.texts]
        found += [ax.get_title(loc=where) for where in ("left", "center")]
        found += [ax.get_xlabel(), ax.get_ylabel()]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return [text for text in found if text]
