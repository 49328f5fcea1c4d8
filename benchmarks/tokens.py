"""What a vocabulary costs and saves on a shop's documents: its own at several sizes beside GPT-2's, and the token file.

    python benchmarks/tokens.py --data online-retail

writes results/tokens_<name of the data>.json in under a minute and 0.7 GB. `--data`: what `RECBOOK_DATA` takes, or
`embedded`. `--quick` is a rehearsal on the embedded shop with two sizes, which writes nothing. GPT-2's vocabulary is
downloaded by tiktoken once, or found in TIKTOKEN_CACHE_DIR; without either its rows are missing, and nothing is
written.

Measured on all text of the cards, baskets and narratives (between control and product tokens): bytes a token, and the
share of words that are one token. On the descriptions, each product counted once: tokens a description. "before the
cut" learns from the receipts before `evaluation.default_cut` and reads descriptions that it has not seen. Last the
documents, written as token files by the vocabulary of 2,048 text tokens: tokens, bytes, seconds.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recbook.baselines import evaluation
from recbook.baselines.results import describe_data, save_results, slug
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.tokens import documents
from recbook.tokens.files import read_tokens, write_tokens
from recbook.tokens.vocabulary import Vocabulary, gpt2_ranks, learn_bpe

SIZES = (256, 512, 1024, 2048, 4096, 8192)
CHOSEN = 2048  # of the vocabulary that writes the token file
KINDS = {
    "cards": documents.product_cards,
    "baskets": documents.basket_documents,
    "narratives": documents.shopper_narratives,
}


def lengths(vocabulary: Vocabulary, texts: list[str]) -> np.ndarray:
    """Tokens in each text."""
    return np.array([len(vocabulary.encode(text)) for text in texts])


def described(clean: pd.DataFrame) -> dict[str, str]:
    """Each product's description as a document writes it, by code."""
    return {code: " " + documents.sentence_case(text) for code, text in receipts.descriptions(clean).items()}


def fit(method: str, ranks: dict[bytes, int], texts: pd.Series, descriptions: list[str]) -> list[dict]:
    """How well a vocabulary fits: `texts` counts how often each piece of text occurs."""
    vocabulary = Vocabulary(ranks)
    pieces = texts.index.tolist()
    sizes = np.array([len(text.encode()) for text in pieces])
    words = pd.Series([word for text in pieces for word in re.findall(r" ?[^\W\d_]+", text)])
    weights = np.repeat(texts.to_numpy(), [len(re.findall(r" ?[^\W\d_]+", text)) for text in pieces])
    whole = words.map({word: word.encode() in ranks for word in words.unique()})
    figures = {
        "text tokens": len(ranks),
        "tokens a description": lengths(vocabulary, descriptions).mean(),
        "bytes a token": (sizes @ texts.to_numpy()) / (lengths(vocabulary, pieces) @ texts.to_numpy()),
        "share of words in one token": np.average(whole, weights=weights),
    }
    return [{"method": method, "metric": metric, "value": float(value)} for metric, value in figures.items()]


def vocabularies(clean: pd.DataFrame, sizes: tuple[int, ...]) -> list[dict]:
    """Own vocabularies, all learned in one go, as each is the beginning of the next; and GPT-2's."""
    pieces = list(documents.document_texts(clean))
    start = time.perf_counter()
    learned = list(learn_bpe(pieces, max(sizes)))
    rows = [{"method": f"own {len(learned)}", "metric": "seconds to learn", "value": time.perf_counter() - start}]
    texts, descriptions = pd.Series(pieces).value_counts(), list(described(clean).values())
    for size in sorted({min(size, len(learned)) for size in sizes}):  # a shop may have fewer repetitions to merge
        rows += fit(f"own {size}", {token: rank for rank, token in enumerate(learned[:size])}, texts, descriptions)
    try:
        rows += fit("GPT-2", gpt2_ranks(), texts, descriptions)
    except OSError as error:
        print(f"GPT-2 is left out: {error}")
    return rows


def unseen(clean: pd.DataFrame) -> list[dict]:
    """Tokens a description of products first sold after the cut, by a vocabulary learned before it."""
    known = clean[clean["date"] < evaluation.default_cut(clean)]
    vocabulary = documents.build_vocabulary(known, CHOSEN)
    groups = {"known": [], "new": []}
    for code, text in described(clean).items():
        groups["known" if code in vocabulary.product else "new"].append(text)
    rows = []
    for group, texts in groups.items():
        rows.append({"method": "before the cut", "metric": f"{group} products", "value": len(texts)})
        if texts:
            mean = float(lengths(vocabulary, texts).mean())
            rows.append({"method": "before the cut", "metric": f"tokens a {group} description", "value": mean})
    return rows


def files(clean: pd.DataFrame) -> list[dict]:
    """Documents, tokens, bytes and seconds of a token file of each kind, and what products cost without their token."""
    vocabulary = documents.build_vocabulary(clean, CHOSEN)
    rows = [{"method": "vocabulary", "metric": "tokens", "value": len(vocabulary)}]
    with tempfile.TemporaryDirectory() as folder:
        for kind, write in KINDS.items():
            path, start = Path(folder) / kind, time.perf_counter()
            figures = {"tokens": write_tokens(path, write(clean, vocabulary), vocabulary)}
            figures["seconds"] = time.perf_counter() - start
            figures["bytes"] = path.stat().st_size
            ids = read_tokens(path, vocabulary)
            figures["documents"] = int((ids == vocabulary.control["<|end|>"]).sum())
            rows += [{"method": kind, "metric": metric, "value": value} for metric, value in figures.items()]
    spelled = {code: len(vocabulary.encode(text)) for code, text in described(clean).items()}
    lines = clean["code"].map(spelled)
    baskets = lines.groupby(clean["invoice"]).agg(["sum", "size"])
    rows.append({"method": "a basket", "metric": "tokens of its descriptions", "value": float(baskets["sum"].mean())})
    rows.append({"method": "a basket", "metric": "product tokens", "value": float(baskets["size"].mean())})
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    parser.add_argument("--quick", action="store_true", help="a rehearsal on the embedded shop; writes nothing")
    arguments = parser.parse_args()
    start = time.perf_counter()
    embedded = arguments.data == "embedded" or arguments.quick
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    clean = receipts.clean(raw).receipts
    rows = vocabularies(clean, SIZES[:2] if arguments.quick else SIZES) + unseen(clean) + files(clean)
    print(pd.DataFrame(rows).round(3).to_string(index=False))
    if arguments.quick or not any(row["method"] == "GPT-2" for row in rows):
        print("\nnothing is written")
        return
    name, seconds = slug(data["name"]), time.perf_counter() - start
    command = f"python benchmarks/tokens.py --data {'embedded' if embedded else name}"
    path = save_results(f"tokens_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
