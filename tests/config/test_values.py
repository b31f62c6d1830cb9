"""Plugins: modules that a profile names and that register entries."""

import json
import os
import subprocess
import sys

import pytest

from napo.config.benchmarks import BENCHMARKS
from napo.config.profile import Profile, load_profile, load_run
from napo.config.variants import LOSSES, VARIANTS
from napo.errors import NapoError

PLUGIN = """
from napo import Benchmark, Loss, Ratio, Term, Variant, register
register(Loss("my-loss", "napo.method.losses:dpo_loss"))
register(Variant("mine", (Term("rejected", "my-loss"),), "none"))
register(Benchmark("my-bench", "nowhere", "Mine", {"a": Ratio("a", "one")}, sizes=("my_size",)))
"""
PROFILE = """
extends: smoke
plugins: [my_plugin]
variants: [dpo, mine]
evaluation: {benchmarks: [my-bench], sizes: {my_size: 3}}
"""
REBUILD = "import sys, json; from napo.config.profile import Profile; "
REBUILD += "print(Profile(**json.loads(sys.argv[1])).variants[-1])"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Forget what a test imported and registered."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    registries = (LOSSES, VARIANTS, BENCHMARKS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)
    sys.modules.pop("my_plugin", None)


def load(folder, plugin=PLUGIN, profile=PROFILE):
    (folder / "my_plugin.py").write_text(plugin)
    (folder / "mine.yaml").write_text(profile)
    return load_profile(str(folder / "mine.yaml"))


def test_a_plugin_beside_the_profile_registers_entries_that_the_profile_names(tmp_path):
    profile = load(tmp_path)
    assert profile.variants == ("dpo", "mine") and profile.evaluation.benchmarks == ("my-bench",)


def test_a_worker_process_that_rebuilds_the_profile_knows_the_entries(tmp_path):
    dump = json.dumps(load(tmp_path).model_dump(mode="json"))
    call = [sys.executable, "-c", REBUILD, dump]
    worker = subprocess.run(call, capture_output=True, text=True, cwd="/")
    assert worker.stdout.strip() == "mine", worker.stderr


def test_a_child_profile_inherits_the_plugins_of_its_parent(tmp_path):
    load(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "child.yaml").write_text("extends: ../mine.yaml")
    assert load_profile(str(tmp_path / "sub" / "child.yaml")).variants == ("dpo", "mine")


def test_a_run_file_may_name_a_plugin_beside_it(tmp_path):
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "run.yaml").write_text(
        "{run_folder: out, model: m, rows: r, reference: f, plugins: [my_plugin], variant: mine}"
    )
    assert load_run(tmp_path / "run.yaml").variant == "mine"


@pytest.mark.parametrize(
    ("plugin", "profile", "sentence"),
    [
        (
            "raise RuntimeError('no licence')", PROFILE,
            r"The plugin my_plugin cannot be imported \(no licence\); name a module that is inst",
        ),
        (
            PLUGIN, "plugins: [my_plugins]",
            r"The plugin my_plugins cannot be imported \(No module named 'my_plugins'\)",
        ),
        (
            PLUGIN.replace('Variant("mine"', 'Variant("dpo"'), PROFILE,
            r"The plugin my_plugin is refused: Another variant is already called 'dpo'",
        ),
        (
            PLUGIN.replace('Variant("mine"', 'Variant("a/b"'), PROFILE,
            r"The plugin my_plugin is refused: The variant name 'a/b' cannot be a file name",
        ),
        (
            PLUGIN, PROFILE.replace("mine", "mind"),
            r"variants: Unknown variant 'mind'\. Did you mean 'mine'\?",
        ),
        (
            PLUGIN, PROFILE.replace("my_size", "my_sise"),
            r"evaluation\.sizes: Unknown size 'my_sise'\. Did you mean 'my_size'\?",
        ),
    ],
)  # fmt: skip
def test_a_mistake_about_plugins_is_one_sentence(tmp_path, plugin, profile, sentence):
    with pytest.raises(NapoError, match=f"^mine.yaml: {sentence}") as refused:
        load(tmp_path, plugin, profile)
    assert "\n" not in str(refused.value)


def test_a_profile_without_plugins_leaves_the_path_of_modules_alone(tmp_path):
    before = [*sys.path]
    load(tmp_path, profile="extends: smoke")
    assert str(tmp_path) not in sys.path and Profile(name="x").plugins == ()
    assert sys.path[: len(before)] == before
