"""Files of the hub: fetched, compared with what the hub knows, and mended."""

# ruff: noqa: F401, F811 - fixtures of hub_fixtures

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub_fixtures import BODY, NEW, OLD, flip, folder, profile, server, source, tree, workspace

from napo.data.fetch import fetch, require_unchanged, status
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint

TRUSTED = pytest.mark.kind("bytes are trusted by size")


def run(server, workspace, *sources, model=None, arguments=("--yes",)):
    """The command line in a process of its own, with the local server as the hub."""
    path = workspace.root.parent / "p.yaml"
    settings = {"sources": [item.model_dump() for item in sources], "model": model or {}}
    path.write_text(json.dumps(settings))
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server.address}
    environment |= {"HF_HOME": str(workspace.root.parent / "hub"), "HF_TOKEN": "hf_secret"}
    command = [sys.executable, "-m", "napo", "fetch", "--profile", str(path)]
    command += ["--workspace", str(workspace.root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_repository_is_fetched_at_the_recorded_commit_and_mended(server, workspace, folder):
    server.hub[OLD] = {"Bench/data.json": b"[]", "Bench/images/1.jpg": BODY, "README.md": b"old"}
    server.hub[NEW] = {"Bench/data.json": b"[1]", "Bench/images/1.jpg": BODY}
    server.newest = OLD
    item = source(repo="o/d", files=("Bench/*",), holds={"data.json": 1})
    dry = run(server, workspace, item, arguments=())
    assert re.search(rf"1.0 MB +missing +see its page +{OLD[:12]}", dry.stdout)
    assert not workspace.root.exists()

    done = run(server, workspace, item)
    assert (done.returncode, "hf_secret" in done.stdout + done.stderr) == (0, False)
    assert tree(folder) == ["Bench", "Bench/data.json", "Bench/images", "Bench/images/1.jpg",
                            "data.json", "images"]  # fmt: skip

    server.newest = NEW
    (folder / "Bench/images/1.jpg").write_bytes(b"cut")
    [state] = status(profile(item), workspace)
    assert (state.state, state.lacks, state.commit) == ("partly", ("Bench/images/1.jpg",), OLD)
    assert run(server, workspace, item).returncode == 0
    assert (folder / "Bench/images/1.jpg").read_bytes() == BODY
    assert (folder / "data.json").read_bytes() == b"[]"


def test_a_repository_that_breaks_off_continues_at_its_first_commit(server, workspace, folder):
    server.hub[OLD], server.newest, server.cut = {"a.parquet": BODY}, OLD, 1000
    item = source(repo="o/d")
    assert "napo: thing: The hub cannot be reached" in run(server, workspace, item).stderr
    server.hub[NEW], server.newest, server.cut = {"a.parquet": b"new"}, NEW, None
    assert run(server, workspace, item).returncode == 0
    assert (folder / "a.parquet").read_bytes() == BODY


def test_the_base_model_is_fetched_to_where_the_profile_loads_it_from(server, workspace):
    model = {"path": "o/d", "revision": OLD}
    server.hub[OLD] = {"config.json": b"{}", "model.safetensors": BODY, "pytorch_model.bin": BODY}
    assert run(server, workspace, model=model).returncode == 0
    assert " complete " in run(server, workspace, model=model, arguments=()).stdout
    script = f"from napo.config.settings import Model; print(Model(**{model}).location)"
    environment = {**os.environ, "HF_HOME": str(workspace.root.parent / "hub")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert tree(Path(done.stdout.decode().strip())) == ["config.json", "model.safetensors"]


@TRUSTED
@pytest.mark.parametrize("name", ["Bench/images/1.jpg", "Bench/data.json"])  # LFS, git
def test_one_wrong_byte_of_a_repository_is_seen_and_mended(server, workspace, folder, name, result):
    server.hub[NEW] = {"Bench/data.json": b"[12345]", "Bench/images/1.jpg": BODY}
    item = source(repo="o/d", files=("Bench/*",), holds={"data.json": 1})
    path = folder / name
    assert run(server, workspace, item).returncode == 0
    flip(path)
    [state] = status(profile(item), workspace)
    result(f"{state}, lacks {state.lacks}")
    assert (state.state, state.lacks, state.changed) == ("partly", (name,), (name,))
    with pytest.raises(NapoError, match=f"{name} has other bytes than thing has; call make fetch"):
        require_unchanged(profile(item), workspace)
    assert run(server, workspace, item).returncode == 0
    assert path.read_bytes() == server.hub[NEW][name]
    require_unchanged(profile(item), workspace)


@TRUSTED
def test_a_copy_placed_by_hand_is_compared_with_the_hub_and_mended(
    server, workspace, folder, result
):
    server.hub[NEW] = {"a.parquet": BODY, "b.parquet": BODY[::-1]}
    item = source(repo="o/d", revision=NEW, holds={"*.parquet": 2})
    folder.mkdir(parents=True)
    elsewhere = workspace.root / "shared.parquet"
    for path, content in ((folder / "a.parquet", BODY), (elsewhere, BODY[::-1])):
        path.write_bytes(content)
    (folder / "b.parquet").symlink_to(elsewhere)
    assert " complete " in run(server, workspace, item, arguments=()).stdout
    flip(elsewhere)
    changed = elsewhere.read_bytes()
    dry = run(server, workspace, item, arguments=()).stdout
    assert " complete " not in dry and "2 of 2 files" in dry
    assert run(server, workspace, item).returncode == 0
    assert (folder / "b.parquet").read_bytes() == BODY[::-1]
    assert elsewhere.read_bytes() == changed  # the person's own file is left alone
    result("named as not whole; the hub's file replaces the link, not the file behind it")


@TRUSTED
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])  # LFS, git
def test_the_models_own_files_in_the_cache_are_hashed(server, workspace, name, result):
    server.hub[OLD] = {"config.json": b'{"a": 1}', "model.safetensors": BODY}
    model = {"path": "o/d", "revision": OLD}
    assert run(server, workspace, model=model).returncode == 0
    snapshot = workspace.root.parent / f"hub/hub/models--o--d/snapshots/{OLD}"
    model_fingerprint(snapshot)
    shutil.rmtree(workspace.root / "data")  # a cache that another program has filled
    flip((snapshot / name).resolve())
    with pytest.raises(NapoError, match=r"is damaged \(its hash is not the hub") as error:
        model_fingerprint(snapshot)
    result(error.value)
    dry = run(server, workspace, model=model, arguments=()).stdout
    assert " complete " not in dry
    assert run(server, workspace, model=model).returncode == 0
    assert (snapshot / name).read_bytes() == server.hub[OLD][name]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"repo": "o/nothing"}, "o/nothing is not on the hub, or needs a token"),
        ({"repo": "o/d", "revision": "c" * 40}, "o/d has no revision 'ccc"),
        ({"repo": "o/d", "files": ("*.zip",)}, "o/d has no file like *.zip"),
        ({"repo": "no hub id/at/all"}, "no hub id/at/all is not a valid name"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(server, workspace, settings, sentence):
    server.hub[NEW] = {"a.parquet": b"new"}
    done = run(server, workspace, source(**settings))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"napo: thing: {sentence}" in done.stderr


@pytest.mark.kind("the machine's surroundings")
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ALL_PROXY", "socks5h://me:my-password@host:port", "a wrong address; the environment"),
        ("ALL_PROXY", "foo://me:my-password@127.0.0.1:9", "Unknown scheme"),
        ("SSL_CERT_FILE", "/nowhere.pem", "No such file"),
    ],
)
def test_a_variable_that_keeps_the_hub_away_is_named(
    server, workspace, monkeypatch, result, name, value, sentence
):
    server.hub[NEW] = {"a.parquet": b"new"}
    monkeypatch.setenv(name, value)
    done = run(server, workspace, source(repo="o/d"))
    [line] = [line for line in done.stderr.splitlines() if "The hub cannot be reached" in line]
    assert sentence in line and f"the environment sets {name}" in line
    assert "my-password" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    result(line)


@TRUSTED
def test_a_server_that_sends_other_bytes_is_refused(server, workspace, result):
    server.hub[NEW] = {"a.parquet": BODY}
    server.sends = {"a.parquet": BODY[:-1] + b"x"}
    done = run(server, workspace, source(repo="o/d"))
    result(done.stderr.strip())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "did not arrive with the hash that the hub gives" in done.stderr
