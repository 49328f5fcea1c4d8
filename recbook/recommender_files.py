"""A recommender on disk: one folder, written whole or not at all, whose checksums and versions are read before it is.

The folder holds the receipts as parquet, the networks as safetensors, the trees as LightGBM's text, all else as JSON
and numpy arrays: nothing in it is ever unpickled.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbook import artifacts
from recbook import receipts as rc
from recbook.baskets import BasketGPT
from recbook.embeddings import WEIGHTS_SHA256
from recbook.learned import LearnedRanker
from recbook.narrator import Narrator
from recbook.stages import Settings

if TYPE_CHECKING:
    from recbook.recommender import Recommender

KIND, FORMAT = "recommender", 1  # of a saved one
RECEIPTS, LISTED, VECTORS = "receipts.parquet", "products.json", "vectors.npy"
BASKETS, RANKER, STUDENT, NARRATOR = "baskets", "ranker", "student", "narrator"


def save(recommender: "Recommender", folder: str | Path) -> None:
    """See `Recommender.save`."""
    made_of = {"kind": KIND, "format": FORMAT, "encoder": WEIGHTS_SHA256, "settings": recommender.settings.numbers()}
    made_of["receipts"] = rc.fingerprint(recommender.receipts)

    def write(fresh: Path) -> None:
        recommender.receipts.to_parquet(fresh / RECEIPTS, index=False)
        np.save(fresh / VECTORS, recommender.vectors.to_numpy(), allow_pickle=False)
        unsold = recommender.unsold.reset_index(names="code").to_dict("records")
        listed = {"codes": list(recommender.vectors.index), "unsold": unsold}
        (fresh / LISTED).write_text(json.dumps(listed), encoding="utf-8")
        recommender.shelf.model.save(fresh / BASKETS)
        recommender.shelf.ranker.save(fresh / RANKER)
        recommender.shelf.student.save(fresh / STUDENT)
        recommender.narrator.save(fresh / NARRATOR)

    artifacts.replace(check_place(folder), write, made_of)


def load(folder: str | Path) -> dict[str, Any]:
    """What `Recommender` is made of, by the names of its arguments. ValueError: see `Recommender.load`."""
    folder = Path(folder)
    made_of = artifacts.verified(folder)
    if made_of.get("kind") != KIND or made_of.get("format") != FORMAT or made_of.get("encoder") != WEIGHTS_SHA256:
        raise ValueError(f"{folder} holds no recommender of this version of recbook: build it anew")
    try:
        receipts = pd.read_parquet(folder / RECEIPTS)
        listed = json.loads((folder / LISTED).read_text(encoding="utf-8"))
        vectors = pd.DataFrame(np.load(folder / VECTORS, allow_pickle=False), index=listed["codes"])
        unsold = pd.DataFrame(listed["unsold"], columns=["code", "description", "price"]).set_index("code")
        settings, counted = Settings.restored(made_of["settings"]), made_of["receipts"]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{folder} holds a recommender that cannot be read ({error}): build it anew") from error
    if rc.fingerprint(receipts) != counted:
        raise ValueError(f"the receipts in {folder} are not those that the recommender was built of: build it anew")
    networks = {"model": BasketGPT.load(folder / BASKETS), "student": BasketGPT.load(folder / STUDENT)}
    others = {"ranker": LearnedRanker.load(folder / RANKER), "narrator": Narrator.load(folder / NARRATOR)}
    known = {"receipts": receipts, "vectors": vectors, "settings": settings, "unsold": unsold}
    return known | networks | others


def check_place(folder: str | Path) -> Path:
    """The folder, links followed, if a recommender may be kept there: it is not there, is empty, or holds just one.

    ValueError if anything else would be lost.
    """
    folder = Path(folder).resolve()
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return folder
    try:
        said = artifacts.manifest(folder)
        ours = {artifacts.MANIFEST, *said["files"]} if said["made_of"].get("kind") == KIND else set()
    except ValueError:  # there is no manifest, or it is none of ours
        ours = set()
    others = [] if folder.is_file() else [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    if not ours or set(others) - ours:
        found = f"and holds {min(set(others) - ours)}" if others else "and is no folder"
        raise ValueError(f"{folder} is there {found}: name another folder, nothing is overwritten")
    return folder
