"""The package as a whole: what imports what, what is dead, what types and linters say."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict

import pytest

from recbook import freshness
from tests.project.files import ROOT, parsed, tracked

HEAVY = {"torch", "faiss", "sklearn", "pandas", "numpy", "scipy", "matplotlib", "sentence_transformers", "transformers"}


MODULES = sorted((ROOT / "recbook").rglob("*.py"))


def test_importing_the_package_is_instant_and_brings_in_nothing_heavy():
    code = (
        "import sys, time; start = time.perf_counter(); import recbook; seconds = time.perf_counter() - start; "
        "print(seconds, *{name.partition('.')[0] for name in sys.modules})"
    )
    seconds, *names = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(names) & HEAVY == set()
    assert float(seconds) < 0.5


def test_a_room_imports_only_from_those_below_it():
    """import-linter holds the order that pyproject.toml states; it sees imports in functions and for type checkers."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_an_import_from_above_is_seen(tmp_path):
    shutil.copytree(ROOT / "recbook", tmp_path / "recbook", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "recbook" / "storage.py").open("a") as file:
        file.write("\nif TYPE_CHECKING:\n    from recbook.cleaning import receipts\n")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "recbook.storage is not allowed to import recbook.cleaning" in done.stdout


def test_nothing_is_dead():
    """No function that no chapter, room, benchmark or command uses; pyproject.toml says what is used by others."""
    done = subprocess.run([sys.executable, "-m", "vulture"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_public_name_stands_for_one_thing():
    """Functions, classes and constants that other modules may import: none is defined in two modules."""
    found = defaultdict(set)
    for path in MODULES:
        if "exercises" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            parts = [part for target in targets if target for part in ast.walk(target)]
            names = [part.id for part in parts if isinstance(part, ast.Name)]
            names += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            for name in names:
                found[name].add(path)
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name[0] != "_"} == {}


@pytest.mark.parametrize("room", sorted(path.parent.name for path in (ROOT / "recbook").glob("*/__init__.py")))
def test_a_room_holds_no_code_of_its_own_and_says_in_which_order_to_read_it(room):
    folder = ROOT / "recbook" / room
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1, "a room's __init__ is its docstring, nothing else"
    missing = [path.stem for path in folder.glob("[a-z]*.py") if f"`{path.stem}`" not in ast.get_docstring(tree)]
    assert missing == [], "the room's __init__ does not say where to read them"


def test_every_name_that_is_imported_from_the_package_is_there():
    """Also in files that no other test runs, such as the one that draws the README's pictures."""
    for path in tracked():
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.suffix == ".py" else ast.Module([])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "recbook":
                for alias in node.names:
                    there = hasattr(importlib.import_module(node.module), alias.name)
                    assert there or freshness.module(f"{node.module}.{alias.name}"), (path, alias.name)


def test_chapters_import_neither_tests_nor_benchmarks():
    for path, tree in parsed("lessons_py").items():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in {"tests", "benchmarks", "build_book"}], path


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("S102", "exec(x)"),
        ("S301", "import pandas as pd\npd.read_pickle(x)"),
        ("S307", "eval(x)"),
        ("S602", "import subprocess\nsubprocess.run(x, shell=True)"),
        ("S605", "import os\nos.system(x)"),
        ("TID251", "from joblib import load"),
        *[("TID251", f"import {name}") for name in ("pickle", "dill", "cloudpickle", "shelve", "marshal")],
        ("D100", "x = 1"),
        ("D101", "class A: ..."),
        ("D102", "class A:\n    def f(self): ..."),
        ("D103", "def f(): ..."),
    ],
)
def test_ruff_sees_what_is_unsafe_or_has_no_docstring(rule, code):
    command = [sys.executable, "-m", "ruff", "check", "--output-format=json", "--stdin-filename=recbook/a.py", "-"]
    done = subprocess.run(command, cwd=ROOT, input=code, capture_output=True, text=True)
    assert rule in {found["code"] for found in json.loads(done.stdout)}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda command: command[0])
def test_ruff_finds_nothing(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.slow
def test_types_are_sound():
    """Mypy reads the whole package as pyproject.toml says; the first time it also reads the libraries' types."""
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
