"""The sections of a profile: frozen, validated, every value of the paper with its source."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from napo.config.contrast import Contrast
from napo.config.registry import look_up
from napo.config.values import (
    Attention,
    Benchmarks,
    Count,
    Dtype,
    Function,
    ImageMode,
    Integer,
    Number,
    Plugins,
    Positive,
    Seed,
    Share,
    Sizes,
    VariantName,
    matching,
)
from napo.config.variants import Q_RULES
from napo.errors import NapoError

TUNES = ("full", "lora", "qlora")
REPORTERS = ("none", "tensorboard", "trackio", "wandb")
IMAGE_MASKS = ("mask_token", "drop", "blank_white", "blank_black", "noise")
TEXT_MASKS = ("mask_token", "drop")


class Settings(BaseModel):
    """Base of all sections: frozen, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class World(Settings):
    """The functions of a made-up world; empty where a profile reads real data."""

    pretrain: Function = ""  # makes the base model that other profiles download
    make_rows: Function = ""  # writes the preference rows that other profiles download
    make_benchmarks: Function = ""  # writes the benchmark folders that other profiles download
    label_by_truth: Function = ""  # labels a biased response by the truth of the scene
    judge_by_truth: Function = ""  # rates an answer by the truth of the scene
    reword: Function = ""  # another right wording of a row's chosen response, for the noise study

    def function(self, name: str) -> Callable[..., Any] | None:
        """The function behind a key of this section, or None where the profile has none.

        Raises:
            NapoError: when there is no such function.
        """
        path = getattr(self, name)
        return look_up(path, f"world.{name}") if path else None


class Model(Settings):
    """The base model, which is also the reference."""

    # Folder, hub id, or package:folder inside it
    path: Annotated[str, matching("[^:].*", "name a folder, a hub id, or package:folder")] = (
        "napo.icon_world:checkpoint"
    )
    revision: str = ""  # of a hub id: the commit that is fetched and loaded
    dtype: Dtype = "float32"
    attention: Attention = "sdpa"
    image_mode: ImageMode = "crop"  # one switch for all stages
    system: str = ""  # text at the start of every prompt, never masked; empty: none
    architecture: dict[str, JsonValue] = {}  # from its config.json, for the budget before download
    _profile: str = PrivateAttr("PROFILE")  # the profile's name or file, for messages

    @model_validator(mode="after")
    def _only_the_hub_has_revisions(self) -> Model:
        if not self.revision:
            return self
        from huggingface_hub.utils import HFValidationError, validate_repo_id

        try:
            validate_repo_id(self.path)
        except HFValidationError:
            # No ValueError: an adapter's base is such a Model too, outside a profile.
            raise NapoError(
                f"model.revision is {self.revision!r}, but model.path {self.path!r} is not an id "
                "on the hub; set model.revision to ''."
            ) from None
        return self

    @property
    def preprocessing(self) -> dict[str, str]:
        """The settings of `napo.models.files.load_processor`, which turns rows into prompts."""
        return {"image_mode": self.image_mode, "system": self.system}

    @property
    def loading(self) -> dict[str, str]:
        """The settings of `napo.models.load.load_model`."""
        return {"dtype": self.dtype, "attention": self.attention, **self.preprocessing}

    @property
    def location(self) -> str:
        """The path to load from: a folder of a package, or a hub id's fetched commit, resolved.

        Raises:
            NapoError: when there is no such package, or the commit was not fetched.
        """
        if self.revision:
            from huggingface_hub import try_to_load_from_cache

            config = try_to_load_from_cache(self.path, "config.json", revision=self.revision)
            if not isinstance(config, str):
                raise NapoError(
                    f"{self.path} at {self.revision[:8]} is not in the hub's cache; "
                    f"fetch it with make fetch PROFILE={self._profile} YES=1."
                )
            return str(Path(config).parent)
        package, colon, folder = self.path.partition(":")
        if not colon or "/" in package:
            return self.path
        try:
            return str(Path(str(importlib.resources.files(package))) / folder)
        except Exception as error:  # the package is imported, which may do anything
            missing = isinstance(error, ModuleNotFoundError)
            raise NapoError(
                f"model.path names {package!r}, which is "
                f"{'not installed' if missing else 'not a package'}; "
                "give a folder, a hub id, or package:folder."
            ) from None


