"""A cell of the noise study, trained and measured at smoke scale."""

import pandas as pd
import pytest

from napo import stages
from napo.commands.verify import verify
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.noise.study import Cell, Job
from napo.stages import cells, study
from napo.stages.session import open_session
from napo.stages.study_results import seconds_of_cells
from napo.workspace.manifests import read_manifest

PROFILE = """
name: studied
extends: smoke
world: {reword: study_fixtures:reword}
training: {save_steps: 2}
study:
  noise: [unbiased-0.4]
  losses: [dpo, pair]
  budgets: {long: {learning_rate: 3.0e-4, epochs: 2}}
"""
FLIPS, UNBIASED = (Job.read(f"long/{noise}/seed-0") for noise in ("flip-0.4", "unbiased-0.4"))


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "studied.yaml"
    path.write_text(PROFILE)
    return str(path)


@pytest.fixture(scope="module")
def session(profile, tmp_path_factory):
    """A session with pairs, VLind-Bench and a cell of each kind of noise."""
    made = open_session(profile, str(tmp_path_factory.mktemp("study")))
    study.make_pairs(made)
    stages.make_benchmarks(made)
    cells.run_job(made, FLIPS, ["dpo"])
    cells.run_job(made, UNBIASED, ["dpo"])
    return made


def margins(session, job):
    return pd.read_csv(study.cell_folder(session, Cell(job, "dpo")) / "margins.csv")


def test_training_pairs_are_reworded_and_all_are_scored(session):
    folder = session.workspace.study_pairs
    rows = load_rows(folder / "rows", folder / "reference")
    assert rows["split"] == ["held_out"] * 16 + ["train"] * 32
    for row in rows:
        assert row["chosen_logp"] < 0 and row["rejected_logp"] < 0
        reworded = f"Indeed: {row['chosen']}" if row["split"] == "train" else None
        assert row["reworded"] == reworded and (row["reworded_logp"] is None) == (reworded is None)


def test_a_cell_keeps_measures_and_no_weights(session):
    folder = study.cell_folder(session, Cell(FLIPS, "dpo"))
    names = {"margins.csv", "steps.csv", "epochs.json", "cell.json", "vlind.csv"}
    assert set(read_manifest(folder)["files"]) == names
    assert not list(folder.rglob("*.safetensors")) and not list(folder.glob("checkpoint*"))
    steps = pd.read_csv(folder / "steps.csv")
    assert len(steps) == 4 and steps["noisy"].sum() == 2 * 13  # 2 epochs, 40 % of 32 rows
    assert len(pd.read_csv(folder / "vlind.csv")) == 4


def test_held_out_pairs_are_clean_and_noisy_ones_are_measured_on_both_sides(session):
    frame = margins(session, FLIPS)
    assert frame["split"].value_counts().to_dict() == {"held_out": 16, "noisy": 13}
    noisy = frame[frame["split"] == "noisy"]
    assert noisy["trained_psi"].tolist() == (-noisy["psi"]).tolist()  # a flip is the other side
    other = margins(session, UNBIASED)
    assert other["id"].tolist() == frame["id"].tolist()  # both kinds make the same rows noisy
    unbiased = other[other["split"] == "noisy"]
    assert (unbiased["trained_psi"] != -unbiased["psi"]).all()


def test_verify_finds_the_study_as_it_was_written(session):
    assert verify(session.workspace.data)[1] == []


def test_a_finished_cell_is_not_trained_again(session, monkeypatch):
    monkeypatch.setattr(cells, "fit", None)
    cells.run_job(session, FLIPS, ["dpo"])
    assert study.unfinished(session, {FLIPS: ("dpo", "pair")}) == {FLIPS: ("pair",)}


