"""Seeds decide a result; batches, parts and folders do not.

Two whole pipelines in two folders are compared, figures included, in `test_real_pipeline.py`.
"""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from napo import stages
from napo.config.variants import RESPONSES
from napo.data.rows import shards
from napo.stages.session import open_session
from napo.workspace.files import read_json

pytestmark = pytest.mark.long
SMALLEST = Path(__file__).parent / "smallest.yaml"


def session(root, **sections):
    """A workspace of the smallest profile with some values changed."""
    root.mkdir()
    profile = root / "changed.yaml"
    profile.write_text(json.dumps({"extends": str(SMALLEST), "name": "changed", **sections}))
    return open_session(str(profile), str(root / "work"))


def built(made):
    """Responses and reference log-probs of every row, by id."""
    stages.make_rows(made)
    rows = pq.read_table(shards(stages.build_rows(made))).drop_columns(["image"]).to_pylist()
    scores = pq.read_table(shards(stages.score_reference(made))).to_pylist()
    texts = {row["id"]: [row[name] for name in RESPONSES] for row in rows}
    logps = {row["id"]: row["language_biased_logp"] for row in scores}
    return texts, logps


def answers(made):
    stages.make_benchmarks(made)
    folder = stages.evaluate(made, "base")
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.answers.jsonl"))}


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    made = session(tmp_path_factory.mktemp("determinism") / "usual")
    return made, built(made), answers(made)


def test_batches_and_parts_change_no_response_and_no_answer(usual, tmp_path):
    _, (texts, logps), replies = usual
    made = session(
        tmp_path / "other",
        masks={"batch_size": 3},
        data={"shard_rows": 5},
        evaluation={"batch_size": 7},
    )
    other_texts, other_logps = built(made)
    assert other_texts == texts
    assert other_logps == pytest.approx(logps, abs=1e-5)  # rows of a part share a padding
    assert answers(made) == replies


def test_parts_and_batches_change_no_sampled_response(tmp_path):
    texts = []
    for name, rows, size in (("one", 8, 8), ("other", 5, 3)):
        decoding = {"max_new_tokens": 12, "temperature": 1.0}
        made = session(
            tmp_path / name,
            masks={"batch_size": size, "decoding": decoding},
            data={"shard_rows": rows},
        )
        texts.append(built(made)[0])
    assert texts[0] == texts[1]


def test_another_seed_gives_other_rows_and_other_weights(usual, tmp_path):
    made, (texts, _), _ = usual
    other, _ = built(session(tmp_path / "seed", data={"seed": 8}))
    assert other != texts
    weights = [read_json(stages.train(made, "A1", seed) / "manifest.json") for seed in (0, 1)]
    hashes = [manifest["files"]["model/model.safetensors"] for manifest in weights]
    assert hashes[0] != hashes[1]
