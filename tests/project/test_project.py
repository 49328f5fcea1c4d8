"""The project as a whole: what is installed, what imports what, what a stranger would trip over."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
import yaml

import build_book
from recbook import freshness
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data
from recbook.cleaning import shop

ROOT = Path(build_book.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = sorted((ROOT / "recbook").rglob("*.py"))

HEAVY = {"torch", "faiss", "sklearn", "pandas", "numpy", "scipy", "matplotlib", "sentence_transformers", "transformers"}


def tracked() -> list[Path]:
    """The files that are in the repository, or will be: all but the ignored ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> dict[Path, str]:
    """The text of every tracked file that is text."""
    found = {}
    for path in tracked():
        try:
            found[path] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # a picture
            continue
    return found


def parsed(*folders: str) -> dict[Path, ast.Module]:
    """The syntax trees of the tracked Python files in these folders (and of build_book.py)."""
    files = [path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}


# ---- installing ----------------------------------------------------------------------------------------------------


def test_environment_yml_asks_for_what_the_project_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    packages = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    extras = PROJECT["optional-dependencies"]
    wanted = {line for name in extras if name != "test" for line in extras[name]} | set(PROJECT["dependencies"])
    assert sorted(packages) == sorted([line for line in wanted if not line.startswith("recbook[")] + ["-e ."])
    assert f"python{PROJECT['requires-python']}" in environment


def test_the_address_of_the_repository_stands_in_one_place():
    owner_and_name = build_book.repository().removeprefix("https://github.com/")
    texts_with_it = [path for path, text in texts().items() if owner_and_name in text and path.suffix != ".ipynb"]
    assert texts_with_it == [ROOT / "pyproject.toml"]
    for path in (ROOT / "book").glob(
        "*.ipynb"
    ):  # its outputs may show the address: code printed it, a test compares it
        assert owner_and_name not in "".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def images(markdown: str) -> list[str]:
    """The addresses of a page's images, in Markdown or HTML, less those on the web."""
    found = re.findall(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)", markdown) + re.findall(
        r"<img[^>]*\bsrc=[\"']([^\"']+)", markdown
    )
    return [address for address in found if "://" not in address]


def test_images_of_the_readme_are_there():
    shown = images((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown and [address for address in shown if ROOT / address not in tracked()] == []


def test_images_of_a_page_are_found():
    page = '![a b](c/d.png) ![](e.svg "title") <img width="3" src="f.png"> ![](https://g.org/h.png) [i](j.png)'
    assert images(page) == ["c/d.png", "e.svg", "f.png"]


# ---- figures on record ---------------------------------------------------------------------------------------------

RESULTS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "results").glob("*.json"))
}


def outdated(results: dict, embedded: dict) -> list[str]:
    """What is wrong with where a results file comes from: a shop that is another now, or code that is in no commit."""
    complaints = []
    if results["data"]["name"] == embedded["name"] and results["data"] != embedded:
        complaints.append("measured on another embedded shop than today's (run: make bench)")
    if results["commit"].endswith("+changes") and results["name"] != "chapters":  # refreshed before what it goes with
        complaints.append("made by code that no commit has (commit, then run: make bench)")
    return complaints


@pytest.fixture(scope="module")
def embedded() -> dict:
    return describe_data(shop.simulate(seed=0).receipts, "embedded shop")


@pytest.mark.parametrize("name", RESULTS)
def test_figures_come_from_the_shop_of_today_and_from_a_commit(name, embedded):
    assert RESULTS[name]["name"] == name
    assert outdated(RESULTS[name], embedded) == []


