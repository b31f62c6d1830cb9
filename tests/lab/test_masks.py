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


def test_under_the_profiles_masks_the_model_answers_the_rows_biased_responses(smoke):
    made, rows = lab.masks(smoke), stages.biased_rows(smoke)
    made.row.value = 30
    row = rows[rows["id"].index(made.read_row(30)["id"])]
    answers = {example.title: example.answer for example in made.examples()}
    assert answers["image: mask_token"] == row["language_biased"]
    assert answers["question: mask_token"] == row["vision_biased"]
    assert answers["no mask"] and "".join(answers["no mask"].split()) in "".join(
        text_of(made.cards()).split()
    )
