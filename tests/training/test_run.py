"""Training on random rows: it learns, repeats itself, and survives a kill byte for byte."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import json
import shutil
import sys

import engine_fixtures as engine
import pytest
import torch
from safetensors.torch import load_file
from trainer_fixtures import SETTINGS, base, digest, rows, unscored

from napo.config.variants import RESPONSES, VARIANTS
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.objective import ROUNDING, Objective
from napo.models.load import load_model, unwrap
from napo.training import checkpoints
from napo.training.records import read_records
from napo.training.run import ProgressLine, train_run
from napo.training.trainer import NaPOTrainer
from napo.workspace.folders import run_name

ONE_EPOCH = SETTINGS.model_copy(update={"epochs": 1})


@pytest.fixture(scope="module", params=["full", "lora"])
def finished(request, base, rows, tmp_path_factory):
    """An uninterrupted run of A1, full or LoRA."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train_run(folder, base, rows, "A1", SETTINGS, seed=0, tune=request.param)
    return request.param, folder


def test_training_lowers_the_loss_and_widens_the_margins(finished):
    _, folder = finished
    records = read_records(folder)
    assert len({tuple(rows["id"]) for _, rows in records.groupby("step")}) == 6  # always shuffled
    steps = records.groupby("step")[["loss", "rejected_psi_sum"]].mean()
    assert list(steps.index) == [0, 1, 2, 3, 4, 5]  # 16 of 18 rows a pass, 8 a step, 3 passes
    assert abs(steps["rejected_psi_sum"].iloc[0]) < 1e-5
    assert steps["rejected_psi_sum"].iloc[-1] > 0.1
    assert steps["loss"].iloc[-1] < steps["loss"].iloc[0]


def test_a_run_folder_holds_weights_records_and_no_pickle(finished):
    tune, folder = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter" if tune == "lora" else "model", "records", "training.json"}
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    summary = json.loads((folder / "training.json").read_text())
    assert summary["steps"] == 6 and summary["batch"] == 8 and summary["q_batch"] == 4


def test_the_saved_weights_load_and_differ_from_the_base(finished, base):
    tune, folder = finished
    adapter = folder / "adapter" if tune == "lora" else None
    model, processor = load_model(
        base if adapter else folder / "model", device="cpu", adapter=adapter
    )
    batch = logprobs.collate(engine.rows(2), processor)
    with torch.no_grad():
        trained = logprobs.response_logprobs(model, batch).sum
        start = logprobs.response_logprobs(load_model(base, device="cpu")[0], batch).sum
    assert (trained - start).abs().max() > 0.1
    if tune == "full":
        frozen = {n: p for n, p in model.named_parameters() if "vision_tower" in n}
        for name, parameter in load_model(base, device="cpu")[0].named_parameters():
            if name in frozen:
                assert torch.equal(parameter, frozen[name])
        assert '"use_cache": false' not in (folder / "model" / "config.json").read_text()


def test_an_adapter_of_a_fetched_base_names_the_hub_and_no_path(base, rows, tmp_path):
    hub = ("llava-hf/llava-1.5-7b-hf", "73d3444")
    train_run(tmp_path, base, rows, "dpo", ONE_EPOCH, seed=0, tune="lora", hub=hub)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == hub
    with pytest.raises(NapoError, match="at 73d3444 is not in the hub's cache; fetch it"):
        load_model(tmp_path / "adapter")
    load_model(base, adapter=tmp_path / "adapter", device="cpu")


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_bfloat16_training_keeps_trained_weights_in_float32(base, rows, tmp_path, tune):
    half = ONE_EPOCH.model_copy(update={"bf16": True})
    data = rows if tune == "full" else unscored(rows)  # the stored reference is in float32
    train_run(tmp_path, base, data, "A1", half, seed=0, tune=tune, dtype="bfloat16")
    (file,) = tmp_path.glob("*/*.safetensors")
    assert {value.dtype for value in load_file(file).values()} == {torch.float32}
    records = read_records(tmp_path)
    assert records["loss"].notna().all()
    first = records[records["step"] == 0]
    assert_starts_at_margin_zero(first)
    noise = json.loads((tmp_path / "training.json").read_text())["margin_noise"]
    psi = first[[f"{name}_psi_sum" for name in RESPONSES[1:]]]
    assert noise == pytest.approx(max(ROUNDING, psi.abs().mean().sum()), rel=1e-2)
    # LoRA's reference was computed in bfloat16 too, only packed with other rows.
    assert (noise > 5e-3) is (tune == "full")


def assert_starts_at_margin_zero(first):
    """The records of a first step have the weights and q of A1 at margin 0."""
    for name in RESPONSES[1:]:
        assert first[f"{name}_gamma"].to_numpy() == pytest.approx(1 / 3)
    assert (first[["language_biased_q", "vision_biased_q"]] == 0.5).all(axis=None)


def test_only_the_same_seed_gives_the_same_bytes(finished, base, rows, tmp_path):
    tune, folder = finished
    for seed, same in ((0, True), (1, False)):
        train_run(tmp_path / str(seed), base, rows, "A1", SETTINGS, seed=seed, tune=tune)
        assert (digest(tmp_path / str(seed)) == digest(folder)) is same


