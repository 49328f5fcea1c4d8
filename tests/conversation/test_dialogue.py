"""Dialogues by hand: how each turn is read, what stays between turns, what overrides what."""

import time
from dataclasses import replace

import pytest

from recbook.conversation.dialogue import (
    EXPLAIN,
    HELP,
    NOTHING,
    QUIT,
    RECOMMEND,
    SHOW,
    DialogueState,
    ShownProduct,
    next_state,
)
from recbook.conversation.patterns import corrected
from recbook.conversation.prices import parse_pounds

TEAPOT, MUG, JUG = (
    ShownProduct("85123A", "RED TEAPOT", 12.95),
    ShownProduct("22423", "WHITE MUG", 3.75),
    ShownProduct("22632", "JUG", 4.25),
)
LIST = DialogueState(query="tea", shown=(TEAPOT, MUG, JUG))


def talk(*turns: str, state: DialogueState = LIST) -> DialogueState:
    for text in turns:
        state = next_state(state, text)
    return state


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("£4.20", 4.2), ("4,20", 4.2), ("£1,000", 1000), ("£1,234.50", 1234.5), ("five pounds", 5), ("50p", 0.5),
        ("a fiver", 5), ("a pound", 1), ("a hundred pounds", 100), ("12 quid", 12), ("75 pence", 0.75),
        ("twenty five pounds", 25), ("thirty-one", 31), ("two hundred quid", 200), ("a hundred and fifty pounds", 150),
    ],
)  # fmt: skip
def test_amounts_are_pounds(text, amount):
    assert parse_pounds(text) == pytest.approx(amount)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("under 5 pounds", 4.99), ("below £5", 4.99), ("less than 3", 2.99), ("up to 4,20", 4.2), ("at most 8 quid", 8),
        ("no more than 3 pounds please", 3), ("not over £7.50", 7.5), ("max 5", 5), ("50p or less", 0.5),
        ("I have 10 pounds", 10), ("a fiver", 5), ("for under a tenner", 9.99), ("Under Five Pounds!", 4.99),
        ("between 5 and 10 pounds", 10), ("£5-10", 10), ("around £6", 6), ("my budget is 20 pounds", 20),
        ("twenty five pounds", 25), ("under twenty-five", 24.99), ("over £5 but under £10", 9.99),
        ("a hundred and fifty pounds", 150),
    ],
)  # fmt: skip
def test_a_price_that_is_named_is_the_limit(text, limit):
    after = talk(text)
    assert (after.price_max, after.query, after.exclude, after.act) == (pytest.approx(limit), "tea", (), RECOMMEND)


@pytest.mark.parametrize(
    "text",
    [
        "cheaper", "cheaper please", "something cheaper", "cheeper", "cheapre", "not too expensive", "too dear",
        "that's too expensive!", "less expensive", "nothing expensive", "not so pricey", "even cheaper ones",
        "these are too expensive", "not more expensive", "a bit cheaper than that", "cheaper than those",
    ],
)  # fmt: skip
def test_cheaper_is_a_penny_below_the_median_of_what_was_shown(text):
    after = talk(text)
    assert (after.price_max, after.query, after.exclude, after.act) == (4.24, "tea", (), RECOMMEND)


def test_cheaper_never_raises_a_limit_and_needs_a_list():
    assert talk("under 2 pounds", "cheaper").price_max == 1.99
    first = talk("cheaper", state=DialogueState())
    assert first.price_max is None and first.act == NOTHING and "Nothing was shown" in first.notes[0]
    penny = DialogueState(shown=(ShownProduct("1", "PIN", 0.01),))
    assert talk("cheaper", state=penny).price_max is None


@pytest.mark.parametrize(
    "text",
    [
        "any price", "price doesn't matter", "more expensive", "not so cheap", "over £5", "not under £10",
        "not less than £10", "nothing under £10", "I don't want anything below ten pounds", "no cheaper than 3",
        "forget the price", "never mind the price", "ignore the limit",
    ],
)  # fmt: skip
def test_a_limit_is_lifted_again(text):
    after = talk("cheaper", text)
    assert after.price_max is None and after.exclude == () and "no lower limit" in after.notes[0]
    assert (after.query, after.act) == ("tea", RECOMMEND)


