"""Tokens a second of `recbook.generation` beside `transformers.generate`, on the same weights, in the same run.

    python benchmarks/generation.py

writes results/generation.json, in about five minutes and 2 GB on two cores. `--quick` is a rehearsal of less than a
minute at laptop scale, which writes nothing.

Random weights: speed does not depend on what they say. Two sizes, laptop (4,096 tokens) and full (54,304: GPT-2's and
a few thousand products); one text at a time and 16; greedy, and sampling with every knob in use. Every text has a
prompt of 16 tokens and gets the same number of new ones; nothing stops either method before. The two take turns, round
by round; the median of the rounds counts. Greedy texts must be equal, row by row, but for ties within rounding.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from recbook.baselines.results import save_results
from recbook.generation import sampling
from recbook.generation.generate import generate
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT, to_transformers

SCALES = {"laptop": (4096, 96, 9), "full": (54_304, 48, 5)}  # preset -> vocabulary, new tokens a text, rounds
BATCHES, PROMPT, SEED, THREADS = (1, 16), 16, 0, 2
KNOBS = {"temperature": 0.8, "top_k": 50, "top_p": 0.95}
MODES = {"greedy": sampling.GREEDY, "sampling": sampling.Sampling(repetition=1.1, **KNOBS)}


def contestants(model: GPT, prompts: list[list[int]], mode: str, tokens: int) -> dict[str, Callable]:
    """Each method as a function that returns the new tokens of every row."""
    theirs, given = to_transformers(model), torch.tensor(prompts, device=model.device)
    knobs = {"do_sample": True, "repetition_penalty": 1.1, **KNOBS} if mode == "sampling" else {"do_sample": False}
    options = {"max_new_tokens": tokens, "pad_token_id": 0, **knobs}
    theirs.to(model.device).generation_config.eos_token_id = None

    def transformers() -> list[list[int]]:
        return theirs.generate(given, attention_mask=torch.ones_like(given), **options)[:, PROMPT:].tolist()

    return {
        "recbook": lambda: generate(model, prompts, tokens, MODES[mode]),
        "transformers": transformers,
    }


def in_turns(methods: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """The seconds of every round, after one that does not count."""
    seconds = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, run in methods.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def parted_in_earnest(model: GPT, prompt: list[int], ours: list[int], theirs: list[int]) -> bool:
    """Whether two greedy texts part where the model has a clear favourite, and not at a tie within rounding."""
    place = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
    if place is None:
        return False
    logits = model(torch.tensor([prompt + ours[:place]], device=model.device))[0, -1]
    return bool((logits[ours[place]] - logits[theirs[place]]).abs() > 1e-4)


def measure(scale: str, vocabulary: int, tokens: int, rounds: int) -> list[dict]:
    """All figures of one size of model."""
    config = GPTConfig(vocabulary, **GPT_PRESETS[scale])
    model, rng = GPT(config, seed=SEED).eval(), np.random.default_rng(SEED)
    rows = [{"scale": scale, "method": "both", "metric": "parameters", "value": config.parameters}]
    for batch in BATCHES:
        prompts = rng.integers(vocabulary, size=(batch, PROMPT)).tolist()
        for mode in MODES:
            methods = contestants(model, prompts, mode, tokens)
            kind = {"scale": scale, "mode": mode, "batch": batch}
            if mode == "greedy":
                pairs = list(zip(prompts, *(run() for run in methods.values()), strict=True))
                assert not any(parted_in_earnest(model, *pair) for pair in pairs), "greedy texts differ"
                equal = sum(ours == theirs for _, ours, theirs in pairs)
                rows.append({**kind, "method": "both", "metric": "equal_greedy_texts", "value": equal, "n": batch})
            seconds = in_turns(methods, rounds)
            for name, taken in seconds.items():
                low, high = (batch * tokens / quantile for quantile in np.quantile(taken, [0.75, 0.25]))
                value = batch * tokens / np.median(taken)
                row = {"method": name, "metric": "tokens_per_second", "value": value, "low": low, "high": high}
                rows.append({**kind, **row, "n": rounds})
            ratio = np.median(seconds["transformers"]) / np.median(seconds["recbook"])
            rows.append({**kind, "method": "recbook", "metric": "times_as_fast", "value": ratio, "n": rounds})
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rehearsal at laptop scale that writes nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    start, rows = time.perf_counter(), []
    for scale, (vocabulary, tokens, rounds) in SCALES.items():
        if not arguments.quick:
            rows += measure(scale, vocabulary, tokens, rounds)
        elif scale == "laptop":
            rows += measure(scale, vocabulary, 32, 3)
    print(pd.DataFrame(rows).round(2).astype(object).fillna("").to_string(index=False))
    if arguments.quick:
        return
    settings = json.dumps([SCALES, BATCHES, PROMPT, SEED, KNOBS])
    made = {"name": "random weights", "sha256": hashlib.sha256(settings.encode()).hexdigest(), "rows": sum(BATCHES)}
    seconds = time.perf_counter() - start
    path = save_results("generation", rows, command="python benchmarks/generation.py", data=made, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
