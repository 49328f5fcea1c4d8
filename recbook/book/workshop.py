"""What a chapter needs from earlier ones: load the artifact if it is there and up to date, else build it, and say so.

`RECBOOK_DATA` names the receipts (unset: the embedded shop; a path; or `online-retail`), `RECBOOK_HOME` the folder that
keeps artifacts (unset: the user's cache), `RECBOOK_SCALE` the size of the language model: `laptop` (unset), `colab` or
`full`. Receipts of another shop may need `RECBOOK_PRODUCT_CODE`, a regular expression of what its product codes look
like (unset: `PRODUCT_CODE`), and `RECBOOK_DATE_FORMAT`, how its dates are written, such as `%d/%m/%Y %H:%M`
(unset: found out from the dates).
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbook.baselines import evaluation
from recbook.cleaning import receipts as rc
from recbook.cleaning import schema, shop
from recbook.cleaning.load import load_receipts
from recbook.embeddings.encoder import PACKAGED_MODEL, WEIGHTS_SHA256, encode
from recbook.freshness import fingerprint
from recbook.storage import alone, artifact, digest, discard, home

if TYPE_CHECKING:
    from recbook.baskets.model import BasketGPT
    from recbook.gpt.config import GPTConfig
    from recbook.gpt.model import GPT
    from recbook.narratives.fact_store import FactStore
    from recbook.system.recommender import Recommender
    from recbook.tokens.vocabulary import Vocabulary

EMBEDDED_SHOP = "embedded shop"  # the name of the data where RECBOOK_DATA is unset
SEED = 0  # of the embedded shop that the book shows


def data_name() -> str:
    """`"embedded shop"`, or the path or name that RECBOOK_DATA gives."""
    return os.environ.get("RECBOOK_DATA") or EMBEDDED_SHOP


def embedded() -> bool:
    """Whether the chapters run on the embedded shop, where the truth is known."""
    return data_name() == EMBEDDED_SHOP


@lru_cache
def _code(function: Callable) -> str:
    """The fingerprint of the code that one of these functions makes its artifact by: all that it reaches."""
    return fingerprint(f"{__name__}.{function.__name__}")


@lru_cache(maxsize=1)
def the_shop() -> shop.Shop:
    """The embedded shop of the book: receipts, true catalogue, shoppers. A few seconds, then kept in memory."""
    return shop.simulate(seed=SEED)


def raw_receipts() -> pd.DataFrame:
    """The raw receipts that the chapters run on: the embedded shop's, or those of RECBOOK_DATA."""
    return _raw(data_name(), _date_format())


def cleaned(before: pd.Timestamp | None = None) -> rc.Cleaned:
    """The receipts that the chapters run on, cleaned: `.receipts`, `.removed`, `.audit`. Cached in memory.

    `before`: as they could be cleaned at that moment.
    """
    return _cleaned(data_name(), _date_format(), os.environ.get("RECBOOK_PRODUCT_CODE") or rc.PRODUCT_CODE, before)


@lru_cache(maxsize=2)
def _cleaned(name: str, date_format: str | None, product_code: str, before: pd.Timestamp | None) -> rc.Cleaned:
    return rc.clean(_raw(name, date_format), product_code, before)


def _raw(name: str, date_format: str | None) -> pd.DataFrame:
    return the_shop().receipts.copy() if name == EMBEDDED_SHOP else load_receipts(name, date_format)


def _date_format() -> str | None:
    return os.environ.get("RECBOOK_DATE_FORMAT") or None


def embeddings(model: str = PACKAGED_MODEL) -> tuple[np.ndarray, np.ndarray]:
    """The catalogue as vectors: codes (products,) str, sorted, and float32 unit rows (products, d) of their texts.

    Kept as an artifact; other descriptions, codes or another model are encoded anew. `model` as in `encode`.
    """
    texts = rc.descriptions(cleaned().receipts)
    listed = hashlib.sha256(json.dumps(list(texts.items())).encode()).hexdigest()
    made_of = {
        "texts": listed,
        "model": model,
        "weights": WEIGHTS_SHA256 if model == PACKAGED_MODEL else model,
        "code": _code(embeddings),
    }
    vectors = artifact(
        "embeddings",
        made_of,
        make=lambda folder: np.save(folder / "vectors.npy", encode(list(texts.values()), model), allow_pickle=False),
        load=lambda folder: np.load(folder / "vectors.npy", allow_pickle=False),
    )
    return np.array(list(texts), dtype=str), vectors


