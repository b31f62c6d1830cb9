"""Memory, FLOPs and disk of a training run, from a model's config.

Weights. Full tuning trains the language model and the projector; the vision tower is frozen.
- ddp: float32 parameters, gradients and two AdamW moments; bfloat16 products by autocast, whose
  copies of weights live as long as the graph. Several processes add the reducer's buckets, as
  large as the gradients.
- zero2 (DeepSpeed, bf16): the bfloat16 model; bfloat16 gradients, float32 masters and two moments
  in shards; float32 copies of the gradient shard in the update; one bucket of gradients.
- zero3: as zero2, the bfloat16 model in shards too, and gathered parameters up to a limit.
- fsdp2: all of these in float32 shards; in bfloat16 and whole are two decoder layers (one at work,
  one prefetched) and the rest of the trained model (embedding, output layer, projector).
LoRA: the base frozen in the profile's dtype, adapters in float32 (zero: bfloat16 and masters).
QLoRA: the language model's linear layers in NF4, with constants quantised again (Dettmers et al.
2023, Section 3), and one of them at a time in the dtype. Its reference is one more forward pass.

Activations. Every tensor that autograd saves in a Llama layer (`Run.layer`); with checkpointing the
layer's input, and one layer at a time recomputed. SDPA makes the boolean mask a (rows, 1, L, L)
tensor in the products' dtype, in each layer; its kernels hold no scores. Eager attention holds
L x L scores per head. The vision tower, without gradients, ends before the language model begins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from napo.config.profile import Profile
from napo.config.variants import RESPONSES
from napo.errors import unknown
from napo.models import families

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8  # bytes of a weight, constants quantised again
BUCKET = 5e8  # gradients: DeepSpeed's reduce_bucket_size
GATHERED = 1e9  # parameters: DeepSpeed's stage3_max_live_parameters
LOGIT = 12  # bytes of a logit, as napo.method.logprobs.token_logprobs holds it


class Lengths(NamedTuple):
    """Mean tokens of a row; a response counts its end token, a question its template."""

    image: int
    question: int
    response: int

    @property
    def shared(self) -> int:
        """Tokens of a row in one sequence, without each response's last, which predicts nothing."""
        return self.image + self.question + len(RESPONSES) * (self.response - 1)


class Shape:
    """A model in numbers, counted on the meta device, which allocates nothing."""

    def __init__(self, config: PreTrainedConfig) -> None:
        import torch
        from transformers import AutoModelForImageTextToText

        family = families.of_config(config)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        text, vision = config.get_text_config(), config.vision_config
        self.layers, self.width = text.num_hidden_layers, text.hidden_size
        self.feed_forward, self.heads = text.intermediate_size, text.num_attention_heads
        self.head_dim = getattr(text, "head_dim", None) or self.width // self.heads
        self.image_tokens = getattr(config, "image_seq_length", 0)  # 0: the config does not say

        image = re.compile(family.image_parts)
        first_layer = re.compile(rf"(?!{family.image_parts}$).*\blayers\.0\..*")
        # Numbers of parameters: of the model, its frozen part, the projector, one decoder layer.
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        self.total = sum(sizes.values())
        self.frozen = sum(size for name, size in sizes.items() if family.is_frozen(name))
        self.projector = sum(sizes[name] for name in sizes if image.fullmatch(name)) - self.frozen
        self.layer = sum(sizes[name] for name in sizes if first_layer.fullmatch(name))
        # (inputs, outputs) of each linear layer of a decoder layer, and their weights.
        self.linear: dict[str, tuple[int, int]] = {
            name.rpartition(".")[2]: (module.in_features, module.out_features)
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and first_layer.fullmatch(name)
        }
        self.layer_linear = sum(math.prod(sides) for sides in self.linear.values())
        self.vocabulary = model.get_output_embeddings().weight.shape[0]
        self.key_value = self.linear["k_proj"][1]  # numbers in a token's keys, as in its values
        self.shares_features = family.shares_features
        # The vision tower; its tokens of an image are `patches`.
        self.image_side = getattr(vision, "image_size", 0)
        side = self.image_side // (getattr(vision, "patch_size", 0) or 1)
        self.patches = side**2 + 1 if side else self.image_tokens
        self.vision_width = vision.hidden_size
        self.vision_feed_forward = getattr(vision, "intermediate_size", 4 * vision.hidden_size)
        self.vision_layers = getattr(vision, "num_hidden_layers", None) or vision.depth
        self.vision_flop = 2.0 * self.frozen * self.patches  # of one image through the tower
        self.vision_flop += 4.0 * self.vision_layers * self.vision_width * self.patches**2


