"""Damaged and odd files of receipts, one for every seed: every kind of file, and every way in which it may be wrong."""

import gzip
import io
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import pandas as pd

ENCODINGS = ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "utf-32", "cp037"]
ABSURD = [
    None, "", " ", 0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**30, 1e308, 5e-324, 6.5, True,
    float("nan"), float("inf"), "nan", "-inf", "1e999", "0x1F", "1_000", "1,5", "£2.55", "٢", "NULL", "C", "C536365",
    "=1+1", "=cmd|' /C calc'!A0", "#N/A", "'; DROP TABLE receipts; --", "<script>alert(1)</script>", "../../etc/passwd",
    "\x1b[2J\x1b]0;title\x07", "\x9b31m", "A\x08\x08B", "\u202eevil\u202c", "zero\u200bwidth", "\ufeffmark", "\x00",
    "two\nlines", "tab\there", '"', '""', "a,b", "Ã©", "é", "\U0001f600", "A" * 40_000, "9" * 5_000,
    "99999999999999999999", "2010-13-01", "0001-01-01", "9999-12-31 23:59", "2010-12-01T08:26Z", "01/02/2010",
    "31.12.2010 8:00", "40513.35",
]  # fmt: skip


def receipts_of(rng: np.random.Generator) -> pd.DataFrame:
    """Up to forty lines of receipts as a till exports them, a few returns and guests among them."""
    n = int(rng.integers(2, 40))
    sold = pd.Timestamp("2010-12-01 08:26") + pd.to_timedelta(rng.integers(0, 500_000, n), unit="min")
    return pd.DataFrame(
        {
            "InvoiceNo": [f"{'C' * bool(rng.random() < 0.1)}{536_365 + int(rng.integers(9))}" for _ in range(n)],
            "StockCode": rng.choice(["85123A", "22423", "71053", "84406b", "POST"], n),
            "Description": rng.choice(["WHITE HOLDER", " CAKE STAND", "CAFÉ £10", "LANTERN", "POSTAGE"], n),
            "Quantity": rng.integers(-2, 13, n),
            "InvoiceDate": sold.to_numpy(),
            "UnitPrice": rng.choice([2.55, 0.0, 12.75, 0.001], n),
            "CustomerID": pd.array(rng.choice([17_850, 13_047, 12_583], n), dtype="Int64"),
            "Country": rng.choice(["United Kingdom", "France", "NA"], n),
        }
    )


def damaged(seed: int) -> tuple[str, bytes]:
    """The name and the bytes of a file of receipts with nothing wrong, or one thing, or several."""
    rng = np.random.default_rng(seed)
    table = receipts_of(rng).astype(object)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.3, 0.1])):
        table = _one_of(rng, [_absurd_values, _odd_columns, _absurd_values])(table, rng)
    kinds: dict[str, Callable] = {"csv": _csv, "csv.gz": _gzip, "zip": _zip, "xlsx": _xlsx, "parquet": _parquet}
    kind = str(rng.choice(list(kinds)))
    content = kinds[kind](table, rng)
    for _ in range(rng.choice([0, 1, 2], p=[0.7, 0.2, 0.1])):
        content = _damaged_bytes(content, rng)
    suffix = kind if rng.random() < 0.95 else str(rng.choice(list(kinds)))
    return f"{seed}.{suffix}", content


def _one_of(rng: np.random.Generator, choices: list) -> Callable:
    return choices[rng.integers(len(choices))]


def _damaged_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with some flipped, cut, repeated, overwritten or put in between."""
    changed = bytearray(content)
    size = len(changed)
    at, length = int(rng.integers(size + 1)), int(rng.integers(1, 40))
    way = rng.integers(6)
    if way == 0 and size:
        for place in rng.integers(size, size=rng.integers(1, 20)):
            changed[place] ^= 1 << int(rng.integers(8))
    elif way == 1:
        del changed[at:]
    elif way == 2:
        del changed[at : at + length]
    elif way == 3:
        changed[at:at] = rng.bytes(length)
    elif way == 4:
        changed[at : at + length] = rng.bytes(length)
    else:
        changed[at:at] = changed[at : at + 400]
    return bytes(changed)


def _absurd_values(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Absurd values in a few cells, or one all down a column."""
    table = table.copy()
    if not table.shape[1]:
        return table
    for _ in range(rng.integers(1, 4)):
        value, column = ABSURD[rng.integers(len(ABSURD))], int(rng.integers(table.shape[1]))
        rows = slice(None) if rng.random() < 0.3 else int(rng.integers(len(table)))
        table.isetitem(column, table.iloc[:, column].astype(object))
        table.iloc[rows, column] = value
    return table


