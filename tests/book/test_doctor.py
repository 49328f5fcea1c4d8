"""recbook doctor: what is installed, needed, cached; true, fast, and not to be broken by a broken package."""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import build_book
from recbook.book import doctor

ROOT = Path(build_book.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Metadata as pyproject.toml has them, all packages there at version 9999; no cache yet."""
    requires = list(PROJECT["dependencies"])
    for extra, lines in PROJECT["optional-dependencies"].items():
        requires += [f'{line}; extra == "{extra}"' for line in lines]
    names = {re.match(r"[\w.-]+", line)[0] for line in requires}
    versions = dict.fromkeys(names, "9999.0")

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        if isinstance(versions[name], Exception):
            raise versions[name]
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    return versions


@pytest.mark.parametrize("path", sorted((ROOT / "lessons_py").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_a_chapter_needs_what_its_first_cell_installs(path):
    asked = re.search(r"'recbook\[([\w,]+)\]==", path.read_text(encoding="utf-8"))
    assert doctor.CHAPTERS[path.stem] == asked[1]


def test_the_extras_of_chapters_are_extras_of_the_project():
    extras = {extra for text in (*doctor.CHAPTERS.values(), doctor.COMMANDS) for extra in text.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"]) and extras == set(
        re.search(r"\[(.+)\]", PROJECT["optional-dependencies"]["all"][0])[1].split(",")
    )


def test_all_there(world):
    known = doctor.doctor_report()
    assert known["complete"] and {package["state"] for package in known["packages"].values()} == {"ok"}
    assert known["packages"]["torch"]["extras"] == ["embeddings", "language"]
    assert known["packages"]["numpy"] == {"version": "9999.0", "wanted": ">=1.26", "extras": ["core"], "state": "ok"}
    assert not {"jupyterlab", "pytest", "recbook"} & set(known["packages"])  # the book's and the tests' own
    assert all(chapter["install"] is None for chapter in known["chapters"].values())
    assert json.loads(json.dumps(known)) == known


def test_a_package_that_is_missing_is_named_where_it_is_needed(world, capsys):
    del world["faiss-cpu"]
    known = doctor.doctor_report()
    assert known["complete"]  # it is no part of the core
    lacking = {chapter for chapter, needs in known["chapters"].items() if needs["missing"]}
    assert lacking == {"04_search", "12_ranking", "16_distillation", "22_system"}
    assert known["chapters"]["04_search"]["missing"] == ["faiss-cpu"]
    assert known["chapters"]["04_search"]["install"] == "pip install 'recbook[receipts,embeddings,search]'"
    assert doctor.doctor_command(argparse.Namespace(json=False)) == 0
    told = capsys.readouterr().out
    assert re.search(r"faiss-cpu +- +search +missing, wanted >=1.8", told)
    assert re.search(r"04_search +needs faiss-cpu:\n +pip install 'recbook\[receipts,embeddings,search\]'", told)


def test_a_core_that_lacks_something_gives_exit_code_1(world, capsys):
    del world["scipy"]
    assert doctor.doctor_command(argparse.Namespace(json=True)) == 1
    known = json.loads(capsys.readouterr().out)
    assert not known["complete"] and known["chapters"]["01_cleaning"]["missing"] == ["scipy"]


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.3.9", "too old"), ("2.4", "ok"), ("2.4.0+cpu", "ok"), ("2.13.0", "ok"), ("2.10.0rc1", "ok"),
     ("1.99", "too old"), (None, "broken"), ("odd", "broken"), (OSError("gone"), "broken")],
)  # fmt: skip
def test_a_version_is_compared_with_what_is_wanted(world, version, state):
    world["torch"] = version
    assert doctor.installed()["torch"]["state"] == state
    assert ("torch" in doctor.doctor_report()["chapters"]["06_gpt"]["missing"]) == (state != "ok")


def test_metadata_that_are_not_there_or_older_than_an_extra_are_no_end(world, monkeypatch, capsys):
    old = [line for line in metadata.requires("recbook") if "ranking" not in line]
    monkeypatch.setattr(metadata, "requires", lambda name: old)
    assert doctor.doctor_report()["chapters"]["12_ranking"]["missing"] == ["recbook's extra ranking"]

    def nowhere(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nowhere)
    assert doctor.doctor_command(argparse.Namespace(json=False)) == 1
    assert "The core is not complete" in capsys.readouterr().out


def test_the_cache_is_listed_with_what_is_half_written(world, tmp_path):
    home = tmp_path / "home"
    for name in ("basket-model-0123456789abcdef", ".vocabulary-0123456789abcdef-x1y2", "training-0123456789abcdef"):
        (home / name).mkdir(parents=True)
        (home / name / "a").write_bytes(bytes(1_500_000))
    (home / "training-0123456789abcdef.lock").touch()
    os.utime(home / "basket-model-0123456789abcdef", (time.time() - 3 * 86_400,) * 2)
    cache = doctor.cached()
    rows = {row["kind"]: row for row in cache["artifacts"]}
    assert {kind: row["state"] for kind, row in rows.items()} == {
        "basket model": "ok", "vocabulary": "half-written", "training": "unfinished",
    }  # fmt: skip
    assert rows["basket model"]["days"] == pytest.approx(3, abs=0.1) and cache["mb"] == 4.5
    told = doctor.report_text(doctor.doctor_report())
    assert re.search(r"\.vocabulary-\S+ +1\.5 MB +0 h  half-written", told) and "3 days" in told
    assert max(map(len, told.splitlines())) <= 80 + len(str(home))


def test_a_cache_that_cannot_be_read_is_said_and_nothing_else_suffers(world, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setitem(sys.modules, "pooch", None)  # as if it were not installed
    known = doctor.doctor_report()
    assert known["complete"] and "pooch" in known["cache"]["error"]
    assert "Cached: not known" in doctor.report_text(known)


def test_what_the_machine_has():
    machine = doctor.machine_report()
    assert 1 <= machine["cores"] <= os.cpu_count()
    assert machine["memory_gb"] is None or 0.1 < machine["memory_gb"] < 100_000


def test_gpus_are_read_from_the_driver(monkeypatch, tmp_path):
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:01" / "information").write_text("Model: \t\t NVIDIA T4\nIRQ: 1\n")
    monkeypatch.setattr(doctor, "DRIVER", tmp_path)
    assert doctor.machine_report()["gpus"] == ["NVIDIA T4"]


def test_it_is_fast_and_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, time; start = time.perf_counter(); from recbook import doctor; doctor.told(doctor.report()); "
        "print([time.perf_counter() - start, *{name.partition('.')[0] for name in sys.modules}])"
    )
    surroundings = os.environ | {"RECBOOK_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=surroundings)
    seconds, *names = ast.literal_eval(done.stdout)
    assert seconds < 1 and not {"torch", "faiss", "numpy", "pandas", "matplotlib", "transformers"} & set(names)
    listed = {name.partition("=")[0].partition(">")[0] for name in PROJECT["dependencies"]}
    assert listed & set(names) <= {"pooch", "tqdm"}, doctor.__doc__
