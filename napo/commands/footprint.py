"""The memory of a training step, tensor by tensor, from a model's config.

Peak. Activations go while gradients come, so the parts in `table` are those of the worst moment of
a steady step, which its last column names: "forward" (the end of that pass), "vocabulary" (all
activations and a chunk of logits), "layers" (backward through decoder layers), "update" (the
optimiser). Gradients are dropped between steps, and held where micro-batches are accumulated.

Weights. Full tuning trains the language model and the projector; the vision tower is frozen.
- ddp: float32 parameters, gradients and two AdamW moments; products in bfloat16 by autocast, whose
  copies of weights stay as long as the graph needs them. Several processes add the reducer's
  buckets, as large as the gradients (DDP's gradient_as_bucket_view is off unless asked for).
- zero2 (DeepSpeed, bf16): the bfloat16 model whole; bfloat16 gradients, float32 masters and two
  moments sharded; float32 copies of the gradient shard in the update; a bucket of 5e8 gradients.
- fsdp2: all of these in float32 shards; whole, in bfloat16, are two decoder layers (one at work,
  one coming) and what lies outside layers (embedding, output layer, projector), with gradients.
LoRA: the base frozen in the profile's dtype, adapters in float32 (zero2: bfloat16 and masters).
QLoRA: the language model's linear layers in NF4, 4 + 8/64 + 32/(64 x 256) bits a weight with the
constants quantised again (Dettmers et al. 2023, Section 3), and one of them at a time in the dtype.
The reference is cached log-probs; qlora's is one more pass, its adapter off, without gradients.

Activations. What autograd saves in a Llama layer, tensor by tensor (`_layer`); with checkpointing
its input, and one layer at a time made again. SDPA turns the boolean mask into one of the products'
dtype, (rows, 1, L, L), in each layer; its memory-efficient kernel on GPUs and its flash kernel on
CPUs hold no scores. Eager attention holds L x L scores a head. The tower, without gradients, is
over before the language model begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from napo.config.profile import Training
from napo.errors import NapoError, unknown
from napo.models import families

RESPONSES = 4  # chosen, rejected, language-biased, vision-biased
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # bytes a weight
BUCKET = 5e8  # DeepSpeed's reduce_bucket_size, elements
_ROOM = 12  # bytes a logit, as napo.method.logprobs.token_logprobs counts them


@dataclass(frozen=True)
class Shape:
    """A model in numbers; parameters are counted on the meta device, where none is allocated.

    Attributes:
        layers: decoder layers; `width`, `feed_forward`, `heads`, `kv_heads`, `head_dim` are theirs.
        vocabulary: number of logits.
        image_tokens: visual tokens of an image; 0: the config does not say.
        vision_flop: of one image through the tower, up to the layer whose features are used.
        total: parameters of the model.
        frozen: those that full tuning leaves as they are.
        projector: those between the tower and the language model.
        layer: those of one decoder layer.
        embedding: those of the word embedding.
        head: those of the output layer.
        linear: name -> (inputs, outputs) of the linear layers of one decoder layer.
    """

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    image_tokens: int
    vision_flop: float
    total: int
    frozen: int
    projector: int
    layer: int
    embedding: int
    head: int
    linear: dict[str, tuple[int, int]]

    @property
    def layer_linear(self) -> int:
        """Weights of one decoder layer's linear layers."""
        return sum(inputs * outputs for inputs, outputs in self.linear.values())

    def adapters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Parameters of LoRA matrices of this rank on these linear layers."""
        return self.layers * rank * sum(sum(self.linear[name]) for name in targets)


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a row; a response counts its end token, a question its template."""

    image: int
    question: int
    response: int

    @property
    def prompt(self) -> int:
        """Tokens of image and question."""
        return self.image + self.question

    @property
    def shared(self) -> int:
        """Tokens of a row in one sequence; a response's last predicts nothing and stays out."""
        return self.prompt + RESPONSES * (self.response - 1)