def test_figures_of_another_shop_or_of_no_commit_are_seen(embedded):
    sound = {"name": "a", "data": embedded, "commit": "0123"}
    assert outdated(sound, embedded) == []
    assert len(outdated(sound | {"data": embedded | {"sha256": "0"}}, embedded)) == 1
    assert len(outdated(sound | {"commit": "0123+changes"}, embedded)) == 1
    assert outdated(sound | {"data": embedded | {"name": "Online Retail", "sha256": "0"}}, embedded) == []


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmark_says_how_it_is_used_and_make_bench_runs_it(script):
    done = subprocess.run([sys.executable, str(script), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage:" in done.stdout, done.stderr[-2000:]
    ours = [command.split() for _, command in build_book.plan() if f"benchmarks/{script.name}" in command]
    assert ours, "make bench does not run it"
    if parts := re.search(r"^  \{([\w,-]+)\}$", done.stdout, re.MULTILINE):  # the script does one of several things
        assert {words[2] for words in ours} <= set(parts[1].split(","))


def test_the_plan_has_every_figure_on_record_with_its_options():
    commands = dict(build_book.plan())
    usual = {"--baselines", "--cut", "2011-11-09"}  # a file may say the default cut, or have measured the GPT as well
    for name, results in RESULTS.items():
        if name != "chapters":
            ours, theirs = (set(build_book.options_of(c)) for c in (commands[name], results["command"]))
            assert ours ^ theirs <= usual, (commands[name], results["command"])


@pytest.fixture
def little_plan(tmp_path, monkeypatch):
    """Two figures, one of them on the real receipts, one that a step prepares; and what would be run of them."""
    (tmp_path / "benchmarks" / "deep").mkdir(parents=True)
    (tmp_path / "recbook").mkdir()
    for name, text in {
        "recbook/__init__.py": "", "recbook/ground.py": "X = 1\n",
        "benchmarks/easy.py": "from recbook import ground\n", "benchmarks/deep.py": "", "benchmarks/deep/first.py": "",
        "benchmarks/plan.txt": (
            "# what is measured\neasy  python benchmarks/easy.py --data REAL --cut 1\n"
            "-     python benchmarks/deep/first.py\ndeep  python benchmarks/deep.py\n"
        ),
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(results_files.freshness, "PACKAGE", tmp_path / "recbook")
    kept = {
        "easy": {"command": "python benchmarks/easy.py --data online-retail --cut 1"},
        "deep": {"command": "python benchmarks/deep.py"},
    }
    for figures in kept.values():
        figures["code"] = results_files.code_behind(figures["command"])
        figures["data"] = {"name": "Online Retail", "sha256": results_files.ONLINE_RETAIL_SHA256}
    monkeypatch.setattr(results_files, "has_results", kept.__contains__)
    monkeypatch.setattr(results_files, "load_results", kept.__getitem__)
    ran = []
    monkeypatch.setattr(build_book, "call", lambda command: ran.append(command[1:]))
    return tmp_path, kept, ran


def test_bench_runs_nothing_where_all_is_fresh(little_plan, capsys):
    build_book.bench("online-retail")
    assert little_plan[2] == [] and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("file", "stale"),
    [
        ("recbook/ground.py", ["easy"]), ("benchmarks/easy.py", ["easy"]), ("benchmarks/deep.py", ["deep"]),
        ("benchmarks/deep/first.py", ["deep"]), ("recbook/other.py", []),
    ],
)  # fmt: skip
def test_bench_runs_what_has_other_code_now_after_what_prepares_it(little_plan, file, stale):
    root, _, ran = little_plan
    (root / file).write_text("X = 2\n")
    build_book.bench("online-retail", only_list=True)
    assert ran == []
    build_book.bench("online-retail")
    easy = [["benchmarks/easy.py", "--data", "online-retail", "--cut", "1"]]
    deep = [["benchmarks/deep/first.py"], ["benchmarks/deep.py"]]
    assert ran == {"easy": easy, "deep": deep}[stale[0]] if stale else ran == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": "python benchmarks/easy.py --data online-retail --cut 2"}, "other options"),
        ({"data": {"name": "online_retail.csv", "sha256": "0"}}, "other receipts"),
        ({"code": None}, "without a record"),
    ],
)
def test_bench_says_why_a_figure_is_stale(little_plan, capsys, change, words):
    little_plan[1]["easy"] |= change
    build_book.bench("online-retail")
    assert words in capsys.readouterr().out and len(little_plan[2]) == 1


def test_bench_measures_other_receipts_whatever_their_name(little_plan, capsys, monkeypatch, tmp_path):
    receipts = tmp_path / "online retail.csv"
    receipts.write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
        "1,85123A,MUG,1,12/31/2010 8:26,2.5,17850,France\n"
    )
    build_book.bench(str(receipts))
    assert little_plan[2] == [["benchmarks/easy.py", "--data", str(receipts), "--cut", "1"]]


