"""What a chapter needs from earlier ones: load the artifact if it is there and fits, build it if not, and say so.

`RECBOOK_DATA` names the receipts (unset: the embedded shop; a path; or `online-retail`), `RECBOOK_HOME` the folder that
keeps artifacts (unset: the user's cache), `RECBOOK_SCALE` the size of the language model: `laptop` (unset), `colab` or
`full`. Receipts of another shop may need `RECBOOK_PRODUCT_CODE`, a regular expression of what its product codes look
like (unset: `receipts.PRODUCT_CODE`), and `RECBOOK_DATE_FORMAT`, how its dates are written, such as `%d/%m/%Y %H:%M`
(unset: found out from the dates).
"""

import hashlib
import inspect
import json
import os
import shutil
from dataclasses import asdict
from functools import lru_cache

import numpy as np
import pandas as pd

from recbook import evaluation, shop
from recbook import receipts as rc
from recbook.artifacts import artifact, digest, home
from recbook.embeddings import PACKAGED, WEIGHTS_SHA256, encode

EMBEDDED = "embedded shop"  # the name of the data where RECBOOK_DATA is unset
SEED = 0  # of the embedded shop that the book shows


def data_name() -> str:
    """`"embedded shop"`, or the path or name that RECBOOK_DATA gives."""
    return os.environ.get("RECBOOK_DATA") or EMBEDDED


def embedded() -> bool:
    """Whether the chapters run on the embedded shop, where the truth is known."""
    return data_name() == EMBEDDED


@lru_cache(maxsize=1)
def the_shop() -> shop.Shop:
    """The embedded shop of the book: receipts, true catalogue, shoppers. A few seconds, then kept in memory."""
    return shop.simulate(seed=SEED)


def raw_receipts() -> pd.DataFrame:
    """The raw receipts that the chapters run on: the embedded shop's, or those of RECBOOK_DATA."""
    return _raw(data_name(), _date_format())


def cleaned() -> rc.Cleaned:
    """The receipts that the chapters run on, cleaned: `.receipts`, `.removed`, `.audit`. Kept until they are others."""
    return _cleaned(data_name(), _date_format(), os.environ.get("RECBOOK_PRODUCT_CODE") or rc.PRODUCT_CODE)


@lru_cache(maxsize=1)
def _cleaned(name: str, date_format: str | None, product_code: str) -> rc.Cleaned:
    return rc.clean(_raw(name, date_format), product_code)


def _raw(name: str, date_format: str | None) -> pd.DataFrame:
    return the_shop().receipts.copy() if name == EMBEDDED else rc.load(name, date_format)


def _date_format() -> str | None:
    return os.environ.get("RECBOOK_DATE_FORMAT") or None


def embeddings(model: str = PACKAGED) -> tuple[np.ndarray, np.ndarray]:
    """The catalogue as vectors: codes (products,) str, sorted, and float32 unit rows (products, d) of their texts.

    Kept as an artifact; other descriptions, codes or another model are encoded anew. `model` as in `embeddings.encode`.
    """
    texts = rc.descriptions(cleaned().receipts)
    listed = hashlib.sha256(json.dumps(list(texts.items())).encode()).hexdigest()
    made_of = {"texts": listed, "model": model, "weights": WEIGHTS_SHA256 if model == PACKAGED else model, "format": 1}
    vectors = artifact(
        "embeddings",
        made_of,
        make=lambda folder: np.save(folder / "vectors.npy", encode(list(texts.values()), model), allow_pickle=False),
        load=lambda folder: np.load(folder / "vectors.npy", allow_pickle=False),
    )
    return np.array(list(texts), dtype=str), vectors


# --- The language model of Part II -------------------------------------------------------------------------------

WORDS = 2048  # tokens at most that are learned from the shop's text
# How the language model is trained at each scale: a minute or two on two cores, minutes on one T4, on one large GPU.
TRAINING = {
    "laptop": dict(steps=400, batch=32, warmup=40, evaluate_every=50, save_every=100),
    "colab": dict(steps=2000, batch=64, warmup=200, evaluate_every=200, save_every=200),
    "full": dict(steps=4000, batch=128, warmup=400, evaluate_every=200, save_every=400, compile=True),
}
SOME_BLOCKS = 128  # windows of the validation text that are looked at while training goes on


