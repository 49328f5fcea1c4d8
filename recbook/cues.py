"""The plain words that tell what a clause claims: who bought, since when, less or more, and what no receipt proves.

Patterns that end in `$` are looked for in what stands before a number or a month, those that begin with `^` in what
stands after it. All ignore capitals.
"""

import re

KINDS = ("product", "price", "discount", "count", "date", "attribute", "co-purchase", "other")


def _words(*patterns: str) -> re.Pattern:
    """One of these, as whole words."""
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


def _before(*patterns: str) -> re.Pattern:
    """One of these at the end of what stands before."""
    return re.compile(rf"\b(?:{'|'.join(patterns)})\s*$", re.IGNORECASE)


def _after(*patterns: str) -> re.Pattern:
    """One of these at the beginning of what stands after."""
    return re.compile(rf"^\s*(?:{'|'.join(patterns)})\b", re.IGNORECASE)


# --- Clauses, and who they are about -----------------------------------------------------------------------------

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
PEOPLE = r"(?:shoppers?|customers?|people|others|buyers?|households?|clients?)"
CLAUSE = re.compile(
    r";\s*|\s+[–—-]\s+|,\s+(?:and|but|so|while|where|whereas)\s+|\s+(?:and|but|while|where)\s+"
    rf"(?=(?:you|yours?|it|this|£|\d+\s|other\s|many\s)?\s*(?:{PEOPLE}|you|yours?|it|this|£)\b)",
    re.IGNORECASE,
)
VERB = (
    r"\b(?:re)?(?:bought|buy|chose|chosen|picked|took|taken|take|ordered|purchased|had|loved|come back|came back"
    r"|returned|gone home|went home|treated|fell for|fallen for|found its way|in your basket|from your basket"
    r"|a favourite|paid)\b"
)
YOU = re.compile(
    rf"\b(?:you|you['’]ve|yours?|we)\b(?=.*{VERB})|{VERB}(?=.*\byour?\b)|^\W*(?:last )?(?:bought|ordered)\b"
    r"|^\W*(?:the )?(?:last|most recently|first)\b(?: time)?,? (?:in|on|was)\b"
    r"|\b(?:bought|ordered|in your basket|from your basket)\b",
    re.IGNORECASE,
)
OTHERS = _words(
    PEOPLE, r"(?:bought|taken|ordered|purchased|sold) (?:together )?(?:with|alongside)",
    r"(?:often|usually) go(?:es)? (?:together )?with", "same baskets? as", "in the company of",
)  # fmt: skip
THIS = _words("this", "this one")  # in a clause about a purchase: what is recommended now
FREQUENT = _words(
    "often", "usually", "regularly", "frequently", "commonly", "generally", "tend to", "like to", "love to"
)
INTRODUCED = re.compile(  # what is recommended comes next
    r"(?:\b(?:this|meet|try|how about|here is|here['’]s|our|consider|suggested|next|for you|say hello to"
    r"|recommend(?:ed|ing)?|suggest(?:ing)?|to match|to go with it)\b:?\s*)(?:the|this|our|an?)?\s*$",
    re.IGNORECASE,
)
SAME = _before("same", "also", "another", "shared", "shares(?: the| its| your)?", "both")
YOURS = _before("(?:yours? (?:is|was|are|were)|than your|like your|yours?)(?: the| an?| in)?")
THEIRS = _before("yours?", "the")  # what others bought comes next
OPENS = re.compile(r"(?:^[^\w\ue000]*|[.!?:]\s*)$")  # a capital here is no name's

# --- Dates -------------------------------------------------------------------------------------------------------

