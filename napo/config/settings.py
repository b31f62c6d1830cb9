"""The sections of a profile: frozen, validated, every value of the paper with its source."""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from napo.config.benchmarks import BENCHMARKS
from napo.config.registry import Registry, look_up
from napo.config.variants import Q_RULES, VARIANTS
from napo.errors import NapoError, unknown

TUNES = ("full", "lora", "qlora")
IMAGE_MASKS = ("mask_token", "drop", "blank_white", "blank_black", "noise")
TEXT_MASKS = ("mask_token", "drop")
# What torch and numpy take for one.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flex_attention"]
ImageMode = Literal["crop", "pad"]
# What becomes a folder, a file name and a word of a command line.
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


def _import(module: str) -> str:
    """Import a plugin, which registers its entries; its name is returned."""
    try:
        importlib.import_module(module)
    except NapoError as error:  # it registers an entry that is refused
        raise ValueError(f"the plugin {module}: {error}".rstrip(".")) from None
    except Exception as error:  # a module may do anything when it is imported
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"the plugin {module} cannot be imported ({problem}); name a module that is installed "
            "or stands beside the profile"
        ) from None
    return module


def _entry_of(registry: Registry) -> AfterValidator:
    """A name that has to be in a registry."""

    def known(name: str) -> str:
        if name not in registry:
            raise ValueError(str(unknown(registry.kind, name, registry)).rstrip("."))
        return name

    return AfterValidator(known)


# Modules that register entries. Sections that name entries come after them.
Plugins = tuple[Annotated[str, AfterValidator(_import)], ...]
VariantName = Annotated[Word, _entry_of(VARIANTS)]
BenchmarkName = Annotated[str, _entry_of(BENCHMARKS)]


