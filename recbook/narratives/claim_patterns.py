"""Patterns over plain words that tell what a clause claims: who bought, since when, less or more, what is unprovable.

A pattern that ends in `$` is searched for in the text before a number or a month, one that begins with `^` in the text
after it. All ignore capitals.
"""

import operator
import re

CLAIM_KINDS = ("product", "price", "discount", "count", "date", "attribute", "co-purchase", "other")


def _words(*patterns: str) -> re.Pattern:
    """One of these, as whole words."""
    return re.compile(rf"\b(?:{'|'.join(patterns)})\b", re.IGNORECASE)


def _before(*patterns: str) -> re.Pattern:
    """One of these, at the end of the text before."""
    return re.compile(rf"\b(?:{'|'.join(patterns)})\s*$", re.IGNORECASE)


def _after(*patterns: str) -> re.Pattern:
    """One of these, at the beginning of the text after."""
    return re.compile(rf"^\s*(?:{'|'.join(patterns)})\b", re.IGNORECASE)


# --- Clauses, and who they are about -----------------------------------------------------------------------------

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")
PEOPLE = (
    r"(?:shoppers?|customers?|people|others|buyers?|households?|clients?|friends|neighbou?rs|families|fans|owners"
    r"|anyone|somebody|someone|nobody|no one)"
)
CLAUSE = re.compile(
    r";\s*|\s+[–—-]\s+|,\s+(?:and|but|so|while|where|whereas)\s+|\s+(?:and|but|while|where)\s+"
    rf"(?=(?:you|yours?|it|this|£|\d+\s|other\s|many\s)?\s*(?:{PEOPLE}|you|yours?|it|this|£)\b)",
    re.IGNORECASE,
)
VERB = (
    r"\b(?:re)?(?:bought|buy|chose|chosen|picked|took|taken|take|ordered|purchased|had|loved|liked|enjoyed"
    r"|come back|came back|returned|gone home|went home|treated|fell for|fallen for|found its way|in your basket"
    r"|from your basket|a favourite|paid)\b"
)
YOU = re.compile(
    rf"\b(?:you|you['’]ve|yours?)\b(?! we\b)(?=.*{VERB})|{VERB}(?=.*\byour?\b)|^\W*(?:last )?(?:bought|ordered)\b"
    r"|^\W*(?:the )?(?:last|most recently|first)\b(?: time)?,? (?:in|on|was)\b"
    r"|\b(?:bought|ordered|in your basket|from your basket|of your (?:baskets|orders)|cost you)\b"
    r"|^\W*your (?!next\b|new\b)"
    r"|\byou\s+(?:(?:already|still|now|also|do|clearly)\s+)*(?:have|own|know|like|love|use)\b",
    re.IGNORECASE,
)
LISTED = re.compile(  # a further purchase in the same sentence, without a verb: "and the … once", "in May, the …"
    r"(?:,|;|^|,? and)\s*(?=(?:in \w+,? )?(?:the|your) \ue000+(?:\s+(?:only|just|once|twice|times|last|in|on|since"
    r"|two|three|four|five|six|seven|eight|nine|ten|\d+\w*|[A-Z]\w+))*\s*(?:[.!?;,]|$))"
)
OTHERS = _words(
    PEOPLE, "those who", r"(?:bought|taken|ordered|purchased|sold) (?:together )?(?:with|alongside)",
    r"(?:often|usually) go(?:es)? (?:together )?with", "same baskets? as", "in the company of",
)  # fmt: skip
COMPARED = re.compile(  # a product that the recommended one is compared with comes next
    r"(?:\b(?:(?<!you )(?<!may )(?<!will )(?<!might )(?<!also )like|than|as|(?<!start )(?<!yourself )with|after|if"
    r"|beside|alongside|next to|match(?:es)?|suits?|fits?|complements?|completes?"
    r"|(?:cousin|companion|partner|friend|match|sister|brother|twin) (?:of|to|for)|your)\b)"
    r"\s*(?:the|your|that|this)?\s*$",
    re.IGNORECASE,
)
THAN = _before("(?:like|than|as|with)(?: the| your)?")  # not the recommended one itself
MINE = _before("your(?: own| last| first)?")  # what you bought comes next
OTHERS_VERB = _words(
    "bought", "buys?", "chose", "choose", "picked", "pick", "took", "takes?", "taken", "order(?:ed)?", "purchased?",
    "sold", "go(?:es)? (?:together )?with", "baskets?", "company",
)  # fmt: skip
THIS = _words("this", "this one")  # in a clause about a purchase: what is recommended now
FREQUENT = _words(
    "often", "usually", "regularly", "frequently", "commonly", "generally", "tend to", "like to", "love to"
)
YOUR = re.compile(r"\b(?:as|with|like|than) yours?\s+([\w-]+(?: [\w-]+)?)", re.IGNORECASE)
SAME = _before("same", "also", "another", "shared", "shares(?: the| its| your)?", "both")
YOURS = _before("(?:yours? (?:is|was|are|were)|than your|like your|yours?)(?: the| an?| in)?")
THEIRS = _before("yours?", "the")  # what others bought comes next
OPENS = re.compile(r"(?:^[^\w\ue000]*|[.!?:]\s*)$")  # a capital here is no name's

