"""Nothing that `recbook` prints of a user's file is obeyed by a terminal, or hides in it."""

import re
import types

import pandas as pd
import pytest
from click.testing import CliRunner

from recbook import cli
from recbook.cleaning.schema import RAW_COLUMNS
from recbook.system.recommender import Recommender

ODD = "\x1b]0;title\x07\x1b[2JRED\x08\x7f\x9b31m\u202eLAMP\u202c\u2066\u200f\u200b"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069]")
LINE = ["536365", "85123A", ODD, "6", "2010-12-13 08:26", "2.55", "17850", ODD]


def odd_file(folder, line: list[str], columns: list[str] = RAW_COLUMNS):
    path = folder / f"till{ODD}.csv"
    path.write_text("\n".join([",".join(columns), ",".join(line)]), encoding="utf-8")
    return str(path)


@pytest.fixture
def old_recommender(tmp_path, monkeypatch):
    """A folder with a recommender that a version built which let everything through."""
    row = {
        "code": "85123A" + ODD,
        "description": ODD,
        "price": 2.5,
        "score": 1.0,
        "channel": "search",
        "why": f"{ODD}.",
    }
    table = pd.DataFrame([row])
    made = types.SimpleNamespace(catalogue=table, recommend=lambda **asked: table)
    monkeypatch.setattr(Recommender, "load", lambda folder: made)
    return str(tmp_path)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_recommend_prints_no_description_that_is_obeyed(old_recommender, options):
    said = CliRunner().invoke(cli.command_line, ["recommend", old_recommender, *options])
    assert said.exit_code == 0 and re.search("RED +31mLAMP", said.output)
    assert not OBEYED.search(said.output)


def test_chat_prints_nothing_that_is_obeyed(old_recommender):
    turns = f"a lamp{ODD}\nwhy the first?\nnot {ODD}\n{ODD}\nquit\n"
    said = CliRunner().invoke(cli.command_line, ["chat", old_recommender], input=turns)
    assert said.exit_code == 0 and "85123A" in said.output
    assert not OBEYED.search(said.output)


@pytest.mark.parametrize("command", [["build", "--out"], ["score", "--baselines", "--out"]])
@pytest.mark.parametrize(
    ("line", "columns", "message"),
    [
        (LINE, RAW_COLUMNS, "receipt"),
        ([*LINE[:3], ODD, *LINE[4:]], RAW_COLUMNS, "Quantity is not a number"),
        (LINE, [*RAW_COLUMNS[:3], f"Qty{ODD}", *RAW_COLUMNS[4:]], "has no column Quantity"),
    ],
)
def test_no_error_has_what_is_obeyed(tmp_path, capsys, command, line, columns, message):
    name, *options = command
    arguments = (
        [name, odd_file(tmp_path, line, columns)]
        if name == "build"
        else [name, "--data", odd_file(tmp_path, line, columns)]
    )
    assert cli.main([*arguments, *options, str(tmp_path / "out")]) == cli.BAD_INPUT
    said = capsys.readouterr()
    assert message in said.err and "till" in said.err
    assert not OBEYED.search(said.out + said.err)


def test_a_path_that_is_not_there_is_printed_without_what_is_obeyed(tmp_path, capsys):
    for arguments in (["build", f"gone{ODD}.csv", "--out", str(tmp_path / "out")], ["recommend", f"gone{ODD}"]):
        assert cli.main(arguments) == cli.BAD_INPUT
        assert "gone" in (said := capsys.readouterr().err) and not OBEYED.search(said)
