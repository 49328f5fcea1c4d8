"""What does our training step gain over a plain GPT-2 loop, ingredient by ingredient, and how long to a given loss?

    python benchmarks/training.py

writes results/training.json in about ten minutes and 3 GB on two cores (do nothing else meanwhile): tokens a second and
utilisation at `laptop` size, interleaved with a plain loop of `transformers` and AdamW on the same batches; seconds to
the validation loss that the plain loop ends with; and steps of the `full` preset, with their peak memory.

    RECBOOK_SCALE=full python benchmarks/training.py --device cuda --steps 2000

trains `full` on a GPU instead, and writes results/training_cuda.json. `--quick` rehearses in a minute and writes
nothing.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from recbook.baselines.results import describe_data, save_results
from recbook.book import workshop
from recbook.gpt import model as gpt_model
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT, from_transformers, to_transformers
from recbook.tokens.files import TokenWindows
from recbook.training.config import TrainingConfig
from recbook.training.loop import train, validation_loss

SEED, BATCH = 0, 32
FULL_VOCABULARY = 54_304  # GPT-2's text tokens, the control tokens, some four thousand products; a multiple of 64
FULL_BATCH, FULL_PARTS = 8, 4  # windows a step, in parts
FULL_BOUND_GB = 4.0  # what a step of `full` may take at most, the whole process
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "T4": 65e12}  # dense bfloat16 (T4: float16), by the maker
STEPS = {"plain": 400, "AdamW": 200, "Muon": 120}  # of the race's arms: each is to stay below five minutes
PLAIN_RATE = 3e-3  # the better of 3e-3 and 6e-3 for the plain loop


def ours_settings(steps: int, **changed) -> TrainingConfig:
    """The settings of our arm: Muon where PyTorch has it."""
    rates = {"learning_rate": 0.02, "matrix_learning_rate": 0.04} if hasattr(torch.optim, "Muon") else {}
    plan = {"steps": steps, "batch": BATCH, "warmup": max(1, steps // 10), "seed": SEED} | rates
    return TrainingConfig(**(plan | changed))


# --- Steps, one ingredient at a time -----------------------------------------------------------------------------


def transformers_gpt2(config: GPTConfig):
    """GPT-2 of `transformers` in our shape, its dropout off like ours, in training mode."""
    return to_transformers(GPT(config, seed=SEED)).train()


def loss_of_logits(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean nats per target that is not -1, in float32."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1)


def attend_as_it_comes(query, key, value, mask, dropout):
    """Attention in whatever type autocast gives it."""
    return F.scaled_dot_product_attention(query, key, value, mask, dropout, mask is None)


def plain_loop(model, loss: Callable, bfloat16: bool = False, fused: bool | None = None, attend=None) -> Callable:
    """A training step as one would first write it: forward, backward, step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PLAIN_RATE, fused=fused)

    def steps(batches: list) -> None:
        with patch.object(gpt_model, "attend", attend) if attend else nullcontext():
            for tokens, targets in batches:
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    value = loss(model, tokens, targets)
                value.backward()
                optimizer.step()
                optimizer.zero_grad()

    return steps


class Given:
    """Batches as `train` takes its data."""

    def __init__(self, batches: list):
        self.batches = batches

    def batch(self, step: int, size: int, seed: int):
        """The batch that is given for this step."""
        return self.batches[step]


def our_step(config: GPTConfig, **changed) -> Callable:
    """The step of `train`, with all that it does."""
    model = GPT(config, seed=SEED)

    def steps(batches: list) -> None:
        settings = ours_settings(len(batches), **changed)
        train(model, Given(batches), settings, progress=False)

    return steps


def ladder(config: GPTConfig) -> dict[str, Callable]:
    """The plain loop first, our step last, one ingredient more on each rung between."""

    def theirs(model, tokens, targets):
        return loss_of_logits(model(tokens, use_cache=False).logits, targets)

    def whole_logits(model, tokens, targets):
        return loss_of_logits(model(tokens), targets)

    def fused_loss(model, tokens, targets):
        return model.loss(tokens, targets)

    def ours():
        return GPT(config, seed=SEED)

    adamw = {"learning_rate": PLAIN_RATE, "matrix_learning_rate": 0.0}
    return {
        "transformers, AdamW": plain_loop(transformers_gpt2(config), theirs),
        "transformers in bfloat16": plain_loop(transformers_gpt2(config), theirs, bfloat16=True),
        "our GPT, the same loop": plain_loop(ours(), whole_logits),
        "+ fused AdamW": plain_loop(ours(), whole_logits, fused=True),
        "+ bfloat16": plain_loop(ours(), whole_logits, True, True, attend_as_it_comes),
        "+ attention in float32": plain_loop(ours(), whole_logits, True, True),
        "+ loss without logits": plain_loop(ours(), fused_loss, True, True),
        "training.train, AdamW": our_step(config, **adamw),
        "training.train, Muon": our_step(config),
    }


