"""Files and folders are whole, private where they must be, checked when read; artifacts fit what made them."""

import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from recbook import cli, storage

UNIT = "file of a test"


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def write(folder, text="hello"):
    (folder / "text.txt").write_text(text)


def load(folder):
    return (folder / "text.txt").read_text()


def save(place, text="hello", **more):
    return storage.save_folder(place, UNIT, lambda folder: write(folder, text), **more)


def loaded(place):
    return storage.load_folder(place, lambda folder, _: load(folder), UNIT)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def modes(folder):
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


# --- Writing -------------------------------------------------------------------------------------------------------


def test_what_is_replaced_is_replaced_whole(tmp_path):
    place = tmp_path / "kept"
    for number in ("1", "2"):
        assert save(place, number, made_of={"n": number}) == place
        assert loaded(place) == number and storage.verified(place, UNIT) == {"n": number}
    with pytest.raises(RuntimeError, match="no space"):
        storage.save_folder(place, UNIT, fail)
    assert loaded(place) == "2" and names(tmp_path) == ["kept"]


def fail(folder):
    write(folder)
    raise RuntimeError("no space")


def test_all_is_on_the_disk_before_it_is_in_its_place(tmp_path, monkeypatch):
    forced = []
    monkeypatch.setattr(storage, "force_to_disk", lambda path: forced.append((path.name, (tmp_path / "kept").exists())))
    save(tmp_path / "kept")
    assert sorted(forced[:-1]) == [("manifest.json", False), ("new", False), ("text.txt", False)]
    assert forced[-1] == (tmp_path.name, True)
    with storage.alone(tmp_path / "kept") as hidden:
        assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


