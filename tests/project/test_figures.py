"""Figures on record: where they come from, the plan that measures them, and what of it is stale."""

import json
import re
import subprocess
import sys
import time

import pytest

import build_book
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data
from recbook.cleaning import shop
from tests.project.files import ROOT

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


def test_the_readme_shows_the_measured_scoreboard():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in build_book.BOARD)
    shown = text[begin + len(build_book.BOARD[0]) : end].strip()
    assert shown == build_book.board(), "the README's scoreboard is not that of results/: python build_book.py readme"
