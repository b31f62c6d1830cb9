"""Rows from the web: what is read, what is refused, and that the rest is safe."""

import io
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, features
from source_fixtures import SPOILT, encoded, picture, published, spoilt, write, write_jsonl

from napo.data import pictures, sources
from napo.data import rows as preferences
from napo.errors import NapoError
from napo.models.generate import Generated


def answers(rows):
    said = [Generated(f"{row['question']} Yes.", 3, False) for row in rows]
    return {name: said for name in preferences.BIASED}


def build(source, target, **options):
    preferences.write_rows(source, target, answers, **{"size": 3, **options})
    return preferences.load_rows(target)


@pytest.mark.parametrize("shape", [[10], [1, 9], [4, 4, 2], [3, 0, 7]])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_parts_do_not_depend_on_the_sources_files(tmp_path, shape, kind):
    rows = [published(number) for number in range(10)]
    starts = np.cumsum([0, *shape])
    shards = [rows[a:b] for a, b in itertools.pairwise(starts)]
    if kind == "parquet":
        source = write(tmp_path / "source", *[shard for shard in shards if shard])
    else:
        source = write_jsonl(tmp_path / "source", rows)
    assert sources.number_of_rows(source) == sources.survey(source).rows == 10
    data = build(source, tmp_path / "rows")
    assert data["id"][:] == [str(number) for number in range(10)]
    assert [len(pq.read_table(path)) for path in preferences.shards(tmp_path / "rows")] == [
        3,
        3,
        3,
        1,
    ]
    assert data[7]["image"].getpixel((0, 0)) == (7, 50, 60)
    assert data[7]["language_biased"] == "What is 7? Yes." and data[7]["origin_dataset"] == "made"


def test_only_the_first_rows_are_used_if_so_many_are_wanted(tmp_path):
    source = write(tmp_path / "source", [published(n) for n in range(10)])
    assert sources.number_of_rows(source, 4) == 4
    assert build(source, tmp_path / "rows", count=4)["id"][:] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_several_processes_make_the_parts_of_one(tmp_path, world):
    source = write(tmp_path / "source", [published(n) for n in range(11)])
    build(source, tmp_path / "one")
    for rank in range(world):
        preferences.write_rows(source, tmp_path / "many", answers, size=3, worker=(rank, world))
    for path in preferences.shards(tmp_path / "one"):
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes()


def test_images_keep_the_bytes_they_came_in(tmp_path):
    jpeg = encoded(picture(), "JPEG")
    source = write(tmp_path / "source", [published(1, image={"bytes": jpeg, "path": "x.jpg"})])
    build(source, tmp_path / "rows")
    (held,) = pq.read_table(tmp_path / "rows" / "part-00000.parquet")["image"].to_pylist()
    assert held == {"bytes": jpeg, "path": "x.jpg"}


def test_large_data_is_mapped_and_reads_the_same(tmp_path, monkeypatch):
    source = write(tmp_path / "source", [published(n) for n in range(5)])
    small = build(source, tmp_path / "rows")
    monkeypatch.setattr(preferences, "IN_MEMORY_BYTES", 0)
    large = preferences.load_rows(tmp_path / "rows")
    assert large.cache_files and not small.cache_files
    assert large["id"][:] == small["id"][:]
    for ours, theirs in zip(large, small, strict=True):
        assert ours.pop("image").tobytes() == theirs.pop("image").tobytes()
        assert ours == theirs


# Each: how the row with id 4 is spoilt, and what is said of it.
GREY16 = Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))


