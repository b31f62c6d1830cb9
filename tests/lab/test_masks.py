from lab_fixtures import text_of

from napo import lab, stages
from napo.config.settings import IMAGE_MASKS, TEXT_MASKS
from napo.data import sources


def test_the_slider_shows_any_row_of_the_source_under_each_mask(smoke):
    made = lab.masks(smoke)
    made.wake()
    questions = [entry["question"] for entry in sources.texts(stages.source_folder(smoke))]
    titles = ["the picture", "no mask"]
    titles += [f"image: {mask}" for mask in IMAGE_MASKS] + [f"question: {m}" for m in TEXT_MASKS]
    assert made.row.max == 63
    for number in (30, 63):  # of two shards
        made.row.value = number
        said = text_of(made.view.value)
        assert all(title in said for title in titles) and "(empty)" not in said
        assert "".join(questions[number].split()) in "".join(said.split())
        assert f'alt="Row {number}, the picture"' in made.view.value
