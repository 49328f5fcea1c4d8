"""A recommender on disk: one folder, written whole or not at all; loading verifies its checksums and versions first.

The folder holds the receipts as parquet, the networks as safetensors, the trees as LightGBM's text, all else as JSON
and numpy arrays. Nothing in it is unpickled.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook import storage
from recbook.baskets.model import BasketGPT
from recbook.cleaning import schema
from recbook.embeddings.encoder import WEIGHTS_SHA256
from recbook.narratives.narrator import Narrator
from recbook.ranking.lambdarank import LambdaRank
from recbook.system.build import RecommenderConfig

RECOMMENDER_KIND, RECOMMENDER_FORMAT = "recommender", 1  # in the manifest of a saved recommender
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
        "kind": RECOMMENDER_KIND,
        "format": RECOMMENDER_FORMAT,
        "encoder": WEIGHTS_SHA256,
        "settings": parts.settings.to_dict(),
    }
    made_of["receipts"] = schema.receipts_fingerprint(parts.receipts)

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

    storage.replace(check_place(folder), write, made_of)


def load_recommender(folder: str | Path) -> RecommenderParts:
    """The parts that `save_recommender` wrote. ValueError says what is missing, damaged or of another version."""
    folder = Path(folder)
    made_of = storage.verified(folder)
    if (
        made_of.get("kind") != RECOMMENDER_KIND
        or made_of.get("format") != RECOMMENDER_FORMAT
        or made_of.get("encoder") != WEIGHTS_SHA256
    ):
        raise ValueError(f"{folder} holds no recommender of this version of recbook: build it anew")
    try:
        receipts = pd.read_parquet(folder / RECEIPTS_FILE)
        listed = json.loads((folder / PRODUCTS_FILE).read_text(encoding="utf-8"))
        vectors = pd.DataFrame(np.load(folder / VECTORS_FILE, allow_pickle=False), index=listed["codes"])
        unsold = pd.DataFrame(listed["unsold"], columns=["code", "description", "price"]).set_index("code")
        settings, counted = RecommenderConfig.from_dict(made_of["settings"]), made_of["receipts"]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{folder} holds a recommender that cannot be read ({error}): build it anew") from error
    if schema.receipts_fingerprint(receipts) != counted:
        raise ValueError(f"the receipts in {folder} are not those that the recommender was built of: build it anew")
    return RecommenderParts(
        receipts=receipts,
        model=BasketGPT.load(folder / BASKET_GPT_FOLDER),
        ranker=LambdaRank.load(folder / RANKER_FOLDER),
        student=BasketGPT.load(folder / STUDENT_FOLDER),
        narrator=Narrator.load(folder / NARRATOR_FOLDER),
        vectors=vectors,
        settings=settings,
        unsold=unsold,
    )


def check_place(folder: str | Path) -> Path:
    """The folder, links resolved, if a recommender may be saved there: it is missing or empty, or holds just one.

    ValueError if anything else would be overwritten.
    """
    folder = Path(folder).resolve()
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return folder
    try:
        manifest = storage.manifest(folder)
        ours = {storage.MANIFEST, *manifest["files"]} if manifest["made_of"].get("kind") == RECOMMENDER_KIND else set()
    except ValueError:  # there is no manifest, or it is not a recommender's
        ours = set()
    others = [] if folder.is_file() else [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    if not ours or set(others) - ours:
        found = f"and holds {min(set(others) - ours)}" if others else "and is no folder"
        raise ValueError(f"{folder} is there {found}: name another folder, nothing is overwritten")
    return folder
