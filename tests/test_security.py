"""The promises of SECURITY.md: nothing in data, a model or a server's reply runs or leaks."""

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import engine_fixtures as engine
import nbformat
import pytest
import torch
from code_rules import broken_rules
from PIL import Image

from napo.benchmarks import Request, amber, checked_images, mmhal, vlind
from napo.config.profile import Training, load_profile
from napo.data import sources
from napo.errors import NapoError, one_line, without_secrets
from napo.models.fingerprint import model_fingerprint
from napo.models.load import add_adapter, load_adapter_weights, load_model
from napo.training import checkpoints
from napo.training.run import train_run
from napo.training.trainer import NaPOTrainer
from napo.workspace import pictures

ROOT = Path(__file__).parent.parent
SECRET = "sk-0123456789-marker"
SETTINGS = Training(
    lora_learning_rate=1e-2, epochs=1, batch_size=4, micro_batch_size=4, save_steps=1,
    max_length=64, lora_r=2, warmup_ratio=0.0,
)  # fmt: skip
# From tmp_path/data: the parent's image, the same image through links, and a file of the system
OUTSIDE = ["images/../../secret.png", "{folder}/../secret.png", "images/link.png", "/etc/passwd"]


class Payload:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def plant(path, ran):
    path.write_bytes(pickle.dumps({"weight": Payload(ran)}))


@pytest.fixture
def ran(tmp_path):
    """The folder that exists if a payload has run."""
    return tmp_path / "ran"