def test_files_in_files_and_two_in_one_folder_are_whole(tmp_path):
    with storage.whole_file(tmp_path / "a.txt") as first, storage.whole_file(tmp_path / "b.txt") as second:
        first.write(b"one")
        second.write(b"two")
        assert not (tmp_path / "a.txt").exists()
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    place = save(tmp_path / "kept")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            save(place, "x" * 2000)
        with pytest.raises(OSError, match="too large"), storage.whole_file(tmp_path / "a.txt") as file:
            file.write(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert loaded(place) == "hello" and names(tmp_path) == ["kept"]


def test_modes_are_those_of_the_umask_and_private_is_private(tmp_path, umask):
    def shut(folder):
        write(folder)
        (folder / "text.txt").chmod(0o600)  # as tempfile and some libraries make files
        storage.save_folder(folder / "inner", UNIT, write, private=True)

    storage.save_folder(tmp_path / "open", UNIT, shut)
    storage.save_folder(tmp_path / "own", UNIT, lambda folder: save(folder / "inner"), private=True)
    with storage.whole_path(tmp_path / "a.txt") as path:
        path.touch(mode=0o600)
    with storage.whole_file(tmp_path / "b.txt", private=True):
        pass
    folder, file = 0o777 & ~umask, 0o666 & ~umask
    inner = {"inner": 0o700, "inner/manifest.json": 0o600, "inner/text.txt": 0o600}
    assert modes(tmp_path / "open") == {"manifest.json": file, "text.txt": file} | inner
    assert modes(tmp_path / "own") == {"manifest.json": 0o600} | inner
    top = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert top == {"open": folder, "own": 0o700, "a.txt": file, "b.txt": 0o600}


def test_other_things_are_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    place = save(tmp_path / "kept")
    for other, message in [("mine", "notes.txt"), ("file", "is there"), ("kept", "is there")]:
        with pytest.raises(ValueError, match=f"{message}.*: name another folder"):
            storage.save_folder(tmp_path / other, f"{UNIT}a" if other == "kept" else UNIT, write)
    (place / "extra.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"extra\.txt"):
        save(place)
    (tmp_path / "empty").mkdir()
    assert loaded(save(tmp_path / "empty")) == "hello"


def test_a_place_that_cannot_be_written_or_moved_is_found_out(tmp_path):
    place = save(tmp_path / "kept")
    storage.try_place(place)
    storage.try_place(tmp_path / "new" / "kept")
    assert loaded(place) == "hello" and names(tmp_path) == ["kept", "new"] and names(tmp_path / "new") == []
    with pytest.raises(OSError, match="cannot be written .*: name another place"):
        storage.try_place(place / "text.txt" / "below")
    with pytest.raises(OSError, match=" cannot be moved .*: name another folder"):
        storage.try_place(tmp_path / ".kept.recbook" / "..")  # of its parent, which holds it


# --- Killed --------------------------------------------------------------------------------------------------------


def test_a_writer_that_died_between_two_renames_leaves_the_old_folder(tmp_path):
    place = save(tmp_path / "kept")
    hidden = tmp_path / ".kept.recbook"
    hidden.mkdir()
    (hidden / storage.LOCK).touch()
    save(hidden / storage.INCOMING, "new")
    place.rename(hidden / storage.OLD)
    (tmp_path / "link").symlink_to(place)
    assert loaded(tmp_path / "link") == "hello"
    (tmp_path / "link").unlink()
    assert names(tmp_path) == ["kept"]


def test_what_killed_writers_left_is_swept_by_the_next_and_nothing_else(tmp_path):
    left, empty = tmp_path / ".kept.recbook", tmp_path / ".a.txt.recbook"
    for part in (storage.INCOMING, storage.OLD, storage.GONE):
        save(left / part)
    (left / storage.LOCK).touch()
    empty.mkdir()
    (tmp_path / ".mine.recbook").mkdir()
    (tmp_path / ".mine.recbook" / "mine").touch()
    with storage.whole_file(tmp_path / "other.txt") as file:  # this one lives
        file.write(b"all of it")
        save(tmp_path / "kept", "more")
        assert names(tmp_path) == [".a.txt.recbook", ".mine.recbook", ".other.txt.recbook", "kept"]
        storage.sweep(tmp_path)
    assert names(tmp_path) == [".mine.recbook", "kept", "other.txt"] and loaded(tmp_path / "kept") == "more"
    assert names(tmp_path / ".mine.recbook") == ["mine"]


def test_a_second_writer_waits_or_goes_away_and_says_so(tmp_path, capsys):
    place, order = tmp_path / "kept", []

    def slowly(folder):
        order.append("first")
        time.sleep(0.2)
        write(folder)

    first = threading.Thread(target=storage.save_folder, args=(place, UNIT, slowly))
    first.start()
    while not order:
        time.sleep(0.01)
    with pytest.raises(TimeoutError):
        storage.remove(place, waiting=None)
    with storage.alone(place, waiting="somebody is at it"):
        assert loaded_alone(place) == "hello"
    first.join(10)
    assert capsys.readouterr().out == "somebody is at it\n"


def test_a_file_in_the_place_of_the_hidden_folder_is_named_and_hinders_no_reader(tmp_path):
    place = save(tmp_path / "kept")
    (tmp_path / ".kept.recbook").touch()
    with pytest.raises(OSError, match=r"kept cannot be written \(File exists\): name another place"):
        save(place)
    storage.discard(place)  # not ours to clear: left alone
    assert loaded(place) == "hello"


def test_a_folder_that_is_away_for_a_moment_is_read_when_it_is_back(tmp_path):
    place, reads = save(tmp_path / "kept"), []

    def read(folder, _):
        reads.append(1)
        if len(reads) == 1:
            place.rename(tmp_path / "away")
        try:
            return load(folder)
        finally:
            if len(reads) == 1:
                (tmp_path / "away").rename(place)

    assert storage.load_folder(place, read, UNIT) == "hello" and len(reads) == 2


def loaded_alone(place):
    return load(place) if storage.verified(place, UNIT) == {} else None


def test_what_came_to_the_place_while_it_was_written_stays(tmp_path):
    place = save(tmp_path / "kept")

    def with_company(folder):
        write(folder, "new")
        (place / "notes.txt").write_text("precious")

    with pytest.raises(ValueError, match="holds notes.txt: name another folder"):
        storage.save_folder(place, UNIT, with_company)
    assert (place / "notes.txt").read_text() == "precious" and load(place) == "hello" and names(tmp_path) == ["kept"]


WRITER = """
import os, sys
from pathlib import Path
from recbook import storage

place, letter = Path(sys.argv[1]), sys.argv[2]
def write(folder):
    for name in "abcdef":
        (folder / name).write_text(letter * 20_000)
storage.force_to_disk = lambda path: None  # many saves, and no waiting for the disk
while True:
    storage.save_folder(place, "letters", write)
"""


def letters(place):
    """The letters that the files of one load hold: one, if they are of one save."""

    def read(folder, _):
        return "".join(sorted({letter for name in "abcdef" for letter in set((folder / name).read_text())}))

    return storage.load_folder(place, read, "letters")


def writer(place, letter):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(place), letter])


def kill_writers(place, kills, seed=0):
    """Kill writers of A and B in turn at random moments; after each, a load must give one of them, and sweep."""
    chance, found = np.random.default_rng(seed), []
    for kill in range(kills):
        child = writer(place, "AB"[kill % 2])
        start = time.monotonic()
        while not place.exists() or kill and letters(place) != "AB"[kill % 2]:
            assert child.poll() is None and time.monotonic() - start < 30
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        child.wait(10)
        found.append(letters(place))
    with storage.whole_file(place.with_name("next.txt")):
        pass
    return found


def test_killed_writers_leave_a_whole_folder_and_nothing_else(tmp_path):
    found = kill_writers(tmp_path / "kept", 12)
    assert set(found) <= {"A", "B"} and names(tmp_path) == ["kept", "next.txt"]


