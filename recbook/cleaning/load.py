"""Raw receipts from any source that readers have: a CSV, an Excel workbook, parquet, gzip, zip, or a download by name.

What a file holds is decided by its first bytes, and must agree with its name. Everything comes out as one frame, the
raw receipts that `recbook.cleaning.schema` describes: one row per line of the file, numbered from 0.

A file from somebody else may be damaged, or made to do damage. So what it unpacks to is measured before it is read,
which keeps every reader under 2 GB; and whatever a library raises on the way becomes one `ReceiptsError`.
"""

import codecs
import contextlib
import csv
import gzip
import importlib.util
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

import numpy as np
import pandas as pd

from recbook.cleaning.schema import (
    LONGEST_PLACE,
    RAW_COLUMNS,
    ReceiptsError,
    check_receipts,
    find_columns,
    listed,
    printable,
    receipts_fingerprint,
    without_middle,
)
from recbook.storage import home, whole_path

FILE_SIGNATURES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "parquet", b"\xd0\xcf\x11\xe0": "xls"}
SUFFIXES = {".gz": "gzip", ".xlsx": "zip", ".zip": "zip", ".parquet": "parquet"}  # what a file's name says it holds
INSTALL_RECEIPTS = 'Install it with: pip install "recbook[receipts]"'
ONLY_EMPTY = {"keep_default_na": False, "na_values": [""]}  # of pandas' readers: `NA` is a country, `None` a text

MEGABYTE = 2**20
LARGEST_FILE = 2**28  # bytes, of a file and of what is packed in it: three million lines
LARGEST_WORKBOOK = 2**30  # bytes of XML, which are read row by row
LARGEST_ROW = 2**22  # bytes of XML, of a row of a sheet, which openpyxl holds at once
MOST_HELD = 5_000_000  # what openpyxl holds of a part: 10 for an element, 1 for a text or an attribute; under 1 GB
MOST_CELLS = 20_000_000  # two and a half million lines of eight columns
MOST_TAGS = 3 * MOST_CELLS  # elements of a workbook: a cell, in it a text, in it letters; reading takes minutes
MOST_COLUMNS = 1_000
LONGEST_COLUMN = 1_000  # letters, of a column
MOST_ROWS = 1_048_576  # of a sheet: what Excel holds
MOST_LAYERS = 3  # of gzip and zip around the receipts
QUOTES = "Is a text with a comma or a line break in it missing its quotes?"
SPLIT = "Split the file, or leave out what is not receipts."
WORKBOOK = "xl/workbook.xml"  # the part that makes a zip a workbook
ROW, *TEXTS = (f"http://schemas.openxmlformats.org/spreadsheetml/2006/main {tag}" for tag in ("row", "si", "t"))
DAMAGED_ZIP = ("or locked zip or xlsx file", "Get it again.")

ONLINE_RETAIL_URL = "https://archive.ics.uci.edu/static/public/352/online+retail.zip"
# SHA-256 of what `content_digest` sees in the full log; measured on Kaggle's data.csv (SHA-256 cece8fc2…de0f97).
ONLINE_RETAIL_DIGEST = "eee499b25a07911439f28bcc3a51ca1123c0706cef5c5d5022039edb50fd4129"


def load_receipts(source: str | Path, date_format: str | None = None) -> pd.DataFrame:
    """Raw receipts from a file, or by the name `online-retail`: the eight `RAW_COLUMNS`, checked by `check_receipts`.

    Reads CSV (UTF-8 or cp1252), xlsx (all its sheets), parquet, and a gzip or a one-file zip of those. Dates are ISO,
    Excel's, or with slashes or dots: month/day or day/month, whichever fits every row; where both do, `date_format`
    must say. Only empty fields are missing: `None` may be a product's name, and `NA` is a country code. `download` says
    how a download is verified.

    Raises `FileNotFoundError` for a missing path and `ReceiptsError` for everything that is not receipts.
    """
    if str(source) == "online-retail":
        return download()
    path = Path(os.path.expanduser(source))  # Path.expanduser raises where there is no such user
    if path.is_dir():
        inside = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        raise ReceiptsError(f"{path} is a folder, not a file of receipts. Name one file; it holds: {inside}.")
    if not path.exists():
        place = without_middle(printable(str(path)), LONGEST_PLACE)
        raise FileNotFoundError(f"no file of receipts at {place}. Check the path, or use the name 'online-retail'.")
    with path.open("rb") as file:
        content, kind = _all_of(file, str(path)), SUFFIXES.get(path.suffix.lower())
    if content and kind and kind_of(content) != kind:
        raise ReceiptsError(
            f"{path} is named {path.suffix} but is not a {kind} file: it begins with {content[:8]!r}. "
            "Rename it to what it holds, or download it again."
        )
    return check_receipts(parse(content, str(path)), date_format, name=str(path))


