"""A small report with hostile texts in every place."""

import pandas as pd
from matplotlib.figure import Figure

from napo.results.report import Picture, ReportContent, Section, Sheet

HOSTILE = "</td><script>alert(1)</script> & \"quoted\" <img src='http://x/y.png'>"


def content(**changes):
    table = pd.DataFrame({"variant": ["A1", HOSTILE], "LP": [44.0, None]})
    parts = {
        "title": f"Title {HOSTILE}",
        "subtitle": "tiny",
        "summary": {HOSTILE: [HOSTILE]},
        "sections": [
            Section("Figures", [HOSTILE], [Picture("Fig. 3", figure(), HOSTILE)]),
            Section(
                "Tables",
                [],
                [],
                [Sheet("Table 4", table, ["a note", HOSTILE], Sheet("Full", table))],
                {"A1": HOSTILE},
                {"More": [HOSTILE]},
            ),
        ],
        "settings": {"training": {"beta": 0.1}, "variants": ("dpo", "A1"), "x": HOSTILE},
        "versions": {"torch": "2.13"},
        "code": {"this report": "commit abc, clean"},
    }
    return ReportContent(**{**parts, **changes})


def figure():
    drawn = Figure(figsize=(2, 1))
    drawn.subplots().plot([0, 1], [1, 0])
    return drawn
