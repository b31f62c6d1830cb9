import subprocess
import sys

import pytest

from napo.config.profile import Training, edition, known_profiles, load_profile, seeds
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


@pytest.mark.parametrize(
    ("name", "nearest"), [("tinny", "tiny"), ("TINY", "tiny"), ("Smoke", "smoke")]
)
def test_an_unknown_profile_is_refused_with_the_nearest_one(name, nearest):
    with pytest.raises(NapoError, match=rf"Unknown profile '{name}'. Did you mean '{nearest}'\?"):
        load_profile(name)


def test_an_unknown_key_is_refused_with_the_known_ones(tmp_path):
    path = write(tmp_path, "training: {learning_rat: 1}")
    with pytest.raises(NapoError, match=r"learning_rat.*Did you mean .learning_rate"):
        load_profile(path)


def test_a_value_out_of_range_names_file_and_key(tmp_path):
    path = write(tmp_path, "training: {beta: -1}")
    with pytest.raises(NapoError, match=r"mine.yaml: training.beta is -1"):
        load_profile(path)


def test_a_settings_object_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Training().beta = 1


@pytest.mark.parametrize("parent", ["sub/../mine.yaml", "link.yaml", "child.yaml"])
def test_a_profile_that_extends_itself_is_refused(tmp_path, parent):
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


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.01", 0.01), ("100", 100.0)])
def test_temperatures_from_greedy_to_hot_are_allowed(tmp_path, text, value):
    path = write(tmp_path, f"masks: {{decoding: {{temperature: {text}}}}}")
    assert load_profile(path).masks.decoding.temperature == value


@pytest.mark.parametrize(
    ("seed_text", "tune", "name"),
    [
        ("", "", "tables"),
        ("0,1, 2", "full", "tables"),
        ("0,1", "", "tables-seeds-0-1"),
        ("", "lora", "tables-lora"),
        ("3", "lora", "tables-lora-seeds-3"),
        ("1,2,3,4,5,6,7,8", "", "tables-seeds-1-2-3-4-5-6-7-8"),
    ],
)
def test_other_seeds_or_tune_than_the_profiles_name_another_file(seed_text, tune, name):
    assert edition(load_profile("tiny"), "tables", seed_text, tune) == name


def test_many_seeds_have_a_short_file_name_of_their_own():
    tiny = load_profile("tiny")
    hundred, others = (edition(tiny, "tables", ",".join(map(str, range(n)))) for n in (100, 101))
    assert len(hundred) < 40 and hundred.startswith("tables-seeds-")
    assert hundred != others
    assert hundred == edition(tiny, "tables", ", ".join(map(str, range(100))))


@pytest.mark.parametrize("value", ["'0,1, 2'", "[0, 1, 2]"])
def test_seeds_are_a_text_or_a_list(tmp_path, value):
    assert seeds(load_profile(write(tmp_path, f"seeds: {value}")).seeds) == [0, 1, 2]


@pytest.mark.parametrize("text", ["0,0", "a", "", "1.5", "-1", "4294967296", "9" * 5000])
def test_bad_seeds_are_refused(text):
    with pytest.raises(NapoError, match="seeds is"):
        seeds(text)


def test_reading_a_profile_imports_no_torch():
    program = "import sys, napo.workspace.folders, napo.config.profile as p; "
    program += "p.load_profile('tiny'); p.load_profile('llava-1.5-7b'); "
    program += "print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("decoding", "sentence"),
    [
        ("{contrast: {alpha: -1.0}}", r"evaluation\.decoding\.contrast\.alpha is -1.0"),
        ("{contrast: {alpha: .nan}}", r"decoding\.contrast\.alpha is nan"),
        ("{contrast: {beta: 1.1}}", r"decoding\.contrast\.beta is 1.1"),
        ("{contrast: {noise_step: 1000}}", r"decoding\.contrast\.noise_step is 1000"),
        ("{contrast: {noise_step: 0.5}}", r"decoding\.contrast\.noise_step is 0.5"),
        ("{contrast: {alhpa: 1.0}}", "Unknown key of .*contrast .*'alhpa'. Did you mean 'alpha'"),
        ("{contrast: 1}", r"decoding\.contrast is 1; write keys and values, it is a section"),
        ("{contrast: {}, num_beams: 3}", "contrast does not work with beams; set num_beams from 3"),
    ],
)
def test_a_contrast_out_of_range_names_its_key(tmp_path, decoding, sentence):
    with pytest.raises(NapoError, match=sentence):
        load_profile(write(tmp_path, f"evaluation: {{decoding: {decoding}}}"))


def test_beams_are_refused_if_a_variant_decodes_by_contrast(tmp_path):
    beams = "evaluation: {decoding: {num_beams: 3}}"
    with pytest.raises(NapoError, match=r"num_beams is 3, and a contrast does not work with beams"):
        load_profile(write(tmp_path, f"variants: [dpo, vcd]\n{beams}"))
    assert load_profile(write(tmp_path, f"variants: [dpo]\n{beams}"))


def test_a_contrast_changes_the_settings_and_its_absence_leaves_them_as_they_were(tmp_path):
    plain = load_profile(write(tmp_path, "")).evaluation.decoding.model_dump()
    assert "contrast" not in plain
    text = "evaluation: {decoding: {contrast: {alpha: 0.5}}}"
    contrasted = load_profile(write(tmp_path, text)).evaluation.decoding.model_dump()
    contrast = {"alpha": 0.5, "beta": 0.1, "noise_step": 500}
    assert contrasted == {**plain, "contrast": contrast}
