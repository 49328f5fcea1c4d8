"""Files and folders on disk: there whole or not at all, checked when they are read, no more open than the user wants.

What is written grows in a hidden folder beside its place, `.NAME.recbook`, is forced to the disk, and renamed into the
place. Its writer holds the lock in that folder for as long as it lives: another one waits, and clears away first what a
killed one left. A folder that is kept holds a manifest with checksums of its files and of itself.

An artifact is a kept folder of what took long to make, named after what made it: a stale one is never loaded.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

MANIFEST = "manifest.json"
HIDDEN = ".{}.recbook"  # the hidden folder's name, from that of the place
# In it: what comes, what that replaces, what goes, and who is at it.
INCOMING, OLD, GONE, LOCK = "new", "old", "gone", "lock"
POLLED = 0.02  # seconds between two looks whether a place is free
ARTIFACT = re.compile(r"(.+)-[0-9a-f]{16}")  # the name of one, or of a training that was cut off
OF_OTHER_CODE = 3  # artifacts of a name that are kept although the code has changed since
PATIENCE = 10.0  # seconds that a load waits for those who replace the folder meanwhile

Loaded = TypeVar("Loaded")


class Damaged(ValueError):
    """A file or folder is proved not to be what was written: it is cut short, or a checksum or a manifest is wrong."""


class Missing(Damaged, FileNotFoundError):
    """Nothing was kept there."""


# --- Writing -----------------------------------------------------------------------------------------------------


@contextmanager
def whole_path(path: str | Path, private: bool = False) -> Iterator[Path]:
    """A name to write under that becomes `path` when all is written and on the disk; after an error nothing is left.

    The file is as open to others as the umask says; a `private` one is its owner's alone.
    """
    path = Path(path)
    with alone(path) as hidden:
        (hidden / INCOMING).mkdir()
        yield hidden / INCOMING / path.name
        _finish(hidden / INCOMING, private)
        (hidden / INCOMING / path.name).replace(path)
        force_to_disk(path.parent)


@contextmanager
def whole_file(path: str | Path, private: bool = False) -> Iterator[BinaryIO]:
    """A file to write in binary that appears at `path` when all is written: see `whole_path`."""
    with whole_path(path, private) as fresh, fresh.open("wb") as file:
        yield file


def save_folder(
    folder: str | Path,
    kind: str,
    write: Callable[[Path], Any],
    made_of: dict[str, Any] | None = None,
    private: bool = False,
) -> Path:
    """Keep what `write` writes into an empty folder, in the place of what of this kind is there; returns the place.

    `made_of` is JSON-able, and stands in the manifest. In a folder that is not private, what shall be must be a folder
    of its own. ValueError if anything else would be overwritten.
    """
    place = Path(folder).resolve()
    with alone(place) as hidden:
        _keep(hidden, place, kind, write, made_of or {}, private)
    return place


def _keep(
    hidden: Path, place: Path, kind: str, write: Callable[[Path], Any], made_of: dict[str, Any], private: bool
) -> None:
    """What `save_folder` does, by whoever is alone at the place."""
    check_place(place, kind)
    (hidden / INCOMING).mkdir()
    write(hidden / INCOMING)
    seal(hidden / INCOMING, kind, made_of)
    _finish(hidden / INCOMING, private)
    check_place(place, kind)  # to write may have taken hours, and somebody may have put something there
    with suppress(FileNotFoundError):
        place.rename(hidden / OLD)
    (hidden / INCOMING).rename(place)
    force_to_disk(place.parent)


def check_place(folder: str | Path, kind: str) -> Path:
    """The folder, links resolved, if something of this kind may be saved there: it is missing, empty, or just that.

    ValueError if anything else would be overwritten.
    """
    folder = Path(folder).resolve()
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return folder
    ours: set[str] = set()
    with suppress(ValueError):  # there is no manifest, or none that can be read
        said = manifest(folder)
        ours = {MANIFEST, *said["files"]} if said["kind"] == kind else set()
    others = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - ours
    if not ours or others:
        found = f"and holds {min(others)}" if others else f"and holds no {kind}"
        raise ValueError(f"{folder} is there {found}: name another folder, nothing is overwritten")
    return folder


def try_place(folder: Path) -> None:
    """Do what a save does, and undo it: write beside the place, move away what is there. OSError: it cannot be done.

    So minutes of work are not lost to a folder of somebody else, a file in the way, or a mount.
    """
    with alone(folder, f"somebody else writes to {folder}; waiting …") as hidden:
        try:
            folder.rename(hidden / OLD)  # it is put back in the end
        except FileNotFoundError:
            pass
        except OSError as error:
            raise OSError(error.errno, f"{folder} cannot be moved ({error.strerror}): name another folder") from error


def remove(folder: Path, waiting: str | None = "") -> None:
    """Remove a kept folder, so that a kill meanwhile leaves no half of it under its name; `waiting`: see `alone`."""
    with alone(folder, waiting) as hidden:
        _take_away(hidden, folder)


def sweep(folder: Path) -> None:
    """Clear away what killed writers left in a folder, at places where nobody came since."""
    begin, end = HIDDEN.split("{}")
    for hidden in folder.glob(HIDDEN.format("*")):
        with suppress(OSError):  # its writer lives, or is another user
            settle(folder / hidden.name.removeprefix(begin).removesuffix(end))


def settle(place: Path) -> bool:
    """Put right what a killed writer left at a place; False if a writer is at work there."""
    if not place.with_name(HIDDEN.format(place.name)).exists():
        return True
    try:
        with alone(place, waiting=None):
            return True
    except OSError:
        return False


@contextmanager
def alone(place: Path, waiting: str | None = "") -> Iterator[Path]:
    """Be the only writer at a place, with a hidden folder beside it for what shall come there.

    Whoever comes second waits, and says `waiting` if that is a text; with None it is a TimeoutError. What a killed
    writer left is cleared away first: what it had moved away to replace it is put back.
    """
    from filelock import FileLock, Timeout  # its import takes longer than that of this module, and readers need none

    hidden = place.with_name(HIDDEN.format(place.name))
    lock = FileLock(hidden / LOCK)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                hidden.mkdir(mode=0o700)
            except FileExistsError:
                with suppress(FileNotFoundError):  # it went meanwhile
                    if not stat.S_ISDIR(os.lstat(hidden).st_mode):
                        raise
            try:
                lock.acquire(timeout=0)
                if not (hidden / LOCK).exists():  # cleared away by its last owner, just before it was ours
                    lock.release()
            except (FileNotFoundError, FileExistsError):  # likewise
                time.sleep(POLLED)
            except Timeout:
                if waiting is None:
                    raise
                if waiting:
                    print(waiting, flush=True)
                waiting = ""
                time.sleep(POLLED)
        hidden.chmod(0o700)
        _clear(hidden, place)
    except TimeoutError:
        raise
    except OSError as error:
        lock.release()
        raise OSError(error.errno, f"{place} cannot be written ({error.strerror}): name another place") from error
    try:
        yield hidden
    finally:
        with suppress(OSError):
            _clear(hidden, place)
            (hidden / LOCK).unlink()
            hidden.rmdir()
        lock.release()


def _clear(hidden: Path, place: Path) -> None:
    """Delete what is left in a hidden folder. What was moved there from its place goes back if nothing came there."""
    for name in (INCOMING, GONE):
        _delete(hidden / name)
    if os.path.lexists(hidden / OLD):
        if os.path.lexists(place):
            (hidden / OLD).rename(hidden / GONE)  # what is deleted in parts must never be put back
            _delete(hidden / GONE)
        else:
            (hidden / OLD).rename(place)


def _take_away(hidden: Path, folder: Path) -> None:
    """Move what is at the place into the hidden folder, and delete it there."""
    with suppress(FileNotFoundError):
        folder.rename(hidden / GONE)
        _delete(hidden / GONE)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def force_to_disk(path: Path) -> None:
    """Have a file, or a folder's list of names, outlive a loss of power from here on."""
    if os.name == "nt":  # no handle on a folder there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish(folder: Path, private: bool) -> None:
    """Force a folder and all in it to the disk, each file as open as the umask made its folder, or its owner's alone.

    Some libraries write files that nobody else may read. A private folder in one that is not stays private.
    """
    mode = stat.S_IMODE(folder.stat().st_mode) & (0o700 if private else 0o7777)
    folder.chmod(mode)
    for path in folder.iterdir():
        if path.is_dir():
            _finish(path, private)
        else:
            path.chmod(mode & 0o666)
            force_to_disk(path)
    force_to_disk(folder)


