"""Indexes on disk: one file each, written whole or not at all, and refused for another catalogue than its own.

A file is a zip of two members, stored as they are: `index.faiss`, which FAISS writes, and `catalogue.json` (codes,
factory string, fingerprint, and a checksum over all of it and the other member). Nothing in it is ever unpickled. The
checksum is verified before FAISS reads a byte; what was read is then compared with the catalogue and factory string.
"""

import hashlib
import json
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from recbook.search.index import ProductIndex, catalogue_fingerprint
from recbook.storage import Damaged, check_file, whole_file

INDEX_FORMAT = 2  # of a saved index


class _Refused(ValueError):
    """A file that cannot be loaded here; the message names it, and what to do."""


def save_index(index: ProductIndex, path: str | Path) -> Path:
    """Write the index, whole or not at all, to one file: a zip of FAISS's own `index.faiss` and `catalogue.json`."""
    import faiss

    path = Path(path)
    about = {
        "format": INDEX_FORMAT,
        "factory": index.factory,
        "fingerprint": index.fingerprint,
        "codes": list(index.codes),
    }
    checksum = hashlib.sha256()
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as parts:
        with parts.open("index.faiss", "w", force_zip64=True) as stream:

            def write(block: bytes) -> int:
                checksum.update(block)
                return stream.write(block)

            faiss.write_index(index.faiss_index, faiss.PyCallbackIOWriter(write))  # type: ignore[attr-defined]  # stubs lack it
        checksum.update(_canonical(about))
        parts.writestr("catalogue.json", json.dumps(about | {"sha256": checksum.hexdigest()}))
    return path


def load_index(path: str | Path, codes: Collection[str], vectors: np.ndarray) -> ProductIndex:
    """Read a saved index for this catalogue.

    Missing, or Damaged where the file was cut or changed, or put together from several; ValueError if it was made of
    another catalogue.
    """
    import faiss

    path = Path(path)
    check_file(path)
    with _naming_damage(path), zipfile.ZipFile(path) as parts:
        about = _about(path, parts)  # its checksum is verified before FAISS parses a byte
        _check_catalogue(path, about, codes, vectors)
        with parts.open("index.faiss") as stream:
            faiss_index = faiss.read_index(faiss.PyCallbackIOReader(stream.read))  # type: ignore[attr-defined]  # stubs lack it
        _check_recipe(faiss_index, about["factory"], np.shape(vectors))
    return ProductIndex(pd.Index(about["codes"], dtype=object), faiss_index, about["factory"], about["fingerprint"])


@contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Damaged, which names the file, for all that zipfile, json and FAISS raise over one that is not as saved."""
    try:
        yield
    except (OSError, MemoryError, ImportError, _Refused):  # no fault of the content, or named already
        raise
    except Exception as error:
        raise Damaged(f"{path} is damaged, or no index ({error}): delete it and build the index again") from error


def _canonical(about: dict[str, Any]) -> bytes:
    return json.dumps(about, sort_keys=True).encode()


def _about(path: Path, parts: zipfile.ZipFile) -> dict[str, Any]:
    """What `save_index` wrote of the index, without the checksum: that is verified, over both members."""
    about = json.loads(parts.read("catalogue.json"))
    if about["format"] != INDEX_FORMAT:
        held = repr(about["format"])[:40]
        raise _Refused(f"{path} has format {held}, this recbook reads {INDEX_FORMAT}: build the index again")
    with parts.open("index.faiss") as stream:
        checksum = hashlib.file_digest(cast(BufferedIOBase, stream), "sha256")
    said = about.pop("sha256")
    checksum.update(_canonical(about))
    if said != checksum.hexdigest():
        raise ValueError("its parts are not those that were saved together")
    match about:
        case {"factory": str(), "fingerprint": {"codes": str(), "vectors": str()}, "codes": [*codes]}:
            if all(isinstance(code, str) for code in codes):
                return about
    raise ValueError("catalogue.json lacks a part, or has one of another type")


def _check_catalogue(path: Path, about: dict[str, Any], codes: Collection[str], vectors: np.ndarray) -> None:
    wanted, held = [str(code) for code in codes], about["codes"]
    same_vectors = catalogue_fingerprint(codes, vectors) == about["fingerprint"]
    if same_vectors and wanted == held:
        return
    new, gone = sorted(set(wanted) - set(held)), sorted(set(held) - set(wanted))
    if new or gone:
        what = f"it lacks {len(new)} of its products {new[:3]} and holds {len(gone)} that it has not {gone[:3]}"
    elif len(held) > len(wanted):
        what = f"{len(held) - len(wanted)} of its products stand in it more than once"
    else:
        what = "the vectors differ" if wanted == held else "the same products stand in another order"
    raise _Refused(f"{path} was not built of this catalogue: {what}. Build the index again.")


def _check_recipe(faiss_index: Any, factory: str, shape: tuple[int, ...]) -> None:
    """ValueError unless FAISS's index is what the factory string makes, and holds vectors of this shape (n, d)."""
    import faiss

    if (faiss_index.ntotal, faiss_index.d) != shape or faiss_index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"index.faiss holds {faiss_index.ntotal} vectors of {faiss_index.d} dimensions, not {shape}")
    empty = faiss.index_factory(shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    empty = faiss.deserialize_index(faiss.serialize_index(empty))  # as one that was read: a file keeps not all types
    if (held := _recipe(faiss_index)) != (wanted := _recipe(empty)):
        raise ValueError(f"index.faiss is a {held}, catalogue.json says that it is a {wanted}")


def _recipe(faiss_index: Any) -> str:
    """FAISS's factory string for an index; the name of its type where FAISS has none for it."""
    import faiss
    from faiss.contrib.factory_tools import reverse_index_factory

    try:
        return reverse_index_factory(faiss_index)
    except NotImplementedError:
        return type(faiss.downcast_index(faiss_index)).__name__
