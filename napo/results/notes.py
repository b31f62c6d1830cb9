"""The notes under the tables: how to read them, and how our numbers were scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napo.config.benchmarks import BENCHMARKS, EXTRA, Benchmark, benchmarks_in
from napo.config.variants import VARIANTS

if TYPE_CHECKING:
    from napo.results.collect import Results

OURS = (
    'Ours: mean over seeds ± standard deviation; "not run": this profile has no finished run of '
    "it; –: the paper has no number, or none of our runs corresponds to the row. Brackets hold the "
    "95 % interval: images or instances are resampled, seeds averaged."
)
DIFFERENCE = {
    "paper": "The difference is ours minus published.",
    "tiny": "The difference is to our own base, paired. Our runs use the icon world. The published "
    "numbers come from other data and models and are for orientation only.",
}
CELLS = (
    "A cell: mean over seeds, and beneath it the 95 % interval (images or instances resampled). "
    "Bold: the best {block}."
)
TABLES: dict[int | str, tuple[str, ...]] = {
    1: (
        'The "19.5 % and 18.6 % improvements" of the paper\'s introduction are points over the DPO '
        "row: 58.9 − 39.4 and 44.0 − 25.4.",
        "The paper trained its 13B models for one epoch instead of four.",
    ),
    2: (
        "A3 keeps the weights γ. The paper does not say whether the LB and VB rows use them. It "
        "compares these rows with A2, so here they do not.",
    ),
    3: ("Random: each step trains one of the three terms, drawn at random, with weight 1.",),
    4: (
        "The paper does not say whether these rows use the weights γ; here they do not. ψΣ is used "
        "with α = 0.01, ψμ with α = 0.5.",
    ),
    EXTRA: (
        "Not in the paper. Most rows change both NaPO terms of A1 in the same way and keep its "
        "rule for the weights γ and its learning rate; other rows change what their names say. "
        "Differences to A1 are paired, with 95 % intervals. `make baselines` trains the missing "
        "rows.",
        "Dr. DPO, ROPO and β-DPO are reproduced as losses only. ROPO's filtering of samples, and "
        "β-DPO's filter and moving threshold, are left out.",
    ),
}
MEASURES = {  # for the legend of the report
    "CB, LP": "VLind-Bench: instances whose true and whose false statement are both judged "
    "correctly, although common sense says otherwise. CB: a text states the facts. LP: only the "
    "picture shows them; percent",
    "CHAIRs, Hal": "answers that hallucinate; percent, MMHal-Bench: a share",
    "CHAIRi, CHAIR": "named objects that are not in the picture; percent",
    "Cover, Cog": "AMBER: objects of the picture that are named; hallucinations that people are "
    "prone to; percent",
    "Score": "MMHal-Bench's rating, 0 to 6",
}
OPTIONS = (
    "extractor", "extractor_model", "extractor_prompt", "tagger", "similarity", "judge",
    "judge_model", "judge_prompt", "answered_by", "vlind_image",
)  # fmt: skip
MIXED = "NOT all scored with the same options"
POINTS = 10  # percentage points from the base that mark a row
MARKS = {
    "△": "Degenerate answers (empty, cut by the length limit, or the same three words twice in a "
    f"row) are at least {POINTS} points more frequent than the base's",
    "▽": f"Descriptions name at least {POINTS} points less of what the pictures hold than the "
    "base's; saying less lowers rates of hallucination by itself",
}


def notes(table: int | str, results: Results, scale: str = "tiny") -> list[str]:
    """The notes of a table (1 to 4, or `EXTRA`) that hold for all its rows."""
    benchmarks = benchmarks_in(table)
    general = []
    if table != EXTRA:
        columns = [note for benchmark in benchmarks for note in benchmark.notes]
        general = [f"{OURS} {DIFFERENCE[scale]}", *columns]
    scored = [*scoring(results, benchmarks), *unreadable(results, benchmarks)]
    decoded = contrasts(results, table)
    return [*general, *TABLES[table], *scored, *decoded, *departures_in_words(results)]


def compact_notes(
    table: int | str,
    results: Results,
    variants: Sequence[str],
    *,
    comparable: bool = False,
    symbols: Sequence[str] = (),
) -> tuple[str, ...]:
    """The notes under the compact edition of a table: what a reader needs to read its cells.

    Args:
        table: 1 to 4, or `EXTRA`.
        results: the runs.
        variants: its rows.
        comparable: whether published numbers stand in the cells of ours.
        symbols: the notes to published rows and cells.
    """
    block = "of its column" if table == EXTRA else "of its column in its block"
    reading = CELLS.format(block="of ours in its column" if comparable else block)
    if comparable:
        reading += " In parentheses: the published number."
    missing = [variant for variant in variants if variant not in results.runs]
    how = " `make baselines` trains them." if table == EXTRA else ""
    absent = [f"Not run here: {', '.join(missing)}.{how}"] if missing else []
    differing = [text for text in scoring(results, benchmarks_in(table)) if MIXED in text]
    marked_rows = marked(results, variants)
    return (reading, *symbols, *marked_rows, *absent, *differing, *departures_in_words(results))


def contrasts(results: Results, table: int | str) -> list[str]:
    """How answers of this table were contrasted (VCD), with the variants; none if none were."""
    variants_of: dict[str, list[str]] = {}
    for variant in results.runs:
        tables = VARIANTS[variant].tables if variant in VARIANTS else ()
        if table not in (EXTRA, *tables) and variant != "base":
            continue
        runs = [(run, name) for name in BENCHMARKS for run in results.ran(variant, name)[:1]]
        decodings = [results.result(*run)["settings"]["decoding"] for run in runs[:1]]
        for contrast in [decoding["contrast"] for decoding in decodings if "contrast" in decoding]:
            words = "α = {alpha:g}, β = {beta:g}, noise step {noise_step}".format(**contrast)
            variants_of.setdefault(words, []).append(variant)
    return [
        f"Ours, decoded by visual contrast (VCD, Leng et al. 2024; {words}): {', '.join(variants)}."
        for words, variants in variants_of.items()
    ]


def departures_in_words(results: Results) -> list[str]:
    """A sentence about the settings of the runs that differ from the profile; none if all agree."""
    if not results.departures:
        return []
    listed = "; ".join(
        f"{name} differs"
        if isinstance(ours, list | dict) or isinstance(theirs, list | dict)
        else f"{name} is {ours!r} in the runs and {theirs!r} in the profile"
        for name, (ours, theirs) in sorted(results.departures.items())
    )
    return [f"These runs differ from the profile: {listed}."]


def marks(results: Results, variant: str) -> dict[str, str]:
    """The marks of a variant whose answers are much worse than the base's, with the numbers."""
    if variant == "base" or "base" not in results.runs:
        return {}
    of_base, numbers = results.degenerate("base"), {"△": [], "▽": []}
    for (name, task), share in results.degenerate(variant).items():
        title = f"{BENCHMARKS[name].title} {task}".strip()
        numbers["△"].append((title, 100 * share, 100 * of_base.get((name, task), 1)))
    for benchmark in BENCHMARKS.values():
        columns = (*benchmark.metrics, *benchmark.details)
        for metric in [metric for metric in columns if metric.key == benchmark.coverage]:
            both = [results.estimate(name, metric) for name in (variant, "base")]
            if all(both):
                numbers["▽"].append((metric.name, *(estimate.value for estimate in both)))
    texts = {
        mark: ", ".join(
            f"{name} {ours:.1f} % (base {base:.1f} %)"
            for name, ours, base in rows
            if round(ours - base if mark == "△" else base - ours, 6) >= POINTS
        )
        for mark, rows in numbers.items()
    }
    return {mark: text for mark, text in texts.items() if text}


