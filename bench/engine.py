"""Time and memory of a training step: TRL's DPOTrainer, the released layout, and ours.

    make bench            (python -m bench.engine)

The model has the paper's shape with fewer and narrower layers: 336 px / 14 = 576 visual tokens, 40
tokens of question, responses of 64 to 110 tokens, a vocabulary of 32,064, six decoder layers of
width 512, a CLIP of six layers of width 256; two rows of the paper's three pairs a step. Every
measurement is a process of its own, the three ways take turns, and figures are medians and ratios.
The optimiser is Trainer's default, fused AdamW, in all of them.

- trl: the three pairs as TRL's users write them, three rows of `DPOTrainer`. It refuses cached
  reference log-probs for vision data, so its reference pass is part of the step.
- released: the layout of the released code, four padded sequences a row with all their logits; the
  reference cached.
- ours: one shared-prefix sequence a row, logits at response positions; the reference cached.

The floor is the time of the matrix products that the masks and response positions leave, at the
rate of a large float32 product on the same machine and threads. Writes data/bench/engine.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from napo.config.variants import Variant

WAYS = ("trl", "released", "ours")
SIZE, PATCH, WIDTH, LAYERS, VOCABULARY = 336, 14, 512, 6, 32_064
VISION_WIDTH, VISION_LAYERS, HEADS = 256, 6, 8
FEED_FORWARD, VISION_FEED_FORWARD = 1376, 1024
QUESTION, SHORTEST, LONGEST = 40, 64, 110
VISUAL = (SIZE // PATCH) ** 2
TARGETS = {  # what was aimed at: ratio of step rates, ratio of peak memory, of ours to the floor
    "trl": (10.0, 0.40),
    "released": (5.0, 0.55),
    "floor": 1.3,
}
OUT = Path("data/bench/engine.json")


def processor() -> Any:
    """A `LlavaProcessor` with 32,064 words and LLaVA-1.5's image size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:"]
    words = {word: at for at, word in enumerate(special)}
    words |= {f"w{at}": at for at in range(len(special), VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words["<s>"])]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    images = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    template = (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
        "<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def model() -> Any:
    """The model with random weights, its vision tower frozen as in training."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    from napo.models.load import freeze_vision_tower

    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=VISION_WIDTH,
            intermediate_size=VISION_FEED_FORWARD,
            num_hidden_layers=VISION_LAYERS,
            num_attention_heads=HEADS,
            image_size=SIZE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=2048,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_id=4,
        image_seq_length=VISUAL,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    built = LlavaForConditionalGeneration(config)
    freeze_vision_tower(built)
    return built.train()


def rows(count: int, negatives: int) -> list[dict[str, Any]]:
    """Rows of random words and pixels, with the responses of `names`."""
    from PIL import Image

    rng = np.random.default_rng(0)

    def words(length: int) -> str:
        return " ".join(f"w{at}" for at in rng.integers(10, VOCABULARY, length))

    made = []
    for number in range(count):
        pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        row = {"id": str(number), "image": Image.fromarray(pixels), "question": words(QUESTION)}
        for name in ("chosen", *names(negatives)):
            row[name] = words(int(rng.integers(SHORTEST, LONGEST + 1)))
        made.append(row)
    return made


def names(negatives: int) -> tuple[str, ...]:
    """Names of so many dispreferred responses."""
    known = ("rejected", "language_biased", "vision_biased")
    return (*known, *(f"more_{at}" for at in range(3, negatives)))[:negatives]


def objective(negatives: int) -> Any:
    """Three DPO terms (the same arithmetic in all ways; NaPO's loss costs the same)."""
    from napo.config.variants import Term
    from napo.method.objective import Objective

    return Objective(Variant("bench", tuple(map(Term, names(negatives))), "uniform"))


def _optimizer(policy: Any) -> Any:
    import torch

    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-6, fused=True)


def ours_step(count: int, negatives: int, layout: str = "shared") -> Any:
    """A function that does one step; `layout` "padded" is one sequence a response."""
    import torch

    from napo.method.logprobs import collate, response_logprobs

    policy, tool = model(), processor()
    aim = objective(negatives)
    batch = collate(rows(count, negatives), tool, aim.responses, layout=layout)
    with torch.no_grad():
        reference = response_logprobs(policy, batch)
    optimizer = _optimizer(policy)

    def step() -> None:
        aim(response_logprobs(policy, batch), reference).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def released_step(count: int, negatives: int) -> Any:
    """One padded sequence a response, with its own copy of the image, and the logits of all."""
    import torch
    from torch.nn.functional import pad

    from napo.method.tensors import LogProbs
    from napo.models.prompts import prompt_inputs

    policy, tool = model(), processor()
    aim = objective(negatives)
    data = rows(count, negatives)
    sequences, labels, images = [], [], []
    for name in aim.responses:
        for row in data:
            prompt = prompt_inputs(tool, row["question"], row["image"]).ids
            answer = tool.tokenizer(row[name], add_special_tokens=False)["input_ids"] + [2]
            sequences.append(prompt + answer)
            labels.append([-100] * len(prompt) + answer)
            images.append(row["image"])
    length = max(map(len, sequences))
    ids = torch.stack([pad(torch.tensor(s), (0, length - len(s))) for s in sequences])
    told = torch.stack([pad(torch.tensor(t), (0, length - len(t)), value=-100) for t in labels])
    pixels = tool.image_processor(images=images, return_tensors="pt")["pixel_values"]
    tokens = (told != -100).sum(1).view(len(aim.responses), count).T

    def logprobs() -> LogProbs:
        logits = policy(
            input_ids=ids, attention_mask=(ids != 0).long(), pixel_values=pixels, use_cache=False
        ).logits[:, :-1]
        after = told[:, 1:]
        picked = logits.log_softmax(-1).gather(2, after.clamp_min(0).unsqueeze(2)).squeeze(2)
        sums = (picked * (after != -100)).sum(1)
        return LogProbs(sums.view(len(aim.responses), count).T, tokens, aim.responses)

    with torch.no_grad():
        reference = logprobs()
    optimizer = _optimizer(policy)

    def step() -> None:
        aim(logprobs(), reference).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def trl_step(count: int, negatives: int) -> Any:
    """`DPOTrainer` on a row for each pair; also a function that does its reference pass alone."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tool = processor()
    pairs = []
    for row in rows(count, negatives):
        prompt = tool.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": row["question"]}],
                }
            ],
            add_generation_prompt=True,
        )
        for name in names(negatives):
            texts = {"chosen": row["chosen"], "rejected": row[name]}
            told = {key: f"{text} </s>" for key, text in texts.items()}
            pairs.append({"prompt": f"<s> {prompt}", "images": [row["image"]], **told})
    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(pairs),
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        model(),
        ref_model=model().eval(),
        args=settings,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tool,
    )
    policy = trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    optimizer = _optimizer(policy)

    def step() -> None:
        trainer.compute_loss(policy, batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, lambda: trainer.compute_ref_log_probs(trainer.ref_model, batch)


def work(way: str, count: int, negatives: int, steps: int, threads: int) -> dict[str, Any]:
    """What a process measures: seconds of each step after one to warm up, and peak memory."""
    import torch

    torch.set_num_threads(threads)
    reference = None
    if way == "trl":
        step, reference = trl_step(count, negatives)
    elif way == "released":
        step = released_step(count, negatives)
    else:
        step = ours_step(count, negatives)
    step()
    result: dict[str, Any] = {"seconds": [_timed(step) for _ in range(steps)]}
    if reference:
        result["reference_seconds"] = _timed(reference)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def floor_seconds(count: int, negatives: int, threads: int) -> tuple[float, float]:
    """Seconds of the unavoidable matrix products of one of our steps, and the rate (flop/s).

    A weight costs 2 flop a token forward and 4 backward; the frozen tower 2. Attention counts the
    allowed pairs of positions only, the vocabulary projection the response tokens only.
    """
    import torch

    lengths = [
        [len(row[name].split()) + 1 for name in ("chosen", *names(negatives))]
        for row in rows(count, negatives)
    ]
    prompt = VISUAL + QUESTION + 3  # <s>, USER:, ASSISTANT:
    tokens = sum(prompt + sum(told) for told in lengths)
    answered = sum(map(sum, lengths))
    pairs = sum(
        prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in told) for told in lengths
    )
    layer = 4 * WIDTH**2 + 3 * WIDTH * FEED_FORWARD
    decoder = 6 * LAYERS * (layer * tokens + 2 * WIDTH * pairs)
    head = 6 * WIDTH * VOCABULARY * answered
    patches = count * (VISUAL + 1)
    tower = 4 * VISION_WIDTH**2 + 2 * VISION_WIDTH * VISION_FEED_FORWARD
    seeing = (
        2 * (VISION_LAYERS - 1) * (tower * patches + 2 * VISION_WIDTH * count * (VISUAL + 1) ** 2)
    )
    projector = 6 * (VISION_WIDTH * WIDTH + WIDTH**2) * count * VISUAL
    torch.set_num_threads(threads)
    square = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / min(_timed(lambda: square @ square) for _ in range(8))
    return (decoder + head + seeing + projector) / rate, rate


def generation(threads: int) -> dict[str, float]:
    """Responses a second of the tiny base model, together and one prompt at a time."""
    import torch

    from napo.config.profile import Decoding
    from napo.icon_world import base_model, questions, scenes
    from napo.models.generate import Prompt, generate
    from napo.models.load import load_model

    torch.set_num_threads(threads)
    policy, tool = load_model(base_model.CHECKPOINT)
    rng = np.random.default_rng(0)
    drawn = [scenes.sample(rng) for _ in range(256)]
    asked = [Prompt(questions.ask(rng, s, "color").text, scenes.draw(s, rng)) for s in drawn]
    rates = {}
    for size, prompts in ((64, asked), (1, asked[:64])):
        taken = _timed(
            lambda p=prompts, n=size: generate(policy, tool, p, Decoding(), batch_size=n)
        )
        rates[str(size)] = len(prompts) / taken
    return rates


def _run(way: str, count: int, negatives: int, steps: int, threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.engine", "--worker", way, "--rows", str(count)]
    command += ["--negatives", str(negatives), "--steps", str(steps), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"The measurement of {way} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """The three ways in turns: medians of all steps and of the peaks of memory."""
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            results[way].append(_run(way, 2, 3, steps, threads))
            print(f"round {number + 1} {way}: {results[way][-1]}", flush=True)
    table = {}
    for way, runs in results.items():
        table[way] = {
            "seconds": statistics.median(s for run in runs for s in run["seconds"]),
            "peak_mb": statistics.median(run["peak_mb"] for run in runs),
        }
        if way == "trl":
            spent = statistics.median(run["reference_seconds"] for run in runs)
            table[way]["reference_share"] = spent / table[way]["seconds"]
    return table


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", choices=WAYS)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if given.worker:
        print(
            json.dumps(work(given.worker, given.rows, given.negatives, given.steps, given.threads))
        )
        return
    table = compare(given.rounds, given.steps, given.threads)
    ours = table["ours"]
    floor, rate = floor_seconds(2, 3, given.threads)
    growth = {
        "negatives": {n: _run("ours", 2, n, 1, given.threads) for n in (2, 4, 8)},
        "rows": {n: _run("ours", n, 3, 1, given.threads) for n in (1, 4, 16)},
    }
    made = generation(given.threads)
    result = {
        "step": table,
        "floor": {"seconds": floor, "gflops": rate / 1e9},
        "growth": growth,
        "responses_per_second": made,
        "threads": given.threads,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{'':10}{'s/step':>9}{'peak MB':>10}{'speed of ours':>15}{'memory of ours':>16}")
    for way, numbers in table.items():
        faster = numbers["seconds"] / ours["seconds"]
        smaller = ours["peak_mb"] / numbers["peak_mb"]
        print(
            f"{way:10}{numbers['seconds']:9.2f}{numbers['peak_mb']:10.0f}{faster:14.1f}x{smaller:15.2f}x"
        )
    distance = ours["seconds"] / floor
    print(f"floor     {floor:9.2f}  ({rate / 1e9:.0f} Gflop/s; ours is {distance:.2f}x)")
    print(f"TRL's reference pass is {table['trl']['reference_share']:.0%} of its step.")
    for kind, cells in growth.items():
        told = ", ".join(
            f"{n}: {cell['seconds'][0]:.2f} s, {cell['peak_mb']:.0f} MB"
            for n, cell in cells.items()
        )
        print(f"ours by {kind}: {told}")
    print(f"generation: {made['64']:.0f} responses/s in batches of 64, {made['1']:.0f} one by one")
    print(f"wanted: {TARGETS}")


if __name__ == "__main__":
    main()
