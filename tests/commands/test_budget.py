"""The budget: exact counts, measured peaks, FLOPs and files, and how the answers change."""

from itertools import pairwise

import engine_fixtures as engine
import pytest

from bench import budget_check
from napo.commands import budget, footprint
from napo.config.profile import Model, Profile, load_profile
from napo.errors import NapoError

PAPER = "llava-1.5-7b"
SMALL = {"layers": 3, "width": 256, "feed_forward": 688, "vocabulary": 4000, "side": 8, "rows": 2}
table = budget.table


def llava_parameters(width, feed_forward, layers, vocabulary):
    """LLaVA-1.5's parameters, part by part: a Llama, CLIP ViT-L/14 at 336 px, two linear layers."""
    block = 4 * width * width + 3 * width * feed_forward + 2 * width
    llama = layers * block + 2 * vocabulary * width + width
    seen, fed = 1024, 4096
    attention, feeding = 4 * (seen * seen + seen), 2 * seen * fed + fed + seen
    tower = 24 * (attention + feeding + 4 * seen)
    # The class embedding, the patches without bias, a position for each and the class, two norms.
    tower += seen + 3 * 14 * 14 * seen + (24 * 24 + 1) * seen + 4 * seen
    projector = seen * width + width + width * width + width
    return llama, tower, projector


@pytest.mark.parametrize(
    ("profile", "sizes", "about"),
    [
        ("llava-1.5-7b", (4096, 11008, 32, 32_064), 7.06e9),
        ("llava-1.5-13b", (5120, 13824, 40, 32_064), 13.35e9),
    ],
)
def test_parameters_are_counted_to_the_last_one(profile, sizes, about):
    shape, parts = budget.describe(profile)[1], llava_parameters(*sizes)
    assert (shape.total, shape.frozen, shape.projector) == (sum(parts), parts[1], parts[2])
    assert shape.total == pytest.approx(about, rel=1e-3)


def test_weights_gradients_and_moments_are_plain_multiples_of_parameters():
    llama, tower, projector = llava_parameters(4096, 11008, 32, 32_064)
    trained, total = llama + projector, llama + projector + tower
    ddp, zero2, zero3 = (table(PAPER).loc["full", name] for name in ("ddp", "zero2", "zero3"))
    assert ddp.parameters * 1e9 == pytest.approx(4 * total)
    assert ddp.optimiser * 1e9 == pytest.approx(8 * trained)
    assert zero2.parameters * 1e9 == pytest.approx(2 * total)
    assert zero2.optimiser * 1e9 == pytest.approx(12 * trained / 8)
    assert zero3.parameters * 1e9 == pytest.approx(2 * total / 8 + 2e9)


def test_lora_has_two_narrow_matrices_beside_each_linear_layer_and_qlora_packs_the_base():
    profile, shape, lengths = budget.describe(PAPER)
    width, feed_forward = 4096, 11008
    pairs = 4 * (width + width) + 3 * (width + feed_forward)
    run = footprint.Run(profile, shape, lengths, "lora", "ddp", 1)
    assert run.trained == 32 * 64 * pairs
    lora, qlora = (table(PAPER).parameters[tune, "ddp"] for tune in ("lora", "qlora"))
    packed = 32 * (4 * width**2 + 3 * width * feed_forward)
    assert (lora - qlora) * 1e9 == pytest.approx(packed * (2 - 4.126953125 / 8))


