"""Training on random rows: it learns, repeats itself, and survives a kill byte for byte."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import engine_fixtures as engine
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainer_fixtures import SETTINGS, base, rows, trainer

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.objective import Objective
from napo.models import families
from napo.models.load import load_model, load_processor, unwrap
from napo.training import checkpoints
from napo.training.__main__ import main
from napo.training.records import read_records
from napo.training.rows import EncodedRows, EpochSampler
from napo.training.run import train_run
from napo.training.trainer import NaPOConfig, NaPOTrainer
from napo.workspace.locks import hold
from napo.workspace.manifests import require


def digest(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix in (".safetensors", ".parquet"))
    assert files
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module", params=["full", "lora"])
def finished(request, base, rows, tmp_path_factory):
    """An uninterrupted run of A1, full or LoRA."""
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train_run(folder, base, rows, "A1", SETTINGS, seed=0, tune=request.param)
    return request.param, folder


def test_training_lowers_the_loss_and_widens_the_margins(finished):
    _, folder = finished
    steps = read_records(folder).groupby("step")[["loss", "rejected_psi_sum"]].mean()
    assert list(steps.index) == [0, 1, 2, 3, 4, 5]  # 16 of 18 rows a pass, 8 a step, 3 passes
    assert abs(steps["rejected_psi_sum"].iloc[0]) < 1e-5
    assert steps["rejected_psi_sum"].iloc[-1] > 0.1
    assert steps["loss"].iloc[-1] < steps["loss"].iloc[0]


def test_records_name_each_row_once_a_pass(finished):
    records = read_records(finished[1])
    assert len(records) == 48
    for first in (0, 2, 4):
        passed = records[records["step"].between(first, first + 1)]
        assert passed["id"].nunique() == 16
    orders = [tuple(records[records["step"] == step]["id"]) for step in range(6)]
    assert len(set(orders)) == 6  # shuffled anew in every pass
    assert {"language_biased_q", "vision_biased_gamma", "chosen_logp"} <= set(records.columns)


def test_a_run_folder_holds_weights_records_and_no_pickle(finished):
    tune, folder = finished
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter" if tune == "lora" else "model", "records", "training.json"}
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    told = json.loads((folder / "training.json").read_text())
    assert told["steps"] == 6 and told["batch"] == 8 and told["q_batch"] == 4


def test_the_saved_weights_load_and_differ_from_the_base(finished, base):
    tune, folder = finished
    given = {"adapter": folder / "adapter"} if tune == "lora" else {}
    model, processor = load_model(base if given else folder / "model", device="cpu", **given)
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
    few = SETTINGS.model_copy(update={"epochs": 1})
    hub = ("llava-hf/llava-1.5-7b-hf", "73d3444")
    train_run(tmp_path, base, rows, "dpo", few, seed=0, tune="lora", hub=hub)
    told = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == hub
    with pytest.raises(NapoError, match="at 73d3444 is not in the hub's cache; fetch it"):
        load_model(tmp_path / "adapter")
    load_model(base, adapter=tmp_path / "adapter", device="cpu")


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_bfloat16_training_keeps_full_weights_in_float32(base, rows, tmp_path, tune):
    half = SETTINGS.model_copy(update={"epochs": 1, "bf16": True})
    bare = [{k: v for k, v in row.items() if not k.endswith(("_logp", "_tokens"))} for row in rows]
    train_run(tmp_path, base, bare, "dpo", half, seed=0, tune=tune, dtype="bfloat16")
    (file,) = tmp_path.glob("*/*.safetensors")
    kinds = {str(value.dtype) for value in load_file(file).values()}
    assert kinds == {"torch.float32"}


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones(finished, base, rows, tmp_path):
    tune, folder = finished
    for seed, same in ((0, True), (1, False)):
        train_run(tmp_path / str(seed), base, rows, "A1", SETTINGS, seed=seed, tune=tune)
        assert (digest(tmp_path / str(seed)) == digest(folder)) is same


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
    (left,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert left.name == "checkpoint-4"
    # A later, unfinished checkpoint and records that it reached are not believed.
    shutil.copytree(left, left.with_name("checkpoint-5"))
    (left.with_name("checkpoint-5") / checkpoints.MANIFEST).unlink()
    records = tmp_path / "run" / "records"
    shutil.copy(records / "000004.parquet", records / "000005.parquet")
    train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(tmp_path / "run") == digest(folder)


KILLED = """
import sys; sys.path.insert(0, {tests!r})
import os, pickle, signal, threading
from pathlib import Path
from trainer_fixtures import SETTINGS
from napo.training.trainer import NaPOTrainer
from napo.training.run import train_run
compute = NaPOTrainer.compute_loss
def kill(self, *args, **kwargs):
    if self.state.global_step == {step}:
        threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return compute(self, *args, **kwargs)