# --- The language model of Part II -------------------------------------------------------------------------------

TEXT_TOKENS = 2048  # text tokens of the vocabulary, at most
# How the language model is trained at each scale: a minute on two cores, minutes on one T4, on one large GPU.
GPT_TRAINING = {
    "laptop": dict(steps=400, batch=32, warmup=40, evaluate_every=40, save_every=100),
    "colab": dict(steps=2000, batch=64, warmup=200, evaluate_every=100, save_every=200),
    "full": dict(steps=4000, batch=128, warmup=400, evaluate_every=200, save_every=400),
}
# The highest learning rates, with Muon for the matrices, and with AdamW alone where PyTorch has no Muon. The laptop's
# were chosen on validation; a wider model wants smaller ones, and those of the larger scales are guesses from there.
WITH_MUON = {
    "laptop": dict(learning_rate=0.02, matrix_learning_rate=0.04),
    "colab": dict(learning_rate=0.01, matrix_learning_rate=0.02),
    "full": dict(learning_rate=0.003, matrix_learning_rate=0.02),
}
WITHOUT_MUON = {"laptop": 3e-3, "colab": 1e-3, "full": 6e-4}
CARDS = 5  # repeats of each product card: a product has one card, and stands in hundreds of baskets
ANSWER_POSITIONS = 256  # positions for a request, the products found for it, and the answer
# The bases of Parts III and IV: how they train at laptop scale (the larger scales as above); how many copy-task lists
# or prompts, and answer fragments or single sentences, their corpora have; how often those repeat each product card.
ASSISTANT_BASE = dict(steps=750, batch=8, warmup=40, evaluate_every=250, save_every=250)
ASSISTANT_LISTS, ASSISTANT_FRAGMENTS, ASSISTANT_CARDS = 12_000, 1500, 3
NARRATOR_BASE = dict(steps=750, batch=8, warmup=40, evaluate_every=250, save_every=250)
NARRATOR_PROMPTS, NARRATOR_SENTENCES, NARRATOR_CARDS = 9000, 12_000, 2
REFERENCE_GOODS = 900  # catalogue size of these figures: lists, prompts and steps grow in proportion to a larger one
HELD_OUT = 0.2  # share of the products, and of the shoppers, that are held out from instructions and narratives
WATCHED_WINDOWS = 128  # windows of the validation text that are evaluated during training


def model_scale() -> str:
    """The scale that RECBOOK_SCALE names; ValueError for an unknown one."""
    name = os.environ.get("RECBOOK_SCALE") or "laptop"
    if name not in GPT_TRAINING:
        raise ValueError(f"RECBOOK_SCALE is {name!r}; the scales are {', '.join(GPT_TRAINING)}")
    return name


def known_receipts() -> pd.DataFrame:
    """The cleaned receipts before the cut: the training data of every model."""
    receipts = cleaned().receipts
    return receipts[receipts["date"] < evaluation.default_cut(receipts)]


def vocabulary() -> "Vocabulary":
    """The shop's `Vocabulary`: its text (GPT-2's at full scale), and a token for every product sold so far."""
    from recbook.tokens import documents
    from recbook.tokens.vocabulary import Vocabulary, gpt2_ranks

    receipts, gpt2 = known_receipts(), model_scale() == "full"
    made_of = {
        "receipts": schema.receipts_fingerprint(receipts),
        "gpt2": gpt2,
        "words": TEXT_TOKENS,
        "code": _code(vocabulary),
    }

    def make(folder: Path) -> None:
        if gpt2:
            names = Vocabulary(gpt2_ranks(), tuple(sorted(receipts["code"].unique())))
        else:
            names = documents.build_vocabulary(receipts, TEXT_TOKENS)
        names.save(folder / "vocabulary.json")

    return artifact("vocabulary", made_of, make, load=lambda folder: Vocabulary.load(folder / "vocabulary.json"))


