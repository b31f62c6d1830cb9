"""One thread a test process: two processes of two threads each wait for one another."""

import os
import shutil
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


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder of a tiny LLaVA with random weights, which no test changes."""
    import engine_fixtures

    return engine_fixtures.saved(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(base, tmp_path):
    """A copy of `base` to change."""
    return shutil.copytree(base, tmp_path / "copy")


@pytest.fixture
def show(record_property):
    """Print a text when the run ends, whichever worker it comes from."""
    return lambda text: record_property("shown", text)


@pytest.fixture(autouse=True)
def _kind(request, record_property):
    """A test marked `kind` is an instance of a kind of trouble; the table below lists it."""
    if marker := request.node.get_closest_marker("kind"):
        record_property("kind", marker.args[0])


@pytest.fixture
def result(record_property):
    """Give an instance's result, such as an error's sentence, to the table of kinds."""
    return lambda text: record_property("result", str(text))


def pytest_terminal_summary(terminalreporter, config):
    """Print what tests asked to `show`; with -s also the table of kinds."""
    kinds = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        properties = dict(report.user_properties) if report.when == "call" else {}
        if "shown" in properties:
            terminalreporter.write_line(f"\n{properties['shown']}")
        if "kind" in properties:
            instance = report.nodeid.rpartition("::")[2]
            text = f"{report.outcome}  {instance}  {properties.get('result', '')}"
            kinds.setdefault(properties["kind"], []).append(text)
    for kind, instances in sorted(kinds.items() if config.option.capture == "no" else ()):
        terminalreporter.write_line(f"\n{kind}: {len(instances)} instances")
        for text in sorted(instances):
            terminalreporter.write_line(f"  {text}")


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