NaPOTrainer.compute_loss = kill
rows = pickle.loads(Path({rows!r}).read_bytes())
train_run({run!r}, {base!r}, rows, "A1", SETTINGS, seed=0, tune={tune!r})
"""


def killed(tmp_path, base, rows, tune, step, delay):
    """Train until a SIGKILL so many seconds into a step; whether it came before the end."""
    import pickle

    (tmp_path / "rows").write_bytes(pickle.dumps(rows))
    code = KILLED.format(
        tests=str(Path(__file__).parents[1]),
        rows=str(tmp_path / "rows"),
        run=str(tmp_path / "run"),
        base=str(base),
        tune=tune,
        step=step,
        delay=delay,
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()[-2000:]
    return not (tmp_path / "run" / "training.json").exists()


@pytest.mark.parametrize(
    "finished", ["full", pytest.param("lora", marks=pytest.mark.long)], indirect=True
)
def test_a_killed_process_resumes_to_the_same_bytes(finished, base, rows, tmp_path):
    tune, folder = finished
    assert killed(tmp_path, base, rows, tune, step=3, delay=0)
    train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(tmp_path / "run") == digest(folder)


@pytest.mark.long
@pytest.mark.parametrize("number", range(10))
def test_ten_random_kills_lose_nothing(finished, base, rows, tmp_path, number):
    tune, folder = finished
    rng = np.random.default_rng(number)
    # A step takes some 20 ms: the delay also hits what follows it, checkpoints being written.
    step, delay = int(rng.integers(0, 6)), float(rng.uniform(0, 0.15))
    if not killed(tmp_path, base, rows, tune, step, delay):
        # It was done before, but for the checkpoints: they go last, and the kill may have hit that.
        left = digest(tmp_path / "run")
        assert {n: d for n, d in left.items() if not n.startswith("checkpoints/")} == digest(folder)
    train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(tmp_path / "run") == digest(folder)


def test_a_finished_run_is_not_run_again(finished, base, rows, monkeypatch):
    tune, folder = finished
    monkeypatch.setattr(NaPOTrainer, "train", lambda *a, **k: pytest.fail("trained again"))
    train_run(folder, base, rows, "A1", SETTINGS, seed=0, tune=tune)


def test_checkpoints_that_a_kill_left_in_a_finished_run_go_at_the_next_call(
    finished, base, rows, tmp_path
):
    tune, folder = finished
    shutil.copytree(folder, tmp_path / "run")
    left = tmp_path / "run" / "checkpoints" / "checkpoint-4"
    shutil.copytree(next(folder.glob("[am]*")), left)
    train_run(tmp_path / "run", base, rows, "A1", SETTINGS, seed=0, tune=tune)
    assert digest(tmp_path / "run") == digest(folder)


def test_a_run_folder_of_other_settings_is_refused_and_left_alone(finished, base, rows):
    tune, folder = finished
    before = digest(folder)
    other = SETTINGS.model_copy(update={"beta": 0.5})
    with pytest.raises(NapoError, match=r"other settings \(beta, objective, seed differ\)"):
        train_run(folder, base, rows, "A1", other, seed=3, tune=tune)
    assert digest(folder) == before


def test_an_objective_of_ones_own_keeps_its_beta(base, rows, tmp_path):
    own = Objective(VARIANTS["dpo"], beta=0.7)
    train_run(tmp_path, base, rows, own, SETTINGS.model_copy(update={"epochs": 1}), seed=0)
    told = json.loads((tmp_path / "training.json").read_text())["made_from"]
    assert told["objective"]["beta"] == 0.7


def test_evaluation_inside_training_is_refused_not_wrong(base, rows, tmp_path):
    with pytest.raises(NapoError, match="does not evaluate during training"):
        trainer(base, rows, tmp_path, eval_strategy="steps")


@pytest.mark.parametrize("name", ["mdpo", "random", "LB1", "A1-original", "q-0.5", "ipo"])
def test_other_variants_train(base, rows, tmp_path, name):
    settings = SETTINGS.model_copy(update={"epochs": 1})
    final = train_run(tmp_path, base, rows, name, settings, seed=0)
    records = read_records(tmp_path)
    assert records["loss"].notna().all() and final == tmp_path / "model"
    if name == "mdpo":
        assert {"chosen_corrupted_psi_sum", "anchor_loss"} <= set(records.columns)
    if name == "random":
        gammas = records[[c for c in records.columns if c.endswith("_gamma")]]
        assert gammas.sum(axis=1).eq(1.0).all()


def test_the_trainer_is_a_transformers_trainer_that_scores_rows_without_a_reference(base, tmp_path):
    made = trainer(base, engine.rows(8), tmp_path, logging_steps=1)
    made.train()
    logged = made.state.log_history
    assert logged[0]["rejected_psi_sum"] == pytest.approx(0, abs=1e-5)
    assert {"loss", "grad_norm", "vision_biased_gamma"} <= set(logged[0])
    assert (tmp_path / "checkpoints" / "checkpoint-2" / checkpoints.MANIFEST).is_file()


def adapted(base, rows, folder, reference, **changes):
    """A short LoRA run of A1 with the log history of its steps."""
    from peft import LoraConfig

    model, processor = load_model(base, device="cpu")
    settings = {"per_device_train_batch_size": 4, "max_steps": 3, "logging_steps": 1}
    args = NaPOConfig(
        output_dir=str(folder),
        reference=reference,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        **settings,
        **changes,
    )
    lora = LoraConfig(
        r=4, target_modules=["q_proj"], exclude_modules=families.FAMILIES["llava"].image_parts
    )
    made = NaPOTrainer(model, args, Objective(VARIANTS["A1"]), rows, processor, peft_config=lora)
    made.train()
    return [entry for entry in made.state.log_history if "vision_biased_psi_sum" in entry]


def test_switching_the_adapter_off_gives_the_reference_that_is_stored(base, rows, tmp_path):
    plain = [{k: v for k, v in row.items() if not k.endswith(("_logp", "_tokens"))} for row in rows]
    stored = adapted(base, rows, tmp_path / "stored", "cached")
    passed = adapted(base, plain, tmp_path / "passed", "adapter_off")
    assert stored[-1]["vision_biased_psi_sum"] != pytest.approx(0, abs=1e-3)
    # Not the total: gamma divides margins that are still near 0, which makes much of rounding.
    for one, other in zip(stored, passed, strict=True):
        for term in ("rejected", "language_biased", "vision_biased"):
            assert one[f"{term}_loss"] == pytest.approx(other[f"{term}_loss"], abs=1e-5)
            assert one[f"{term}_psi_sum"] == pytest.approx(other[f"{term}_psi_sum"], abs=1e-4)


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(
    base, rows, tmp_path, tune, monkeypatch
):
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward, passes, weights = LlamaMLP.forward, [], []
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: passes.append(1) or forward(self, x))
    counts = []
    for on in (False, True):
        settings = SETTINGS.model_copy(update={"epochs": 1, "gradient_checkpointing": on})
        folder = train_run(tmp_path / str(on), base, rows, "A1", settings, seed=0, tune=tune)
        counts.append(len(passes))
        passes.clear()
        (file,) = folder.glob("*.safetensors")
        weights.append(load_file(file))
    assert counts[1] == 2 * counts[0]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def test_bfloat16_autocast_trains_from_a_float32_reference(base, rows, tmp_path):
    settings = SETTINGS.model_copy(update={"epochs": 1, "bf16": True})
    final = train_run(tmp_path, base, rows, "A1", settings, seed=0)
    records = read_records(tmp_path)
    assert records["loss"].notna().all()
    assert load_model(final, device="cpu")[0].dtype == torch.float32


def test_a_full_model_has_no_adapter_to_switch_off(base, rows, tmp_path):
    with pytest.raises(NapoError, match="no adapter to switch off"):
        trainer(base, rows, tmp_path, reference="adapter_off")
    with pytest.raises(NapoError, match="Did you mean 'adapter_off'"):
        trainer(base, rows, tmp_path, reference="adapter-off")


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


def test_rows_too_large_for_memory_are_checked_before_training(base, rows, monkeypatch, tmp_path):
    import datasets

    from napo.training import rows as module

    kept = EncodedRows(rows, load_processor(base), VARIANTS["mdpo"].responses)
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    for data in (rows, datasets.Dataset.from_list(rows)):
        lazy = EncodedRows(data, load_processor(base), VARIANTS["mdpo"].responses)
        assert lazy.digest == kept.digest
        (one, scores), (other, same) = lazy[3], kept[3]
        assert one.answers == other.answers and torch.equal(scores.sum, same.sum)
        assert torch.equal(
            one.prompts[0].pixels["pixel_values"], other.prompts[0].pixels["pixel_values"]
        )
    for change, message in (
        ({"question": "what is " * 30}, "row-7: its prompt alone has"),
        ({"vision_biased": " "}, "row-7 has an empty vision_biased"),
    ):
        wrong = [row | change if row["id"] == "row-7" else row for row in rows]
        with pytest.raises(NapoError, match=message):
            trainer(base, wrong, tmp_path, max_length=60)


def test_data_workers_change_no_byte(base, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("napo.training.rows.CACHE_BYTES", 0)
    settings = SETTINGS.model_copy(update={"epochs": 2, "lora_dropout": 0.3})
    runs = []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        train_run(folder, base, rows, "mdpo", settings, seed=0, tune="lora", data_workers=workers)
        runs.append(digest(folder))
    assert runs[0] == runs[1]


def test_what_is_wrong_in_a_data_worker_is_the_same_sentence(base, rows, tmp_path, monkeypatch):
    def encode(at):
        raise NapoError(f"Row {at}: its image cannot be used.")

    monkeypatch.setattr("napo.training.rows.CACHE_BYTES", 0)
    made = trainer(base, rows, tmp_path, dataloader_num_workers=1)
    monkeypatch.setattr(made.train_dataset, "encode", encode)
    with pytest.raises(NapoError, match=r"^Row \d+: its image cannot be used\.$"):
        made.train()


def test_accumulation_gives_the_gradient_of_the_whole_batch(base, rows, tmp_path):
    """dpo has no batch averages, so how its batch is cut into micro-batches cannot matter."""
    weights = []
    for micro in (2, 8):
        made = trainer(
            base,
            rows,
            tmp_path / str(micro),
            "dpo",
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            optim="sgd",
            learning_rate=0.1,
            max_steps=1,
            lr_scheduler_type="constant",
        )
        made.train()
        weights.append(made.model.lm_head.weight.detach().clone())
    assert torch.allclose(*weights, atol=1e-6)
    start = load_model(base, device="cpu")[0].lm_head.weight
    assert not torch.allclose(weights[0], start, atol=1e-4)


def test_a_reference_from_another_model_stops_before_the_first_step(base, rows, tmp_path):
    wrong = [{**row, "rejected_logp": row["rejected_logp"] - 1} for row in rows]
    with pytest.raises(NapoError, match="the reference belongs to another model"):
        trainer(base, wrong, tmp_path).train()


def test_a_reference_that_is_no_number_names_the_row(base, rows, tmp_path):
    wrong = [{**row, "chosen_logp": float("nan")} for row in rows]
    with pytest.raises(NapoError, match=r"reference's .* not a number \(row row-\d+, chosen\)"):
        trainer(base, wrong, tmp_path).train()


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(base, rows, tmp_path):
    trainer(base, rows, tmp_path).train()
    path = tmp_path / "checkpoints" / "checkpoint-2"
    before = digest(path)
    other = trainer(base, rows, tmp_path, learning_rate=1e-2, max_steps=4)
    with pytest.raises(NapoError, match=r"another run \(learning_rate, max_steps differ\)"):
        other.train(resume_from_checkpoint=str(path))
    with pytest.raises(NapoError, match="another run"):
        checkpoints.latest(tmp_path / "checkpoints", other.run_identity)
    assert digest(path) == before


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_damaged_checkpoint_is_refused(base, rows, tmp_path, harm):
    made = trainer(base, rows, tmp_path)
    made.train()
    path = tmp_path / "checkpoints" / "checkpoint-2"
    state = path / "optimizer.pt"
    if harm == "cut":
        state.write_bytes(state.read_bytes()[:100])
    else:
        state.unlink()
    with pytest.raises(NapoError, match=r"optimizer\.pt is missing or damaged"):
        checkpoints.latest(path.parent, made.run_identity)


def test_bad_settings_are_one_sentence(base, rows, tmp_path):
    def run(variant="A1", tune="full", **changes):
        settings = SETTINGS.model_copy(update=changes)
        train_run(tmp_path / "bad", base, rows, variant, settings, seed=0, tune=tune)

    for message, arguments in {
        "Unknown variant 'A9'": {"variant": "A9"},
        "Unknown tune 'half'": {"tune": "half"},
        "not a multiple": {"batch_size": 9},
        "fewer than one batch of 32": {"batch_size": 32},
        "Unknown LoRA target 'q_porj'": {"tune": "lora", "lora_targets": "q_porj"},
        "raise max_length": {"max_length": 6},
    }.items():
        with pytest.raises(NapoError, match=message):
            run(**arguments)
    assert not list((tmp_path / "bad").glob("*"))


def test_the_sampler_shuffles_by_seed_and_pass_and_leaves_incomplete_batches_out():
    def order(seed, epoch):
        sampler = EpochSampler(10, 4, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert len(order(0, 0)) == 8 and order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9


def write_run(base, rows, tmp_path, run_folder, variant="A1", **training):
    """A RUN.yaml with its data beside it."""
    from napo.data.rows import image_bytes, write_reference, write_shard

    data = [{**row, "image": image_bytes(row["image"])} for row in rows]
    scores = [k for k in rows[0] if k.endswith(("_logp", "_tokens"))]
    plain = [{k: v for k, v in row.items() if k not in scores} for row in data]
    write_shard(tmp_path / "rows" / "shard-0.parquet", plain)
    reference = [{"id": row["id"], **{k: row[k] for k in scores}} for row in rows]
    write_reference(tmp_path / "reference" / "shard-0.parquet", reference)
    run = {
        "run_folder": str(run_folder),
        "model": str(base),
        "rows": str(tmp_path / "rows"),
        "reference": str(tmp_path / "reference"),
        "variant": variant,
        "training": {**SETTINGS.model_dump(), **training},
    }
    file = tmp_path / f"{run_folder.name}.yaml"
    file.write_text(json.dumps(run))  # JSON is YAML
    return file


def test_the_command_line_trains_from_a_file_and_refuses_unknown_keys(base, rows, tmp_path, capsys):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    assert main([str(file)]) == 0
    direct = tmp_path / "direct"
    train_run(direct, base, rows, "A1", SETTINGS, seed=0)
    assert digest(tmp_path / "run") == digest(direct)
    sealed = require(tmp_path / "run")
    assert sealed["settings"]["variant"] == "A1" and "training.json" in sealed["files"]
    made_by = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert {"code", "machine", "parameters"} <= set(made_by)
    assert main([str(file)]) == 0  # again: it is there
    file.write_text(json.dumps({**json.loads(file.read_text()), "varaint": "A1"}))
    assert main([str(file)]) == 1
    assert "Did you mean 'variant'" in capsys.readouterr().err


def test_memory_that_runs_out_in_a_step_is_a_sentence(base, rows, tmp_path, monkeypatch):
    def step(self, *_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(NaPOTrainer, "compute_loss", step)
    with pytest.raises(NapoError, match=r"ran out at step 0; lower micro_batch_size or logits_mb"):
        train_run(tmp_path, base, rows, "dpo", SETTINGS, seed=0)


def test_a_second_trainer_in_a_folder_is_told_who_holds_it(base, rows, tmp_path, capsys):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    with hold(tmp_path / "run", "already works in"):
        assert main([str(file)]) == 1
    assert f"Process {os.getpid()} on " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["rows", "reference"])
def test_rows_that_were_cut_are_one_sentence_of_the_command_line(
    base, rows, tmp_path, capsys, folder
):
    file = write_run(base, rows, tmp_path, tmp_path / "run")
    part = tmp_path / folder / "shard-0.parquet"
    os.truncate(part, part.stat().st_size // 2)
    assert main([str(file)]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"napo: {part} cannot be read (") and "\n" not in said


@pytest.mark.long
@pytest.mark.parametrize("variant", ["dpo", "A1", "A3", "random"])
def test_two_processes_give_the_losses_of_one_with_the_same_batch(base, rows, tmp_path, variant):
    curves, weights = [], []
    for processes, micro in ((1, 8), (2, 4)):
        folder = tmp_path / f"on-{processes}"
        file = write_run(base, rows, tmp_path, folder, variant, micro_batch_size=micro)
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *launch, "-m", "napo.training", str(file)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        records = read_records(folder)
        assert len(records) == 48
        curves.append(records.groupby("step")["loss"].mean().to_numpy())
        weights.append(load_model(folder / "model", device="cpu")[0].lm_head.weight)
    assert abs(curves[0] - curves[1]).max() < 1e-5
    assert torch.allclose(*weights, atol=1e-4)
