"""Receipts: every row is accounted for, every rule does what it says, every bad file gets its one clear error.

What is independent here: a row-by-row cleaner written with plain loops, frames small enough to work out by hand, and
facts of UCI Online Retail counted without this package.
"""

import gzip
import http.server
import io
import os
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbook.cleaning import load as loading
from recbook.cleaning import receipts as rc
from recbook.cleaning import schema
from recbook.cleaning.load import ONLINE_RETAIL_DIGEST, content_digest, load_receipts
from recbook.cleaning.schema import RAW_COLUMNS
from tests.real import REAL, needs_real

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
LINE = "536365,85123A,HOLDER,6,12/13/2010 8:26,2.55,17850,United Kingdom"
HOLDER = ("536365", "85123A", "HOLDER", 6, "2010-12-01 08:26", 2.55, 17850, "United Kingdom")


def frame(*rows: tuple) -> pd.DataFrame:
    """Raw receipts from tuples in the order of the columns."""
    return schema.check_receipts(pd.DataFrame(rows, columns=RAW_COLUMNS))


def line(**changes) -> tuple:
    """The same receipt line as ever, but for the changes: invoice, code, text, quantity, date, price, customer."""
    names = ["invoice", "code", "text", "quantity", "date", "price", "customer", "country"]
    return tuple({**dict(zip(names, HOLDER, strict=True)), **changes}.values())


def rule_of(cleaned: rc.Cleaned) -> dict[int, str]:
    return cleaned.removed["rule"].to_dict()


# ---- cleaning: the rules, one by one, worked out by hand


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        (line(customer=None), "no customer"),
        (line(text=None), "no description"),
        (line(text="  "), "no description"),
        (line(), "exact duplicate"),
        (line(invoice="C536400", quantity=-1), "cancellation"),
        (line(quantity=0), "quantity not positive"),
        (line(quantity=-3), "quantity not positive"),
        (line(price=0.0), "price not positive"),
        (line(price=-5.0), "price not positive"),
        *[
            (line(code=code), "not a product")
            for code in ("POST", "DOT", "M", "m", "C2", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK", "PADS")
        ],
        (line(code="gift_0001_20"), "not a product"),
    ],
)
def test_each_rule_takes_its_row_and_no_other(row, rule):
    cleaned = rc.clean(frame(line(), row, line(code="22423")))
    assert rule_of(cleaned) == {1: rule}
    assert list(cleaned.receipts.index) == [0, 2]


@pytest.mark.parametrize("code", ["22423", "85123A", "15056bl", "DCGS0004", "DCGSSBOY"])
def test_products_stay_and_their_codes_are_in_capitals(code):
    assert rc.clean(frame(line(code=code))).receipts["code"].tolist() == [code.upper()]


def test_a_rule_alone_takes_what_an_earlier_rule_took_first():
    audit = rc.clean(frame(line(), line(customer=None, text=None), line(text=None))).audit.set_index("rule")
    assert audit.loc["no description", ["rows", "alone"]].tolist() == [1, 2]
    assert audit.loc["no customer", ["rows", "left"]].tolist() == [1, 2]
    assert audit.loc["kept", ["rows", "share"]].tolist() == [1, 1 / 3]


def test_removed_rows_can_be_had_as_they_were():
    raw = frame(line(), line(code="POST"), line(customer=None))
    removed = rc.clean(raw).removed
    pd.testing.assert_frame_equal(removed.drop(columns="rule"), raw.loc[[1, 2]])


def test_clean_receipts_have_the_promised_columns_and_types():
    receipts = rc.clean(frame(line(country=None))).receipts
    kinds = {name: column.dtype.kind for name, column in receipts.items()}
    assert (kinds["quantity"], kinds["date"], kinds["price"], kinds["customer"]) == ("i", "M", "f", "i")
    expected = ["536365", "85123A", "HOLDER", 6, pd.Timestamp("2010-12-01 08:26"), 2.55, 17850, "Unspecified"]
    assert receipts.iloc[0].tolist() == expected
    assert list(receipts) == ["invoice", "code", "description", "quantity", "date", "price", "customer", "country"]


def test_one_description_per_code_the_most_frequent_then_the_first_in_the_alphabet():
    texts = ["B  LAMP", "A LAMP", " B LAMP ", "C LAMP"]
    rows = [line(invoice=str(number), text=text) for number, text in enumerate(texts)]
    tie = [line(invoice=str(number), text=text, code="22423") for number, text in enumerate(["RED", "BLUE"])]
    described = rc.clean(frame(*rows, *tie)).receipts
    assert described.groupby("code")["description"].unique().map(list).to_dict() == {
        "85123A": ["B LAMP"],
        "22423": ["BLUE"],
    }


def test_receipts_come_out_in_time_order_whatever_the_order_of_the_file():
    rows = [line(invoice=str(day), date=f"2010-12-{day:02}") for day in (3, 1, 2)]
    assert rc.clean(frame(*rows)).receipts.index.tolist() == [1, 2, 0]


