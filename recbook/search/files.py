"""Indexes on disk: one file each, written whole or not at all, and refused for another catalogue than its own.

A file is a zip of two members, stored as they are: `catalogue.json` (codes, factory string, fingerprint) and
`index.faiss`, which FAISS writes. Nothing in it is ever unpickled, and its checksums are verified before FAISS reads a
byte.
"""

import json
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from recbook.search.index import ProductIndex, catalogue_fingerprint
from recbook.storage import whole_file

INDEX_FORMAT = 1  # of a saved index


def save_index(index: ProductIndex, path: str | Path) -> Path:
    """Write the index, whole or not at all, to one file: a zip of `catalogue.json` and FAISS's own `index.faiss`."""
    import faiss

    path = Path(path)
    about = {
        "format": INDEX_FORMAT,
        "factory": index.factory,
        "fingerprint": index.fingerprint,
        "codes": list(index.codes),
    }
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as parts:
        parts.writestr("catalogue.json", json.dumps(about))
        with parts.open("index.faiss", "w", force_zip64=True) as stream:
            faiss.write_index(index.faiss_index, faiss.PyCallbackIOWriter(stream.write))  # type: ignore[attr-defined]  # stubs lack it
    return path


def load_index(path: str | Path, codes: Collection[str], vectors: np.ndarray) -> ProductIndex:
    """Read a saved index for this catalogue. ValueError names a file that is damaged, or made of another catalogue."""
    import faiss

    path = Path(path)
    try:
        with zipfile.ZipFile(path) as parts:
            if (damaged := parts.testzip()) is not None:  # before FAISS parses a byte of it
                raise zipfile.BadZipFile(f"{damaged} fails its checksum")
            about = json.loads(parts.read("catalogue.json"))
            _check_catalogue(path, about, codes, vectors)
            with parts.open("index.faiss") as stream:
                faiss_index = faiss.read_index(faiss.PyCallbackIOReader(stream.read))  # type: ignore[attr-defined]  # stubs lack it
    except (zipfile.BadZipFile, KeyError, AttributeError, json.JSONDecodeError, EOFError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or no index ({error}): delete it and build the index again") from error
    return ProductIndex(pd.Index(about["codes"], dtype=object), faiss_index, about["factory"], about["fingerprint"])


def _check_catalogue(path: Path, about: dict, codes: Collection[str], vectors: np.ndarray) -> None:
    if about.get("format") != INDEX_FORMAT:
        raise ValueError(
            f"{path} has format {about.get('format')}, this recbook reads {INDEX_FORMAT}: build the index again"
        )
    mine, its = catalogue_fingerprint(codes, vectors), about["fingerprint"]
    if mine == its:
        return
    wanted, held = {str(code) for code in codes}, set(about["codes"])
    new, gone = sorted(wanted - held), sorted(held - wanted)
    if new or gone:
        what = f"it lacks {len(new)} of its products {new[:3]} and holds {len(gone)} that it has not {gone[:3]}"
    else:
        what = "the vectors differ" if mine["codes"] == its["codes"] else "the same products stand in another order"
    raise ValueError(f"{path} was not built of this catalogue: {what}. Build the index again.")