# --- Dates -------------------------------------------------------------------------------------------------------

PART = r"(?:\s+(?:early|late|mid))?"  # of a month
SINCE = _before(rf"(?:since|from){PART}")
LAST = _before(rf"(?:last|lastly|latest|most recently|newest)\b[^;.]*\b(?:in|on|was|of|during){PART}")
FIRST = _before(rf"first\b[^;.]*\b(?:in|on|was|of|during){PART}")
ON = re.compile(rf"(?:\b(?:in|on|during|of|back in|between){PART}\s+|^\W*)$", re.IGNORECASE)
SEASON = re.compile(
    r"\b(?:sells?|sold|selling|seller|popular|season|peaks?)\b.*\b(?:best|most|top|peak|season)\b"
    r"|\b(?:best|most(?! recently)|peak|season)\b.*\b(?:in|is|sold)\b"
    r"|\bis its (?:best|peak|top)\b",
    re.IGNORECASE,
)
NEW = _words("new(?:ly)?", "arrived", "arrivals?", "launched")
AGAIN = _words(
    "again", "often", "frequently", "repeatedly", "come back", "came back", "returned?", "re-?(?:bought|ordered)",
    "a second time", "still",
)  # fmt: skip
AGAIN_IN = _before(rf"again (?:in|on){PART}", rf"a second time (?:in|on){PART}")
ARRIVED = _words("new", "launched", "arrived", "shelves", "first sold", "in the shop", "came in")
YOU_BOUGHT = re.compile(rf"\byou\b.*{VERB}", re.IGNORECASE)
BOTH = _before("the", "these", "you")  # two
IN_MONTH = re.compile(r"^\s*(?:times\s+)?(?:in|during)\s+")

# --- Amounts -----------------------------------------------------------------------------------------------------

LESS_AFTER = _after("(?:less|off|cheaper|lower|below|under|discount|reduction|reduced|saved|saving|down)")
MORE_AFTER = _after("(?:more|dearer|higher|above|up)")
LESS_BEFORE = _before(
    "(?:save|saves|saving|saved)(?: you)?", "(?:fallen|fell|dropped)(?: by)?", "down by", "down", "reduced by",
    "cut by", "less by", "cheaper by", "(?:saving|discount|reduction) of",
)  # fmt: skip
MORE_BEFORE = _before("(?:risen|rose)(?: by)?", "up by", "up", "gone up by", "dearer by", "more by")
WAS = re.compile(
    r"\b(down from|up from|was|were|from|instead of|rather than|used to be|used to cost|before|formerly|not)\s*$",
    re.IGNORECASE,
)
PAID = _before("(?:paid|cost you)(?: only| just)?")
EACH = _before("(?:at|for)(?: only| just)?")
FALLS = _words(
    "(?<!was )cheaper", "was (?:dearer|more expensive)", "used to cost more", "(?<!used to )costs? less",
    "reduced", "discount(?:ed)?", "on sale", "on offer", "price cut", "lower price", "bargain",
    "half[- ]price", "half the price", r"price (?:has |is )?(?:fell|fallen|dropped|drop|came down|come down|down)",
    "less than (?:before|it was)",
)  # fmt: skip
RISES = _words(
    "(?<!was )dearer", "(?<!was )more expensive", "was cheaper", "used to cost less", 
    "costl(?:y|ier)", "more than (?:before|it was)",
    "price (?:has |is )?(?:risen|rose|rise|gone up|went up|up)", "(?<!used to )costs? more(?! than [£\ue000])",
)  # fmt: skip
TIMES = _after("times?", r"(?:of your )?(?:baskets?|orders?)", "visits?", "purchases?", "invoices?", "of times")
BUYERS = _after(rf"(?:other\s+|of our\s+|of\s+)*{PEOPLE}")

