"""What the shop's language model learns: size, tokens, validation loss beside counting, and how true its cards are.

    python benchmarks/language_model.py --data online-retail

writes results/language_model_<name of the data>.json in about five minutes and 2 GB on two cores:
`workshop.language_model` is trained on the receipts before the cut, and judged on the baskets after it. `--data`: what
`RECBOOK_DATA` takes, or `embedded`.
"""

import argparse
import os
import time

import numpy as np
import pandas as pd

from recbook import storage
from recbook.baselines.results import describe_data, save_results, slug
from recbook.book import workshop
from recbook.generation import sampling as generation_sampling
from recbook.generation.generate import Trie, generate
from recbook.tokens import documents
from recbook.tokens.files import TokenWindows
from recbook.training.loop import validation_loss

CARDS, SEED = 200, 0


def counting(learn: np.ndarray, judge: np.ndarray, vocabulary: int) -> list[dict]:
    """Cross-entropy in nats a token of counting single tokens, and pairs, each smoothed as best suits the judged text.

    An honest bar must not lose by its smoothing, so the smoothing is chosen on what is judged, for the counts alone.
    """
    singles = np.bincount(learn, minlength=vocabulary).astype(float)
    single = (singles + 1) / (singles + 1).sum()
    pairs = learn[:-1].astype(np.int64) * vocabulary + learn[1:]
    kinds, counts = np.unique(pairs, return_counts=True)
    asked = judge[:-1].astype(np.int64) * vocabulary + judge[1:]
    place = np.minimum(np.searchsorted(kinds, asked), len(kinds) - 1)
    seen = np.where(kinds[place] == asked, counts[place], 0)
    first, backed = singles[judge[:-1]], single[judge[1:]]
    losses = [-np.log((seen + weight * backed) / (first + weight)).mean() for weight in (1, 3, 10, 30, 100)]
    return [
        {"method": "counts of tokens", "metric": "validation_loss", "value": float(-np.log(backed).mean())},
        {"method": "counts of pairs", "metric": "validation_loss", "value": float(min(losses))},
    ]


def trained(model, metrics: list[dict], learn: np.ndarray, judge: np.ndarray, names, seconds: float) -> list[dict]:
    """The model's size, its loss on all of the judged text, and the loss as it learned."""
    windows = TokenWindows(judge, model.config.context)
    figures = {
        "vocabulary": len(names),
        "parameters": model.config.parameters,
        "tokens_to_learn_from": len(learn),
        "tokens_to_judge_on": len(judge),
        "training_seconds": seconds,
        "validation_loss": validation_loss(model, windows)["validation_loss"],
    }
    rows = [{"method": "GPT", "metric": name, "value": value} for name, value in figures.items()]
    curve = [{"step": line["step"], "value": line["validation_loss"]} for line in metrics]
    return rows + [{"method": "GPT", "metric": "validation_loss on some blocks", **point} for point in curve]


def truth_of_cards(model, names, known: pd.DataFrame) -> list[dict]:
    """Of cards that the model writes freely: how many are, word for word, the card of the product that they bear.

    And how many of those held to a trie of all cards: all of them, by construction, which is what the trie is for.
    """
    end, product = names.control["<|end|>"], names.control["<|product|>"]
    cards = [card[1:] for card in documents.product_cards(known, names)]  # without the token that opens it
    real, sampling = set(map(tuple, cards)), generation_sampling.Sampling(temperature=0.6, top_p=0.9)
    longest = min(max(map(len, cards)) + 1, model.config.context - 2)
    rows = []
    for method, constraint in (("free", None), ("held to a trie", Trie(cards, end))):
        prompts = [[end, product]] * CARDS
        texts = generate(model, prompts, longest, sampling, stop=[end], seed=SEED, constraint=constraint)
        figures = {
            "share of true cards": np.mean([tuple(text) in real for text in texts]),
            "different cards": len(set(map(tuple, texts))),
        }
        rows += [{"method": method, "metric": name, "value": float(v), "n": CARDS} for name, v in figures.items()]
    return rows


def main() -> None:
    """Train, measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    arguments = parser.parse_args()
    embedded = arguments.data == "embedded"
    if not embedded:
        os.environ["RECBOOK_DATA"] = arguments.data
    start = time.perf_counter()
    data = describe_data(workshop.raw_receipts(), "embedded shop" if embedded else arguments.data)
    learn, judge = workshop.token_files()
    names, begun = workshop.vocabulary(), time.perf_counter()
    model, metrics = workshop.language_model()
    taken = sum(line["seconds"] for line in metrics) or time.perf_counter() - begun
    rows = trained(model, metrics, learn, judge, names, taken)
    rows += counting(np.asarray(learn), np.asarray(judge), len(names))
    rows += truth_of_cards(model, names, workshop.known_receipts())
    print(pd.DataFrame(rows).round(3).astype(object).fillna("").to_string(index=False))
    name = slug(data["name"])
    command = f"python benchmarks/language_model.py --data {'embedded' if embedded else name}"
    seconds = time.perf_counter() - start
    path = save_results(f"language_model_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds; artifacts are kept in {storage.home()}")


if __name__ == "__main__":
    main()