@pytest.mark.parametrize("text", ["up to 20 euros", "under €20", "about $5 or less please", "between 5 and 10 euros"])
def test_prices_in_other_money_are_no_limit(text):
    after = talk("under £7", text)
    assert (after.price_max, after.query, after.act) == (6.99, "tea", NOTHING) and "pounds only" in after.notes[0]
    assert talk(f"a jug {text}").query == "a jug"


@pytest.mark.parametrize(
    "text", ["toy for a 5 year old", "gift for two people", "set of 6 mugs", "2011 diary", "under twenty five people"]
)
def test_other_numbers_are_no_prices(text):
    assert talk(text).price_max is None and talk(text).query == text


@pytest.mark.parametrize(
    ("text", "excluded"),
    [
        ("not red", ["red"]), ("Not Red!", ["red"]), ("no red ones please", ["red"]), ("without ceramic", ["ceramic"]),
        ("wihtout glass", ["glass"]), ("nothing in pink", ["pink"]), ("anything but red", ["red"]),
        ("not red or blue", ["red", "blue"]), ("not red and not blue", ["red", "blue"]),
        ("I don’t like red, blue or green", ["red", "blue", "green"]), ("not retro spot", ["retro spot"]),
        ("other than mugs", ["mugs"]), ("not made of glass", ["glass"]), ("don't show me mugs", ["mugs"]),
        ("not 85123A", ["85123a"]), ("not the second", ["22423"]), ("not number 3", ["22632"]),
        ("not the last one", ["22632"]), ("except for jugs", ["jugs"]),
        ("not the first two", ["85123A", "22423"]), ("not the last 2", ["22423", "22632"]), ("not 2", ["22423"]),
        ("she doesn't like red", ["red"]), ("he hates cats", ["cats"]), ("my mother does not like glass", ["glass"]),
        ("red is not ok", ["red"]), ("the second is not fine", ["22423"]),
    ],
)  # fmt: skip
def test_what_is_not_wanted_is_excluded(text, excluded):
    after = talk(text)
    assert (list(after.exclude), after.query, after.act) == (excluded, "tea", RECOMMEND)
    assert talk(text, text).exclude == after.exclude


@pytest.mark.parametrize(
    "text", ["red after all", "red is fine", "ok red", "allow red", "red again", "Red is OK now", "so red after all"]
)
def test_an_exclusion_is_taken_back(text):
    after = talk("not red", "not blue", text)
    assert (after.exclude, after.query, after.act) == (("blue",), "tea", RECOMMEND)


@pytest.mark.parametrize(
    "text", ["red is not fine", "red is still not ok", "no, red isn't okay", "red still is no good"]
)
def test_an_exclusion_is_not_taken_back_by_a_no(text):
    after = talk("not red", text)
    assert (after.exclude, after.query) == (("red",), "tea")


@pytest.mark.parametrize("text", ["never mind", "Never mind.", "no problem", "nevermind"])
def test_some_words_only_sound_like_exclusions(text):
    assert (talk(text).exclude, talk(text).query, talk(text).act) == ((), "tea", NOTHING)
    assert (talk(f"{text}, a jug").exclude, talk("never mind, a jug").query) == ((), "a jug")


def test_the_last_word_holds_where_a_query_contradicts_an_exclusion():
    searched = talk("not red", "a red mug")
    assert (searched.query, searched.exclude) == ("a red mug", ()) and "So red is allowed again." in searched.notes
    again = talk("a red mug", "not red")
    assert (again.query, again.exclude) == ("a mug", ("red",))


def test_a_turn_may_say_several_things():
    after = talk("something for my mother, not red, without glass, under £10 please")
    assert (after.asked, after.exclude, after.price_max) == ("tea for my mother", ("red", "glass"), 9.99)
    after = talk("a gift for a tea lover up to £20 but no ceramic", state=DialogueState())
    assert (after.asked, after.exclude, after.price_max) == ("a gift for a tea lover", ("ceramic",), 20)
    assert talk("cheaper and not red").said == '"tea", up to £4.24, not red'


