"""Damaged, partial and foreign files of the four benchmarks: one sentence with file and key.

The files are those of the icon world's small editions, which have the official names and shapes.
"""

import base64
import json
import re

import pytest

from napo.benchmarks import module
from napo.errors import NapoError

FILES = [
    "vlind/data.json", "object_halbench/questions.jsonl", "object_halbench/synonyms.txt",
    "object_halbench/annotations/instances_val2014.json", "amber/query_discriminative.json",
    "object_halbench/annotations/captions_val2014.json", "amber/annotations.json",
    "amber/relation.json", "amber/safe_words.txt", "amber/query_generative.json",
    "mmhal/response_template.json",
]  # fmt: skip
RAW = pytest.mark.kind("raw tracebacks from damaged inputs")
MISSING = pytest.mark.kind("a missing file is a number")

DAMAGE = {  # how a file is damaged -> what the sentence says
    "HTML": (lambda content: b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a web page"),
    "XML": (lambda content: b'<?xml version="1.0"?><Error>AccessDenied</Error>', "it is XML"),
    "a pointer": (
        lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a pointer of Git LFS",
    ),
    "empty": (lambda content: b"", "it is empty"),
    "blank": (lambda content: b" \n\n", "it is empty"),
    "gzip": (lambda content: b"\x1f\x8b\x08" + content, "gzip; unpack it"),
    "zip": (lambda content: b"PK\3\4" + content, "a zip archive; unpack it"),
    "latin-1": (lambda content: content + "\nGröße\n".encode("latin-1"), "is not UTF-8 text, see"),
    "UTF-16": (lambda content: content.decode().encode("utf-16"), "UTF-16 text; save it as UTF-8"),
    "UTF-16 without a mark": (lambda content: content.decode().encode("utf-16-le"), "UTF-16 text"),
}  # fmt: skip
JSON_DAMAGE = {
    "cut in the middle": (
        lambda content: content[: len(content) // 2],
        r"cut short|not valid JSON",
    ),
    "cut before the end": (lambda content: content.rstrip()[:-1], r"cut short|lacks|is missing"),
    "null": (lambda content: b"null", "it is None; it should be"),
    "a server's error": (lambda content: b'{"error": "rate limit"}', r"it should be|is missing"),
    "nested": (lambda content: b"[" * 100_000, "not valid JSON|it is cut short"),
    "a number of 5,000 digits": (lambda content: b"9" * 5000, "not valid JSON"),
}


def refusal(folder, name):
    """The sentence of loading the benchmark of a file, or of listing its requests."""
    scorer = module(name.partition("/")[0])
    with pytest.raises(NapoError) as error:
        scorer.requests(scorer.load(folder / name.partition("/")[0]))
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 600 and sentence.endswith(".")
    return sentence


@RAW
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_something_else_is_a_sentence(folder, name, damage, result):
    change, part = DAMAGE[damage]
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    sentence = refusal(folder, name)
    result(sentence)
    assert str(folder / name) in sentence and part in sentence and "; get " in sentence


@RAW
@pytest.mark.parametrize("damage", JSON_DAMAGE)
@pytest.mark.parametrize("name", [name for name in FILES if "json" in name])
def test_damaged_json_is_a_sentence(folder, name, damage, result):
    change, part = JSON_DAMAGE[damage]
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    sentence = refusal(folder, name)
    result(sentence)
    assert re.search(part, sentence) and str(folder / name) in sentence


@RAW
@pytest.mark.parametrize("name", FILES)
def test_a_mark_of_utf_8_and_ends_of_lines_of_windows_change_nothing(folder, made, name):
    scorer = module(name.partition("/")[0])
    content = (folder / name).read_bytes().replace(b"\n", b"\r\n")
    (folder / name).write_bytes(b"\xef\xbb\xbf" + content)
    loaded, original = (scorer.load(f / name.partition("/")[0]) for f in (folder, made))
    other = [vars(loaded)[key] for key in vars(loaded) if key != "folder"]
    assert other == [vars(original)[key] for key in vars(original) if key != "folder"]


KEYS = {  # of the entries of a file
    "vlind/data.json": ("concept", "context_id", "context", "factual_context", "best_img_id",
                        "true_statement", "false_statement", "existent_noun", "non-existent_noun",
                        "aggregated_human_label_good_images"),
    "mmhal/response_template.json": ("question", "gt_answer", "image_id", "image_src",
                                     "image_content"),
    "amber/query_generative.json": ("id", "image", "query"),
    "amber/query_discriminative.json": ("id", "image", "query"),
    "amber/annotations.json": ("id", "type", "truth", "hallu"),
}  # fmt: skip


@RAW
@pytest.mark.parametrize("change", ["missing", "null", "another type"])
@pytest.mark.parametrize(("name", "key"), [(n, key) for n in KEYS for key in KEYS[n]])
def test_a_key_that_is_missing_or_of_another_type_is_named(folder, name, key, change, result):
    content = json.loads((folder / name).read_text())
    if change == "missing":
        del content[1][key]
    else:
        content[1][key] = None if change == "null" else 1.5
    if (change, key) == ("null", "best_img_id"):  # an instance without a good image may have none
        content[1][key] = []
    (folder / name).write_text(json.dumps(content))
    sentence = refusal(folder, name)
    result(sentence)
    assert f"'{key}'" in sentence and str(folder / name) in sentence
    assert "entry 2" in sentence or "id 2" in sentence


@RAW
@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b'{"image_id": 1, "question": "What', r"line 2, is damaged \(it is cut short"),
        (b"<html>", r"line 2, is damaged \(not valid JSON: Expecting value"),
        (b"[1, 2]", r"line 2, is damaged \(it is \[1, 2\]; it should be"),
        (b'{"image_id": "1", "question": "?", "image": ""}', r"line 2, .*'image_id' is '1'"),
        (b'{"image_id": 1, "image": ""}', r"line 2, is damaged \('question' is missing"),
        (b'{"image_id": 1, "question": "?", "image": "QUJ"}', "question 2: its image is not whole"),
        (b'{"image_id": 1, "question": "?", "image": "data:image/png;base64,QUJD"}', "question 2"),
    ],
)  # fmt: skip
def test_a_broken_line_of_the_questions_is_named(folder, line, part, result):
    path = folder / "object_halbench/questions.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(NapoError, match=part) as error:
        module("object_halbench").load(folder / "object_halbench")
    result(error.value)


