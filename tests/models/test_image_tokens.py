"""Visual tokens and image features are compared at load and in every batch, for every family."""

import json

import family_fixtures as fixtures
import pytest
import torch
from PIL import Image

from napo import stages
from napo.config.profile import Decoding
from napo.errors import NapoError
from napo.method import logprobs
from napo.models import families
from napo.models.files import load_processor
from napo.models.generate import Prompt, generate
from napo.models.image_tokens import (
    check_image_tokens,
    count_features,
    features_checked,
    require_equal,
)
from napo.models.load import load_model
from napo.models.prompts import image_pixels, prompt_inputs, stack_pixels
from napo.stages.session import open_session

KIND = pytest.mark.kind("a fast path drops the library's check")
PLURAL = [[24, 48], [48, 24], [48, 48], [72, 24]]  # a grid more than the model's


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return fixtures.model(family, fixtures.processor(family))


# family, changed settings of the processor or its image processor, part of the sentence
WRONG = [
    ("llava", {"num_additional_image_tokens": 0}, "tokens is 0 .*, set it to 1"),
    ("llava", {"num_additional_image_tokens": 2}, "tokens is 2 .*, set it to 1"),
    ("llava", {"patch_size": 6}, "patch_size is 6 .*, set it to 12"),
    ("llava", {"patch_size": None}, "patch_size is None .*, set it to 12"),
    ("llava", {"vision_feature_select_strategy": "full"}, "strategy is full .* set it to default"),
    ("llava", {"vision_feature_select_strategy": None}, "strategy is None .* set it to default"),
    ("llava", {"crop_size": {"height": 36, "width": 36}}, "do not fit .*get the processor's files"),
    ("llava_next", {"num_additional_image_tokens": 0}, "tokens is 0 .*, set it to 1"),
    ("llava_next", {"num_additional_image_tokens": 2}, "tokens is 2 .*, set it to 1"),
    ("llava_next", {"patch_size": 6}, "patch_size is 6 .*, set it to 12"),
    ("llava_next", {"vision_feature_select_strategy": "full"}, "strategy is full .* to default"),
    ("llava_next", {"image_grid_pinpoints": PLURAL}, r"image_grid_pinpoints is \[\[24, 48\]"),
    ("idefics3", {"image_seq_len": 5}, "image_seq_len is 5 .*, set it to 4"),
    ("idefics3", {"image_seq_len": 16}, "image_seq_len is 16 .*, set it to 4"),
    ("qwen2_5_vl", {"merge_size": 1}, "merge_size is 1 .*, set it to 2"),
    ("qwen2_5_vl", {"patch_size": 7}, "patch_size is 7 .*, set it to 14"),
]
CASES = [f"{case[0]}-{next(iter(case[1]))}-{number}" for number, case in enumerate(WRONG)]


def changed(family, change):
    processor = fixtures.processor(family)
    for name, value in change.items():
        setattr(processor if hasattr(processor, name) else processor.image_processor, name, value)
    return processor


@KIND
@pytest.mark.parametrize(("family", "change", "sentence"), WRONG, ids=CASES)
def test_a_wrong_processor_is_refused_at_load_and_names_the_setting(
    family, change, sentence, tmp_path, result
):
    model = fixtures.model(family, fixtures.processor(family))
    model.config.save_pretrained(tmp_path)  # weights are not needed
    changed(family, change).save_pretrained(tmp_path)
    with pytest.raises(NapoError, match=rf"^{tmp_path}: .*{sentence}") as error:
        load_processor(tmp_path)
    with pytest.raises(NapoError, match=sentence):
        load_model(tmp_path, device="cpu")
    result(str(error.value).replace(str(tmp_path), "MODEL"))


@KIND
def test_a_processor_file_without_the_number_of_additional_tokens_is_refused(copy, result):
    path = copy / "processor_config.json"
    content = json.loads(path.read_text())
    del content["num_additional_image_tokens"]
    path.write_text(json.dumps(content))
    with pytest.raises(NapoError, match=r"an image has 3 visual tokens .* and 4 features") as error:
        load_processor(copy)
    result(str(error.value).replace(str(copy), ""))


@KIND
def test_a_template_that_writes_no_image_is_refused(family, model, result):
    processor = fixtures.processor(family)
    processor.chat_template = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% endfor %}"
    with pytest.raises(NapoError, match="an image has 0 visual tokens") as error:
        check_image_tokens(model.config, processor)
    result(error.value)


@KIND
@pytest.mark.parametrize("size", [(24, 24), (100, 24), (24, 100), (90, 61), (700, 500)])
def test_counts_without_weights_are_those_of_the_real_model(family, model, size):
    processor = fixtures.processor(family)
    check_image_tokens(model.config, processor)  # does not raise
    image = Image.new("RGB", size, "red")
    pixels = image_pixels(processor, image)
    with torch.no_grad():
        features = model.get_image_features(**stack_pixels([pixels]))
    ids = prompt_inputs(processor, "what", image, pixels=pixels).ids
    assert count_features(features) == [ids.count(processor.image_token_id)]


