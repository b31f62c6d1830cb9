"""accelerate reads the launch configurations of the package."""

from importlib.resources import files

import pytest

CONFIGS = files("napo.training") / "accelerate"


@pytest.mark.parametrize(
    "name, kind, values",
    [
        ("ddp", "MULTI_GPU", {}),
        ("fsdp2", "FSDP", {"fsdp_version": 2}),
        ("zero2", "DEEPSPEED", {"zero_stage": 2}),
        ("zero3", "DEEPSPEED", {"zero_stage": 3, "zero3_init_flag": True}),
    ],
)
def test_accelerate_reads_the_configuration(name, kind, values):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"  # the run's own setting decides
    inner = {**config.fsdp_config, **config.deepspeed_config}
    assert {key: inner[key] for key in values} == values
