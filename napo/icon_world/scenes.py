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


WORLD = {  # place -> the kinds of things that belong there, with their typical colours
    "farm": {"cow": "brown", "sheep": "white", "pig": "pink", "horse": "brown",
             "tractor": "green"},
    "kitchen": {"apple": "red", "carrot": "orange", "pizza": "orange", "cake": "pink",
                "cup": "white", "knife": "gray"},
    "street": {"car": "red", "bus": "yellow", "truck": "blue", "bicycle": "blue",
               "hydrant": "red", "train": "gray"},
    "living room": {"sofa": "brown", "lamp": "yellow", "television": "gray", "book": "blue",
                    "cat": "orange"},
    "garden": {"tree": "green", "flower": "pink", "butterfly": "purple", "mushroom": "red",
               "bird": "blue", "dog": "brown"},
    "beach": {"boat": "white", "fish": "orange", "turtle": "green", "umbrella": "purple",
              "duck": "yellow"},
    "sky": {"airplane": "white", "kite": "red", "rocket": "gray", "balloon": "purple"},
}  # fmt: skip
GLYPHS = {  # of the kinds whose icon has another name
    "apple": "food_apple", "cake": "cake_variant", "hydrant": "fire_hydrant",
    "television": "television_classic", "book": "book_open_variant", "tree": "pine_tree",
    "flower": "flower_tulip", "dog": "dog_side", "boat": "sail_boat",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of thing: its typical colour, and the place where it belongs."""

    color: str
    place: str


KINDS = {
    name: Kind(color, place) for place, kinds in WORLD.items() for name, color in kinds.items()
}
PLACES = tuple(WORLD)
MEMBERS = {place: tuple(kinds) for place, kinds in WORLD.items()}


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
def _shape(kind: str) -> np.ndarray:
    """Coverage (24, 24) in [0, 1] of a kind's icon, centred in a cell."""
    from fonticon_mdi7 import MDI7

    character = getattr(MDI7, GLYPHS.get(kind, kind)).rpartition(".")[2]
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
        shape = _shape(thing.kind)
        if rng.random() < 0.5:
            shape = shape[:, ::-1]
        color = np.array(COLORS[thing.color]) + rng.normal(0, COLOR_JITTER, 3)
        row, column = divmod(thing.cell, 2)
        part = canvas[row * half : (row + 1) * half, column * half : (column + 1) * half]
        part += shape[:, :, None] * (color - part)
    canvas += rng.normal(0, PIXEL_NOISE, canvas.shape)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
