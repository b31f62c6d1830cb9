"""Official and lenient readers of the same texts; the lenient one gives None where it doubts."""

import pytest

from napo.benchmarks import amber, lenient, mmhal, vlind
from napo.benchmarks import object_halbench as halbench
from napo.benchmarks.chat import Cut

KIND = "an unreadable reply counts as an answer"


@pytest.mark.kind(KIND)
@pytest.mark.parametrize(
    ("answer", "official", "verdict"),
    [
        ("**True**", "NA", "True"),
        ("(True)", "NA", "True"),
        ("Answer:True", "NA", "True"),
        ("TRUE\r\n", "NA", "True"),
        ("The statement is false!", "NA", "False"),
        ("True.", "True", "True"),
        ("The statement is true", "True", "True"),
        ("There is no cow. True.", "True", "True"),
        ("The statement is not true.", "True", "False"),
        ("It isn't false", "False", "True"),
        ("true or false", "True", None),
        ("True/False", "NA", None),
        ("Neither true nor false.", "True", None),
        ("I cannot say whether it is **true**", "NA", None),
        ("It is not the case that this is **true**", "NA", None),
        ("Partly (true)", "NA", None),
        ("False. The statement is true only in fiction.", "False", None),
        ("untrue", "NA", None),
        ("Yes", "NA", None),
        ("", "NA", None),
    ],
)
def test_true_and_false_are_read_in_any_form(answer, official, verdict, result):
    assert vlind.read_answer(answer) == official
    assert lenient.true_or_false(answer) == verdict
    result(f"{answer!r}: official {official}, lenient {verdict}")


@pytest.mark.kind(KIND)
@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("Yes, it is there", "Yes"),
        ("yes.", "Yes"),
        ("**Yes**", "Yes"),
        (" No", "No"),
        ("No, there is no dog.", "No"),
        ("no it is not", "No"),
        ("No\nA dog is absent", "No"),
        ("The answer is: No.", "No"),
        ("Assistant: Yes", "Yes"),
        ("Yes and no", None),
        ("Yes/No", None),
        ("Yes, there is no dog.", None),
        ("Yes, it isn't", None),
        ("Yes, maybe", None),
        ("No doubt, it is there", None),
        ("No-one is there", None),
        ("No one is there", None),
        ("There is no dog", None),
        ("Not sure", None),
        ("It is there", None),
        ("", None),
    ],
)
def test_a_leading_yes_or_no_is_read_unless_the_rest_may_contradict_it(answer, verdict, result):
    assert answer not in dict(amber.RIGHT)
    assert lenient.yes_or_no(answer) == verdict
    result(f"{answer!r}: officially wrong, lenient {verdict}")


@pytest.mark.kind(KIND)
@pytest.mark.parametrize(
    ("reply", "official", "rating"),
    [
        ("**Rating:** 6", 0, 6),
        ("Rating: **6**", 0, 6),
        ("**Rating**: 4", 0, 4),
        ("Rating:4", 0, 4),
        ("Rating:  3", 0, 3),
        ("Rating:\n6", 0, 6),
        ("Rating：6", 0, 6),
        ("Rating - 4", 0, 4),
        ("Ratings: 5", 0, 5),
        ("I give it a rating of 5.", 0, 5),
        ("Rating (0-6): 5", 0, 5),
        ("6/6", 0, 6),
        ("4 out of 6", 0, 4),
        ("3/6 objects are right. Rating: **5**", 0, 5),
        ("5", 0, 5),
        ("rating: 5 out of 6", 5, 5),
        ("Rating: 6/6", 6, 6),
        ("Rating: 4 ... rating: 4", 4, 4),
        ("Rating: 4 ... Rating: 5", 0, None),
        ("I would say 4/6, or 5/6", 0, None),
        ("Rating: 4 or 5", 4, None),
        ("Rating: 4-5", 4, None),
        ("Rating: 4.9", 4, None),
        ("Rating: 5/10", 5, None),
        ("Rating: 10", 1, None),
        ("Rating: 7", 0, None),
        ("Rating: -1", 0, None),
        ("Rating -1", 0, None),
        ("Overrating: 2", 2, None),
        ("The rating depends on 2 objects", 0, None),
        ("", 0, None),
    ],
)
def test_a_rating_is_read_in_any_form_unless_it_is_in_doubt(reply, official, rating, result):
    assert mmhal.read_rating(reply) == official
    assert lenient.rating(reply) == rating
    result(f"{reply!r}: official {official}, lenient {rating}")


@pytest.mark.kind(KIND)
@pytest.mark.parametrize(
    ("reply", "official", "names"),
    [
        ('["dog"]\nDone', None, ["dog"]),
        ('```json\n["dog", "cat"]\n```', None, ["dog", "cat"]),
        ("['dog']", None, ["dog"]),
        ('Objects: ["dog"].', None, ["dog"]),
        ("No objects.\n[]", None, []),
        ("()", None, []),
        ('Here ["a [b]"]', None, ["a [b]"]),
        ('{"objects": ["dog"]}', ["objects"], ["dog"]),
        ('["dog"]\n["cat"]', ["cat"], None),
        ('"dog"', ["d", "o", "g"], None),
        ('["dog"', None, None),
        ("[" * 5_000, None, None),
        ("[dog]", None, None),
        ("- dog\n- cat", None, None),
        ('<think>["cat"]?</think>\n["dog"]', ["dog"], ["dog"]),
        ('<think>["cat"]', None, None),
        (Cut('["dog"]'), None, None),
        ("", None, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_only_list_of_a_reply_is_read(reply, official, names, result):
    assert halbench.read_both(reply) == lenient.Reading(official, names)
    result(f"{reply[:30]!r}: official {official}, lenient {names}")


@pytest.mark.parametrize(
    ("official", "second", "differs"),
    [(None, "Yes", True), (5, 4, True), (["a"], [], True), (5, 5, False), (5, None, False),
     (None, None, False)],
)  # fmt: skip
def test_readings_differ_where_the_lenient_one_reads_something_else(official, second, differs):
    assert lenient.Reading(official, second).differs is differs
