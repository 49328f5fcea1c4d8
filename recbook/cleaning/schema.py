"""The eight columns of raw receipts: their names, their types, and what is refused.

Everything else relies on the frame that `check_receipts` returns. What does not fit is refused with one `ReceiptsError`
that names the column, the first bad rows and the remedy; nothing is guessed.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Hashable, Iterable

import numpy as np
import pandas as pd

RAW_COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
ALIASES = {"invoice": "InvoiceNo", "price": "UnitPrice"}  # Online Retail II's; compared without case, spaces and _
MONTH_FIRST = ["%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%y %H:%M"]
DAY_FIRST = [form.replace("%m/%d", "%d/%m") for form in MONTH_FIRST]
LARGEST_EXACT = 2**53 - 1  # from the next on a float skips whole numbers
LARGEST_AMOUNT = 10**9  # units, or pounds per unit: a million such lines still add up exactly
LONGEST_TEXT = 32_767  # letters: what a cell of Excel holds
LONGEST_MESSAGE, LONGEST_PLACE = 400, 100  # letters of an error, and in it of the file's name
NO_CUSTOMER = ["", "NA", "N/A", "#N/A", "NULL", "null", "None", "NaN", "nan"]  # how programs write a missing customer
DATE_FORMAT_OPTION = "(on the command line --date-format, in the chapters RECBOOK_DATE_FORMAT)"

# What a terminal or a page would obey instead of showing it, and what nobody can see.
ESCAPE_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[PX^_][^\x1b]*\x1b\\\\)")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # C0 with tabs and line breaks, DEL, C1, Unicode's line breaks
INVISIBLE = re.compile(  # soft hyphen, zero width, marks of direction, tags, halves of a pair
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
CONTINUED = bytes(range(0x80, 0xC0)).decode("cp1252", errors="ignore")  # second bytes of UTF-8, as Windows' letters
GARBLED = re.compile(f"[ÂÃ][\u0080-\u00bf{CONTINUED}]|â€")  # UTF-8, read as latin-1 or cp1252


class ReceiptsError(ValueError):
    """A file or frame that is not receipts: one line that says what is wrong, where, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(without_middle(" ".join(printable(message).split()), LONGEST_MESSAGE))


def printable(text: str) -> str:
    """Text that only says something: control characters and terminal escapes as spaces, the invisible left out."""
    return INVISIBLE.sub("", CONTROL.sub(" ", ESCAPE_SEQUENCE.sub(" ", text)))


def without_middle(text: str, letters: int) -> str:
    """Text with its middle left out where it is longer: an error's place stands first, its remedy last."""
    end = letters // 2
    return text if len(text) <= letters else f"{text[: letters - end - 1]}…{text[-end:]}"


def listed(names: Iterable[Hashable]) -> str:
    """The first five names, shortened, and how many there are besides."""
    texts = [repr(without_middle(str(name), 24)) for name in names]
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5:,} more" if len(texts) > 5 else "")


def find_columns(columns: Iterable[Hashable], name: str) -> list[int]:
    """The positions of the eight `RAW_COLUMNS`; a missing or doubtful one is a `ReceiptsError`."""
    wanted = {column.lower(): column for column in RAW_COLUMNS} | ALIASES
    columns = list(columns)
    plain = ["".join(filter(str.isalnum, str(column)[:100])).lower() for column in columns]
    found: dict[str, list[int]] = {target: [] for target in RAW_COLUMNS}
    for position, text in enumerate(plain):
        if text in wanted:
            found[wanted[text]].append(position)
    for target, rivals in found.items():
        if len(rivals) > 1:
            names = listed(columns[position] for position in rivals)
            raise ReceiptsError(f"{name}: [{names}] could each be {target}. Keep one of them.")
    missing = [target for target, positions in found.items() if not positions]
    numbers = any(str(column).lstrip("-")[:1].isdigit() for column in columns)
    if numbers and len(missing) == len(RAW_COLUMNS):  # a line of receipts in the header's place may name a customer
        raise ReceiptsError(f"{name} has no header of receipts. Add a first line: {', '.join(RAW_COLUMNS)}.")
    if missing:
        others = {
            text: without_middle(str(column), 24)
            for column, text in zip(columns, plain, strict=True)
            if text not in wanted
        }
        remedy = f"{_suggestion(missing, others)} Receipts have the columns {', '.join(RAW_COLUMNS)}."
        raise ReceiptsError(f"{name} has no column {', '.join(missing)}; it has [{listed(columns)}].{remedy}")
    return [positions[0] for positions in found.values()]