class Decoding(Settings):
    """How a response is generated. Temperature 0 is greedy."""

    max_new_tokens: Count = 48
    min_new_tokens: Integer = 1  # an empty response has no log-probability
    num_beams: Count = 1
    temperature: Annotated[Number, Field(le=100)] = 0.0
    top_p: Annotated[Share, Field(ge=1e-6)] = 1.0
    contrast: Contrast | None = None  # visual contrastive decoding (VCD); none by default

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a contrast, the settings of folders are as if there were no such key."""
        values = dump(self)
        if self.contrast is None:
            values.pop("contrast", None)
        return values

    @model_validator(mode="after")
    def _possible(self) -> Decoding:
        if self.contrast and self.num_beams > 1:
            raise ValueError(
                f"contrast does not work with beams; set num_beams from {self.num_beams} to 1, or "
                "leave contrast out"
            )
        if 0 < self.temperature < 0.01:  # logits divided by less leave float32
            raise ValueError(
                f"temperature is {self.temperature}; give 0 for greedy, or at least 0.01"
            )
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens {self.min_new_tokens} is above max_new_tokens "
                f"{self.max_new_tokens}; lower it"
            )
        return self


class Data(Settings):
    """The preference rows."""

    source: str = ""  # folder of RLAIF-V, or of JSONL and images; empty: the world makes the rows
    count: Integer = 0  # rows used, from the first on (icon world: made); 0: all
    expected: Integer = 0  # rows that the published data has; 0: not known
    bad_rows: Literal["stop", "skip"] = "stop"  # what happens at a row that cannot be used
    p_typical: Share = 0.5  # icon world: share of typical colours
    seed: Seed = 7
    shard_rows: Count = 256  # rows built, scored and written at a time


class Masks(Settings):
    """How one modality is hidden (Eqs. 7 and 8)."""

    image: Literal[IMAGE_MASKS] = "mask_token"
    text: Literal[TEXT_MASKS] = "mask_token"
    decoding: Decoding = Decoding()
    batch_size: Count = 128
    engine: Literal["transformers", "vllm"] = "transformers"  # what generates


class Annotation(Settings):
    """The sample that is labelled by hand (Section 3.2)."""

    samples: Count = 100  # §3.2: 100 data points
    seed: Seed = 11
    # The annotator of batch mode; "oracle" is the scene's truth; empty: every annotator.
    annotator: str = "oracle"


class Training(Settings):
    """One training run. The objective of each variant is in `napo.config.variants`."""

    tune: Literal[TUNES] = "full"  # what a notebook trains by default
    beta: Positive = 0.1  # §4.1
    learning_rate: Positive = 5e-7  # §4.1
    lora_learning_rate: Positive = 2e-5  # LoRA needs a larger step
    epochs: Count = 4  # §4.1
    batch_size: Count = 32  # released code: 1 x 4 x 8 processes
    micro_batch_size: Count = 1
    warmup_ratio: Annotated[Number, Field(lt=1)] = 0.1  # released code
    weight_decay: Number = 0.01  # released code
    schedule: Literal["cosine", "linear", "constant"] = "cosine"  # released code
    max_grad_norm: Positive = 1.0
    q_rule: Literal[Q_RULES] = "paper"  # Eq. 12 or the released code's
    max_length: Count = 2048  # released code
    gradient_checkpointing: bool = False
    bf16: bool = False
    lora_r: Count = 64
    lora_alpha: Count = 128
    lora_dropout: Annotated[Number, Field(lt=1)] = 0.0
    # Names of layers with commas between them; empty: the family's
    lora_targets: Annotated[
        str,
        matching(
            r"(\s*\w[\w.]*\s*(,\s*\w[\w.]*\s*)*)?",
            "write names of layers with commas between them, such as q_proj,v_proj",
        ),
    ] = ""
    save_steps: Count = 200  # a checkpoint to resume from
    logits_mb: Count = 256  # float32 logits held at any time
    # Where a run can be watched; it changes no byte of the run. The package must be installed.
    report_to: Literal[REPORTERS] = "none"
    logging_steps: Count = 10  # steps between two reports

    def identity(self, tune: str) -> dict[str, Any]:
        """The settings that the bytes of a run of this tune depend on."""
        watched = {"report_to", "logging_steps", "tune"}
        of_lora = {name for name in type(self).model_fields if name.startswith("lora_")}
        return self.model_dump(exclude=watched | (of_lora if tune == "full" else {"learning_rate"}))

    @model_validator(mode="after")
    def _divisible(self) -> Training:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}; change one of them"
            )
        return self


class Run(Settings):
    """Keys of RUN.yaml for `python -m napo.training`; paths are relative to the working folder."""

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
    system: str = ""  # as the reference's, see Model
    data_workers: Integer = 0


class Evaluation(Settings):
    """How the benchmarks are answered and scored."""

    source: str = ""  # folder of the downloads; empty: data/<profile>/benchmarks
    benchmarks: Benchmarks = ("vlind", "object_halbench", "amber", "mmhal")
    sizes: Sizes = {}  # icon world: how many instances each benchmark is made with
    seed: Seed = 1234  # icon world: the scenes of the benchmarks
    split: Literal["test", "validation"] = "test"  # hyper-parameters are chosen on validation
    batch_size: Count = 256
    decoding: Decoding = Decoding()
    vlind_image: Literal["best", "most_votes"] = "best"  # upstream, or the released copy
    vote_threshold: Count = 2  # upstream's default
    extractor: Literal["vocabulary", "wordnet", "llm"] = "vocabulary"
    similarity: Literal["identity", "table", "table-own", "lg"] = "identity"
    judge: Literal["rule", "openai"] = "rule"
    judge_model: str = ""

    @model_validator(mode="after")
    def _judge_has_a_model(self) -> Evaluation:
        if self.judge == "openai" and not self.judge_model:
            raise ValueError("judge is openai, which needs judge_model; name the model")
        return self

    def contrasted(self, contrast: Contrast) -> Evaluation:
        """The same evaluation, decoded with this contrast.

        Raises:
            NapoError: when it decodes with beams.
        """
        if self.decoding.num_beams > 1:
            raise NapoError(
                f"evaluation.decoding.num_beams is {self.decoding.num_beams}, and a contrast does "
                "not work with beams; set it to 1."
            )
        decoding = self.decoding.model_copy(update={"contrast": contrast})
        return self.model_copy(update={"decoding": decoding})


class Launch(Settings):
    """How the stages that use several GPUs are started (`accelerate launch`)."""

    processes: Integer = 1  # 0: one for each GPU that is visible
    # A file of napo/training/accelerate
    strategy: Literal["ddp", "zero2", "zero3", "fsdp2"] = "ddp"
    # Workers of each training process that decode and resize pictures for the next steps. Results
    # do not depend on them.
    data_workers: Integer = 0


class Source(Settings):
    """Something to download (`make fetch`), or to get by hand."""

    name: str  # what it is, in a word or two
    to: str  # where it goes, a folder relative to the workspace; empty: the hub's cache
    repo: str = ""  # on the Hugging Face hub; empty: see `url` or `manual`
    kind: Literal["model", "dataset"] = "dataset"
    revision: str = ""  # the commit; empty: the newest, which is then recorded
    files: tuple[str, ...] = ()  # patterns; empty: all
    url: dict[str, str] = {}  # file name -> address
    manual: str = ""  # manual steps, where no program may download
    holds: dict[str, Integer] = {}  # pattern -> how many such files a complete folder has
    gigabytes: Number = 0.0
    licence: str = ""

    @field_validator("to")
    @classmethod
    def _inside(cls, value: str) -> str:
        if PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
            raise ValueError("name a folder inside the workspace")
        return value
