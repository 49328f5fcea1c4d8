"""The eight columns of raw receipts: their names, their types, and what is refused.

Everything else relies on the frame that `check_receipts` returns. What does not fit is refused with one `ReceiptsError`
that names the column, the first bad rows and the remedy; nothing is guessed.
"""

import difflib
import hashlib
import json
import re

import numpy as np
import pandas as pd

RAW_COLUMNS = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country"]
ALIASES = {"invoice": "InvoiceNo", "price": "UnitPrice"}  # Online Retail II's; compared without case, spaces and _
MONTH_FIRST = ["%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%y %H:%M"]
DAY_FIRST = [form.replace("%m/%d", "%d/%m") for form in MONTH_FIRST]
LARGEST_EXACT = 2**53  # beyond it a float skips whole numbers
NO_CUSTOMER = ["", "NA", "N/A", "#N/A", "NULL", "null", "None", "NaN", "nan"]  # how programs write a missing customer
DATE_FORMAT_OPTION = "(on the command line --date-format, in the chapters RECBOOK_DATE_FORMAT)"


class ReceiptsError(ValueError):
    """A file or frame that is not receipts: the message says what is wrong, where, and what to do."""


def rename_columns(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The eight columns under their names, others left out; a missing or doubtful one is a `ReceiptsError`."""
    wanted = {column.lower(): column for column in RAW_COLUMNS} | ALIASES
    plain = {column: "".join(filter(str.isalnum, str(column))).lower() for column in frame.columns}
    found = {column: wanted[text] for column, text in plain.items() if text in wanted}
    for target in found.values():
        rivals = [column for column in found if found[column] == target]
        if len(rivals) > 1:
            raise ReceiptsError(f"{name}: {rivals} could each be {target}. Keep one of them.")
    missing = [column for column in RAW_COLUMNS if column not in found.values()]
    if missing:
        others = {text: column for column, text in plain.items() if column not in found}
        remedy = f"{_suggestion(missing, others)} Receipts have the columns {', '.join(RAW_COLUMNS)}."
        raise ReceiptsError(f"{name} has no column {', '.join(missing)}; it has {list(frame.columns)}.{remedy}")
    return frame[list(found)].rename(columns=found)[RAW_COLUMNS]


def _suggestion(missing: list[str], others: dict[str, str]) -> str:
    """Which of the other columns (plain text -> name) look like the missing ones, as a remedy; empty if none does."""
    close = {column: difflib.get_close_matches(column.lower(), others, n=1, cutoff=0.5) for column in missing}
    pairs = [f"{others[texts[0]]!r} to {column}" for column, texts in close.items() if texts]
    return f" Perhaps rename {' and '.join(pairs)}." if pairs else ""


def check_receipts(frame: pd.DataFrame, date_format: str | None = None, name: str = "the receipts") -> pd.DataFrame:
    """The frame as raw receipts, or a `ReceiptsError` that names the column, the first bad rows and the remedy.

    InvoiceNo, StockCode, Description, Country: text. Quantity: int64, units. InvoiceDate: datetime64. UnitPrice:
    float64, pounds per unit. CustomerID: Int64. Only Description, CustomerID and Country may be missing. Rows are
    numbered from 0.
    """
    raw = rename_columns(frame, name).reset_index(drop=True)
    if raw.empty:
        raise ReceiptsError(f"{name} has a header and no receipts. Export or download it again.")
    for column in ("InvoiceNo", "StockCode", "Description", "Country"):
        raw[column] = _text(raw[column], strip=column in ("InvoiceNo", "StockCode"))
    for column in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice"):
        _refuse(raw[column], raw[column].isna(), "is empty", "Fill it in, or leave the row out.", name)
    broken = raw["Description"].str.contains("[ÂÃ][\u0080-\u00bf]|â€", regex=True, na=False)
    remedy = "It was UTF-8, read as latin-1 and saved so: export it again, as CSV UTF-8."
    _refuse(raw["Description"], broken, "has letters garbled by a wrong encoding", remedy, name)
    raw["Quantity"] = _numbers(raw["Quantity"], name, whole=True).astype("int64")
    raw["UnitPrice"] = _numbers(raw["UnitPrice"], name, whole=False).astype("float64")
    customers = raw["CustomerID"].mask(raw["CustomerID"].isin(NO_CUSTOMER))
    raw["CustomerID"] = _numbers(customers, name, whole=True).astype("Int64")
    raw["InvoiceDate"] = _dates(raw["InvoiceDate"], date_format, name)
    return raw


def _refuse(column: pd.Series, bad: pd.Series, what: str, remedy: str, name: str) -> None:
    """Raise if any row is bad, naming the column and the first five such rows with what stands there."""
    if bad.any():
        rows = ", ".join(f"row {row}: {value!r}" for row, value in column[bad].head(5).items())
        count = f"in {int(bad.sum()):,} of {len(bad):,} rows (row 0 is the first after the header)"
        raise ReceiptsError(f"{name}: {column.name} {what} {count}. {rows}. {remedy}")


def _text(column: pd.Series, strip: bool) -> pd.Series:
    """A column as text, missing where it was missing or blank."""
    if str(column.dtype) != "str":  # pandas 3's type for text
        column = column.astype("string").astype(pd.Series(["text"]).dtype)
        column = column.where(column.notna(), None)
    if strip:
        column = column.str.strip()
        column = column.mask(column == "")
    return column


def _numbers(column: pd.Series, name: str, whole: bool) -> pd.Series:
    """A column as numbers, missing where it was missing; text, infinities and (if `whole`) fractions are refused."""
    if column.dtype.kind in "iu":
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    bad = column.notna() & ~np.isfinite(numbers.astype("float64"))
    remedy = "Write plain numbers such as 2.55: a decimal point, no currency sign, no thousands separator."
    if column.name == "CustomerID":
        remedy = "Customers are whole numbers; number yours first, for example with pandas.factorize."
    _refuse(column, bad, "is not a number", remedy, name)
    if whole:
        _refuse(column, numbers.abs() > LARGEST_EXACT, "is too large", remedy.replace("2.55", "6"), name)
        fraction = numbers.notna() & (numbers % 1 != 0)
        _refuse(column, fraction.fillna(False), "is not a whole number", remedy.replace("2.55", "6"), name)
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
    remedy = f"Write dates as 2010-12-01 08:26, or say how they are written, such as {option}."
    _refuse(column, dates.isna(), "is not a possible date", remedy, name)
    return dates


def _in_format(texts: pd.Series, date_format: str, name: str) -> pd.Series:
    """Distinct texts as dates in the format that the caller names; one that is no format is a `ReceiptsError`."""
    try:
        return _read(texts, [date_format])
    except (ValueError, TypeError, re.error) as error:  # pandas makes a regular expression of the format
        remedy = f"Write it with the codes of strftime, such as '%d.%m.%Y %H:%M' {DATE_FORMAT_OPTION}."
        raise ReceiptsError(
            f"{name}: InvoiceDate cannot be read with date_format {date_format!r}: {error}. {remedy}"
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
        what = " and ".join(f"row {row}: {column.iloc[row]!r}" for row in rows)
        raise ReceiptsError(f"{name}: InvoiceDate mixes month/day and day/month: {what}. Write them in one order.")
    if len(orders) == 2 and not orders[0].equals(orders[1]):
        row = first[orders[0].index[orders[0] != orders[1]][0]]
        what = f"every row reads both ways, such as row {row}: {column.iloc[row]!r}"
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
