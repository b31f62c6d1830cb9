"""The machine as `napo check` finds it: GPUs, free memory, tools and keys."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from napo import stages
from napo.benchmarks import judges
from napo.benchmarks.chat import is_address
from napo.commands.check_inputs import Remark
from napo.errors import NapoError
from napo.models import vllm
from napo.stages import launch
from napo.stages.session import Session
from napo.training.arguments import REPORTERS, has_key
from napo.training.divergence import NO_BACKWARD, half_precision
from napo.workspace.manifests import complete


class Machine(NamedTuple):
    """Free and total bytes of each visible GPU, and free bytes of the machine itself."""

    gpus: tuple[tuple[float, float], ...]
    memory: float

    @classmethod
    def here(cls) -> Machine:
        """This machine; an error if its GPUs do not answer."""
        limit = Path("/sys/fs/cgroup/memory.max")  # of a container
        text = limit.read_text().strip() if limit.is_file() else ""
        most = int(text) if text.isdecimal() else math.inf
        return cls(gpu_memory(), min(psutil.virtual_memory().available, most))


def gpu_memory() -> tuple[tuple[float, float], ...]:
    """Free and total bytes of each visible GPU.

    Another process asks, because a process that has asked keeps some memory of each GPU until it
    ends, and the pipeline goes on after the check.
    """
    if not torch.cuda.device_count():
        return ()
    code = (
        "import json, torch; print(json.dumps([torch.cuda.mem_get_info(i) "
        "for i in range(torch.cuda.device_count())]))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NapoError(f"The GPUs do not answer ({last}); see what nvidia-smi says.")
    return tuple(map(tuple, json.loads(process.stdout.splitlines()[-1])))


def tools(session: Session, gpus: int) -> Iterator[Remark]:
    """Packages, word lists and language models that the profile needs, and a rule to judge by."""
    profile, settings = session.profile, session.profile.evaluation
    strategy, tracker = profile.launch.strategy, profile.training.report_to
    several = (profile.launch.processes or gpus) > 1
    words = {"amber", "object_halbench"} & set(settings.benchmarks)
    missing: list[Remark] = []
    models = []  # of spaCy: any of these
    if "amber" in words and settings.similarity == "lg":
        models.append(("en_core_web_lg",))
    if "object_halbench" in words and settings.extractor == "llm":
        models.append(("en_core_web_trf", "en_core_web_sm"))
    if profile.masks.engine == "vllm" and not complete(session.workspace.rows):
        state, text = vllm.installation()
        missing += [(state, text)] * (state != "ok")
    for package, needed, setting, instead in (
        ("bitsandbytes", profile.training.tune == "qlora", "training.tune is qlora", "lora"),
        ("deepspeed", strategy.startswith("zero"), f"launch.strategy is {strategy}", "fsdp2"),
        ("openai", settings.judge == "openai", "evaluation.judge is openai", ""),
        ("spacy", bool(models), "AMBER's or Object HalBench's words need a model", ""),
        (tracker, tracker != "none", f"training.report_to is {tracker}", "none"),
    ):
        if needed and not importlib.util.find_spec(package):
            state = "note" if package == "deepspeed" and not several else "fault"
            other = f", or set it to {instead}" if instead else ""
            text = f"{setting}, which needs {package}: pip install {package}{other}."
            missing.append((state, text))
    for names in models:
        if not any(map(importlib.util.find_spec, names)):  # a model is a package
            text = f"spaCy's {names[0]} is missing: python -m spacy download {names[0]}"
            missing.append(("fault", text))
    if words and settings.extractor != "vocabulary" and (lists := [*missing_word_lists()]):
        command = f"python -m nltk.downloader {' '.join(lists)}"
        missing.append(("fault", f"NLTK's {', '.join(lists)} are missing or damaged: {command}"))
    yield from missing
    if "mmhal" in settings.benchmarks and settings.judge == "rule":
        rule = profile.world.function("judge_by_truth")
        judges.make(settings, stages.benchmarks_folder(session), rule)  # raises, with a remedy
    if not missing:
        yield "ok", "every package and word list that the profile needs is there."


def missing_word_lists() -> Iterator[str]:
    """NLTK's data that `napo.benchmarks.words.wordnet` uses and that are missing or damaged."""
    import nltk
    from nltk.stem import WordNetLemmatizer

    uses: dict[str, Callable[[], Any]] = {
        "wordnet": lambda: WordNetLemmatizer().lemmatize("dogs"),
        "punkt_tab": lambda: nltk.word_tokenize("A dog."),
        "averaged_perceptron_tagger_eng": lambda: nltk.pos_tag(["dog"]),
    }
    for name, use in uses.items():
        try:
            use()
        except Exception:  # LookupError if it is missing, any other if it is damaged
            yield name


def keys(session: Session) -> Iterator[Remark]:
    """Keys of services, from the environment."""
    profile, settings = session.profile, session.profile.evaluation
    if settings.judge == "openai":
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key or not key.isascii():
            problem = "is not in ASCII letters" if key else "is not set"
            yield (
                "note",
                f"OPENAI_API_KEY {problem}; every evaluation stops at the benchmarks that "
                f"{settings.judge_model} judges, and keeps its answers.",
            )
        if not is_address(os.environ.get("OPENAI_BASE_URL", "https://api.openai.com")):
            yield "fault", "OPENAI_BASE_URL is not the address of a server; correct or unset it."
    tracker = profile.training.report_to
    if not has_key(tracker):
        names = " nor ".join(REPORTERS[tracker])
        yield "fault", f"training.report_to is {tracker}, and neither {names} is set; set one."


def processes(session: Session, gpus: int) -> Iterator[Remark]:
    """GPUs, and how processes share a batch."""
    profile = session.profile
    yield "ok", f"{gpus} GPUs are visible." if gpus else "No GPU is visible."
    count, training = launch.processes(session, gpus), profile.training
    micro = min(training.micro_batch_size, training.batch_size)
    if training.batch_size % (micro * count):
        yield (
            "fault",
            f"training.batch_size {training.batch_size} is not a multiple of "
            f"micro_batch_size {micro} x {count} processes; change one of them.",
        )
    dtype = profile.model.dtype
    if training.tune == "full" and dtype != "float32" and not training.bf16:
        yield "fault", half_precision(dtype)
    if profile.model.attention == "flex_attention" and not gpus:
        yield "fault", NO_BACKWARD
    if not profile.variants:
        yield "note", "variants is empty: nothing is trained, and tables hold the base only."
