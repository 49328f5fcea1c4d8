"""documents: hand-made receipts whose documents are known word for word, and facts counted again with sets."""

import re
from collections import defaultdict
from functools import cache

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbook.cleaning import receipts as rc
from recbook.cleaning.load import load_receipts
from recbook.tokens import documents
from recbook.tokens.files import read_tokens, write_tokens
from recbook.tokens.vocabulary import CONTROL_TOKENS, Vocabulary, learn_bpe
from tests.real import REAL, needs_real

pytest.importorskip("tiktoken")

COLUMNS = ["invoice", "code", "description", "quantity", "date", "price", "customer", "country"]
LINES = [
    ("1", "A", "WHITE MUG", 6, "2010-12-01 08:26", 2.55, 7, "United Kingdom"),
    ("1", "B", "cream T-light holder, for Christmas", 1, "2010-12-01 08:26", 3.0, 7, "United Kingdom"),
    ("2", "B", "cream T-light holder, for Christmas", 2, "2011-01-05 10:00", 3.5, 9, "France"),
    ("3", "C", "<|end|> TIN", 12, "2011-01-05 09:00", 0.425, 8, "EIRE"),
    ("3", "B", "cream T-light holder, for Christmas", 4, "2011-01-05 09:00", 3.5, 8, "EIRE"),
    ("4", "A", "WHITE MUG", 24, "2011-11-14 17:00", 1.95, 7, "France"),
]
HOLDER = "cream T-light holder, for Christmas"
BYTES = {bytes([byte]): byte for byte in range(256)}
VOCABULARY = Vocabulary(BYTES, ["A", "B", "C"])


def frame(lines: list[tuple]) -> pd.DataFrame:
    """Clean receipts from tuples."""
    receipts = pd.DataFrame(lines, columns=COLUMNS).astype({"date": "datetime64[ns]"})
    return receipts.sort_values("date", kind="stable")


@pytest.fixture
def receipts() -> pd.DataFrame:
    return frame(LINES)


def decoded(ids) -> list[str]:
    return [VOCABULARY.decode(document) for document in ids]


def test_cards_by_hand(receipts):
    assert decoded(documents.product_cards(receipts, VOCABULARY)) == [
        "<|product|><|A|> white mug, £2.25, first sold December 2010.",  # the median of 2.55 and 1.95
        f"<|product|><|B|> {HOLDER}, £3.50, first sold December 2010.",
        "<|product|><|C|> <|end|> TIN, £0.42, first sold January 2011.",
    ]


def test_baskets_by_hand(receipts):
    assert decoded(documents.basket_documents(receipts, VOCABULARY)) == [
        f"<|basket|> 1 December 2010, United Kingdom.<|A|> white mug, 6 at £2.55;<|B|> {HOLDER}, 1 at £3.00.",
        f"<|basket|> 5 January 2011, EIRE.<|C|> <|end|> TIN, 12 at £0.42;<|B|> {HOLDER}, 4 at £3.50.",
        f"<|basket|> 5 January 2011, France.<|B|> {HOLDER}, 2 at £3.50.",
        "<|basket|> 14 November 2011, France.<|A|> white mug, 24 at £1.95.",
    ]


def test_narratives_by_hand(receipts):
    seven = "<|shopper|> France. 2 baskets from 1 December 2010 to 14 November 2011. Most often:"
    seven += f"<|A|> white mug, in 2 baskets;<|B|> {HOLDER}, in 1 basket.<|because|>"
    eight = f"<|shopper|> EIRE. 1 basket, on 5 January 2011:<|B|> {HOLDER};<|C|> <|end|> TIN.<|because|>"
    nine = f"<|shopper|> One basket, on 5 January 2011, France:<|B|> {HOLDER}.<|because|>"
    assert decoded(documents.shopper_narratives(receipts, VOCABULARY)) == [
        seven + "<|A|> white mug: bought in 2 of 2 baskets, last on 14 November 2011.",
        seven + "<|A|> white mug: 24 at £1.95 in the last basket, on 14 November 2011.",
        eight + f"<|B|> {HOLDER}: in the only basket, on 5 January 2011.",
        eight + "<|C|> <|end|> TIN: bought on 5 January 2011, at £0.42 each.",
        eight + f"<|A|> white mug: bought together with<|B|> {HOLDER} in 1 basket.",
        nine + f"<|B|> {HOLDER}: in the only basket, on 5 January 2011.",
        nine + f"<|B|> {HOLDER}: last bought on 5 January 2011, 2 at £3.50.",
        nine + f"<|A|> white mug: new to this shopper, in 1 basket together with<|B|> {HOLDER}.",
    ]