# ---- baskets: what one customer buys on one invoice on one day


def baskets_of(*rows: tuple[str, int, str]) -> list[tuple[str, str]]:
    """Invoice and date of clean lines, in the order given, from invoices, customers and dates; each of its own code."""
    cleaned = rc.clean(
        frame(*(line(invoice=i, customer=c, date=d, code=f"{10000 + n}") for n, (i, c, d) in enumerate(rows)))
    )
    receipts = cleaned.receipts.sort_index()
    return list(zip(receipts["invoice"], receipts["date"].dt.strftime("%d %H:%M"), strict=True))


def test_a_basket_has_the_date_of_its_first_line_after_midnight_too():
    rows = [("7", 1, "2011-03-02 00:40"), ("7", 1, "2011-03-01 23:58"), ("7", 1, "2011-03-01 20:00")]
    assert baskets_of(*rows) == [("7", "01 20:00")] * 3


def test_two_customers_with_one_number_have_two_baskets():
    rows = [("7", 2, "2011-03-01 10:05"), ("7", 1, "2011-03-01 10:00"), ("7", 2, "2011-03-01 10:10")]
    assert baskets_of(*rows) == [("7#2", "01 10:05"), ("7", "01 10:00"), ("7#2", "01 10:05")]


def test_a_number_that_comes_again_on_another_day_is_another_basket():
    rows = [
        ("7", 1, "2011-03-01 09:00"),
        ("7", 1, "2011-03-01 22:00"),
        ("7", 1, "2011-03-02 11:00"),
        ("7", 1, "2011-05-09 09:00"),
    ]
    assert baskets_of(*rows) == [("7", "01 09:00"), ("7", "01 09:00"), ("7#2", "02 11:00"), ("7#3", "09 09:00")]


def test_no_basket_gets_the_name_of_another():
    rows = [("7", 1, "2011-03-01 09:00"), ("7", 2, "2011-03-01 10:00"), ("7#2", 3, "2011-03-01 11:00")]
    assert [name for name, _ in baskets_of(*rows)] == ["7", "7##2", "7#2"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("12"), st.sampled_from([1, 2]), st.integers(0, 120)), min_size=1, max_size=30)
)
def test_baskets_are_those_that_loops_find(rows):
    """A plain loop over the lines in time order; every cut by date leaves each basket on one side."""
    dates = [pd.Timestamp("2011-03-01") + pd.Timedelta(hours=hour) for _, _, hour in rows]
    lines = [
        line(invoice=i, customer=c, date=str(d), code=f"{10000 + n}")
        for n, ((i, c, _), d) in enumerate(zip(rows, dates, strict=True))
    ]
    receipts = rc.clean(frame(*lines)).receipts
    last: dict[tuple[str, int], pd.Timestamp] = {}
    opened: dict[tuple[str, int], int] = {}
    basket, begun = {}, {}
    for n in sorted(range(len(rows)), key=lambda n: (dates[n], n)):
        who, when = rows[n][:2], dates[n]
        fresh = who not in last or (when.date() != last[who].date() and when - last[who] > pd.Timedelta(hours=12))
        opened[who] = n if fresh else opened[who]
        basket[n], begun[n], last[who] = opened[who], dates[opened[who]], when
    assert receipts["date"].to_dict() == begun
    pairs = {(basket[n], invoice) for n, invoice in receipts["invoice"].items()}
    assert len(pairs) == len({name for _, name in pairs}) == len(set(basket.values()))


def test_other_shops_say_how_their_codes_look():
    raw = frame(line(code="SKU-1"), line(code="POST"))
    with pytest.raises(
        schema.ReceiptsError, match=r"no receipt is left of 2.*not a product 2.*product_code.*--product-code"
    ):
        rc.clean(raw)
    with pytest.raises(schema.ReceiptsError, match=r"'\[SKU' is not a regular expression.*RECBOOK_PRODUCT_CODE"):
        rc.clean(raw, product_code="[SKU")
    assert rc.clean(raw, product_code=r"SKU-\d+").receipts["code"].tolist() == ["SKU-1"]


def test_cleaning_leaves_its_input_as_it_was():
    raw = frame(line(), line(code="85123a", text=" X "), line(customer=None))
    before = raw.copy(deep=True)
    rc.clean(raw)
    pd.testing.assert_frame_equal(raw, before)


# ---- cancellations


def pairs(*rows: tuple) -> list[tuple[int, int]]:
    return list(rc.match_cancellations(frame(*rows)).itertuples(index=False, name=None))


def sale(day: int, quantity: int = 6, **changes) -> tuple:
    return line(invoice=f"5{day:02}", quantity=quantity, date=f"2011-01-{day:02}", **changes)


def undo(day: int, quantity: int = 6, **changes) -> tuple:
    return line(invoice=f"C5{day:02}", quantity=-quantity, date=f"2011-01-{day:02}", **changes)