# Kills at random moments of every stage are in `tests/faults`.
def test_a_run_that_stopped_between_checkpoints_ends_with_the_same_bytes(
    finished, base, rows, tmp_path, monkeypatch
):
    tune, folder = finished
    compute, steps = NaPOTrainer.compute_loss, []

    def stop_at_step_five(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if self.state.global_step == 5 and steps.count(5) == 2:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(NaPOTrainer, "compute_loss", stop_at_step_five)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    monkeypatch.setattr(NaPOTrainer, "compute_loss", compute)
    (left,) = (tmp_path / "run").glob("checkpoint-*")
    assert left.name == "checkpoint-4"
    # A later checkpoint without a manifest, and its records, do not count.
    shutil.copytree(left, left.with_name("checkpoint-5"))
    (left.with_name("checkpoint-5") / checkpoints.MANIFEST).unlink()
    records = tmp_path / "run" / "records"
    shutil.copy(records / "000004.parquet", records / "000005.parquet")
    train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(tmp_path / "run") == digest(folder)


def test_a_resumed_run_measures_its_noise_in_the_first_step(base, rows, tmp_path, monkeypatch):
    half = SETTINGS.model_copy(update={"bf16": True})
    train_run(tmp_path / "whole", base, rows, "A1", half, seed=0)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressLine, "on_step_begin", stop, raising=False)
        train_run(tmp_path / "stopped", base, rows, "A1", half, seed=0)
    train_run(tmp_path / "stopped", base, rows, "A1", half, seed=0)
    whole, resumed = (
        json.loads((tmp_path / name / "training.json").read_text())["margin_noise"]
        for name in ("whole", "stopped")
    )
    assert whole == resumed > ROUNDING
    assert digest(tmp_path / "whole") == digest(tmp_path / "stopped")


@pytest.mark.parametrize("variant", ["A2-pair", "dpo-pair-q"])
def test_a_resumed_run_goes_on_with_the_spread_of_its_margins(
    base, rows, tmp_path, monkeypatch, variant
):
    train_run(tmp_path / "whole", base, rows, variant, SETTINGS, seed=0)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressLine, "on_step_begin", stop, raising=False)
        train_run(tmp_path / "stopped", base, rows, variant, SETTINGS, seed=0)
    train_run(tmp_path / "stopped", base, rows, variant, SETTINGS, seed=0)
    assert digest(tmp_path / "whole") == digest(tmp_path / "stopped")
    last = read_records(tmp_path / "whole").query("step == 5")
    assert last["rejected_spread"].nunique() == 1 and last["rejected_spread"].iloc[0] > 0.05
    each = "rejected_weight" if variant == "A2-pair" else "rejected_q"
    assert last[each].nunique() > 1


def test_a_finished_run_is_not_run_again_and_loses_leftover_checkpoints(
    finished, base, rows, monkeypatch
):
    tune, folder = finished
    before = digest(folder)
    monkeypatch.setattr(NaPOTrainer, "train", lambda *a, **k: pytest.fail("trained again"))
    shutil.copytree(next(folder.glob("[am]*")), folder / "checkpoint-4")
    train_run(folder, base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(folder) == before


def test_a_run_folder_of_other_settings_is_refused_and_left_alone(finished, base, rows):
    tune, folder = finished
    before = digest(folder)
    other = SETTINGS.model_copy(update={"beta": 0.5})
    with pytest.raises(NapoError, match=r"other settings \(beta, objective, seed differ\)"):
        train_run(folder, base, rows, "A1", other, seed=3, tune=tune)
    assert digest(folder) == before


def test_a_users_objective_keeps_its_beta(base, rows, tmp_path):
    own = Objective(VARIANTS["dpo"], beta=0.7)
    train_run(tmp_path, base, rows, own, ONE_EPOCH, seed=0)
    summary = json.loads((tmp_path / "training.json").read_text())
    assert summary["made_from"]["objective"]["beta"] == 0.7


@pytest.mark.parametrize("name", ["mdpo", "random"])
def test_other_variants_train(base, rows, tmp_path, name):
    final = train_run(tmp_path, base, rows, name, ONE_EPOCH, seed=0)
    records = read_records(tmp_path)
    assert records["loss"].notna().all() and final == tmp_path / "model"
    if name == "mdpo":
        assert {"chosen_corrupted_psi_sum", "anchor_loss"} <= set(records.columns)
    if name == "random":
        gammas = records[[c for c in records.columns if c.endswith("_gamma")]]
        assert gammas.sum(axis=1).eq(1.0).all()


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_gradient_checkpointing_computes_layers_twice_with_the_same_result(
    base, rows, tmp_path, tune, monkeypatch
):
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward, passes, weights = LlamaMLP.forward, [], []
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: passes.append(1) or forward(self, x))
    counts = []
    for on in (False, True):
        settings = ONE_EPOCH.model_copy(update={"gradient_checkpointing": on})
        folder = train_run(tmp_path / str(on), base, rows, "A1", settings, seed=0, tune=tune)
        counts.append(len(passes))
        passes.clear()
        (file,) = folder.glob("*.safetensors")
        weights.append(load_file(file))
    assert counts[1] == 2 * counts[0]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def test_qlora_trains_an_adapter_on_a_base_in_four_bits(base, rows, tmp_path):
    pytest.importorskip("bitsandbytes")
    final = train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune="qlora")
    records = read_records(tmp_path / "run").groupby("step")["rejected_psi_sum"].mean()
    assert final.name == "adapter" and records.iloc[0] == 0 and records.iloc[-1] > 0.1
    held, _ = load_model(base, device="cpu", four_bit=True)
    kinds = {name: type(m).__name__ for name, m in held.named_modules() if name.endswith("q_proj")}
    assert {kind for name, kind in kinds.items() if "vision" in name} == {"Linear"}
    assert {kind for name, kind in kinds.items() if "vision" not in name} == {"Linear4bit"}
    model, _ = load_model(base, device="cpu", adapter=final)  # also on the base as it is
    assert unwrap(model).dtype == torch.float32