@pytest.fixture(scope="module")
def interrupted(base, tmp_path_factory):
    """A LoRA run that was interrupted after its first checkpoint, and its rows."""
    folder, rows = tmp_path_factory.mktemp("interrupted") / "run", engine.rows(8)
    compute = NaPOTrainer.compute_loss

    def stop_at_the_second_step(self, *args, **kwargs):
        if self.state.global_step == 1:
            raise KeyboardInterrupt
        return compute(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(NaPOTrainer, "compute_loss", stop_at_the_second_step)
        train_run(folder, base, rows, "dpo", SETTINGS, seed=0, tune="lora")
    return folder, rows


@pytest.fixture
def folder(tmp_path):
    """A folder of data with links to an image outside it."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    for name in ("secret.png", "0.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (data / "images" / "link.png").symlink_to(tmp_path / "secret.png")
    return data


def test_our_code_evaluates_no_text_unpickles_nothing_and_opens_no_shell():
    broken = {}
    for path in [p for name in ("napo", "bench") for p in (ROOT / name).rglob("*.py")]:
        broken[path] = broken_rules(path.read_text())
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        broken[path] = broken_rules(code)
    assert len(broken) > 100 and not any(broken.values()), broken


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "import pickle",
        "import dill as d",
        "from pickle import UnpicklingError, load",
        "os.system(text)",
        "subprocess.run(text, shell=True)",
        "yaml.load(text)",
        "YAML()",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoConfig.from_pretrained(path)",
        "AutoProcessor.from_pretrained(path, trust_remote_code=True)",
        "LLM(model=path, trust_remote_code=given)",
        "AutoModel.from_pretrained(path, trust_remote_code=False)",
    ],
)
def test_the_rules_for_our_code_find_what_they_forbid(line):
    assert broken_rules(line)


def test_the_payload_of_these_tests_runs_where_it_is_unpickled(ran, tmp_path):
    plant(tmp_path / "x.bin", ran)
    pickle.loads((tmp_path / "x.bin").read_bytes())
    assert ran.is_dir()


def test_a_model_with_pickled_weights_only_is_refused(copy, ran):
    (copy / "model.safetensors").unlink()
    plant(copy / "pytorch_model.bin", ran)
    with pytest.raises(NapoError, match=r"holds only pickled weights.*writes \.safetensors"):
        load_model(copy, device="cpu")
    with pytest.raises(NapoError, match=r"holds no \.safetensors weights"):
        model_fingerprint(copy)
    assert not ran.exists()


def test_pickled_weights_beside_safetensors_are_not_opened(copy, ran):
    plant(copy / "pytorch_model.bin", ran)
    load_model(copy, device="cpu")
    assert not ran.exists()


def test_an_adapter_with_pickled_weights_only_is_refused(base, ran, tmp_path):
    from peft import LoraConfig

    folder = tmp_path / "adapter"
    model, _ = load_model(base, device="cpu")
    model = add_adapter(model, LoraConfig(target_modules=["q_proj"]), seed=0)
    model.save_pretrained(folder)
    (folder / "adapter_model.safetensors").unlink()
    plant(folder / "adapter_model.bin", ran)
    with pytest.raises(NapoError, match=r"holds no adapter_model\.safetensors"):
        load_model(base, device="cpu", adapter=folder)
    with pytest.raises(NapoError, match=r"holds no adapter_model\.safetensors"):
        load_adapter_weights(model, folder)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_in_a_checkpoint_is_refused(interrupted, base, name, ran, tmp_path):
    folder = shutil.copytree(interrupted[0], tmp_path / "run")
    (checkpoint,) = folder.glob("checkpoint-*")
    assert (checkpoint / name).is_file()
    torch.save({"state": Payload(ran)}, checkpoint / name)
    run = json.loads((checkpoint / checkpoints.MANIFEST).read_text())["run"]
    (checkpoint / checkpoints.MANIFEST).unlink()  # an attacker can write the right hash
    draft = shutil.move(checkpoint, checkpoint.with_name("draft"))
    checkpoints.seal(Path(draft), checkpoint, run)
    with pytest.raises(NapoError, match=r"holds more than tensors and numbers, .* was not loaded"):
        train_run(folder, base, interrupted[1], "dpo", SETTINGS, seed=0, tune="lora")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"model_type": "planted"}),
        ("processor_config.json", {"processor_class": "Planted"}),
    ],
)
def test_code_in_a_model_folder_does_not_run_even_if_the_terminal_agrees(
    copy, name, change, ran, tmp_path
):
    (copy / "planted.py").write_text(f"import os\nos.mkdir({str(ran)!r})\nclass Planted: pass\n")
    loaders = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor")
    content = json.loads((copy / name).read_text())
    content |= change | {"auto_map": dict.fromkeys(loaders, "planted.Planted")}
    (copy / name).write_text(json.dumps(content))
    program = (
        "import sys; from napo.models.load import load_model; from napo.errors import NapoError\n"
        "try: load_model(sys.argv[1], device='cpu')\n"
        "except NapoError as error: print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(copy)],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Do you wish to run" not in done.stdout + done.stderr
    assert done.stdout.startswith("refused: ") and done.stdout.count("\n") == 1
    assert not ran.exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_row_with_an_image_outside_its_folder_is_refused(folder, name):
    name = name.format(folder=folder)
    row = {"id": "7", "image": name, "question": "?", "chosen": "a", "rejected": "b"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    ((_, [(_, row)]),) = sources.batches(folder, 1)
    for use in (sources.decode, sources.with_bytes):
        for image in (row["image"], {"bytes": None, "path": name}):
            with pytest.raises(NapoError, match=r"Row 7: .* leaves the folder"):
                use({**row, "image": image})


def test_a_row_without_bytes_or_folder_reads_no_file(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(NapoError, match="does not hold it"):
        sources.decode({"id": "7", "image": {"bytes": None, "path": "secret.png"}})


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_benchmark_with_an_image_outside_its_folder_is_refused(folder, name):
    requests = [Request("7", "?", folder / name.format(folder=folder))]
    with pytest.raises(NapoError, match=r"images of 1 ids \(7\) lie outside"):
        checked_images(requests, folder, "Some benchmark", "get it again")


def test_amber_checks_where_its_images_lie(folder):
    queries = [{"id": 1, "image": "../secret.png", "query": "?"}]
    with pytest.raises(NapoError, match=r"AMBER: .* lie outside"):
        amber.requests(amber.Benchmark(folder, [], queries, [], {}, frozenset()))


def test_mmhal_bench_checks_where_its_images_lie(folder):
    item = {"image_src": "https://x.org/a.jpg", "image_id": "../../0", "question": "?"}
    with pytest.raises(NapoError, match=r"MMHal-Bench: .* lie outside"):
        mmhal.requests(mmhal.Benchmark(folder, [item]))


def test_vlind_bench_checks_where_its_images_lie(folder):
    texts = ("context", "factual_context", "true_statement", "false_statement", "existent_noun")
    instance = dict.fromkeys((*texts, "non-existent_noun"), "x")
    instance |= {"concept": "../../../..", "context_id": "/..", "best_img_id": "0"}
    instance |= {"aggregated_human_label_good_images": {"0": 3}}
    with pytest.raises(NapoError, match=r"VLind-Bench: .* lie outside"):
        vlind.requests(vlind.Benchmark(folder, [instance]))


def test_a_program_for_drawing_is_not_opened_as_an_image(tmp_path):
    path = tmp_path / "a.eps"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    for source in (path, path.read_bytes()):
        with pytest.raises(pictures.BadPicture, match="it is none of AVIF, BMP"):
            pictures.open_rgb(source)


@pytest.mark.parametrize("name", ["../x", "a/b", "$(touch x)", "a b", "-p", ".", ""])
def test_the_name_of_a_profile_stays_in_its_folder(tmp_path, name):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: {json.dumps(name)}\n")
    with pytest.raises(NapoError, match=r"mine\.yaml: name: use letters, digits"):
        load_profile(str(path))


def test_a_hostile_path_of_a_profile_is_one_word_of_each_command(tmp_path):
    path = tmp_path / "it's {a} $(touch hacked) profile.yaml"
    path.write_text("extends: smoke\nname: strange\n")
    call = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "-n", "-p"]
    call += ["--cores", "1", "--config", f"profile={path}", f"workspace={tmp_path}"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    commands = [line for line in done.stdout.splitlines() if "Shell command: papermill" in line]
    assert len(commands) > 5 and all(str(path) in shlex.split(command) for command in commands)


@pytest.mark.parametrize("name", ["HF_TOKEN", "OPENAI_API_KEY", "MY_SECRET", "PASSWORD"])
def test_error_messages_leave_secrets_of_the_environment_out(monkeypatch, name):
    monkeypatch.setenv(name, SECRET)
    assert str(NapoError(f"It said {SECRET}.")) == "It said [secret]."


def test_a_quoted_message_of_another_program_has_no_signed_address():
    text = one_line("403 for https://host/file?Signature=abc&Expires=1\nsee \x1b[31mhere")
    assert text == "403 for https://host/file see [31mhere"
    assert len(one_line("x" * 5000)) < 320


def test_short_words_and_settings_are_no_secrets(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # as for a local server
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism")
    assert without_secrets("none of it, parallelism") == "none of it, parallelism"


def test_each_promise_of_security_md_names_tests_that_exist():
    rows = re.findall(r"^\| \*\*.*", (ROOT / "SECURITY.md").read_text(), re.M)
    assert len(rows) > 8
    for row in rows:
        tests = re.findall(r"`([\w/]+\.py)`", row.split(" | ")[-1])
        assert tests and [name for name in tests if not (ROOT / "tests" / name).is_file()] == []