def test_a_cancellation_undoes_the_latest_earlier_sale():
    assert pairs(sale(1), sale(2), undo(3), sale(4)) == [(2, 1)]


def test_two_cancellations_undo_two_sales():
    assert pairs(sale(1), sale(2), undo(3), undo(4)) == [(2, 1), (3, 0)]


def test_a_cancellation_of_a_sale_before_the_file_undoes_nothing_later():
    assert pairs(undo(1), sale(2), undo(3), undo(4)) == [(2, 1)]


@pytest.mark.parametrize("changes", [{"customer": 1}, {"code": "22423"}, {"quantity": 5}, {"customer": None}])
def test_customer_product_and_quantity_must_be_the_same(changes):
    assert pairs(sale(1), undo(2, **changes)) == []


def test_small_and_capital_letters_of_a_code_are_one_product():
    assert pairs(sale(1, code="85123a"), undo(2, code="85123A")) == [(1, 0)]


def test_order_is_by_date_not_by_row():
    assert pairs(undo(3), sale(1), sale(5)) == [(0, 1)]


def test_the_sale_goes_and_a_partial_return_leaves_it():
    whole = rc.clean(frame(sale(1), undo(2), sale(3)))
    assert rule_of(whole) == {0: "sale later cancelled", 1: "cancellation"}
    part = rc.clean(frame(sale(1), undo(2, quantity=2)))
    assert rule_of(part) == {1: "cancellation"}
    assert part.receipts["quantity"].tolist() == [6]


def test_a_sale_scanned_twice_and_cancelled_once_is_gone():
    assert rc.match_cancellations(frame(sale(1), sale(1), undo(2)))["sale"].tolist() == [1]
    assert len(rc.clean(frame(sale(1), sale(1), undo(2), sale(3))).receipts) == 1


# ---- messy frames of any kind: conservation, and agreement with a cleaner made of loops

MESSY = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "C4", "C5", "c6", "A7"]),
        st.sampled_from(["85123A", "85123a", "22423", "POST", "gift_0001_20"]),
        st.sampled_from(["LAMP", " LAMP", "lamp", "", None]),
        st.integers(-2, 2),
        st.dates(pd.Timestamp("2011-01-01").date(), pd.Timestamp("2011-01-04").date()),
        st.sampled_from([2.5, 1.0, 0.0, -1.0]),
        st.sampled_from([1, 2, None]),
        st.sampled_from(["United Kingdom", None]),
    ),
    max_size=40,
)
GOOD = [line(invoice="9", customer=9, date=f"2011-02-0{day}") for day in (1, 2)]


def plainly_cleaned(raw: pd.DataFrame) -> dict[int, str]:
    """Row -> rule, by loops: the slow and obvious way to say what `clean` should remove."""
    rows = {row: values for row, *values in raw.astype(object).where(raw.notna(), None).itertuples()}
    taken: dict[int, str] = {}

    def take(rule, test):
        taken.update({row: rule for row, values in rows.items() if row not in taken and test(*values)})

    take("no customer", lambda i, c, t, q, d, p, customer, country: customer is None)
    take("no description", lambda i, c, t, q, d, p, customer, country: not (t or "").strip())
    seen: set = set()
    for row, values in rows.items():
        if row not in taken and tuple(values) in seen:
            taken[row] = "exact duplicate"
        seen.add(tuple(values))
    open_sales: dict[tuple, list[int]] = {}
    for row, (i, c, _, q, _, _, customer, _) in sorted(rows.items(), key=lambda item: (item[1][4], item[0])):
        if row in taken:
            continue
        if i[0] in "Cc":
            if q < 0 and open_sales.get((customer, c.upper(), -q)):
                taken[open_sales[(customer, c.upper(), -q)].pop()] = "sale later cancelled"
        elif q > 0:
            open_sales.setdefault((customer, c.upper(), q), []).append(row)
    take("cancellation", lambda i, *rest: i[0] in "Cc")
    take("quantity not positive", lambda i, c, t, q, *rest: q <= 0)
    take("price not positive", lambda i, c, t, q, d, p, *rest: p <= 0)
    take("not a product", lambda i, c, *rest: not c[:5].isdigit())
    return taken


@settings(max_examples=200, deadline=None)
@given(MESSY)
def test_every_row_is_kept_or_removed_by_the_rule_that_loops_find(rows):
    raw = frame(*rows, *GOOD)
    receipts, removed, audit = rc.clean(raw)
    assert sorted([*receipts.index, *removed.index]) == list(range(len(raw)))  # conservation
    assert audit["rows"].sum() == len(raw)
    assert audit.set_index("rule")["rows"].drop("kept").to_dict() == {
        **dict.fromkeys(rc.rules(), 0),
        **Counter(removed["rule"]),
    }
    assert removed["rule"].to_dict() == plainly_cleaned(raw)