# --- Reading -----------------------------------------------------------------------------------------------------


def load_folder(folder: str | Path, read: Callable[[Path, dict[str, Any]], Loaded], *kinds: str) -> Loaded:
    """What `read(folder, made_of)` makes of a folder of one of these kinds, when its checksums are right.

    All of it is of one save, though others save there meanwhile: if the manifest is not the same file afterwards, it
    is read anew. Missing or Damaged says what is wrong; ValueError if the folder is of another kind.
    """
    folder, patient_until, again = Path(folder).resolve(), 0.0, False
    while True:
        quiet = settle(folder)
        with _manifest_in_place(folder) as in_place:
            try:
                loaded = read(folder, verified(folder, *kinds))
                if in_place():
                    return loaded
                told = f"{folder} is replaced again and again: load it when nobody saves there"
                failure: Exception = ValueError(told)
            except Exception as error:
                if quiet and settle(folder):  # no writer is to blame, unless it came and went meanwhile
                    unchanged = in_place() or not (folder / MANIFEST).is_file()
                    if unchanged and (again or not isinstance(error, OSError | Damaged)):
                        raise
                    again = unchanged  # once more: it may have been away for a moment, and come back
                failure = error
        patient_until = patient_until or time.monotonic() + PATIENCE
        if time.monotonic() > patient_until:
            raise failure
        time.sleep(0.002)


