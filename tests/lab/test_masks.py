import pytest
from lab_fixtures import text_of

from napo import lab, stages
from napo.errors import NapoError
from napo.lab import views


def test_the_slider_shows_any_row_under_each_mask(smoke):
    made = lab.masks(smoke)
    made.wake()
    assert made.row.max == 63 and made.view.value in made.static
    for number in (63, 5):
        made.row.value = number
        seen = views.mask_examples(smoke, number)
        assert text_of(made.view.value).count("(empty)") == 0  # a bare picture has no box of text
        said = text_of(made.view.value)
        assert all(title in said for title, _, _ in seen)
        assert "".join(seen[1][2].split()) in "".join(said.split())
        assert f'alt="Row {number}, the picture"' in made.view.value
    assert made.cards.cache_info().misses == 3


def test_rows_of_masks_are_the_rows_of_the_source_by_number(smoke):
    from napo.data import sources

    asked = [entry["question"] for entry in sources.texts(stages.source_folder(smoke))]
    for number in (0, 30, 63):  # of three shards
        assert views.mask_examples(smoke, number)[1][2] == asked[number]
    with pytest.raises(NapoError, match="has no row number 64"):
        views.mask_examples(smoke, 64)