@settings(max_examples=50, deadline=None)
@given(MESSY)
def test_baskets_catalogue_and_histories_hold_every_clean_line(rows):
    receipts = rc.clean(frame(*rows, *GOOD)).receipts
    baskets, catalogue = rc.baskets(receipts), rc.catalogue(receipts)
    assert baskets["total"].sum() == pytest.approx((receipts["quantity"] * receipts["price"]).sum())
    assert {(b.invoice, code) for b in baskets.itertuples() for code in b.codes} == set(
        zip(receipts["invoice"], receipts["code"], strict=True)
    )
    assert baskets["date"].is_monotonic_increasing
    assert catalogue["units"].sum() == receipts["quantity"].sum()
    assert catalogue["description"].to_dict() == rc.descriptions(receipts)
    assert sum(map(len, rc.histories(receipts).values())) == len(baskets)


# ---- what clean receipts become


@pytest.fixture
def shop_week() -> pd.DataFrame:
    return rc.clean(
        frame(
            line(invoice="2", code="22423", text="STAND", quantity=1, price=10.0, date="2011-01-02", customer=7),
            line(invoice="1", code="85123A", quantity=2, price=1.0, date="2011-01-01", customer=8),
            line(invoice="2", code="85123A", quantity=3, price=2.0, date="2011-01-02", customer=7),
            line(invoice="2", code="22423", text="STAND", quantity=2, price=10.0, date="2011-01-02", customer=7),
            line(invoice="3", code="22423", text="STAND", quantity=1, price=12.0, date="2011-01-03", customer=8),
        )
    ).receipts


def test_baskets_by_hand(shop_week):
    table = rc.baskets(shop_week)
    assert table["invoice"].tolist() == ["1", "2", "3"]
    assert table["codes"].tolist() == [["85123A"], ["22423", "85123A"], ["22423"]]
    assert table["total"].tolist() == [2.0, 36.0, 12.0]
    assert table["customer"].tolist() == [8, 7, 8]
    assert table["date"].dt.day.tolist() == [1, 2, 3]


def test_histories_by_hand(shop_week):
    assert rc.histories(shop_week) == {7: [["22423", "85123A"]], 8: [["85123A"], ["22423"]]}


def test_catalogue_by_hand(shop_week):
    table = rc.catalogue(shop_week)
    assert table.index.tolist() == ["22423", "85123A"]
    assert table.loc["22423"].tolist() == [
        "STAND",
        10.0,
        2,
        2,
        4,
        pd.Timestamp("2011-01-02"),
        pd.Timestamp("2011-01-03"),
    ]
    assert table.loc["85123A", ["price", "invoices", "customers", "units"]].tolist() == [1.5, 2, 2, 5]


def test_the_price_is_of_the_last_twenty_lines():
    rows = [
        line(invoice=str(n), price=1.0 if n < 30 else 3.0, date=f"2011-01-01 {n // 60:02}:{n % 60:02}")
        for n in range(50)
    ]
    assert rc.catalogue(rc.clean(frame(*rows)).receipts)["price"].tolist() == [3.0]


def test_the_fingerprint_is_of_content_and_order(shop_week):
    same = shop_week.reset_index(drop=True).astype({"code": object, "date": "datetime64[s]", "customer": "Int64"})
    assert schema.receipts_fingerprint(same) == schema.receipts_fingerprint(shop_week)
    others = [shop_week.iloc[::-1], shop_week.iloc[1:], shop_week.rename(columns={"code": "kind"})]
    for column, value in {"code": "22424", "price": 9.99, "quantity": 9, "date": pd.Timestamp("2012-01-01")}.items():
        others.append(shop_week.assign(**{column: [value, *shop_week[column].iloc[1:]]}))
    assert len({schema.receipts_fingerprint(other) for other in [shop_week, *others]}) == len(others) + 1


def test_the_fingerprint_is_the_same_on_every_machine():
    table = pd.DataFrame({"a": ["x", None], "b": [1.5, np.nan], "c": [1, 2], "d": pd.to_datetime(["2011-01-01"] * 2)})
    assert schema.receipts_fingerprint(table).startswith("917b9429cb15142d")


# ---- loading: every format says the same


