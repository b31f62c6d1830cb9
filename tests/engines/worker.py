"""One process of a training run on an engine: `accelerate launch ... worker.py RUN.yaml`.

It writes how the process holds the weights into a file beside the run folder. Three things are
not as on GPUs:

- accelerate makes plain DDP of FSDP2 on CPUs, unless the processes count as those of several GPUs.
- ZeRO-3 leaves small weights whole, and those of the tiny model are small.
- DeepSpeed would compile an operation for CPUs, which takes minutes; gloo does without.

`ENGINE_DIES_AT` is a step at which the last process is killed, `ENGINE_BREAKS_AT` one after which
it holds a weight that is not finite.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType

from napo.training.__main__ import main
from napo.training.trainer import NaPOTrainer

start, read = AcceleratorState.__init__, DeepSpeedPlugin.__post_init__
compute, save = NaPOTrainer.compute_loss, NaPOTrainer._save_checkpoint


def on_gpus(self, *args, **kwargs):
    if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    start(self, *args, **kwargs)


def sharing_all(self):
    read(self)
    self.deepspeed_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0


def kind(weight):
    """How this process holds a weight."""
    if hasattr(weight, "ds_id"):
        return "ZeRO-3" if weight.numel() == 0 else "gathered"
    return type(weight).__name__


def computing(self, model, *args, **kwargs):
    step, rank = self.state.global_step, self.args.process_index
    if step == 0 and rank == 0:
        kinds = dict(Counter(map(kind, model.parameters())), wrapper=type(model).__name__)
        Path(f"{self.args.output_dir}.engine").write_text(repr(kinds))
    if rank == self.args.world_size - 1 and str(step) == os.environ.get("ENGINE_DIES_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, model, *args, **kwargs)


def breaking(self, *args, **kwargs):
    last = self.args.process_index == self.args.world_size - 1
    if last and str(self.state.global_step) == os.environ.get("ENGINE_BREAKS_AT"):
        weight = next(weight for weight in self.model.parameters() if weight.requires_grad)
        getattr(weight, "ds_tensor", weight).data[0] = torch.nan
    return save(self, *args, **kwargs)


if os.environ.get("ACCELERATE_USE_FSDP") == "true":
    AcceleratorState.__init__ = on_gpus
if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False
DeepSpeedPlugin.__post_init__ = sharing_all
NaPOTrainer.compute_loss, NaPOTrainer._save_checkpoint = computing, breaking
if __name__ == "__main__":
    sys.exit(main())