@pytest.mark.many
def test_forty_kills(tmp_path):
    found = kill_writers(tmp_path / "kept", 40, seed=1)
    assert set(found) <= {"A", "B"} and names(tmp_path) == ["kept", "next.txt"]


# --- Writers and readers at once -----------------------------------------------------------------------------------


def load_for(place, seconds, results):
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found.append(letters(place))
        except Exception as error:
            found.append(repr(error))
    results.put(found)


def savers_against_loaders(place, seconds):
    """What two loaders found in a folder that two savers replace all the time."""
    savers = [writer(place, letter) for letter in "AB"]
    while not place.exists():
        time.sleep(0.01)
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    loaders = [fork.Process(target=load_for, args=(place, seconds, results)) for _ in range(2)]
    for loader in loaders:
        loader.start()
    found = [each for _ in loaders for each in results.get(timeout=seconds + 30)]
    for loader in loaders:
        loader.join(30)
    alive = [saver.poll() is None for saver in savers]
    for saver in savers:
        saver.kill()
        saver.wait(10)
    assert all(alive)
    return found


@pytest.mark.filterwarnings("ignore:.*fork")
def test_every_load_is_of_one_save_while_two_savers_replace_it(tmp_path):
    found = savers_against_loaders(tmp_path / "kept", 3)
    assert len(found) > 10 and set(found) == {"A", "B"}


@pytest.mark.many
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_minute_of_savers_against_loaders(tmp_path):
    found = savers_against_loaders(tmp_path / "kept", 60)
    assert len(found) > 1000 and set(found) == {"A", "B"}


def test_a_folder_that_is_replaced_while_it_is_read_is_read_again(tmp_path):
    place, reads = save(tmp_path / "kept", "old"), []

    def read(folder, _):
        reads.append(load(folder))
        if len(reads) == 1:
            save(place, "new")
        return reads[0], load(folder)  # a mixture, the first time

    assert storage.load_folder(place, lambda folder, made_of: read(folder, made_of)[1], UNIT) == "new"
    assert reads == ["old", "new"]


# --- Reading -------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(tmp_path):
    place = save(tmp_path / "kept", made_of={"setting": 3})
    for path in place.iterdir():
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
            same = path.name == storage.MANIFEST and same_json(path, whole)
            if not same:
                with pytest.raises(storage.Damaged, match=path.name):
                    storage.verified(place, UNIT)
        path.write_bytes(whole)
    assert loaded(place) == "hello"


def same_json(path, whole):
    """Whether a flip turned white space into other white space."""
    try:
        return json.loads(path.read_bytes()) == json.loads(whole)
    except ValueError:
        return False