@contextmanager
def _manifest_in_place(folder: Path) -> Iterator[Callable[[], bool]]:
    """Tells whether the manifest is still the one that it was at first: no other can be while this one is open."""
    path = folder / MANIFEST
    try:
        check_file(path)
        file = path.open("rb")
    except (Damaged, OSError):
        yield lambda: False
        return

    def in_place() -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            return False

    with file:
        yield in_place


def verified(folder: Path, *kinds: str) -> dict[str, Any]:
    """What a kept folder of one of these kinds was made of. Damaged if a file is not as it was written."""
    said = manifest(folder)
    if said["kind"] not in kinds:
        raise ValueError(f"{folder} holds a {said['kind']}, and no {kinds[0]}: name another folder")
    for name, checksum in said["files"].items():
        path = folder / name
        inside = path.resolve().is_relative_to(folder.resolve())
        if not inside or not path.is_file() or sha256_of(path) != checksum:
            missing = "is missing, or does not have the checksum that the manifest states"
            raise Damaged(f"{path} {missing}: copy the folder again, or make it anew")
    return said["made_of"]


def manifest(folder: Path) -> dict[str, Any]:
    """What a kept folder says of itself: its `kind`, what it was `made_of`, checksums of its `files`, at least one."""
    path = folder / MANIFEST
    said = read_json(path)
    parts = {"kind": str, "made_of": dict, "files": dict, "sha256": str}
    if not isinstance(said, dict) or not all(isinstance(said.get(name), of) for name, of in parts.items()):
        raise Damaged(f"{path} is no manifest of recbook: make the folder anew")
    if not said["files"] or said.pop("sha256") != digest(said):
        raise Damaged(f"{path} does not have the checksum that it states: copy the folder again, or make it anew")
    return said