@dataclass(frozen=True)
class Run:
    """What decides the memory of a step.

    Attributes:
        targets: LoRA's linear layers; empty in full tuning.
        trained: trained parameters.
        weight: bytes of a weight outside 4 bits, as it is held.
        stream: bytes of a number between layers.
        product: bytes of a number that a matrix product gives.
        rows: rows of a micro-batch.
        accumulates: whether a step has several micro-batches.
    """

    shape: Shape
    lengths: Lengths
    training: Training
    tune: str
    strategy: str
    gpus: int
    attention: str
    targets: tuple[str, ...]
    trained: int
    weight: int
    stream: int
    product: int
    rows: int
    accumulates: bool

    @property
    def casts(self) -> bool:
        """Whether autocast makes smaller copies of weights, which the graph then holds."""
        wide = self.weight > self.product and self.tune != "qlora"
        return wide and self.strategy == "ddp"


@dataclass(frozen=True)
class Memory:
    """Bytes that a GPU holds at one moment of a step."""

    parameters: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    peak: str  # the moment

    @property
    def total(self) -> float:
        """All of them."""
        weights = self.parameters + self.gradients + self.optimiser
        return weights + self.activations + self.logits


def peak(run: Run) -> Memory:
    """The moment of a step at which a GPU holds most."""
    return max(_moments(run), key=lambda moment: moment.total)


def _moments(run: Run) -> Iterator[Memory]:
    """A step's moments that can be the worst: sums are linear in layers, so the ends suffice."""
    shape, training, full = run.shape, run.training, run.tune == "full"
    parameters, optimiser, held, grown = _weights(run)
    tokens, targets = run.rows * run.lengths.shared, run.rows * RESPONSES * run.lengths.response
    stream, head = run.stream * shape.width, shape.head or shape.embedding
    room = max(1, int(training.logits_mb * 2**20 / (_ROOM * shape.vocabulary)))
    chunk, chunked = min(targets, room) * shape.vocabulary, targets > room
    # For the whole step: the mask, cosine and sine, the projector's two layers.
    common = tokens * run.lengths.shared + 2 * tokens * shape.head_dim * run.stream
    common += full * 2 * run.rows * run.lengths.image * shape.width * run.product
    final = tokens * (4 * shape.width + full * stream) + 2 * targets * stream
    copies = run.product * shape.layer_linear if run.casts else 0
    kept, again = _layer(run) + copies, 0.0
    if training.gradient_checkpointing:
        kept, again = tokens * stream, kept
    work = tokens * (2 * run.product * shape.feed_forward + 2 * stream)
    if run.tune == "qlora":
        work += run.product * max(a * b for a, b in shape.linear.values())
    outer, each = (head, shape.layer) if full else (0, run.trained / shape.layers)
    stack = common + shape.layers * kept + final + (run.product * head if run.casts else 0)

    def at(name: str, activations: float, logits: float, done: float, passing: float = 0) -> Memory:
        gradients = held + grown * done + passing
        return Memory(parameters, gradients, optimiser, activations, logits, name)

    if run.casts and full and again:  # autocast's cache holds every copy until the pass ends
        yield at("forward", stack + shape.layers * copies, 8 * chunk, 0)
    yield at("vocabulary", stack, _ROOM * chunk, 0, chunked * outer * run.product)
    # The chunks' sum so far, the next gradient, and their sum: autograd adds out of place.
    yield at("vocabulary", stack, 0, 0, (3 if chunked else 1) * outer * run.product)
    yield at("layers", stack - final + again + work, 0, outer)
    done = outer + (shape.layers - 1) * each
    yield at("layers", common + kept + again + work, 0, done)
    yield at("layers", common + 2 * tokens * stream, 0, run.trained)
    copied = 4 * run.trained / run.gpus if run.strategy == "zero2" else 0
    yield at("update", 0, 0, run.trained, copied)


def _weights(run: Run) -> tuple[float, float, float, float]:
    """Bytes of parameters, optimiser, gradients held throughout, and of each that grows."""
    shape, trained, gpus = run.shape, run.trained, run.gpus
    packed = shape.layers * shape.layer_linear if run.tune == "qlora" else 0
    base = (shape.total - packed) * run.weight + packed * NF4
    adapters = 0 if run.tune == "full" else trained
    if run.strategy == "ddp":
        master = 4 if adapters else run.weight
        parameters, optimiser, grown = base + 4 * adapters, 2 * master * trained, master
        held = master * trained if gpus > 1 else 0
    elif run.strategy == "zero2":
        parameters, optimiser, grown = base + 2 * adapters, 12 * trained / gpus, 0.0
        held = 2 * trained / gpus + 2 * min(BUCKET, trained)
    else:
        outside = shape.total - shape.frozen - shape.layers * shape.layer
        parameters = (base + 4 * adapters) / gpus + 2 * (outside + 2 * shape.layer)
        optimiser, grown = 8 * trained / gpus, 4 / gpus
        at_work = outside + 2 * shape.layer if not adapters else 2 * adapters / shape.layers
        held = 2.0 * at_work
    if run.accumulates:
        held, grown = held + grown * trained, 0.0
    return parameters, optimiser, held, grown