@pytest.mark.parametrize(
    ("query", "text", "refined"),
    [
        ("a mug", "blue instead", "a blue mug"), ("a mug", "in blue", "a blue mug"),
        ("a mug", "an orange one", "an orange mug"),
        ("a red mug", "in blue please", "a blue mug"), ("a mug in red", "make it light blue", "a light blue mug"),
        ("an apron", "what about green?", "a green apron"), ("mugs", "in glass", "glass mugs"),
        ("red", "in blue", "blue"),
        ("a red glass jug", "blue instead of red", "a blue glass jug"), ("a glass jug", "in ceramic", "a ceramic jug"),
        ("wrapping paper", "in cotton", "cotton wrapping paper"),
        ("a mug", "blue", "blue"), ("a mug", "a jug instead", "a jug"),
    ],
)  # fmt: skip
def test_a_colour_or_a_material_refines_what_is_looked_for(query, text, refined):
    state = replace(LIST, query=query, exclude=("blue",), left_out=("1",))
    after = talk(text, state=state)
    assert (after.query, after.act, after.left_out) == (refined, RECOMMEND, ())
    assert after.exclude == (() if "blue" in refined else ("blue",))
    assert talk(text, state=DialogueState()).act == RECOMMEND  # nothing to refine: a search


def test_a_refined_query_is_still_for_the_same_person():
    assert talk("for my mother", "in blue").asked == "blue tea for my mother"
    after = talk("a mug", "not red, but in blue")
    assert (after.query, after.exclude) == ("a blue mug", ("red",))


def test_relations_go_into_the_query_each_in_place_of_the_last_of_its_sort():
    after = talk("for my mother", "for christmas")
    assert after.asked == "tea for my mother for christmas"
    assert talk("for my father", state=after).asked == "tea for my father for christmas"
    assert talk("for a birthday", state=after).asked == "tea for my mother for a birthday"
    assert talk("not for my mother", state=after).asked == "tea for christmas"
    assert talk("not for christmas", state=after).asked == "tea for my mother"
    assert talk("a mug", state=after).asked == "a mug"
    assert talk("for my mother", state=DialogueState()).asked == "for my mother"


@pytest.mark.parametrize("text", ["more", "show me more", "something else", "none of these", "next", "anything else?"])
def test_more_leaves_out_what_was_shown(text):
    after = talk(text)
    assert after.left_out == ("85123A", "22423", "22632") and after.query == "tea" and after.act == RECOMMEND
    later = replace(after, shown=(ShownProduct("1", "PIN", 1.0),))
    assert talk(text, state=later).left_out == (*after.left_out, "1")
    assert talk("cheaper", state=later).left_out == after.left_out
    assert talk("a mug", state=later).left_out == ()


def test_more_of_something_and_something_like_it():
    assert talk("more mugs").query == "mugs" and talk("more mugs").left_out == ("85123A", "22423", "22632")
    assert talk("like the first").query == "RED TEAPOT" and "85123A" in talk("like the first").left_out


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("why?", (0, 1, 2)), ("why the second?", (1,)), ("Why number 3", (2,)), ("why 1", (0,)),
        ("why the last?", (2,)), ("why the teapot?", (0,)), ("why the 2nd and the 3rd", (1, 2)),
        ("explain #2", (1,)), ("but why?", (0, 1, 2)),
    ],
)  # fmt: skip
def test_why_asks_about_places_or_names(text, places):
    after = talk(text)
    assert after.act == EXPLAIN and after.places == places
    assert (after.shown, after.query) == (LIST.shown, LIST.query)


def test_why_about_what_is_not_there_is_said():
    assert talk("why #7").act == NOTHING and "3 products were shown" in talk("why #7").notes[0]
    assert talk("why?", state=DialogueState()).act == NOTHING


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("show me the first again", (0,)), ("I like the second", (1,)), ("2", (1,)), ("how much is the second?", (1,)),
        ("the last one", (2,)), ("how much is the teapot", (0,)), ("How much are they?", (0, 1, 2)), ("#3", (2,)),
        ("what does the 2nd cost?", (1,)), ("the first two", (0, 1)), ("price of the white mug", (1,)),
    ],
)  # fmt: skip
def test_what_was_shown_is_shown_again_and_nothing_else_changes(text, places):
    after = talk(text)
    assert (after.act, after.places) == (SHOW, places)
    assert replace(after, act=NOTHING, places=()) == LIST