class Settings(BaseModel):
    """Base of all sections: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts true and false as 1 and 0: `epochs: yes` would train for one epoch.
        kind = cls.model_fields[info.field_name].annotation
        counts = get_args(kind) == (str, int)
        given = value.values() if counts and isinstance(value, dict) else (value,)
        if (counts or kind in (int, float)) and any(isinstance(one, bool) for one in given):
            raise PydanticCustomError(
                "number", "write a number (YAML reads yes, no, on and off as true and false)"
            )
        return value


class World(Settings):
    """What only this profile can do, as dotted callables; empty where the real thing is read."""

    pretrain: str = ""  # makes the base model that other profiles download
    make_rows: str = ""  # writes the preference rows that other profiles download
    make_benchmarks: str = ""  # writes the benchmark folders that other profiles download
    label_by_truth: str = ""  # labels a biased response when the truth of the scene is known
    judge_by_truth: str = ""  # rates an answer when the truth of the scene is known

    @field_validator("*")
    @classmethod
    def _dotted(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError("write it as package.module:function")
        return value

    def function(self, name: str) -> Callable[..., Any] | None:
        """The callable behind a name of this section, or None where the profile has none."""
        dotted = getattr(self, name)
        return look_up(dotted, f"world.{name}") if dotted else None

    def check(self) -> None:
        """Refuse callables that are not there, without importing their modules.

        A process that only reads a profile does not wait for torch, and a run does not find out
        after hours; `function` says the last word.

        Raises:
            NapoError: naming the key.
        """
        for name, dotted in self:
            if dotted and not _is_there(*dotted.split(":")):
                raise NapoError(
                    f"world.{name} names {dotted!r}, which is no function that is there; write it "
                    "as package.module:function, of a package that is installed."
                )


def _is_there(module: str, attribute: str) -> bool:
    """Whether a module may have a callable of this name, as far as its source says."""
    if module in sys.modules:
        return callable(getattr(sys.modules[module], attribute, None))
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module) if spec else ""
    except AttributeError:  # a loader without sources: of an extension, or of a user's own
        return True
    except Exception:  # finding it imports its package, which may do anything
        return False
    return source is None or bool(re.search(rf"\b{attribute}\b|import \*|__getattr__", source))


def _is_hub_id(path: str) -> bool:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(path)
    except HFValidationError:
        return False
    return True


class Model(Settings):
    """The base model, which is also the reference."""

    path: str = "napo.icon_world:checkpoint"  # folder, hub id, or package:folder inside it
    revision: str = ""  # of a hub id: the commit that is fetched and loaded
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    image_mode: ImageMode = "crop"  # one switch for all stages
    architecture: dict[str, Any] = {}  # values of its config.json, for the budget before a download

    @field_validator("path")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value or value.startswith(":"):
            raise ValueError("name a folder, a hub id, or package:folder")
        return value

    @model_validator(mode="after")
    def _of_the_hub(self) -> Model:
        # No ValueError: an adapter's base, which no profile names, gets the sentence too.
        if self.revision and not _is_hub_id(self.path):
            raise NapoError(
                f"model.revision is {self.revision!r}, and model.path {self.path!r} is no id on "
                "the hub, which alone has revisions; set model.revision to ''."
            )
        return self

    @property
    def location(self) -> str:
        """The path to load from: a folder of a package, or a hub id's fetched commit, resolved.

        Raises:
            NapoError: when the package is none or not installed, or the commit was not fetched.
        """
        package, colon, folder = self.path.partition(":")
        if not colon or "/" in package:
            return self._fetched() if self.revision else self.path
        try:
            return str(Path(str(importlib.resources.files(package))) / folder)
        except Exception as error:  # finding it imports it, which may do anything
            missing = isinstance(error, ModuleNotFoundError)
            raise NapoError(
                f"model.path names the package {package!r}, which is "
                f"{'not installed' if missing else 'no package'}; "
                "give a folder, a hub id, or package:folder."
            ) from None

    def _fetched(self) -> str:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.path, "config.json", revision=self.revision)
        if not isinstance(found, str):
            raise NapoError(
                f"{self.path} at {self.revision[:8]} is not in the hub's cache; "
                "fetch it with make fetch PROFILE=... YES=1."
            )
        return str(Path(found).parent)


class Decoding(Settings):
    """How a response is generated. Temperature 0 is greedy."""

    max_new_tokens: int = Field(default=48, gt=0)
    min_new_tokens: int = Field(default=1, ge=0)  # an empty response has no log-probability
    num_beams: int = Field(default=1, gt=0)
    temperature: float = Field(default=0.0, ge=0, le=100)
    top_p: float = Field(default=1.0, ge=1e-6, le=1)

    @field_validator("temperature")
    @classmethod
    def _divides(cls, value: float) -> float:
        if 0 < value < 0.01:  # logits divided by less leave float32
            raise ValueError(f"it is {value}; give 0, which is greedy, or 0.01 and more")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Decoding:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is above max_new_tokens "
                f"{self.max_new_tokens}; lower it"
            )
        return self


class Data(Settings):
    """The preference rows."""

    source: str = ""  # folder of RLAIF-V, or of JSONL and images; empty: the world makes the rows
    count: int = Field(default=0, ge=0)  # rows used, from the first on (tiny: made); 0: all
    expected: int = Field(default=0, ge=0)  # rows that the published data has; 0: not known
    bad_rows: Literal["stop", "skip"] = "stop"  # what a row does that cannot be used
    p_typical: float = Field(default=0.5, ge=0, le=1)  # icon world: share of typical colours
    seed: Seed = 7
    shard_rows: int = Field(default=256, gt=0)  # rows built, scored and written at a time


class Masks(Settings):
    """How one modality is hidden (Eqs. 7 and 8)."""

    image: Literal[IMAGE_MASKS] = "mask_token"
    text: Literal[TEXT_MASKS] = "mask_token"
    decoding: Decoding = Decoding()
    batch_size: int = Field(default=128, gt=0)
    engine: Literal["transformers", "vllm"] = "transformers"  # what generates


class Annotation(Settings):
    """The sample that is labelled by hand (Section 3.2)."""

    samples: int = Field(default=100, gt=0)  # §3.2: 100 data points
    seed: Seed = 11
    # Whose labels batch mode reads; "oracle" is the scene's truth, empty: whoever labelled.
    annotator: str = "oracle"


class Training(Settings):
    """One training run. What a variant minimises stands in `napo.config.variants`."""

    tune: Literal[TUNES] = "full"  # what a notebook trains if it is not told
    beta: float = Field(default=0.1, gt=0)  # §4.1
    learning_rate: float = Field(default=5e-7, gt=0)  # §4.1
    lora_learning_rate: float = Field(default=2e-5, gt=0)  # LoRA wants a larger step
    epochs: int = Field(default=4, gt=0)  # §4.1
    batch_size: int = Field(default=32, gt=0)  # released code: 1 x 4 x 8 processes
    micro_batch_size: int = Field(default=1, gt=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)  # released code
    weight_decay: float = Field(default=0.01, ge=0)  # released code
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # released code
    max_grad_norm: float = Field(default=1.0, gt=0)
    q_rule: Literal[Q_RULES] = "paper"  # Eq. 12 or the released code's
    max_length: int = Field(default=2048, gt=0)  # released code
    gradient_checkpointing: bool = False
    bf16: bool = False
    lora_r: int = Field(default=64, gt=0)
    lora_alpha: int = Field(default=128, gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_targets: str = ""  # names with commas; empty: the family's
    save_steps: int = Field(default=200, gt=0)  # a checkpoint to resume from
    logits_mb: int = Field(default=256, gt=0)  # float32 logits held at any time

    @field_validator("lora_targets")
    @classmethod
    def _named(cls, value: str) -> str:
        if value and not all(re.fullmatch(r"\w[\w.]*", name.strip()) for name in value.split(",")):
            raise ValueError(
                "write names of layers with commas between them, such as q_proj,v_proj"
            )
        return value

    @model_validator(mode="after")
    def _divisible(self) -> Training:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}; change one of them"
            )
        return self


class Run(Settings):
    """What `python -m napo.training RUN.yaml` trains; paths are relative to the working folder."""

    run_folder: str = Field(min_length=1)  # made; it holds the weights, records and checkpoints
    model: str = Field(min_length=1)  # the base model: a folder or a hub id
    rows: str = Field(min_length=1)  # folder of RLAIF-V-Bias
    reference: str = Field(min_length=1)  # folder of its reference log-probs
    plugins: Plugins = ()
    variant: VariantName
    seed: Seed = 0
    tune: Literal[TUNES] = "full"
    training: Training = Training()
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    image_mode: ImageMode = "crop"
    data_workers: int = Field(default=0, ge=0)


class Evaluation(Settings):
    """How the four benchmarks are asked and scored."""

    source: str = ""  # folder of the four downloads; empty: data/<profile>/benchmarks
    benchmarks: tuple[BenchmarkName, ...] = ("vlind", "object_halbench", "amber", "mmhal")
    sizes: dict[str, int] = {}  # icon world: how many instances each benchmark is made with
    seed: Seed = 1234  # icon world: the scenes of the benchmarks
    split: Literal["test", "validation"] = "test"  # hyper-parameters are chosen on validation
    batch_size: int = Field(default=256, gt=0)
    decoding: Decoding = Decoding()
    vlind_image: Literal["best", "most_votes"] = "best"  # upstream, or the released copy
    vote_threshold: int = Field(default=2, gt=0)  # upstream's default
    extractor: Literal["vocabulary", "wordnet", "llm"] = "vocabulary"
    similarity: Literal["identity", "table", "table-own", "lg"] = "identity"
    judge: Literal["rule", "openai"] = "rule"
    judge_model: str = ""

    @field_validator("benchmarks")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one benchmark, and each once")
        return value

    @field_validator("sizes")
    @classmethod
    def _countable(cls, value: dict[str, int]) -> dict[str, int]:
        known = [size for benchmark in BENCHMARKS.values() for size in benchmark.sizes]
        for name, count in value.items():
            if name not in known:
                raise ValueError(str(unknown("size", name, known)))
            if count < 1:
                raise ValueError(f"{name} is {count}; make at least one instance")
        return value

    @model_validator(mode="after")
    def _judged(self) -> Evaluation:
        if self.judge == "openai" and not self.judge_model:
            raise ValueError("judge is openai, which needs judge_model: name the judge")
        return self


class Launch(Settings):
    """How the stages that use several GPUs are started (`accelerate launch`)."""

    processes: int = Field(default=1, ge=0)  # 0: one for each GPU that is visible
    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = (
        "ddp"  # a file of napo/training/accelerate
    )
    # Of each training process: they decode and resize pictures for the next steps. No byte of a
    # result depends on it.
    data_workers: int = Field(default=0, ge=0)


class Source(Settings):
    """Something to download (`make fetch`), or to get by hand."""

    name: str  # what it is, in a word or two
    to: str  # where it goes, a folder relative to the workspace; empty: the hub's cache
    repo: str = ""  # on the Hugging Face hub; empty: see `url` or `manual`
    kind: Literal["model", "dataset"] = "dataset"
    revision: str = ""  # the commit; empty: the newest, which is then recorded
    files: tuple[str, ...] = ()  # patterns; empty: all
    url: dict[str, str] = {}  # file name -> address
    manual: str = ""  # what a person has to do where no program may
    holds: dict[str, int] = {}  # pattern -> how many such files there are when it is complete
    gigabytes: float = Field(default=0.0, ge=0)
    licence: str = ""

    @field_validator("to")
    @classmethod
    def _inside(cls, value: str) -> str:
        if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
            raise ValueError("name a folder inside the workspace")
        return value