def written(folder: Path, content: bytes | str, name: str = "receipts.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def workbook(*sheets: pd.DataFrame) -> bytes:
    stream = io.BytesIO()
    with pd.ExcelWriter(stream, engine="openpyxl") as writer:
        for number, sheet in enumerate(sheets):
            sheet.to_excel(writer, sheet_name=f"Year {2009 + number}", index=False)
    return stream.getvalue()


def zipped(content: bytes, name: str = "Online Retail.xlsx") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def raw() -> pd.DataFrame:
    return frame(
        line(text=" CAFÉ £10 "),
        line(invoice="C536379", text=None, quantity=-1, date="2011-11-30 17:05", customer=None),
        line(code="22423", price=0.001, date="2011-10-13 00:00"),
    )


def as_csv(raw: pd.DataFrame, date_format: str = "%m/%d/%Y %H:%M") -> str:
    return raw.to_csv(index=False, date_format=date_format, lineterminator="\r\n")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("kaggle.csv", lambda raw: as_csv(raw).encode("latin-1")),
        ("utf8.csv", lambda raw: as_csv(raw).encode()),
        ("excel.csv", lambda raw: as_csv(raw).encode("utf-8-sig")),
        ("day_first.csv", lambda raw: as_csv(raw, "%d/%m/%Y %H:%M").encode()),
        ("dots.csv", lambda raw: as_csv(raw, "%d.%m.%Y %H:%M").encode()),
        ("dots_and_seconds.csv", lambda raw: as_csv(raw, "%d.%m.%Y %H:%M:%S").encode()),
        ("seconds.csv", lambda raw: as_csv(raw, "%m/%d/%Y %H:%M:%S").encode()),
        ("iso.csv", lambda raw: as_csv(raw, "%Y-%m-%dT%H:%M:%S").encode()),
        ("real.csv.gz", lambda raw: gzip.compress(as_csv(raw).encode("latin-1"))),
        ("archive.zip", lambda raw: zipped(as_csv(raw).encode("latin-1"), "data.csv")),
        ("uci.xlsx", workbook),
        ("uci.zip", lambda raw: zipped(workbook(raw))),
        ("online_retail_II.xlsx", lambda raw: workbook(*online_retail_2(raw))),
        ("no_suffix", lambda raw: gzip.compress(as_csv(raw).encode())),
    ],
)
def test_every_format_loads_to_the_same_receipts(tmp_path, raw, name, write):
    loaded = load_receipts(written(tmp_path, write(raw), name))
    pd.testing.assert_frame_equal(loaded, raw)


def online_retail_2(raw: pd.DataFrame) -> list[pd.DataFrame]:
    """The same receipts as the later edition has them: other names, two sheets."""
    renamed = raw.rename(columns={"InvoiceNo": "Invoice", "UnitPrice": "Price", "CustomerID": "Customer ID"})
    return [renamed.iloc[:1], renamed.iloc[1:]]


def test_parquet_loads_to_the_same_receipts(tmp_path, raw):
    raw.to_parquet(tmp_path / "receipts.parquet")
    pd.testing.assert_frame_equal(load_receipts(tmp_path / "receipts.parquet"), raw)


def test_customer_numbers_read_as_floats_are_numbers_again(tmp_path):
    loaded = load_receipts(written(tmp_path, f"{HEADER}\n{LINE.replace('17850', '17850.0')}\n"))
    assert loaded["CustomerID"].tolist() == [17850]


@pytest.mark.parametrize("word", ["", "NA", "NULL", "nan"])
def test_a_customer_may_be_missing_in_the_ways_that_programs_write_it(tmp_path, word):
    loaded = load_receipts(written(tmp_path, f"{HEADER}\n{LINE}\n{LINE.replace('17850', word)}\n"))
    assert loaded["CustomerID"].isna().tolist() == [False, True]


WORDS = ["None", "NA", "null", "nan", "N/A"]


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_words_that_mean_missing_elsewhere_are_text_here(tmp_path, form):
    """A product may be called None, and NA is the country code of Namibia; only what is empty is missing."""
    table = pd.DataFrame([line(text=word, country=word) for word in [*WORDS, ""]], columns=RAW_COLUMNS)
    content = workbook(table) if form == "xlsx" else table.to_csv(index=False)
    loaded = load_receipts(written(tmp_path, content, f"a.{form}"))
    for column in ("Description", "Country"):
        assert loaded[column].tolist()[:-1] == WORDS and loaded[column].isna().tolist() == [False] * 5 + [True]


def test_a_day_with_dots_is_read_in_the_one_order_that_fits_all(tmp_path):
    days = ["01.12.2011", "13.12.2011", "1.2.2011 9:05"]
    rows = [LINE.replace("12/13/2010 8:26", day) for day in days]
    loaded = load_receipts(written(tmp_path, "\n".join([HEADER, *rows])))
    assert loaded["InvoiceDate"].tolist() == [*map(pd.Timestamp, ["2011-12-01", "2011-12-13", "2011-02-01 09:05"])]


@pytest.mark.parametrize("form", ["%Q", "%d/%m/%Y %", "%d %d %Y"])
def test_a_date_format_that_is_none_is_an_error_with_place_and_remedy(tmp_path, form):
    path = written(tmp_path, f"{HEADER}\n{LINE}\n")
    with pytest.raises(
        schema.ReceiptsError, match=r"date_format '%.*codes of strftime.*--date-format.*RECBOOK_DATE_FORMAT"
    ):
        load_receipts(path, date_format=form)
    with pytest.raises(schema.ReceiptsError, match=str(path)):
        load_receipts(path, date_format=form)


def test_checking_twice_changes_nothing(raw):
    pd.testing.assert_frame_equal(schema.check_receipts(raw), raw)