PART = r"(?:\s+(?:early|late|mid))?"  # of a month
SINCE = _before(rf"(?:since|from){PART}")
LAST = _before(rf"(?:last|lastly|latest|most recently|newest)\b[^;.]*\b(?:in|on|was|of|during){PART}")
FIRST = _before(rf"first\b[^;.]*\b(?:in|on|was|of|during){PART}")
ON = re.compile(rf"(?:\b(?:in|on|during|of|back in){PART}\s+|^\W*)$", re.IGNORECASE)
SEASON = re.compile(
    r"\b(?:sells?|sold|selling|seller|popular|season|peaks?)\b.*\b(?:best|most|top|peak|season)\b"
    r"|\b(?:best|most(?! recently)|peak|season)\b.*\b(?:in|is|sold)\b",
    re.IGNORECASE,
)
ARRIVED = _words("new", "launched", "arrived", "shelves", "first sold", "in the shop", "came in")
BOTH = _before("the", "these", "you")  # two
IN_MONTH = re.compile(r"^\s*(?:times\s+)?(?:in|during)\s+")

# --- Amounts -----------------------------------------------------------------------------------------------------

LESS_AFTER = _after(
    "(?:it is |is )?(?:less|off|cheaper|lower|below|under|discount|reduction|reduced|saved|saving|down)"
)
MORE_AFTER = _after("(?:it is |is )?(?:more|dearer|higher|above|up)")
LESS_BEFORE = _before(
    "(?:save|saves|saving|saved)(?: you)?", "fallen by", "dropped by", "down by", "down", "reduced by", "cut by",
    "less by", "cheaper by",
)  # fmt: skip
MORE_BEFORE = _before("risen by", "up by", "up", "gone up by", "dearer by", "more by")
WAS = re.compile(
    r"\b(down from|up from|was|were|from|instead of|rather than|used to be|used to cost|before|formerly|not)\s*$",
    re.IGNORECASE,
)
PAID = _before("(?:you|you['’]d|last) paid(?: only| just)?")
EACH = _before("(?:at|for)(?: only| just)?")
FALLS = _words(
    "cheaper", "reduced", "discount(?:ed)?", "on sale", "on offer", "price cut", "lower price", "bargain",
    "half[- ]price", "half the price", r"price (?:has |is )?(?:fallen|dropped|come down|down)",
    "less than (?:before|it was)",
)  # fmt: skip
RISES = _words("dearer", "more expensive", "price (?:has |is )?(?:risen|gone up|up)", "costs more")
TIMES = _after("times?", "baskets?", "orders?", "visits?", "purchases?", "invoices?", "of times")
BUYERS = _after(rf"(?:other\s+|of our\s+|of\s+)*{PEOPLE}")


def way(before: str, after: str) -> int | None:
    """Whether an amount is told as a fall, -1, or a rise, 1; None: it is no difference."""
    if LESS_AFTER.match(after) or LESS_BEFORE.search(before):
        return -1
    return 1 if MORE_AFTER.match(after) or MORE_BEFORE.search(before) else None


# --- The rest ----------------------------------------------------------------------------------------------------

DARKER = re.compile(r"\b(darker|lighter)\b", re.IGNORECASE)
UNPROVABLE = _words(
    r"best-?\s?sell(?:er|ers|ing)", "cheapest", "dearest", "most popular", "favou?rite of", "sold out", "in stock",
    "last (?:one|ones|few)", "limited", "exclusive", r"award\w*", "hand-?made", "organic", "fair-?trade", "free",
    "guaranteed?", "always", "never", r"every(?:one|body|\stime)", "daily", "weekly", "monthly", "yearly", "several",
    "dozens", "hundreds", "thousands", "countless", "many", "few", "double", "triple", "majority", "bigger", "smaller",
    "larger", "longer", "shorter", "warmer", "softer", "stronger", "newer", "older", "heavier", "yesterday", "today",
    "tomorrow", "(?<!most )recently", "lately", "(?:days?|weeks?|months?|years?) ago",
    "(?:this|last|past|next) (?:week|weekend|month|year|spring|summer|autumn|winter|season)",
    r"second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d+(?:st|nd|rd|th)",
)  # fmt: skip
