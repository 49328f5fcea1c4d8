"""The training documents of the language model, written from receipts: product cards, baskets, narratives.

    card        <|product|><|85123A|> white hanging heart t-light holder, £2.95, first sold December 2010.
    basket      <|basket|> 14 November 2011, United Kingdom.<|85123A|> white hanging heart t-light holder, 6 at £2.55;…
    narrative   <|shopper|> …what the shopper bought…<|because|><|22423|> regency cakestand 3 tier: …a true reason…

Every fact in them is true. A document is a list of parts: text, and the names of control and product tokens. Control
tokens come only from names that are written here, never out of text. A product without a token in the vocabulary is
written by its text alone.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.cleaning import receipts as rc
from recbook.tokens.vocabulary import Vocabulary, learn_bpe


class Control(NamedTuple):
    """A control token, by its name: `<|basket|>`."""

    name: str


class Product(NamedTuple):
    """A product's token, by the product's code."""

    code: str


Part = str | Control | Product
Document = list[Part]
Row = Any  # of a table: `itertuples` makes the type at run time, from the columns


def product_cards(receipts: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[list[int]]:
    """The card of every product, by code: description, price (as in `receipts.catalogue`), month of the first sale."""
    return (encode_document(document, vocabulary) for document in _cards(receipts))


def basket_documents(receipts: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[list[int]]:
    """Every invoice, in time order: day, country, and each line with its product, quantity and price."""
    return (encode_document(document, vocabulary) for document in _baskets(receipts))


def shopper_narratives(receipts: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[list[int]]:
    """For every shopper up to three: a history in words, then a product and a reason for it, true of the receipts.

    The reasons: how many of the shopper's baskets held the product; when, how many and at what price it was last
    bought; how many baskets of all shoppers held it together with a favourite of this shopper, to whom it is new.
    """
    return (encode_document(document, vocabulary) for document in _narratives(receipts))


def document_texts(receipts: pd.DataFrame) -> Iterator[str]:
    """All text of all documents, in pieces between control and product tokens: what byte-pair encoding learns from."""
    for write in (_cards, _baskets, _narratives):
        for document in write(receipts):
            yield from (part for part in document if isinstance(part, str))


def build_vocabulary(receipts: pd.DataFrame, size: int = 2048) -> Vocabulary:
    """A vocabulary learned from the documents: `size` text tokens at most, then one token per product, by code."""
    return Vocabulary(learn_bpe(document_texts(receipts), size), tuple(sorted(receipts["code"].unique())))


def encode_document(document: Document, vocabulary: Vocabulary) -> list[int]:
    """A document's parts as ids: text as text tokens, whatever it spells; names as their control and product tokens."""
    ids = []
    for part in document:
        if isinstance(part, str):
            ids += vocabulary.encode(part)
        elif isinstance(part, Control):
            ids.append(vocabulary.control[part.name])
        elif part.code in vocabulary.product:
            ids.append(vocabulary.product[part.code])
    return ids


# --- Words for facts ---------------------------------------------------------------------------------------------


def sentence_case(description: str) -> str:
    """A description as it stands in a sentence: all capitals become small letters."""
    return description.lower() if description.isupper() else description


def format_pounds(price: float) -> str:
    """A price in pounds and pence: £2.95; a price below half a penny keeps its digits."""
    return f"£{price:.2f}" if price >= 0.005 else f"£{price:g}"


def format_day(date: pd.Timestamp) -> str:
    """A date in words: 14 November 2011, in English whatever the machine's locale."""
    return f"{date.day} {date.month_name()} {date.year}"


