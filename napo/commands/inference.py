"""Memory of a model that answers prompts or scores responses, from its config.

Nothing is trained: parameters in the profile's dtype, one layer's activations at a time, and what
lives longer. That is the image features and the keys and values of an answer
(`napo.models.generate`), or a chunk of logits (`napo.method.logprobs.score_reference`). Compared
with measured peaks of LLaVA on one process: `python -m bench.budget_check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from napo.commands.footprint import BYTES, LOGIT, Lengths, Shape
from napo.config.variants import CORRUPTED, RESPONSES
from napo.models.decoder import FEATURE_BYTES, IMAGE_BATCH

if TYPE_CHECKING:
    from napo.config.profile import Decoding, Profile

SCORED_ROWS = 16  # rows a forward pass of score_reference
# float32 copies of a step's logits in a beam search, or where answers are sampled or contrasted
SEARCHED = 6


class Moment(NamedTuple):
    """A moment of a stage, in words, and the bytes that a device then holds."""

    name: str
    bytes: float


class Inference:
    """A profile's model at work without gradients: how much memory a device needs."""

    def __init__(self, profile: Profile, shape: Shape, lengths: Lengths) -> None:
        self.profile, self.shape, self.lengths = profile, shape, lengths
        self.size = BYTES[profile.model.dtype]
        self.weights = shape.total * self.size

    def answering(self, decoding: Decoding, batch: int, images: int) -> Moment:
        """The peak while a batch of prompts is answered, the longest answers at their limit.

        Args:
            decoding: gives the length of answers, the beams, and whether there is a contrast.
            batch: prompts in a batch.
            images: distinct images of the prompts that are passed to `generate` at once.
        """
        shape, lengths, rows = self.shape, self.lengths, batch * decoding.num_beams
        image = lengths.image * shape.width * self.size
        if not shape.shares_features:  # the model's own search sees the images of one batch
            images = rows
        images = min(images, max(IMAGE_BATCH, int(FEATURE_BYTES // (image or 1))))
        prompt = lengths.image + lengths.question
        streams = 2 if decoding.contrast else 1  # with the images, and with noised ones
        held = self.weights + streams * images * image
        key_value = 2 * shape.key_value * self.size * rows  # of a token in a layer
        mask = rows * prompt**2
        embedded = 2 * rows * prompt * shape.width * self.size
        chunk = min(images, IMAGE_BATCH)  # their features are among what the tower needs
        tower = self.vision(chunk) - chunk * image
        prompts = streams * shape.layers * key_value * prompt
        prompts += embedded + self.layer(rows, prompt, prompt) + mask
        length = prompt + decoding.max_new_tokens
        sampled = decoding.temperature > 0 or decoding.num_beams > 1
        # A layer's keys, or its values, are there twice while a token's are added.
        last = (streams * shape.layers + 0.5) * key_value * length
        copies = SEARCHED * max(sampled, streams - 1)
        last += rows * shape.vocabulary * (streams * self.size + 4 * copies)
        last += self.layer(rows, 1, length)
        return max(
            Moment("the vision tower", held + tower),
            Moment("the prompts", held + prompts),
            Moment("the last token", held + last),
            key=lambda moment: moment.bytes,
        )

    def scoring(self, rows: int = SCORED_ROWS) -> Moment:
        """The peak while the reference scores rows: all responses, and mDPO's corrupted image."""
        shape, lengths = self.shape, self.lengths
        # The sequence with the corrupted image is padded to the length of the row's other one.
        sequences, length = 2 * rows, lengths.shared
        mask = sequences * length**2 * (1 + self.size)
        targets = rows * len((*RESPONSES, CORRUPTED)) * lengths.response
        room = max(1, int(self.profile.training.logits_mb * 2**20 / (LOGIT * shape.vocabulary)))
        states = 2 * sequences * length * shape.width * self.size
        logits = min(targets, room) * shape.vocabulary * 8  # float32, and their log-softmax
        layer = mask + self.layer(sequences, length, length)
        output = targets * shape.width * self.size + logits
        return max(
            Moment("the vision tower", self.weights + self.vision(sequences)),
            Moment("a decoder layer", self.weights + states + layer),
            Moment("the output layer", self.weights + states + output),
            key=lambda moment: moment.bytes,
        )

    def layer(self, rows: int, queries: int, keys: int) -> float:
        """Bytes that a decoder layer needs beside its input."""
        shape, tokens = self.shape, rows * queries
        wide = shape.heads * shape.head_dim
        stream = 2 * tokens * shape.width
        feeding = stream + 3 * tokens * shape.feed_forward
        attending = stream + 6 * tokens * wide
        if self.profile.model.attention == "eager":
            attending += 2 * shape.heads * tokens * keys * (4 / self.size)
            attending += 2 * rows * keys * wide * (shape.key_value < wide)
        return self.size * max(feeding, attending)

    def vision(self, images: int) -> float:
        """Bytes that the vision tower and the projector need for images; the tower ends first."""
        shape, tokens = self.shape, images * self.shape.patches
        tower = tokens * (4 * shape.vision_width + 3 * shape.vision_feed_forward)
        projector = tokens * shape.vision_width + 3 * images * self.lengths.image * shape.width
        pixels = 4 * images * 3 * shape.image_side**2  # float32, as the image processor gives them
        return self.size * max(tower, projector) + pixels
