"""grading: every answer that is written passes in everything, and each planted fault fails exactly what it should."""

import pandas as pd
import pytest

pytest.importorskip("tiktoken")

from recbook.lora import instructions
from recbook.lora.grading import NOTE, OR, grade_answer, parse_answer
from recbook.lora.instructions import STYLES, Instruction
from recbook.tokens.documents import Control, Product, encode_document, format_pounds
from recbook.tokens.vocabulary import CONTROL_TOKENS, Vocabulary

GOODS = pd.DataFrame.from_records(
    [
        ("1A", "midi dress in cream silk", 39.95, "cream", "dress", "office"),
        ("2B", "short dress in cream linen", 24.5, "cream", "dress", "office"),
        ("3C", "maxi dress in cream wool", 55.0, "cream", "dress", "office"),
        ("4D", "midi dress in navy silk", 39.95, "navy", "dress", "office"),
        ("5E", "cream linen blouse", 19.95, "cream", "blouse", "office"),
        ("6F", "beach dress in cream cotton", 15.0, "cream", "dress", "beach"),
        ("7G", "long dress in cream jersey", 45.0, "cream", "dress", "office"),  # meets all, and was not found
    ],
    columns=["code", "name", "price", "colour", "kind", "occasion"],
    index="code",
)
ASKED = {"colour": "cream", "kind": "dress", "occasion": "office"}
GOOD = Instruction("A cream dress for the office?", ASKED, ("1A", "2B", "3C"), ("4D", "5E", "6F"))
VOCABULARY = Vocabulary({bytes([byte]): byte for byte in range(256)}, list(GOODS.index))
EVERYTHING = {"format", "grounded", "prices", "colour", "kind", "occasion", "meets", "reasons", "complete"}


def failed(parts: list) -> set[str]:
    """What an answer fails in, judged by what GOOD asks for."""
    verdict = grade_answer(encode_document(parts, VOCABULARY), GOOD, GOODS, VOCABULARY)
    assert set(verdict) == EVERYTHING and all(type(passed) is bool for passed in verdict.values())
    return {name for name, passed in verdict.items() if not passed}


@pytest.fixture(params=STYLES)
def style(request) -> str:
    return request.param


@pytest.fixture
def good(style) -> list:
    return instructions.answer(GOOD, GOODS, style)


def of(style: str, picks: tuple, alternative: str = "4D") -> list:
    """The answer that names these products, well written."""
    return instructions.answer(GOOD._replace(picks=picks, close=(alternative,)), GOODS, style)


def with_text(parts: list, place: int, text: str) -> list:
    return [*parts[:place], text, *parts[place + 1 :]]


# What is written


@pytest.fixture(scope="module")
def tables(clean_receipts, goods) -> list[pd.DataFrame]:
    """The goods of the embedded shop, by the truth and by the descriptions."""
    return [goods, instructions.goods_table(clean_receipts)]


@pytest.mark.parametrize("part", ["learned", "held_out"])
def test_every_answer_that_is_written_passes_in_everything(tables, style, part):
    for table in tables:
        vocabulary = Vocabulary({bytes([byte]): byte for byte in range(256)}, list(table.index))
        for instruction in instructions.write_instructions(table, 150, instructions.wording(part)):
            ids = encode_document(instructions.answer(instruction, table, style), vocabulary)
            verdict = grade_answer(ids, instruction, table, vocabulary)
            assert set(verdict) == EVERYTHING - set(ASKED) | set(instruction.asked)
            assert all(verdict.values()), (instruction, vocabulary.decode(ids), verdict)


def test_a_good_answer_has_its_parts(good):
    assert failed(good) == set()
    answer = parse_answer(encode_document(good, VOCABULARY), VOCABULARY)
    assert [code for code, _ in answer.picks] == list(GOOD.picks) and answer.alternative[0] == "4D"
    assert answer.note and NOTE not in answer.picks[-1][1] and OR not in answer.note
    assert f"{answer.picks[-1][1]}{NOTE}{answer.note}{OR}" == good[5]


# Planted faults


@pytest.mark.parametrize(
    "pick, fails", [("5E", {"kind"}), ("6F", {"occasion"}), ("4D", {"colour"})], ids=["kind", "occasion", "colour"]
)
def test_a_pick_that_does_not_meet_what_is_asked(style, pick, fails):
    alternative = "5E" if pick == "4D" else "4D"
    no_reason = {"reasons"} if fails != {"kind"} else set()  # no reason tells the kind
    assert failed(of(style, ("1A", pick, "3C"), alternative)) == fails | {"meets", "complete"} | no_reason


def test_a_product_that_was_not_found_passes_in_format_and_reasons_alone(style):
    assert failed(of(style, ("1A", "2B", "7G"))) == EVERYTHING - {"format", "reasons"}
    assert failed(of(style, GOOD.picks, "7G")) == EVERYTHING - {"format", "reasons", "complete"}


def test_any_other_product_that_was_found_will_do_as_the_alternative(style):
    assert failed(of(style, GOOD.picks, "5E")) == failed(of(style, GOOD.picks, "6F")) == set()


def test_a_pick_that_is_left_out_or_out_of_order(style):
    assert failed(of(style, ("1A", "2B"))) == {"complete"}
    assert failed(of(style, ("2B", "1A", "3C"))) == {"complete"}
    assert failed(of(style, ("1A", "2B"), "3C")) == {"complete"}