def token_files() -> tuple[np.ndarray, np.ndarray]:
    """The language model's corpus as memory-mapped ids: training and validation text, (tokens,) each.

    Training: cards (repeated), baskets and narratives of the receipts before the cut. Validation: the baskets after it.
    """
    from recbook.tokens import documents
    from recbook.tokens.files import read_tokens, write_tokens

    known, names = known_receipts(), vocabulary()
    later = cleaned().receipts.drop(known.index)
    receipts = [schema.receipts_fingerprint(known), schema.receipts_fingerprint(later)]
    made_of = {
        "receipts": receipts,
        "vocabulary": names.fingerprint,
        "cards": CARDS,
        "code": _code(token_files),
    }

    def make(folder: Path) -> None:
        kinds = [documents.product_cards] * CARDS + [documents.basket_documents, documents.shopper_narratives]
        write_tokens(folder / "train.tokens", (document for kind in kinds for document in kind(known, names)), names)
        write_tokens(folder / "validation.tokens", documents.basket_documents(later, names), names)

    def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        return read_tokens(folder / "train.tokens", names), read_tokens(folder / "validation.tokens", names)

    return artifact("token files", made_of, make, load)


def language_model() -> "tuple[GPT, list[dict]]":
    """The GPT of the current scale, trained on the shop's documents, in evaluation mode, and its training metrics.

    Training that was killed resumes from its last checkpoint. It runs on the GPU where there is one.
    """
    from recbook.gpt.config import GPT_PRESETS, GPTConfig

    config = GPTConfig(len(vocabulary()), **GPT_PRESETS[model_scale()])
    return _trained("language model", token_files(), config, GPT_TRAINING[model_scale()])


def assistant_base() -> "tuple[GPT, list[dict]]":
    """The base that Part III teaches to answer: a GPT pre-trained on `lora.pretraining` too; its metrics.

    It has no validation text: its metrics are losses on the training text. Cached like `language_model`.
    """
    return _pretrained("assistant base", _assistant_corpus(), ASSISTANT_BASE)


def _pretrained(name: str, corpus: np.ndarray, plan: dict[str, int]) -> "tuple[GPT, list[dict]]":
    """A GPT with room for an answer, trained on the corpus; at laptop scale by the plan, longer for more products."""
    from recbook.gpt.config import GPT_PRESETS, GPTConfig

    sizes, how = dict(GPT_PRESETS[model_scale()]), GPT_TRAINING[model_scale()]
    sizes["context"] = max(ANSWER_POSITIONS, sizes["context"])
    if model_scale() == "laptop":
        how = plan | {"steps": plan["steps"] * _catalogue_scale(goods())}
    return _trained(name, (corpus,) * 2, GPTConfig(len(vocabulary()), **sizes), how)


def _assistant_corpus() -> np.ndarray:
    """The assistant's pre-training corpus, (tokens,): cards, narratives, copy-task lists, fragments of answers.

    The lists name all products; the fragments are not about those that are held out.
    """
    from recbook.lora import instructions, pretraining
    from recbook.tokens import documents
    from recbook.tokens.files import read_tokens, write_tokens

    known, names, table = known_receipts(), vocabulary(), goods()
    learned, _ = instructions.split_goods(table, HELD_OUT, SEED)
    lists = ASSISTANT_LISTS * _catalogue_scale(table)
    numbers = [ASSISTANT_CARDS, lists, ASSISTANT_FRAGMENTS, HELD_OUT]
    made_of = {
        "receipts": schema.receipts_fingerprint(known),
        "vocabulary": names.fingerprint,
        "numbers": numbers,
        "embedded": embedded(),
        "code": _code(_assistant_corpus),
    }

    def make(folder: Path) -> None:
        kinds = [documents.product_cards] * ASSISTANT_CARDS + [documents.shopper_narratives]
        corpus = [document for kind in kinds for document in kind(known, names)]
        lists_and_fragments = [
            *pretraining.copy_task_lists(table, lists, SEED),
            *pretraining.answer_fragments(learned, ASSISTANT_FRAGMENTS, SEED),
        ]
        corpus += [documents.encode_document(parts, names) for parts in lists_and_fragments]
        write_tokens(folder / "assistant.tokens", corpus, names)

    return artifact(
        "assistant's reading", made_of, make, load=lambda folder: read_tokens(folder / "assistant.tokens", names)
    )