def how_many(number: int, thing: str) -> str:
    """A number and its noun: 1 basket, 6 baskets."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


# --- Documents as parts ------------------------------------------------------------------------------------------


def _cards(receipts: pd.DataFrame) -> Iterator[Document]:
    for product in rc.catalogue(receipts).itertuples():
        since = f"{product.first_sold.month_name()} {product.first_sold.year}"
        text = f" {sentence_case(product.description)}, {format_pounds(product.price)}, first sold {since}."
        yield [Control("<|product|>"), Product(product.Index), text]


def _baskets(receipts: pd.DataFrame) -> Iterator[Document]:
    lines = receipts.sort_values("date", kind="stable")
    lines = lines.iloc[np.argsort(pd.factorize(lines["invoice"])[0], kind="stable")]  # by first line, invoices whole
    columns = ["invoice", "date", "country", "code", "description", "quantity", "price"]
    rows = zip(*(lines[column].tolist() for column in columns), strict=True)
    for _, basket in groupby(rows, key=itemgetter(0)):
        document: Document = []
        for _, date, country, code, description, quantity, price in basket:
            document = document or [Control("<|basket|>"), f" {format_day(date)}, {country}."]
            line = f" {sentence_case(description)}, {quantity} at {format_pounds(price)}"
            document += [Product(code), line + ";"]
        document[-1] = line + "."
        yield document


def _narratives(receipts: pd.DataFrame) -> Iterator[Document]:
    names = {code: sentence_case(text) for code, text in rc.descriptions(receipts).items()}
    held = _held(receipts)
    latest = held.sort_values(["date", "quantity", "code"]).drop_duplicates("customer", keep="last")
    latest, fresh = latest.set_index("customer"), _new_co_purchases(held, _co_purchases(receipts))
    favourites = dict(list(held.groupby("customer").head(3).groupby("customer")))
    for place, shopper in enumerate(_shoppers(receipts).itertuples()):
        most = list(favourites[shopper.Index].itertuples())
        history = [
            Control("<|shopper|>"),
            _introduction(shopper, place % 3),
            *_list(most, shopper, names),
            Control("<|because|>"),
        ]
        reasons = [_by_count(most[0], shopper, names, place % 3)]
        reasons += [_by_date(latest.loc[shopper.Index], names, (place + 1) % 3)]
        if shopper.Index in fresh.index:
            reasons += [_by_co_purchase(fresh.loc[shopper.Index], names, (place + 2) % 3)]
        yield from (history + reason for reason in reasons)


def _introduction(shopper: Row, way: int) -> str:
    first, last, country = format_day(shopper.first), format_day(shopper.last), shopper.country
    if shopper.baskets == 1:
        return [f" One basket, on {first}, {country}:", f" {country}. 1 basket, on {first}:"][way % 2]
    return [
        f" {country}. {shopper.baskets} baskets from {first} to {last}. Most often:",
        f" {shopper.baskets} baskets since {first}, the last on {last}, {country}. Favourites:",
        f" Last seen on {last}, first on {first}, {shopper.baskets} baskets, {country}. Bought most:",
    ][way]


def _list(most: list[Row], shopper: Row, names: dict[str, str]) -> Document:
    """The favourites, each with the number of baskets that held it, if there are several."""
    parts: Document = []
    for favourite in most:
        often = f", in {how_many(favourite.baskets, 'basket')}" if shopper.baskets > 1 else ""
        text = f" {names[favourite.code]}{often}"
        parts += [Product(favourite.code), text + ";"]
    return [*parts[:-1], text + "."]


def _by_count(favourite: Row, shopper: Row, names: dict[str, str], way: int) -> Document:
    name, of = names[favourite.code], f"{favourite.baskets} of {how_many(shopper.baskets, 'basket')}"
    reasons = [
        f": bought in {of}, last on {format_day(favourite.date)}.",
        f": in {of} so far.",
        f": {of} held it, most recently on {format_day(favourite.date)}.",
    ]
    reason = reasons[way] if shopper.baskets > 1 else f": in the only basket, on {format_day(favourite.date)}."
    return [Product(favourite.code), f" {name}{reason}"]


def _by_date(line: pd.Series, names: dict[str, str], way: int) -> Document:
    when, price = format_day(line["date"]), format_pounds(line["price"])
    reasons = [
        f": last bought on {when}, {line['quantity']} at {price}.",
        f": {line['quantity']} at {price} in the last basket, on {when}.",
        f": bought on {when}, at {price} each.",
    ]
    return [Product(line["code"]), f" {names[line['code']]}{reasons[way]}"]


def _by_co_purchase(pair: pd.Series, names: dict[str, str], way: int) -> Document:
    known = Product(pair["code"])
    count = how_many(pair["together"], "basket")
    before, after = [
        (": bought together with", f" in {count}."),
        (f": new to this shopper, in {count} together with", "."),
        (": goes with", f", together in {count}."),
    ][way]
    co_purchase = Product(pair["co_purchase"])
    return [co_purchase, f" {names[co_purchase.code]}{before}", known, f" {names[known.code]}{after}"]


# --- Facts -------------------------------------------------------------------------------------------------------


def _shoppers(receipts: pd.DataFrame) -> pd.DataFrame:
    """One row per customer: how many `baskets`, the `first` and `last` date, the `country` of the last."""
    groups = receipts.sort_values("date", kind="stable").groupby("customer")
    facts = {"baskets": ("invoice", "nunique"), "first": ("date", "first"), "last": ("date", "last")}
    return groups.agg(**facts, country=("country", "last"))


def _held(receipts: pd.DataFrame) -> pd.DataFrame:
    """One row per customer and product, favourites first: in how many `baskets`; the last line's date, quantity, price.

    Favourites are the products in most baskets; of those the last bought, then the first by code.
    """
    lines = receipts.sort_values("date", kind="stable")
    pair = ["customer", "code"]
    last = lines.drop_duplicates(pair, keep="last")[[*pair, "date", "quantity", "price"]]
    count = lines.drop_duplicates(["invoice", *pair]).groupby(pair).size().rename("baskets").reset_index()
    held = last.merge(count, on=pair)
    return held.sort_values(["customer", "baskets", "date", "code"], ascending=[True, False, False, True])


def _co_purchases(receipts: pd.DataFrame) -> pd.DataFrame:
    """By code: the product most often in the same basket, `co_purchase`, and in how many baskets, `together`."""
    pairs = receipts.drop_duplicates(["invoice", "code"])
    row, _ = pd.factorize(pairs["invoice"])
    column, codes = pd.factorize(pairs["code"], sort=True)
    held = sparse.csr_matrix((np.ones(len(pairs), np.int32), (row, column)))  # (invoices, products)
    both = sparse.triu(held.T @ held, k=1)  # (products, products): each pair once, nothing with itself
    both = (both + both.T).tocsr()
    best = np.asarray(both.argmax(axis=1)).ravel()  # of equals the first by code
    together = both.max(axis=1).toarray().ravel()
    table = pd.DataFrame({"co_purchase": np.asarray(codes)[best], "together": together}, index=codes)
    return table[table["together"] > 0]


def _new_co_purchases(held: pd.DataFrame, co_purchases: pd.DataFrame) -> pd.DataFrame:
    """By customer: the strongest co-purchase of one of three favourites, `code`, that this customer never bought."""
    most = held.groupby("customer").head(3)[["customer", "code"]]
    pairs = most.merge(co_purchases, left_on="code", right_index=True)
    bought = pd.MultiIndex.from_frame(held[["customer", "code"]])
    pairs = pairs[~pd.MultiIndex.from_frame(pairs[["customer", "co_purchase"]]).isin(bought)]
    pairs = pairs.sort_values(["customer", "together", "code"], ascending=[True, False, True], kind="stable")
    return pairs.drop_duplicates("customer").set_index("customer")