def test_what_is_written_while_it_is_measured_is_not_taken_for_what_ran(little_plan, monkeypatch, tmp_path):
    root, _, _ = little_plan
    data = {"name": "a", "sha256": "b", "rows": 1}
    told = dict(command="python benchmarks/easy.py", data=data, seconds=1, folder=tmp_path / "results")
    monkeypatch.setattr(results_files, "STARTED", time.time() + 60)
    assert json.loads(results_files.save_results("trial", [], **told).read_text())["code"]
    monkeypatch.setattr(results_files, "STARTED", time.time() - 60)
    assert json.loads(results_files.save_results("trial", [], **told).read_text())["code"] is None


# ---- the package ---------------------------------------------------------------------------------------------------


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


def test_the_readme_shows_the_measured_scoreboard():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in build_book.BOARD)
    shown = text[begin + len(build_book.BOARD[0]) : end].strip()
    assert shown == build_book.board(), "the README's scoreboard is not that of results/: python build_book.py readme"


# ---- the repository ------------------------------------------------------------------------------------------------


def test_no_file_knows_a_machine():
    folders = "|".join(["home", "Users", "root", "work", "farm"])
    hosts = "|".join([r"files\.python" + "hosted", r"deb\.deb" + "ian", r"registry\.npm" + "js"])
    pattern = re.compile(rf"(?<![\w.])/(?:{folders})/\w|[A-Z]:\\Users|{hosts}")
    found = {path.name: hit.group(0) for path, text in texts().items() if (hit := pattern.search(text))}
    assert found == {}


def test_nothing_loads_what_can_run_code():
    """The calls that ruff has no rule for; the next test but one names those that it has."""
    for path, tree in parsed("recbook", "lessons_py", "benchmarks", "build_book.py").items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Call) and unsafe(node)), f"{path}:{node.lineno}"


def unsafe(call: ast.Call) -> bool:
    """Whether an argument of a call lets the code run that a file or a repository holds."""
    true = {word.arg for word in call.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
    any_object = ast.unparse(call.func) == "torch.load" and "weights_only" not in true
    return any_object or bool(true & {"allow_pickle", "trust_remote_code"})


@pytest.mark.parametrize(
    "code", ["torch.load(f)", "np.load(f, allow_pickle=True)", "Model.from_pretrained(x, trust_remote_code=True)"]
)
def test_an_unsafe_call_is_seen(code):
    assert unsafe(ast.parse(code).body[0].value)
    assert not unsafe(ast.parse("torch.load(f, weights_only=True)").body[0].value)


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


def test_hooks_before_a_commit_run_what_is_installed_and_download_nothing():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system" and shutil.which(program, path=Path(sys.executable).parent), program


def test_makefile_offers_the_two_commands_and_says_so():
    said = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True).stdout
    assert "make book" in said and "make test" in said


def test_build_refuses_an_old_python(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "book", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "Python 3.11 or newer" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_make_test_installs_what_tests_need_and_make_book_only_what_the_book_needs(tmp_path):
    def installs(target: str) -> str:
        command = ["make", "-C", str(ROOT), "-n", target, f"VENV={tmp_path / 'venv'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return " ".join(re.findall(r"--editable '(.+?)'", done.stdout))

    assert (installs("book"), installs("test"), installs("lab")) == (".[book]", ".[test]", ".[book]")


@pytest.mark.parametrize(("needed", "code", "word"), [("1", 1, "error"), ("", 0, "skipped")])
def test_a_missing_browser_fails_where_it_is_needed_and_skips_elsewhere(needed, code, word, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-k",
        "first_page",
        "tests/book/test_browser.py",
    ]
    surroundings = os.environ | {"PATH": str(tmp_path), "RECBOOK_NEEDS_BROWSER": needed}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert (done.returncode, word in done.stdout, "no chromium" in done.stdout) == (code, True, True), done.stdout
    assert "export RECBOOK_NEEDS_BROWSER=1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
