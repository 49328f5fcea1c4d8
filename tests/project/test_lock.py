"""The lock: it covers what is installed, within the ranges of the project, for the oldest Python that it promises."""

import re
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import build_book

ROOT = Path(build_book.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
ASKED = [requirement for requirement in map(Requirement, LINES) if requirement.name != "recbook"]


def locked(folder: Path = ROOT) -> dict[str, str]:
    """The version of each locked package."""
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


# ---- what it holds -------------------------------------------------------------------------------------------------


def test_the_lock_pins_every_package_to_one_plain_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines[1:] if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    assert len(locked()) == len(lines) - 1


def test_the_lock_covers_all_that_the_book_and_its_tests_install():
    """As this interpreter on this system would install them; on Linux, that is what the lock promises.

    Other systems add platform packages of their own (colorama on Windows), unlocked: the head of the lock says so.
    """
    needed = {name for name, _ in required("recbook", "test")} - {"recbook"}
    assert {canonicalize_name(requirement.name) for requirement in ASKED} <= needed, "not all extras were followed"
    assert sorted(needed - set(locked())) == []


def required(package: str, extra: str) -> set[tuple[str, frozenset[str]]]:
    """A package and all that it requires, directly or not, each with the extras asked of it."""
    wanted, seen = [(package, frozenset({extra}))], set()
    while wanted:
        name, extras = wanted.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            pytest.fail(f"{name} is required and not installed: install recbook[test]")
        for requirement in map(Requirement, requires):
            holds = [not requirement.marker or requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}]
            if any(holds):
                wanted.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return seen


def test_the_lock_is_within_the_ranges_of_the_project():
    for requirement in ASKED:
        assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)]), requirement


# ---- the oldest Python ---------------------------------------------------------------------------------------------


def too_new(wants: dict[str, str]) -> dict[str, str]:
    """Of packages and the Pythons that they want (their Requires-Python), those that the oldest one does not suit."""
    oldest = build_book.oldest_python()
    return {name: pythons for name, pythons in wants.items() if not SpecifierSet(pythons).contains(oldest)}


def test_the_oldest_python_is_the_first_release_that_the_project_admits():
    oldest = build_book.oldest_python()
    assert re.fullmatch(r"3\.\d+\.0", oldest)
    assert PROJECT["requires-python"] == f">={oldest.removesuffix('.0')}"


def test_every_locked_package_admits_the_oldest_python():
    """As the installed packages say, so they must be those of the lock.

    Beside a build of torch for the CPU, what its build for CUDA needs is locked and not installed: it is left out.
    """
    wants, others = {}, {}
    for name, version in locked().items():
        try:
            metadata = distribution(name).metadata
        except PackageNotFoundError:
            continue
        wants[name] = metadata["Requires-Python"] or ""
        if metadata["Version"].partition("+")[0] != version:
            others[name] = metadata["Version"]
    assert others == {}, "installed are other versions than the lock's: install it (make test)"
    assert too_new(wants) == {}


def test_a_package_that_wants_a_newer_python_is_seen():
    wants = {"any": "", "older": ">=3.9", "this": ">=3.11", "later": ">=3.11.5", "next": ">=3.12", "last": "<3.11"}
    assert set(too_new(wants)) == {"later", "next", "last"}


# ---- making it -----------------------------------------------------------------------------------------------------


def add_release(index: Path, name: str, version: str, requires_python: str, *requires: str) -> None:
    """Put an empty package's wheel into a folder that pip reads as a package index."""
    wheel = f"{name}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {requires_python}\n"
    (index / name).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(index / name / wheel, "w") as file:
        info = f"{name}-{version}.dist-info"
        file.writestr(f"{info}/METADATA", metadata + "".join(f"Requires-Dist: {line}\n" for line in requires))
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    wants = requires_python.replace(">", "&gt;").replace("<", "&lt;")
    with (index / name / "index.html").open("a", encoding="utf-8") as page:
        page.write(f'<a href="{wheel}" data-requires-python="{wants}">{wheel}</a>\n')


def test_make_lock_resolves_for_the_oldest_python_whichever_runs_it(tmp_path, monkeypatch):
    """On a small index: releases and markers are chosen for Python 3.11.0, and torch stays where it is."""
    index = tmp_path / "index"
    add_release(index, "torch", "1.0", ">=3.8")
    add_release(index, "torch", "2.0", ">=3.8")
    add_release(
        index, "sieve", "2.0", ">=3.8", "backport; python_full_version < '3.11.1'", "late; python_version > '3.11'"
    )
    add_release(index, "sieve", "2.1", ">=3.11.1")
    add_release(index, "backport", "1.0", ">=3.8")
    (tmp_path / "recbook").mkdir()
    (tmp_path / "recbook" / "__init__.py").touch()
    (tmp_path / "constraints.txt").write_text("# the head\nsieve==2.1\ntorch==1.0\n")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "recbook"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["torch"]\n'
        '[project.optional-dependencies]\ntest = ["sieve"]\n'
    )
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(build_book, "BUILD", tmp_path / "_build")
    monkeypatch.setenv("PIP_INDEX_URL", index.as_uri())
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "false")  # which, for this variable, sets isolation aside
    build_book.lock()
    assert locked(tmp_path) == {"backport": "1.0", "sieve": "2.0", "torch": "1.0"}
    assert not (tmp_path / "_build").exists()
