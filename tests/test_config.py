import subprocess
import sys

import pytest

from napo.config import Training, World, edition, known_profiles, load_profile, seeds
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


@pytest.mark.parametrize(
    ("asked", "tune", "name"),
    [
        ("", "", "tables"),
        ("0,1, 2", "full", "tables"),
        ("0,1", "", "tables-seeds-0-1"),
        ("", "lora", "tables-lora"),
        ("3", "lora", "tables-lora-seeds-3"),
    ],
)
def test_other_runs_than_the_profiles_are_filed_under_a_name_of_their_own(asked, tune, name):
    assert edition(load_profile("tiny"), "tables", asked, tune) == name


def test_seeds_are_read_from_text():
    assert seeds("0,1, 2") == [0, 1, 2]
    assert seeds(0) == [0]


@pytest.mark.parametrize("text", ["0,0", "a", "", "1.5"])
def test_bad_seeds_get_a_sentence(text):
    with pytest.raises(NapoError, match="seeds is"):
        seeds(text)


def test_importing_the_package_and_its_settings_does_not_import_torch():
    program = "import sys, napo, napo.config, napo.workspace; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(("given", "meant"), [("TINY", "tiny"), ("Smoke", "smoke")])
def test_a_name_in_the_wrong_case_is_the_nearest(given, meant):
    with pytest.raises(NapoError, match=f"Did you mean '{meant}'"):
        load_profile(given)
