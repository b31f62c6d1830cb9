import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napo.icon_world import scenes
from napo.icon_world.scenes import KINDS, Scene, Thing

FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))


def test_the_same_seed_draws_the_same_picture_and_another_seed_another():
    pictures = [scenes.draw(FARM, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_every_glyph_is_drawn_and_no_two_are_alike():
    shapes = np.stack([scenes._shape(kind).ravel() for kind in KINDS])
    assert (shapes.mean(1) > 0.03).all() and (shapes.mean(1) < 0.9).all()
    apart = np.abs(shapes[:, None] - shapes[None]).mean(-1) + np.eye(len(shapes))
    assert apart.min() > 0.04


@given(st.integers(0, 2**31 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_scene_has_different_kinds_in_different_cells_and_survives_json(seed, typical, belongs):
    rng = np.random.default_rng(seed)
    scene = scenes.sample(rng, p_typical=typical, p_belongs=belongs)
    assert len({thing.kind for thing in scene.things}) == len(scene.things)
    assert len({thing.cell for thing in scene.things}) == len(scene.things)
    assert Scene.from_json(scene.to_json()) == scene