@RAW
def test_a_question_may_hold_a_line_separator_and_base64_may_be_in_lines(folder):
    path = folder / "object_halbench/questions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["question"] = "What\u2028is it?"
    lines[0]["image"] = base64.encodebytes(base64.b64decode(lines[0]["image"])).decode()
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    scorer = module("object_halbench")
    first = scorer.requests(scorer.load(folder / "object_halbench"))[0]
    assert first.text == "What\u2028is it?" and first.open().mode == "RGB"


@MISSING
@pytest.mark.parametrize("name", FILES)
def test_every_file_that_a_score_depends_on_is_required(folder, name, result):
    (folder / name).unlink()
    result(refusal(folder, name))


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


COCO = "object_halbench/annotations/{}_val2014.json"
PARTIAL = {
    "captions of one image": (
        COCO.format("captions"),
        lambda c: c.update(annotations=[a for a in c["annotations"] if a["image_id"] != 2]),
        r"captions_\*2014\.json lacks 1 images of the questions with their captions \(2\)",
    ),
    "no captions": (COCO.format("captions"), lambda c: c["annotations"].clear(), "captions"),
    "an image of the instances": (
        COCO.format("instances"),
        lambda c: (c["images"].pop(1), c.update(annotations=c["annotations"][:1])),
        r"instances_\*2014\.json lacks 1 images",
    ),
    "no instances": (COCO.format("instances"), lambda c: c["annotations"].clear(), "at least 1"),
    "a category": (
        COCO.format("instances"),
        lambda c: c["categories"].remove(
            next(k for k in c["categories"] if k["id"] == c["annotations"][0]["category_id"])
        ),
        "lacks 1 categories of its annotations",
    ),
    "an annotation of AMBER": ("amber/annotations.json", lambda c: c.pop(0), "lacks 1 ids of que"),
    "an answer of AMBER": ("amber/annotations.json", lambda c: c.pop(), "lacks 1 ids of query_di"),
    "AMBER's type": (
        "amber/annotations.json",
        lambda c: c[0].update(type="discriminative-relation"),
        r"lacks 1 ids of query_generative\.json \(1\)",
    ),
    "AMBER's answer": (
        "amber/annotations.json",
        lambda c: c[-1].update(truth="Yes"),
        "'truth' is 'Yes'; it should be 'yes' or 'no'",
    ),
    "AMBER's relations": ("amber/relation.json", lambda c: c.clear(), "at least 1"),
    "an id of AMBER twice": (
        "amber/annotations.json", lambda c: c.append(c[0]), "has the same id twice .1.",
    ),
    "a query twice": (
        "amber/query_generative.json", lambda c: c.append(c[0]), "has the same id twice .1.",
    ),
    "a question twice": (
        "mmhal/response_template.json", lambda c: c.append(c[0]), "has the same question twice",
    ),
    "an instance twice": (
        "vlind/data.json", lambda c: c.append({**c[0], "global_id": 9}), "the same instance twice",
    ),
    "a query": ("amber/query_generative.json", lambda c: c.pop(), "holds .*'generative': 2"),
    "a question": ("mmhal/response_template.json", lambda c: c.pop(), "holds 7 questions"),
    "an instance": ("vlind/data.json", lambda c: c.pop(), "holds 2 instances"),
    "votes that are no numbers": (
        "vlind/data.json",
        lambda c: c[0].update(aggregated_human_label_good_images={"0": "3"}),
        "entry 1, 'aggregated_human_label_good_images', '0' is '3'",
    ),
    "an image whose name is no number": (
        "vlind/data.json",
        lambda c: c[0].update(aggregated_human_label_good_images={"best": 3}),
        "entry 1, 'aggregated_human_label_good_images'",
    ),
    "the edition's count": ("vlind/benchmark.json", lambda c: c.clear(), "'count' is missing"),
}  # fmt: skip


@MISSING
@pytest.mark.parametrize("kind", PARTIAL)
def test_a_part_that_is_missing_or_twice_is_refused(folder, kind, result):
    name, change, part = PARTIAL[kind]
    change_json(folder / name, change)
    sentence = refusal(folder, name)
    result(sentence)
    assert re.search(part, sentence)


@MISSING
def test_a_class_without_synonyms_is_refused(folder, result):
    path = folder / "object_halbench/synonyms.txt"
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join(rest))
    sentence = refusal(folder, "object_halbench/synonyms.txt")
    result(sentence)
    assert f"lacks 1 classes of instances_val2014.json ({first.split(',')[0]})" in sentence