def _layer(run: Run) -> float:
    """Bytes that autograd saves in a decoder layer, tensor by tensor, in the order of its pass."""
    shape, stream, size, lora = run.shape, run.stream, run.product, bool(run.targets)
    width, wide, tall = shape.width, shape.heads * shape.head_dim, shape.feed_forward
    length, tokens = run.lengths.shared, run.rows * run.lengths.shared

    def inputs(names: tuple[str, ...]) -> int:
        # One tensor serves all where nothing is cast; autocast casts anew for each product, and
        # peft takes its input to float32 before.
        users = sum(name in run.targets for name in names) if lora else len(names)
        return size * width * (users if size < 4 and (lora or stream > size) else users > 0)

    norms = 2 * (4 * width + (0 if lora else stream * width))  # in float32; before the weight
    saved = norms + inputs(("q_proj", "k_proj", "v_proj")) + inputs(("gate_proj", "up_proj"))
    saved += 4 * size * wide  # query, key and value (repeated for each head), output
    if lora and size < 4 and "o_proj" in run.targets:
        saved += size * wide
    saved += 3 * size * tall  # gate, its activation, up
    if not lora or "down_proj" in run.targets:
        saved += size * tall
    saved += size * run.training.lora_r * len(run.targets)
    if run.attention == "eager":
        saved += shape.heads * length * (4 + (size if size < 4 else 0))
    else:
        saved += 4 * shape.heads  # the softmax's sums
    mask = run.rows * length**2 * size if run.attention == "sdpa" else 0
    return tokens * saved + mask


@lru_cache
def shape_of(location: str, architecture: str) -> Shape:
    """Count a model on the meta device; `architecture` is JSON, used where no folder is."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        if location:
            config = AutoConfig.from_pretrained(location, trust_remote_code=False)
        else:
            values = json.loads(architecture)
            kind = values.pop("model_type", "")
            if kind not in families.FAMILIES:
                raise unknown("model_type in model.architecture", kind, families.FAMILIES)
            config = AutoConfig.for_model(kind, **values)
        family = families.of_config(config)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, OSError, StrictDataclassError) as error:
        where = location or "model.architecture"
        problem = str(error).strip().splitlines()[-1].strip()  # what the validator's words end with
        raise NapoError(f"{where} does not make a model; correct it: {problem}") from None
    text, vision = config.get_text_config(), config.vision_config
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    images = re.compile(family.image_parts)
    frozen = sum(n for name, n in sizes.items() if family.is_frozen(name))
    image = sum(n for name, n in sizes.items() if images.fullmatch(name))
    first = re.compile(r".*\blayers\.0\..*")
    ours = [name for name in sizes if first.fullmatch(name) and not images.fullmatch(name)]
    linear = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and first.fullmatch(name)
        and not images.fullmatch(name)
    }
    embedding, out = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    side = getattr(vision, "image_size", 0) // (getattr(vision, "patch_size", 0) or 1)
    seen = side**2 + 1 if side else getattr(config, "image_seq_length", 0)
    depth = getattr(vision, "num_hidden_layers", None) or getattr(vision, "depth", 0)
    return Shape(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        feed_forward=text.intermediate_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        vocabulary=out.shape[0],
        image_tokens=getattr(config, "image_seq_length", 0),
        vision_flop=2.0 * frozen * seen + 4.0 * depth * vision.hidden_size * seen**2,
        total=sum(sizes.values()),
        frozen=frozen,
        projector=image - frozen,
        layer=sum(sizes[name] for name in ours),
        embedding=embedding.numel(),
        head=0 if out is embedding else out.numel(),
        linear=linear,
    )