def kind_of(content: bytes) -> str:
    """What a file's first bytes say that it is: gzip, zip, parquet, xls, or else text."""
    return next((kind for magic, kind in FILE_SIGNATURES.items() if content.startswith(magic)), "text")


def parse(content: bytes, name: str) -> pd.DataFrame:
    """A file's bytes as a frame with the columns that it has, not yet checked; `name` is for the error messages."""
    readers: dict[str, Callable] = {"workbook": _workbook, "parquet": _parquet, "text": _csv}
    for _ in range(MOST_LAYERS + 1):
        name = without_middle(name, LONGEST_PLACE)
        if not content:
            raise ReceiptsError(f"{name} is empty. Export or download it again.")
        kind = kind_of(content)
        if kind == "xls":
            raise ReceiptsError(f"{name} is a workbook of Excel 97. Save it as .xlsx or as CSV UTF-8.")
        if kind == "gzip":
            content = _gunzipped(content, name)
            continue
        if kind == "zip":
            archive, members = _members(content, name)
            if all(item.filename != WORKBOOK for item in members):
                content, name = _unzipped(archive, members, name)
                continue
            kind = "workbook"
        try:
            return readers[kind](content, name)
        except ImportError as error:
            raise ReceiptsError(
                f"reading {name} takes a library that is not installed ({error.name}). {INSTALL_RECEIPTS}"
            ) from error
    raise ReceiptsError(f"{name} is packed more than {MOST_LAYERS} times over. Unpack it, and name what it holds.")


@contextlib.contextmanager
def _damage_told(name: str, what: str, remedy: str) -> Iterator[None]:
    """Whatever a library's reader raises on a damaged file, KeyError and TypeError included, as one `ReceiptsError`."""
    try:
        yield
    except (ImportError, ReceiptsError):
        raise
    except Exception as error:
        if isinstance(error.__cause__, ReceiptsError):  # which openpyxl takes for a ValueError of its own
            raise error.__cause__ from None
        # Its own words may quote a cell, and with it a customer: they are in the cause, for whoever looks there.
        raise ReceiptsError(f"{name} is a damaged {what} ({type(error).__name__}). {remedy}") from error


def _all_of(file: Any, name: str) -> bytes:
    """What an open file holds, unpacked no further than LARGEST_FILE."""
    content = file.read(LARGEST_FILE + 1)
    _check_bytes(len(content), name)
    return content


def _check_bytes(size: int, name: str) -> None:
    if size > LARGEST_FILE:
        raise ReceiptsError(f"{name} holds more than {LARGEST_FILE // MEGABYTE} MB. {SPLIT}")


def _check_size(rows: int, columns: int, name: str) -> None:
    """Raise if a table is larger than what can be read in 2 GB."""
    if columns > MOST_COLUMNS:
        raise ReceiptsError(f"{name} has {columns:,} columns, more than {MOST_COLUMNS:,}. {SPLIT}")
    if rows * columns > MOST_CELLS:
        what = f"{rows:,} rows of {columns:,} columns, more than {MOST_CELLS:,} cells"
        raise ReceiptsError(f"{name} has {what}. {SPLIT}")


def _gunzipped(content: bytes, name: str) -> bytes:
    with (
        _damage_told(name, "or truncated gzip file", "Download it again."),
        gzip.GzipFile(fileobj=io.BytesIO(content)) as file,
    ):
        return _all_of(file, name)


