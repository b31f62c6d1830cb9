"""The extra table: other robust losses in the place of NaPO's, which the paper does not compare.

A row is the full method (A1) with its two NaPO terms replaced and the rule of the weights gamma
kept, so that rows differ in the loss alone; the last two rows add to A1 what their names say.
`make baselines` trains them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napo.config.benchmarks import EXTRA, metrics, shown
from napo.config.variants import VARIANTS
from napo.results import tables
from napo.results.notes import scored
from napo.results.tables import Table

if TYPE_CHECKING:
    from napo.results.collect import Results

TITLE = "Other robust losses in NaPO's place"
DIFFERENCE = "ours − A1"


def rows(results: Results) -> dict[str, str]:
    """Variant -> row name: entries with a row, and other variants that ran."""
    names = {name: entry.row for name, entry in VARIANTS.items() if entry.row}
    for name in results.runs:
        if name in VARIANTS and name not in names and not VARIANTS[name].tables:
            names[name] = VARIANTS[name].title or name
    return names


def extra_table(results: Results) -> Table:
    """The extra table, a row for each variant of `rows`; what did not run says so.

    Args:
        results: what ran, "A1" among it for the differences.
    """
    import pandas as pd

    cells_of_rows, long, names = [], [], rows(results)
    for variant, name in names.items():
        cells = {}
        for metric in metrics(EXTRA):
            found = results.estimate(variant, metric)
            change = results.difference(variant, "A1", metric) if variant != "A1" else None
            cells[(metric.title, "ours")] = tables.measured_cell(found, metric)
            cells[(metric.title, DIFFERENCE)] = tables.difference_cell(change, metric)
            long.append(
                {
                    "row": name,
                    "variant": variant,
                    "metric": metric.name,
                    "ran": found is not None,
                    **tables.numbers("ours", found),
                    "seeds": found.seeds if found else 0,
                    **tables.numbers("minus_a1", change),
                }
            )
        cells_of_rows.append(cells)
    frame = pd.DataFrame(cells_of_rows, index=pd.Index(names.values(), name="row"))
    frame.columns = pd.MultiIndex.from_tuples(frame.columns)
    notes = (
        "Not in the paper. A row is A1 with both of its NaPO terms changed in the same way, the "
        "rule of the weights γ kept, at A1's learning rate; the last two rows add to A1 what their "
        "names say. Differences to A1 are paired, with 95 % intervals. `make baselines` trains "
        "what is not run.",
        "Dr. DPO, ROPO and β-DPO stand for their losses: ROPO's dropping of samples and β-DPO's "
        "filter and moving threshold are left out.",
        *scored(results, shown(EXTRA)),
    )
    return Table(None, TITLE, frame, pd.DataFrame(long), notes)