@pytest.mark.parametrize("place", [1, 5, 7])
def test_a_wrong_name(good, place):
    name = GOODS.loc[good[place - 1].code, "name"]
    for other in ("cream linen blouse", name[:-1], name.upper(), f"a {name}", f"{name}s"):
        assert failed(with_text(good, place, good[place].replace(name, other, 1))) == {"grounded"}


@pytest.mark.parametrize("place", [1, 5, 7])
def test_a_wrong_price(good, place):
    price = format_pounds(GOODS.loc[good[place - 1].code, "price"])
    assert price in good[place]
    for other in (
        "£1.23",
        f"{price}5",
        price[:-1],
        price.replace(".", ","),
        price.removeprefix("£"),
        f"£1 not {price}",
    ):
        assert failed(with_text(good, place, good[place].replace(price, other, 1))) == {"prices"}


@pytest.mark.parametrize("place", [1, 3, 5])
@pytest.mark.parametrize("fact, other", [("colour", "beige"), ("occasion", "the moon")])
def test_a_reason_that_is_not_what_was_asked(good, place, fact, other):
    said = GOOD.asked[fact] if fact == "colour" else instructions.for_occasion(GOOD.asked[fact])
    name, colon, reason = good[place].partition(": ")
    assert said in reason
    assert failed(with_text(good, place, name + colon + reason.replace(said, other))) == {"reasons"}


def test_a_reason_that_nobody_asked_for(good):
    name, colon, reason = good[1].partition(": ")
    ids = encode_document(with_text(good, 1, f"{name}{colon}for the beach, {reason}"), VOCABULARY)
    asked = {name: value for name, value in GOOD.asked.items() if name != "occasion"}
    verdict = grade_answer(ids, GOOD._replace(asked=asked), GOODS, VOCABULARY)
    assert not verdict["reasons"] and verdict["meets"]


def test_a_price_in_the_note(good):
    noted = good[5].replace(OR, f" for £5.00.{OR}")
    assert failed(with_text(good, 5, noted)) == {"prices"}


def test_too_few_and_too_many_picks(style):
    assert failed(of(style, ("1A",))) == EVERYTHING
    four = of(style, ("1A", "2B", "3C", "6F"))
    assert failed(four) == {"occasion", "meets", "reasons", "complete"}
    assert failed([*of(style, ("1A", "2B"))[:2], *four]) == EVERYTHING  # 1A twice
    assert failed([Product("5E"), four[1], *four]) == EVERYTHING  # five


def test_parts_that_are_missing(good):
    last = good[5]
    reason, _, note = last.partition(NOTE)
    assert failed(with_text(good, 5, reason)) == EVERYTHING
    assert failed(with_text(good, 5, reason + OR)) == EVERYTHING
    assert failed(with_text(good, 5, f"{reason}{NOTE}{OR}")) == EVERYTHING
    assert failed(with_text(good, 5, last.removesuffix(OR))) == EVERYTHING
    assert failed([*good[:5], last.removesuffix(OR)]) == EVERYTHING  # no alternative
    assert failed(good[:6]) == EVERYTHING  # announced, and not there
    assert failed(good[:7]) == EVERYTHING  # a product, and nothing said of it
    for place in (1, 3, 7):
        name = GOODS.loc[good[place - 1].code, "name"]
        assert failed(with_text(good, place, f" {name}")) == EVERYTHING
        assert failed(with_text(good, place, f" {name}: ")) == EVERYTHING
        assert failed(with_text(good, place, good[place].removeprefix(" "))) == EVERYTHING
    assert failed([]) == EVERYTHING


@pytest.mark.parametrize("name", CONTROL_TOKENS)
def test_control_tokens_inside(good, name):
    for place in range(len(good) + 1):
        assert failed([*good[:place], Control(name), *good[place:]]) == EVERYTHING
    for place in (1, 5, 7):
        middle = len(good[place]) - 5
        cut = [good[place][:middle], Control(name), good[place][middle:]]
        assert failed([*good[:place], *cut, *good[place + 1 :]]) == EVERYTHING


def test_the_name_of_a_control_token_as_text_is_text(good):
    spelled = good[5].replace(NOTE, f"{NOTE}<|end|> ")
    assert failed(with_text(good, 5, spelled)) == set()


def test_text_before_the_first_product(good):
    assert failed([" Well.", *good]) == EVERYTHING


def test_a_product_twice(style):
    assert failed(of(style, ("1A", "2B", "1A"))) == EVERYTHING
    assert failed(of(style, ("1A", "2B", "3C"), "1A")) == EVERYTHING


def test_an_answer_that_is_cut_off_anywhere_does_not_pass(good):
    ids = encode_document(good, VOCABULARY)
    for length in range(len(ids)):
        verdict = grade_answer(ids[:length], GOOD, GOODS, VOCABULARY)
        assert not (verdict["format"] and verdict["prices"])


def test_only_what_was_asked_is_judged(style):
    simple = GOOD._replace(asked={"kind": "dress"}, picks=("1A", "2B", "3C", "6F"))
    ids = encode_document(instructions.answer(simple, GOODS, style), VOCABULARY)
    verdict = grade_answer(ids, simple, GOODS, VOCABULARY)
    assert list(verdict) == ["format", "grounded", "prices", "kind", "meets", "reasons", "complete"] and all(
        verdict.values()
    )
