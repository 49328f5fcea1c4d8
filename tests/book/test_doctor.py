"""recbook doctor: what is installed, needed, missing; true, fast, and not to be broken by a broken package."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import build_book
from recbook.book import doctor

ROOT = Path(build_book.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Metadata as pyproject.toml has them, all packages there, new enough; no cache yet."""
    requires = list(PROJECT["dependencies"])
    for extra, lines in PROJECT["optional-dependencies"].items():
        requires += [f'{line}; extra == "{extra}"' for line in lines]
    wanted = [Requirement(line) for line in requires]
    pins = {one.name: [part.version for part in one.specifier if part.operator == "=="] for one in wanted}
    versions = {name: (pinned or ["9999.0"])[0] for name, pinned in pins.items()}

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
    assert doctor.CHAPTER_EXTRAS[path.stem] == asked[1]


def test_the_extras_of_chapters_are_extras_of_the_project():
    extras = {extra for text in (*doctor.CHAPTER_EXTRAS.values(), doctor.COMMANDS) for extra in text.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"]) and extras == set(
        re.search(r"\[(.+)\]", PROJECT["optional-dependencies"]["all"][0])[1].split(",")
    )


def test_all_there(world):
    known = doctor.doctor_report()
    assert known["complete"] and all(package["ok"] for package in known["packages"].values())
    assert known["packages"]["torch"]["extras"] == ["embeddings", "language"]
    assert known["packages"]["numpy"] == {"version": "9999.0", "wanted": ">=1.26", "extras": ["core"], "ok": True}
    assert not {"jupyterlab", "pytest", "recbook"} & set(known["packages"])  # the book's and the tests' own
    assert not any(known["chapters"].values()) and not known["commands"]
    assert json.loads(json.dumps(known)) == known


def test_a_package_that_is_missing_is_named_where_it_is_needed(world, capsys):
    del world["faiss-cpu"]
    known = doctor.doctor_report()
    assert known["complete"]  # it is no part of the core
    lacking = {chapter for chapter, missing in known["chapters"].items() if missing}
    assert lacking == {"04_search", "12_ranking", "16_distillation", "22_system"}
    assert known["chapters"]["04_search"] == ["faiss-cpu"] == known["commands"]
    assert doctor.doctor_command(as_json=False) == 0
    told = capsys.readouterr().out
    assert re.search(r"faiss-cpu +- +search +missing or too old, wanted >=1.8", told)
    assert re.search(r"04_search +needs faiss-cpu:\n +pip install 'recbook\[receipts,embeddings,search\]'", told)


def test_a_core_that_lacks_something_gives_exit_code_1(world, capsys):
    del world["scipy"]
    assert doctor.doctor_command(as_json=True) == 1
    known = json.loads(capsys.readouterr().out)
    assert not known["complete"] and known["chapters"]["01_cleaning"] == ["scipy"]


@pytest.mark.parametrize(
    ("version", "ok"),
    [("2.3.9", False), ("2.4", True), ("2.4.0+cpu", True), ("2.13.0", True), ("2.10.0rc1", True), ("1.99", False),
     (None, False), (OSError("gone"), False)],
)  # fmt: skip
def test_a_version_is_compared_with_what_is_wanted(world, version, ok):
    world["torch"] = version
    assert doctor.installed_packages()["torch"]["ok"] == ok
    assert ("torch" in doctor.doctor_report()["chapters"]["06_gpt"]) != ok


def test_metadata_that_are_not_there_or_older_than_an_extra_are_no_end(world, monkeypatch, capsys):
    old = [line for line in metadata.requires("recbook") if "ranking" not in line]
    monkeypatch.setattr(metadata, "requires", lambda name: old)
    assert doctor.doctor_report()["chapters"]["12_ranking"] == ["recbook's extra ranking"]

    def nowhere(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nowhere)
    assert doctor.doctor_command(as_json=False) == 1
    assert "The core is not complete" in capsys.readouterr().out


def test_it_says_where_artifacts_are(world, monkeypatch):
    assert doctor.doctor_report()["cache"] == os.environ["RECBOOK_HOME"] in doctor.report_text(doctor.doctor_report())
    monkeypatch.delenv("RECBOOK_HOME")
    assert "your cache folder" in doctor.report_text(doctor.doctor_report())


def test_it_is_fast_and_imports_none_of_the_packages_that_it_speaks_of():
    code = (
        "import sys, time; start = time.perf_counter(); from recbook.book import doctor; "
        "doctor.report_text(doctor.doctor_report()); "
        "print([time.perf_counter() - start, *{name.partition('.')[0] for name in sys.modules}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *names = ast.literal_eval(done.stdout)
    listed = {re.match(r"[\w-]+", name)[0].replace("-", "_") for name in PROJECT["dependencies"]}
    assert seconds < 1 and listed & set(names) == {"packaging"}