def fact_store() -> "FactStore":
    """The `FactStore` of the receipts before the cut."""
    from recbook.narratives.fact_store import FactStore

    truth = the_shop().products if embedded() else None
    return FactStore(known_receipts(), evaluation.default_cut(cleaned().receipts), truth)


def narrator_base() -> "tuple[GPT, list[dict]]":
    """The base that Chapter 14 teaches to explain: a GPT pre-trained on `narratives.pretraining`; its metrics.

    It has no validation text: its metrics are losses on the training text. Cached like `language_model`.
    """
    return _pretrained("narrator base", _narrator_corpus(), NARRATOR_BASE)


def _narrator_corpus() -> np.ndarray:
    """The narrator's pre-training corpus, (tokens,): cards, copy-task prompts of invented facts, single sentences.

    The prompts name all products, so that all names are read; no sentence is about those that are held out.
    """
    from recbook.narratives import pretraining
    from recbook.narratives.fact_store import split_facts
    from recbook.tokens.files import read_tokens, write_tokens

    known, names, larger = known_receipts(), vocabulary(), _catalogue_scale(goods())
    made_of = {
        "receipts": schema.receipts_fingerprint(known),
        "vocabulary": names.fingerprint,
        "embedded": embedded(),
        "numbers": [NARRATOR_CARDS, NARRATOR_PROMPTS * larger, NARRATOR_SENTENCES, HELD_OUT],
        "code": _code(_narrator_corpus),
    }

    def make(folder: Path) -> None:
        facts, numbers = fact_store(), (NARRATOR_CARDS, NARRATOR_PROMPTS * larger, NARRATOR_SENTENCES)
        train, _ = split_facts(facts, HELD_OUT, SEED)
        corpus = pretraining.pretraining_corpus(known, facts, names, numbers, SEED, train.products)
        write_tokens(folder / "narrator.tokens", corpus, names)

    def load(folder: Path) -> np.ndarray:
        return read_tokens(folder / "narrator.tokens", names)

    return artifact("narrator's reading", made_of, make, load)


def _catalogue_scale(table: pd.DataFrame) -> int:
    return max(1, round(len(table) / REFERENCE_GOODS))


def _trained(
    name: str, files: tuple[np.ndarray, np.ndarray], config: "GPTConfig", how: dict[str, Any]
) -> "tuple[GPT, list[dict]]":
    """A GPT trained on the first of two token streams and validated on the second, and its metrics; an artifact."""
    import torch

    from recbook.gpt.model import GPT
    from recbook.tokens.files import TokenWindows
    from recbook.training import checkpoints
    from recbook.training.config import TrainingConfig
    from recbook.training.distributed import available_device
    from recbook.training.loop import train, validation_loss

    (learn, judge), scale = files, model_scale()
    device = available_device()
    how = how | (WITH_MUON[scale] if hasattr(torch.optim, "Muon") else {"learning_rate": WITHOUT_MUON[scale]})
    compiled = scale == "full" and device.type == "cuda" and find_spec("triton") is not None
    settings = TrainingConfig(seed=SEED, compile=compiled, **how)
    made_of = {
        "text": [hashlib.sha256(np.ascontiguousarray(ids).data).hexdigest() for ids in (learn, judge)],
        "config": asdict(config),
        "settings": asdict(settings),
        "code": _code(_trained),
    }
    run = home() / f"training-{digest(made_of)[:16]}"

    def make(folder: Path) -> None:
        model = GPT(config, seed=SEED).to(device)
        data = TokenWindows(learn, config.context)
        some = TokenWindows(judge[: WATCHED_WINDOWS * config.context + 1], config.context)
        with alone(run):  # so that nobody takes the checkpoints of a running training for left-overs
            metrics = train(model, data, settings, run, validate=lambda m: validation_loss(m, some))
        checkpoints.save_gpt(model, folder / "model")
        (folder / "metrics.json").write_text(json.dumps(metrics))

    def load(folder: Path) -> "tuple[GPT, list[dict]]":
        model = checkpoints.load_gpt(folder / "model").to(device).eval()
        return model, json.loads((folder / "metrics.json").read_text())

    kept = artifact(name, made_of, make, load)
    discard(run)  # only now: the artifact is complete
    return kept


