"""The project as a whole: what is installed, what imports what, what a stranger would trip over."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
import yaml

import build_book
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


def test_make_bench_measures_every_figure_on_record_and_takes_other_receipts():
    commands = dict(build_book.plan())
    for name, results in RESULTS.items():
        if name != "chapters":
            script, _, options = results["command"].partition(" --")
            cut = options.partition("--cut ")[2]
            assert script in commands[name] and cut in commands[name], results["command"]
    assert all("online-retail" not in command for _, command in build_book.plan("my till.csv"))
    assert any("--data 'my till.csv'" in command for _, command in build_book.plan("my till.csv"))


def test_a_figure_is_stale_when_its_code_or_its_data_is_another(monkeypatch):
    name, command = "tokens_online-retail", "python benchmarks/tokens.py --data online-retail"
    sound = {"code": results_files.code_behind(command)}
    sound["data"] = {"name": "Online Retail", "sha256": results_files.ONLINE_RETAIL_SHA256}
    kept = dict(sound)
    monkeypatch.setattr(results_files, "load_results", lambda name: kept)
    assert build_book.why_stale(name, command) == ""
    kept["code"] = "0" * 64
    assert "code" in build_book.why_stale(name, command)
    kept |= sound | {"data": {"name": "Online Retail", "sha256": "0" * 64}}
    assert "data" in build_book.why_stale(name, command)
    del kept["code"]
    assert build_book.why_stale(name, command) and "not yet" in build_book.why_stale("nothing", command)


def test_the_code_behind_a_figure_is_the_script_and_what_it_imports():
    behind = results_files.code_behind
    assert behind("python benchmarks/tokens.py --data embedded") == behind("python benchmarks/tokens.py --data x.csv")
    assert behind("python benchmarks/tokens.py") != behind("python benchmarks/search.py") != behind("recbook score")


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_public_thing_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    public += [
        method
        for node in public
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name[0] != "_"
    ]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert [node.name for node in public if not ast.get_docstring(node)] == []


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


def test_nothing_unsafe_is_called():
    for path, tree in parsed("recbook", "lessons_py", "benchmarks", "build_book.py").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"pickle", "dill", "cloudpickle", "shelve", "marshal"}, path
            if isinstance(node, ast.Call):
                assert not unsafe(node), f"{path}:{node.lineno}"


def unsafe(call: ast.Call) -> bool:
    """Whether a call runs text as code, or loads what can run code."""
    name = ast.unparse(call.func)
    true = {word.arg for word in call.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
    return (
        name in {"eval", "exec", "os.system", "joblib.load", "pd.read_pickle", "pandas.read_pickle"}
        or (name == "torch.load" and "weights_only" not in true)
        or bool(true & {"allow_pickle", "trust_remote_code", "shell"})
    )


@pytest.mark.parametrize(
    "code",
    ["eval(x)", "torch.load(f)", "np.load(f, allow_pickle=True)", "subprocess.run(x, shell=True)", "pd.read_pickle(f)"],
)
def test_an_unsafe_call_is_seen(code):
    assert unsafe(ast.parse(code).body[0].value)
    assert not unsafe(ast.parse("torch.load(f, weights_only=True)").body[0].value)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda command: command[0])
def test_ruff_finds_nothing(command):
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


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
        "tests/test_browser.py",
    ]
    surroundings = os.environ | {"PATH": str(tmp_path), "RECBOOK_NEEDS_BROWSER": needed}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert (done.returncode, word in done.stdout, "no chromium" in done.stdout) == (code, True, True), done.stdout
    assert "export RECBOOK_NEEDS_BROWSER=1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
