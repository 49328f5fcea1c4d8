"""Price limits as people say them: in figures or in words, dearer, cheaper; all in pounds.

`price_limits` extracts them from a text. The patterns ignore capitals; `PRICE_AMOUNT` finds one price.
"""

import re

UP_TO, NO_LIMIT, CHEAPER, FOREIGN = "up to", "no limit", "cheaper", "foreign"  # kinds of limit
PENNY = 0.01  # pounds
PRICE_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
).split()
PRICE_VALUES = {word: float(value) for value, word in enumerate(PRICE_WORDS)} | {
    "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "seventy": 70.0, "eighty": 80.0, "ninety": 90.0,
    "hundred": 100.0, "fiver": 5.0, "tenner": 10.0,
}  # fmt: skip
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def any_of(*patterns: str) -> re.Pattern:
    """A pattern for one of these, as whole words."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)", re.IGNORECASE)


_UNITS = "|".join(PRICE_WORDS[1:10])
_BELOW_100 = rf"(?:(?:{'|'.join(TENS)})(?:[\s-](?:{_UNITS})\b)?|{'|'.join(reversed(PRICE_WORDS[1:20]))})"
_WORD = rf"(?>(?:(?:{_UNITS}|a)\s+)?hundred(?:\s+(?:and\s+)?{_BELOW_100})?|{_BELOW_100})"  # no "twenty" of twenty-five
_NUMBER = rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:[.,]\d{{1,2}})?|{_WORD}"
_UNIT = rf"£\s*(?:{_NUMBER})|(?:{_NUMBER}|a)\s*(?:pounds?|quid|gbp|£)|\d+\s*(?:pence|p)|a (?:fiver|tenner)"
_BARE = (
    rf"(?:{_NUMBER})(?!\s*(?:[-\w]*\d|%|years?|months?|days?|pieces?|people|persons?|cm|mm|inch(?:es)?|of|or (?!less)))"
)
PRICED = rf"({_UNIT})"  # says pounds or pence
PRICE_AMOUNT = rf"({_UNIT}|{_BARE})"
_NOT = (
    r"(?:no|not|nothing|none|never|isn't|is not|aren't|are not|(?:i )?(?:don't|do not) (?:want|show me)(?: anything)?)"
)
_LEAD = r"(?:(?:but|and|for|something|anything|only|all|it|that|costs?|costing|priced|is|a price|my|i have)\s+)*"
_ABROAD = "(?:euros?|eur|€|dollars?|usd|bucks|\\$|cents?|yen|francs?|kron(?:er|or|a)|zloty|rupees?)"
ABROAD = re.compile(
    rf"(?<!\w){_LEAD}(?:(?:between|from|up to|at (?:most|least)|max(?:imum)?|min(?:imum)?|of|within|budget|under|below"
    rf"|(?:less|cheaper|lower|more|higher|dearer) than|over|above|around|about|roughly|is|{_NOT})\s+)*"
    rf"(?:[€$]?\s*(?:{_NUMBER})\s*{_ABROAD}?\s*(?:and|to|-)\s*)?(?:[€$]\s*(?:{_NUMBER})|(?:{_NUMBER})\s*{_ABROAD})"
    r"(?:\s+(?:(?:or|and) (?:less|more|cheaper|under|below|over|up)|at most|max|tops))?(?!\w)",
    re.IGNORECASE,
)
RANGE = any_of(
    rf"{_LEAD}(?:(?:between|from)\s+(?:{_UNIT}|{_NUMBER})\s*(?:and|to|-)|(?:{_UNIT})\s*(?:to|-))\s*{PRICE_AMOUNT}",
    rf"{_LEAD}(?:{_NUMBER})\s*(?:to|-)\s*{PRICED}",
)
AT_MOST = any_of(
    rf"{_LEAD}(?:up to|at most|max(?:imum)?(?: of)?|within|budget(?: is| of)*|{_NOT} (?:more|higher|dearer) than"
    rf"|{_NOT} (?:over|above))\s+{PRICE_AMOUNT}"
)
ABOUT = any_of(
    rf"{_LEAD}(?:(?:around|about|roughly)\s+)?{PRICED}(?:\s+(?:or (?:less|cheaper|under|below)|at most|max|tops))?"
)
BELOW = any_of(rf"{_LEAD}(?:under|below|beneath|less than|cheaper than|lower than)\s+{PRICE_AMOUNT}")
NOT_BELOW = any_of(rf"{_LEAD}{_NOT} (?:under|below|beneath|(?:less|cheaper|lower) than)\s+{PRICE_AMOUNT}")
LOWER = any_of(
    rf"{_LEAD}(?:over|above|more than|dearer than|at least|from|min(?:imum)?(?: of)?)\s+{PRICE_AMOUNT}",
    rf"{PRICED}\s+(?:or more|and more|or over|at least|and up)",
)
_DEAR = "(?:expensive|dear|pricey|pricy|costly)"
_TOO = r"(?:(?:too|so|that|as|very|overly|quite|rather|really|a bit|bit|much|all)\s+)"
NOT_DEAR = any_of(rf"(?:but |and |something |anything )*{_NOT} {_TOO}*(?:more )?{_DEAR}")
ANY_PRICE = any_of(
    rf"(?:more {_DEAR}|dearer|pricier|costlier|better quality|{_NOT} {_TOO}*cheap)",
    "any price(?: is (?:ok|fine))?", "(?:the )?price (?:does not|doesn't) matter", "(?:no|without) (?:price )?limit",
    "money is no object",
    "(?:forget|ignore|drop|remove|lift|never ?mind)(?: about)? (?:the|my|that) (?:price|limit|budget)(?: limit)?",
)  # fmt: skip
LESS = any_of(
    rf"(?:(?:they|these|those|that|this|all|it)(?: are|'re|'s| is| was| were)? )*{_TOO}+(?:{_DEAR}|much)",
    r"(?:(?:something|anything|even|still|much|just|a (?:bit|little)|any|some|the)\s+)*(?:cheap(?:er|est)?|inexpensive"
    rf"|less {_DEAR}|low(?:er)?[- ](?:price[sd]?|cost)|(?:more )?affordable)"
    r"(?: (?:ones?|please|than (?:that|this|it|these|those|them|any of (?:these|those|them))))*",
)
RULES = (
    (ABROAD, FOREIGN), (RANGE, UP_TO), (NOT_BELOW, NO_LIMIT), (AT_MOST, UP_TO), (BELOW, UP_TO), (LOWER, NO_LIMIT),
    (ABOUT, UP_TO), (NOT_DEAR, CHEAPER), (ANY_PRICE, NO_LIMIT), (LESS, CHEAPER),
)  # fmt: skip


def price_limits(text: str) -> tuple[list[tuple[str, float]], str]:
    """The price limits in a text, and the text without them: `UP_TO` with its pounds, the other kinds with 0.

    A phrase may contain others, so the longest are read first. In the list, what lifts a limit comes first, so that a
    limit overrides it ("over £5 but under £10"). A lower limit is a `NO_LIMIT`, and so is the lower end of a range.
    """
    said = []
    for pattern, kind in RULES:
        if found := pattern.search(text):
            amount = sum(parse_pounds(group) for group in found.groups() if group) if kind == UP_TO else 0.0
            said.append((kind, round(amount - PENNY * (pattern is BELOW), 2)))
            said += [(NO_LIMIT, 0.0)] if pattern is RANGE else []
            text = pattern.sub(";", text)
    return sorted(said, key=lambda each: each[0] != NO_LIMIT), text


def parse_pounds(text: str) -> float:
    """An amount in figures or words, in pounds: "£4.20", "4,20", "five pounds", "50p", "a fiver"."""
    small = text.lower()
    if figures := re.search(r"\d[\d.,]*", small):
        digits = figures[0].rstrip(".,")
        digits = digits.replace(",", "") if re.search(r",\d{3}", digits) else digits.replace(",", ".")
        return float(digits) / (100 if re.search(r"\d\s*p(?:ence)?$", small) else 1)
    total = 0.0
    for word in re.findall(r"[a-z]+", small):
        total = max(total, 1.0) * PRICE_VALUES[word] if word == "hundred" else total + PRICE_VALUES.get(word, 0.0)
    return total or 1.0  # "a pound"