@pytest.mark.parametrize("text", ["a second mug", "second hand", "how much is a vase?", "2 mugs"])
def test_other_places_and_prices_are_searches(text):
    assert talk(text).act == RECOMMEND and talk(text).query == text.removeprefix("how much is ").strip("?")


def test_what_was_not_shown_cannot_be_shown_again():
    assert talk("9").act == NOTHING and "3 products were shown" in talk("9").notes[0]
    first = talk("2", state=DialogueState())
    assert (first.act, first.query) == (NOTHING, "") and "Nothing was shown" in first.notes[0]


def test_undo_goes_back_turn_by_turn():
    after = talk("not red", "cheaper")
    once, twice = talk("undo", state=after), talk("undo", "undo", state=after)
    assert (once.exclude, once.price_max, once.act) == (("red",), None, RECOMMEND)
    assert (twice.exclude, twice.shown, twice.act) == ((), LIST.shown, RECOMMEND)
    assert "no turn to undo" in talk("undo", state=twice).notes[0] and talk("undo", state=twice).act == NOTHING
    assert talk("not red", "why?", "help", "undo").exclude == ()
    assert talk("not red", "start over", "undo").exclude == ("red",)
    assert talk("a mug", "undo", state=DialogueState()) == DialogueState(notes=("I go back a turn.",))


@pytest.mark.parametrize(
    ("text", "act"),
    [("quit", QUIT), ("Bye!", QUIT), ("ok, that's all thanks", QUIT), ("help", HELP), ("?", HELP),
     ("", NOTHING), ("  \t", NOTHING), ("???", NOTHING), ("hello", NOTHING), ("thank you", NOTHING), ("no", NOTHING)],
)  # fmt: skip
def test_whole_turns(text, act):
    after = talk(text)
    assert after.act == act and (after.query, after.exclude, after.shown) == ("tea", (), LIST.shown)


@pytest.mark.parametrize("text", ["start over", "Start again please", "reset", "ok, let's start over"])
def test_start_over_forgets_all(text):
    after = talk("not red", "cheaper", text)
    assert (after.asked, after.exclude, after.price_max, after.shown) == ("", (), None, ())


@pytest.mark.parametrize(
    "text", ["quilt", "sheep skin", "reaper", "not only red", "notebook", "nothingness", "Überraschung", "🫖"]
)
def test_what_is_not_understood_is_searched_for_and_this_is_said(text):
    after = talk(text)
    if text == "🫖":  # no word at all
        assert after.act == NOTHING
        return
    assert (after.query, after.exclude, after.act) == (text, (), RECOMMEND)
    assert after.notes == ("I take that as a search.",)


def test_polite_words_are_no_part_of_a_search():
    for text in ("I am looking for a mug", "please show me a mug", "do you have a mug?", "ok, what about a mug please"):
        assert talk(text).query == "a mug"


def test_what_is_understood_is_said():
    assert DialogueState().said == "anything" and talk("not red", state=DialogueState()).said == "anything, not red"
    assert talk("up to 4.20", "not red", "more").said == '"tea", up to £4.20, not red, none of the 3 shown before'


def test_only_mistyped_commands_are_put_right():
    words = "inexpensive paper keeper chopper within shepherd cheap extension"
    assert corrected(words) == words
    assert corrected("cheeper witout expensiv") == "cheaper without expensive"
    assert [corrected(text) for text in ("qiut", "mroe", "quilt", "rome")] == ["quit", "more", "quilt", "rome"]


@pytest.mark.parametrize(
    "piece",
    [
        "not ", "a ", "something ", "red, ", "no red or ", "1,", "£5 ", "5-", "too so very ", "(", "\0", "why ",
        "red is ", "in blue ", "twenty ", "first two ", "how much ", "5 euros or ", "my mother ",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece):
    start = time.perf_counter()
    talk(piece * 10_000)
    assert time.perf_counter() - start < 1
