from napo import lab, stages
from napo.noise.samples import shares


def test_in_batch_the_labels_are_read_shown_and_counted(smoke, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    made, labels = lab.annotation(smoke), stages.annotate(smoke)
    assert made.widget is None and made.labels.equals(labels)
    assert made.shares().equals(shares(labels).round(3))
    made._ipython_display_()
    assert displayed[0].equals(labels.head())


def test_interactive_shows_the_annotator_and_counts_nothing_yet(smoke, monkeypatch):
    displayed = []
    monkeypatch.setattr("IPython.display.display", displayed.append)
    made = lab.annotation(smoke, "ada", interactive=True)
    made._ipython_display_()
    assert displayed == [made.widget] and made.widget.annotator == "ada"
    assert made.labels is None and made.shares().startswith("Label above.")
