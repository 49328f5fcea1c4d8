"""Raw receipts from any source that readers have: a CSV, an Excel workbook, parquet, gzip, zip, or a download by name.

What a file holds is decided by its first bytes, and must agree with its name. Everything comes out as one frame, the
raw receipts that `recbook.cleaning.schema` describes: one row per line of the file, numbered from 0.
"""

import gzip
import importlib.util
import io
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from recbook.cleaning.schema import ReceiptsError, check_receipts, receipts_fingerprint, rename_columns
from recbook.storage import home, whole_path

FILE_SIGNATURES = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PAR1": "parquet", b"\xd0\xcf\x11\xe0": "xls"}
SUFFIXES = {".gz": "gzip", ".xlsx": "zip", ".zip": "zip", ".parquet": "parquet"}  # what a file's name says it holds
INSTALL_RECEIPTS = 'Install it with: pip install "recbook[receipts]"'
ONLY_EMPTY = {"keep_default_na": False, "na_values": [""]}  # of pandas' readers: `NA` is a country, `None` a text

ONLINE_RETAIL_URL = "https://archive.ics.uci.edu/static/public/352/online+retail.zip"
# SHA-256 of what `content_digest` sees in the full log; measured on Kaggle's data.csv (SHA-256 cece8fc2…de0f97).
ONLINE_RETAIL_DIGEST = "eee499b25a07911439f28bcc3a51ca1123c0706cef5c5d5022039edb50fd4129"


def load_receipts(source: str | Path, date_format: str | None = None) -> pd.DataFrame:
    """Raw receipts from a file, or by the name `online-retail`: the eight `RAW_COLUMNS`, checked by `check_receipts`.

    Reads CSV (UTF-8 or latin-1), xlsx (all its sheets), parquet, and a gzip or a one-file zip of those. Dates are ISO,
    Excel's, or with slashes or dots: month/day or day/month, whichever fits every row; where both do, `date_format`
    must say. Only empty fields are missing: `None` may be a product's name, and `NA` is a country code. `download` says
    how a download is verified.

    Raises `FileNotFoundError` for a missing path and `ReceiptsError` for everything that is not receipts.
    """
    if str(source) == "online-retail":
        return download()
    path = Path(source).expanduser()
    if path.is_dir():
        inside = ", ".join(sorted(child.name for child in path.iterdir())[:5]) or "nothing"
        raise ReceiptsError(f"{path} is a folder, not a file of receipts. Name one file; it holds: {inside}.")
    if not path.exists():
        raise FileNotFoundError(f"no file of receipts at {path}. Check the path, or use the name 'online-retail'.")
    content, kind = path.read_bytes(), SUFFIXES.get(path.suffix.lower())
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
    if not content:
        raise ReceiptsError(f"{name} is empty. Export or download it again.")
    kind = kind_of(content)
    if kind == "xls":
        raise ReceiptsError(f"{name} is a workbook of Excel 97. Save it as .xlsx or as CSV UTF-8.")
    readers: dict[str, Callable] = {"gzip": _gzip, "zip": _zip, "parquet": _parquet, "text": _csv}
    try:
        return readers[kind](content, name)
    except ImportError as error:
        raise ReceiptsError(
            f"reading {name} takes a library that is not installed ({error.name}). {INSTALL_RECEIPTS}"
        ) from error


def _gzip(content: bytes, name: str) -> pd.DataFrame:
    try:
        unpacked = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ReceiptsError(f"{name} is a damaged or truncated gzip file ({error}). Download it again.") from error
    return parse(unpacked, name)


def _zip(content: bytes, name: str) -> pd.DataFrame:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [item for item in archive.namelist() if not item.endswith("/") and "__MACOSX" not in item]
            if "xl/workbook.xml" in members:
                return _workbook(content, name)
            if len(members) != 1:
                raise ReceiptsError(
                    f"{name} holds {len(members)} files ({members[:5]}). Unpack it and name one of them."
                )
            return parse(archive.read(members[0]), f"{name}/{members[0]}")
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise ReceiptsError(f"{name} is a damaged or locked zip or xlsx file ({error}). Get it again.") from error


def _workbook(content: bytes, name: str) -> pd.DataFrame:
    sheets = pd.read_excel(io.BytesIO(content), sheet_name=None, dtype=str, engine="openpyxl", **ONLY_EMPTY)
    filled = {title: sheet for title, sheet in sheets.items() if len(sheet)}
    if not filled:
        raise ReceiptsError(f"{name} has no receipts on any of its sheets: {list(sheets)}.")
    return pd.concat(
        [rename_columns(sheet, f"{name}, sheet {title!r}") for title, sheet in filled.items()], ignore_index=True
    )


def _parquet(content: bytes, name: str) -> pd.DataFrame:
    import pyarrow

    try:
        return pd.read_parquet(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ReceiptsError(f"{name} is a damaged parquet file ({error}). Write or download it again.") from error


def _csv(content: bytes, name: str) -> pd.DataFrame:
    if b"\x00" in content[:4096] or content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ReceiptsError(f"{name} is UTF-16 or no text at all. Save it as CSV UTF-8 (Excel: 'CSV UTF-8').")
    try:
        content.decode("utf-8")
        encoding = "utf-8-sig"  # with or without the mark that Excel puts first
    except UnicodeDecodeError:
        encoding = "latin-1"  # Kaggle's data.csv
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            frame = pd.read_csv(io.BytesIO(content), encoding=encoding, dtype=str, index_col=False, **ONLY_EMPTY)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        remedy = "Is a text with a comma or a line break in it missing its quotes?"
        raise ReceiptsError(
            f"{name} does not read as comma-separated values: {str(error).strip()}. {remedy}"
        ) from error
    header = frame.columns[0] if len(frame.columns) == 1 else ""
    for mark, what in {";": "semicolons", "\t": "tabs", "|": "bars"}.items():
        if mark in header:
            raise ReceiptsError(f"{name} is separated by {what}, not commas. Save it with commas: CSV UTF-8.")
    return frame


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