@pytest.mark.parametrize("name", SPOILT)
def test_a_row_that_cannot_be_used_is_one_sentence_and_the_rest_is_safe(tmp_path, name):
    changes, said = SPOILT[name]
    source = spoilt(tmp_path, changes)
    with pytest.raises(NapoError, match=said) as caught:
        build(source, tmp_path / "stopped")
    sentence = str(caught.value)
    assert ("row 4" in sentence.lower() or name == "repeated id") and "\n" not in sentence
    texts_spoilt = not name.startswith(("empty q", "empty c", "no rej", "null", "repeated"))
    kept = (tmp_path / "stopped" / "part-00000.parquet").is_file()
    assert kept == texts_spoilt  # texts are judged before the first row is asked
    data = build(source, tmp_path / "rows", bad_rows="skip")
    assert len(data) == 7 and "4" not in [row["id"] for row in data]
    (left_out,) = preferences.skipped(tmp_path / "rows")
    assert left_out["row"] == "4" and said.split(r"\(")[0].split(" (")[0] in left_out["reason"]


def avif_that_the_decoder_refuses():
    """A valid AVIF with the first wrong bit that raises a RuntimeError in Pillow."""
    noise = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "AVIF")
    for at in range(8 * len(whole)):
        wrong = bytearray(whole)
        wrong[at // 8] ^= 1 << at % 8
        try:
            Image.open(io.BytesIO(wrong), formats=["AVIF"]).load()
        except RuntimeError:
            return bytes(wrong)
        except (OSError, SyntaxError, ValueError):
            continue
    raise AssertionError("No bit does it; look for another RuntimeError of Pillow's.")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_an_avif_with_a_wrong_bit_is_a_row_that_cannot_be_used(tmp_path):
    source = spoilt(
        tmp_path, {"image": {"bytes": avif_that_the_decoder_refuses(), "path": "4.avif"}}
    )
    with pytest.raises(NapoError, match=r"Row 4: its image cannot be used, it does not decode"):
        build(source, tmp_path / "stopped")
    assert len(build(source, tmp_path / "rows", bad_rows="skip")) == 7
    assert [each["row"] for each in preferences.skipped(tmp_path / "rows")] == ["4"]


def test_the_released_biased_responses_are_kept_and_only_the_others_made(tmp_path):
    rows = [published(n) for n in range(4)]
    rows[1] |= {"question_only": "Blue.", "image_only": "A picture."}
    rows[2] |= {"question_only": "Red.", "image_only": " "}
    rows = [{"question_only": None, "image_only": None, **row} for row in rows]
    asked = []

    def make(bare):
        asked.extend(row["id"] for row in bare)
        return answers(bare)

    source = write(tmp_path / "source", rows)
    preferences.write_rows(source, tmp_path / "rows", make, size=3)
    data = preferences.load_rows(tmp_path / "rows")
    assert asked == ["0", "2", "3"]
    assert data[1]["language_biased"] == "Blue." and data[1]["vision_biased"] == "A picture."
    assert data[2]["vision_biased"] == "What is 2? Yes." and data[1]["vision_biased_cut"] is False


def test_rows_left_out_do_not_move_the_others_to_other_parts(tmp_path):
    whole = write(tmp_path / "whole", [published(number) for number in range(8)])
    build(whole, tmp_path / "a")
    build(spoilt(tmp_path, {"question": ""}), tmp_path / "b", bad_rows="skip")
    for name in ("part-00000.parquet", "part-00002.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_part_without_a_usable_row_is_empty_and_loads(tmp_path):
    rows = [published(n, question="" if 3 <= n < 6 else "What?") for n in range(8)]
    data = build(write(tmp_path / "source", rows), tmp_path / "rows", bad_rows="skip")
    assert [row["id"] for row in data] == ["0", "1", "2", "6", "7"]
    assert len(preferences.skipped(tmp_path / "rows")) == 3


def test_nothing_but_bad_rows_is_an_error_even_if_they_are_to_be_skipped(tmp_path):
    source = write(tmp_path / "source", [published(n, question="") for n in range(3)])
    with pytest.raises(NapoError, match=r"row 0.*\(2 more rows cannot be used"):
        build(source, tmp_path / "rows", bad_rows="skip")


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
        (Image.new("L", (1, 1), 77), "PNG", (77, 77, 77)),
        (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), "PNG", (10, 20, 30)),
        (Image.new("P", (8, 8), 0), "PNG", (0, 0, 0)),
        (Image.new("1", (8, 8), 1), "PNG", (255, 255, 255)),
        (Image.new("I;16", (8, 8), 65535), "PNG", (255, 255, 255)),
        (Image.new("I;16", (8, 8), 32768), "PNG", (128, 128, 128)),
    ],
)
def test_unusual_images_are_read_as_what_they_show(image, kind, expected):
    opened = pictures.open_rgb(encoded(image, kind))
    assert opened.mode == "RGB" and opened.size == image.size
    found = opened.getpixel((0, 0))
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 2


