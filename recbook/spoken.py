"""The plain words with which people ask for less, for more, for something else, or why: patterns for `conversation`.

All ignore capitals. `AMOUNT` finds a price in figures or words, `PLACE` a place in the list that was shown.
"""

import re
from difflib import get_close_matches

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
VALUES = {word: float(value) for value, word in enumerate(WORDS)} | {
    "a": 1.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "hundred": 100.0, "fiver": 5.0, "tenner": 10.0,
}  # fmt: skip
ORDINALS = {
    word: place
    for place, word in enumerate("first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1)
}


def _any(*patterns: str) -> re.Pattern:
    """One of these, as whole words."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


def _all(*patterns: str) -> re.Pattern:
    """One of these and nothing else, politely or not."""
    asked = r"(?:(?:please|ok(?:ay)?|well|and|now|then|so|but|no|yes|let'?s|let us|can we|can you|i want to)[\s,]+)*"
    return re.compile(rf"{asked}(?:{'|'.join(patterns)})(?:[\s,]+(?:please|then|now|thanks|thank you))*", re.IGNORECASE)


# --- Whole turns -------------------------------------------------------------------------------------------------

QUIT = _all(
    "quit", "exit", "q", "(?:good)?bye(?: bye)?", "stop", "end", "done", "that(?:'s| is) all", "i(?:'m| am) done"
)
HELP = _all("help", r"\?", "what can (?:you|i) (?:do|say)")
RESTART = _all(
    "start ?over(?: again)?", "start (?:again|afresh|anew)", "restart", "reset", "begin again", "new search", "clear",
    "forget (?:it|that|all(?: that)?|everything)", "(?:from|back to) the (?:start|beginning)",
)  # fmt: skip
POLITE = _all(
    "hello", "hi", "hey", "good (?:morning|afternoon|evening)", "thanks?(?: you)?(?: very much)?", "no", "yes", "ok",
    "okay", "great", "nice", "lovely", "good", "fine", "i (?:do not|don't) know",
)  # fmt: skip
WHY = re.compile(r"(?:(?:and|but|so|ok(?:ay)?|please)[\s,]+)*(?:why|how come|explain|what is the reason)\b(.*)", re.I)
MORE = _all(
    "(?:(?:show|give) me )?(?:some |any |a few |the )?(?:more|others?|next)(?: ones?| page)?(?: of (?:these|them))?",
    "(?:(?:show|give) me )?(?:something|anything) (?:else|different)", "different ones", "what else(?: is there)?",
    "(?:not|none of) (?:these|those|them|this|that)(?: ones?)?", "go on", "no more of (?:these|those|this|that)",
)  # fmt: skip

# --- Prices ------------------------------------------------------------------------------------------------------

_NUMBER = (
    rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:[.,]\d{{1,2}})?|{'|'.join([*WORDS[1:], 'thirty', 'forty', 'fifty'])}"
)
_UNIT = (
    rf"£\s*(?:{_NUMBER})|(?:{_NUMBER}|(?:a )?hundred|a)\s*(?:pounds?|quid|gbp|£)|\d+\s*(?:pence|p)|a (?:fiver|tenner)"
)
_BARE = (
    rf"(?:{_NUMBER})(?!\s*(?:[-\w]*\d|%|years?|months?|days?|pieces?|people|persons?|cm|mm|inch(?:es)?|of|or (?!less)))"
)
PRICED = rf"({_UNIT})"  # says pounds or pence
AMOUNT = rf"({_UNIT}|{_BARE})"
_NOT = r"(?:no|not|nothing|none|never|isn't|is not|aren't|are not|don't want(?: anything)?|do not want(?: anything)?)"
_LEAD = r"(?:(?:but|and|for|something|anything|only|all|it|that|costs?|costing|priced|is|a price|my|i have)\s+)*"
RANGE = _any(
    rf"{_LEAD}(?:(?:between|from)\s+(?:{_UNIT}|{_NUMBER})\s*(?:and|to|-)|(?:{_UNIT})\s*(?:to|-))\s*{AMOUNT}",
    rf"{_LEAD}(?:{_NUMBER})\s*(?:to|-)\s*{PRICED}",
)
UP_TO = _any(
    rf"{_LEAD}(?:up to|at most|max(?:imum)?(?: of)?|within|budget(?: is| of)*|{_NOT} (?:more|higher|dearer) than"
    rf"|{_NOT} (?:over|above))\s+{AMOUNT}"
)
ABOUT = _any(
    rf"{_LEAD}(?:(?:around|about|roughly)\s+)?{PRICED}(?:\s+(?:or (?:less|cheaper|under|below)|at most|max|tops))?"
)
BELOW = _any(rf"{_LEAD}(?:under|below|beneath|less than|cheaper than|lower than)\s+{AMOUNT}")
LOWER = _any(
    rf"{_LEAD}(?:over|above|more than|dearer than|at least|from|min(?:imum)?(?: of)?)\s+{AMOUNT}",
    rf"{PRICED}\s+(?:or more|and more|or over|at least|and up)",
)
_DEAR = "(?:expensive|dear|pricey|pricy|costly)"
_TOO = r"(?:(?:too|so|that|as|very|overly|quite|rather|really|a bit|bit|much|all)\s+)"
NOT_DEAR = _any(rf"(?:but |and |something |anything )*{_NOT} {_TOO}*(?:more )?{_DEAR}")
ANY_PRICE = _any(
    rf"(?:more {_DEAR}|dearer|pricier|costlier|better quality|{_NOT} {_TOO}*cheap)",
    "any price(?: is (?:ok|fine))?", "(?:the )?price (?:does not|doesn't) matter", "(?:no|without) (?:price )?limit",
    "money is no object",
)  # fmt: skip
CHEAPER = _any(
    rf"(?:(?:they|these|those|that|this|all|it)(?: are|'re|'s| is| was| were)? )*{_TOO}+(?:{_DEAR}|much)",
    r"(?:(?:something|anything|even|still|much|a (?:bit|little)|any|some|the)\s+)*(?:cheap(?:er|est)?|inexpensive"
    rf"|less {_DEAR}|low(?:er)?[- ](?:price[sd]?|cost)|(?:more )?affordable)(?: (?:ones?|please))*",
)

# --- Wishes ------------------------------------------------------------------------------------------------------

_UNTIL = (
    r"(?=\s*(?:[,;.!?]|$|\b(?:but|please|for|though|(?:and|or)?\s*(?:not|no|nothing|without|with|why|more|under)\b)))"
)
_LIST = r"[\w'&-]+(?:\s+[\w'&-]+)?(?:,\s*[\w'&-]+(?:\s+[\w'&-]+)?)*,?\s+(?:or|nor|and)\s+[\w'&-]+"
WITHOUT = re.compile(
    r"(?:\b(?:but|and|or|just|only)\s+)*(?<!\w)(?:(?:i\s+)?(?:do not|don't|dont)\s+(?:like|want"
    r"|need|show(?: me)?|love)|(?:i\s+)?(?:hate|dislike|can't stand)|without|except(?:\s+for)?|excluding|exclude|avoid"
    r"|minus|other than|(?:anything|everything|all) but|none of|nothing|never|not|no)\s+(?!only|just|necessarily)"
    rf"(?:any\s*more\s+|more\s+)?(?P<what>{_LIST}|[^,;.!?]+?){_UNTIL}",
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
NO_THING = {
    "the",
    "a",
    "one",
    "ones",
    "that",
    "this",
    "it",
    "them",
    "thanks",
    "thank you",
    "really",
    "sure",
    "idea",
    "",
}
ALLOWED = r"(?:\s+(?:one|ones|after all|too|again|is|are|would be|ok|okay|fine|allowed|good|now|then|back|in))"
ALLOW = r"(?:\b(?:allow|include|also|maybe|bring back|ok|okay|yes|but|and|well|with|then|the|actually|so)[\s,]+)"
PLACE = re.compile(
    rf"\b(?:the\s+)?({'|'.join(ORDINALS)}|last)\b(?:\s+one\b)?|(?:\bnumber\s+|#\s*)(\d+)\b|\b(?:the\s+)?(\d+)(?:st|nd|rd|th)\b"
    r"|^\s*(\d{1,2})\s*$",
    re.IGNORECASE,
)
SMALL = {"the", "this", "that", "these", "those", "you", "are", "one", "ones"}  # words that name no product
LIKE = re.compile(r"(?:(?:more|something|others?|anything)\s+)*(?:like|similar to)\s+(?P<place>.+)", re.IGNORECASE)
MORE_OF = re.compile(r"(?:(?:show|give) me )?(?:some )?(?:more|other)\s+(?P<what>.+)", re.IGNORECASE)
LEAD_IN = re.compile(
    r"^(?:(?:please|ok(?:ay)?|hello|hi|hm+|well|yes|no|and|but|also|or|then|now|so|maybe|it|thanks|only|just|instead"
    r"|i(?:'m| am)? (?:looking|searching) for|looking for|i(?:'d| would) (?:like|love)|i (?:want|need|like|love)"
    r"|(?:can|could) you|(?:show|find|give|get) me|do you (?:have|sell)|have you(?: got)?|search(?: for)?|it(?:'s| is)"
    r"|what about|how about|something(?!\s*$)|anything(?!\s*$)|some|any)(?=[\s,;.!?]|$)[\s,;.!?]*)+",
    re.IGNORECASE,
)
LEAD_OUT = re.compile(
    r"(?:[\s,;.!?]+(?:please|thanks|thank you|and|but|or|then|now|instead|with|in|ones?))*[\s,;.!?]*$", re.I
)
EMPTY = {
    "",
    "not",
    "no",
    "a",
    "the",
    "one",
    "ones",
    "something",
    "anything",
    "it",
    "that",
    "this",
    "these",
    "those",
    "with",
    "for",
}
FOR = re.compile(r"\bfor\s", re.IGNORECASE)
OCCASION = _any(
    "christmas", "xmas", "birthdays?", "easter", "weddings?", "hallowe'?en", "valentine(?:'?s)?(?: day)?",
    "anniversary", "part(?:y|ies)", "picnics?", "house-?warming", "christening", "mother'?s day", "father'?s day",
    "spring", "summer", "autumn", "winter", "new year", "afternoon tea", "breakfast", "dinner",
)  # fmt: skip
SHORT = ("quit", "more", "help", "exit", "reset")  # turns that are read although two of their letters changed places
TYPED = ("cheaper", "expensive", "without")  # words that are read although they are mistyped
KNOWN = {"inexpensive", "cheapest"}  # near to those, and words of their own
HELPED = (
    'what you look for ("a gift for a tea lover") · for my mother · cheaper · under £5 · any price · not red · without '
    "ceramic · red after all · more · like the second · why? · why the second? · start over · quit"
)


def pounds(text: str) -> float:
    """An amount in figures or words, in pounds: "£4.20", "4,20", "five pounds", "50p", "a fiver"."""
    small = text.lower()
    if figures := re.search(r"\d[\d.,]*", small):
        digits = figures[0].rstrip(".,")
        digits = digits.replace(",", "") if re.search(r",\d{3}", digits) else digits.replace(",", ".")
        return float(digits) / (100 if re.search(r"\d\s*p(?:ence)?$", small) else 1)
    return max(VALUES[word] for word in re.findall(r"[a-z]+", small) if word in VALUES)


def corrected(text: str) -> str:
    """The text with the words of `TYPED` and the turns of `SHORT` put right where mistyped; no other is touched."""
    for turn in SHORT:
        if text[:1].lower() == turn[0] and sorted(text.lower()) == sorted(turn):
            return turn

    def right(word: re.Match) -> str:
        small = word[0].lower()
        close = [] if small in KNOWN else get_close_matches(small, TYPED, n=1, cutoff=0.8)
        return close[0] if close else word[0]

    return re.sub(r"[a-zA-Z]{6,}", right, text)