def goods() -> pd.DataFrame:
    """The products as `instructions.goods_table`: the embedded shop's by the truth, others' by their descriptions."""
    from recbook.lora import instructions

    return instructions.goods_table(known_receipts(), the_shop().products if embedded() else None)


def basket_gpt(split: evaluation.Split | None = None) -> "BasketGPT":
    """The `BasketGPT` of a split (by default the default cut's): fitted on the receipts before the cut."""
    from recbook.baskets.model import BasketGPT
    from recbook.baskets.network import BasketGPTConfig

    if split is None:
        receipts = cleaned().receipts
        split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
    settings = BasketGPTConfig()
    made_of = {
        "receipts": schema.receipts_fingerprint(split.receipts),
        "settings": asdict(settings) | {"parts": sorted(settings.parts)},
        "encoder": WEIGHTS_SHA256,
        "code": _code(basket_gpt),
    }
    return artifact(
        "basket model",
        made_of,
        make=lambda folder: BasketGPT.fit(split.receipts, settings).save(folder / "model"),
        load=lambda folder: BasketGPT.load(folder / "model"),
    )


def student(split: evaluation.Split | None = None) -> "BasketGPT":
    """The distilled `BasketGPT` of a split (by default the default cut's), at most a quarter of its teacher's size.

    The teacher is the blend of LambdaRank and `basket_gpt`; it labels histories without their last baskets.
    """
    from recbook.baskets.model import BasketGPT
    from recbook.distillation.student import STUDENT_CONFIG
    from recbook.system.build import RecommenderConfig, fit_lambdarank, fit_student

    if split is None:
        receipts = cleaned().receipts
        split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
    model, sizes = basket_gpt(split), STUDENT_CONFIG
    made_of = {
        "receipts": schema.receipts_fingerprint(split.receipts),
        "encoder": WEIGHTS_SHA256,
        "code": _code(student),
        "settings": asdict(sizes) | {"parts": sorted(sizes.parts)},
    }

    def make(folder: Path) -> None:
        vectors = pd.DataFrame(encode(list(rc.descriptions(split.receipts).values())), index=split.codes)
        ranker = fit_lambdarank(split.receipts, vectors, RecommenderConfig())
        fit_student(split, model, ranker, vectors, sizes).save(folder / "model")

    return artifact("student", made_of, make, load=lambda folder: BasketGPT.load(folder / "model"))


def recommender() -> "Recommender":
    """The whole `Recommender` of the receipts that the chapters run on, as of the day after the last."""
    from recbook.system.build import RecommenderConfig
    from recbook.system.recommender import Recommender

    settings, product_code = RecommenderConfig(), os.environ.get("RECBOOK_PRODUCT_CODE") or rc.PRODUCT_CODE
    made_of = {
        "receipts": schema.receipts_fingerprint(cleaned().receipts),
        "encoder": WEIGHTS_SHA256,
        "code": _code(recommender),
        "settings": settings.to_dict(),
    }

    def make(folder: Path) -> None:
        Recommender.build(raw_receipts(), settings, product_code).save(folder / "shop")

    return artifact("recommender", made_of, make, load=lambda folder: Recommender.load(folder / "shop"))
