"""No file of receipts, however damaged or odd, ends in anything but clean receipts that add up, or one short line.

Drawn files of every kind come first, then each family of damage by hand: the bombs are made small, by what packs well.
"""

import gzip
import io
import time
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("openpyxl")
pa = pytest.importorskip("pyarrow")
from pyarrow import parquet

from recbook.cleaning import receipts as rc
from recbook.cleaning import schema
from recbook.cleaning.load import LARGEST_FILE, MOST_CELLS, load_receipts
from recbook.cleaning.schema import RAW_COLUMNS, ReceiptsError, check_receipts
from tests.cleaning.damage import SHEET, damaged, members_of, workbook, zipped

SALE = ["536365", "85123A", "HOLDER", 6, pd.Timestamp("2010-12-13 08:26"), 2.55, 17850, "United Kingdom"]
HEADER = ",".join(RAW_COLUMNS) + "\n"
LINE = "536365,85123A,HOLDER,6,2010-12-13 08:26,2.55,17850,United Kingdom\n"


def sales(n: int = 3, **columns) -> pd.DataFrame:
    """Raw receipts of `n` equal sales but for their invoices, with some columns replaced."""
    table = pd.DataFrame([SALE] * n, columns=RAW_COLUMNS).assign(InvoiceNo=[str(number) for number in range(n)])
    return table.assign(**columns)


def ends_well(path: Path) -> bool:
    """Whether a file's receipts are clean and add up; False after one short line; anything else fails the test."""
    try:
        raw = load_receipts(path)
        cleaned = rc.clean(raw)
    except ReceiptsError as error:
        assert one_short_line(str(error)), str(error)
        return False
    receipts, removed, audit = cleaned
    assert sorted([*receipts.index, *removed.index]) == list(range(len(raw)))
    assert audit["rows"].sum() == len(raw) and audit["rows"].iloc[-1] == len(receipts)
    assert (receipts["quantity"] > 0).all() and (receipts["price"] > 0).all()
    for column in ("invoice", "code", "description", "country"):
        assert not any(map(hidden, receipts[column].unique()))
    assert rc.catalogue(receipts)["units"].sum() == receipts["quantity"].sum()
    assert (receipts.groupby("invoice")[["customer", "date"]].nunique() == 1).all(axis=None)
    return True


def hidden(text: str) -> bool:
    """Whether a text has anything that a terminal would obey or nobody can see."""
    return any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in text)


def one_short_line(message: str) -> bool:
    return len(message) <= 400 and not hidden(message) and message.endswith((".", "?"))


def refused(folder: Path, content: bytes, name: str) -> str:
    """The one short line with which a file is refused, in a few seconds of processor time."""
    path = folder / name
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(ReceiptsError) as caught:
        rc.clean(load_receipts(path))
    assert time.process_time() - start < 15
    message = str(caught.value)
    assert one_short_line(message), message
    return message


# ---- files of every kind, drawn


def through(seeds: range, folder: Path) -> int:
    """How many of the files with these seeds load, of which none ends badly."""
    well = 0
    for seed in seeds:
        name, content = damaged(seed)
        path = folder / name
        path.write_bytes(content)
        well += ends_well(path)
        path.unlink()
    return well


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_damaged_files_end_in_receipts_that_add_up_or_in_one_short_line(tmp_path, first):
    well = through(range(first, first + 50), tmp_path)
    assert 5 < well < 45  # neither all too damaged to be read, nor too little to be refused


@pytest.mark.many
@pytest.mark.parametrize("first", range(1_000, 6_000, 500))
def test_thousands_of_damaged_files_end_so(tmp_path, first):
    assert 50 < through(range(first, first + 500), tmp_path) < 450


# ---- workbooks


def book(changes: dict[tuple[str, bytes], bytes]) -> bytes:
    """A workbook of three sales, with bytes of its members replaced."""
    members = members_of(workbook(sales()))
    for (name, old), new in changes.items():
        assert old in members[name]
        members[name] = members[name].replace(old, new)
    return zipped(members)


