"""A conversation with a shop, as state and turns: what is looked for, up to which price, what is left out.

`turn(state, text)` reads one turn and gives the next state; it needs no recommender and no catalogue, so it can be
tried by hand. Rules over plain words (`spoken`) find prices, exclusions and relations ("for my mother"); what no rule
reads is a search. Whoever keeps the conversation asks the recommender with `asked`, `price_max` and `leaving_out`, and
puts what was shown into `shown`.
"""

import re
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from recbook import spoken

RECOMMEND, EXPLAIN, HELP, QUIT, NOTHING = "recommend", "explain", "help", "quit", "nothing"
PENNY = 0.01  # pounds
LONGEST = 500  # characters of a turn that are read
NO_LOWER = "I know no lower limit of price."


class Shown(NamedTuple):
    """A product as it was shown."""

    code: str
    description: str
    price: float  # pounds


@dataclass(frozen=True)
class State:
    """What a conversation has come to, and what the last turn asks to do (`act`)."""

    query: str = ""  # what is looked for
    whom: str = ""  # "for my mother"
    occasion: str = ""  # "for christmas"
    price_max: float | None = None  # pounds, itself allowed
    exclude: tuple[str, ...] = ()  # words, or codes of products
    left_out: tuple[str, ...] = ()  # codes shown before, since "more" was said
    shown: tuple[Shown, ...] = ()  # the last list, best first
    act: str = NOTHING  # RECOMMEND, EXPLAIN, HELP, QUIT or NOTHING
    places: tuple[int, ...] = ()  # of `shown`, from 0, that are to be explained
    notes: tuple[str, ...] = ()  # what to tell about the last turn

    @property
    def asked(self) -> str:
        """What to search for: the query and for whom and what it is; empty if nothing was said."""
        return " ".join(part for part in (self.query, self.whom, self.occasion) if part)

    @property
    def leaving_out(self) -> list[str]:
        """Words and codes that must not be recommended."""
        return [*self.exclude, *self.left_out]

    @property
    def said(self) -> str:
        """What is understood so far, in words: `"gift" for my mother, up to £4.20, not red`."""
        parts = [f'"{self.asked}"'] if self.asked else []
        parts += [f"up to £{self.price_max:,.2f}"] if self.price_max is not None else []
        parts += [f"not {word}" for word in self.exclude]
        parts += [f"none of the {len(self.left_out)} shown before"] if self.left_out else []
        return ", ".join(parts) or "anything"


def turn(state: State, text: str) -> State:
    """The next state: `state` with what `text` says, `act` what to do now, `notes` what to tell about it.

    "cheaper" means a penny below the median price of what was shown; "more" leaves out all of it; "not red" excludes,
    "red after all" takes that back; "for my mother" is added to what is looked for; what else is said is looked for.
    """
    text = spoken.corrected(" ".join(text[:LONGEST].replace("’", "'").split()))
    state, bare = replace(state, act=RECOMMEND, places=(), notes=()), text.rstrip(" .!,;")
    if spoken.QUIT.fullmatch(bare):
        return replace(state, act=QUIT)
    if spoken.HELP.fullmatch(bare):
        return replace(state, act=HELP)
    if spoken.RESTART.fullmatch(bare):
        return State(act=NOTHING, notes=("All is forgotten: what are you looking for?",))
    if spoken.MORE.fullmatch(bare.rstrip("?")):
        return _more(state)
    if why := spoken.WHY.fullmatch(bare):
        return _why(state, why[1].strip(" ?"))
    if not re.search(r"\w", bare) or spoken.POLITE.fullmatch(bare):
        return _note(replace(state, act=NOTHING), 'Say what you are looking for, or "help".')
    return _wishes(state, text)


def _wishes(state: State, text: str) -> State:
    """Read prices, exclusions and what is taken back, each off the text; the rest is looked for."""
    before = state
    for read in (_prices, _exclusions, _taken_back):
        state, text = read(state, text)
    text = re.sub(r"\s*,[\s,]*", ", ", re.sub(r"\s*;[\s;]*", " ", text)).strip(" ,.!?")
    text = spoken.LEAD_OUT.sub("", spoken.LEAD_IN.sub("", text, count=1))
    if text.lower() not in spoken.EMPTY:
        return _search(state, text)
    if replace(state, notes=()) != before:
        return state
    return replace(state, act=NOTHING, notes=state.notes or ('I understood nothing new; "help" says what I read.',))


def _note(state: State, *notes: str) -> State:
    return replace(state, notes=(*state.notes, *notes))


# --- About what was shown ----------------------------------------------------------------------------------------


def _more(state: State) -> State:
    """The next best: all that was shown is left out."""
    return replace(state, left_out=_once(*state.left_out, *(product.code for product in state.shown)))


def _why(state: State, about: str) -> State:
    """Explain the products at the places or of the name that is said, or all that were shown."""
    if not state.shown:
        return _note(replace(state, act=NOTHING), "Nothing was shown yet that could be explained.")
    places, missing = _places(state, about)
    if missing:
        return _note(replace(state, act=NOTHING), f"{len(state.shown)} products were shown, no more.")
    words = set(re.findall(r"\w{3,}", about.lower())) - spoken.SMALL
    texts = [set(re.findall(r"\w+", product.description.lower())) for product in state.shown]
    named = [place for place, text in enumerate(texts) if words and words <= text]
    return replace(state, act=EXPLAIN, places=tuple(places or named or range(len(state.shown))))


