"""Dialogue state tracking: what a shopper searches for, up to which price, and what is excluded, turn by turn.

`next_state(state, text)` reads one turn and returns the next state. It needs no recommender and no catalogue, so it can
be tried by hand. Rules over plain words (`prices`, `patterns`) find prices, exclusions and relations ("for my mother");
what no rule reads is a search. The caller asks the recommender with `asked`, `price_max` and `leaving_out`, and puts
the products that it showed into `shown`.
"""

import re
from dataclasses import dataclass, field, replace
from statistics import median
from typing import NamedTuple

from recbook.conversation import patterns, prices

RECOMMEND, EXPLAIN, SHOW, HELP, QUIT, NOTHING = "recommend", "explain", "show", "help", "quit", "nothing"
LONGEST_TURN = 500  # characters; the rest of a turn is ignored
NO_LOWER = "I know no lower limit of price; an upper one from before is lifted."


class ShownProduct(NamedTuple):
    """A product that was shown."""

    code: str
    description: str
    price: float  # pounds


@dataclass(frozen=True)
class DialogueState:
    """The state after a turn, and the dialogue act that the turn asks for (`act`)."""

    query: str = ""  # what is searched for
    whom: str = ""  # "for my mother"
    occasion: str = ""  # "for christmas"
    price_max: float | None = None  # pounds, inclusive
    exclude: tuple[str, ...] = ()  # words, or codes of products
    left_out: tuple[str, ...] = ()  # codes that were shown before "more"
    shown: tuple[ShownProduct, ...] = ()  # the last list, best first
    act: str = NOTHING  # RECOMMEND, EXPLAIN, SHOW, HELP, QUIT or NOTHING
    places: tuple[int, ...] = ()  # places in `shown`, from 0, to explain or to show again
    notes: tuple[str, ...] = ()  # messages about the last turn
    before: "DialogueState | None" = field(default=None, compare=False, repr=False)  # the state that "undo" restores

    @property
    def asked(self) -> str:
        """The text to search for: the query, for whom and for which occasion; may be empty."""
        return " ".join(part for part in (self.query, self.whom, self.occasion) if part)

    @property
    def leaving_out(self) -> list[str]:
        """Words and codes to exclude from recommendation."""
        return [*self.exclude, *self.left_out]

    @property
    def said(self) -> str:
        """The state in words: `"gift" for my mother, up to £4.20, not red`."""
        parts = [f'"{self.asked}"' if self.asked else "anything"]
        parts += [f"up to £{self.price_max:,.2f}"] if self.price_max is not None else []
        parts += [f"not {word}" for word in self.exclude]
        parts += [f"none of the {len(self.left_out)} shown before"] if self.left_out else []
        return ", ".join(parts)


def next_state(state: DialogueState, text: str) -> DialogueState:
    """The next state: `state` updated by `text`, with `act`, what to do now, and `notes`, messages about it.

    "cheaper" means a penny below the median price of what was shown; "more" leaves out all that was shown; "not red"
    excludes, "red after all" takes that back; "for my mother" and "in blue" refine the query; "the second" shows it
    again; "undo" takes back the last turn that changed anything. Everything else is a search.
    """
    after = _turn(replace(state, act=RECOMMEND, places=(), notes=()), " ".join(text[:LONGEST_TURN].split()))
    changed = after.act == RECOMMEND and after.before is state.before  # an undone turn has an earlier one
    return replace(after, before=state) if changed else after


def _turn(state: DialogueState, text: str) -> DialogueState:
    """Read a turn: a command, a question about what was shown, or else wishes."""
    text = patterns.corrected(text.replace("’", "'"))
    bare = text.rstrip(" .!,;")
    for pattern, act in ((patterns.QUIT_PATTERN, QUIT), (patterns.HELP_PATTERN, HELP)):
        if pattern.fullmatch(bare):
            return replace(state, act=act)
    if patterns.RESTART.fullmatch(bare):
        return DialogueState(notes=("All is forgotten: what are you looking for?",), before=state)
    if patterns.UNDO.fullmatch(bare):
        return _undone(state)
    if patterns.MORE_PATTERN.fullmatch(bare.rstrip("?")):
        return _more(state)
    if why := patterns.WHY.fullmatch(bare):
        return _about(state, why[1], EXPLAIN)
    if not re.search(r"\w", bare) or patterns.POLITE.fullmatch(bare):
        return _note(replace(state, act=NOTHING), 'Say what you are looking for, or "help".')
    about = patterns.shown_again(bare, [product.description for product in state.shown])
    return _wishes(state, text) if about is None else _about(state, about, SHOW)


def _wishes(state: DialogueState, text: str) -> DialogueState:
    """Extract prices, exclusions and what is taken back from the text; search for the rest."""
    before = state
    for read in (_prices, _exclusions, _taken_back):
        state, text = read(state, text)
    text = re.sub(r"\s*,[\s,]*", ", ", re.sub(r"\s*;[\s;]*", " ", text)).strip(" ,.!?")
    if state.query and (query := patterns.refined_query(state.query, text)):
        return _allowing(replace(state, query=query, left_out=()), query)
    text = patterns.LEAD_OUT.sub("", patterns.LEAD_IN.sub("", text, count=1))
    if text.lower() not in patterns.EMPTY:
        return _search(state, text)
    if replace(state, notes=()) != before:
        return state
    return replace(state, act=NOTHING, notes=state.notes or ('I understood nothing new; "help" says what I read.',))


def _note(state: DialogueState, *notes: str) -> DialogueState:
    return replace(state, notes=(*state.notes, *notes))


# --- About what was shown ----------------------------------------------------------------------------------------


def _more(state: DialogueState) -> DialogueState:
    """The next best: all that was shown is left out."""
    return replace(state, left_out=_once(*state.left_out, *(product.code for product in state.shown)))


