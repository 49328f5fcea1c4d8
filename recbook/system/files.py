"""A recommender on disk: one folder, written whole or not at all; loading verifies its checksums and versions first.

The folder holds the receipts as parquet, the networks as safetensors, the trees as LightGBM's text, all else as JSON
and numpy arrays. It is its owner's alone, for it holds the customers' purchases. Nothing in it is unpickled; but
whoever can write a folder can write its checksums too, and LightGBM's parser is not made for trees of strangers: load
your own.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbook import storage
from recbook.baskets.model import BasketGPT
from recbook.cleaning import schema
from recbook.embeddings.encoder import WEIGHTS_SHA256
from recbook.narratives.narrator import Narrator
from recbook.ranking.lambdarank import LambdaRank
from recbook.system.build import RecommenderConfig

RECOMMENDER_KIND, RECOMMENDER_FORMAT = "recommender", 2  # in the manifest of a saved recommender
RECEIPTS_FILE, PRODUCTS_FILE, VECTORS_FILE = "receipts.parquet", "products.json", "vectors.npy"
BASKET_GPT_FOLDER, RANKER_FOLDER, STUDENT_FOLDER, NARRATOR_FOLDER = "baskets", "ranker", "student", "narrator"


class RecommenderParts(NamedTuple):
    """The parts of a recommender, named like `Recommender`'s arguments."""

    receipts: pd.DataFrame
    model: BasketGPT
    ranker: LambdaRank
    student: BasketGPT
    narrator: Narrator
    vectors: pd.DataFrame
    settings: RecommenderConfig
    unsold: pd.DataFrame


def save_recommender(parts: RecommenderParts, folder: str | Path) -> None:
    """Save the parts in a folder, whole or not at all. ValueError if the folder holds anything but a recommender."""
    made_of = {
        "format": RECOMMENDER_FORMAT,
        "encoder": WEIGHTS_SHA256,
        "settings": parts.settings.to_dict(),
        "receipts": schema.receipts_fingerprint(parts.receipts),
    }

    def write(fresh: Path) -> None:
        parts.receipts.to_parquet(fresh / RECEIPTS_FILE, index=False)
        np.save(fresh / VECTORS_FILE, parts.vectors.to_numpy(), allow_pickle=False)
        unsold = parts.unsold.reset_index(names="code").to_dict("records")
        listed = {"codes": list(parts.vectors.index), "unsold": unsold}
        (fresh / PRODUCTS_FILE).write_text(json.dumps(listed), encoding="utf-8")
        parts.model.save(fresh / BASKET_GPT_FOLDER)
        parts.ranker.save(fresh / RANKER_FOLDER)
        parts.student.save(fresh / STUDENT_FOLDER)
        parts.narrator.save(fresh / NARRATOR_FOLDER)

    storage.save_folder(folder, RECOMMENDER_KIND, write, made_of, private=True)


def load_recommender(folder: str | Path) -> RecommenderParts:
    """The parts that `save_recommender` wrote. ValueError says what is missing, damaged or of another version."""
    with storage.readable(folder, "a recommender", "build it anew"):
        return storage.load_folder(folder, _read, RECOMMENDER_KIND)


def _read(folder: Path, made_of: dict[str, Any]) -> RecommenderParts:
    if made_of.get("format") != RECOMMENDER_FORMAT or made_of.get("encoder") != WEIGHTS_SHA256:
        raise ValueError("it is of another version of recbook")
    receipts = pd.read_parquet(folder / RECEIPTS_FILE)
    if schema.receipts_fingerprint(receipts) != made_of["receipts"]:
        raise ValueError("its receipts are not those that it was built of")
    listed = storage.read_json(folder / PRODUCTS_FILE)
    vectors = np.load(folder / VECTORS_FILE, mmap_mode="r", allow_pickle=False)  # a false size is an error, no memory
    return RecommenderParts(
        receipts=receipts,
        model=BasketGPT.load(folder / BASKET_GPT_FOLDER),
        ranker=LambdaRank.load(folder / RANKER_FOLDER),
        student=BasketGPT.load(folder / STUDENT_FOLDER),
        narrator=Narrator.load(folder / NARRATOR_FOLDER),
        vectors=pd.DataFrame(np.array(vectors), index=listed["codes"]),
        settings=RecommenderConfig.from_dict(made_of["settings"]),
        unsold=pd.DataFrame(listed["unsold"], columns=["code", "description", "price"]).set_index("code"),
    )


def check_recommender_place(folder: str | Path) -> Path:
    """See `storage.check_place`: the folder, if a recommender may be saved there."""
    return storage.check_place(folder, RECOMMENDER_KIND)
