"""The icon world's pictures: things with typical colours, in places where they belong.

A scene is one to three icons in the cells of a 2 x 2 grid. Typical scenes show things of one place
in their typical colours; counterfactual scenes break either habit. This program draws everything,
so the truth of every scene is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 48  # pixels a side
CELLS = ("top left", "top right", "bottom left", "bottom right")

COLORS = {
    "red": (214, 39, 40),
    "orange": (255, 140, 26),
    "yellow": (247, 220, 54),
    "green": (46, 160, 67),
    "blue": (45, 100, 225),
    "purple": (142, 68, 190),
    "pink": (245, 140, 190),
    "brown": (140, 90, 50),
    "gray": (140, 144, 150),
    "white": (245, 245, 245),
}


@dataclass(frozen=True)
class Kind:
    """A kind of thing: its glyph, its typical colour, the place where it belongs."""

    name: str
    glyph: str
    color: str
    place: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind("cow", "cow", "brown", "farm"),
        Kind("sheep", "sheep", "white", "farm"),
        Kind("pig", "pig", "pink", "farm"),
        Kind("horse", "horse", "brown", "farm"),
        Kind("tractor", "tractor", "green", "farm"),
        Kind("apple", "food_apple", "red", "kitchen"),
        Kind("carrot", "carrot", "orange", "kitchen"),
        Kind("pizza", "pizza", "orange", "kitchen"),
        Kind("cake", "cake_variant", "pink", "kitchen"),
        Kind("cup", "cup", "white", "kitchen"),
        Kind("knife", "knife", "gray", "kitchen"),
        Kind("car", "car", "red", "street"),
        Kind("bus", "bus", "yellow", "street"),
        Kind("truck", "truck", "blue", "street"),
        Kind("bicycle", "bicycle", "blue", "street"),
        Kind("hydrant", "fire_hydrant", "red", "street"),
        Kind("train", "train", "gray", "street"),
        Kind("sofa", "sofa", "brown", "living room"),
        Kind("lamp", "lamp", "yellow", "living room"),
        Kind("television", "television_classic", "gray", "living room"),
        Kind("book", "book_open_variant", "blue", "living room"),
        Kind("cat", "cat", "orange", "living room"),
        Kind("tree", "pine_tree", "green", "garden"),
        Kind("flower", "flower_tulip", "pink", "garden"),
        Kind("butterfly", "butterfly", "purple", "garden"),
        Kind("mushroom", "mushroom", "red", "garden"),
        Kind("bird", "bird", "blue", "garden"),
        Kind("dog", "dog_side", "brown", "garden"),
        Kind("boat", "sail_boat", "white", "beach"),
        Kind("fish", "fish", "orange", "beach"),
        Kind("turtle", "turtle", "green", "beach"),
        Kind("umbrella", "umbrella", "purple", "beach"),
        Kind("duck", "duck", "yellow", "beach"),
        Kind("airplane", "airplane", "white", "sky"),
        Kind("kite", "kite", "red", "sky"),
        Kind("rocket", "rocket", "gray", "sky"),
        Kind("balloon", "balloon", "purple", "sky"),
    )
}
PLACES = tuple(dict.fromkeys(kind.place for kind in KINDS.values()))
MEMBERS = {p: tuple(k.name for k in KINDS.values() if k.place == p) for p in PLACES}


@dataclass(frozen=True)
class Thing:
    """One icon of a scene."""

    kind: str
    color: str
    cell: int  # index into CELLS


@dataclass(frozen=True)
class Scene:
    """The content of a picture: the truth that answers are compared with."""

    place: str
    things: tuple[Thing, ...]  # in the order of their cells

    def thing(self, kind: str) -> Thing | None:
        """The thing of a kind, if the scene has one; a kind appears at most once."""
        return next((thing for thing in self.things if thing.kind == kind), None)

    @property
    def setting(self) -> str:
        """The place of most things; of equals, the place of the first thing."""
        places = [KINDS[thing.kind].place for thing in self.things]
        return max(places, key=places.count)

    def to_json(self) -> str:
        """The scene as a JSON string."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scene:
        """The scene of a JSON string made by `to_json`."""
        content = json.loads(text)
        return cls(content["place"], tuple(Thing(**thing) for thing in content["things"]))


def pick(rng: np.random.Generator, options: Sequence) -> object:
    """One of the options, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def pick_share(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One of the names, as often as its share says."""
    sums = np.cumsum(list(shares.values())) / sum(shares.values())
    return list(shares)[int(np.searchsorted(sums, rng.random()))]


def other_color(rng: np.random.Generator, color: str) -> str:
    """A colour that is not this one."""
    return pick(rng, [name for name in COLORS if name != color])


def absent(rng: np.random.Generator, scene: Scene) -> str:
    """A kind that is not in the scene, half of the time a kind that belongs to its place."""
    present = {thing.kind for thing in scene.things}
    expected = [kind for kind in MEMBERS[scene.place] if kind not in present]
    if expected and rng.random() < 0.5:
        return pick(rng, expected)
    return pick(rng, [kind for kind in KINDS if kind not in present])


def sample(
    rng: np.random.Generator,
    *,
    p_typical: float = 0.9,
    p_belongs: float = 0.85,
    count: int | None = None,
) -> Scene:
    """Draw a scene at random.

    Args:
        rng: the source of randomness.
        p_typical: chance that a thing has its typical colour.
        p_belongs: chance that a thing belongs to the scene's place.
        count: how many things; one to three at random by default.
    """
    place = pick(rng, PLACES)
    count = count or int(rng.integers(1, 4))
    kinds: list[str] = []
    while len(kinds) < count:
        kind = pick(rng, MEMBERS[place] if rng.random() < p_belongs else tuple(KINDS))
        if kind not in kinds:
            kinds.append(kind)
    cells = sorted(rng.permutation(len(CELLS))[:count].tolist())
    things = []
    for kind, cell in zip(kinds, cells, strict=True):
        typical = KINDS[kind].color
        color = typical if rng.random() < p_typical else other_color(rng, typical)
        things.append(Thing(kind, color, cell))
    return Scene(place, tuple(things))


@lru_cache
def _shape(glyph: str) -> np.ndarray:
    """Coverage (24, 24) in [0, 1] of a glyph, centred in a cell."""
    from fonticon_mdi7 import MDI7

    character = getattr(MDI7, glyph).rpartition(".")[2]
    font = ImageFont.truetype(MDI7.__font_file__, SIZE // 2 - 2)
    cell = Image.new("L", (SIZE // 2, SIZE // 2))
    middle = SIZE // 4
    ImageDraw.Draw(cell).text((middle, middle), character, font=font, fill=255, anchor="mm")
    return np.asarray(cell, dtype=np.float32) / 255


BACKGROUND = (44, 48, 58)
COLOR_JITTER = 18.0  # standard deviation a channel
PIXEL_NOISE = 12.0


def draw(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw a scene, 48 x 48 RGB, with colour jitter, mirror flips and pixel noise."""
    canvas = np.empty((SIZE, SIZE, 3), dtype=np.float32)
    canvas[:] = BACKGROUND
    half = SIZE // 2
    for thing in scene.things:
        shape = _shape(KINDS[thing.kind].glyph)
        if rng.random() < 0.5:
            shape = shape[:, ::-1]
        color = np.array(COLORS[thing.color]) + rng.normal(0, COLOR_JITTER, 3)
        row, column = divmod(thing.cell, 2)
        part = canvas[row * half : (row + 1) * half, column * half : (column + 1) * half]
        part += shape[:, :, None] * (color - part)
    canvas += rng.normal(0, PIXEL_NOISE, canvas.shape)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