def seal(folder: Path, kind: str, made_of: dict[str, Any]) -> None:
    """Write the manifest of all files that are in a folder."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    as_read = json.loads(json.dumps(made_of))  # JSON's keys are texts: the checksum is of what will be read
    said = {"kind": kind, "made_of": as_read, "files": {name: sha256_of(path) for name, path in files.items()}}
    said["sha256"] = digest(said)
    (folder / MANIFEST).write_text(json.dumps(said, indent=1), encoding="utf-8")


def check_file(path: Path) -> None:
    """Missing, or Damaged: there is something else than a file, which to read might take for ever."""
    if not path.is_file():
        raise Damaged(f"{path} is no file") if path.exists() else Missing(f"there is no file {path}")


def read_json(path: Path) -> Any:
    """What a JSON file holds. Missing, or Damaged if it is no file, no JSON, or nested too deep."""
    check_file(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is no JSON that can be read ({error}): copy it again, or make it anew") from error


@contextmanager
def readable(place: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turn what readers raise at odd content into a ValueError that names place and remedy; Damaged stays Damaged.

    No memory and missing libraries are no fault of the content, and left as they are.
    """
    try:
        yield
    except (MemoryError, ImportError):
        raise
    except Exception as error:
        kind = next((kind for kind in (Missing, Damaged) if isinstance(error, kind)), ValueError)
        raise kind(f"{place} does not hold {what} that can be loaded ({error!s}); {remedy}") from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(made_of: dict[str, Any]) -> str:
    """The sha256 of what something is made of."""
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


# --- Artifacts ---------------------------------------------------------------------------------------------------


def home() -> Path:
    """The folder that keeps artifacts: RECBOOK_HOME, or the user's cache folder."""
    with warnings.catch_warnings():  # pooch imports tqdm.auto, which warns in a notebook without ipywidgets
        warnings.filterwarnings("ignore", message="IProgress not found")
        import pooch

    return Path(os.environ.get("RECBOOK_HOME") or pooch.os_cache("recbook"))


def artifact(name: str, made_of: dict[str, Any], make: Callable[[Path], Any], load: Callable[[Path], Any]) -> Any:
    """Load the artifact `name` that was made of `made_of`, or make it, keep it, and say how long that took.

    `made_of` is JSON-able and names all that decides the content: fingerprints of data and of `code`, settings.
    `make(folder)` writes the artifact into an empty folder, `load(folder)` reads it. A damaged artifact is named, and
    made again; one that `load` cannot read for another reason is left alone. Who else wants the same one waits.
    """
    folder = home() / f"{name.replace(' ', '-')}-{digest(made_of)[:16]}"
    with ExitStack() as stack:
        try:
            hidden = stack.enter_context(alone(folder, f"{name}: another process is at it; waiting …"))
        except OSError as error:
            if folder.exists():  # where nothing can be written, what is there can still be read
                return load_folder(folder, lambda place, _: load(place), name)
            remedy = "set RECBOOK_HOME to a folder of yours"
            why = getattr(error.__cause__, "strerror", error)
            raise OSError(error.errno, f"{folder.parent} cannot be written ({why}): {remedy}") from error
        if folder.exists():
            try:
                verified(folder, name)
                thing = load(folder)
                with suppress(OSError):  # it may be another user's
                    os.utime(folder)  # so much for when it was used last
                print(f"{name}: loaded from the cache")
                return thing
            except Damaged as error:
                print(f"{name}: the kept copy {folder.name} is damaged ({error}); building it again")
                _take_away(hidden, folder)
        print(f"{name}: building …", flush=True)
        start = time.perf_counter()
        _keep(hidden, folder, name, make, made_of, private=False)
        print(f"{name}: built in {time.perf_counter() - start:.0f} s")
        _evict(folder, made_of)
        return load(folder)


def discard(folder: Path) -> None:
    """Remove an artifact, unless somebody is at it, or it is another user's."""
    with suppress(OSError):
        remove(folder, waiting=None)


def _evict(folder: Path, made_of: dict[str, Any]) -> None:
    """Remove the artifacts of this name that other code made, but for the newest: edits should not fill the disk."""
    sweep(folder.parent)
    stale = []
    for path in folder.parent.glob(f"{folder.name[:-16]}{'[0-9a-f]' * 16}"):
        with suppress(Damaged, FileNotFoundError):
            if manifest(path)["made_of"].get("code") != made_of.get("code"):
                stale.append((path.stat().st_mtime, path))
    for _, path in sorted(stale)[:-OF_OTHER_CODE]:
        discard(path)
