import pandas as pd

from napo.results import figures


def test_each_row_shows_length_the_margin_of_its_rule_and_gamma():
    columns = {}
    for term, size in (("rejected", 1.0), ("vision_biased", 3.0)):
        columns[f"{term}_psi_sum"] = [size, 2 * size]
        columns[f"{term}_psi_mean"] = [0.1, 0.2]
        columns[f"{term}_gamma"] = [size / 4, size / 4]
    frames = [
        pd.DataFrame({"variant": name, "seed": 0, "step": [0, 1], **columns})
        for name in ("A1", "A1-mean-gamma")
    ]
    figure = figures.gamma_collapse(
        pd.concat(frames),
        {"rejected": 14.0, "vision_biased": 17.0},
        {"A1": "margin", "A1-mean-gamma": "mean-margin"},
    )
    panels = figure.axes
    assert len(panels) == 6
    assert [bar.get_width() for bar in panels[0].patches] == [14.0, 17.0]
    sums, means = ([list(line.get_ydata()) for line in panels[i].lines] for i in (1, 4))
    assert sums == [[1.0, 2.0], [3.0, 6.0]]
    assert means == [[0.1, 0.2], [0.1, 0.2]]
    assert [list(line.get_ydata()) for line in panels[2].lines] == [[0.25, 0.25], [0.75, 0.75]]
