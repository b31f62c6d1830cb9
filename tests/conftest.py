"""One thread a test process: two processes of two threads each wait for one another."""

import os
import sys

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def built_smoke(tmp_path_factory):
    """A session of the smoke profile whose rows are built; the annotations are a test's own."""
    from napo import stages
    from napo.stages.session import open_session

    made = open_session("smoke", str(tmp_path_factory.mktemp("built")))
    stages.make_rows(made)
    stages.build_rows(made)
    return made


@pytest.fixture
def unlabelled(built_smoke):
    """The same, without any labels."""
    for path in built_smoke.workspace.annotations.glob("*.csv"):
        path.unlink()
    return built_smoke


@pytest.fixture
def show(record_property):
    """Print a text when the run ends, whichever worker it comes from."""
    return lambda text: record_property("shown", text)


def pytest_terminal_summary(terminalreporter):
    """Print what tests asked to `show`."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, text in report.user_properties if report.when == "call" else ():
            if name == "shown":
                terminalreporter.write_line(f"\n{text}")


@pytest.fixture(autouse=True)
def _threads_stay():
    """A session of another profile sets other threads, and other threads give other last bits."""
    yield
    if os.environ["OMP_NUM_THREADS"] != "1":
        os.environ["OMP_NUM_THREADS"] = "1"
        sys.modules["torch"].set_num_threads(1)


@pytest.hookimpl(trylast=True)  # once -m has chosen
def pytest_collection_modifyitems(items):
    """What takes longest begins first; of a pair, each on a worker, which starts with one half."""
    pair = [item for item in items if item.path.stem == "test_real_commands"]
    rest = [item for item in items if item not in pair]
    rest.sort(key=lambda item: item.path.stem != "test_notebooks")
    half = len(rest) // 2
    items[:] = [*pair[:1], *rest[:half], *pair[1:], *rest[half:]]
