"""Why gamma goes to one term: the length of the responses, the growth of margins, the share."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from napo.results.figures.style import PAGE, new_figure, settle, sort_variants, style
from napo.results.figures.training import look, per_step, terms_of, words_of

READ = {"margin": "psi_sum", "tempered": "psi_sum", "mean-margin": "psi_mean"}  # by the gamma rule
TITLES = {"psi_sum": r"$\psi_\Sigma$", "psi_mean": r"$\psi_\mu$"}


def gamma_collapse(
    records: pd.DataFrame, tokens: Mapping[str, float], rules: Mapping[str, str]
) -> Figure:
    """A row of three panels for each variant.

    Left the mean length of each term's response, then the margin that gamma is computed from, then
    gamma; the last two over training, mean over seeds.

    Args:
        records: of runs, with the column `variant`; per example or per step.
        tokens: term -> mean number of tokens of its response.
        rules: variant -> its gamma rule, one of `READ`.
    """
    steps = per_step(records)
    variants = [name for name in sort_variants(steps["variant"].unique()) if name in rules]
    with style():
        figure = new_figure(PAGE, 0.3 + 1.75 * len(variants))
        panels = figure.subplots(
            len(variants), 3, squeeze=False, gridspec_kw={"width_ratios": (1, 1.4, 1.4)}
        )
        for (lengths, growth, share), name in zip(panels, variants, strict=True):
            part, margin = steps[steps["variant"] == name], READ[rules[name]]
            terms = terms_of(part, "gamma")
            lengths.barh(
                [words_of(term) for term in terms],
                [tokens[term] for term in terms],
                color=[look(term)["color"] for term in terms],
                height=0.6,
            )
            lengths.invert_yaxis()
            lengths.set_ylabel(name, weight="bold")
            for ax, suffix in ((growth, margin), (share, "gamma")):
                means = part.groupby("step")[[f"{term}_{suffix}" for term in terms]].mean()
                for term in terms:
                    ax.plot(means.index, means[f"{term}_{suffix}"], **look(term))
                ax.margins(x=0.01)
            growth.set_title(f"margin that $\\gamma$ reads: {TITLES[margin]} (nats)")
            share.set_ylim(0, 1.03)
        panels[0][0].set_title("tokens of the response")
        panels[0][2].set_title(r"weight $\gamma$")
        for ax in panels[-1][1:]:
            ax.set_xlabel("optimiser step")
        return settle(figure)