def test_a_date_format_settles_what_the_dates_leave_open(tmp_path):
    path = written(tmp_path, f"{HEADER}\n{LINE.replace('12/13/2010', '12/1/2010')}\n")
    assert load_receipts(path, date_format="%d/%m/%Y %H:%M")["InvoiceDate"][0] == pd.Timestamp("2010-01-12 08:26")
    assert load_receipts(path, date_format="%m/%d/%Y %H:%M")["InvoiceDate"][0] == pd.Timestamp("2010-12-01 08:26")


# ---- loading: bad input, one clear error each

BAD_TEXTS = {
    "missing column": (HEADER.replace(",Country", "") + "\n", "no column Country; it has .*Receipts have the columns"),
    "renamed column": (
        HEADER.replace("Quantity", "Qty") + f"\n{LINE}\n",
        "no column Quantity.*rename 'Qty' to Quantity",
    ),
    "two of a column": (HEADER + f",Price\n{LINE},1\n", r"\['UnitPrice', 'Price'\] could each be UnitPrice. Keep one"),
    "text in Quantity": (
        f"{HEADER}\n{LINE}\n{LINE.replace(',6,', ',six,')}\n",
        "Quantity is not a number in 1 of 2 rows",
    ),
    "which row": (f"{HEADER}\n{LINE}\n{LINE.replace(',6,', ',six,')}\n", "row 1: 'six'. Write plain numbers"),
    "half a unit": (f"{HEADER}\n{LINE.replace(',6,', ',6.5,')}\n", "Quantity is not a whole number.*row 0: '6.5'"),
    "endless units": (f"{HEADER}\n{LINE.replace(',6,', ',1e300,')}\n", "Quantity is too large.*row 0: '1e300'"),
    "no quantity": (f"{HEADER}\n{LINE.replace(',6,', ',,')}\n", "Quantity is empty in 1 of 1 rows.*Fill it in"),
    "no invoice": (f"{HEADER}\n{LINE.replace('536365', '  ')}\n", "InvoiceNo is empty"),
    "currency sign": (f"{HEADER}\n{LINE.replace('2.55', '£2.55')}\n", "UnitPrice is not a number.*no currency sign"),
    "decimal comma": (f"{HEADER}\n" + LINE.replace("2.55", '"2,55"') + "\n", "UnitPrice is not.*a decimal point"),
    "infinite price": (f"{HEADER}\n{LINE.replace('2.55', 'inf')}\n", "UnitPrice is not a number.*row 0: 'inf'"),
    "named customer": (f"{HEADER}\n{LINE.replace('17850', 'Ann')}\n", "CustomerID is not a number.*pandas.factorize"),
    "impossible date": (
        f"{HEADER}\n{LINE}\n{LINE.replace('12/13', '2/30')}\n",
        "InvoiceDate is not a possible date.*row 1",
    ),
    "no date": (f"{HEADER}\n{LINE.replace('12/13/2010 8:26', 'soon')}\n", "row 0: 'soon'. Write dates as 2010-12-01"),
    "Excel's number": (
        f"{HEADER}\n{LINE.replace('12/13/2010 8:26', '40513.35')}\n",
        "InvoiceDate is not a possible date",
    ),
    "distant date": (f"{HEADER}\n{LINE.replace('12/13/2010', '12/13/0210')}\n", "InvoiceDate is not a possible date"),
    "time zone": (
        f"{HEADER}\n{LINE.replace('12/13/2010 8:26', '2010-12-01T08:26Z')}\n",
        "InvoiceDate is not a possible",
    ),
    "either order": (
        f"{HEADER}\n{LINE.replace('12/13', '12/1')}\n",
        "may be month/day or day/month.*row 0: .*date_format",
    ),
    "either order, with dots": (
        f"{HEADER}\n{LINE.replace('12/13/2010', '01.12.2010')}\n",
        r"may be month/day.*'%m\.%d\.%Y %H:%M' or '%d\.%m\.%Y %H:%M'\) .*--date-format.*RECBOOK_DATE_FORMAT",
    ),
    "a word for no quantity": (f"{HEADER}\n{LINE.replace(',6,', ',NA,')}\n", "Quantity is not a number.*row 0: 'NA'"),
    "both orders": (
        f"{HEADER}\n{LINE}\n{LINE.replace('12/13', '13/12')}\n",
        "mixes month/day and day/month: row 0: '12/13/2010 8:26' and row 1: '13/12/2010 8:26'",
    ),
    "semicolons": (f"{HEADER}\n{LINE}\n".replace(",", ";"), "separated by semicolons, not commas. Save it"),
    "tabs": (f"{HEADER}\n{LINE}\n".replace(",", "\t"), "separated by tabs, not commas"),
    "a comma too many": (
        f"{HEADER}\n{LINE}\n{LINE},9\n",
        "does not read as comma-separated values.*missing its quotes",
    ),
    "commas too many": (
        f"{HEADER}\n{LINE},9\n{LINE},9\n",
        "does not read as comma-separated values.*missing its quotes",
    ),
    "an open quote": (f'{HEADER}\n"{LINE}\n{LINE}\n', "does not read as comma-separated values.*missing its quotes"),
    "a header only": (f"{HEADER}\n", "has a header and no receipts"),
    "blank": ("\n\n", "does not read as comma-separated values: No columns"),
    "empty": ("", "is empty. Export or download it again"),
    "a web page": ("<!DOCTYPE html>\n<html></html>\n", "no column InvoiceNo.*it has .*DOCTYPE"),
    "garbled": (
        f"{HEADER}\n{LINE.replace('HOLDER', 'VOUCHER Â£10')}\n",
        "Description has letters garbled.*row 0: 'VOUCHER",
    ),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_text_gets_one_clear_error(tmp_path, case):
    text, message = BAD_TEXTS[case]
    path = written(tmp_path, text)
    with pytest.raises(schema.ReceiptsError, match=message) as caught:
        load_receipts(path)
    assert str(path) in str(caught.value)


GZ = gzip.compress((HEADER + f"\n{LINE}\n" * 500).encode())
BAD_FILES = {
    "UTF-16": ("a.csv", (HEADER + "\n").encode("utf-16"), "UTF-16 or no text at all. Save it as CSV UTF-8"),
    "UTF-16 without its mark": ("a.csv", HEADER.encode("utf-16-le"), "UTF-16 or no text at all"),
    "truncated gz": ("a.csv.gz", GZ[: len(GZ) // 2], "damaged or truncated gzip file.*Download it again"),
    "damaged gz": ("a.csv.gz", GZ[:40] + b"XXXX" + GZ[44:], "damaged or truncated gzip file"),
    "not a gz": ("a.csv.gz", HEADER.encode(), "is named .gz but is not a gzip file: it begins with b'InvoiceN'"),
    "empty gz": ("a.csv.gz", gzip.compress(b""), "is empty"),
    "not a workbook": ("a.xlsx", HEADER.encode(), "is named .xlsx but is not a zip file"),
    "half a workbook": ("a.xlsx", zipped(b"x" * 999)[:400], "damaged or locked zip or xlsx"),
    "old workbook": ("a.xls", b"\xd0\xcf\x11\xe0" + b"0" * 99, "workbook of Excel 97. Save it as .xlsx"),
    "empty workbook": ("a.xlsx", workbook(pd.DataFrame()), "no receipts on any of its sheets.*Year 2009"),
    "a sheet of notes": (
        "a.xlsx",
        workbook(pd.DataFrame([HOLDER], columns=HEADER.split(",")), pd.DataFrame({"note": ["x"]})),
        "sheet 'Year 2010' has no column",
    ),
    "damaged parquet": ("a.parquet", b"PAR1" + b"0" * 99, "damaged parquet file"),
    "two files in a zip": ("a.zip", None, "holds 2 files.*Unpack it and name one"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_get_one_clear_error(tmp_path, case):
    name, content, message = BAD_FILES[case]
    if content is None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("a.csv", "")
            archive.writestr("b.csv", "")
        content = stream.getvalue()
    with pytest.raises(schema.ReceiptsError, match=message):
        load_receipts(written(tmp_path, content, name))


def test_a_file_without_a_header_is_refused_without_a_word_of_its_first_line(tmp_path):
    (tmp_path / "r.csv").write_text(LINE.replace("17850", "Ann Smith") + "\n" + LINE)
    with pytest.raises(schema.ReceiptsError, match="has no header of receipts. Add a first line: InvoiceNo") as told:
        load_receipts(tmp_path / "r.csv")
    assert "Ann" not in str(told.value) and "HOLDER" not in str(told.value)


def test_a_home_that_nobody_has_is_a_missing_path():
    with pytest.raises(FileNotFoundError, match="no file of receipts at ~nobody-of-that-name/"):
        load_receipts("~nobody-of-that-name/r.csv")


def test_a_missing_path_and_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of receipts at .*nowhere.csv"):
        load_receipts(tmp_path / "nowhere.csv")
    written(tmp_path, LINE, "data.csv")
    with pytest.raises(
        schema.ReceiptsError, match="is a folder, not a file of receipts. Name one file; it holds: data.csv"
    ):
        load_receipts(tmp_path)


def test_a_library_that_is_not_there_is_named(tmp_path, monkeypatch, raw):
    path = written(tmp_path, workbook(raw), "a.xlsx")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(schema.ReceiptsError, match=r"not installed \(openpyxl\).*recbook\[receipts\]"):
        load_receipts(path)


def test_a_frame_that_is_not_receipts_is_refused_by_clean():
    with pytest.raises(schema.ReceiptsError, match="the receipts has no column|the receipts: .*|no column InvoiceNo"):
        rc.clean(pd.DataFrame({"a": [1]}))


# ---- the download


@pytest.fixture
def served(tmp_path, monkeypatch, raw):
    """A local server in the place of UCI's; `served["content"]` is the zip that it gives, None a 404."""
    state = {"content": zipped(workbook(raw)), "requests": 0}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state["requests"] += 1
            self.send_response(200 if state["content"] else 404)
            self.end_headers()
            self.wfile.write(state["content"] or b"")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(loading, "ONLINE_RETAIL_URL", f"http://127.0.0.1:{server.server_port}/online+retail.zip")
    monkeypatch.setattr(loading, "ONLINE_RETAIL_DIGEST", content_digest(raw))
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    yield state
    server.shutdown()
    server.server_close()


def test_online_retail_is_downloaded_once_and_verified(served, raw, tmp_path):
    for _ in range(2):
        pd.testing.assert_frame_equal(load_receipts("online-retail"), raw)
    assert served["requests"] == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["online_retail.parquet"]


def test_an_altered_download_is_refused_and_tried_again(served, raw):
    good, served["content"] = served["content"], zipped(workbook(raw.assign(UnitPrice=raw["UnitPrice"] + 0.01)))
    with pytest.raises(schema.ReceiptsError, match="not the log that the book was measured on: 3 rows.*load the path"):
        load_receipts("online-retail")
    served["content"] = good
    pd.testing.assert_frame_equal(load_receipts("online-retail"), raw)


def test_a_kept_copy_that_changed_is_refused(served, raw, tmp_path):
    load_receipts("online-retail")
    raw.iloc[1:].to_parquet(tmp_path / "home" / "online_retail.parquet")
    with pytest.raises(schema.ReceiptsError, match="is not the log that was kept there. Delete it"):
        load_receipts("online-retail")


@pytest.mark.parametrize("library", ["pyarrow", "openpyxl"])
def test_a_missing_library_is_named_before_the_download(served, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(schema.ReceiptsError, match=rf"not installed \({library}\).*recbook\[receipts\]"):
        load_receipts("online-retail")
    assert served["requests"] == 0


def test_what_cannot_be_kept_leaves_nothing_behind(served, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", full)
    opened = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            load_receipts("online-retail")
    assert [path for path in (tmp_path / "home").iterdir() if "parquet" in path.name] == []
    if opened is not None:
        assert len(os.listdir("/proc/self/fd")) == opened


def test_no_network_has_a_remedy(served):
    served["content"] = None
    with pytest.raises(
        schema.ReceiptsError, match="cannot download http.*404.*Download it in a browser and give its path"
    ):
        load_receipts("online-retail")


# ---- the real log: facts counted without this package


@pytest.fixture(scope="module")
def the_log() -> pd.DataFrame:
    return load_receipts(REAL)


@needs_real
@pytest.mark.real
def test_the_real_log_loads_as_its_authors_describe_it(the_log):
    assert len(the_log) == 541_909
    assert the_log["CustomerID"].isna().sum() == 135_080
    assert the_log["Description"].isna().sum() == 1_454
    assert the_log["CustomerID"].nunique() == 4_372
    assert the_log["StockCode"].nunique() == 4_070
    assert the_log["InvoiceNo"].nunique() == 25_900
    assert the_log["InvoiceNo"].str.startswith("C").sum() == 9_288
    assert the_log.duplicated().sum() == 5_268
    assert the_log["InvoiceDate"].agg(["min", "max"]).tolist() == [
        pd.Timestamp("2010-12-01 08:26"),
        pd.Timestamp("2011-12-09 12:50"),
    ]
    vouchers = the_log["Description"].str.contains("Gift Voucher £20.00", regex=False, na=False)
    assert vouchers.sum() == 9  # latin-1: read otherwise, the pound sign is lost


@needs_real
@pytest.mark.real
def test_the_real_log_is_the_one_that_a_download_must_be(the_log):
    assert content_digest(the_log) == ONLINE_RETAIL_DIGEST


@needs_real
@pytest.mark.real
def test_the_real_log_cleans_to_known_facts_in_time(the_log):
    start = time.process_time()
    receipts, removed, audit = rc.clean(the_log)
    assert time.process_time() - start < 4  # about 0.7 s on an idle core; the bound is for a busy machine
    assert len(receipts) + len(removed) == 541_909 == audit["rows"].sum()
    found = dict(zip(audit["rule"], audit["rows"], strict=True))
    assert found["no customer"] == 135_080
    assert found["exact duplicate"] == 5_225
    assert found["sale later cancelled"] == len(rc.match_cancellations(the_log.drop(removed.index[removed["rule"].isin(
        ["no customer", "no description", "exact duplicate"])])))  # fmt: skip
    assert (receipts["invoice"].nunique(), receipts["code"].nunique(), receipts["customer"].nunique()) == (
        18276,
        3645,
        4324,
    )
    assert rc.baskets(receipts)["codes"].str.len().median() == 15
    # The famous 80,995 paper birds and 74,215 jars, each cancelled within minutes, are gone.
    assert receipts["quantity"].max() < 10_000
