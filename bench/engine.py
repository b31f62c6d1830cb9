"""Time and memory of a training step: TRL's DPOTrainer, the released layout, liger, and ours.

    make bench            (python -m bench.engine)

A step has two rows with the paper's three pairs; `bench.workload` describes the model. Each
measurement is a process of its own, the implementations take turns, and the table shows medians.
liger and flash-pref have one turn only. All use Trainer's default optimiser, fused AdamW.

- trl: each pair is a row of `DPOTrainer`. TRL refuses cached reference log-probs for vision data,
  so its step contains the reference pass.
- released: the layout of the released code, four padded sequences a row with all their logits; the
  reference is cached.
- liger: the same sequences, `LigerFusedLinearDPOLoss` on their hidden states, without a reference.
- flash-pref: the released layout with the prefix shared in feed-forward layers; it shares attention
  in a CUDA kernel only. It runs transformers 4.51.
- ours: one shared-prefix sequence a row, logits at response positions; the reference is cached.

The floor is the time of the matrix products that no implementation can avoid, at the rate of a
large float32 product on the same machine. Writes data/bench/engine.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.anchors import (
    flash_pref_step,
    liger_step,
    released_step,
    save_batch,
    step_of,
    trl_step,
)
from bench.workload import (
    FEED_FORWARD,
    LAYERS,
    QUESTION,
    VISION_FEED_FORWARD,
    VISION_LAYERS,
    VISION_WIDTH,
    VISUAL,
    VOCABULARY,
    WIDTH,
    model,
    names,
    objective,
    processor,
    rows,
)

IMPLEMENTATIONS = ("trl", "released", "liger", "flash-pref", "ours")
# Packages that the lock does not hold, and their Python.
EXTRAS = {way: f"data/bench/{way}/bin/python" for way in ("liger", "flash-pref")}
OUT = Path("data/bench/engine.json")


def ours_step(count: int, negatives: int) -> Callable[[], None]:
    """A function that does one step."""
    import torch

    from napo.method.logprobs import collate, response_logprobs
    from napo.method.mask import choose_layout

    policy, tool = model(), processor()
    aim = objective(negatives)
    batch = collate(rows(count, negatives), tool, aim.responses, layout=choose_layout(policy))
    with torch.no_grad():
        reference = response_logprobs(policy, batch)
    return step_of(policy, lambda: aim(response_logprobs(policy, batch), reference).loss)


STEPS = {
    "released": released_step,
    "liger": liger_step,
    "flash-pref": flash_pref_step,
    "ours": ours_step,
}


def work(way: str, count: int, negatives: int, steps: int, threads: int) -> dict[str, Any]:
    """Seconds of each step, after one to warm up, and peak memory of this process."""
    import torch

    torch.set_num_threads(threads)
    reference = None
    if way == "trl":
        step, reference = trl_step(count, negatives)
    else:
        step = STEPS[way](count, negatives)
    step()
    result: dict[str, Any] = {"seconds": [seconds_of(step) for _ in range(steps)]}
    if reference:
        result["reference_seconds"] = seconds_of(reference)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def seconds_of(call: Any) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def floor_seconds(count: int, negatives: int, threads: int) -> tuple[float, float]:
    """Seconds of the unavoidable matrix products of a step, and the machine's rate (flop/s).

    A weight costs 2 flop a token forward and 4 backward; the frozen tower costs 2. Attention counts
    visible pairs of positions only, the vocabulary projection response tokens only.
    """
    import torch

    lengths = [
        [len(row[name].split()) + 1 for name in ("chosen", *names(negatives))]
        for row in rows(count, negatives)
    ]
    prompt = VISUAL + QUESTION + 3  # <s>, USER:, ASSISTANT:
    tokens = sum(prompt + sum(row) for row in lengths)
    response_tokens = sum(map(sum, lengths))
    pairs = sum(
        prompt**2 / 2 + sum(length * prompt + length**2 / 2 for length in row) for row in lengths
    )
    layer = 4 * WIDTH**2 + 3 * WIDTH * FEED_FORWARD
    decoder = 6 * LAYERS * (layer * tokens + 2 * WIDTH * pairs)
    head = 6 * WIDTH * VOCABULARY * response_tokens
    patches = count * (VISUAL + 1)
    tower = 4 * VISION_WIDTH**2 + 2 * VISION_WIDTH * VISION_FEED_FORWARD
    vision = (
        2 * (VISION_LAYERS - 1) * (tower * patches + 2 * VISION_WIDTH * count * (VISUAL + 1) ** 2)
    )
    projector = 6 * (VISION_WIDTH * WIDTH + WIDTH**2) * count * VISUAL
    torch.set_num_threads(threads)
    square = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / min(seconds_of(lambda: square @ square) for _ in range(8))
    return (decoder + head + vision + projector) / rate, rate


def generation(threads: int) -> dict[str, float]:
    """Responses a second.

    Of the icon world's base model, in batches of 64 and one by one. Of the model of the paper's
    shape, four tokens each, to eight questions about one image and about eight images.
    """
    import torch

    from napo.config.profile import Decoding
    from napo.icon_world import base_model, questions, scenes
    from napo.models.generate import Prompt, generate
    from napo.models.load import load_model

    torch.set_num_threads(threads)
    policy, tool = load_model(base_model.CHECKPOINT)
    rng = np.random.default_rng(0)
    drawn = [scenes.sample(rng) for _ in range(256)]
    every = [Prompt(questions.ask(rng, s, "color").text, scenes.draw(s, rng)) for s in drawn]
    rates = {}
    for size, prompts in ((64, every), (1, every[:64])):
        seconds = seconds_of(
            lambda p=prompts, n=size: generate(policy, tool, p, Decoding(), batch_size=n)
        )
        rates[str(size)] = len(prompts) / seconds
    policy, tool, data = model(), processor(), rows(8, 1)
    for name, images in (("one image", 1), ("eight images", 8)):
        prompts = [Prompt(row["question"], data[n % images]["image"]) for n, row in enumerate(data)]
        seconds = seconds_of(
            lambda p=prompts: generate(policy, tool, p, Decoding(max_new_tokens=4))
        )
        rates[name] = len(prompts) / seconds
    return rates


def measure(way: str, count: int, negatives: int, steps: int, threads: int) -> dict[str, Any]:
    """`work` in a process of its own; the `reason`, if a package of `EXTRAS` does not run."""
    python = EXTRAS.get(way) or sys.executable
    command = [python, "-m", "bench.engine", "--worker", way, "--rows", str(count)]
    command += ["--negatives", str(negatives), "--steps", str(steps), "--threads", str(threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return {"reason": f"there is no {python}; call make bench"}
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    if way not in EXTRAS:
        raise SystemExit(f"The measurement of {way} failed:\n{done.stderr[-2000:]}")
    return {"reason": done.stderr.splitlines()[-1]}


def compare(rounds: int, steps: int, threads: int) -> dict[str, Any]:
    """The implementations in turns: medians of all steps and of the memory peaks."""
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in IMPLEMENTATIONS}
    save_batch(2, 3)
    for number in range(rounds):
        for way in IMPLEMENTATIONS:
            if way in EXTRAS and number > 0:
                continue
            results[way].append(measure(way, 2, 3, steps, threads))
            print(f"round {number + 1} {way}: {results[way][-1]}", flush=True)
    table = {}
    for way, runs in results.items():
        if "reason" in runs[0]:
            table[way] = runs[0]
            continue
        table[way] = {
            "seconds": statistics.median(s for run in runs for s in run["seconds"]),
            "peak_mb": statistics.median(run["peak_mb"] for run in runs),
        }
        if way == "trl":
            reference = statistics.median(run["reference_seconds"] for run in runs)
            table[way]["reference_share"] = reference / table[way]["seconds"]
    return table


def main() -> None:
    """Measure everything and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", choices=IMPLEMENTATIONS)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--negatives", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    steps, threads = options.steps, options.threads
    if options.worker:
        result = work(options.worker, options.rows, options.negatives, steps, threads)
        print(json.dumps(result))
        return
    table = compare(options.rounds, steps, threads)
    ours = table["ours"]
    floor, rate = floor_seconds(2, 3, threads)
    growth = {
        "negatives": {n: measure("ours", 2, n, 1, threads) for n in (1, 2, 3)},
        "rows": {n: measure("ours", n, 3, 1, threads) for n in (1, 4, 16)},
    }
    rates = generation(threads)
    result = {
        "step": table,
        "floor": {"seconds": floor, "gflops": rate / 1e9},
        "growth": growth,
        "responses_per_second": rates,
        "threads": threads,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{'':10}{'s/step':>9}{'peak MB':>10}{'speed of ours':>15}{'memory of ours':>16}")
    for way, numbers in table.items():
        if "reason" in numbers:
            print(f"{way:10}does not run here: {numbers['reason']}")
            continue
        faster = numbers["seconds"] / ours["seconds"]
        smaller = ours["peak_mb"] / numbers["peak_mb"]
        print(
            f"{way:10}{numbers['seconds']:9.2f}{numbers['peak_mb']:10.0f}{faster:14.1f}x{smaller:15.2f}x"
        )
    distance = ours["seconds"] / floor
    print(f"floor     {floor:9.2f}  ({rate / 1e9:.0f} Gflop/s; ours is {distance:.2f}x)")
    print(f"TRL's reference pass is {table['trl']['reference_share']:.0%} of its step.")
    for kind, cells in growth.items():
        numbers = (
            f"{n}: {cell['seconds'][0]:.2f} s, {cell['peak_mb']:.0f} MB"
            for n, cell in cells.items()
        )
        print(f"ours by {kind}: {', '.join(numbers)}")
    batched, single = rates["64"], rates["1"]
    print(f"generation: {batched:.0f} responses/s in batches of 64, {single:.0f} one by one")
    shared, apart = rates["one image"], rates["eight images"]
    print(f"eight questions: {shared:.1f} responses/s about one image, {apart:.1f} about eight")


if __name__ == "__main__":
    main()
