"""instructions: what is asked is met by the picks and nothing else, counted again from the table, over many seeds."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from recbook.cleaning import receipts as rc
from recbook.lora import instructions
from recbook.lora.instructions import ASKED_ATTRIBUTES, CLOSE_PRODUCTS, FEWEST_PICKS, MOST_PICKS, STYLES
from recbook.tokens import documents
from recbook.tokens.documents import Control, Product

LEARNED, HELD_OUT = instructions.wording("learned"), instructions.wording("held_out")


@pytest.fixture(scope="module")
def written(goods) -> list[instructions.Instruction]:
    return instructions.write_instructions(goods, 600, LEARNED)


# The goods


def test_the_goods_are_those_of_the_receipts(clean_receipts, goods):
    catalogue = rc.catalogue(clean_receipts)
    assert list(goods.index) == list(catalogue.index) and goods.index.is_unique
    assert (goods["price"] == catalogue["price"]).all()
    assert list(goods) == ["name", "price", *ASKED_ATTRIBUTES]
    assert not goods.isna().any().any() and (goods["name"] != "").all()


def test_attributes_are_those_of_the_truth_in_a_word(shop, goods):
    truth = shop.products.loc[goods.index]
    assert (goods["occasion"] == truth["occasion"]).all()
    for name in ("colour", "kind"):
        for value, whole in zip(goods[name], truth[name], strict=True):
            assert whole.endswith(value)
    kinds = goods.groupby(truth["kind"])["kind"].first()
    assert kinds["maxi dress"] == kinds["short dress"] == "dress"
    assert kinds["pair of gloves"] == "gloves"


# At least this share of descriptions tells the attribute, and at least this share of those tells it right.
LEAST = {"colour": (0.95, 0.95), "kind": (0.9, 0.95), "occasion": (0.2, 0.7)}


@pytest.mark.parametrize("name", ASKED_ATTRIBUTES)
def test_what_descriptions_tell_is_mostly_the_truth(clean_receipts, goods, name):
    found = instructions.goods_table(clean_receipts)
    known = found[name] != ""
    last = {column: table[name].str.lower().str.split().str[-1] for column, table in (("f", found), ("t", goods))}
    right = (last["f"] == last["t"].str.replace("t-", "")) if name == "kind" else found[name] == goods[name]
    assert known.mean() > LEAST[name][0]
    assert right[known].mean() > LEAST[name][1]


def a_little_shop(names: dict[str, str]) -> pd.DataFrame:
    """Clean receipts of a shop that sold each product twice."""
    lines = [
        (str(n), code, name, 1, "2011-01-05", 2.0 + n, 7, "France") for code, name in names.items() for n in (1, 2)
    ]
    columns = ["invoice", "code", "description", "quantity", "date", "price", "customer", "country"]
    return pd.DataFrame(lines, columns=columns).astype({"date": "datetime64[ns]"})


def test_goods_without_truth_by_hand():
    mugs = {f"2000{place}": f"{colour} MUG" for place, colour in enumerate(["RED", "BLUE", "BIG", "GREEN", "OLD"])}
    others = {
        "30000": "CHRISTMAS MUG WITH RED STARS",
        "30001": "PINK",
        "30002": "mug, blue and PINK, for a wedding",
        "30003": "LONELY KETTLE",
        "30004": "12 34",
    }
    seasonal = {f"4000{place}": f"{place} CHRISTMAS" for place in range(5)}
    whole = instructions.goods_table(a_little_shop(mugs | others | seasonal))
    assert set(whole.loc[list(seasonal), "kind"]) == {""}  # an occasion is no kind
    table = whole.drop(index=list(seasonal))
    assert table["kind"].to_dict() == dict.fromkeys([*mugs, "30000", "30002"], "mug") | {
        "30001": "",  # a colour is no kind
        "30003": "",  # one kettle is not a kind of which there is a choice
        "30004": "",
    }
    assert table["colour"].tolist() == ["red", "blue", "", "green", "", "red", "pink", "blue", "", ""]
    occasions = {code: occasion for code, occasion in table["occasion"].items() if occasion}
    assert occasions == {"30000": "Christmas", "30002": "wedding"}
    assert table["name"]["20000"] == "red mug" and table["name"]["30002"] == others["30002"]
    assert (table["price"] == 3.5).all()


# Learned and held out


def test_held_out_ways_to_ask_are_others():
    assert not set(LEARNED.requests) & set(HELD_OUT.requests)
    assert set(LEARNED.remarks) & set(HELD_OUT.remarks) <= {""}
    for way in (*LEARNED.requests, *HELD_OUT.requests):
        assert way.count("{what}") == way.count("{for}") == 1
    with pytest.raises(ValueError, match="no part 'test': give one of learned, held_out"):
        instructions.wording("test")


def test_held_out_requests_are_never_written_for_learning(goods, written):
    asked = {instruction.request for instruction in written}
    assert not asked & {instruction.request for instruction in instructions.write_instructions(goods, 600, HELD_OUT)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_parts_hold_every_product_once_and_families_together(goods, share, seed):
    learn, held = instructions.split_goods(goods, share, seed)
    assert sorted([*learn.index, *held.index]) == sorted(goods.index)

    def families(part):
        return {re.match(r"\d*", code).group() or code for code in part.index}

    assert not families(learn) & families(held)
    assert len(families(held)) == round(share * len(families(goods)))
    pd.testing.assert_frame_equal(held, goods.loc[held.index])


def test_parts_go_by_the_seed(goods):
    first, again, other = (instructions.split_goods(goods, 0.2, seed)[1].index for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other)


def test_codes_without_digits_are_families_of_their_own(goods):
    table = goods.head(6).set_axis(["1A", "1B", "POST", "DOT", "2", "2C"])
    for seed in range(20):
        _, held = instructions.split_goods(table, 0.5, seed)
        assert len(held) in (2, 3, 4) and ("1A" in held.index) == ("1B" in held.index)
        assert ("2" in held.index) == ("2C" in held.index)
    assert len({("POST" in held.index, "DOT" in held.index) for held in
                (instructions.split_goods(table, 0.5, seed)[1] for seed in range(20))}) > 2  # fmt: skip


# Writing


def test_instructions_go_by_the_seed(goods, written):
    assert instructions.write_instructions(goods, 600, LEARNED) == written
    assert instructions.write_instructions(goods, 50, LEARNED) == written[:50]
    assert instructions.write_instructions(goods, 50, LEARNED, seed=1) != written[:50]


def check(instruction: instructions.Instruction, rows: dict[str, dict]) -> None:
    """All that an instruction promises, counted again product by product."""
    shared = {code: sum(row[name] == value for name, value in instruction.asked.items()) for code, row in rows.items()}
    meets = {code for code, count in shared.items() if count == len(instruction.asked)}
    assert instruction.asked and all(name in ASKED_ATTRIBUTES and value for name, value in instruction.asked.items())
    assert set(instruction.picks) <= meets and not set(instruction.close) & meets
    assert FEWEST_PICKS <= len(instruction.picks) <= MOST_PICKS and len(instruction.close) == CLOSE_PRODUCTS
    assert instruction.found == (*instruction.picks, *instruction.close)
    assert len(set(instruction.found)) == len(instruction.found)
    nearest = sorted((count for code, count in shared.items() if code not in meets), reverse=True)
    assert [shared[code] for code in instruction.close] == nearest[:CLOSE_PRODUCTS]  # none of the others comes closer


def test_picks_meet_all_that_is_asked_and_what_comes_close_does_not(goods, written):
    rows = goods.to_dict("index")
    for instruction in written:
        check(instruction, rows)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_of_goods_held_out_and_of_goods_without_truth(clean_receipts, goods, seed):
    _, held = instructions.split_goods(goods, 0.25, seed)
    for table in (held, instructions.goods_table(clean_receipts)):
        rows = table.to_dict("index")
        for instruction in instructions.write_instructions(table, 60, HELD_OUT, seed):
            check(instruction, rows)


def test_what_was_found_is_drawn_in_no_order_of_the_shop():
    """All that meet a request are picked at times, first at times, and all that come equally close are close."""
    table = tiny(["mug"] * 6 + ["cup"] * 6)
    made = instructions.write_instructions(table, 400, LEARNED)
    mugs = [instruction for instruction in made if instruction.asked == {"kind": "mug"}]
    for which in ("picks", "close"):
        codes = set(table.index[:6] if which == "picks" else table.index[6:])
        assert {getattr(instruction, which)[0] for instruction in mugs} == codes
    assert any(list(instruction.picks) != sorted(instruction.picks) for instruction in mugs)


def test_all_that_can_be_asked_is_asked(written):
    kinds = Counter(tuple(name for name in ASKED_ATTRIBUTES if name in instruction.asked) for instruction in written)
    assert len(kinds) == 7 and min(kinds.values()) > 600 / 7 / 2
    assert len({tuple(instruction.asked.items()) for instruction in written}) > 250
    assert {len(instruction.picks) for instruction in written} == set(range(FEWEST_PICKS, MOST_PICKS + 1))


def test_a_request_says_what_is_asked(written):
    for instruction in written:
        assert "{" not in instruction.request
        for name in ("colour", "kind"):
            if name in instruction.asked:
                assert instruction.asked[name] in instruction.request
        if "occasion" in instruction.asked:
            assert instructions.for_occasion(instruction.asked["occasion"]) in instruction.request
        if "kind" in instruction.asked:
            thing = " ".join(instruction.asked[name] for name in ("colour", "kind") if name in instruction.asked)
            article = re.search(rf"\b(a|an|some) {re.escape(thing)}\b", instruction.request).group(1)
            assert article == "some" or (article == "an") == (thing[0] in "aeiou")
        assert not re.search(r"  | [.,?]", instruction.request)


def tiny(kinds: list[str]) -> pd.DataFrame:
    """Goods of which only the kind is known."""
    rows = {"name": kinds, "price": 1.0, "colour": "", "kind": kinds, "occasion": ""}
    return pd.DataFrame(rows, index=[f"{place}" for place in range(len(kinds))])


def test_too_few_goods_are_refused():
    only_mugs = ["mug"] * 10 + ["cup", "bowl"]  # one cup is no choice, and two others can come close
    assert {tuple(i.asked.items()) for i in instructions.write_instructions(tiny(only_mugs), 20, LEARNED)} == {
        (("kind", "mug"),)
    }
    one_of_each = [f"thing{place}" for place in range(20)]
    for kinds in (["mug"] * 2 + ["cup"] * 3, ["mug"] * 12, ["mug"] * 11 + ["cup"], one_of_each, []):
        with pytest.raises(ValueError, match=f"{len(kinds)} products are too few"):
            instructions.write_instructions(tiny(kinds), 1, LEARNED)


# As documents


def products(parts: documents.Document) -> list[str]:
    return [part.code for part in parts if isinstance(part, Product)]


def test_a_prompt_holds_the_request_and_what_was_found_with_prices(goods, written):
    for instruction in written[:50]:
        parts = instructions.prompt(instruction.request, instruction.picks, instruction.close, goods)
        first, request, second, *listing, last = parts
        assert [part.name for part in (first, second, last)] == ["<|request|>", "<|product|>", "<|answer|>"]
        assert request == f" {instruction.request}"
        listing.remove(" Close:")
        assert products(parts) == products(listing[::2]) == list(instruction.found)
        for code, text in zip(instruction.found, listing[1::2], strict=True):
            assert text.startswith(f" {goods.at[code, 'name']}, ")
            assert documents.format_pounds(goods.at[code, "price"]) in text
            if occasion := goods.at[code, "occasion"]:
                assert instructions.for_occasion(occasion) in text


def test_every_found_product_stands_once_and_the_picks_before_what_comes_close(goods, written):
    for instruction in written[:50]:
        parts = instructions.prompt(instruction.request, instruction.picks, instruction.close, goods)
        split = parts.index(" Close:")
        assert products(parts[:split]) == list(instruction.picks)
        assert products(parts[split:]) == list(instruction.close)
        assert sum(isinstance(part, Control) for part in parts) == 3


def test_a_prompt_by_hand():
    rows = [
        ("1A", "midi dress in cream silk", 39.95, "cream", "dress", "office"),
        ("2B", "cream scarf", 9.5, "cream", "scarf", ""),
        ("3C", "navy suit", 120.0, "navy", "suit", "wedding"),
    ]
    table = pd.DataFrame(rows, columns=["code", "name", "price", *ASKED_ATTRIBUTES]).set_index("code")
    assert instructions.prompt("Cream?", ["1A", "2B"], ["3C"], table) == [
        *(Control("<|request|>"), " Cream?", Control("<|product|>")),
        *(Product("1A"), " midi dress in cream silk, for the office, £39.95;", Product("2B")),
        *(
            " cream scarf, £9.50;",
            " Close:",
            Product("3C"),
            " navy suit, for a wedding, £120.00;",
            Control("<|answer|>"),
        ),
    ]
    assert instructions.prompt("Cream?", [], ["3C"], table)[2:4] == [
        Control("<|product|>"),
        " Close:",
    ]  # nothing meets it
    assert instructions.found_products(["3C"], table) == [
        *(Control("<|product|>"), Product("3C"), " navy suit, for a wedding, £120.00;")
    ]


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_names_the_picks_in_order_and_ends_with_what_comes_closest(goods, written, style):
    for instruction in written[:50]:
        parts = instructions.answer(instruction, goods, style)
        closest = instruction.close[0]
        assert products(parts) == products(parts[::2]) == [*instruction.picks, closest]
        assert all(isinstance(text, str) for text in parts[1::2])
        assert parts[-3].endswith(" Or:") and parts[-2] == Product(closest)
        assert parts[-1].startswith(f" {goods.at[closest, 'name']}: ")
        assert documents.format_pounds(goods.at[closest, "price"]) in parts[-1]


def test_styles_tell_the_same_facts_in_other_words(goods, written):
    for instruction in written[:50]:
        terse, warm = (instructions.answer(instruction, goods, style) for style in STYLES)
        assert terse[::2] == warm[::2] and all(np.array(terse[1::2]) != np.array(warm[1::2]))
        for first, second, code in zip(terse[1::2], warm[1::2], instruction.picks, strict=False):
            for text in (first, second):
                assert documents.format_pounds(goods.at[code, "price"]) in text
                assert all(
                    (instructions.for_occasion(value) if name == "occasion" else value) in text
                    for name, value in instruction.asked.items()
                )


def test_an_unknown_style_is_refused_with_the_styles_that_there_are(goods):
    instruction = instructions.write_instructions(goods, 1, LEARNED)[0]
    with pytest.raises(ValueError, match="no style 'rude': give one of terse, warm"):
        instructions.answer(instruction, goods, "rude")