def test_data_workers_change_no_byte_of_a_run(base, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("napo.training.rows.CACHE_BYTES", 0)
    settings = SETTINGS.model_copy(update={"epochs": 2, "lora_dropout": 0.3})
    runs = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        train_run(folder, base, rows, "mdpo", settings, seed=0, tune="lora", data_workers=workers)
        runs.append(digest(folder))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("message", "variant", "tune", "changes"),
    [
        ("Unknown variant 'A9'", "A9", "full", {}),
        ("Unknown tune 'half'", "A1", "half", {}),
        ("not a multiple", "A1", "full", {"batch_size": 9}),
        ("fewer than one batch of 32", "A1", "full", {"batch_size": 32}),
        ("Unknown LoRA target 'q_porj'", "A1", "lora", {"lora_targets": "q_porj"}),
        ("raise max_length", "A1", "full", {"max_length": 6}),
    ],
)
def test_bad_settings_are_refused_before_a_file_is_written(
    base, rows, tmp_path, message, variant, tune, changes
):
    settings = SETTINGS.model_copy(update=changes)
    with pytest.raises(NapoError, match=message):
        train_run(tmp_path / "bad", base, rows, variant, settings, seed=0, tune=tune)
    assert not list((tmp_path / "bad").glob("*"))


def test_memory_that_runs_out_says_what_to_lower(base, rows, tmp_path, monkeypatch):
    def step(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(NaPOTrainer, "compute_loss", step)
    with pytest.raises(NapoError, match=r"ran out at step 0; lower micro_batch_size or logits_mb"):
        train_run(tmp_path, base, rows, "dpo", SETTINGS, seed=0)


STUB = """
class Context:
    def get(self):
        return None


class context_vars:
    current_space_id = Context()


config, runs = {}, []


def init(**settings):
    runs.append((settings["project"], settings["name"], []))


def log(values):
    runs[-1][2].append(values)


def finish():
    pass
"""


def test_a_watched_run_is_reported_by_name_and_keeps_its_bytes(
    base, rows, tmp_path, monkeypatch, finished
):
    (tmp_path / "trackio").mkdir()
    (tmp_path / "trackio" / "__init__.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path)
    tune, folder = finished
    watched = SETTINGS.model_copy(update={"report_to": "trackio", "logging_steps": 2})
    train_run(tmp_path / "seed-0", base, rows, "A1", watched, seed=0, tune=tune)
    trackio = sys.modules.pop("trackio")  # no later test may find the stub
    (project, name, reports) = trackio.runs.pop()
    assert (project, name) == ("napo", run_name("A1", 0, tune))
    assert [report["train/global_step"] for report in reports[:3]] == [2, 4, 6]
    for value in ("loss", "learning_rate", "rejected_psi_sum", "vision_biased_q",
                  "language_biased_gamma", "vision_biased_accuracy"):  # fmt: skip
        assert all(f"train/{value}" in report for report in reports[:3]), value
    # The same bytes in the same files, and settings of an unwatched run.
    assert digest(tmp_path / "seed-0") == digest(folder)
    assert (tmp_path / "seed-0" / "training.json").read_bytes() == (
        folder / "training.json"
    ).read_bytes()
    assert {path.name for path in (tmp_path / "seed-0").iterdir()} == {
        path.name for path in folder.iterdir()
    }


def test_events_of_tensorboard_lie_beside_the_run_folder(base, rows, tmp_path):
    pytest.importorskip("tensorboard")
    watched = ONE_EPOCH.model_copy(update={"report_to": "tensorboard", "logging_steps": 1})
    train_run(tmp_path / "seed-0", base, rows, "dpo", watched, seed=0)
    (events,) = (tmp_path / "events" / "seed-0").iterdir()
    assert b"rejected_psi_sum" in events.read_bytes()
    assert not list((tmp_path / "seed-0").rglob("*tfevents*"))
