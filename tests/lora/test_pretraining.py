"""pretraining: the copy task by hand; answer fragments against the wordings; nothing that gives an answer away."""

import re
from itertools import islice

import pandas as pd
import pytest

pytest.importorskip("tiktoken")

from recbook.lora import instructions, pretraining
from recbook.tokens import documents
from recbook.tokens.documents import Control, Product
from recbook.tokens.vocabulary import Vocabulary

REQUEST, ANSWER = Control("<|request|>"), Control("<|answer|>")


@pytest.fixture(scope="module")
def copy_tasks(goods) -> list[documents.Document]:
    return list(pretraining.copy_task_lists(goods, 300))


@pytest.fixture(scope="module")
def fragments(goods) -> list[documents.Document]:
    return list(pretraining.answer_fragments(goods, 300))


def products(parts: documents.Document) -> list[str]:
    return [part.code for part in parts if isinstance(part, Product)]


def controls(parts: documents.Document) -> list[Control]:
    return [part for part in parts if isinstance(part, Control)]


# The copy task


def halves(parts: documents.Document) -> tuple[documents.Document, documents.Document]:
    """A list, and what stands after it."""
    middle = parts.index(ANSWER)
    return parts[:middle], parts[middle + 1 :]


def test_a_list_names_goods_as_a_search_does_and_then_the_same_in_order(goods, copy_tasks):
    for parts in copy_tasks:
        listing, again = halves(parts)
        codes = products(listing)
        assert products(again) == codes and len(set(codes)) == len(codes)
        assert listing == instructions.found_products(codes, goods)
        assert controls(parts) == [Control("<|product|>"), ANSWER]
    assert {len(products(parts)) for parts in copy_tasks} == {4, 6, 8, 10, 12}  # two to six, twice
    assert len({code for parts in copy_tasks for code in products(parts)}) > len(goods) / 2  # of all goods


def test_every_third_list_repeats_the_prices_and_the_others_do_not(goods, copy_tasks):
    for place, parts in enumerate(copy_tasks):
        _, again = halves(parts)
        if place % 3 == 0:
            assert again[1::2] == [f": £{goods.at[code, 'price']:.2f}." for code in products(again)]
            assert products(again[::2]) == products(again)
        else:
            assert again == [Product(code) for code in products(again)]


def test_a_list_by_hand():
    columns = {"name": ["red mug", "blue mug"] * 3, "price": [1.5, 20.0] * 3, "occasion": ["", "office"] * 3}
    table = pd.DataFrame(columns, index=list("ABCDEF"))
    short = {
        place: parts
        for place, parts in enumerate(pretraining.copy_task_lists(table, 2000))
        if {*products(parts)} == {"A", "B"}
    }
    text = {"A": " red mug, £1.50;", "B": " blue mug, for the office, £20.00;"}
    again = {"A": [": £1.50."], "B": [": £20.00."]}
    for place, parts in short.items():
        first, second = ("A", "B") if parts[1] == Product("A") else ("B", "A")
        assert parts == [
            *(Control("<|product|>"), Product(first), text[first], Product(second), text[second], ANSWER),
            *(Product(first), *(again[first] if place % 3 == 0 else [])),
            *(Product(second), *(again[second] if place % 3 == 0 else [])),
        ]
    assert {(place % 3 == 0, parts[1].code) for place, parts in short.items()} == {
        (with_prices, first) for with_prices in (True, False) for first in "AB"
    }


# Answer fragments


def ways(part: str) -> list[tuple[re.Pattern, str, str]]:
    """Every way to ask of a part, of any thing and any occasion: what fits it, and the request and remark it is."""
    wording = instructions.wording(part)
    fill = {re.escape("{what}"): "(?:an?|some|something) [^.?!]+", re.escape("{for}"): "(?: for [^.?!]+)?"}
    found = []
    for request in wording.requests:
        pattern = re.escape(request)
        for place, anything in fill.items():
            pattern = pattern.replace(place, anything)
        found += [(re.compile(pattern + re.escape(remark)), request, remark) for remark in wording.remarks]
    return found


def split(fragments: list[documents.Document]) -> tuple[list[str], list[documents.Document]]:
    """Requests, and the remarks of the shop."""
    requests = [parts for parts in fragments if REQUEST in parts]
    return [parts[1].removeprefix(" ") for parts in requests], [parts for parts in fragments if REQUEST not in parts]