def _undone(state: DialogueState) -> DialogueState:
    """The state before the last turn that changed anything; its products are recommended again."""
    if state.before is None:
        return _note(replace(state, act=NOTHING), "There is no turn to undo.")
    return replace(
        state.before, act=RECOMMEND if state.before.shown else NOTHING, places=(), notes=("I go back a turn.",)
    )


def _about(state: DialogueState, text: str, act: str) -> DialogueState:
    """Explain or show the products that the text points at by place or name, or all that were shown."""
    there, missing, _ = patterns.places_in(text.strip(" ?"), len(state.shown))
    if missing or not state.shown:
        shown = f"{len(state.shown)} products were shown, no more." if state.shown else "Nothing was shown yet."
        return _note(replace(state, act=NOTHING), shown)
    there = there or patterns.named_in(text, [product.description for product in state.shown])
    return replace(state, act=act, places=tuple(there or range(len(state.shown))))


# --- Prices ------------------------------------------------------------------------------------------------------


def _prices(state: DialogueState, text: str) -> tuple[DialogueState, str]:
    """Extract price limits from the text; the last one holds."""
    said, text = prices.price_limits(text)
    for kind, amount in said:
        if kind == prices.UP_TO:
            state = _up_to(state, amount)
        elif kind == prices.CHEAPER:
            state = _cheaper(state)
        elif kind == prices.NO_LIMIT:
            state = _note(replace(state, price_max=None), NO_LOWER)
        else:
            state = _note(state, "I read prices in pounds only: that one is no limit.")
    return state, text


def _up_to(state: DialogueState, limit: float) -> DialogueState:
    limit = round(limit, 2)
    return replace(state, price_max=limit) if limit > 0 else _note(state, "Nothing costs as little as that.")


def _cheaper(state: DialogueState) -> DialogueState:
    """A penny below the median of what was shown: excludes half or more of it, but not all for one cheap product."""
    if not state.shown:
        return _note(state, 'Nothing was shown yet to be cheaper than: name a price, such as "under £5".')
    limit = median(product.price for product in state.shown) - prices.PENNY
    return _up_to(state, limit if state.price_max is None else min(limit, state.price_max))


# --- What is wanted, and what is not -----------------------------------------------------------------------------


def _exclusions(state: DialogueState, text: str) -> tuple[DialogueState, str]:
    """Extract "not red", "without ceramic or glass", "not the second", "not for my mother" from the text."""
    text = patterns.REFUSED.sub(r"; not \g<what>;", text)
    while found := patterns.WITHOUT_PATTERN.search(text):
        text = f"{text[: found.start()]};{text[found.end() :]}"
        for thing in patterns.AND_OR.split(found["what"]):
            state = _excluded(state, thing.strip())
    return state, text


def _excluded(state: DialogueState, thing: str) -> DialogueState:
    there, missing, _ = patterns.places_in(thing, len(state.shown))
    if there or missing:
        state = _note(state, *(f"Without {state.shown[place].description}." for place in there))
        return replace(state, exclude=_once(*state.exclude, *(state.shown[place].code for place in there)))
    if patterns.FOR.match(thing):
        whom, occasion = ("" if part == thing else part for part in (state.whom, state.occasion))
        return replace(state, whom=whom, occasion=occasion)
    thing = patterns.AFTER_THING.sub("", patterns.BEFORE_THING.sub("", f"{thing} ").strip()).lower()
    if thing in patterns.NO_THING:
        return state
    without = re.sub(rf"\b{re.escape(thing)}\b", "", state.query, flags=re.IGNORECASE)
    return replace(state, query=" ".join(without.split()), exclude=_once(*state.exclude, thing))


def _once(*things: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(things))


def _taken_back(state: DialogueState, text: str) -> tuple[DialogueState, str]:
    """Extract "red after all", "red is fine", "allow red" from the text, where red was excluded before."""
    for thing in state.exclude:
        word = rf"\b{re.escape(thing)}s?\b"
        back = re.compile(rf"{patterns.ALLOW}*{word}{patterns.ALLOWED}+|^\W*{patterns.ALLOW}+{word}\W*$", re.IGNORECASE)
        if back.search(text):
            state, text = _allowed(state, thing), back.sub(";", text)
    return state, text


def _allowed(state: DialogueState, thing: str) -> DialogueState:
    return replace(state, exclude=tuple(each for each in state.exclude if each != thing))


def _search(state: DialogueState, text: str) -> DialogueState:
    """Search for a text, for products like one that was shown, or for the same query for somebody."""
    if like := patterns.LIKE.fullmatch(text):
        there, *_ = patterns.places_in(like["place"], len(state.shown))
        text, state = (state.shown[there[0]].description, _more(state)) if there else (text, state)
    elif more := patterns.MORE_OF.fullmatch(text):
        text, state = more["what"], _more(state)
    elif patterns.FOR.match(text) and state.asked:
        return _related(state, text)
    else:
        state = replace(state, left_out=())
    return _note(replace(_allowing(state, text), query=text, whom="", occasion=""), "I take that as a search.")


def _allowing(state: DialogueState, text: str) -> DialogueState:
    """Take back the exclusions that a search contradicts."""
    for thing in state.exclude:
        if re.search(rf"\b{re.escape(thing)}\b", text, re.IGNORECASE):
            state = _note(_allowed(state, thing), f"So {thing} is allowed again.")
    return state


def _related(state: DialogueState, text: str) -> DialogueState:
    """Add "for my mother" or "for christmas" to the query, each in place of the last one of its sort."""
    for part in patterns.FOR.split(text)[1:]:
        part = f"for {part.strip()}"
        state = replace(state, occasion=part) if patterns.OCCASION.search(part) else replace(state, whom=part)
    return state
