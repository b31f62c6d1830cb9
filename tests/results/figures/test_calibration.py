"""The reliability curve."""

import numpy as np
import pandas as pd

from napo.results import figures


def test_a_point_has_its_probability_its_share_and_its_interval():
    frame = pd.DataFrame(
        {
            "kind": ["language_biased", "language_biased", "vision_biased"],
            "count": [1000, 234, 9],
            "predicted": [0.2, 0.6, 0.5],
            "observed": [0.1, 0.7, 0.4],
            "low": [0.05, 0.6, 0.2],
            "high": [0.2, 0.8, 0.6],
        }
    )
    language, vision = figures.calibration(frame).axes
    assert language.get_title() == "Language-biased responses, 1,234 rows"
    points = language.containers[0]
    np.testing.assert_allclose(points.lines[0].get_xydata(), [[0.2, 0.1], [0.6, 0.7]])
    bars = points.lines[2][0].get_segments()
    np.testing.assert_allclose(bars[0], [[0.2, 0.05], [0.2, 0.2]])
    np.testing.assert_allclose(vision.lines[0].get_xydata(), [[0, 0], [1, 1]])


def test_without_rows_there_is_no_figure():
    assert figures.calibration(pd.DataFrame({"kind": []})) is None