def test_a_cell_killed_half_way_goes_on_from_its_checkpoint_to_the_same_bytes(session, monkeypatch):
    cell, measure, seen = Cell(FLIPS, "pair"), cells.HeldOut.on_step_end, []
    cells.run_job(session, FLIPS, ["pair"])
    folder = study.cell_folder(session, cell)
    unbroken = read_manifest(folder)["files"]
    for path in folder.glob("*"):
        path.unlink()

    def killed(self, args, state, control, **kwargs):
        seen.append(state.global_step)
        if state.global_step == 3:
            raise KeyboardInterrupt
        measure(self, args, state, control, **kwargs)

    monkeypatch.setattr(cells.HeldOut, "on_step_end", killed)
    with pytest.raises(KeyboardInterrupt):
        cells.run_job(session, FLIPS, ["pair"])
    assert not study.is_finished(folder)
    monkeypatch.setattr(cells.HeldOut, "on_step_end", measure)
    cells.run_job(session, FLIPS, ["pair"])
    assert seen == [1, 2, 3] and read_manifest(folder)["files"] == unbroken


def test_a_cell_made_with_other_settings_is_refused(session, profile, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {profile}\nname: studied\ntraining: {{beta: 0.2}}\n")
    changed = open_session(str(other), str(session.workspace.root))
    with pytest.raises(NapoError, match=r"dpo/seed-0 was made with other settings \(beta: 0.1"):
        cells.run_job(changed, FLIPS, ["dpo", "pair"])


@pytest.mark.parametrize("line", ["rows: 40", "held_out: 8", "seed: 12"])
def test_pairs_made_with_other_settings_are_refused(session, profile, tmp_path, line):
    path = tmp_path / "other.yaml"
    path.write_text(PROFILE.replace("study:", f"study:\n  {line}"))
    other = open_session(str(path), str(session.workspace.root))
    # Even where no cell is there yet.
    with pytest.raises(NapoError, match=r"study/pairs was made with other settings"):
        study.check_cells(other, [])


def test_a_grid_without_a_cell_is_refused(session, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("name: studied\nextends: smoke\n"
                    "study: {noise: [flip-0.5], losses: [rdpo-true]}")  # fmt: skip
    empty = open_session(str(path), str(tmp_path))
    with pytest.raises(NapoError, match=r"no cell: none of study\.losses"):
        study.study_grid(empty)


def test_a_damaged_time_is_left_out_of_the_estimate(session):
    times = sorted(session.workspace.study.glob(f"long/*/*/*/{study.SECONDS}"))
    before = seconds_of_cells(session)
    kept = times[0].read_bytes()
    times[0].write_text("garbage")
    assert len(seconds_of_cells(session)["long"]) == len(before["long"]) - 1
    times[0].write_bytes(kept)


def test_a_profile_of_several_processes_is_refused(session, profile, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {profile}\nname: studied\nlaunch: {{processes: 2}}\n")
    several = open_session(str(other), str(session.workspace.root))
    with pytest.raises(NapoError, match=r"launch\.processes is 2"):
        cells.run_job(several, Job.read("long/flip-0.4/seed-1"), ["dpo"])


def downloaded(session, tmp_path, count):
    """A session that has the pairs of another one as downloaded rows."""
    file, source = tmp_path / "real.yaml", session.workspace.study_pairs / "rows"
    file.write_text(
        f"extends: smoke\nname: real\nworld: {{make_rows: '', make_benchmarks: '', reword: ''}}\n"
        f"data: {{source: {source}}}\nstudy: {{rows: {count}, held_out: 10}}\n"
    )
    return open_session(str(file), str(tmp_path))


def test_of_downloaded_rows_the_first_are_trained_on_and_the_last_are_held_out(session, tmp_path):
    source = load_rows(session.workspace.study_pairs / "rows")["id"]
    real = downloaded(session, tmp_path, 30)
    study.make_pairs(real)
    pairs = load_rows(real.workspace.study_pairs / "rows")
    by_split = {name: [r["id"] for r in pairs if r["split"] == name] for name in pairs["split"]}
    assert by_split == {"train": source[:30], "held_out": source[-10:]}
    assert study.study_grid(real, "full").keys() == {
        job for job in study.study_grid(session, "full", "0") if job.noise.kind == "flip"
    }


def test_too_few_downloaded_rows_are_refused(session, tmp_path):
    with pytest.raises(NapoError, match=r"has 48 rows, and the study takes 40 for training and 10"):
        study.make_pairs(downloaded(session, tmp_path, 40))
