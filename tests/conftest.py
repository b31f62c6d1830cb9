"""One thread a test process: two processes of two threads each wait for one another."""

import os
import sys

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True)
def _threads_stay():
    """A session of another profile sets other threads, and other threads give other last bits."""
    yield
    if os.environ["OMP_NUM_THREADS"] != "1":
        os.environ["OMP_NUM_THREADS"] = "1"
        sys.modules["torch"].set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The notebooks' tests come first: they share a workspace, so one worker runs them all."""
    items.sort(key=lambda item: item.get_closest_marker("notebooks") is None)
