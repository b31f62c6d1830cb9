"""The trainer's arguments: each setting of transformers is honoured or refused in a sentence."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import inspect
from dataclasses import fields
from types import SimpleNamespace

import pytest
from trainer_fixtures import SETTINGS, base, rows, trainer
from transformers import Trainer, TrainingArguments

from napo.errors import NapoError
from napo.training.arguments import REFUSED, NaPOConfig, check_arguments, require_reporter
from napo.training.run import train_run
from napo.training.trainer import NaPOTrainer
from napo.workspace.files import write_json

# Settings that have their usual effect. A setting that a new version of transformers adds has to
# be tried and put here or into `napo.training.arguments.REASONS`.
HONOURED = {
    "output_dir", "per_device_train_batch_size", "num_train_epochs", "max_steps", "learning_rate",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_target_modules",
    "gradient_accumulation_steps", "max_grad_norm", "bf16", "tf32", "activation_checkpointing",
    "activation_checkpointing_kwargs", "gradient_checkpointing", "gradient_checkpointing_kwargs",
    "use_cache", "torch_empty_cache_steps", "logging_strategy", "logging_steps",
    "logging_first_step", "log_on_each_node", "logging_nan_inf_filter", "log_level",
    "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id", "hub_private_repo", "save_only_model",
    "save_strategy", "save_steps", "save_on_each_node", "save_total_limit", "full_determinism",
    "seed", "data_seed", "use_cpu", "restore_callback_states_from_checkpoint",
    "accelerator_config", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "ddp_find_unused_parameters", "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp",
    "fsdp_config", "deepspeed", "debug", "skip_memory_metrics", "do_train",
    "resume_from_checkpoint", "local_rank",
}  # fmt: skip


def config(folder, **settings):
    return NaPOConfig(output_dir=str(folder), use_cpu=True, **settings)


def test_every_setting_of_transformers_is_honoured_or_refused():
    settings = {field.name for field in fields(TrainingArguments)}
    arguments = {*inspect.signature(Trainer).parameters}
    named = {*inspect.signature(NaPOTrainer).parameters}
    assert not HONOURED & REFUSED.keys()
    assert {*HONOURED, *REFUSED} == settings | (arguments - named)


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("eval_strategy", "steps", "does not evaluate during training; run notebooks/06"),
        ("load_best_model_at_end", True, "does not evaluate during training"),
        ("save_strategy", "best", "does not evaluate during training"),
        ("lr_scheduler_type", "reduce_lr_on_plateau", "does not evaluate during training"),
        ("push_to_hub", True, "uploads nothing; upload the finished folder with hf upload"),
        ("train_sampling_strategy", "group_by_length", "shuffled by the seed"),
        ("dataloader_drop_last", False, "into full batches"),
        ("ignore_data_skip", True, "a resumed run goes on with them"),
        ("accelerator_config", {"split_batches": True}, "split_batches is refused"),
        ("accelerator_config", {"gradient_accumulation_kwargs": {"num_steps": 2}}, "is refused"),
        ("label_smoothing_factor", 0.1, r"give another one, such as .*cdpo"),
        ("remove_unused_columns", True, "reads the columns that it needs"),
        ("torch_compile", True, "shared prefix is not tested with it"),
        ("neftune_noise_alpha", 5.0, "psi would be wrong"),
        ("fp16", True, "use bf16"),
        ("auto_find_batch_size", True, "its size is part of the result"),
        ("enable_jit_checkpoint", True, "set save_steps"),
    ],
)
def test_a_setting_without_its_usual_effect_is_refused(setting, value, reason, tmp_path, result):
    if setting in ("load_best_model_at_end", "save_strategy", "lr_scheduler_type"):
        args = config(tmp_path)
        setattr(args, setting, value)  # transformers wants eval_strategy with it
    else:
        args = config(tmp_path, **{setting: value})
    with pytest.raises(NapoError, match=reason) as error:
        check_arguments(args, {})
    assert str(error.value).startswith(setting)
    result(error.value)


@pytest.mark.kind("a trainer's argument is ignored")
@pytest.mark.parametrize("name", ["eval_dataset", "compute_metrics", "data_collator", "model_init"])
def test_an_argument_that_the_trainer_does_not_honour_is_refused(name, tmp_path, result):
    args = config(tmp_path)
    check_arguments(args, {name: None})
    with pytest.raises(NapoError, match=f"^{name} is refused: ") as error:
        check_arguments(args, {name: [1]})
    result(error.value)


def test_unknown_arguments_and_plain_training_arguments_name_the_right_ones(tmp_path):
    args = config(tmp_path)
    with pytest.raises(NapoError, match="Did you mean 'eval_dataset'"):
        check_arguments(args, {"eval_datasets": [1]})
    with pytest.raises(NapoError, match="args is a TrainingArguments; give a NaPOConfig"):
        check_arguments(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), {})


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_reporter_names_its_pip_command(name, base, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("napo.training.arguments.find_spec", lambda name: None)
    watched = SETTINGS.model_copy(update={"report_to": name})
    with pytest.raises(NapoError, match=f"report_to is {name}, .*: pip install {name}"):
        train_run(tmp_path / "run", base, rows, "dpo", watched, seed=0)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    """W&B is installed; neither a variable nor a login holds its key."""
    monkeypatch.setattr("napo.training.arguments.find_spec", lambda name: True)
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))


def test_reports_to_wandb_take_the_key_from_the_environment(no_key, monkeypatch):
    with pytest.raises(NapoError, match="neither WANDB_API_KEY nor WANDB_MODE is set"):
        require_reporter("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    require_reporter("wandb")


@pytest.mark.parametrize("place", ["NETRC", "home"])
def test_reports_to_wandb_take_the_key_of_wandb_login(no_key, monkeypatch, tmp_path, place):
    file = tmp_path / ".netrc"
    if place == "NETRC":
        monkeypatch.setenv("NETRC", str(file))
    else:
        monkeypatch.delenv("NETRC")
        monkeypatch.setenv("HOME", str(tmp_path))
    for content in ("machine other.host login user password key", "damaged"):
        file.write_text(content)
        with pytest.raises(NapoError, match="log in with wandb login"):
            require_reporter("wandb")
    file.write_text("machine api.wandb.ai\n  login user\n  password key\n")
    require_reporter("wandb")


@pytest.mark.kind("half precision that is not said")
@pytest.mark.parametrize(("variable", "bf16"), [("bf16", False), ("fp16", False), ("bf16", True)])
def test_a_variable_that_changes_the_precision_is_refused(
    tmp_path, monkeypatch, variable, bf16, result
):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", variable)
    args = config(tmp_path, bf16=bf16)
    if bf16:
        return check_arguments(args, {})
    with pytest.raises(NapoError, match=f"^ACCELERATE_MIXED_PRECISION is {variable}") as error:
        check_arguments(args, {})
    result(error.value)


@pytest.mark.kind("half precision that is not said")
@pytest.mark.parametrize(
    ("name", "enabled", "bf16"),
    [("bf16", True, False), ("bf16", False, True), ("fp16", True, False),
     ("torch_autocast", True, True)],
)  # fmt: skip
def test_a_deepspeed_configuration_of_another_precision_is_refused(
    tmp_path, name, enabled, bf16, result
):
    args = NaPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=bf16)
    args.deepspeed_plugin = SimpleNamespace(deepspeed_config={name: {"enabled": enabled}})
    with pytest.raises(NapoError, match=f"^{name}.enabled is {enabled} in the DeepSpeed") as error:
        check_arguments(args, {})
    result(error.value)
    args.deepspeed_plugin.deepspeed_config = {"bf16": {"enabled": "auto"}}
    check_arguments(args, {})


@pytest.mark.kind("half precision that is not said")
def test_a_deepspeed_file_with_fp16_is_refused_before_accelerate_does(
    tmp_path, monkeypatch, result
):
    write_json(tmp_path / "engine.json", {"zero_optimization": {}, "fp16": {"enabled": True}})
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "engine.json"))
    with pytest.raises(NapoError, match=r"^fp16.enabled is True in the DeepSpeed") as error:
        config(tmp_path, bf16=True)
    result(error.value)


@pytest.mark.kind("the machine's surroundings")
@pytest.mark.parametrize("variables", [{}, {"RANK": "0"}, {"LOCAL_RANK": "0"}], ids=str)
def test_several_processes_without_their_numbers_are_refused(
    base, rows, tmp_path, monkeypatch, variables, result
):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"WORLD_SIZE": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NapoError, match=r"^WORLD_SIZE is '2' .* not set; unset WORLD") as error:
        train_run(tmp_path / "run", base, rows, "dpo", SETTINGS, seed=0)
    result(error.value)