def peak_operations(dtype: torch.dtype, size: int = 2048, times: int = 6) -> float:
    """The most operations a second that a large square product reaches here."""
    a, b = torch.randn(2, size, size).to(dtype).unbind(0)
    best = min(timed(lambda: a @ b) for _ in range(times))
    return 2 * size**3 / best


def timed(call: Callable) -> float:
    """The seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def steps_part(config: GPTConfig, data: TokenWindows, rounds: int, steps: int) -> list[dict]:
    """Tokens a second of every rung: the median of several rounds, in each of which all take their turn."""
    methods, seconds = ladder(config), {}
    peaks = {"float32": [], "bfloat16": []}
    for turn in range(rounds + 1):
        batches = [data.batch(turn * steps + step, BATCH, SEED) for step in range(steps)]
        for name, run in methods.items():
            taken = timed(lambda run=run, batches=batches: run(batches))
            if turn:  # the first round warms up
                seconds.setdefault(name, []).append(taken / steps)
        for name in peaks:
            peaks[name].append(peak_operations(getattr(torch, name)))
    best = {name: max(found) for name, found in peaks.items()}
    rows = [{"method": f"peak {name}", "metric": "operations a second", "value": value} for name, value in best.items()]
    for name, taken in seconds.items():
        speed = BATCH * config.context / np.array(taken)
        rows.append({"method": name, "metric": "tokens a second", "value": np.median(speed), "n": rounds,
                     "low": speed.min(), "high": speed.max()})  # fmt: skip
        used = np.median(speed) * config.flops_per_token
        rows.append({"method": name, "metric": "utilisation", "value": used / best["float32"]})
        rows.append({"method": name, "metric": "utilisation of the bfloat16 peak", "value": used / best["bfloat16"]})
    return rows


# --- The race to a loss ------------------------------------------------------------------------------------------


def plain_race(config: GPTConfig, data, judge, steps: int, every: int) -> list[tuple[int, float, float]]:
    """The plain loop, as (step, seconds of training, validation loss); looking at the loss stops the clock."""
    model = transformers_gpt2(config)
    run = plain_loop(model, lambda m, tokens, targets: loss_of_logits(m(tokens, use_cache=False).logits, targets))
    points, seconds = [], 0.0
    for first in range(0, steps, every):
        batches = [data.batch(step, BATCH, SEED) for step in range(first, first + every)]
        seconds += timed(lambda batches=batches: run(batches))
        loss = validation_loss(from_transformers(model), judge)["validation_loss"]
        points.append((first + every, seconds, loss))
    return points


def our_race(config: GPTConfig, data, judge, settings: TrainingConfig) -> list[tuple[int, float, float]]:
    """The same of `train`; its clock too stands still while the loss is looked at."""
    metrics = train(
        GPT(config, seed=SEED), data, settings,
        validate=lambda model: validation_loss(model, judge), progress=False,
    )  # fmt: skip
    seconds = np.cumsum([line["seconds"] for line in metrics])
    return [(line["step"], t, line["validation_loss"]) for line, t in zip(metrics, seconds, strict=True)]


def race_part(config: GPTConfig, data, judge, steps: dict[str, int], looks: int = 20) -> list[dict]:
    """All arms; the target is what the plain loop ends with, an arm's time its first look at or below that."""
    settings = {
        "AdamW": ours_settings(steps["AdamW"], learning_rate=3e-3, matrix_learning_rate=0.0,
                               evaluate_every=steps["AdamW"] // looks),
        "Muon": ours_settings(steps["Muon"], evaluate_every=steps["Muon"] // looks),
    }  # fmt: skip
    plain = "transformers, AdamW"
    arms = {plain: plain_race(config, data, judge, steps["plain"], steps["plain"] // looks)}
    arms |= {f"training.train, {name}": our_race(config, data, judge, plan) for name, plan in settings.items()}
    target = arms[plain][-1][2]
    rows = [{"method": plain, "metric": "target", "value": target}]
    for name, points in arms.items():
        for step, seconds, loss in points:
            rows.append({"method": name, "metric": "validation_loss", "step": step, "seconds": seconds, "value": loss})
        reached = [seconds for _, seconds, loss in points if loss <= target]
        if reached:
            rows.append({"method": name, "metric": "seconds to target", "value": reached[0]})
    return rows


# --- The full model ----------------------------------------------------------------------------------------------


def full_part(steps: int) -> list[dict]:
    """Steps of `full` on one batch, repeated, in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, "--full-steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`full` failed:\n{done.stderr[-2000:]}")
    rows = json.loads(done.stdout.splitlines()[-1])
    value = {row["metric"]: row["value"] for row in rows}
    losses = [row["value"] for row in rows if row["metric"] == "loss"]
    assert value["peak GB"] < FULL_BOUND_GB, f"{value['peak GB']:.1f} GB, more than the {FULL_BOUND_GB} GB stated"
    assert losses[-1] < losses[0], f"the loss on one repeated batch did not fall: {losses}"
    return rows


def full_steps(steps: int) -> list[dict]:
    """The rows of `full_part`, measured in this process."""
    import resource  # not on Windows

    config = GPTConfig(FULL_VOCABULARY, **GPT_PRESETS["full"])
    ids = torch.randint(
        0, config.vocabulary, (FULL_BATCH, config.context + 1), generator=torch.Generator().manual_seed(0)
    )
    data = Given([(ids[:, :-1], ids[:, 1:])] * steps)
    settings = TrainingConfig(
        steps=steps, batch=FULL_BATCH, accumulate=FULL_PARTS, learning_rate=1e-3, warmup=1, evaluate_every=1
    )
    metrics = train(GPT(config, seed=SEED), data, settings, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6 / 1.024)
    figures = {
        "parameters": config.parameters,
        "tokens a step": FULL_BATCH * config.context,
        "seconds a step": float(np.median([line["seconds"] for line in metrics[1:]])),
        "peak GB": peak,
        "bound GB": FULL_BOUND_GB,
    }
    rows = [{"method": "full", "metric": metric, "value": value} for metric, value in figures.items()]
    return rows + [{"method": "full", "metric": "loss", "step": m["step"], "value": m["loss"]} for m in metrics]


def full_on_gpu(steps: int, batch: int) -> list[dict]:
    """`full` trained on the shop's documents on a GPU: tokens a second, utilisation, the loss curve."""
    if workshop.model_scale() != "full":
        raise SystemExit("the full model reads GPT-2's vocabulary: set RECBOOK_SCALE=full")
    learn, judge = workshop.token_files()
    config = GPTConfig(len(workshop.vocabulary()), **GPT_PRESETS["full"])
    model, judged = GPT(config, seed=SEED).to("cuda"), TokenWindows(judge, config.context)
    settings = TrainingConfig(
        steps=steps, batch=batch, learning_rate=1e-3, matrix_learning_rate=0.02, warmup=steps // 10, compile=True,
        evaluate_every=max(1, steps // 20), save_every=steps, seed=SEED,
    )  # fmt: skip
    metrics = train(
        model, TokenWindows(learn, config.context), settings,
        validate=lambda m: validation_loss(m, judged),
    )  # fmt: skip
    speed = float(np.median([line["tokens_per_second"] for line in metrics[1:]]))
    name = torch.cuda.get_device_name()
    figures = {
        "parameters": config.parameters,
        "tokens a second": speed,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9,
    }
    stated = [peak for part, peak in PEAKS.items() if part in name]
    if stated:
        figures |= {"stated peak": stated[0], "utilisation": speed * config.flops_per_token / stated[0]}
    rows = [{"method": name, "metric": metric, "value": value} for metric, value in figures.items()]
    for line in metrics:
        for metric in ("loss", "validation_loss"):
            rows.append({"method": name, "metric": metric, "step": line["step"], "value": line[metric]})
    return rows


# --- All of it ---------------------------------------------------------------------------------------------------


@contextmanager
def announced(part: str):
    """Say that a part begins, and how long it took."""
    start = time.perf_counter()
    print(f"{part} …", flush=True)
    yield
    print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)


def on_cpu(quick: bool) -> list[dict]:
    """The three parts at `laptop` size and `full`."""
    learn, judge = workshop.token_files()
    config = GPTConfig(len(workshop.vocabulary()), **GPT_PRESETS["laptop"])
    data = TokenWindows(learn, config.context)
    judged = TokenWindows(judge[: (8 if quick else 128) * config.context + 1], config.context)
    parts = {
        "step": lambda: steps_part(config, data, *((1, 2) if quick else (7, 8))),
        "race": lambda: race_part(config, data, judged, dict.fromkeys(STEPS, 20) if quick else STEPS),
        "full": lambda: full_part(2 if quick else 6),
    }
    rows = []
    for name, measure in parts.items():
        with announced(name):
            rows += [{"part": name} | row for row in measure()]
    return rows


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, default=2000, help="of `full` on the GPU")
    parser.add_argument("--batch", type=int, default=64, help="windows a step of `full` on the GPU")
    parser.add_argument("--quick", action="store_true", help="rehearse with a few steps, write nothing")
    parser.add_argument("--full-steps", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.full_steps:
        print(json.dumps(full_steps(arguments.full_steps)))
        return
    start = time.perf_counter()
    if arguments.device == "cuda":
        name, options = "training_cuda", f" --device cuda --steps {arguments.steps} --batch {arguments.batch}"
        options += " (RECBOOK_SCALE=full)"
        rows = [{"part": "full"} | row for row in full_on_gpu(arguments.steps, arguments.batch)]
    else:
        name, options, rows = "training", "", on_cpu(arguments.quick)
    print(pd.DataFrame(rows).round(3).astype(object).fillna("").to_string(index=False))
    if arguments.quick:
        return
    data, command = (
        describe_data(workshop.raw_receipts(), workshop.data_name()),
        "python benchmarks/training.py",
    )
    seconds = time.perf_counter() - start
    path = save_results(name, rows, command=command + options, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