def test_no_text_becomes_a_control_token(receipts):
    control = {VOCABULARY.control[name] for name in ("<|end|>", "<|pad|>")}
    for write in (documents.product_cards, documents.basket_documents, documents.shopper_narratives):
        written = list(write(receipts, VOCABULARY))
        assert any("<|end|>" in VOCABULARY.decode(document) for document in written)
        assert not any(control & set(document) for document in written)


def test_a_product_without_a_token_is_written_by_its_text(receipts):
    fewer = Vocabulary(BYTES, ["A", "C"])
    first = next(documents.basket_documents(receipts, fewer))
    assert fewer.decode(first).endswith(f"<|A|> white mug, 6 at £2.55; {HOLDER}, 1 at £3.00.")
    assert fewer.product["A"] in first and fewer.product["C"] not in first


@given(st.lists(st.sampled_from([*CONTROL_TOKENS, "<|A|>", "tea ", "é"]), max_size=4))
@settings(deadline=None)
def test_encode_document_takes_tokens_from_names_and_from_nothing_else(words):
    text = "".join(words)
    parts = [documents.Control("<|basket|>"), text, documents.Product("B"), documents.Product("unknown")]
    expected = [VOCABULARY.control["<|basket|>"], *text.encode(), VOCABULARY.product["B"]]
    assert documents.encode_document(parts, VOCABULARY) == expected


def test_a_control_token_that_is_none_is_an_error():
    with pytest.raises(KeyError, match="bucket"):
        documents.encode_document([documents.Control("<|bucket|>")], VOCABULARY)


def test_document_texts_are_the_documents_less_their_tokens(receipts):
    for_all = "".join(documents.document_texts(receipts))
    written = [*documents.product_cards(receipts, VOCABULARY), *documents.basket_documents(receipts, VOCABULARY)]
    written += documents.shopper_narratives(receipts, VOCABULARY)
    assert for_all.encode() == bytes(token for document in written for token in document if token < 256)


def test_build_vocabulary_has_a_token_for_each_product(receipts):
    vocabulary = documents.build_vocabulary(receipts, 300)
    assert vocabulary.products == ("A", "B", "C") and len(vocabulary.ranks) == 300
    assert vocabulary.ranks == learn_bpe(documents.document_texts(receipts), 300)
    assert documents.build_vocabulary(receipts, 300).fingerprint == vocabulary.fingerprint


# ---- words ---------------------------------------------------------------------------------------------------------


def test_words_for_facts():
    assert documents.sentence_case("SET OF 3 CAFÉ CUPS") == "set of 3 café cups"
    assert (
        documents.sentence_case("pale blue Scandinavian star, for Christmas")
        == "pale blue Scandinavian star, for Christmas"
    )
    assert [documents.format_pounds(price) for price in (2.55, 3, 0.1, 0.001, 8142.75)] == [
        "£2.55",
        "£3.00",
        "£0.10",
        "£0.001",
        "£8142.75",
    ]
    assert documents.format_day(pd.Timestamp("2011-03-02 23:59")) == "2 March 2011"
    assert [documents.how_many(n, "basket") for n in (0, 1, 2)] == ["0 baskets", "1 basket", "2 baskets"]


# ---- the embedded shop, its facts counted again ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bytes_of(clean_receipts) -> Vocabulary:
    return Vocabulary(BYTES, sorted(clean_receipts["code"].unique()))