def _members(content: bytes, name: str) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A zip and its files, each packed as nearly all are: the readers of other ways unpack without a bound."""
    with _damage_told(name, *DAMAGED_ZIP):
        archive = zipfile.ZipFile(io.BytesIO(content))
    members = [item for item in archive.infolist() if not item.is_dir() and "__MACOSX" not in item.filename]
    odd = [item.filename for item in members if item.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    if odd:
        raise ReceiptsError(f"{name} is packed in an unusual way ({listed(odd)}). Pack it again as a plain zip.")
    return archive, members


def _unzipped(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], name: str) -> tuple[bytes, str]:
    """The one file in a zip, and its name for the error messages."""
    if len(members) != 1:
        inside = listed(item.filename for item in members)
        raise ReceiptsError(f"{name} holds {len(members):,} files ({inside}). Unpack it and name one of them.")
    place = f"{name}/{members[0].filename}"
    with _damage_told(name, *DAMAGED_ZIP), archive.open(members[0]) as file:
        return _all_of(file, place), place


class _Parts(zipfile.ZipFile):
    """A workbook's parts; each is measured before it is read, for openpyxl holds what it does not know in memory."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(io.BytesIO(content))
        self.name, self.measured, self.left = name, dict[str, int](), 2 * MOST_TAGS  # openpyxl reads a sheet twice
        if sum(part.file_size for part in self.infolist()) > LARGEST_WORKBOOK:  # a zip's reader holds them to it
            raise ReceiptsError(f"{name} holds more than {LARGEST_WORKBOOK // MEGABYTE:,} MB of sheets. {SPLIT}")

    def open(self, name: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        """A part, as `ZipFile.open` gives it; `ReceiptsError` if it is no part of a workbook of receipts."""
        if name not in self.measured:
            with super().open(name) as part:
                self.measured[name] = _check_xml(part, f"{self.name}, {without_middle(part.name, 40)!r}")
        self.left -= self.measured[name]
        if self.left < 0:
            raise ReceiptsError(f"{self.name} has too many elements, or sheets that are the same. {SPLIT}")
        return super().open(name, mode, *args, **kwargs)


def _check_xml(part: IO[bytes], place: str) -> int:
    """How many elements a workbook's part has; raise if to read it takes too much, or loses rows out of order.

    openpyxl holds every element but those in rows, which it forgets with their row, and leaves out a row whose number
    is not above the last one's. What is no XML is left for it to refuse: it reads no further than to the fault.
    """
    held = tags = size = row_start = number = 0
    parser = expat.ParserCreate(namespace_separator=" ")

    def start(tag: str, attributes: dict[str, str]) -> None:  # of elements outside of rows
        nonlocal held, row_start, number
        if tag != ROW:
            held += (1 if tag in TEXTS else 10) + sum(1 + (len(value) // 100) ** 2 for value in attributes.values())
        else:
            parser.StartElementHandler, row_start = None, parser.CurrentByteIndex
            before, digits = number, attributes.get("r", "")[:20]
            number = int(digits) if digits.isdecimal() else before + 1
            if number > MOST_ROWS:
                raise ReceiptsError(f"{place} has a cell below row {MOST_ROWS:,}, the last of Excel. Delete it.")
            if number <= before:
                raise ReceiptsError(
                    f"{place} has row {number:,} after row {before:,}. Sort it, or save it as CSV UTF-8."
                )

    def end(tag: str) -> None:
        nonlocal tags
        tags += 1
        if tag == ROW:
            parser.StartElementHandler = start

    parser.StartElementHandler, parser.EndElementHandler = start, end
    with contextlib.suppress(expat.ExpatError):
        while chunk := part.read(MEGABYTE):
            size += len(chunk)
            parser.Parse(chunk)
            in_row = parser.StartElementHandler is None
            limits = {
                "a text of more than a megabyte": len(chunk) == MEGABYTE and b"<" not in chunk,
                "a row of more than 4 MB": in_row and size - row_start > LARGEST_ROW,
                f"more than {MOST_TAGS:,} elements": tags > MOST_TAGS,
                "too much besides its cells": held > MOST_HELD,
            }
            for what, exceeded in limits.items():
                if exceeded:
                    raise ReceiptsError(f"{place} has {what}. Save the sheet as CSV UTF-8.")
    return tags


def _workbook(content: bytes, name: str) -> pd.DataFrame:
    import openpyxl.reader.excel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's, which quote the file
        with _damage_told(name, "xlsx file", "Save it again, or as CSV UTF-8."):
            source = io.BytesIO(content)
            reader = openpyxl.reader.excel.ExcelReader(source, read_only=True, data_only=True, keep_links=False)
            reader.archive = _Parts(content, name)
            reader.read()
        named = {sheet: without_middle(sheet.title, 31) for sheet in reader.wb.worksheets}
        sheets = [_sheet(sheet, f"{name}, sheet {title!r}") for sheet, title in named.items()]
    filled = [lines for lines in sheets if len(lines)]
    if not filled:
        raise ReceiptsError(f"{name} has no receipts on any of its sheets: [{listed(named.values())}].")
    return pd.concat(filled, ignore_index=True)


def _sheet(sheet: Any, place: str) -> pd.DataFrame:
    """A sheet's receipts as text under the names of `RAW_COLUMNS`; none where nothing stands below the header."""
    rows = _rows(sheet, place)
    header = next((texts for row in rows if any(texts := [_cell_text(cell) for cell in row])), [])
    lines: list[list[str | None]] = []
    positions: list[int] = []
    size = 0
    for row in rows:
        if any(cell.value is not None for cell in row):
            positions = positions or find_columns([text or "" for text in header], place)
            lines.append([_cell_text(row[position]) if position < len(row) else None for position in positions])
            size += sum(map(len, filter(None, lines[-1])))
        else:
            lines.append([None] * len(RAW_COLUMNS))
        _check_bytes(size, place)  # a text that cells share stands in the file once
    while lines and not any(lines[-1]):  # empty rows, which were formatted perhaps
        lines.pop()
    return pd.DataFrame(lines, columns=RAW_COLUMNS)


def _rows(sheet: Any, place: str) -> Iterator[tuple]:
    """A sheet's rows of cells, one by one; those of a stray cell, far from all others, would fill the memory."""
    sheet.reset_dimensions()  # what the file declares may be wrong
    cells = 0
    with _damage_told(place, "sheet", "Save it again, or as CSV UTF-8."):
        for number, row in enumerate(sheet.rows, 1):
            stray = next((cell.coordinate for cell in row[MOST_COLUMNS:] if cell.value is not None), None)
            cells += len(row)
            if stray or cells > MOST_CELLS:
                what = f"a cell at {stray}" if stray else f"more than {MOST_CELLS:,} cells by row {number:,}"
                raise ReceiptsError(f"{place} has {what}. Delete the columns to the right of the receipts.")
            yield row[:MOST_COLUMNS]


def _cell_text(cell: Any) -> str | None:
    """What a cell holds as text: whole numbers without a point, None for nothing and for Excel's own errors."""
    value = None if cell.data_type == "e" or cell.value == "" else cell.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value)


def _parquet(content: bytes, name: str) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet, types

    damage = (name, "parquet file", "Write or download it again.")
    with _damage_told(*damage):
        file = parquet.ParquetFile(pyarrow.BufferReader(content))
        fields, rows, parts = list(file.schema_arrow), file.metadata.num_rows, file.metadata.to_dict()["row_groups"]
    fields = [fields[position] for position in find_columns([field.name for field in fields], name)]
    columns = [field.name for field in fields]
    for field in fields:
        if types.is_nested(field.type) or isinstance(field.type, pyarrow.BaseExtensionType):
            what = f"{field.name} holds {without_middle(str(field.type), 60)}, not single values"
            raise ReceiptsError(f"{name}: {what}. Write it as text or numbers.")
    _check_size(rows, len(columns), name)
    chunks = [chunk for part in parts for chunk in part["columns"] if chunk["path_in_schema"] in columns]
    _check_bytes(sum(chunk["total_uncompressed_size"] for chunk in chunks), name)
    texts = [field.name for field in fields if _is_text(field.type)]
    with _damage_told(*damage):
        # As dictionaries, so that a long text is held once, however many rows repeat it, until their size is known.
        file = parquet.ParquetFile(pyarrow.BufferReader(content), read_dictionary=texts)
        table = file.read(columns=columns).select(columns).replace_schema_metadata(None)
        table.validate(full=True)  # what calls itself UTF-8 may be none
        size = sum(_text_bytes(table[column]) for column in texts)
    _check_bytes(size, name)
    with _damage_told(*damage):
        for position, field in enumerate(fields):
            if field.name in texts:
                table = table.set_column(position, field.name, table[position].cast(pyarrow.large_string()))
            elif types.is_decimal(field.type):
                table = table.set_column(position, field.name, table[position].cast(pyarrow.float64()))
        return table.to_pandas()


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(test(kind) for test in tests)


def _text_bytes(column: Any) -> int:
    """Bytes of a dictionary's texts, each as often as rows name it."""
    from pyarrow import compute

    lengths = [compute.binary_length(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
    return sum(compute.sum(chunk).as_py() or 0 for chunk in lengths)


def _csv(content: bytes, name: str) -> pd.DataFrame:
    if b"\x00" in content[:4096] or content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ReceiptsError(f"{name} is UTF-16 or no text at all. Save it as CSV UTF-8 (Excel: 'CSV UTF-8').")
    try:
        pieces = (content[start : start + MEGABYTE] for start in range(0, len(content), MEGABYTE))
        for _ in codecs.iterdecode(pieces, "utf-8"):  # all at once would take up to four times the memory
            pass
        encoding = "utf-8-sig"  # with or without the mark that Excel puts first
    except UnicodeDecodeError:
        encoding = "cp1252"  # Windows', with £ and é where latin-1 has them (Kaggle's data.csv), and with €
    _check_text(content, encoding, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            text = {"encoding": encoding, "encoding_errors": "replace", "dtype": str}
            frame = pd.read_csv(io.BytesIO(content), index_col=False, **text, **ONLY_EMPTY)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = f"does not read as comma-separated values: {str(error).strip()}"
        raise ReceiptsError(f"{name} {reason}. {QUOTES}") from error
    header = frame.columns[0] if len(frame.columns) == 1 else ""
    for mark, what in {";": "semicolons", "\t": "tabs", "|": "bars"}.items():
        if mark in header:
            raise ReceiptsError(f"{name} is separated by {what}, not commas. Save it with commas: CSV UTF-8.")
    return frame


def _check_text(content: bytes, encoding: str, name: str) -> None:
    """Raise if a text has more columns, rows or letters in a row than receipts, before pandas makes room for them."""
    spans = [(start, start + MEGABYTE) for start in range(0, len(content) - MEGABYTE, MEGABYTE)]
    if any(content.find(b"\n", *span) < 0 and content.find(b"\r", *span) < 0 for span in spans):
        raise ReceiptsError(f"{name} has a line of more than a megabyte. {QUOTES} {SPLIT}")
    beginning = content[: MOST_COLUMNS * LONGEST_COLUMN].decode(encoding, errors="ignore")
    try:
        header = next(filter(None, csv.reader(io.StringIO(beginning, newline=""))), [])
    except csv.Error:  # a name of more than 131,072 letters
        header = [beginning]
    if any(len(column) > LONGEST_COLUMN for column in header):
        raise ReceiptsError(
            f"{name} has a column with a name of more than {LONGEST_COLUMN:,} letters. {QUOTES} {SPLIT}"
        )
    letters = np.frombuffer(content, np.uint8)  # counts a third as long as `content.count` does
    commas, *ends = (int(np.count_nonzero(letters == ord(letter))) for letter in ",\n\r")
    _check_size(max(ends), len(header), name)
    _check_size(commas, 1, name)


def download() -> pd.DataFrame:
    """UCI's Online Retail, downloaded once into RECBOOK_HOME or the user's cache, and verified by its content.

    What is checked is `content_digest` of what was read, not the zip: UCI publishes no checksum of it. The digest was
    measured on Kaggle's copy of the log; should UCI's workbook differ from that in a single value, the download is
    refused, and the message says how to go on with it. The verified receipts are kept as parquet.
    """
    folder = home()
    kept = folder / "online_retail.parquet"
    if kept.exists():
        raw = check_receipts(parse(kept.read_bytes(), str(kept)), name=str(kept))
        if content_digest(raw) == ONLINE_RETAIL_DIGEST:
            return raw
        raise ReceiptsError(f"{kept} is not the log that was kept there. Delete it, and it will be downloaded again.")
    raw = _fetched(folder)
    with whole_path(kept) as beside:
        raw.to_parquet(beside)
    return raw


def _fetched(folder: Path) -> pd.DataFrame:
    import pooch

    absent = [library for library in ("openpyxl", "pyarrow") if importlib.util.find_spec(library) is None]
    if absent:  # said before the download, not after it
        raise ReceiptsError(
            f"reading and keeping online-retail takes libraries that are not installed ({', '.join(absent)}). "
            f"{INSTALL_RECEIPTS}"
        )
    print(f"downloading {ONLINE_RETAIL_URL} to {folder}; reading the workbook takes a minute or two, once")
    pooch.get_logger().setLevel("WARNING")
    try:
        path = Path(pooch.retrieve(ONLINE_RETAIL_URL, known_hash=None, fname="online_retail.zip", path=folder))
    except OSError as error:  # every error of requests is one
        remedy = "Download it in a browser and give its path instead of 'online-retail'."
        raise ReceiptsError(f"cannot download {ONLINE_RETAIL_URL}: {error}. {remedy}") from error
    unverified = path.replace(path.with_name("online_retail_unverified.zip"))  # so that the next try downloads again
    raw = check_receipts(parse(unverified.read_bytes(), str(unverified)), name=str(unverified))
    digest = content_digest(raw)
    if digest != ONLINE_RETAIL_DIGEST:
        raise ReceiptsError(
            f"{ONLINE_RETAIL_URL} is not the log that the book was measured on: {len(raw):,} rows with content "
            f"{digest}, not {ONLINE_RETAIL_DIGEST}. To use it all the same, load the path {unverified}."
        )
    unverified.unlink()
    return raw


def content_digest(raw: pd.DataFrame) -> str:
    """SHA-256 of what raw receipts say, whatever file they came in; spaces, seconds and tiny fractions aside."""
    return receipts_fingerprint(
        raw.assign(
            Description=raw["Description"].str.split().str.join(" "),
            InvoiceDate=raw["InvoiceDate"].dt.floor("min"),
            UnitPrice=raw["UnitPrice"].round(3),
        )
    )
