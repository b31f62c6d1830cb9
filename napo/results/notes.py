"""How Tables 1 to 4 are to be read: what the paper leaves open, and how our numbers were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napo.config.benchmarks import Benchmark, shown

if TYPE_CHECKING:
    from napo.results.collect import Results

_PAPER = {
    1: (
        'The "19.5 % and 18.6 % improvements" of the paper\'s introduction are points over the DPO '
        "row: 58.9 − 39.4 and 44.0 − 25.4.",
        "The paper trained its 13B models for one epoch instead of four.",
    ),
    2: (
        "A3 keeps the weights γ. The paper does not say whether the LB and VB rows use them; it "
        "compares these rows with A2, so here they do not.",
    ),
    3: ("Random: each step trains one of the three terms, drawn anew, with weight 1.",),
    4: (
        "The paper does not say whether these rows use the weights γ; here they do not. ψΣ goes "
        "with α = 0.01, ψμ with α = 0.5.",
    ),
}
_SHOWN = (
    "extractor", "extractor_model", "tagger", "similarity", "judge", "judge_model", "judge_prompt",
    "answered_by", "vlind_image",
)  # fmt: skip


def readings(number: int, results: Results, scale: str) -> list[str]:
    """The notes of a table that hold for all its rows.

    Args:
        number: 1 to 4.
        results: what ran; its result files say how they were scored.
        scale: "tiny" or "paper".
    """
    benchmarks = shown(number)
    columns = [note for benchmark in benchmarks for note in benchmark.notes]
    return [_columns(scale), *columns, *_PAPER[number], *scored(results, benchmarks)]


def _columns(scale: str) -> str:
    ours = (
        'Ours: mean over seeds ± their standard deviation; "not run": nothing ran; –: no number in '
        "the paper, or a row that no run of ours stands for. In brackets the 95 % interval, images "
        "or instances resampled, seeds averaged."
    )
    if scale == "paper":
        return f"{ours} The difference is ours minus published."
    return (
        f"{ours} The difference is to our own base, paired. Ours is the icon world: the published "
        "numbers are of other data and models, and stand there for orientation only."
    )


def scored(results: Results, benchmarks: Sequence[Benchmark]) -> list[str]:
    """Which options made our numbers; runs that were scored in another way are named.

    Args:
        results: what ran.
        benchmarks: those whose numbers are shown.
    """
    told = []
    for benchmark in benchmarks:
        name = benchmark.name
        ways: dict[str, list[str]] = {}
        for variant in results.runs:
            for run in results.ran(variant, name):
                ways.setdefault(_way(results.result(run, name)["settings"]), []).append(run)
        if len(ways) == 1:
            told.append(f"{benchmark.title}, ours: {next(iter(ways))}.")
        elif ways:
            listed = "; ".join(f"{way} ({', '.join(runs)})" for way, runs in ways.items())
            told.append(f"{benchmark.title}, ours, NOT all scored alike: {listed}.")
    return told


def _way(settings: Mapping[str, Any]) -> str:
    """Settings of a result in words, such as "extractor vocabulary, greedy, 48 tokens"."""
    parts = []
    for key in _SHOWN:
        value = settings.get(key)
        if value:
            text = " and ".join(value) if isinstance(value, list) else str(value)
            parts.append(f"{key.replace('_', ' ')} {text}")
    decoding = settings["decoding"]
    warm = decoding["temperature"] > 0
    parts.append(f"temperature {decoding['temperature']:g}" if warm else "greedy")
    if decoding["num_beams"] > 1:
        parts.append(f"{decoding['num_beams']} beams")
    parts.append(f"at most {decoding['max_new_tokens']} new tokens")
    return ", ".join(parts)