def forged(folder, **changes):
    """A manifest with other entries, under a right checksum."""
    said = json.loads((folder / storage.MANIFEST).read_text()) | changes
    said.pop("sha256")
    said["sha256"] = storage.digest(said)
    (folder / storage.MANIFEST).write_text(json.dumps(said))


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}}, {"files": {"text.txt": 3}}, {"files": []}, {"files": {"../other/text.txt": "{sha}"}},
        {"files": {"{outside}": "{sha}"}}, {"files": {"link": "{sha}"}}, {"files": {".": "{sha}"}}, {"made_of": None},
        {"kind": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_verifies_nothing_or_leaves_its_folder_is_refused(tmp_path, changes):
    place, other = save(tmp_path / "kept"), save(tmp_path / "other")
    (place / "link").symlink_to(other / "text.txt")
    filled = {"{sha}": storage.sha256_of(other / "text.txt"), "{outside}": str(other / "text.txt")}
    if isinstance(changes.get("files"), dict):
        changes = {"files": {filled.get(k, k): filled.get(v, v) for k, v in changes["files"].items()}}
    forged(place, **changes)
    with pytest.raises(storage.Damaged):
        loaded(place)


@pytest.mark.parametrize("odd", ["fifo", "folder", "deep", "number", "nothing", "not text"])
@pytest.mark.parametrize("name", ["manifest.json", "text.txt"])
def test_odd_things_in_the_place_of_a_file_are_named_at_once(tmp_path, name, odd):
    place = save(tmp_path / "kept")
    path = place / name
    path.unlink()
    if odd == "fifo":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    else:
        content = {"deep": b"[" * 1_000_000, "number": b"3", "nothing": b"", "not text": b"\xff\xfe{"}
        path.write_bytes(content[odd])
    start = time.monotonic()
    with pytest.raises(storage.Damaged, match=name):
        loaded(place)
    assert time.monotonic() - start < 1


def test_nothing_and_another_kind_are_told_from_damage(tmp_path):
    for kind in (FileNotFoundError, storage.Damaged):
        with pytest.raises(kind, match=r"manifest\.json"):
            loaded(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"holds a {UNIT}, and no other kind") as told:
        storage.verified(save(tmp_path / "kept"), "other kind")
    assert not isinstance(told.value, storage.Damaged)


def test_what_cannot_be_read_keeps_its_reason_and_no_memory_stays_that():
    said = "the place does not hold a model that can be loaded .*x.*; mend it"
    for error, kind in [(KeyError("x"), ValueError), (storage.Missing("x"), storage.Missing)]:
        with pytest.raises(kind, match=said), storage.readable("the place", "a model", "mend it"):
            raise error
    with pytest.raises(MemoryError), storage.readable("the place", "a model", "mend it"):
        raise MemoryError


# --- Artifacts -----------------------------------------------------------------------------------------------------


def make(made_of, content="hello", name="greeting"):
    built = []

    def write_once(folder):
        built.append(1)
        write(folder, content)

    return storage.artifact(name, made_of, write_once, load), len(built)


def folders():
    return names(storage.home())


def test_built_once_then_loaded(capsys):
    assert make({"a": 1}) == ("hello", 1)
    assert "building" in capsys.readouterr().out
    assert make({"a": 1}, "not used") == ("hello", 0)
    assert "loaded from the cache" in capsys.readouterr().out


def test_made_of_something_else_is_built_again():
    make({"a": 1})
    assert make({"a": 2}, "other") == ("other", 1)
    assert make({"a": 1}) == ("hello", 0)  # and the first is still there


@pytest.mark.parametrize("damage", ["changed", "missing file", "missing manifest", "broken manifest"])
def test_damage_is_named_and_mended(damage, capsys):
    make({"a": 1})
    (folder,) = storage.home().iterdir()
    if damage == "changed":
        (folder / "text.txt").write_text("hellp")
    elif damage == "missing file":
        (folder / "text.txt").unlink()
    elif damage == "missing manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text('{"files"')
    assert make({"a": 1}) == ("hello", 1)
    assert f"the kept copy {folder.name} is damaged" in capsys.readouterr().out
    assert make({"a": 1}) == ("hello", 0)


@pytest.mark.parametrize("reason", [MemoryError("no memory"), ImportError("no library"), ValueError("a bug")], ids=repr)
def test_what_cannot_be_loaded_for_another_reason_is_left_alone(reason):
    make({"a": 1})

    def cannot(folder):
        raise reason

    with pytest.raises(type(reason), match=str(reason)):
        storage.artifact("greeting", {"a": 1}, write, cannot)
    assert make({"a": 1}) == ("hello", 0)


def test_what_fails_half_way_leaves_nothing():
    with pytest.raises(RuntimeError, match="no space"):
        storage.artifact("greeting", {}, fail, load)
    assert folders() == []


def test_the_manifest_says_what_it_was_made_of():
    make({"texts": "abc", "model": "minilm"})
    (folder,) = storage.home().iterdir()
    assert json.loads((folder / "manifest.json").read_text())["made_of"] == {"texts": "abc", "model": "minilm"}


def _write(number):
    def slowly(folder):
        time.sleep(0.2)
        write(folder, str(number))

    return storage.artifact("greeting", {"a": 1}, slowly, load)


def test_processes_that_want_the_same_artifact_wait_and_one_builds_it():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(_write, range(12), chunksize=1))) == 1
    assert len(folders()) == 1


def test_artifacts_of_other_code_go_but_for_the_newest_three():
    for number in range(6):
        make({"code": str(number), "data": "a"})
        for path in storage.home().iterdir():
            os.utime(path, (path.stat().st_mtime - 10,) * 2)
    make({"code": "5", "data": "b"})
    make({"code": "0"}, name="another greeting")
    left = [storage.manifest(path)["made_of"] for path in storage.home().glob("greeting-*")]
    assert sorted(made_of["code"] for made_of in left) == ["2", "3", "4", "5", "5"]
    assert len(folders()) == 6


def test_a_cache_that_cannot_be_written_says_so_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(OSError, match="cannot be written .*: set RECBOOK_HOME"):
        storage.artifact("greeting", {}, lambda folder: pytest.fail("it was made"), load)


def test_the_command_lists_what_is_kept_and_clears_what_can_be_made_again(capsys):
    assert cli.main(["cache"]) == 0 and "0.0 MB in" in capsys.readouterr().out
    make({"a": 1}, "x" * 2_000_000)
    (storage.home() / "training-0123456789abcdef").mkdir()
    (storage.home() / "answers").mkdir()
    (storage.home() / "answers" / "paid.json").write_bytes(bytes(1_000_000))
    capsys.readouterr()
    assert cli.main(["cache"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 4 and "2.0 MB  20" in said and "3.0 MB in" in said and "greeting-" in said
    assert cli.main(["cache", "--clear"]) == 0
    assert folders() == ["answers"] and "answers  (--clear leaves it)" in capsys.readouterr().out
