"""The extra table: other robust losses in the place of NaPO's, which the paper does not compare.

A row is the full method (A1) with its two NaPO terms replaced and the rule of the weights gamma
kept, so that rows differ in the loss alone; the last two rows add to A1 what their names say.
`make baselines` trains them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napo.results import tables
from napo.results.collect import METRICS
from napo.results.notes import scored
from napo.results.tables import Table

if TYPE_CHECKING:
    from napo.results.collect import Results

TITLE = "Other robust losses in NaPO's place"
DIFFERENCE = "ours − A1"
# What a variant of `napo.method.objective.VARIANTS` is called here, with its source.
NAMES = {
    "A1": "NaPO, q of Eq. 12 (A1)",
    "A3": "DPO (A3)",
    "cdpo": "cDPO, ε = 0.1 (Mitchell 2023)",
    "rdpo": "rDPO, ε = 0.1 (Chowdhury et al. 2024)",
    "ipo": "IPO (Azar et al. 2024)",
    "drdpo": "Dr. DPO, β′ = 1 (Wu et al. 2025)",
    "ropo": "ROPO's loss, α = 2 (Liang et al. 2024)",
    "beta-dpo": "β-DPO, α = 0.6 (Wu et al. 2024)",
    "q-0.1": "NaPO, q = 0.1",
    "q-0.5": "NaPO, q = 0.5",
    "q-0.9": "NaPO, q = 0.9",
    "A1-original": "NaPO on the original pair too (Appendix A)",
    "A1-sft": "A1 and 0.1 × SFT on the chosen response",
}
SHOWN = (*METRICS[:4], next(metric for metric in METRICS if metric.name == "AMBER Cover"))


def table(results: Results) -> Table:
    """The extra table, a row for each of `NAMES`; what did not run says so.

    Args:
        results: what ran, "A1" among it for the differences.
    """
    import pandas as pd

    rows, long = [], []
    for variant in NAMES:
        cells = {}
        for metric in SHOWN:
            found = results.estimate(variant, metric)
            change = results.difference(variant, "A1", metric) if variant != "A1" else None
            cells[(metric.title, "ours")] = tables.measured_cell(found, metric)
            cells[(metric.title, DIFFERENCE)] = tables.difference_cell(change, metric)
            long.append(
                {
                    "row": NAMES[variant],
                    "variant": variant,
                    "metric": metric.name,
                    "ran": found is not None,
                    **tables.numbers("ours", found),
                    "seeds": found.seeds if found else 0,
                    **tables.numbers("minus_a1", change),
                }
            )
        rows.append(cells)
    frame = pd.DataFrame(rows, index=pd.Index(NAMES.values(), name="row"))
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    notes = (
        "Not in the paper. A row is A1 with both of its NaPO terms changed in the same way, the "
        "rule of the weights γ kept, at A1's learning rate; the last two rows add to A1 what their "
        "names say. Differences to A1 are paired, with 95 % intervals. `make baselines` trains "
        "what is not run.",
        "Dr. DPO, ROPO and β-DPO stand for their losses: ROPO's dropping of samples and β-DPO's "
        "filter and moving threshold are left out.",
        *scored(results, ("vlind", "object_halbench", "amber")),
    )
    return Table(None, TITLE, frame, pd.DataFrame(long), notes)
