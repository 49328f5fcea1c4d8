"""What a chapter needs from earlier ones: load the artifact if it is there and fits, build it if not, and say so.

`RECBOOK_DATA` names the receipts (unset: the embedded shop; a path; or `online-retail`), `RECBOOK_HOME` the folder that
keeps artifacts (unset: the user's cache). Receipts of another shop may need `RECBOOK_PRODUCT_CODE`, a regular
expression of what its product codes look like (unset: `receipts.PRODUCT_CODE`), and `RECBOOK_DATE_FORMAT`, how its
dates are written, such as `%d/%m/%Y %H:%M` (unset: found out from the dates).

An artifact is a folder named after what made it, so a stale one is never loaded; it is written beside its place and
renamed into it, so half of one is never there.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbook import receipts as rc
from recbook import shop
from recbook.embeddings import PACKAGED, WEIGHTS_SHA256, encode

EMBEDDED = "embedded shop"  # the name of the data where RECBOOK_DATA is unset
SEED = 0  # of the embedded shop that the book shows


def home() -> Path:
    """The folder that keeps artifacts: RECBOOK_HOME, or the user's cache folder."""
    with warnings.catch_warnings():  # pooch imports tqdm.auto, which warns in a notebook without ipywidgets
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch

    return Path(os.environ.get("RECBOOK_HOME") or pooch.os_cache("recbook"))


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
        build=lambda: encode(list(texts.values()), model),
        save=lambda vectors, folder: np.save(folder / "vectors.npy", vectors, allow_pickle=False),
        load=lambda folder: np.load(folder / "vectors.npy", allow_pickle=False),
    )
    return np.array(list(texts), dtype=str), vectors


def artifact(
    name: str, made_of: dict[str, Any], build: Callable[[], Any], save: Callable[[Any, Path], None], load: Callable
) -> Any:
    """Load the artifact `name` that was made of `made_of`, or build it, keep it, and say how long that took.

    `made_of` is JSON-able and names everything that decides the content (fingerprints of data, settings, version of the
    format). `save(thing, folder)` and `load(folder)` write and read it. A damaged artifact is named, and rebuilt.
    """
    fingerprint = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
    folder = home() / f"{name}-{fingerprint[:16]}"
    if folder.exists():
        try:
            _verify(folder)
            thing = load(folder)
            print(f"{name}: loaded from the cache")
            return thing
        except Exception as error:
            print(f"{name}: the kept copy {folder.name} is damaged ({error}); building it again")
            shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it too
    print(f"{name}: building …", end=" ", flush=True)
    start = time.perf_counter()
    thing = build()
    print(f"done in {time.perf_counter() - start:.0f} s")
    keep(thing, folder, save, made_of)
    return thing


def keep(thing: Any, folder: Path, save: Callable[[Any, Path], None], made_of: dict[str, Any]) -> None:
    """Write an artifact beside its place, with a manifest of its files' checksums, and rename it into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save(thing, beside)
        files = {str(path.relative_to(beside)): _sha256(path) for path in sorted(beside.rglob("*")) if path.is_file()}
        (beside / "manifest.json").write_text(json.dumps({"made_of": made_of, "files": files}, indent=1))
        try:
            beside.rename(folder)
        except OSError:  # another process was first, with the same content
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _verify(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        if _sha256(folder / name) != digest:
            raise ValueError(f"{name} does not have the checksum that its manifest states")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