class Run:
    """A way to train a profile's model: how much memory, arithmetic and disk it needs."""

    def __init__(
        self, profile: Profile, shape: Shape, lengths: Lengths, tune: str, strategy: str, gpus: int
    ) -> None:
        training, dtype = profile.training, BYTES[profile.model.dtype]
        self.shape, self.lengths, self.training = shape, lengths, training
        self.full, self.four_bit = tune == "full", tune == "qlora"
        self.strategy, self.gpus, self.attention = strategy, gpus, profile.model.attention
        names = training.lora_targets or families.Family.lora_targets
        self.targets = (
            () if self.full else tuple(name.strip().rpartition(".")[2] for name in names.split(","))
        )
        for name in self.targets:
            if name not in shape.linear:
                raise unknown("LoRA target", name, shape.linear)
        sides = sum(sum(shape.linear[name]) for name in self.targets)
        self.adapters = shape.layers * training.lora_r * sides  # parameters of LoRA's matrices
        self.trained = self.adapters or shape.total - shape.frozen
        self.ddp, self.zero = strategy == "ddp", strategy.startswith("zero")
        if self.full and (training.bf16 or strategy == "fsdp2"):
            dtype = 4  # masters, made by napo.training.run or accelerate
        # Bytes of a number: of a weight outside 4 bits, between layers, from a matrix product.
        self.weight = 2 if self.zero else dtype
        self.stream = self.weight if self.ddp else 2
        self.product = 2 if training.bf16 or not self.ddp else dtype
        # Whether autocast copies weights.
        self.casts = self.ddp and self.weight > self.product and not self.four_bit
        self.rows = min(training.micro_batch_size, training.batch_size)

    def peak(self) -> dict[str, Any]:
        """The moment of a step at which a GPU holds most: bytes by part, `total`, and its
        name, `worst moment`."""
        return max(self.moments(), key=lambda moment: moment["total"])

    def moments(self) -> Iterator[dict[str, Any]]:
        """A steady step's possible peaks.

        Memory is linear in the layer index, so the first and the last layer suffice.

        Each has its name in words: the end of the forward pass; the output layer's backward pass,
        with all activations and a chunk of logits; a decoder layer's; the optimiser's update.
        """
        shape, training, full = self.shape, self.training, self.full
        parameters, optimiser, held, grown = self.weights()
        tokens = self.rows * self.lengths.shared
        targets = self.rows * len(RESPONSES) * self.lengths.response
        stream, head = self.stream * shape.width, shape.vocabulary * shape.width
        room = max(1, int(training.logits_mb * 2**20 / (LOGIT * shape.vocabulary)))
        chunk, chunked = min(targets, room) * shape.vocabulary, targets > room
        # All through the step: the mask, cosine and sine, the projector's two layers.
        common = tokens * self.lengths.shared + 2 * tokens * shape.head_dim * self.stream
        common += full * 2 * self.rows * self.lengths.image * shape.width * self.product
        final = tokens * (4 * shape.width + full * stream) + 2 * targets * stream
        copies = self.product * shape.layer_linear if self.casts else 0
        kept, again = self.layer() + copies, 0.0
        if training.gradient_checkpointing:
            kept, again = tokens * stream, kept
        work = tokens * (2 * self.product * shape.feed_forward + 2 * stream)
        if self.four_bit:
            work += self.product * max(a * b for a, b in shape.linear.values())
        outer, per_layer = (head, shape.layer) if full else (0, self.trained / shape.layers)
        stack = common + shape.layers * kept + final + (self.product * head if self.casts else 0)

        def moment(
            name: str, activations: float, logits: float, done: float, passing: float = 0
        ) -> dict[str, Any]:
            parts = {"parameters": parameters, "gradients": held + grown * done + passing}
            parts |= {"optimiser": optimiser, "activations": activations, "logits": logits}
            return parts | {"total": sum(parts.values()), "worst moment": name}

        if self.casts and full and again:  # autocast's cache holds every copy until the pass ends
            yield moment("end of the forward pass", stack + shape.layers * copies, 8 * chunk, 0)
        yield moment(
            "backward, output layer", stack, LOGIT * chunk, 0, chunked * outer * self.product
        )
        # The chunks' sum so far, the next gradient, and their sum: autograd adds out of place.
        yield moment(
            "backward, output layer", stack, 0, 0, (3 if chunked else 1) * outer * self.product
        )
        yield moment("backward, a decoder layer", stack - final + again + work, 0, outer)
        done = outer + (shape.layers - 1) * per_layer
        yield moment("backward, a decoder layer", common + kept + again + work, 0, done)
        yield moment("backward, a decoder layer", common + 2 * tokens * stream, 0, self.trained)
        yield moment(
            "optimiser update", 0, 0, self.trained, self.zero * 4 * self.trained / self.gpus
        )

    def weights(self) -> tuple[float, float, float, float]:
        """Bytes of parameters, optimiser states, gradients held all the time, and a new gradient.

        A step drops its gradients unless it accumulates micro-batches.
        """
        shape, trained, gpus = self.shape, self.trained, self.gpus
        packed = shape.layers * shape.layer_linear if self.four_bit else 0
        base = (shape.total - packed) * self.weight + packed * NF4
        if self.ddp:
            master = self.weight if self.full else 4
            parameters, optimiser, grown = base + 4 * self.adapters, 2 * master * trained, master
            held = master * trained if gpus > 1 else 0
        elif self.zero:
            parameters, optimiser, grown = base + 2 * self.adapters, 12 * trained / gpus, 0.0
            if self.strategy == "zero3":
                parameters = parameters / gpus + 2 * min(GATHERED, shape.total)
            held = 2 * trained / gpus + 2 * min(BUCKET, trained)
        else:
            whole = shape.total - shape.frozen - (shape.layers - 2) * shape.layer
            parameters = (base + 4 * self.adapters) / gpus + 2 * whole
            optimiser, grown = 8 * trained / gpus, 4 / gpus
            held = 2.0 * (whole if self.full else 2 * self.adapters / shape.layers)
        if self.training.batch_size > self.rows * gpus:
            held, grown = held + grown * trained, 0.0
        return parameters, optimiser, held, grown

    def layer(self) -> float:
        """Bytes that autograd saves in a decoder layer, in the order of its forward pass."""
        shape, stream, size, lora = self.shape, self.stream, self.product, not self.full
        width, wide, tall = shape.width, shape.heads * shape.head_dim, shape.feed_forward
        length, tokens = self.lengths.shared, self.rows * self.lengths.shared

        def inputs(*names: str) -> int:
            # One tensor serves all unless it is cast: autocast casts for each product, and peft
            # makes its input float32 first.
            users = sum(name in self.targets for name in names) if lora else len(names)
            return size * width * (users if size < 4 and (lora or stream > size) else users > 0)

        norms = 2 * (4 * width + (0 if lora else stream * width))  # float32; before the weight
        saved = norms + inputs("q_proj", "k_proj", "v_proj") + inputs("gate_proj", "up_proj")
        saved += 4 * size * wide  # query, key and value (repeated for each head), output
        if lora and size < 4 and "o_proj" in self.targets:
            saved += size * wide
        saved += 3 * size * tall  # gate, its activation, up
        if not lora or "down_proj" in self.targets:
            saved += size * tall
        saved += size * self.training.lora_r * len(self.targets)
        if self.attention == "eager":
            saved += shape.heads * length * (4 + (size if size < 4 else 0))
        else:
            saved += 4 * shape.heads  # the softmax's sums
        mask = self.rows * length**2 * size if self.attention == "sdpa" else 0
        return tokens * saved + mask

    def flop(self) -> float:
        """FLOPs of a training step for a row: forward, backward, recomputed layers, and LoRA's.

        A weight costs 2 a token forward and 4 backward (2 where frozen), a checkpointed layer 2
        more; attention computes all L x L pairs.
        """
        shape, tokens = self.shape, self.lengths.shared
        linear = 2.0 * shape.layers * shape.layer_linear * tokens
        attention = 4.0 * shape.layers * shape.heads * shape.head_dim * tokens**2
        targets = len(RESPONSES) * self.lengths.response
        head = 2.0 * shape.width * shape.vocabulary * targets
        projector = 2.0 * shape.projector * self.lengths.image
        forward = linear + attention + head + projector + shape.vision_flop
        checkpointed = self.training.gradient_checkpointing
        again = checkpointed * (linear + attention)
        if self.full:
            # Recomputing a layer stops before its last product, which no gradient needs.
            last = math.prod(shape.linear["down_proj"]) / shape.layer_linear
            return 3 * forward - 2 * shape.vision_flop + again - checkpointed * linear * last
        backward = linear + 2 * attention + head
        adapted = (3 + checkpointed) * 2 * self.adapters * tokens
        return forward + backward + again + adapted + self.four_bit * forward

    def disk(self) -> tuple[float, float]:
        """Bytes of the final weights, and of one checkpoint: weights and optimiser states."""
        size = 4 if self.adapters or not self.ddp else self.weight
        values = self.adapters or self.shape.total
        states = 12 if self.zero else 2 * size
        again = 2 * values if self.strategy == "zero2" else 0  # DeepSpeed's own copy, in bfloat16
        return size * values, size * values + again + states * self.trained
