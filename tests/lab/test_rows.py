from lab_fixtures import ids, row, text_of

from napo.errors import NapoError
from napo.lab.rows import Rows


def test_the_gallery_shows_each_row_with_four_responses_marked_against_the_chosen_one():
    made = Rows([row("r1")])
    said = text_of(made.static)
    for part in ("r1", "what colour ?", "Chosen", "Rejected", "Language-biased", "Vision-biased"):
        assert part in said
    assert made.static.count("<mark>black</mark>") == 3 and "<mark>red" not in made.static


def test_a_response_that_equals_the_chosen_one_is_said():
    assert text_of(Rows([row(text="the cat is red . ")]).static).count("equals the chosen") == 3


def test_pages_turn_and_stop_at_the_ends():
    made = Rows([row(str(at)) for at in range(10)])
    made.wake()
    assert ids(made.view.value) == ids(made.static) == ["0", "1", "2", "3"]
    made.pages.on.click()
    made.pages.on.click()
    assert ids(made.view.value) == ["8", "9"] and made.pages.on.disabled
    assert made.pages.place.value == "9 to 10 of 10"
    made.pages.page = 99
    assert made.pages.page == 2
    made.pages.page = -1
    assert ids(made.view.value) == ["0", "1", "2", "3"] and made.pages.back.disabled


def test_a_search_finds_in_questions_and_responses_whatever_the_case():
    data = [row(str(at), question="a DOG ?" if at % 3 == 0 else "a cat ?") for at in range(10)]
    data[4]["vision_biased"] = "There is a Dog."
    made = Rows(data)
    made.wake()
    made.pages.page = 2
    made.search.value = "dog"
    assert ids(made.view.value) == ["0", "3", "4", "6"] and made.pages.page == 0
    made.search.value = "no such thing"
    assert ids(made.view.value) == [] and made.pages.place.value == "0 of 0"


def test_a_row_whose_picture_breaks_is_said_and_the_rest_can_still_be_seen():
    class Data(list):
        def __getitem__(self, at):
            if at == 4:
                raise NapoError("Row 4: its image cannot be used.")
            return super().__getitem__(at)

    made = Rows(Data(row(str(at)) for at in range(9)))
    made.wake()
    made.pages.page = 1
    assert "Row 4: its image" in made.message.value and made.view.value == ""
    made.pages.page = 2
    assert ids(made.view.value) == ["8"] and made.message.value == ""
