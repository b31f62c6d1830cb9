"""What the budget predicts: exact counts, measured peaks, and what must not get worse."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench import budget_check
from napo.commands import budget
from napo.config.profile import Data, Model, Profile, Training, load_profile
from napo.errors import NapoError

PAPER = "llava-1.5-7b"
SMALL = {"layers": 3, "width": 256, "feed_forward": 688, "vocabulary": 4000, "side": 8, "rows": 2}


def shape_of(profile):
    return budget.describe(load_profile(profile))[1]


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
def test_parameters_are_those_of_the_architecture_to_the_last_one(profile, sizes, about):
    shape, parts = shape_of(profile), llava_parameters(*sizes)
    assert (shape.total, shape.frozen, shape.projector) == (sum(parts), parts[1], parts[2])
    assert shape.total == pytest.approx(about, rel=1e-3)


def test_lora_has_two_narrow_matrices_beside_every_linear_layer():
    shape = shape_of(PAPER)
    width, feed_forward = 4096, 11008
    pairs = 4 * (width + width) + 3 * (width + feed_forward)
    assert shape.adapters(64, tuple(shape.linear)) == 32 * 64 * pairs
    assert shape.layer_linear == 4 * width**2 + 3 * width * feed_forward


def test_weights_gradients_and_moments_of_full_tuning_are_plain_multiples():
    table = budget.table(PAPER, 8)
    llama, tower, projector = llava_parameters(4096, 11008, 32, 32_064)
    trained = llama + projector
    ddp, zero2 = table.loc[("full", "ddp")], table.loc[("full", "zero2")]
    assert ddp.parameters * 1e9 == pytest.approx(4 * (trained + tower))
    assert ddp.optimiser * 1e9 == pytest.approx(8 * trained)
    assert zero2.parameters * 1e9 == pytest.approx(2 * (trained + tower))
    assert zero2.optimiser * 1e9 == pytest.approx(12 * trained / 8)


def test_four_bits_hold_the_linear_layers_and_the_dtype_the_rest():
    lora, qlora = (budget.table(PAPER, 1).loc[(tune, "ddp")] for tune in ("lora", "qlora"))
    packed = 32 * shape_of(PAPER).layer_linear
    saved = packed * (2 - 4.126953125 / 8)
    assert (lora.parameters - qlora.parameters) * 1e9 == pytest.approx(saved)


def test_the_parts_of_a_row_add_up_to_its_total():
    table = budget.table(PAPER, 8)
    assert list(table[list(budget.PARTS)].sum(axis=1)) == pytest.approx(list(table.total))
    assert len(table) == 9


def test_a_run_fits_where_its_total_and_the_context_fit():
    table = budget.table(PAPER, 8, 80)
    need = table.loc[("full", "zero2")].total + 2
    assert bool(budget.table(PAPER, 8, need + 0.01).fits["full", "zero2"])
    assert not bool(budget.table(PAPER, 8, need - 0.01).fits["full", "zero2"])
    assert not bool(table.fits["full", "ddp"])  # 4 x 4 bytes for each of 7 billion


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": "full"},
        {"tune": "full", "checkpointing": True, "layers": 6, "response": 150},
        {"tune": "full", "vocabulary": 16_000, "logits_mb": 8},
        {"tune": "lora"},
        {"tune": "lora", "bf16": True, "dtype": "bfloat16", "checkpointing": True},
    ],
    ids=lambda changes: ", ".join(f"{key} {value}" for key, value in changes.items()),
)
def test_the_predicted_peak_is_within_15_percent_of_a_measured_one(changes):
    case = budget_check.BASE | SMALL | changes
    measured, predicted = budget_check.measured(case), budget_check.predicted(case)
    assert predicted.total == pytest.approx(measured, rel=0.15)
    # The weights and moments are known; what a step adds to them has to be right by itself.
    resting = predicted.parameters + predicted.optimiser
    assert predicted.total - resting == pytest.approx(measured - resting, rel=0.15)


@pytest.mark.parametrize("strategy", ["zero2", "fsdp2"])
@pytest.mark.parametrize("tune", budget.TUNES)
@pytest.mark.parametrize("profile", ["llava-1.5-7b", "llava-1.5-13b", "tiny"])
def test_more_gpus_never_need_more_memory_each_where_states_are_sharded(profile, tune, strategy):
    profile, shape, lengths = budget.describe(load_profile(profile))
    needs = [
        budget.peak(budget.plan(profile, shape, lengths, tune, strategy, gpus)).total
        for gpus in range(1, 65)
    ]
    assert all(more <= fewer for fewer, more in pairwise(needs))


@pytest.mark.parametrize("tune", budget.TUNES)
def test_longer_responses_never_need_less_memory(tune):
    totals = [
        budget.table(PAPER, 8, response_tokens=length).total.loc[tune] for length in (16, 90, 500)
    ]
    assert (totals[0] <= totals[1]).all() and (totals[1] < totals[2]).any()


def test_checkpointing_trades_activations_for_arithmetic():
    profile = load_profile("llava-1.5-7b-lora")
    without = profile.training.model_copy(update={"gradient_checkpointing": False})
    plain = profile.model_copy(update={"training": without})
    memory = [budget.table(p, 8).total["lora", "ddp"] for p in (profile, plain)]
    flops = [budget.compute(p).tflop["training", budget.SHARED] for p in (profile, plain)]
    assert memory[0] < memory[1] and flops[0] > flops[1]


def test_longer_responses_cost_more_arithmetic_everywhere():
    short, long = (budget.compute(PAPER, response_tokens=length) for length in (60, 61))
    assert (long.tflop > short.tflop).all() and (long.hours > short.hours).all()


@pytest.mark.parametrize("question", [1, 40, 900])
@pytest.mark.parametrize("response", [1, 2, 90, 1000])
def test_the_shared_prefix_never_has_more_tokens_than_separate_sequences(question, response):
    tokens = budget.compute(PAPER, question_tokens=question, response_tokens=response).tokens
    ours, released, pairs = tokens.loc["training"]
    assert ours == 576 + question + 4 * (response - 1)
    assert ours < released < pairs


def test_arithmetic_of_a_step_is_six_flops_a_weight_and_token_and_a_little_more():
    profile, shape, _ = budget.describe(load_profile(PAPER))
    training = profile.training.model_copy(update={"gradient_checkpointing": False})
    load = budget.Load((1000,), 1000, 1)
    weights = 32 * shape.layer_linear + 4096 * 32_064
    flop = budget.step_flop(shape, load, "full", 0, training)
    assert 1.0 < flop / (6 * weights * 1000) < 1.15  # attention, projector, tower


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_arithmetic_of_a_real_step_is_what_torch_counts(tune, checkpointing):
    from torch.utils.flop_counter import FlopCounterMode

    from napo.method.logprobs import response_logprobs

    # torch counts products; eager attention is made of them.
    changes = {"tune": tune, "checkpointing": checkpointing, "attention": "eager", "rows": 1}
    case = budget_check.BASE | SMALL | changes
    model, batch = budget_check.model(case), budget_check.batch(case)
    with FlopCounterMode(display=False) as counter:
        response_logprobs(model, batch).sum.sum().backward()
    profile, shape, lengths = budget.describe(
        budget_check.profile(case), question_tokens=40, response_tokens=case["response"]
    )
    adapters = shape.adapters(profile.training.lora_r, tuple(shape.linear)) * (tune == "lora")
    load = budget.layouts(lengths)[budget.SHARED]
    flop = budget.step_flop(shape, load, tune, adapters, profile.training)
    assert flop == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_hours_fall_with_gpus_and_utilisation_and_stand_beside_the_papers():
    eight, sixteen = budget.compute(PAPER, 8), budget.compute(PAPER, 16)
    fast = budget.compute(PAPER, 8, utilisation=0.8)
    assert list(sixteen.hours) == pytest.approx(list(eight.hours / 2))
    assert list(fast.hours) == pytest.approx(list(eight.hours / 2))
    assert set(eight.paper_hours.loc["training"]) == {7.0}
    assert set(eight.paper_hours.loc["data"]) == {24.0}
    assert budget.compute("llava-1.5-13b").paper_hours.isna().all()


def test_the_command_prints_both_tables_and_the_unit(capsys):
    assert budget.main(["--profile", PAPER, "--gpus", "8", "--gpu-memory", "80"]) == 0
    printed = capsys.readouterr().out
    for piece in ("GB (10^9 bytes)", "zero2", "qlora", "shared prefix", "paper_hours", "40%"):
        assert piece in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "lava-1.5-7b"], "Unknown profile 'lava-1.5-7b'. Did you mean"),
        (["--profile", PAPER, "--gpus", "0"], "gpus is 0; it must be above 0."),
        (["--profile", PAPER, "--gpu-memory", "-1"], "gpu-memory is -1.0; it must be above 0."),
        (["--profile", PAPER, "--gpu-memory", "nan"], "gpu-memory is nan; it must be above 0."),
        (["--profile", PAPER, "--tflops", "0"], "tflops is 0.0; it must be above 0."),
        (["--profile", PAPER, "--utilisation", "40"], "utilisation is 40.0; give a share"),
        (["--profile", PAPER, "--response-tokens", "0"], "response-tokens is 0; it must be"),
        (["--profile", PAPER, "--gpus", "9" * 400], "gpus is 999999999999999999...9999"),
        (["--profile", PAPER, "--gpus", "-" + "9" * 400], "gpus is -99999999999999999...9999"),
        (["--profile", PAPER, "--gpus", "1000001"], "gpus is 1000001; give at most 1,000,000."),
        (["--profile", PAPER, "--question-tokens", "9" * 400], "question-tokens is 9999999999"),
        (["--profile", PAPER, "--response-tokens", "9" * 400], "response-tokens is 9999999999"),
        (["--profile", PAPER, "--tflops", "inf"], "tflops is inf; give at most 1,000,000."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_1(arguments, sentence, capsys):
    assert budget.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"napo: {sentence}")
    assert captured.err.count("\n") == 1 and captured.out == ""


def test_a_profile_whose_model_nobody_can_know_is_told_what_to_add():
    profile = Profile(name="mine", model=Model(path="somewhere/else"))
    with pytest.raises(NapoError, match=r"model\.architecture is empty; put the values"):
        budget.table(profile)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "lava"}, "Unknown model_type in model.architecture 'lava'. Did you mean"),
        ({"model_type": ""}, "Unknown model_type in model.architecture ''."),
        ({"text_config": {"model_type": "llama", "hidden_size": 9}}, "The hidden size .9. is not"),
        ({"text_config": {"model_type": "llama", "hidden_size": "wide"}}, "correct it: .*hidden_s"),
        ({"image_seq_length": 0}, "does not say how many tokens an image has; give image_tokens"),
    ],
)
def test_an_architecture_that_makes_no_model_is_refused_in_a_sentence(changes, problem):
    architecture = load_profile(PAPER).model.architecture | changes
    profile = Profile(name="mine", model=Model(path="some/where", architecture=architecture))
    with pytest.raises(NapoError, match=problem) as refused:
        budget.table(profile)
    assert "\n" not in str(refused.value)


def test_a_lora_target_that_the_model_lacks_is_named():
    profile = load_profile(PAPER)
    wrong = profile.training.model_copy(update={"lora_targets": "q_proj,w_proj"})
    with pytest.raises(NapoError, match="Unknown LoRA target 'w_proj'"):
        budget.table(profile.model_copy(update={"training": wrong}))


def test_hours_need_to_know_how_many_rows_there_are():
    model = load_profile(PAPER).model
    profile = Profile(name="mine", model=model, data=Data(), training=Training())
    with pytest.raises(NapoError, match=r"set data\.count or data\.expected"):
        budget.compute(profile)


def test_an_architecture_can_be_a_folder_that_is_there():
    assert shape_of("tiny").image_tokens > 0
    assert shape_of("tiny").total < 1e6