XLSX = {
    "no text in its XML": ({(SHEET, b"<sheetData>"): b"<sheetData"}, "damaged xlsx file|damaged sheet"),
    "a text that is not there": ({(SHEET, b't="n"'): b't="s"'}, "damaged sheet"),
    "a row that is no number": ({(SHEET, b'<row r="2"'): b'<row r="x"'}, "damaged sheet"),
    "a sheet that is not there": ({("xl/workbook.xml", b"rId1"): b"rId9"}, "damaged xlsx file|no receipts on any"),
    "entities": ({(SHEET, b"<worksheet"): b'<!DOCTYPE a [<!ENTITY b "c">]><worksheet'}, "damaged xlsx file|damaged"),
    "the last cell of all": (
        {(SHEET, b"</sheetData>"): b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'},
        "sheet 'Year 0' has a cell at XFD1048576. Delete the columns",
    ),
    "a row beyond the last": (
        {(SHEET, b"</sheetData>"): b'<row r="99999999999"><c r="A99999999999"><v>1</v></c></row></sheetData>'},
        "has a cell below row 1,048,576",
    ),
    "too many rows": ({(SHEET, b"</sheetData>"): b"<row/>" * 1_100_000 + b"</sheetData>"}, "cell below row 1,048,576"),
    "many cells": (
        {(SHEET, b"</sheetData>"): b"<row>" + b"<c/>" * 1_500_000 + b"</row></sheetData>"}, "a row of more than 4 MB",
    ),
    "junk": ({(SHEET, b"</sheetData>"): b"<x/>" * 600_000 + b"</sheetData>"}, "has too much besides its cells"),
    "a long name of an attribute": (
        {(SHEET, b"<sheetData>"): b"<x " + b"a" * 4_000_000 + b"='' /><sheetData>"}, "a text of more than a megabyte",
    ),
    "a format that takes hours": (
        {("xl/styles.xml", b"<fonts"): b"<numFmts><numFmt numFmtId='200' formatCode='" + b"[" * 300_000
         + b"'/></numFmts><fonts"}, "'xl/styles.xml' has too much besides",
    ),
    "rows out of order": (
        {(SHEET, b"</sheetData>"): b'<row r="2"><c r="A2"><v>1</v></c></row></sheetData>'}, "row 2 after row 4. Sort",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", XLSX)
def test_a_damaged_workbook_is_refused(tmp_path, case):
    changes, message = XLSX[case]
    assert pd.Series(refused(tmp_path, book(changes), "a.xlsx")).str.contains(message, regex=True).item()


def test_a_long_text_that_many_rows_share_is_refused(tmp_path):
    kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    shared = b'<Override PartName="/xl/strings.xml" ContentType="' + kind + b'"/></Types>'
    rows = b'<row><c t="s"><v>0</v></c></row>' * 9_000
    content = book({("[Content_Types].xml", b"</Types>"): shared, (SHEET, b"</sheetData>"): rows + b"</sheetData>"})
    text = b"<si><t>" + b"A" * 30_000 + b"</t></si>"
    strings = b'<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">' + text + b"</sst>"
    content = zipped(members_of(content) | {"xl/strings.xml": strings})
    assert "sheet 'Year 0' holds more than 256 MB" in refused(tmp_path, content, "a.xlsx")


def test_what_a_library_says_of_a_workbook_stays_unsaid(tmp_path, recwarn):
    content = book({(SHEET, b"</worksheet>"): b'<extLst><ext uri="\xc2\x9b31m"/></extLst></worksheet>'})
    (tmp_path / "a.xlsx").write_bytes(content)
    assert len(load_receipts(tmp_path / "a.xlsx")) == 3 and not recwarn.list


def test_empty_rows_at_the_end_of_a_sheet_are_left_out(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(book({(SHEET, b"</sheetData>"): b"<row/>" * 1_000 + b"</sheetData>"}))
    assert len(load_receipts(tmp_path / "a.xlsx")) == 3


# ---- parquet


def in_parquet(**columns: object) -> bytes:
    """Three sales in parquet, with some columns replaced by arrays."""
    table = pa.Table.from_pandas(sales(), preserve_index=False)
    for name, array in columns.items():
        table = table.set_column(RAW_COLUMNS.index(name), name, array)
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


def not_utf8() -> pa.Array:
    """Three texts that call themselves UTF-8 and are not."""
    return pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(np.arange(0, 8, 2, "i4")), pa.py_buffer(b"A\xff" * 3)]
    )


PARQUET = {
    "lists": ("Quantity", lambda: pa.array([[1]] * 3), "Quantity holds list.*, not single values"),
    "structs": ("Country", lambda: pa.array([{"a": 1}] * 3), "Country holds struct.*, not single values"),
    "no UTF-8": ("Description", not_utf8, "damaged parquet file"),
    "the largest uint64": ("Quantity", lambda: pa.array([2**64 - 1] * 3, pa.uint64()), "Quantity is too large"),
    "the largest int64": ("Quantity", lambda: pa.array([2**63 - 1] * 3), "Quantity is too large"),
    "the smallest int64": ("Quantity", lambda: pa.array([-(2**63)] * 3), "Quantity is too large"),
    "a price of 1e300": ("UnitPrice", lambda: pa.array([1e300] * 3), "UnitPrice is too large"),
    "times for a quantity": ("Quantity", lambda: pa.array([1] * 3, pa.timestamp("us")), "Quantity is a time, not a"),
    "durations for a price": ("UnitPrice", lambda: pa.array([1] * 3, pa.duration("ns")), "UnitPrice is a time, not a"),
    "one text of many rows": (
        "Description", lambda: pa.DictionaryArray.from_arrays(np.zeros(3, "i4"), ["A" * 90_000_000]), "than 256 MB",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PARQUET)
def test_an_odd_parquet_file_is_refused(tmp_path, case):
    column, array, message = PARQUET[case]
    assert pd.Series(refused(tmp_path, in_parquet(**{column: array()}), "a.parquet")).str.contains(message).item()


def test_odd_metadata_of_pandas_does_no_harm(tmp_path):
    table = pa.Table.from_pandas(sales(), preserve_index=False)
    odd = table.replace_schema_metadata({"pandas": '{"index_columns": ["gone"], "columns": []}'})
    parquet.write_table(odd, tmp_path / "a.parquet")
    assert len(load_receipts(tmp_path / "a.parquet")) == 3


def test_decimals_bytes_and_dictionaries_are_read(tmp_path):
    odd = {
        "UnitPrice": pa.array([255] * 3).cast(pa.decimal128(38, 2)),
        "Description": pa.array([b"HOLDER"] * 3),
        "Country": pa.array(["France"] * 3).dictionary_encode(),
    }
    (tmp_path / "a.parquet").write_bytes(in_parquet(**odd))
    raw = load_receipts(tmp_path / "a.parquet")
    assert raw[["Description", "UnitPrice", "Country"]].drop_duplicates().values.tolist() == [
        ["HOLDER", 255.0, "France"]
    ]


# ---- packed files and large ones


def nested(pack, layers: int) -> bytes:
    content = (HEADER + LINE).encode()
    for _ in range(layers):
        content = pack(content)
    return content


def test_packing_upon_packing_is_refused(tmp_path):
    assert "packed more than 3 times" in refused(tmp_path, nested(lambda inner: gzip.compress(inner, 0), 1_200), "a.gz")
    assert "packed more than 3 times" in refused(tmp_path, nested(lambda inner: zipped({"a": inner}, 0), 300), "a.zip")
    (tmp_path / "b.gz").write_bytes(nested(lambda inner: gzip.compress(inner, 0), 3))
    assert len(load_receipts(tmp_path / "b.gz")) == 1


def test_what_unpacks_to_gigabytes_is_refused(tmp_path):
    megabyte = gzip.compress(b"A" * 2**20)
    bomb = gzip.compress((HEADER + LINE).encode()) + megabyte * 3_700
    assert f"more than {LARGEST_FILE // 2**20} MB" in refused(tmp_path, bomb, "a.csv.gz")
    many = {f"{number}.csv": b"" for number in range(2_000)}
    assert "holds 2,000 files" in refused(tmp_path, zipped(many), "a.zip")
    odd = zipped({"a.csv": b"A" * 10_000_000}, zipfile.ZIP_BZIP2)  # a thousand times smaller still
    assert "packed in an unusual way" in refused(tmp_path, odd, "b.zip")


CSV = {
    "a field of 30 MB": (HEADER + LINE.replace("HOLDER", "A" * 30_000_000), "a line of more than a megabyte"),
    "a field of many lines": (
        HEADER + LINE.replace("HOLDER", '"' + "A\n" * 40_000 + '"'),
        "Description is longer than",
    ),
    "100,000 columns": (HEADER.strip() + ",a" * 100_000 + "\n" + LINE, "100,008 columns, more than 1,000"),
    "a long name": ("x" * 900_000 + "," + HEADER + LINE, "a name of more than 1,000 letters"),
    "no receipts in 900 columns": (",".join(f"column {n}" for n in range(900)) + "\n1\n", "and 895 more"),
    "many short rows": (HEADER + "1\n" * (MOST_CELLS // 8 + 1), "rows of 8 columns, more than"),
    "commas": (HEADER + (("," * 1_000_000) + "\n") * 21, "more than 20,000,000 cells"),
}


@pytest.mark.parametrize("case", CSV)
def test_a_text_that_is_too_large_is_refused(tmp_path, case):
    text, message = CSV[case]
    assert message in refused(tmp_path, text.encode(), "a.csv")


def test_a_text_of_windows_is_read(tmp_path):
    (tmp_path / "a.csv").write_bytes((HEADER + LINE.replace("HOLDER", "CAFÉ £10 – €5")).encode("cp1252"))
    assert load_receipts(tmp_path / "a.csv")["Description"].tolist() == ["CAFÉ £10 – €5"]
    mixed = (HEADER + LINE.replace("HOLDER", "CAFÉ")).encode() + LINE.replace("HOLDER", "CAFÉ").encode("cp1252")
    assert "garbled by a wrong encoding" in refused(tmp_path, mixed, "b.csv")


def test_a_bad_value_is_shortened_and_a_customer_is_not_repeated(tmp_path):
    long = refused(tmp_path, (HEADER + LINE.replace(",6,", f",{'6' * 20_000}x,")).encode(), "a.csv")
    assert "Quantity is not a number" in long and "…" in long and "Write plain numbers" in long
    named = refused(tmp_path, (HEADER + LINE.replace("17850", "Ann Smith")).encode(), "a.csv")
    assert "row 0" in named and "Ann" not in named


# ---- what a terminal would obey


ODD_TEXTS = {
    "RED\x1b[31m LAMP\x1b[0m": "RED LAMP",
    "\x1b]0;title\x07LAMP": "LAMP",
    "A\x08B\x07C\x00D": "A B C D",
    "A\tB\nC\r\nD\x85E\u2028F": "A B C D E F",
    "\u202eLAMP\u202c \u2066RED\u2069\u200e\u200f": "LAMP RED",
    "zero\u200bwidth\ufeff": "zerowidth",
    "\x9b2JLAMP": "2JLAMP",
    "\x1b\x1b[0m[2JLAMP": "[2JLAMP",
    "CAFÉ £10, 50% – ½": "CAFÉ £10, 50% – ½",
}


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_no_text_carries_what_a_terminal_would_obey(text):
    raw = check_receipts(sales(1, Description=text, Country=text, InvoiceNo=f"5{text}"))
    assert not any(hidden(raw[column][0]) for column in ("Description", "Country", "InvoiceNo"))
    assert rc.clean(raw).receipts["description"].tolist() == [ODD_TEXTS[text]]


def test_a_code_with_hidden_letters_is_the_same_product():
    raw = sales(2, StockCode=["85123A", "\u200b85123A\x1b[0m"])
    assert rc.clean(raw).receipts["code"].tolist() == ["85123A", "85123A"]


def test_a_text_of_nothing_visible_is_no_description():
    removed = rc.clean(sales(2, Description=["LAMP", "\u200b\x07"])).removed
    assert removed["rule"].tolist() == ["no description"]


def test_checking_the_checked_changes_nothing():
    raw = check_receipts(sales(len(ODD_TEXTS), Description=list(ODD_TEXTS)))
    pd.testing.assert_frame_equal(check_receipts(raw), raw)


def test_an_error_is_one_line_of_place_and_remedy():
    message = str(ReceiptsError("here\n\x1b[2J" + "x" * 9_000 + " do\tthat."))
    assert one_short_line(message) and message.startswith("here ") and message.endswith(" do that.")
    assert len(schema.without_middle("x" * 9_000, 100)) == 100 and schema.without_middle("x" * 100, 100) == "x" * 100


# ---- what was known before a moment

CUT = pd.Timestamp("2011-11-09")


def test_a_later_cancellation_does_not_change_what_was_known():
    days = pd.to_datetime(
        ["2011-11-01", "2011-11-08 23:59", "2011-11-09", "2011-11-20", "2011-11-21"], format="ISO8601"
    )
    raw = check_receipts(
        sales(5, InvoiceNo=["1", "2", "3", "C4", "5"], InvoiceDate=days, Quantity=[6, 2, 1, -6, 1],
              Description=["OLD", "OLD", "NEW", "NEW", "NEW"])
    )  # fmt: skip
    known = rc.clean(raw, before=CUT)
    assert known.receipts["invoice"].tolist() == ["1", "2"] and set(known.receipts["description"]) == {"OLD"}
    assert known.removed["rule"].tolist() == ["not yet known"] * 3
    assert known.audit["rows"].sum() == 5 and known.audit["rule"].iloc[0] == "not yet known"
    pd.testing.assert_frame_equal(known.receipts, rc.clean(raw[raw["InvoiceDate"] < CUT]).receipts)
    hindsight = rc.clean(raw).receipts
    assert "1" not in hindsight["invoice"].tolist() and set(hindsight["description"]) == {"NEW"}