def marks_in_words(texts: Mapping[str, str]) -> str:
    """A variant's marks as one text, such as "△ AMBER generative 31.0 % (base 0.0 %)"."""
    return "; ".join(f"{mark} {text}" for mark, text in texts.items())


def marked(results: Results, variants: Iterable[str]) -> list[str]:
    """The notes that explain the marks of these variants' rows."""
    rows = {name: marks(results, name) for name in dict.fromkeys(variants) if name in results.runs}
    if rows and "base" not in results.runs:
        return [
            "No row is marked for degenerate answers, because the base did not run; every run's "
            "share is in measurements.csv."
        ]
    sentences = []
    for mark, meaning in MARKS.items():
        texts = [f"{name}: {texts[mark]}" for name, texts in rows.items() if mark in texts]
        if texts:
            sentences.append(f"{mark} {meaning}. {'; '.join(texts)}.")
    return sentences


def unreadable(results: Results, benchmarks: Sequence[Benchmark]) -> list[str]:
    """How many answers, or judge's replies, the official readers could not read, if any."""
    sentences = []
    for benchmark in benchmarks:
        shares, differing = {}, 0.0
        for variant in results.runs:
            for run in results.ran(variant, benchmark.name):
                result = results.result(run, benchmark.name)
                texts = result.get("lenient", {}).get("texts")
                if texts:
                    share = 100 * result["answers"]["unreadable"] / texts
                    shares[variant] = max(shares.get(variant, 0.0), share)
                    differing = max(differing, 100 * result["lenient"]["differing"] / texts)
        words = [f"{variant} {share:.2f} %" for variant, share in shares.items() if share]
        if words or differing:
            reread = f"up to {differing:.2f} % of a run's" if differing else "none"
            sentences.append(
                f"{benchmark.title}, ours: share of answers, or of a judge's replies, that the "
                f"official reader cannot read, in the worst seed: {', '.join(words) or 'none'}. A "
                f"lenient reader reads {reread} otherwise; its scores are in measurements.csv."
            )
    return sentences


def scoring(results: Results, benchmarks: Sequence[Benchmark]) -> list[str]:
    """The options that made our numbers. If runs differ, each group is named."""
    sentences = []
    for benchmark in benchmarks:
        runs_of_options: dict[str, list[str]] = {}
        for variant in results.runs:
            for run in results.ran(variant, benchmark.name):
                options = _in_words(results.result(run, benchmark.name)["settings"])
                runs_of_options.setdefault(options, []).append(run)
        if len(runs_of_options) == 1:
            sentences.append(f"{benchmark.title}, ours: {next(iter(runs_of_options))}.")
        elif runs_of_options:
            groups = [f"{words} ({', '.join(runs)})" for words, runs in runs_of_options.items()]
            sentences.append(f"{benchmark.title}, ours, {MIXED}: {'; '.join(groups)}.")
    return sentences


def _in_words(settings: Mapping[str, Any]) -> str:
    """A result's settings in words, such as "extractor vocabulary, greedy, ..."."""
    words = []
    for key in OPTIONS:
        value = settings.get(key)
        if value:
            text = " and ".join(value) if isinstance(value, list) else str(value)
            words.append(f"{key.replace('_', ' ')} {text}")
    decoding = settings["decoding"]
    temperature = decoding["temperature"]
    words.append(f"temperature {temperature:g}" if temperature > 0 else "greedy")
    if decoding["num_beams"] > 1:
        words.append(f"{decoding['num_beams']} beams")
    return ", ".join([*words, f"at most {decoding['max_new_tokens']} new tokens"])