def test_the_first_frame_of_an_animation_is_the_picture():
    frames = [picture(10), picture(200)]
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert pictures.open_rgb(webp).getpixel((0, 0)) == (10, 50, 60)


def test_a_picture_on_its_side_is_put_upright():
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    lying = encoded(picture(10, (20, 10)), "JPEG", exif=exif)
    assert pictures.open_rgb(lying).size == (10, 20)


def test_a_missing_column_names_file_and_column(tmp_path):
    rows = [{k: v for k, v in published(1).items() if k != "chosen"}]
    with pytest.raises(NapoError, match=r"RLAIF-V-Dataset_000.parquet lacks the column chosen"):
        sources.survey(write(tmp_path, rows))
    (tmp_path / "RLAIF-V-Dataset_000.parquet").unlink()
    (tmp_path / "a.jsonl").write_text('{"image": "x.png", "question": "?"}\n')
    with pytest.raises(NapoError, match=r"a.jsonl, line 1, lacks chosen, rejected"):
        sources.survey(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"image": \n')
    with pytest.raises(NapoError, match=r"a.jsonl, line 1, is not JSON"):
        sources.survey(tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    path = write(tmp_path, [published(1)]) / "RLAIF-V-Dataset_000.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(NapoError, match=r"_000.parquet cannot be read"):
        sources.survey(tmp_path)


@pytest.mark.parametrize("letter", range(len("question")))
def test_a_column_name_with_a_wrong_bit_is_a_sentence(tmp_path, letter):
    path = write(tmp_path, [published(1)]) / "RLAIF-V-Dataset_000.parquet"
    whole, name = path.read_bytes(), b"question"
    wrong = bytearray(name)
    wrong[letter] ^= 128  # no UTF-8 any more
    path.write_bytes(whole.replace(name, bytes(wrong)))
    for look in (sources.survey, sources.number_of_rows):
        with pytest.raises(NapoError, match=r"_000\.parquet cannot be read as Parquet") as told:
            look(tmp_path)
        assert str(told.value).isprintable()


@pytest.mark.parametrize("letter", ["\x1b", "\x07", "\x7f", "\x9b", "\n", "\0"])
def test_an_id_with_a_control_character_is_refused_and_shown_escaped(tmp_path, letter):
    rows = [published(1), published(2, idx=f"a{letter}[31mb")]
    found = sources.survey(write(tmp_path / "source", rows))
    assert list(found.bad) == [1] and found.bad[1].isprintable()
    escaped = letter.encode("unicode_escape").decode()
    assert f"row a{escaped}[31mb (number 1) has " in found.bad[1]
    assert found.bad[1].endswith("; give another.")
    spoilt = {"id": f"a{letter}b", "image": b"none"}
    with pytest.raises(NapoError, match=r"^Row a\\.*b: its image cannot be used") as told:
        sources.decode(spoilt)
    assert str(told.value).isprintable()


def test_an_id_in_any_script_is_one(tmp_path):
    rows = [published(1, idx="Größe 7"), published(2, idx="図-３"), published(3, idx="a👩‍🚀b")]
    assert not sources.survey(write(tmp_path, rows)).bad


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path)
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path / "nowhere")


def test_the_released_column_names_are_understood(tmp_path):
    rows = [published(1, question_only="Blue.", image_only="A picture.")]
    (row,) = sources.texts(write(tmp_path, rows))
    assert row["language_biased"] == "Blue." and row["vision_biased"] == "A picture."