def _odd_columns(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Columns renamed, left out, repeated, in another order, or with odd ones among them."""
    names = list(table.columns)
    at, way = int(rng.integers(len(names))), rng.integers(6)
    if way == 0:
        odd = ["Qty", "", " ", "\x1b[31mPrice", "x" * 5_000, "Unnamed: 0", "CUSTOMER_ID", "Price", 7, None, "Country"]
        names[at] = odd[rng.integers(len(odd))]
        return table.set_axis(names, axis=1)
    if way == 1:
        return table.iloc[:, [position for position in range(len(names)) if position != at]]
    if way == 2:
        return pd.concat([table, table.iloc[:, [at]]], axis=1)
    if way == 3:
        return table.iloc[:, rng.permutation(len(names))]
    if way == 4:
        more = pd.DataFrame({f"column {number}": "" for number in range(rng.integers(1, 60))}, index=table.index)
        return pd.concat([table, more], axis=1)
    return table.set_axis([str(name).swapcase().replace("o", "o ") for name in names], axis=1)


def _csv(table: pd.DataFrame, rng: np.random.Generator) -> bytes:
    """A text with any separator, quotes, line ends and encoding."""
    table = table.map(lambda value: value.strftime("%m/%d/%Y %H:%M") if isinstance(value, pd.Timestamp) else value)
    usual = rng.random(4) < 0.93
    text = table.to_csv(
        index=bool(rng.random() < 0.05),
        sep="," if usual[0] else str(rng.choice([";", "\t", "|"])),
        lineterminator="\n" if usual[1] else str(rng.choice(["\r\n", "\r", "\n\n"])),
        quoting=0 if usual[2] else int(rng.choice([1, 2])),
        escapechar="\\",
    )
    return text.encode("utf-8" if usual[3] else str(rng.choice(ENCODINGS)), errors="replace")


def _gzip(table: pd.DataFrame, rng: np.random.Generator) -> bytes:
    content = _csv(table, rng)
    if rng.random() < 0.3:
        content = _damaged_bytes(content, rng)
    for _ in range(1 if rng.random() < 0.8 else rng.integers(2, 9)):
        content = gzip.compress(content, 1)
    return content


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of files by their names."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # two of a name
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _zip(table: pd.DataFrame, rng: np.random.Generator) -> bytes:
    """A zip of a text, a parquet file or a workbook, with others beside it, locked, or packed in another way."""
    inner = _one_of(rng, [_csv, _csv, _csv, _parquet, _xlsx])(table, rng)
    name = str(rng.choice(["data.csv", "x" * 300, "../../data.csv", "\x1b[31m.csv", "a\nb.csv", "xl/workbook.xml"]))
    members = {name: inner} if rng.random() < 0.8 else {name: inner, "__MACOSX/._data.csv": b"x", "notes.txt": b"y"}
    content = bytearray(zipped(members, int(rng.choice([0, 8, 8, 8, 12, 14]))))
    if rng.random() < 0.2:  # flags and method of the first member, as its header has them
        content[6:10] = rng.bytes(4)
    return bytes(content)


def workbook(table: pd.DataFrame, sheets: int = 1) -> bytes:
    """A workbook of equal sheets; what Excel cannot hold stands there as a question mark."""
    import openpyxl
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = openpyxl.Workbook(write_only=True)
    for number in range(sheets):
        sheet = book.create_sheet(f"Year {number}")
        for row in [list(table.columns), *table.itertuples(index=False, name=None)]:
            cells = [None if pd.isna(value) else value for value in row]
            cells = [value.to_pydatetime() if isinstance(value, pd.Timestamp) else value for value in cells]
            sheet.append([ILLEGAL_CHARACTERS_RE.sub("?", cell) if isinstance(cell, str) else cell for cell in cells])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    """The files in a zip by their names."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


SHEET = "xl/worksheets/sheet1.xml"
ODD_XML = [
    (b"<row r=\"2\"", b"<row r=\"99999999999\""), (b"<row r=\"2\"", b"<row r=\"x\""), (b"\"A2\"", b"\"XFD1048576\""),
    (b"r=\"A2\"", b"r=\"ZZZZ2\""), (b"r=\"A2\"", b"r=\"\""), (b"t=\"n\"", b"t=\"s\""), (b"t=\"n\"", b"t=\"d\""),
    (b"t=\"n\"", b"t=\"e\""), (b"t=\"inlineStr\"", b"t=\"s\""), (b"<v>", b"<v>-1"), (b"<v>", b"<v>x"), (b"<v>", b"<w>"),
    (b"</sheetData>", b"<row/></sheetData><mergeCells><mergeCell ref=\"A1:XFD9\"/></mergeCells>"),
    (b"<sheetData>", b"<dimension ref=\"A1:XFD1048576\"/><sheetData>"), (b" s=\"", b" s=\"9"), (b"<c ", b"<f>1</f><c "),
    (b"<?xml", b"<!DOCTYPE x [<!ENTITY a \"b\">]><?xml"), (b"main\"", b"other\""), (b"rId1", b"rId9"), (b"/", b"//"),
]  # fmt: skip


def _xlsx(table: pd.DataFrame, rng: np.random.Generator) -> bytes:
    """A workbook with members that are damaged, exchanged or missing, or with odd cells."""
    sheets = int(rng.integers(1, 3))
    columns = [str(name) for name in table.columns]
    members = members_of(workbook(table.set_axis(columns, axis=1), sheets))
    for _ in range(rng.integers(0, 3)):
        names = list(members)
        name, other = (str(one) for one in rng.choice(names, 2))
        way = rng.integers(5)
        if way == 0:
            members[name] = _damaged_bytes(members[name], rng)
        elif way == 1:
            members[name], members[other] = members[other], members[name]
        elif way == 2 and len(names) > 1:
            del members[name]
        else:
            old, new = ODD_XML[rng.integers(len(ODD_XML))]
            place = SHEET if SHEET in members and rng.random() < 0.7 else name
            members[place] = members[place].replace(old, new, int(rng.choice([1, -1])))
    return zipped(members)


def _odd_arrays() -> list[Callable]:
    """Makers of columns of a length in types that receipts never have, or have seldom."""
    import pyarrow as pa

    def of(value: object, kind: pa.DataType | None = None) -> Callable:
        return lambda n: pa.array([value] * n, type=kind)

    def text(value: bytes) -> Callable:  # whether it is UTF-8 or not
        offsets = lambda n: pa.py_buffer(np.arange(0, len(value) * (n + 1), len(value), dtype=np.int32))  # noqa: E731
        return lambda n: pa.Array.from_buffers(pa.string(), n, [None, offsets(n), pa.py_buffer(value * n)])

    return [
        of([1, 2]), of({"a": 1}), of({"a": [{"b": "c"}]}), of([("k", 1)], pa.map_(pa.string(), pa.int64())), of(None),
        of(2**64 - 1, pa.uint64()), of(2**63 - 1, pa.int64()), of(-(2**63), pa.int64()), of(True), of(b"85123A"),
        of(b"\xff\xfe"), of(10**9, pa.timestamp("s")), of(10**9, pa.timestamp("us", tz="Europe/London")),
        of(10**17, pa.timestamp("us")), of(1, pa.timestamp("ns", tz="+07:30")), of(10**6, pa.duration("ms")),
        of(3, pa.time32("s")), of(15_000, pa.date32()), of(10**15, pa.date64()), of(1.5, pa.float16()),
        of(np.nan, pa.float32()), of(255, pa.uint8()), text(b"AB\xff\xfe"), text("\x1b[31m\u202e".encode()),
        lambda n: pa.array([1] * n).cast(pa.decimal128(38, 10)), lambda n: pa.array(["x"] * n).dictionary_encode(),
        lambda n: pa.array(["x"] * n, type=pa.large_string()), lambda n: pa.array(["x"] * n, type=pa.string_view()),
        lambda n: pa.array([b"12"] * n, type=pa.binary(2)), lambda n: pa.array([b"0" * 16] * n, type=pa.uuid()),
        lambda n: pa.array([7, None] * (n // 2) + [7] * (n % 2)), lambda n: pa.nulls(n),
        lambda n: pa.array([2**53 + 1] * n, type=pa.int64()), lambda n: pa.array([7] * n).dictionary_encode(),
    ]  # fmt: skip


ODD_METADATA = [
    b"", b"{", b"[]", b"{}", b'{"columns": 5}', b'{"index_columns": ["gone"], "columns": []}', b"\xff\xff",
    b'{"index_columns": ["Country"], "columns": [{"name": "Country", "pandas_type": "x", "numpy_type": "x"}]}',
    b'{"index_columns": [{"kind": "range", "start": "x"}], "columns": [], "column_indexes": []}',
    b'{"index_columns": [], "columns": [{"name": "Quantity", "field_name": "Quantity", "numpy_type": "record"}]}',
]  # fmt: skip


def _parquet(table: pd.DataFrame, rng: np.random.Generator) -> bytes:
    """A parquet file with columns of odd types and odd metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    arrays, n = [], len(table)
    for position in range(table.shape[1]):
        values = table.iloc[:, position].infer_objects()
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, OverflowError):  # several types, or a whole number that no type holds
            arrays.append(pa.array([None if pd.isna(value) else str(value) for value in values]))
    for _ in range(rng.integers(0, 2)):
        arrays[rng.integers(len(arrays))] = _one_of(rng, _odd_arrays())(n)
    names = [str(name) for name in table.columns]
    odd = rng.random() < 0.3
    metadata = {b"pandas": ODD_METADATA[rng.integers(len(ODD_METADATA))]} if odd else None
    stream = io.BytesIO()
    parquet.write_table(
        pa.Table.from_arrays(arrays, names=names, metadata=metadata),
        stream,
        compression=str(rng.choice(["snappy", "none", "gzip", "zstd"])),
        row_group_size=int(rng.integers(1, 50)),
    )
    return stream.getvalue()