def test_a_fragment_is_a_request_or_two_remarks_and_names_no_product(goods, fragments):
    requests, remarks = split(fragments)
    assert (len(requests), len(remarks)) == (300, 600)
    for parts in fragments:
        assert not products(parts) and controls(parts) in ([REQUEST], [])
    assert all(len(parts) == 2 and all(isinstance(text, str) for text in parts) for parts in remarks)
    names = [name for name in goods["name"].unique() if " " in name]
    assert not [parts for parts in remarks if any(name in "".join(parts) for name in names)]


def test_requests_are_asked_in_the_ways_that_are_learned_and_in_none_held_out(fragments):
    requests, _ = split(fragments)
    used = [[way for way in ways("learned") if way[0].fullmatch(request)] for request in requests]
    assert all(len(which) == 1 for which in used)
    assert {which[0][1] for which in used} == set(instructions.wording("learned").requests)
    assert {which[0][2] for which in used} == set(instructions.wording("learned").remarks)
    assert not [request for request in requests if any(way.fullmatch(request) for way, *_ in ways("held_out"))]
    heads = [way.partition("{what}")[0] for way in instructions.wording("held_out").requests]
    phrases = [*heads, *filter(None, instructions.wording("held_out").remarks)]
    texts = ["".join(part for part in parts if isinstance(part, str)) for parts in fragments]
    assert len(phrases) == 8 and not [text for text in texts if any(phrase in text for phrase in phrases)]


def test_remarks_are_the_end_of_an_answer_in_either_style(goods, fragments):
    made = instructions.write_instructions(goods, 300, instructions.wording("learned"))
    _, remarks = split(fragments)
    for place, parts in enumerate(remarks):
        instruction, style = made[place // 2], instructions.STYLES[place % 2]
        words = instructions.answer(instruction, goods, style)
        for text, whole, code in zip(parts, words[-3::2], (instruction.picks[-1], instruction.close[0]), strict=True):
            assert (
                whole == f" {goods.at[code, 'name']}:{text}"
                and documents.format_pounds(goods.at[code, "price"]) in text
            )
        assert " Note: " in parts[0] and parts[0].endswith(" Or:")


def test_fragments_are_about_the_goods_that_are_given(goods):
    learned, held = instructions.split_goods(goods, 0.5)
    prices = {documents.format_pounds(price) for price in learned["price"]}
    stated = {price for parts in pretraining.answer_fragments(learned, 100) for text in parts if isinstance(text, str)
              for price in re.findall(r"£[\d.]+\d", text)}  # fmt: skip
    assert stated and stated <= prices and {documents.format_pounds(price) for price in held["price"]} - prices


# Both


def test_no_request_stands_beside_an_answer(copy_tasks, fragments):
    assert not [parts for parts in copy_tasks if REQUEST in parts]
    for parts in fragments:
        if REQUEST in parts:
            assert parts[0] == REQUEST and len(parts) == 2  # and nothing after it
        assert ANSWER not in parts
    requests, remarks = split(fragments)
    texts = ["".join(parts) for parts in remarks]
    assert not [text for text in texts if any(request in text for request in requests)]


@pytest.mark.parametrize("write", [pretraining.copy_task_lists, pretraining.answer_fragments])
def test_the_same_by_the_same_seed(goods, write):
    first, again, other = (list(write(goods, 40, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert list(islice(write(goods, 80, 0), len(first))) == first


@pytest.mark.parametrize("written", ["copy_tasks", "fragments"])
def test_a_small_vocabulary_holds_it_all(goods, written, request):
    vocabulary = Vocabulary({bytes([byte]): byte for byte in range(256)}, list(goods.index))
    for parts in request.getfixturevalue(written):
        ids = documents.encode_document(parts, vocabulary)
        spelled = [part if isinstance(part, str) else part[0] if isinstance(part, Control) else f"<|{part.code}|>"
                   for part in parts]  # fmt: skip
        assert vocabulary.decode(ids) == "".join(spelled)
        assert sum(token >= 256 for token in ids) == len(products(parts)) + len(controls(parts))


def test_too_few_goods_for_a_list_are_refused():
    with pytest.raises(ValueError, match="too few for lists"):
        next(
            pretraining.copy_task_lists(
                pd.DataFrame({"name": ["mug"], "price": [1.0], "occasion": [""]}, index=["1A"]), 1
            )
        )
