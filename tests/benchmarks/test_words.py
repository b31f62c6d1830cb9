"""Words of a text: the official NLTK pipeline where its data are, and the packaged one."""

import pytest

from napo.benchmarks import words
from napo.errors import NapoError

KNOWN = {"man", "hat", "ground", "sign", "dog", "cat", "toy", "grass", "forest", "woman", "ball",
         "tree", "TV"}  # fmt: skip
EXAMPLES = [
    ("A man with a hat walks on the ground near a sign.", ["man", "hat", "ground", "sign"]),
    ("A dog and a cat play with a toy on the grass. People watch from the forest.",
     ["dog", "cat", "toy", "grass", "forest"]),
    ("A man and a woman hold a ball. Trees are visible.", ["man", "woman", "ball"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found"), EXAMPLES)
def test_with_nltk_data_nouns_are_the_official_ones_and_capitals_are_lost(text, found):
    try:
        words.wordnet()
    except NapoError as error:
        assert "nltk.downloader" in str(error)
        pytest.skip(str(error))
    assert words.nouns(text, KNOWN) == found


def test_without_a_tagger_every_known_word_counts_in_lower_case():
    assert words.nouns(EXAMPLES[2][0], KNOWN, "vocabulary") == ["man", "woman", "ball", "tree"]
    assert words.nouns("Dogs, dogs; a TV", KNOWN, "vocabulary") == ["dog", "dog", "TV"]
