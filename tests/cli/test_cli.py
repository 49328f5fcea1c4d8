"""The command line as a user meets it: what it prints, what it writes, and how it fails."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from recbook import cli
from recbook.baselines.results import ONLINE_RETAIL_SHA256
from recbook.system import scoring
from tests.real import REAL, needs_real


@pytest.fixture(scope="module")
def till(tmp_path_factory):
    """A file of raw receipts: 60 shoppers, 30 products, from January to mid June 2011."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2011-01-01 10:00", "2011-06-15 10:00", periods=900)
    product = rng.integers(30, size=900)
    frame = pd.DataFrame(
        {
            "InvoiceNo": [f"{536000 + i // 3}" for i in range(900)],
            "StockCode": [f"{22000 + p}" for p in product],
            "Description": [f"{'RED' if p % 2 else 'BLUE'} THING {chr(65 + p)}" * 2 for p in product],
            "Quantity": 2,
            "InvoiceDate": days[np.arange(900) // 3 * 3].strftime("%Y-%m-%d %H:%M:%S"),
            "UnitPrice": 1.25,
            "CustomerID": rng.integers(12000, 12060, 300)[np.arange(900) // 3],
            "Country": "United Kingdom",
        }
    )
    path = tmp_path_factory.mktemp("data") / "My Till.csv"
    frame.to_csv(path, index=False)
    return path


def test_score_prints_the_scoreboard_and_saves_it(till, tmp_path, capsys):
    assert cli.main(["score", "--data", str(till), "--cut", "2011-06-01", "--out", str(tmp_path), "--baselines"]) == 0
    output = capsys.readouterr()
    assert re.search(r"My Till.csv, cut 2011-06-01: \d+ shoppers, 30 products", output.out)
    for method in ("popularity", "personal frequency", "item-kNN", "EASE", "blend", "text profile"):
        assert re.search(rf"^{re.escape(method)} +0\.\d{{3}} \[0\.\d{{3}}, [01]\.\d{{3}}\]", output.out, re.MULTILINE)
    assert "EASE …" in output.err and "wrote" in output.err  # progress stays off the table
    (path,) = tmp_path.iterdir()
    assert path.name == "scoreboard_my-till_2011-06-01.json"
    kept = json.loads(path.read_text())
    assert kept["data"]["name"] == "My Till.csv" and kept["data"]["rows"] == 900
    assert kept["command"] == "recbook score --data 'My Till.csv' --baselines --cut 2011-06-01"
    assert str(till.parent) not in path.read_text()
    headline = {(row.get("method"), row["split"]) for row in kept["rows"] if row["metric"] == "ndcg@10"}
    assert len(headline) == 7 * 3


def test_the_gpt_stands_in_the_scoreboard_beside_the_baselines(till, tmp_path, capsys):
    assert cli.main(["score", "--data", str(till), "--cut", "2011-06-01", "--out", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert re.search(r"^BasketGPT +0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\]", output.out, re.MULTILINE)
    kept = json.loads((tmp_path / "scoreboard_my-till_2011-06-01.json").read_text())
    assert len({row.get("method") for row in kept["rows"] if row["metric"] == "ndcg@10"}) == 8


def test_the_usual_cut_has_the_short_name(till, tmp_path):
    assert cli.main(["score", "--data", str(till), "--out", str(tmp_path), "--baselines"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scoreboard_my-till.json"]
    assert cli.main(["score", "--data", str(till), "--out", str(tmp_path), "--name", "mine", "--baselines"]) == 0
    assert (tmp_path / "mine.json").exists()


def test_a_users_figures_stay_in_the_users_folder(till, tmp_path, monkeypatch):
    """A checkout's results/ are shipped with the package: only the book's own data go there."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["score", "--data", str(till), "--baselines"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["scoreboard_my-till.json"]


@pytest.mark.parametrize(
    "data, product_code, sha256, theirs",
    [
        ("embedded", None, "0", True),
        ("embedded", r"\d+", "0", False),  # cleaned in another way: other figures under the same name
        ("a copy.csv", None, ONLINE_RETAIL_SHA256, True),
        ("online retail.csv", None, "0", False),  # the name alone says nothing
    ],
)
def test_the_books_data_are_known_by_content(data, product_code, sha256, theirs):
    assert scoring.of_the_book(data, product_code, sha256) == theirs


def test_other_codes_and_dates_are_read_as_told(till, tmp_path, capsys):
    frame = pd.read_csv(till, dtype=str)
    frame["StockCode"] = "SKU-" + frame["StockCode"]
    frame["InvoiceDate"] = pd.to_datetime(frame["InvoiceDate"]).dt.strftime("%Y~%m~%d %H:%M")
    frame.to_csv(tmp_path / "other.csv", index=False)
    command = ["score", "--data", str(tmp_path / "other.csv"), "--out", str(tmp_path / "kept")]
    assert cli.main(command) == 2 and "--date-format" in capsys.readouterr().err
    command += ["--date-format", "%Y~%m~%d %H:%M"]
    assert cli.main(command) == 2 and "--product-code" in capsys.readouterr().err
    assert cli.main([*command, "--product-code", "SKU-[0-9]+", "--baselines"]) == 0
    kept = json.loads((tmp_path / "kept" / "scoreboard_other.json").read_text())
    again = "--date-format '%Y~%m~%d %H:%M'"
    assert kept["command"].startswith("recbook score --data other.csv --baselines --cut") and again in kept["command"]
    assert "--product-code 'SKU-[0-9]+'" in kept["command"]
    assert cli.main([*command, "--product-code", "SKU-[", "--baselines"]) == 2
    assert "is not a regular expression" in capsys.readouterr().err


def test_cleaning_is_accounted_for_and_odd_codes_are_warned_of(till, tmp_path, capsys):
    frame = pd.read_csv(till, dtype=str).drop_duplicates().head(800)
    frame.to_csv(tmp_path / "good.csv", index=False)
    cli.main(["score", "--data", str(tmp_path / "good.csv"), "--out", str(tmp_path), "--baselines"])
    assert "kept 100.0% of the lines; removed: none" in (said := capsys.readouterr().err) and "warning" not in said
    frame.loc[frame.index[::10], "StockCode"] = "SKU-1"
    frame.loc[frame.index[1::10], "CustomerID"] = ""
    frame.to_csv(tmp_path / "odd.csv", index=False)
    cli.main(["score", "--data", str(tmp_path / "odd.csv"), "--out", str(tmp_path), "--baselines"])
    said = capsys.readouterr().err
    assert "kept 80.0% of the lines; removed: no customer 10.0%, not a product 10.0%\n" in said
    assert re.search("warning: 11% of the lines with a customer .* --product-code", said)  # 80 of 720


def test_a_catalogue_shorter_than_the_list(till, tmp_path, capsys):
    frame = pd.read_csv(till, dtype=str)
    few = frame[frame["StockCode"].isin(sorted(frame["StockCode"].unique())[:6])]
    few.to_csv(tmp_path / "few.csv", index=False)
    assert cli.main(["score", "--data", str(tmp_path / "few.csv"), "--out", str(tmp_path), "--baselines"]) == 0
    assert "6 products" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--cut", "yesterday"], "'--cut': 'yesterday' is no day of the calendar"),
        (["--cut", "2011-02-30"], "no day of the calendar"),
        (["--cut", "09/11/2011"], "no day of the calendar: write year-month-day"),
        (["--cut", "2009-01-01"], "before 2009-01-01"),
        (["--cut", "2012-01-01"], "span 2011-01-01 to 2011-06-15"),
        (["--name", "../up"], "cannot be named"),
        (["--data", "/no/such/file.csv"], "no file"),
        (["--data", "/"], "folder"),
        (["--data", __file__], "test_cli.py"),
        (["--out", __file__], "test_cli.py' is a file"),
        (["--out", f"{__file__}/below"], "name another folder"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(till, tmp_path, capsys, options, message):
    command = ["score", "--data", str(till), "--out", str(tmp_path), *options]
    assert cli.main(command) == 2
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("recbook: ")]
    assert len(errors) == 1 and message in errors[0] and output.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["build", "recommend", "chat", "score", "cache", "doctor"])
def test_every_command_has_help_that_fits_a_terminal_with_examples_and_exit_codes(command):
    asked = CliRunner(env={"COLUMNS": "80"}).invoke(cli.command_line, [command, "--help"])
    said = asked.stdout
    assert asked.exit_code == 0 and max(map(len, said.splitlines())) <= 80
    assert "0 done" in said and "2 the input is at fault" in said and "130" in said and "%%" not in said
    assert len(re.findall(rf"^    recbook {command}\b", said, re.MULTILINE)) >= 2
    assert CliRunner(env={"COLUMNS": "80"}).invoke(cli.command_line, [command, "-h"]).stdout == said


@pytest.mark.parametrize("command", ["build", "recommend", "chat", "score", "cache", "doctor"])
def test_the_examples_of_the_help_are_commands_that_would_run(command, monkeypatch, tmp_path):
    """Parsed up to the function that does the work."""
    monkeypatch.chdir(tmp_path)
    parser = cli.command_line.commands[command]
    for example in re.findall(rf"^  recbook {command}\b(.*)", parser.epilog, re.MULTILINE):
        assert parser.make_context(command, shlex.split(example)).params


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_an_answer_that_cannot_be_written_is_said(tmp_path):
    run, surroundings = [sys.executable, "-m", "recbook.cli", "doctor"], os.environ | {"RECBOOK_HOME": str(tmp_path)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, env=surroundings)
    assert done.returncode == 2 and re.fullmatch("recbook: .*No space left.*\n", done.stderr)


def test_help_version_and_a_wrong_command(capsys):
    assert cli.main(["score", "--help"]) == 0
    helped = capsys.readouterr().out
    assert "--cut DATE" in helped and "95% bootstrap" in helped
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out.startswith("recbook ")
    for wrong, message in [(["guess"], "'guess'"), ([], "Missing command"), (["recommend"], "'FOLDER'")]:
        assert cli.main(wrong) == 2
        said = capsys.readouterr()
        assert re.fullmatch(f"recbook: .*{message}.*--help says.*\n", said.err) and said.out == ""


@pytest.mark.parametrize(
    ("words", "offered"),
    [("recbook re", "recommend"), ("recbook recommend shop --pr", "--price-max"), ("recbook score --out ", "dir")],
)
def test_a_shell_completes_commands_options_and_folders(words, offered):
    """As README has it: bash asks the command itself how the line goes on."""
    asked = {"_RECBOOK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = recbook(env=os.environ | asked)
    assert done.returncode == 0 and offered in re.split("[,\n]", done.stdout)


def test_importing_the_command_line_is_instant():
    """Heavy libraries wait until a command needs them."""
    heavy = ("sklearn", "scipy", "torch", "faiss", "pandas", "numpy")
    code = f"import sys, recbook, recbook.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --- build, recommend, chat ------------------------------------------------------------------------------------------

PRODUCTS = {
    "85123A": ("RED RETROSPOT TEAPOT", 12.95), "22423": ("WHITE MUG", 3.75), "22632": ("RED MUG", 4.25),
    "21111": ("CERAMIC JUG", 2.5), "21112": ("GLASS JUG", 1.954321), "21113": ("TEA TOWEL", 6.0),
}  # fmt: skip


class Small:
    """A stub of a recommender over six products; `asked` records the arguments."""

    customers, seconds = [12346, 17850], {"clean": 1.2, "embed": 3.4}

    def __init__(self):
        self.catalogue = pd.DataFrame.from_dict(PRODUCTS, orient="index", columns=["description", "price"])
        self.asked = []

    def recommend(self, customer=None, history=None, query=None, k=5, explain=True, price_max=None, exclude=(), **rest):
        print("loaded from the cache")  # as libraries do; it must not reach stdout
        self.asked.append({"customer": customer, "history": history, "query": query, "exclude": list(exclude), **rest})
        if customer not in (None, *self.customers):
            raise ValueError(f"customer {customer} bought nothing so far")
        table = (
            self.catalogue.rename_axis("code").reset_index().assign(score=np.linspace(1, 0, 6), channel="basket GPT")
        )
        for word in exclude:
            hit = (table["code"] == word) | table["description"].str.contains(word, case=False)
            if word.upper() not in " ".join(self.catalogue["description"]) and word not in PRODUCTS:
                raise ValueError(f"no product has {word!r}")
            table = table[~hit]
        table = table[table["price"] <= (price_max or np.inf)].head(k)
        return table.assign(why="You bought the white mug in May. " * 4) if explain else table

    def save(self, folder):
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(1_500_000))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Replaces the module `recbook.system.recommender` by one that loads a Small from every folder; that Small."""
    made = Small()
    built = []

    class Recommender:
        load = staticmethod(lambda folder: made)

        @staticmethod
        def build(raw, product_code, say):
            built.append(product_code)
            say("learning")
            return made

    def check_recommender_place(folder):
        if folder.exists():
            raise ValueError(f"{folder} is there and holds no recommender")
        return folder

    monkeypatch.setitem(sys.modules, "recbook.system.recommender", types.SimpleNamespace(Recommender=Recommender))
    monkeypatch.setitem(
        sys.modules, "recbook.system.files", types.SimpleNamespace(check_recommender_place=check_recommender_place)
    )
    made.folder, made.built = str(tmp_path), built
    return made


def test_build_saves_a_recommender_and_reports_its_size(small, till, tmp_path, capsys):
    out = tmp_path / "new" / "shop"
    assert cli.main(["build", str(till), "--out", str(out)]) == 0
    said = capsys.readouterr()
    line = rf"kept {re.escape(str(out))}: 6 products, 2 customers, 1\.5 MB; \d+ seconds \(clean 1, embed 3\)\n"
    assert re.fullmatch(line, said.out)
    assert "of the lines; removed: " in said.err and "learning" in said.err and (out / "weights").exists()


@pytest.mark.parametrize(
    ("receipts", "out", "message"),
    [
        ("till", "taken", "holds no recommender"), ("till", "file/shop", "cannot be written"),
        ("nowhere.csv", "shop", "no file"), ("binary", "shop", "binary.csv"), ("empty", "shop", "empty.csv"),
        ("strange", "shop", "--product-code"),
    ],
)  # fmt: skip
def test_build_refuses_before_it_works(small, till, tmp_path, capsys, receipts, out, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "empty.csv").touch()
    pd.read_csv(till, dtype=str).assign(StockCode="A-1").to_csv(tmp_path / "strange.csv", index=False)
    given = till if receipts == "till" else tmp_path / f"{receipts.removesuffix('.csv')}.csv"
    assert cli.main(["build", str(given), "--out", str(tmp_path / out)]) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("recbook: ")]
    assert message in line and said.out == "" and small.built == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_build_refuses_a_folder_that_nobody_may_write(small, till, tmp_path, capsys):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert cli.main(["build", str(till), "--out", str(tmp_path / "locked" / "shop")]) == 2
    assert "cannot be written" in capsys.readouterr().err and small.built == []


def test_recommend_as_text_fits_a_terminal(small, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["recommend", small.folder, "--customer", "17850", "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r" 1  RED RETROSPOT TEAPOT +£12.95  85123A", lines[0])
    assert lines[1] == "    found by basket GPT, score 1" and max(map(len, lines)) <= 80
    assert sum(bool(re.match(r" \d  ", line)) for line in lines) == 3 and "    You bought the white mug" in lines[2]
    assert cli.main(["recommend", small.folder, "--no-explain", "--fast", "--new"]) == 0
    assert "You bought" not in capsys.readouterr().out and small.asked[-1]["fast"] and small.asked[-1]["new"]


def test_a_long_description_goes_on_below(small, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    small.catalogue.loc["85123A", "description"] = "A VERY LONG NAME OF A TEAPOT THAT NO COLUMN HOLDS"
    assert cli.main(["recommend", small.folder, "-k", "1"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == " 1  A VERY LONG NAME OF A TEAPOT         £12.95  85123A" and second == "    THAT NO COLUMN HOLDS"


def test_recommend_as_json_is_one_object_and_nothing_else(small, capsys):
    command = ["recommend", small.folder, "--json", "--history", "white mug; 85123A", "--history", "22632;"]
    command += [
        "--query",
        "tea",
        "--price-max",
        "£5",
        "--exclude",
        "glass",
        "--exclude",
        "ceramic",
        "--country",
        "France",
    ]
    assert cli.main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == [
        "customer",
        "history",
        "query",
        "price_max",
        "exclude",
        "new",
        "country",
        "when",
        "products",
    ]
    assert answer["history"] == ["white mug", "85123A", "22632"] and answer["exclude"] == ["glass", "ceramic"]
    assert (answer["customer"], answer["price_max"], answer["country"]) == (None, 5.0, "France")
    assert [product["code"] for product in answer["products"]] == ["22423", "22632"]
    assert list(answer["products"][0]) == ["code", "description", "price", "score", "channel", "why"]
    assert cli.main(["recommend", small.folder, "--json", "--no-explain", "--price-max", "2"]) == 0
    (product,) = json.loads(capsys.readouterr().out)["products"]
    assert product["price"] == 1.95 and product["why"] is None


def test_recommend_passes_on_the_day_of_asking(small, capsys):
    assert cli.main(["recommend", small.folder, "--json", "--when", "2011-12-24"]) == 0
    assert json.loads(capsys.readouterr().out)["when"] == small.asked[-1]["when"] == "2011-12-24"
    assert cli.main(["recommend", small.folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["when"] is small.asked[-1]["when"] is None


def test_bytes_that_are_no_text_of_the_terminals_are_read_as_utf_8(small, capsys):
    """As Python passes them on: a byte that the encoding does not have as a lone surrogate."""
    typed = "tee für mich".encode().decode("ascii", "surrogateescape")
    assert cli.main(["recommend", small.folder, "--query", typed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == "tee für mich"
    assert cli.main(["recommend", small.folder, "--query", "tea \udcff", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == "tea \ufffd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--customer", "1"], "customer 1 bought nothing"), (["--customer", "Anna"], "'Anna' is not a valid integer"),
        (["--query", "  "], "--query is empty"), (["--history", " ; "], "--history names no product"),
        (["--price-max", "nan"], "'nan' is not a price"), (["--price-max", "-1"], "'-1' is not a price"),
        (["--price-max", "cheap"], "'cheap' is not a price"), (["-k", "0"], "0 is not in the range 1<=x<=1000"),
        (["--exclude", "purple"], "no product has 'purple'"), (["--colour", "red"], "--colour"),
        (["--when", "yesterday"], "'yesterday' is no day of the"),
        (["--when", "2011-02-30"], "no day of the calendar"), (["--when", "20111109"], "write year-month-day"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [["--json"], []])
def test_a_bad_argument_is_one_line_on_stderr(small, capsys, options, message, form):
    code = cli.main(["recommend", small.folder, *form, *options])
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line != "loaded from the cache"]
    assert code == 2 and said.out == "" and len(errors) == 1 and errors[0].startswith("recbook: ")
    assert message in errors[0]


def test_a_folder_that_is_not_there_says_how_to_make_one(small, capsys, tmp_path):
    assert cli.main(["recommend", str(tmp_path / "no")]) == 2
    assert "recbook build RECEIPTS --out" in capsys.readouterr().err


def test_a_library_that_is_missing_says_how_to_install_it(small, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "recbook.system.recommender", None)
    assert cli.main(["recommend", small.folder]) == 2
    assert "pip install 'recbook[" in capsys.readouterr().err


def test_ctrl_c_stops_quietly(small, capsys, monkeypatch):
    def stop(**asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(small, "recommend", stop)
    assert cli.main(["recommend", small.folder]) == 130
    assert capsys.readouterr().err == "\nrecbook: stopped\n"  # a terminal shows ^C at the end of the line before


def chat(monkeypatch, capsys, small, *turns: str, options=()) -> str:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(turns)))
    assert cli.main(["chat", small.folder, *options]) == 0
    return capsys.readouterr().out


def test_chat_keeps_what_was_said_between_turns(small, monkeypatch, capsys):
    turns = ["a gift for a tea lover", "for my mother", "cheaper", "not red", "more", "why the second?", "quit", "mug"]
    said = chat(monkeypatch, capsys, small, *turns[:3], options=["--customer", "17850", "-k", "3"])
    assert "> a gift for a tea lover\nI take that as a search.\n" in said
    assert 'Looking for "a gift for a tea lover for my mother", up to £4.24:\n 1  WHITE MUG' in said
    assert small.asked[-1]["customer"] == 17850 and small.asked[-1]["query"] == "a gift for a tea lover for my mother"
    said = chat(monkeypatch, capsys, small, *turns, options=["-k", "2"])
    assert small.asked[-1]["exclude"] == ["red", "22423", "21111"]
    assert said.count("\n> ") == 7  # nothing after "quit"
    assert re.search(r"> why the second\?\n2\. TEA TOWEL\n    You bought", said) or "2 products were shown" in said


def test_chat_reports_what_cannot_be_done_and_keeps_its_state(small, monkeypatch, capsys):
    said = chat(monkeypatch, capsys, small, "mug", "under 1 pound", "cheaper", "", "why?", "help")
    assert "That cannot be done: nothing is left" in said and said.count('I go on with: "mug".') == 1
    assert 'Looking for "mug", up to £3.74' in said and 'Say what you are looking for, or "help".' in said
    assert "\n2. GLASS JUG\n    You bought" in said and "You can say" in said.split("> help")[1]


def test_chat_drops_an_exclusion_that_no_product_has_and_does_the_rest(small, monkeypatch, capsys):
    small.catalogue["description"] += " GIFT"
    said = chat(monkeypatch, capsys, small, "nothing with cats, not red, under £5", "not gift", "not ceramic")
    assert "Nothing here has cats: there is nothing to leave out.\nLooking for anything, up to £4.99, not red:" in said
    assert " WHITE MUG" in said and "RED MUG" not in said
    assert "That cannot be done: nothing is left" in said  # every product is a gift
    assert "up to £4.99, not red, not ceramic:" in said and small.asked[-1]["exclude"] == ["red", "ceramic"]


def test_chat_shows_a_product_again_and_undoes(small, monkeypatch, capsys):
    said = chat(
        monkeypatch, capsys, small, "how much is it?", "mug", "how much is the second?", "not red", "undo", "undo"
    )
    assert re.search(r"> how much is the second\?\n 2  WHITE MUG +£3\.75  22423\n> not red", said)
    assert 'I go back a turn.\nLooking for "mug":\n 1  RED RETROSPOT TEAPOT' in said
    assert said.endswith("> undo\nI go back a turn.\n> \n") and len(small.asked) == 4  # the check, and three lists


def test_chat_with_an_unknown_customer_does_not_begin(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("mug\n"))
    assert cli.main(["chat", small.folder, "--customer", "1"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "recbook: customer 1 bought nothing" in said.err


# --- The same with a recommender that was trained a little ------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder that `recbook build` saved, from a part of the embedded shop, with models that hardly learned."""
    for name in ("torch", "lightgbm", "faiss"):
        pytest.importorskip(name)
    from recbook.cleaning import shop
    from recbook.system.build import RecommenderConfig
    from recbook.system.recommender import Recommender

    raw, folder = shop.simulate().receipts, tmp_path_factory.mktemp("built")
    codes, customers = sorted(raw["StockCode"].unique())[:300], sorted(raw["CustomerID"].dropna().unique())[:300]
    raw[raw["StockCode"].isin(codes) & raw["CustomerID"].isin(customers)].to_csv(folder / "part.csv", index=False)
    whole = Recommender.build
    with pytest.MonkeyPatch.context() as patch:
        tiny = staticmethod(lambda raw, **options: whole(raw, RecommenderConfig.tiny(), **options))
        patch.setattr(Recommender, "build", tiny)
        assert cli.main(["build", str(folder / "part.csv"), "--out", str(folder / "shop")]) == 0
    return folder / "shop"


def recbook(*arguments: str, **options) -> subprocess.CompletedProcess:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "recbook.cli", *arguments]
    return subprocess.run(command, capture_output=True, **{"text": True, "encoding": "utf-8"} | options)


@pytest.mark.slow
def test_a_process_answers_with_json_alone_on_stdout(built):
    done = recbook("recommend", str(built), "--query", "a gift for a tea lover", "--json", "-k", "3", "--fast")
    assert done.returncode == 0, done.stderr
    products = json.loads(done.stdout)["products"]
    assert len(products) == 3 and all(product["why"] and product["price"] > 0 for product in products)


@pytest.mark.slow
def test_a_real_recommender_says_what_is_wrong(built, capsys):
    for options, message in [
        (["--customer", "1"], "customer 1"),
        (["--history", "no such thing"], "not in the catalogue"),
        (["--exclude", "ultramarine"], "ultramarine"),
    ]:
        assert cli.main(["recommend", str(built), "--no-explain", "--json", *options]) == 2
        said = capsys.readouterr()
        assert said.out == "" and message in said.err and len(said.err.splitlines()) == 1


@pytest.mark.slow
def test_nothing_left_is_an_answer_for_a_program_and_told_to_a_person(built, capsys):
    asked = ["recommend", str(built), "--no-explain", "--price-max", "0.01"]
    assert cli.main([*asked, "--json"]) == 0 and json.loads(capsys.readouterr().out)["products"] == []
    assert cli.main(asked) == 2 and "nothing is left to recommend" in capsys.readouterr().err


@pytest.mark.slow
def test_a_misspelt_product_is_suggested(built, capsys):
    assert cli.main(["recommend", str(built), "--no-explain", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["products"][0]["description"]
    assert cli.main(["recommend", str(built), "--history", name[:-2]]) == 2
    assert f"did you mean {name.upper()!r}" in capsys.readouterr().err
    assert cli.main(["recommend", str(built), "--no-explain", "--history", f"{name.lower()};", "-k", "2"]) == 0


@pytest.mark.slow
def test_chat_with_a_pipe_and_a_terminal_without_pounds(built):
    surroundings = os.environ | {"PYTHONIOENCODING": "ascii"}
    turns = "a gift for my mother\ncheaper\nnot ultramarine\nwhy the first?\nmore\n\udcff\n".encode(
        errors="surrogateescape"
    )
    done = recbook("chat", str(built), "-k", "3", input=turns, env=surroundings, text=False, encoding=None)
    said = done.stdout.decode("ascii")
    assert done.returncode == 0 and "Traceback" not in done.stderr.decode(), done.stderr
    assert re.search(r"\n 1  .+ GBP \d+\.\d\d  \w+\n", said) and 'Looking for "a gift for my mother", up to GBP' in said
    assert "Nothing here has ultramarine" in said and re.search(r"> why the first\?\n1\. .+\n    \w", said)


@pytest.mark.slow
def test_a_reader_may_close_the_pipe(built):
    command = [sys.executable, "-m", "recbook.cli", "recommend", str(built), "--no-explain", "-k", "500"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()  # before anything is written
    assert process.stderr.read() == "" and process.wait() == 0


@pytest.mark.slow
def test_a_damaged_folder_is_found_out(built, tmp_path, capsys):
    shutil.copytree(built, tmp_path / "shop")
    largest = max((tmp_path / "shop").rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1] + b"x")
    assert cli.main(["recommend", str(tmp_path / "shop")]) == 2
    said = capsys.readouterr()
    assert "checksum" in said.err and largest.name in said.err and said.out == ""
    (tmp_path / "shop" / "manifest.json").unlink()
    assert cli.main(["chat", str(tmp_path / "shop")]) == 2
    assert "manifest.json" in capsys.readouterr().err


# Published figures on the real log at 2011-11-09: NDCG@10 all, repeat, explore.
PUBLISHED = {
    "recent popularity": (0.119, 0.411, 0.074),
    "text profile": (0.161, None, 0.060),
    "item-kNN": (0.159, None, 0.074),
    "EASE": (0.218, 0.332, 0.087),
    "personal frequency": (0.306, 0.423, 0.074),
    "blend": (0.319, 0.430, 0.114),
}


@pytest.mark.slow
@pytest.mark.real
@needs_real
def test_the_real_log_gives_the_published_figures(tmp_path):
    assert cli.main(["score", "--data", str(REAL), "--cut", "2011-11-09", "--out", str(tmp_path), "--baselines"]) == 0
    kept = json.loads((tmp_path / "scoreboard_online-retail.json").read_text())
    assert kept["data"] == {"name": "Online Retail", "sha256": ONLINE_RETAIL_SHA256, "rows": 541_909}
    assert kept["seconds"] < 60
    figures = {(row.get("method"), row["split"], row["metric"]): row["value"] for row in kept["rows"]}
    for method, published in PUBLISHED.items():
        for part, value in zip(("all", "repeat", "explore"), published, strict=True):
            if value is not None:
                assert figures[method, part, "ndcg@10"] == pytest.approx(value, abs=0.01), (method, part)
    # Sales that were later cancelled are gone, so two shoppers and six products fewer than with them (1,394 and 3,066).
    assert abs(figures[None, "all", "shoppers"] - 1394) <= 2 and abs(figures[None, "all", "catalogue"] - 3066) <= 6