def model_scale() -> str:
    """The scale that RECBOOK_SCALE names; ValueError if there is none of that name."""
    name = os.environ.get("RECBOOK_SCALE") or "laptop"
    if name not in TRAINING:
        raise ValueError(f"RECBOOK_SCALE is {name!r}; the scales are {', '.join(TRAINING)}")
    return name


def known_receipts() -> pd.DataFrame:
    """The cleaned receipts before the cut: all that a model may learn from."""
    receipts = cleaned().receipts
    return receipts[receipts["date"] < evaluation.default_cut(receipts)]


def vocabulary():
    """The shop's `tokens.Vocabulary`: its text (GPT-2's at full scale), and a token for every product sold so far."""
    from recbook import documents, tokens

    receipts, gpt2 = known_receipts(), model_scale() == "full"
    made_of = {"receipts": rc.fingerprint(receipts), "gpt2": gpt2, "words": WORDS, "code": _code(documents, tokens)}

    def make(folder):
        ranks = tokens.gpt2_ranks() if gpt2 else tokens.learn(documents.texts(receipts), WORDS)
        tokens.Vocabulary(ranks, tuple(sorted(receipts["code"].unique()))).save(folder / "vocabulary.json")

    return artifact("vocabulary", made_of, make, load=lambda folder: tokens.Vocabulary.load(folder / "vocabulary.json"))


def token_files() -> tuple[np.ndarray, np.ndarray]:
    """What the language model reads, as memory-mapped ids: to learn from, (tokens,), and to be judged on, (tokens,).

    To learn from: cards, baskets and narratives of the receipts before the cut, shuffled. To be judged on: the baskets
    after it.
    """
    from recbook import documents
    from recbook import token_files as tf

    known, names = known_receipts(), vocabulary()
    later = cleaned().receipts.drop(known.index)
    receipts = [rc.fingerprint(known), rc.fingerprint(later)]
    made_of = {"receipts": receipts, "vocabulary": names.fingerprint, "code": _code(documents, tf)}

    def make(folder):
        kinds = (documents.cards, documents.baskets, documents.narratives)
        read = [document for kind in kinds for document in kind(known, names)]
        order = np.random.default_rng(SEED).permutation(len(read))
        tf.write(folder / "train.tokens", (read[place] for place in order), names)
        tf.write(folder / "validation.tokens", documents.baskets(later, names), names)

    def load(folder):
        return tf.read(folder / "train.tokens", names), tf.read(folder / "validation.tokens", names)

    return artifact("token files", made_of, make, load)


def language_model():
    """The GPT of the shop's scale, trained on its documents, in evaluation mode, and its metrics as it learned.

    Killed while it learns, it goes on where it was the next time. On the GPU where there is one.
    """
    import torch

    from recbook import checkpoints, gpt, losses, training
    from recbook import token_files as tf

    learn, judge = token_files()
    config = gpt.Config(len(vocabulary()), **gpt.PRESETS[model_scale()])
    settings = training.Settings(seed=SEED, **TRAINING[model_scale()])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made_of = {
        "text": [hashlib.sha256(np.ascontiguousarray(ids)).hexdigest() for ids in (learn, judge)],
        "config": asdict(config), "settings": asdict(settings),
        "code": _code(gpt, losses, training, tf),
    }  # fmt: skip

    def make(folder):
        run = home() / f"training-{digest(made_of)[:16]}"
        model = gpt.GPT(config, seed=SEED).to(device)
        data = tf.Windows(learn, config.context)
        some = tf.Windows(judge[: SOME_BLOCKS * config.context + 1], config.context)
        metrics = training.train(model, data, settings, run, validate=lambda m: training.validation_loss(m, some))
        checkpoints.save_model(model, folder)
        (folder / "metrics.json").write_text(json.dumps(metrics))
        shutil.rmtree(run)

    def load(folder):
        return checkpoints.load_model(folder).to(device).eval(), json.loads((folder / "metrics.json").read_text())

    return artifact("language model", made_of, make, load)


def _code(*modules) -> str:
    """A hash of the modules' source: what they make counts as made by them as they are."""
    return hashlib.sha256("".join(inspect.getsource(module) for module in modules).encode()).hexdigest()
