"""Artifacts are whole, fit what made them, or are made again."""

import json
import multiprocessing

import pytest

from recbook import storage


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))


def write(folder, text="hello"):
    (folder / "text.txt").write_text(text)


def load(folder):
    return (folder / "text.txt").read_text()


def make(made_of, content="hello", name="greeting"):
    built = []

    def write_once(folder):
        built.append(1)
        write(folder, content)

    return storage.artifact(name, made_of, write_once, load), len(built)


def folders():
    return sorted(path.name for path in storage.home().iterdir())


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


def test_what_fails_half_way_leaves_nothing():
    def fail(folder):
        write(folder)
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        storage.artifact("greeting", {}, fail, load)
    assert folders() == []


def test_what_is_replaced_is_replaced_whole(tmp_path):
    place = tmp_path / "kept"
    for number in (1, 2):
        storage.replace(
            place, lambda folder, number=number: (folder / "text.txt").write_text(str(number)), {"n": number}
        )
        assert (place / "text.txt").read_text() == str(number) and storage.verified(place) == {"n": number}

    def fail(folder):
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        storage.replace(place, fail, {"n": 3})
    assert storage.verified(place) == {"n": 2} and [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_what_was_kept_is_verified_file_by_file(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json"):
        storage.verified(tmp_path)
    storage.replace(tmp_path / "kept", write, {})
    (tmp_path / "kept" / "text.txt").write_text("hellp")
    with pytest.raises(ValueError, match=r"text\.txt is missing, or does not have the checksum"):
        storage.verified(tmp_path / "kept")


def test_the_manifest_says_what_it_was_made_of():
    make({"texts": "abc", "model": "minilm"})
    (folder,) = storage.home().iterdir()
    assert json.loads((folder / "manifest.json").read_text())["made_of"] == {"texts": "abc", "model": "minilm"}


def _write(number):
    return storage.artifact("greeting", {"a": 1}, write, load)


def test_writers_at_the_same_time_leave_one_whole_artifact():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_write, range(12)) == ["hello"] * 12
    assert len(folders()) == 1
    assert make({"a": 1}) == ("hello", 0)