def rename_columns(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The eight columns under their names, others left out; a missing or doubtful one is a `ReceiptsError`."""
    return frame.iloc[:, find_columns(frame.columns, name)].set_axis(RAW_COLUMNS, axis=1)


def _suggestion(missing: list[str], others: dict[str, str]) -> str:
    """Which of the other columns (plain text -> name) look like the missing ones, as a remedy; empty if none does."""
    close = {column: difflib.get_close_matches(column.lower(), others, n=1, cutoff=0.5) for column in missing}
    pairs = [f"{others[texts[0]]!r} to {column}" for column, texts in close.items() if texts]
    return f" Perhaps rename {' and '.join(pairs)}." if pairs else ""


def check_receipts(frame: pd.DataFrame, date_format: str | None = None, name: str = "the receipts") -> pd.DataFrame:
    """The frame as raw receipts, or a `ReceiptsError` that names the column, the first bad rows and the remedy.

    InvoiceNo, StockCode, Description, Country: text, `printable`, so that nothing downstream carries what a terminal
    would obey. Quantity: int64, units. InvoiceDate: datetime64. UnitPrice: float64, pounds per unit. CustomerID: Int64.
    Only Description, CustomerID and Country may be missing. Rows are numbered from 0.
    """
    name = without_middle(name, LONGEST_PLACE)
    raw = rename_columns(frame, name).reset_index(drop=True)
    if raw.empty:
        raise ReceiptsError(f"{name} has a header and no receipts. Export or download it again.")
    for column in ("InvoiceNo", "StockCode", "Description", "Country"):
        raw[column] = _text(raw[column], name)
    for column in ("InvoiceNo", "StockCode"):
        stripped = raw[column].str.strip()
        raw[column] = stripped.mask(stripped == "")
    for column in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice"):
        _refuse(raw[column], raw[column].isna(), "is empty", "Fill it in, or leave the row out.", name)
    raw["Quantity"] = _numbers(raw["Quantity"], name, LARGEST_AMOUNT, whole=True).astype("int64")
    raw["UnitPrice"] = _numbers(raw["UnitPrice"], name, LARGEST_AMOUNT, whole=False).astype("float64")
    customers = raw["CustomerID"].mask(raw["CustomerID"].isin(NO_CUSTOMER))
    raw["CustomerID"] = _numbers(customers, name, LARGEST_EXACT, whole=True).astype("Int64")
    raw["InvoiceDate"] = _dates(raw["InvoiceDate"], date_format, name)
    return raw


def _refuse(column: pd.Series, bad: pd.Series, what: str, remedy: str, name: str) -> None:
    """Raise if any row is bad, naming the column and the first three such rows with what stands there.

    What stands for a customer is not repeated: it may be a person's name.
    """
    if bad.any():
        first = column[bad].head(3)
        shown = [""] * 3 if column.name == "CustomerID" else [f": {_quoted(value)}" for value in first]
        rows = ", ".join(f"row {row}{value}" for row, value in zip(first.index, shown, strict=False))
        count = f"in {int(bad.sum()):,} of {len(bad):,} rows (row 0 is the first after the header)"
        raise ReceiptsError(f"{name}: {column.name} {what} {count}. {rows}. {remedy}")


def _quoted(value: object) -> str:
    return repr(without_middle(value, 32)) if isinstance(value, str) else without_middle(repr(value), 32)


def _text(column: pd.Series, name: str) -> pd.Series:
    """A column as printable text, missing where it was missing; each distinct text is looked at once."""
    if str(column.dtype) != "str":  # pandas 3's type for text
        column = column.astype("string").astype(pd.Series(["text"]).dtype)
        column = column.where(column.notna(), None)
    distinct = column.dropna().unique().tolist()
    long = [text for text in distinct if len(text) > LONGEST_TEXT]
    remedy = "Is a quote missing, so that many lines became one text? Shorten it otherwise."
    _refuse_texts(column, long, f"is longer than {LONGEST_TEXT:,} letters", remedy, name)
    if column.name == "Description":  # before the half of a garbled letter that is a control character goes
        garbled = [text for text in distinct if not text.isascii() and GARBLED.search(text)]
        remedy = "It was UTF-8, read as latin-1 and saved so: export it again, as CSV UTF-8."
        _refuse_texts(column, garbled, "has letters garbled by a wrong encoding", remedy, name)
    if all(map(str.isprintable, distinct)):
        return column
    codes, texts = pd.factorize(column)
    shown = pd.array([text if text.isprintable() else printable(text) for text in texts], dtype=column.dtype)
    return pd.Series(shown.take(codes, allow_fill=True), index=column.index, name=column.name)


def _refuse_texts(column: pd.Series, texts: list[str], what: str, remedy: str, name: str) -> None:
    if texts:
        _refuse(column, column.isin(texts), what, remedy, name)


def _numbers(column: pd.Series, name: str, largest: int, whole: bool) -> pd.Series:
    """A column as numbers up to `largest`, missing where it was missing; times, text and infinities are refused.

    So are fractions, if the numbers are to be `whole`.
    """
    remedy = "Write plain numbers such as 2.55: a decimal point, no currency sign, no thousands separator."
    if column.name == "CustomerID":
        remedy = "Customers are whole numbers; number yours first, for example with pandas.factorize."
    if column.dtype.kind in "mM":  # which pandas would count in nanoseconds
        _refuse(column, column.notna(), "is a time, not a number", remedy, name)
    numbers = column if column.dtype.kind in "iu" else pd.to_numeric(column, errors="coerce")
    size = numbers.astype("float64").abs()  # of int64, the smallest would stay negative
    _refuse(column, column.notna() & ~np.isfinite(size), "is not a number", remedy, name)
    remedy = remedy.replace("2.55", "6") if whole else remedy
    _refuse(column, size > largest, f"is too large (over {largest:,})", remedy, name)
    if whole and numbers.dtype.kind not in "iu":
        _refuse(column, size % 1 > 0, "is not a whole number", remedy, name)
    return numbers


def _dates(column: pd.Series, date_format: str | None, name: str) -> pd.Series:
    """A column as dates without time zone; each distinct text is read once."""
    if column.dtype.kind == "M" and getattr(column.dtype, "tz", None) is None:
        dates = _plausible(column)
    else:
        codes, distinct = pd.factorize(column)
        texts = pd.Series(distinct, dtype=object).astype(str)
        first = pd.Series(np.unique(codes, return_index=True)[1])  # the row where each text first stands
        read = _in_format(texts, date_format, name) if date_format else _guess(texts, column, first, name)
        dates = pd.Series(read.to_numpy()[codes], index=column.index, name=column.name)
    option = f"load_receipts(…, date_format='%d %b %Y %H:%M') {DATE_FORMAT_OPTION}"
    remedy = f"Write dates as 2010-12-01 08:26, or say how they are written: {option}."
    _refuse(column, dates.isna(), "is not a possible date", remedy, name)
    return dates


def _in_format(texts: pd.Series, date_format: str, name: str) -> pd.Series:
    """Distinct texts as dates in the format that the caller names; one that is no format is a `ReceiptsError`."""
    try:
        return _read(texts, [date_format])
    except (ValueError, TypeError, re.error) as error:  # pandas makes a regular expression of the format
        remedy = f"Write it with the codes of strftime, such as '%d.%m.%Y %H:%M' {DATE_FORMAT_OPTION}."
        raise ReceiptsError(
            f"{name}: InvoiceDate cannot be read with date_format {_quoted(date_format)}: {error}. {remedy}"
        ) from error


def _guess(texts: pd.Series, column: pd.Series, first: pd.Series, name: str) -> pd.Series:
    """Distinct texts as dates: ISO, or with slashes or dots in the one order of day and month that fits them all."""
    dates = _read(texts.where(texts.str.match(r"\d{4}-\d\d-\d\d(?!.*(Z|\d[+-]\d))")), ["ISO8601"])
    texts = texts.str.replace(r"^(\d\d?)\.(\d\d?)\.(?=\d)", r"\1/\2/", regex=True)
    slashed = texts.str.contains("/", regex=False)
    if not slashed.any():
        return dates
    month_first, day_first = (_read(texts[slashed], forms) for forms in (MONTH_FIRST, DAY_FIRST))
    readable = month_first.notna() | day_first.notna()  # the others are refused as impossible, by the caller
    orders = [order for order in (month_first, day_first) if order[readable].notna().all()]
    if not orders:
        rows = [first[order[readable & order.isna()].index[0]] for order in (day_first, month_first)]
        what = " and ".join(f"row {row}: {_quoted(column.iloc[row])}" for row in rows)
        raise ReceiptsError(f"{name}: InvoiceDate mixes month/day and day/month: {what}. Write them in one order.")
    if len(orders) == 2 and not orders[0].equals(orders[1]):
        row = first[orders[0].index[orders[0] != orders[1]][0]]
        what = f"every row reads both ways, such as row {row}: {_quoted(column.iloc[row])}"
        forms = ["%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"]
        either = " or ".join(repr(form if "/" in column.iloc[row] else form.replace("/", ".")) for form in forms)
        choose = f"Say which: load_receipts(…, date_format={either}) {DATE_FORMAT_OPTION}."
        raise ReceiptsError(f"{name}: InvoiceDate may be month/day or day/month: {what}. {choose}")
    return dates.where(~slashed, orders[0].reindex(texts.index))


def _read(texts: pd.Series, forms: list[str]) -> pd.Series:
    """Texts as dates in the first of the forms that fits each; NaT where none does."""
    dates = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[ns]")
    for form in forms:
        left = dates.isna()
        if left.any():
            dates[left] = _plausible(pd.to_datetime(texts[left], format=form, errors="coerce"))
    return dates


def _plausible(dates: pd.Series) -> pd.Series:
    """The dates of our time; NaT for the others, such as a year 210, which nanoseconds could not hold."""
    return dates.where(dates.dt.year.between(1980, 2100)).astype("datetime64[ns]")


def receipts_fingerprint(receipts: pd.DataFrame) -> str:
    """SHA-256 of a frame's content, in hexadecimal: column names, values and order of rows; not the index.

    Equal for equal content whatever the version of pandas, the processor, or how text and dates are held in memory.
    """
    digest = hashlib.sha256()
    for name, column in receipts.items():
        digest.update(f"{name}:".encode())
        if column.dtype.kind == "M":
            digest.update(column.to_numpy("datetime64[us]").astype("<i8").tobytes())
        elif column.dtype.kind == "f":
            digest.update(column.to_numpy("<f8").tobytes())
        else:
            values = column.astype(object).where(column.notna(), None).tolist()
            digest.update(json.dumps(values).encode())
    return digest.hexdigest()
