import subprocess
import sys

import pytest

from napo.config.profile import Training, World, edition, known_profiles, load_profile, seeds
from napo.errors import NapoError


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_of_the_package_is_valid_and_named_as_its_file(name):
    # An edition with LoRA shares the folders of the full one.
    name, edition = name.removesuffix("-lora"), name
    assert load_profile(edition).name == name


def test_the_defaults_are_the_papers_values():
    training = Training()
    assert (training.beta, training.learning_rate, training.epochs) == (0.1, 5e-7, 4)


def test_an_unknown_profile_is_refused_with_the_nearest_one():
    with pytest.raises(NapoError, match=r"Unknown profile 'tinny'. Did you mean 'tiny'\?"):
        load_profile("tinny")


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path):
    path = write(tmp_path, "training: {learning_rat: 1}")
    with pytest.raises(NapoError, match=r"learning_rat.*Did you mean .learning_rate"):
        load_profile(path)


def test_a_value_out_of_range_names_file_and_key(tmp_path):
    path = write(tmp_path, "training: {beta: -1}")
    with pytest.raises(NapoError, match=r"mine.yaml: training.beta is -1"):
        load_profile(path)


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just text"])
def test_what_is_no_profile_at_all_gets_a_sentence(tmp_path, text):
    with pytest.raises(NapoError, match=r"mine.yaml"):
        load_profile(write(tmp_path, text))


def test_a_settings_object_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Training().beta = 1


def test_a_dotted_callable_that_does_not_exist_is_named():
    with pytest.raises(NapoError, match=r"world.make_rows names 'napo.nowhere:f'"):
        World(make_rows="napo.nowhere:f").function("make_rows")


def test_a_worlds_module_that_fails_when_it_is_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "failing_world.py").write_text("def rows(): ...\nraise RuntimeError('no disk')")
    monkeypatch.syspath_prepend(tmp_path)
    profile = load_profile(write(tmp_path, "world: {make_rows: 'failing_world:rows'}"))
    with pytest.raises(
        NapoError, match=r"'failing_world:rows', which cannot be imported \(no disk"
    ):
        profile.world.function("make_rows")


@pytest.mark.parametrize("source", ["from os.path import *", "def __getattr__(name): return print"])
def test_a_worlds_function_that_its_source_does_not_name_is_believed(tmp_path, monkeypatch, source):
    module = f"borrowed_{len(source)}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    profile = load_profile(write(tmp_path, f"world: {{make_rows: '{module}:join'}}"))
    assert callable(profile.world.function("make_rows"))


@pytest.mark.parametrize("parent", ["sub/../mine.yaml", "link.yaml", "child.yaml"])
def test_a_profile_that_comes_back_to_itself_is_refused(tmp_path, parent):
    (tmp_path / "sub").mkdir()
    path = write(tmp_path, f"extends: {parent}")
    (tmp_path / "link.yaml").symlink_to(path)
    (tmp_path / "child.yaml").write_text("extends: ./mine.yaml")
    with pytest.raises(NapoError, match=r"extends itself \(.*mine.yaml -> .*name another profile"):
        load_profile(path)


def test_two_profiles_may_extend_a_third(tmp_path):
    (tmp_path / "base.yaml").write_text("extends: tiny\ntitle: base")
    (tmp_path / "middle.yaml").write_text("extends: base.yaml")
    assert load_profile(write(tmp_path, "extends: middle.yaml")).title == "base"


@pytest.mark.parametrize(("given", "value"), [("0", 0.0), ("0.01", 0.01), ("100", 100.0)])
def test_temperatures_from_greedy_to_hot_are_taken(tmp_path, given, value):
    path = write(tmp_path, f"masks: {{decoding: {{temperature: {given}}}}}")
    assert load_profile(path).masks.decoding.temperature == value


@pytest.mark.parametrize(
    ("asked", "tune", "name"),
    [
        ("", "", "tables"),
        ("0,1, 2", "full", "tables"),
        ("0,1", "", "tables-seeds-0-1"),
        ("", "lora", "tables-lora"),
        ("3", "lora", "tables-lora-seeds-3"),
        ("1,2,3,4,5,6,7,8", "", "tables-seeds-1-2-3-4-5-6-7-8"),
    ],
)
def test_other_runs_than_the_profiles_are_filed_under_a_name_of_their_own(asked, tune, name):
    assert edition(load_profile("tiny"), "tables", asked, tune) == name


def test_many_seeds_have_a_name_that_a_file_system_takes_and_that_is_theirs():
    tiny = load_profile("tiny")
    hundred, others = (edition(tiny, "tables", ",".join(map(str, range(n)))) for n in (100, 101))
    assert len(hundred) < 40 and hundred.startswith("tables-seeds-")
    assert hundred != others
    assert hundred == edition(tiny, "tables", ", ".join(map(str, range(100))))


def test_seeds_are_read_from_text():
    assert seeds("0,1, 2") == [0, 1, 2]
    assert seeds(0) == [0]


@pytest.mark.parametrize("text", ["0,0", "a", "", "1.5"])
def test_bad_seeds_get_a_sentence(text):
    with pytest.raises(NapoError, match="seeds is"):
        seeds(text)


def test_settings_and_a_profile_with_a_world_are_read_without_torch():
    program = (
        "import sys, napo.workspace.folders, napo.config.profile as c; c.load_profile('tiny'); "
    )
    program += "c.load_profile('llava-1.5-7b'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(("given", "meant"), [("TINY", "tiny"), ("Smoke", "smoke")])
def test_a_name_in_the_wrong_case_is_the_nearest(given, meant):
    with pytest.raises(NapoError, match=f"Did you mean '{meant}'"):
        load_profile(given)
