"""Patterns over the plain words with which people ask for more, for something else, or why: used by `dialogue`.

All ignore capitals. `PLACE` finds a place in the list that was shown; patterns of prices are in `prices`.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches

from recbook.conversation.prices import PRICE_WORDS, any_of

ORDINALS = {
    word: place
    for place, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)
}


def _all(*patterns: str) -> re.Pattern:
    """One of these and nothing else, politely or not."""
    asked = r"(?:(?:please|ok(?:ay)?|well|and|now|then|so|but|no|yes|let'?s|let us|can we|can you|i want to)[\s,]+)*"
    return re.compile(rf"{asked}(?:{'|'.join(patterns)})(?:[\s,]+(?:please|then|now|thanks|thank you))*", re.IGNORECASE)


# --- Whole turns -------------------------------------------------------------------------------------------------

QUIT_PATTERN = _all(
    "quit", "exit", "q", "(?:good)?bye(?: bye)?", "stop", "end", "done", "that(?:'s| is) all", "i(?:'m| am) done"
)
HELP_PATTERN = _all("help", r"\?", "what can (?:you|i) (?:do|say)")
RESTART = _all(
    "start ?over(?: again)?", "start (?:again|afresh|anew)", "restart", "reset", "begin again", "new search", "clear",
    "forget (?:it|that|all(?: that)?|everything)", "(?:from|back to) the (?:start|beginning)",
)  # fmt: skip
POLITE = _all(
    "hello", "hi", "hey", "good (?:morning|afternoon|evening)", "thanks?(?: you)?(?: very much)?", "no", "yes", "ok",
    "okay", "great", "nice", "lovely", "good", "fine", "i (?:do not|don't) know", "never ?mind(?: that| it)?",
    "no (?:problem|worries|matter|idea)",
)  # fmt: skip
WHY = re.compile(r"(?:(?:and|but|so|ok(?:ay)?|please)[\s,]+)*(?:why|how come|explain|what is the reason)\b(.*)", re.I)
MORE_PATTERN = _all(
    "(?:(?:show|give) me )?(?:some |any |a few |the )?(?:more|others?|next)(?: ones?| page)?(?: of (?:these|them))?",
    "(?:(?:show|give) me )?(?:something|anything) (?:else|different)", "different ones", "what else(?: is there)?",
    "(?:not|none of) (?:these|those|them|this|that)(?: ones?)?", "go on", "no more of (?:these|those|this|that)",
)  # fmt: skip

UNDO = _all("undo(?: (?:that|it|this))?", "(?:go|one step|a step) back", "take (?:that|it) back", "back")
AGAIN_PATTERN = re.compile(
    r"(?:(?:please|ok(?:ay)?|yes|and|but|so|then)[\s,]+)*(?:(?:(?:show|give|tell)(?: me)?(?: about)?|(?:let me )?see"
    r"|back to|i(?:'d|'ll| would| will)? (?:like|love|want|take|prefer)|(?:what|how) about)\s+)?(?P<about>.*?)"
    r"(?:\s+(?:again|please|too|then|now|best|most))*[\s?]*",
    re.IGNORECASE,
)
PRICED_AT = re.compile(
    r"(?:(?:and|but|so|ok(?:ay)?|then)[\s,]+)*(?:how much(?: (?:is|are|was|were|for|does|do|would))?|what (?:does|do)"
    r"|(?:what(?:'s| is| are) )?(?:the )?prices? (?:of|for))\b(?P<about>.*?)(?:\s+(?:costs?|again|please))*[\s?]*",
    re.IGNORECASE,
)
FILLER = re.compile(r"(?:\W|\b(?:the|and|or|ones?|also)\b)*", re.IGNORECASE)  # beside places

# --- Wishes ------------------------------------------------------------------------------------------------------

_UNTIL = (
    r"(?=\s*(?:[,;.!?]|$|\b(?:but|please|for|though|(?:and|or)?\s*(?:not|no|nothing|without|with|why|more|under)\b)))"
)
_LIST = r"[\w'&-]+(?:\s+[\w'&-]+)?(?:,\s*[\w'&-]+(?:\s+[\w'&-]+)?)*,?\s+(?:or|nor|and)\s+[\w'&-]+"
_WHO = r"(?:(?:i|we|you|she|he|they|who|my\s+\w+)\s+(?:(?:really|also|just|absolutely)\s+)?)?"
WITHOUT_PATTERN = re.compile(
    rf"(?:\b(?:but|and|or|just|only)\s+)*(?<!\w)(?:{_WHO}(?:do not|don't|dont|does not|doesn't|doesnt)\s+(?:really\s+)?"
    rf"(?:like|want|need|show(?: me)?|love)|{_WHO}(?:hates?|dislikes?|can't stand|cannot stand)|without"
    r"|except(?:\s+for)?|excluding|exclude|avoid|minus|other than|(?:anything|everything|all) but|none of|nothing"
    r"|never|not|no)\s+(?!only|just|necessarily|(?:mind|problem|worries|matter)\b)"
    rf"(?:any\s*more\s+|more\s+)?(?P<what>{_LIST}|[^,;.!?]+?){_UNTIL}",
    re.IGNORECASE,
)
_SOFT = r"(?:(?:still|also|really|just|quite|definitely|absolutely|at all)\s+)*"
REFUSED = re.compile(  # "red is still not ok"
    rf"(?:^|[,;.!?]|\b(?:but|and|so|well)\b)\s*(?P<what>[\w'&-]+(?:\s[\w'&-]+){{0,2}}?)\s+{_SOFT}(?:is|are|was|were"
    rf"|would be)(?:n't\s+|\s+{_SOFT}(?:not|no)\s+){_SOFT}(?:ok(?:ay)?|fine|good|all ?right|allowed|wanted)\b",
    re.IGNORECASE,
)
AND_OR = re.compile(r"\s*,\s*(?:or|nor|and)?\s*|\s+(?:or|nor|and)\s+", re.IGNORECASE)
BEFORE_THING = re.compile(
    r"^(?:(?:the|a|an|any|in|of|made|made of|with|anything|something|one|that|those|these|too|so|colou?r|is|are|be|it"
    r"|them|like|really|any of)\s+)+",
    re.IGNORECASE,
)
AFTER_THING = re.compile(
    r"(?:\s+(?:ones?|things?|stuff|products?|items?|any ?more|at all|colou?red|again|either|after all|now|today|this"
    r" time|in it|on it))+$",
    re.IGNORECASE,
)
NO_THING = {  # what "not" may stand before without excluding anything
    "the", "a", "one", "ones", "that", "this", "it", "them", "thanks", "thank you", "really", "sure", "idea", ""
}  # fmt: skip
ALLOWED = r"(?:\s+(?:one|ones|after all|too|again|is|are|would be|ok|okay|fine|allowed|good|now|then|back|in)\b)"
ALLOW = r"(?:\b(?:allow|include|also|maybe|bring back|ok|okay|yes|but|and|well|with|then|the|actually|so)[\s,]+)"
PLACE = re.compile(
    rf"\b(?:the\s+)?({'|'.join(ORDINALS)}|last)\b(?:\s+one\b)?|(?:\bnumber\s+|#\s*)(\d+)\b|\b(?:the\s+)?(\d+)(?:st|nd|rd|th)\b"
    r"|^\s*(\d{1,2})\s*$",
    re.IGNORECASE,
)
SPAN = re.compile(rf"\b(first|top|last)\s+({'|'.join(PRICE_WORDS[2:11])}|\d{{1,2}})\b(?:\s+ones?\b)?", re.IGNORECASE)
SMALL = {"the", "this", "that", "these", "those", "they", "them", "you", "are", "one", "ones"}  # name no product
LIKE = re.compile(r"(?:(?:more|something|others?|anything)\s+)*(?:like|similar to)\s+(?P<place>.+)", re.IGNORECASE)
MORE_OF = re.compile(r"(?:(?:show|give) me )?(?:some )?(?:more|other)\s+(?P<what>.+)", re.IGNORECASE)
LEAD_IN = re.compile(
    r"^(?:(?:please|ok(?:ay)?|hello|hi|hm+|well|yes|no|and|but|also|or|then|now|so|maybe|it|thanks|only|just|instead"
    r"|i(?:'m| am)? (?:looking|searching) for|looking for|i(?:'d| would) (?:like|love)|i (?:want|need|like|love)"
    r"|(?:can|could) you|(?:show|find|give|get) me|do you (?:have|sell)|have you(?: got)?|search(?: for)?|it(?:'s| is)"
    r"|what about|how about|how much (?:is|are)|never ?mind|something(?!\s*$)|anything(?!\s*$)|some|any)"
    r"(?=[\s,;.!?]|$)[\s,;.!?]*)+",
    re.IGNORECASE,
)
LEAD_OUT = re.compile(
    r"(?:[\s,;.!?]+(?:please|thanks|thank you|and|but|or|then|now|instead|with|in|ones?))*[\s,;.!?]*$", re.I
)
EMPTY = {"", *"not no a the one ones something anything it that this these those with for".split()}
COLOURS = (
    "red|blue|green|yellow|pink|white|black|gr[ae]y|brown|purple|orange|cream|ivory|silver|gold(?:en)?|turquoise|teal"
    "|lilac|violet|lavender|beige|navy|mint|aqua|burgundy|magenta"
)
MATERIALS = (
    "glass|ceramic|porcelain|china|wood(?:en)?|metal|tin|steel|plastic|paper|cotton|felt|wicker|zinc|enamel|wool"
)
_LOOK = rf"(?:(?:light|dark|pale|pastel)\s+)?(?:{COLOURS})|{MATERIALS}"
REFINE = re.compile(  # needs one of `set`, `within`, `after`: a colour alone is a search
    r"(?:(?:but|and|or|no|yes|ok(?:ay)?|maybe|something|one|it|them|that|the same(?: one| thing)?|do you have"
    r"|have you(?: got)?|show me|i(?:'d| would)? (?:like|want|love))[\s,]+)*"
    r"(?P<set>(?:make (?:it|them|that)|(?:what|how) about|(?:i(?:'d| would)? )?(?:prefer|rather)|preferably)\s+)?"
    rf"(?P<within>in\s+)?(?:(?:an?|the)\s+)?(?P<look>{_LOOK})"
    r"(?P<after>\s+(?:ones?|instead(?: of [\w' ]+)?|rather))*(?:\s+(?:please|then|too|now))*",
    re.IGNORECASE,
)
FOR = re.compile(r"\bfor\s", re.IGNORECASE)
OCCASION = any_of(
    "christmas", "xmas", "birthdays?", "easter", "weddings?", "hallowe'?en", "valentine(?:'?s)?(?: day)?",
    "anniversary", "part(?:y|ies)", "picnics?", "house-?warming", "christening", "mother'?s day", "father'?s day",
    "spring", "summer", "autumn", "winter", "new year", "afternoon tea", "breakfast", "dinner",
)  # fmt: skip
SHORT_TURNS = ("quit", "more", "help", "exit", "reset")  # turns that are recognised with two letters swapped
TYPED = ("cheaper", "expensive", "without")  # words that are recognised although mistyped
KNOWN = {"inexpensive", "cheapest"}  # similar to those, but words of their own
EXAMPLE_TURNS = (
    'what you look for ("a gift for a tea lover") · for my mother · cheaper · under £5 · any price · not red · without '
    "ceramic · red after all · in blue · more · like the second · the second again · how much is the second? · why? · "
    "why the second? · undo · start over · quit"
)


def corrected(text: str) -> str:
    """The text with mistyped words of `TYPED` and turns of `SHORT_TURNS` corrected; all others stay."""
    for turn in SHORT_TURNS:
        if text[:1].lower() == turn[0] and sorted(text.lower()) == sorted(turn):
            return turn

    def right(word: re.Match) -> str:
        small = word[0].lower()
        close = [] if small in KNOWN else get_close_matches(small, TYPED, n=1, cutoff=0.8)
        return close[0] if close else word[0]

    return re.sub(r"[a-zA-Z]{6,}", right, text)


def places_in(text: str, count: int) -> tuple[list[int], bool, str]:
    """The places, from 0, that a text names in a list of `count`; whether one of them is missing; the rest of it."""
    named: list[int] = []
    for end, number in SPAN.findall(text):
        size = int(number) if number.isdecimal() else PRICE_WORDS.index(number.lower())
        named += range(count - size + 1, count + 1) if end.lower() == "last" else range(1, size + 1)
    text = SPAN.sub(" ", text)
    for found in PLACE.finditer(text):
        said = next(filter(None, found.groups())).lower()
        named.append(int(said) if said.isdecimal() else count if said == "last" else ORDINALS[said])
    there = [number - 1 for number in dict.fromkeys(named) if 1 <= number <= count]
    return there, len(there) < len(set(named)), PLACE.sub(" ", text)


def named_in(text: str, descriptions: Sequence[str]) -> list[int]:
    """The places of the products with all words of a text; every place if the text has only words of `SMALL`."""
    words = set(re.findall(r"\w{3,}", text.lower())) - SMALL
    return [place for place, name in enumerate(descriptions) if words <= set(re.findall(r"\w+", name.lower()))]


def shown_again(text: str, descriptions: Sequence[str]) -> str | None:
    """The words that say what to show again: "the first", "2", "how much is the teapot?"; None if none do."""
    priced = PRICED_AT.fullmatch(text)
    found = priced or AGAIN_PATTERN.fullmatch(text)
    if found is None:
        return None
    about = found["about"].strip()
    there, missing, rest = places_in(about, len(descriptions))
    pointed = (there or missing) and FILLER.fullmatch(rest)
    return about if pointed or priced and named_in(about, descriptions) else None


def refined_query(query: str, text: str) -> str | None:
    """The query with its colour or material replaced by the one that a text asks for; None if it asks for none."""
    found = REFINE.fullmatch(text)
    if not found or not any(found[group] for group in ("set", "within", "after")):
        return None
    look = found["look"].lower()
    made_of = rf"\b(?:{MATERIALS})\b(?=\s+\w)"  # that is not the thing itself, as in "wrapping paper"
    coloured = rf"(?:\bin\s+)?\b(?:(?:light|dark|pale|pastel)\s+)?(?:{COLOURS})\b"
    kept = re.sub(made_of if re.fullmatch(MATERIALS, look) else coloured, " ", query, flags=re.IGNORECASE)
    begin = re.match(r"\s*(an?|the|some|any)(?:\s+|$)", kept, re.IGNORECASE)
    article, thing = (begin[1], kept[begin.end() :]) if begin else ("", kept)
    if article.lower() in ("a", "an"):
        article = "an" if look[0] in "aeiou" else "a"
    return " ".join(f"{article} {look} {thing}".split())