def test_a_run_fits_if_its_parts_and_the_context_fit():
    parts = ["parameters", "gradients", "optimiser", "activations", "logits"]
    assert list(table(PAPER)[parts].sum(axis=1)) == pytest.approx(list(table(PAPER).total))
    need = table(PAPER).total["full", "zero2"] + 2
    assert [table(PAPER, 8, need + d).fits["full", "zero2"] for d in (0.01, -0.01)] == [True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": "full", "checkpointing": True, "layers": 6, "response": 150},
        {"tune": "full", "vocabulary": 16_000, "logits_mb": 8},
        {"tune": "lora", "bf16": True, "dtype": "bfloat16", "checkpointing": True},
    ],
)
def test_the_predicted_peak_is_within_15_percent_of_a_measured_one(changes):
    case = budget_check.BASE | SMALL | changes
    measured, predicted = budget_check.measured(case), budget_check.run(case).peak()
    assert predicted["total"] == pytest.approx(measured, rel=0.15)
    # Weights and moments are exact; the rest of a step has to be right by itself.
    resting = predicted["parameters"] + predicted["optimiser"]
    assert predicted["total"] - resting == pytest.approx(measured - resting, rel=0.15)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_more_gpus_never_need_more_memory_each_under_sharding(tune, strategy):
    description = budget.describe(PAPER)
    runs = (footprint.Run(*description, tune, strategy, gpus) for gpus in range(1, 65))
    needs = [run.peak()["total"] for run in runs]
    assert all(more <= fewer for fewer, more in pairwise(needs))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_flops_of_a_step_agree_with_torchs_counter(tune, checkpointing):
    from torch.utils.flop_counter import FlopCounterMode

    from napo.method.logprobs import response_logprobs

    # torch counts matrix products; eager attention consists of them.
    changes = {"tune": tune, "checkpointing": checkpointing, "attention": "eager", "rows": 1}
    case = budget_check.BASE | SMALL | changes
    model, batch = budget_check.model(case), budget_check.batch(case)
    with FlopCounterMode(display=False) as counter:
        response_logprobs(model, batch).sum.sum().backward()
    assert budget_check.run(case).flop() == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_hours_fall_with_gpus_and_utilisation_and_need_a_number_of_rows():
    half = list(table(PAPER, 8).hours / 2)
    assert list(table(PAPER, 16).hours) == pytest.approx(half)
    assert list(table(PAPER, 8, utilisation=0.8).hours) == pytest.approx(half)
    assert table(Profile(name="mine", model=load_profile(PAPER).model)).hours.isna().all()


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_disk_agrees_with_the_files_of_a_real_run(tune, tmp_path):
    from napo.models.load import load_model
    from napo.training.run import lora_config
    from napo.training.trainer import NaPOConfig, NaPOTrainer

    profile = load_profile("tiny")
    model, processor = load_model(profile.model.location, device="cpu")
    config = lora_config(profile.training, budget.families.of_config(model.config))
    NaPOTrainer(
        model=model,
        args=NaPOConfig(output_dir=str(tmp_path), max_steps=1, save_steps=1, use_cpu=True),
        objective=budget_check.Objective(budget_check.VARIANTS["dpo"]),
        train_dataset=engine.rows(8),
        processing_class=processor,
        peft_config=config if tune == "lora" else None,
    ).train()
    sizes = {file.name: file.stat().st_size for file in tmp_path.rglob("checkpoint-1/*")}
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    run = table("tiny", 1).loc[tune, "ddp"]
    assert run.weights * 1e9 == pytest.approx(weights, rel=0.05)
    assert run.disk * 1e9 == pytest.approx(2 * (weights + sizes["optimizer.pt"]), rel=0.05)


def test_each_row_names_what_was_not_measured():
    assert "not_measured" in budget.report(PAPER) and "GB (10^9 bytes)" in budget.report(PAPER)
    one, eight = table(PAPER, 1).not_measured, table(PAPER, 8).not_measured
    assert one["full", "ddp"] == one["lora", "ddp"] == "hours"
    assert eight["lora", "ddp"] == "memory, hours"
    assert set(one.drop("ddp", level="strategy")) == {"memory, hours, disk"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gpus": 0}, "gpus is 0; give a number above 0 and at most 1,000,000."),
        ({"gpus": int("9" * 400)}, "gpus is 999999999999999999..."),
        ({"gpu_memory": float("nan")}, "gpu-memory is nan; give a number above 0"),
        ({"utilisation": 40}, "utilisation is 40; give a number above 0 and at most 1."),
    ],
)
def test_a_number_out_of_range_is_one_sentence(options, sentence):
    with pytest.raises(NapoError, match="^" + sentence):
        budget.report(PAPER, **options)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (None, r"model\.architecture is empty; put the values"),
        ({"model_type": "lava"}, "Unknown model_type in model.architecture 'lava'. Did you mean"),
        ({"text_config": {"model_type": "llama", "hidden_size": "wide"}}, "correct it: .*hidden_s"),
        ({"image_seq_length": 0}, "does not say how many tokens an image has; give image_tokens"),
    ],
)
def test_an_architecture_that_makes_no_model_is_one_sentence(changes, problem):
    architecture = {} if changes is None else load_profile(PAPER).model.architecture | changes
    profile = Profile(name="mine", model=Model(path="some/where", architecture=architecture))
    with pytest.raises(NapoError, match=problem) as error:
        budget.table(profile)
    assert "\n" not in str(error.value)


def test_the_system_text_is_part_of_every_prompt():
    profile = load_profile("llava-1.5-7b")
    assert budget.describe(profile)[2].question == 40 + 35  # 1.5 x 23 words
    assert budget.describe("tiny", image_tokens=16)[2].question == 40


def test_a_tiny_profile_shows_the_papers_scale_and_any_other_its_own():
    paper = budget.papers_scale(load_profile("tiny"))
    assert paper.name == "llava-1.5-7b"
    table = budget.table(paper)
    assert (table[["total", "hours", "weights", "disk"]] > 0.1).all(axis=None)
    lora = load_profile("llava-1.5-7b-lora")
    assert budget.papers_scale(lora) is lora