def test_the_comparison_draws_no_random_number(family, model):
    before = torch.random.get_rng_state()
    check_image_tokens(model.config, fixtures.processor(family))
    assert torch.equal(torch.random.get_rng_state(), before)


# Those that give other numbers; pixels of another form raise inside the library.
FITTING = [
    (family, change)
    for family, change, _ in WRONG
    if not {"crop_size"} & change.keys() and None not in change.values()
    and not (family == "qwen2_5_vl" and "patch_size" in change)
]  # fmt: skip


@KIND
@pytest.mark.parametrize("path", ["answers", "beams", "log-probs"])
@pytest.mark.parametrize(
    ("family", "change"),
    FITTING,
    ids=[f"{f}-{next(iter(c))}-{n}" for n, (f, c) in enumerate(FITTING)],
)
def test_a_batch_with_other_numbers_is_refused(family, change, path, result):
    model = fixtures.model(family, fixtures.processor(family))
    processor, rows = changed(family, change), fixtures.rows(family, 3)
    prompts = [Prompt(row["question"], row["image"]) for row in rows]
    with pytest.raises(NapoError, match=r"visual tokens in the prompt and \d+ features") as error:
        if path == "log-probs":
            logprobs.response_logprobs(model, logprobs.collate(rows, processor))
        else:
            decoding = Decoding(max_new_tokens=2, num_beams=2 if path == "beams" else 1)
            generate(model, processor, prompts, decoding)
    assert "napo.models.files.load_processor" in str(error.value)
    result(error.value)


@KIND
def test_a_surplus_that_fills_the_next_images_lack_is_refused(family, model, result):
    """The sums of a batch are equal, so the library's own check lets it through."""
    processor = fixtures.processor(family)
    batch = logprobs.collate(fixtures.rows(family, 2), processor)
    ids, image_id = batch.input_ids, processor.image_token_id
    first, second = (ids[0] == image_id).nonzero(), (ids[1] == image_id).nonzero()
    logprobs.response_logprobs(model, batch)
    ids[0, first[-1]], ids[1, second[-1] + 1] = ids[1, second[-1] + 1].clone(), image_id
    with pytest.raises(NapoError, match="an image has") as error:
        logprobs.response_logprobs(model, batch)
    result(error.value)


def test_the_images_of_a_packed_sequence_are_compared_one_by_one():
    processor = fixtures.processor("llava")
    model = fixtures.model("llava", processor)
    batch = logprobs.collate(fixtures.rows("llava", 2), processor, layout="packed")
    (ids,), image_id = batch.input_ids, processor.image_token_id
    places = (ids == image_id).nonzero().flatten().tolist()
    ids[places[0]], ids[places[-1] + 1] = ids[places[-1] + 1].clone(), image_id
    with pytest.raises(NapoError, match="an image has 3 visual tokens in the prompt and 4 feat"):
        logprobs.response_logprobs(model, batch)


def test_the_model_is_as_before_after_a_comparison(family, model):
    compute = model.base_model.get_image_features
    with pytest.raises(NapoError), features_checked(model, {"input_ids": torch.zeros(1, 1)}):
        raise NapoError("inside")
    assert model.base_model.get_image_features == compute


@pytest.mark.parametrize(
    ("tokens", "features", "fits"),
    [([4, 4], [4, 4], True), ([4, 4], [8], True), ([4, 4], [5, 3], False), ([4, 4], [9], False)],
)
def test_features_that_are_not_listed_by_image_are_compared_in_sum(tokens, features, fits):
    model = fixtures.model("llava", fixtures.processor("llava"))
    if fits:
        require_equal(model, tokens, features)
        return
    with pytest.raises(NapoError, match="visual tokens"):
        require_equal(model, tokens, features)


@KIND
def test_stage_01_refuses_before_it_writes_a_row(tmp_path, result):
    session = open_session("smoke", str(tmp_path / "work"))
    stages.make_rows(session)
    model, processor = stages.base_model(session.profile)
    processor.num_additional_image_tokens = 0
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    settings = session.profile.model.model_copy(update={"path": str(tmp_path / "model")})
    profile = session.profile.model_copy(update={"model": settings})
    with pytest.raises(
        NapoError, match=r"num_additional_image_tokens is 0 .* set it to 1"
    ) as error:
        stages.build_rows(type(session)(profile, session.workspace))
    assert not list(session.workspace.rows.rglob("*.parquet"))
    result(str(error.value).replace(str(tmp_path), ""))
