"""The command line as a user meets it: what it prints, what it writes, and how it fails."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbook import cli, records

REAL = Path(os.environ.get("RECBOOK_REAL") or Path(__file__).parents[2] / "shared/data/online_retail.csv.gz")


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


def test_score_prints_the_scoreboard_and_keeps_it(till, tmp_path, capsys):
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
    monkeypatch.setattr(records, "_checkout_results", lambda: tmp_path / "checkout" / "results")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main(["score", "--data", str(till), "--baselines"]) == 0
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["scoreboard_my-till.json"]
    assert not (tmp_path / "checkout").exists()


@pytest.mark.parametrize(
    "data, product_code, sha256, theirs",
    [
        ("embedded", None, "0", True),
        ("embedded", r"\d+", "0", False),  # cleaned in another way: other figures under the same name
        ("a copy.csv", None, records.ONLINE_RETAIL, True),
        ("online retail.csv", None, "0", False),  # the name alone says nothing
    ],
)
def test_the_books_data_are_known_by_content(data, product_code, sha256, theirs):
    options = argparse.Namespace(data=data, product_code=product_code)
    assert cli._of_the_book(options, {"name": "any", "sha256": sha256}) == theirs


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
        (["--cut", "yesterday"], "'yesterday' is not a date"),
        (["--cut", "2011-02-30"], "not a day of the calendar"),
        (["--cut", "09/11/2011"], "not a date"),
        (["--cut", "2009-01-01"], "before 2009-01-01"),
        (["--cut", "2012-01-01"], "span 2011-01-01 to 2011-06-15"),
        (["--name", "../up"], "cannot be named"),
        (["--data", "/no/such/file.csv"], "no file"),
        (["--data", "/"], "folder"),
        (["--data", __file__], "test_cli.py"),
        (["--out", __file__], "name another folder"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(till, tmp_path, capsys, options, message):
    command = ["score", "--data", str(till), "--out", str(tmp_path), *options]
    assert cli.main(command) == 2
    output = capsys.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("recbook: ")]
    assert len(errors) == 1 and message in errors[0] and output.out == ""
    assert not list(tmp_path.iterdir())


def test_help_and_version_as_a_process():
    run = [sys.executable, "-m", "recbook.cli"]
    helped = subprocess.run([*run, "score", "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "--cut DATE" in helped.stdout and "95% bootstrap" in helped.stdout
    assert subprocess.run([*run, "--version"], capture_output=True, text=True).stdout.startswith("recbook ")
    wrong = subprocess.run([*run, "guess"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr


def test_importing_the_command_line_is_instant():
    """Heavy libraries wait until a command needs them."""
    code = "import sys, recbook, recbook.cli; print([m for m in ('sklearn', 'torch', 'faiss') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# DESIGN's figures on the real log at 2011-11-09: NDCG@10 all, repeat, explore.
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
@pytest.mark.skipif(not REAL.exists(), reason="the real receipts are not here: set RECBOOK_REAL to their path")
def test_the_real_log_gives_the_published_figures(tmp_path):
    assert cli.main(["score", "--data", str(REAL), "--cut", "2011-11-09", "--out", str(tmp_path), "--baselines"]) == 0
    kept = json.loads((tmp_path / "scoreboard_online-retail.json").read_text())
    assert kept["data"] == {"name": "Online Retail", "sha256": records.ONLINE_RETAIL, "rows": 541_909}
    assert kept["seconds"] < 60
    figures = {(row.get("method"), row["split"], row["metric"]): row["value"] for row in kept["rows"]}
    for method, published in PUBLISHED.items():
        for part, value in zip(("all", "repeat", "explore"), published, strict=True):
            if value is not None:
                assert figures[method, part, "ndcg@10"] == pytest.approx(value, abs=0.01), (method, part)
    # Sales that were later cancelled are gone, so two shoppers and six products fewer than with them (1,394 and 3,066).
    assert abs(figures[None, "all", "shoppers"] - 1394) <= 2 and abs(figures[None, "all", "catalogue"] - 3066) <= 6