def _places(state: State, text: str) -> tuple[list[int], bool]:
    """The places, from 0, of what was shown that a text names, and whether it names one that is not there."""
    named = []
    for found in spoken.PLACE.finditer(text):
        said = found[found.lastindex].lower()
        ordinal = len(state.shown) if said == "last" else spoken.ORDINALS.get(said)
        named.append(int(said) if said.isdecimal() else ordinal)
    there = [number - 1 for number in named if 1 <= number <= len(state.shown)]
    return there, len(there) < len(named)


# --- Prices ------------------------------------------------------------------------------------------------------


def _prices(state: State, text: str) -> tuple[State, str]:
    """Read limits of price off the text; the last one read holds. A phrase may hold others: the longest come first."""
    rules = [
        (spoken.RANGE, _between), (spoken.UP_TO, _up_to), (spoken.BELOW, _below), (spoken.LOWER, _no_limit),
        (spoken.ABOUT, _up_to), (spoken.NOT_DEAR, _cheaper), (spoken.ANY_PRICE, _no_limit), (spoken.CHEAPER, _cheaper),
    ]  # fmt: skip
    for pattern, read in rules:
        if found := pattern.search(text):
            state = read(state, *(spoken.pounds(amount) for amount in found.groups() if amount))
            text = pattern.sub(";", text)
    return state, text


def _up_to(state: State, limit: float) -> State:
    limit = round(limit, 2)
    return replace(state, price_max=limit) if limit > 0 else _note(state, "Nothing costs as little as that.")


def _below(state: State, price: float) -> State:
    return _up_to(state, price - PENNY)


def _between(state: State, limit: float) -> State:
    return _note(_up_to(state, limit), NO_LOWER)


def _no_limit(state: State, *_: float) -> State:
    return _note(replace(state, price_max=None), f"{NO_LOWER} There is no upper one any more.")


def _cheaper(state: State) -> State:
    """A penny below the median of what was shown: half of it or more is left out, but not all for one cheap product."""
    if not state.shown:
        return _note(state, 'Nothing was shown yet to be cheaper than: name a price, such as "under £5".')
    limit = median(product.price for product in state.shown) - PENNY
    return _up_to(state, limit if state.price_max is None else min(limit, state.price_max))


# --- What is wanted, and what is not -----------------------------------------------------------------------------


def _exclusions(state: State, text: str) -> tuple[State, str]:
    """Read "not red", "without ceramic or glass", "not the second", "not for my mother" off the text."""
    while found := spoken.WITHOUT.search(text):
        text = f"{text[: found.start()]};{text[found.end() :]}"
        for thing in spoken.AND_OR.split(found["what"]):
            state = _excluded(state, thing.strip())
    return state, text


def _excluded(state: State, thing: str) -> State:
    places, missing = _places(state, thing)
    if places or missing:
        state = _note(state, *(f"Without {state.shown[place].description}." for place in places))
        return replace(state, exclude=_once(*state.exclude, *(state.shown[place].code for place in places)))
    if spoken.FOR.match(thing):
        kept = {name: "" if getattr(state, name) == thing else getattr(state, name) for name in ("whom", "occasion")}
        return replace(state, **kept)
    thing = spoken.AFTER_THING.sub("", spoken.BEFORE_THING.sub("", f"{thing} ").strip()).lower()
    if thing in spoken.NO_THING:
        return state
    without = re.sub(rf"\b{re.escape(thing)}\b", "", state.query, flags=re.IGNORECASE)
    return replace(state, query=" ".join(without.split()), exclude=_once(*state.exclude, thing))


def _once(*things: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(things))


def _taken_back(state: State, text: str) -> tuple[State, str]:
    """Read "red after all", "red is fine", "allow red" off the text, where red was excluded before."""
    for thing in state.exclude:
        word = rf"\b{re.escape(thing)}s?\b"
        back = re.compile(rf"{spoken.ALLOW}*{word}{spoken.ALLOWED}+|^\W*{spoken.ALLOW}+{word}\W*$", re.IGNORECASE)
        if back.search(text):
            state, text = _allowed(state, thing), back.sub(";", text)
    return state, text


def _allowed(state: State, thing: str) -> State:
    return replace(state, exclude=tuple(each for each in state.exclude if each != thing))


def _search(state: State, text: str) -> State:
    """Look for a text, for what is like a product shown, or for the same as before for somebody."""
    if like := spoken.LIKE.fullmatch(text):
        places, _ = _places(state, like["place"])
        text = state.shown[places[0]].description if places else text
        state = _more(state) if places else state
    elif more := spoken.MORE_OF.fullmatch(text):
        text, state = more["what"], _more(state)
    elif spoken.FOR.match(text) and state.asked:
        return _related(state, text)
    else:
        state = replace(state, left_out=())
    for thing in state.exclude:
        if re.search(rf"\b{re.escape(thing)}\b", text, re.IGNORECASE):
            state = _note(_allowed(state, thing), f"So {thing} is allowed again.")
    return _note(replace(state, query=text, whom="", occasion=""), "I take that as a search.")


def _related(state: State, text: str) -> State:
    """Add "for my mother" or "for christmas" to what is looked for, each in place of the last one of its sort."""
    for part in spoken.FOR.split(text)[1:]:
        part = f"for {part.strip()}"
        state = replace(state, **{"occasion" if spoken.OCCASION.search(part) else "whom": part})
    return state