def test_every_narrative_is_true(clean_receipts, bytes_of):
    """Each claim is read out of the text and counted again, shopper by shopper, with sets."""
    holding, bought, visits = defaultdict(set), defaultdict(lambda: defaultdict(set)), defaultdict(set)
    lines = set()
    for line in clean_receipts.itertuples():
        holding[line.code].add(line.invoice)
        bought[line.customer][line.code].add(line.invoice)
        visits[line.customer].add(line.invoice)
        lines.add((line.customer, line.code, documents.format_day(line.date), line.quantity, f"£{line.price:.2f}"))
        lines.add((line.customer, line.code, documents.format_day(line.date), None, f"£{line.price:.2f}"))

    @cache
    def most_often_with(code: str) -> str:
        together = {other: len(holding[code] & invoices) for other, invoices in holding.items() if other != code}
        return min(together, key=lambda other: (-together[other], other))

    told = [bytes_of.decode(document) for document in documents.shopper_narratives(clean_receipts, bytes_of)]
    histories = list(dict.fromkeys(text.split("<|because|>")[0] for text in told))
    assert len(histories) == len(visits)
    of = dict(zip(histories, sorted(visits), strict=True))
    kinds = defaultdict(int)
    for text in told:
        history, reason = text.split("<|because|>")
        shopper = of[history]
        (code, *partner), number = re.findall(r"<\|(\w+)\|>", reason), re.findall(r"in (\d+) basket", reason)
        if count := re.search(r"(\d+) of (\d+) basket", reason):
            assert (int(count[1]), int(count[2])) == (len(bought[shopper][code]), len(visits[shopper]))
        elif partner:
            assert len(holding[code] & holding[partner[0]]) == int(number[0])
            assert code not in bought[shopper] and partner[0] in bought[shopper]
            assert code == most_often_with(partner[0])
        elif price := re.search(r"£\d+\.\d\d", reason):
            quantity = re.search(r"(\d+) at £", reason)
            date = re.search(r"on (\d+ \w+ \d{4})", reason)[1]
            assert (shopper, code, date, int(quantity[1]) if quantity else None, price[0]) in lines
        else:
            assert "in the only basket" in reason and len(visits[shopper]) == 1
        for product, baskets in re.findall(r"<\|(\w+)\|>[^<]*?, in (\d+) basket", history):
            assert len(bought[shopper][product]) == int(baskets)
        kinds["count" if count else "company" if partner else "other"] += 1
    assert min(kinds.values()) > 300


def test_documents_are_the_same_every_time_and_there_is_one_for_each(clean_receipts, bytes_of):
    for write, expected in (
        (documents.product_cards, clean_receipts["code"]),
        (documents.basket_documents, clean_receipts["invoice"]),
    ):
        first = list(write(clean_receipts, bytes_of))
        assert first == list(write(clean_receipts, bytes_of)) and len(first) == expected.nunique()
    narratives = list(documents.shopper_narratives(clean_receipts, bytes_of))
    assert narratives == list(documents.shopper_narratives(clean_receipts, bytes_of))
    sentences = {
        re.sub(r"<\|\w+\|>[^<]*?(?=:)|\d+", "#", bytes_of.decode(n).split("<|because|>")[1]) for n in narratives
    }
    assert len(narratives) > 2 * clean_receipts["customer"].nunique() and len(sentences) > 9


@pytest.mark.real
@pytest.mark.slow
@needs_real
def test_the_real_log_is_written(tmp_path):
    receipts = rc.clean(load_receipts(REAL)).receipts
    vocabulary = Vocabulary(BYTES, sorted(receipts["code"].unique()))
    writers = (documents.product_cards, documents.basket_documents, documents.shopper_narratives)
    for write in writers:
        assert write_tokens(tmp_path / write.__name__, write(receipts, vocabulary), vocabulary) > 100_000
    ids = read_tokens(tmp_path / "basket_documents", vocabulary)
    assert (ids == vocabulary.control["<|basket|>"]).sum() == receipts["invoice"].nunique()
    assert (ids >= vocabulary.product[vocabulary.products[0]]).sum() == len(receipts)
