import base64
import io

import engine_fixtures as engine
import family_fixtures as fixtures
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import normalizers

from napo.config.variants import CORRUPTED, RESPONSES
from napo.errors import NapoError
from napo.method.layout import PADDING, PROMPT, assemble, encode, pack, read_row
from napo.models.prompts import pad_id


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


def test_a_shared_sequence_continues_each_response_from_the_prompts_end(processor):
    row = {**engine.rows(1)[0], "chosen": "a cat .", "rejected": "no"}
    encoded = encode(row, processor, ("chosen", "rejected"))
    batch = assemble([encoded], pad_id(processor))
    length = len(encoded.prompts[0].ids)
    # The last token of each response (here the end token) predicts nothing and is not laid out.
    assert batch.segments[0].tolist() == [PROMPT] * length + [1, 1, 1, 2]
    assert batch.positions[0, length:].tolist() == [length, length + 1, length + 2, length]
    before, first, second = length - 1, length, length + 3  # each predicts the token after it
    assert batch.predictors.tolist() == [before, first, first + 1, first + 2, before, second]
    assert batch.tokens.tolist() == [[4, 2]]


def test_padded_rows_and_a_corrupted_image_open_sequences_of_their_own(processor):
    encoded = [encode(row, processor, (*RESPONSES, CORRUPTED)) for row in engine.rows(2)]
    shared, padded = (
        assemble(encoded, pad_id(processor), layout=layout) for layout in ("shared", "padded")
    )
    assert len(shared.input_ids) == 2 * 2 and len(padded.input_ids) == 2 * 5
    assert torch.equal(shared.targets, padded.targets)
    assert padded.input_ids[padded.segments == PADDING].eq(pad_id(processor)).all()


def test_packed_rows_follow_each_other_with_segments_and_positions_of_their_own(processor):
    rows = [{**row, "chosen": "a cat", "rejected": "no"} for row in engine.rows(2)]
    encoded = [encode(row, processor, ("chosen", "rejected")) for row in rows]
    batch = assemble(encoded, pad_id(processor), layout="packed")
    first, second = (len(row.prompts[0].ids) for row in encoded)
    lengths = [first, 2, 1, second, 2, 1]
    expected = [number for number, count in enumerate(lengths) for _ in range(count)]
    assert batch.segments.tolist() == [expected]
    assert batch.prompts.tolist() == [[0] * (first + 3) + [3] * (second + 3)]
    assert batch.positions[0, first + 3 :].tolist() == [*range(second + 2), second]
    after = first + 3 + second  # the second row's responses
    assert batch.predictors[-5:].tolist() == [after - 1, after, after + 1, after - 1, after + 2]


def test_packing_fills_sequences_and_leaves_long_equal_rows_alone():
    lengths = [90, 20, 30, 40, 50, 60, 10]
    packed = pack(lengths)
    assert sorted(part for parts in packed for part in parts) == list(range(7))
    assert len(packed) * max(sum(lengths[i] for i in parts) for parts in packed) < 330
    assert pack([1000] * 4) == [[0], [1], [2], [3]]


@pytest.mark.kind("zero tokens")
@pytest.mark.parametrize("cut", [False, True])
def test_a_response_without_tokens_is_refused_by_name(cut, result):
    processor = engine.processor()
    processor.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("☃", "")
    row = {**engine.rows(1)[0], "chosen": "☃", "chosen_cut": cut}
    with pytest.raises(NapoError, match="Row row-0 has a chosen without tokens in this") as error:
        encode(row, processor)
    result(error.value)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "</s>", "<pad> <unk>", None])
def test_a_response_that_shows_nothing_is_refused_by_name(processor, text):
    with pytest.raises(NapoError, match="Row row-0 has an empty rejected; write one or drop"):
        encode({**engine.rows(1)[0], "rejected": text}, processor)


@pytest.mark.kind("a stage seals what the next one refuses")
def test_an_image_that_the_models_processor_refuses_is_a_sentence(result):
    row = {**engine.rows(1)[0], "image": Image.new("RGB", (2, 500))}
    with pytest.raises(NapoError, match=r"^Row row-0: the model's processor refuses its") as error:
        encode(row, fixtures.processor("qwen2_5_vl"))
    assert str(error.value).count("\n") == 0
    result(error.value)


def as_bytes(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize(
    "form",
    [
        lambda image, path: str(path),
        lambda image, path: path,
        lambda image, path: as_bytes(image),
        lambda image, path: {"bytes": as_bytes(image), "path": None},
        lambda image, path: {"bytes": None, "path": str(path)},
    ],
    ids=["text", "path", "bytes", "undecoded bytes", "undecoded path"],
)
def test_an_image_is_read_from_every_form(form, tmp_path):
    (row,) = engine.rows(1)
    path = tmp_path / "image.png"
    row["image"].save(path)
    same = read_row({**row, "image": form(row["image"], path)}, 0)
    assert np.array_equal(same["image"], row["image"].convert("RGB"))


BASE64 = base64.b64encode(b"\xff\xd8" + bytes(range(256)) * 1000).decode()


def cut_short():
    return Image.open(io.BytesIO(as_bytes(Image.effect_noise((64, 64), 90))[:900]))


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": ...}, r"Row 5 has no column question, only .*; rename or add it\."),
        ({"vision_biased": ...}, "no column vision_biased, .*, or take an objective without it"),
        ({"image": ...}, "Row 5 has no column image"),
        ({"image": "no/such.png"}, r"Row 5: its image cannot be used: .*no/such"),
        ({"image": b"<html>"}, "Row 5: its image cannot be used: it does not decode"),
        ({"image": {}}, "its image cannot be used: it is missing"),
        ({"image": cut_short()}, "Row 5: its image cannot be used: it does not decode"),
        ({"image": BASE64}, "Row 5: .*there is no file '/9g.*give a path, bytes"),
        ({"image": {"bytes": BASE64}}, "there is no file '/9g.*base64 text and addresses are not"),
        ({"image": f"data:image/png;base64,{BASE64}"}, "base64 text and addresses are not taken"),
        ({"image": "http://x.org/" + "x" * 999}, "base64 text and addresses are not taken"),
        ({"image": "a\0b"}, "there is no file"),
        ({"image": np.zeros((4, 4, 3))}, "its image is a ndarray; give a PIL image, a path"),
        ({"chosen": ["a cat"]}, "its chosen is a list; write it as a text"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_sentence(change, message, result):
    (row,) = engine.rows(1)
    row = {k: v for k, v in {**row, **change}.items() if v is not ... and k != "id"}
    with pytest.raises(NapoError, match=message) as error:
        read_row(row, 5)
    assert len(str(error.value)) < 300
    result(error.value)


@pytest.mark.kind("rows as people have them")
def test_a_pil_image_on_its_side_is_scored_as_its_file_is(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.effect_noise((48, 24), 90).convert("RGB").save(tmp_path / "a.jpg", exif=exif)
    forms = tmp_path / "a.jpg", Image.open(tmp_path / "a.jpg")
    upright, same = (read_row({**engine.rows(1)[0], "image": form}, 0)["image"] for form in forms)
    assert upright.size == (24, 48) and np.array_equal(upright, same)


def test_a_row_without_an_id_has_its_position_and_others_keep_theirs():
    (row,) = engine.rows(1)
    ids = [read_row({**row, "id": given}, 5)["id"] for given in (None, 0, "a")]
    assert ids == ["5", "0", "a"]
    with pytest.raises(NapoError, match="Row 2 is a tuple; give each row as a dict"):
        read_row(("a question", "an answer"), 2)