BOUND = re.compile(r"\b(more than|over|above|less than|fewer than|under|below|at least|at most)\s*$", re.IGNORECASE)
ORDERS = {
    "more than": operator.gt, "over": operator.gt, "above": operator.gt, "less than": operator.lt, "under": operator.lt,
    "fewer than": operator.lt, "below": operator.lt, "at least": operator.ge, "at most": operator.le,
}  # fmt: skip


def holds(before: str, true: float, said: float) -> bool:
    """Whether the true number equals the one that is said, or is more or less where the words before say so."""
    bound = BOUND.search(before)
    return (ORDERS[bound[1].lower()] if bound else operator.eq)(true, said)


def way(before: str, after: str) -> int | None:
    """Whether an amount is told as a fall, -1, or a rise, 1; None: it is not told as a change."""
    if LESS_AFTER.match(after) or LESS_BEFORE.search(before):
        return -1
    return 1 if MORE_AFTER.match(after) or MORE_BEFORE.search(before) else None


# --- The rest ----------------------------------------------------------------------------------------------------

DARKER = re.compile(r"\b(darker|lighter)\b", re.IGNORECASE)
UNPROVABLE = _words(
    r"best-?\s?sell(?:er|ers|ing)", "cheapest", "dearest", "most popular", "favou?rite of", "sold out", "in stock",
    "last (?:one|ones|few)", "limited", "exclusive", r"award\w*", "hand-?made", "organic", "fair-?trade", "free",
    "nothing", "none", "nobody", "no one", "neither", "nowhere", r"(?<!why )not(?!\s+£)",
    r"(?:is|are|was|were|do|does|did|has|have|had|wo|ca|would|could)n['’]t", "cannot", "rarely", "hardly",
    "seldom", "barely", "scarcely", "regularly", "mostly", "ever",
    "unlike", "different", "again and again", "time and again", "in a row", "an? (?:day|week|month|year)", "unchanged",
    rf"(?:all|most|half|nearly|almost)(?: of)?(?: the| our| those)? (?:{PEOPLE}|who)",
    r"most (?!recently|of|sold|in\b)\w+",
    r"sells? (?:the )?most(?! in\b)", "your (?:friends|neighbours|family)", "quarter", "half (?:of|off|as)",
    r"an? (?:pound|penny|tenner|fiver|quid)", "costs? the same", "same price", "price is the same", "worst",
    "(?:low|high|dark|light|bigg|small|larg|fin|rich|great|strong|soft|warm|old|cheap|dear)est",
    "(?:in|during|over|last|every) (?:the )?(?:spring|summer|autumn|winter)",
    "(?:cheaper|dearer|more expensive) than (?:the|your|any|other|all)",
    "guaranteed?", "always", "never", r"every(?:one|body)?", "daily", "weekly", "monthly", "yearly", "several",
    "dozens", "hundreds", "thousands", "countless", "many", "few", "double", "triple", "majority", "bigger", "smaller",
    "larger", "longer", "shorter", "warmer", "softer", "stronger", "newer", "older", "heavier", "yesterday", "today",
    "tomorrow", "(?<!most )recently", "lately", "(?:days?|weeks?|months?|years?) ago",
    "(?:this|last|past|next) (?:week|weekend|month|year|spring|summer|autumn|winter|season)",
    r"second(?! time)|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|\d+(?:st|nd|rd|th)",
)  # fmt: skip
