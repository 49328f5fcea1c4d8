"""Files on disk, whole or not at all; and artifacts: what took long to make, and is never loaded for anything else.

An artifact is a folder named after what made it, so a stale one is never loaded; it is written beside its place and
renamed into it, so half of one is never there; a manifest holds its files' checksums, so a damaged one is found out.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

MANIFEST = "manifest.json"


@contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """A name to write under that becomes `path` when all is written and on the disk; after an error nothing is left."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(path)  # as open to others as the user wants files to be, unlike tempfile's
    try:
        yield beside
        force_to_disk(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write in binary that appears at `path` when all is written; after an error nothing is left behind."""
    with whole_path(path) as beside, beside.open("wb") as file:
        yield file


def force_to_disk(path: Path) -> None:
    """Have a file, or a folder's list of names, outlive a loss of power from here on."""
    if os.name == "nt":  # no handle on a folder there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def home() -> Path:
    """The folder that keeps artifacts: RECBOOK_HOME, or the user's cache folder."""
    with warnings.catch_warnings():  # pooch imports tqdm.auto, which warns in a notebook without ipywidgets
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch

    return Path(os.environ.get("RECBOOK_HOME") or pooch.os_cache("recbook"))


def artifact(name: str, made_of: dict[str, Any], make: Callable[[Path], Any], load: Callable[[Path], Any]) -> Any:
    """Load the artifact `name` that was made of `made_of`, or make it, keep it, and say how long that took.

    `made_of` is JSON-able and names all that decides the content: fingerprints of data and of code, settings.
    `make(folder)` writes the artifact into an empty folder, `load(folder)` reads it. A damaged artifact is named, and
    made again.
    """
    folder = home() / f"{name.replace(' ', '-')}-{digest(made_of)[:16]}"
    if folder.exists():
        try:
            verified(folder)
            thing = load(folder)
            print(f"{name}: loaded from the cache")
            return thing
        except Exception as error:
            print(f"{name}: the kept copy {folder.name} is damaged ({error}); building it again")
            shutil.rmtree(folder, ignore_errors=True)  # another process may be removing it too
    print(f"{name}: building …", flush=True)
    start = time.perf_counter()
    keep(folder, make, made_of)
    print(f"{name}: built in {time.perf_counter() - start:.0f} s")
    return load(folder)


def digest(made_of: dict[str, Any]) -> str:
    """The sha256 of what something is made of."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def keep(folder: Path, make: Callable[[Path], Any], made_of: dict[str, Any]) -> None:
    """Make an artifact beside its place, with a manifest of its files' checksums, and rename it into place."""
    beside = _beside(folder)
    beside.mkdir(parents=True)
    try:
        make(beside)
        files = {str(path.relative_to(beside)): sha256_of(path) for path in sorted(beside.rglob("*")) if path.is_file()}
        (beside / MANIFEST).write_text(json.dumps({"made_of": made_of, "files": files}, indent=1), encoding="utf-8")
        try:
            beside.rename(folder)
        except OSError:  # another process was first, with the same content
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def replace(folder: Path, make: Callable[[Path], Any], made_of: dict[str, Any]) -> None:
    """As `keep`, in the place of what is there: that is put aside only once the new one is whole."""
    fresh = _beside(folder)
    fresh.mkdir(parents=True)
    old = fresh / "old"
    try:
        keep(fresh / "new", make, made_of)
        if folder.exists():
            folder.rename(old)
        (fresh / "new").rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that nothing has yet, hidden, beside this one."""
    return path.parent / f".{path.name}-{secrets.token_hex(4)}"


def manifest(folder: Path) -> dict[str, Any]:
    """What a kept folder says of itself: what it was `made_of`, the checksums of its `files`. ValueError: nothing."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {"made_of": dict(said["made_of"]), "files": dict(said["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} has no {MANIFEST} that can be read ({error}): nothing was kept there") from error


def verified(folder: Path) -> dict[str, Any]:
    """What a kept folder was made of. ValueError if there is no manifest, or a file is missing or is not as it says."""
    said = manifest(folder)
    for name, digest in said["files"].items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ValueError(f"{folder / name} is missing, or does not have the checksum that the manifest states")
    return said["made_of"]
