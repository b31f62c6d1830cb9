"""Which words count as one in AMBER."""

import json

import pytest

from napo.benchmarks.similarity import similar_words
from napo.errors import NapoError


def test_a_table_gives_pairs_above_the_threshold_in_both_directions(tmp_path):
    pairs = [["cat", "dog", 0.822, "own"], ["deer", "antelope", 1.0, "borrowed"],
             ["car", "truck", 0.776, "own"], ["a", "b", 0.8, "own"]]  # fmt: skip
    (tmp_path / "similarity.json").write_text(json.dumps({"threshold": 0.8, "pairs": pairs}))
    table, own = (similar_words(name, tmp_path) for name in ("table", "table-own"))
    assert table("dog", "cat") and table("antelope", "deer") and table("x", "x")
    assert not table("car", "truck") and not table("a", "b")
    assert own("cat", "dog") and own("x", "x") and not own("deer", "antelope")


def test_a_similarity_that_is_not_there_is_told_with_its_remedy(tmp_path):
    with pytest.raises(NapoError, match="put the table there"):
        similar_words("table", tmp_path)
    with pytest.raises(NapoError, match="Did you mean 'table'"):
        similar_words("tabel", tmp_path)


@pytest.mark.kind("raw tracebacks from damaged inputs")
@pytest.mark.parametrize("content", ["3", '{"a": []}', '[["a"]]', '[["a", "b", "high", "own"]]'])
def test_a_table_of_another_shape_is_a_sentence(tmp_path, content, result):
    (tmp_path / "similarity.json").write_text(content)
    with pytest.raises(NapoError, match=r"similarity\.json is damaged; each of its pairs") as error:
        similar_words("table-own", tmp_path)
    result(error.value)
