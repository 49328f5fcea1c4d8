"""Checks of Chapter 14: spans of false prices, distinct-n, what a grammar allows next, an upper bound, faithfulness."""

import re

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 14.1: the spans of false claims


def false_prices(text, price):
    """The span of every price that is not the given one."""
    places = re.finditer(r"£\d+\.\d\d", text)
    return [place.span() for place in places if place[0] != f"£{price:.2f}"]


def _true_prices(text, price):
    return [place.span() for place in re.finditer(r"£\d+\.\d\d", text) if place[0] == f"£{price:.2f}"]


def _with_full_stop(text, price):
    places = re.finditer(r"£[\d.]+", text)
    return [place.span() for place in places if place[0] != f"£{price:.2f}"]


def _first_only(text, price):
    return false_prices(text, price)[:1]


def _without_pound_sign(text, price):
    return [(start + 1, end) for start, end in false_prices(text, price)]


def _whole_pounds(text, price):
    places = re.finditer(r"£\d+\.\d\d", text)
    return [place.span() for place in places if int(float(place[0][1:])) != int(price)]


# 14.2: distinct n-grams


def distinct(texts, n):
    """Different n-grams over all n-grams, in all texts together."""
    grams = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _mean_over_texts(texts, n):
    return float(np.mean([distinct([text], n) for text in texts])) if texts else 0.0


def _across_texts(texts, n):
    return distinct([" ".join(texts)], n)


def _unigrams(texts, n):
    return distinct(texts, 1)


def _last_n_gram_missing(texts, n):
    grams = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[place : place + n]) for place in range(len(words) - n)]
    return len(set(grams)) / len(grams) if grams else 0.0


# 14.3: what the grammar allows next


def may_follow(phrases, text):
    """The tokens that may come next in a text made of these phrases."""
    found = set()
    for phrase in phrases:
        if len(phrase) > len(text) and phrase[: len(text)] == text:
            found.add(phrase[len(text)])
        if len(phrase) <= len(text) and phrase == text[: len(phrase)]:
            found |= set(may_follow(phrases, text[len(phrase) :]))
    return sorted(found)


def _one_phrase_only(phrases, text):
    return sorted({phrase[len(text)] for phrase in phrases if len(phrase) > len(text) and phrase[: len(text)] == text})


def _shortest_first(phrases, text):
    """Takes the first phrase that fits, without backtracking."""
    for phrase in sorted(phrases, key=len):
        if text and len(phrase) <= len(text) and phrase == text[: len(phrase)]:
            return _shortest_first(phrases, text[len(phrase) :])
    return _one_phrase_only(phrases, text)


def _whole_phrases_only(phrases, text):
    """Lets the next phrase begin, but not a longer phrase go on."""
    ends = any(phrase == text[-len(phrase) :] for phrase in phrases if text)
    return sorted({phrase[0] for phrase in phrases}) if ends or not text else _one_phrase_only(phrases, text)


# 14.4: an upper bound after no failure


def at_most(n, level):
    """The largest share of false texts that gives n good texts in a row with a chance of 1 - level."""
    return 1 - (1 - level) ** (1 / n)


def _three_over_n(n, level):
    return 3 / n


def _level_to_the_n(n, level):
    return 1 - level ** (1 / n)


def _share_of_good_texts(n, level):
    return (1 - level) ** (1 / n)


# 14.5: faithfulness of the cited reasons


def falls_more(effects, cited):
    """The mean effect of the cited purchases minus that of the others."""
    mine = [effect for code, effect in effects.items() if code in cited]
    others = [effect for code, effect in effects.items() if code not in cited]
    return float(np.mean(mine) - np.mean(others)) if mine and others else float("nan")


def _compared_with_all(effects, cited):
    mine = [effect for code, effect in effects.items() if code in cited]
    return float(np.mean(mine) - np.mean(list(effects.values()))) if mine and len(mine) < len(effects) else float("nan")


def _sums_not_means(effects, cited):
    mine = [effect for code, effect in effects.items() if code in cited]
    others = [effect for code, effect in effects.items() if code not in cited]
    return float(sum(mine) - sum(others)) if mine and others else float("nan")


def _sign_reversed(effects, cited):
    return -falls_more(effects, cited)


def _zero_for_nan(effects, cited):
    return float(np.nan_to_num(falls_more(effects, cited)))


EXERCISES = [
    Exercise(
        "14.1",
        false_prices,
        [
            ("It is only £8.50, down from £10.00.", 8.5),
            ("£8.50. Not £8.05. Nor £8.99.", 8.499999999),
            ("No price at all, and 8.51 is none.", 8.5),
            ("£0.85 or £12.85: £0.85.", 0.85),
        ],
        [
            Mistake(_true_prices, "those are the prices that are right: the wrong ones are asked for."),
            Mistake(_with_full_stop, "the full stop after a price is no part of it: two digits after the point."),
            Mistake(_first_only, "a text may have several wrong prices: all of them are asked for."),
            Mistake(_without_pound_sign, "the pound sign belongs to the price: the span begins there."),
            Mistake(_whole_pounds, "the pence count: compare the price as it is written."),
        ],
    ),
    Exercise(
        "14.2",
        distinct,
        [
            (["a red mug", "a red plate"], 2),
            (["a b a b", "c"], 1),
            (["a b c d", "a b c e", "f g h"], 3),
            (["mug"], 2),
            (["one two three", "three one two"], 2),
        ],
        [
            Mistake(
                _mean_over_texts, "that is the mean of each text's own share; put the n-grams of all texts together."
            ),
            Mistake(_across_texts, "an n-gram does not reach from one text into the next."),
            Mistake(_unigrams, "those are single words; take n words in a row."),
            Mistake(_last_n_gram_missing, "the last n-gram of each text is missing: there are words - n + 1 of them."),
        ],
    ),
    Exercise(
        "14.3",
        may_follow,
        [
            ([[1], [2, 3], [2, 3, 4]], [2, 3]),
            ([[1], [2, 3], [2, 3, 4]], []),
            ([[1], [2, 3], [2, 3, 4]], [1, 2]),
            ([[5, 6], [5, 6, 7, 8], [7, 9]], [5, 6, 7]),
            ([[1], [2, 3]], [9]),
            ([[5, 6], [5, 6, 7, 8], [7, 9]], [5, 6, 7, 8]),
        ],
        [
            Mistake(_one_phrase_only, "after a whole phrase the next one may begin: the text is several phrases."),
            Mistake(_shortest_first, "a phrase that is complete may also go on as a longer one: keep both ways open."),
            Mistake(_whole_phrases_only, "where a phrase is complete, a longer one that begins alike may still go on."),
        ],
    ),
    Exercise(
        "14.4",
        at_most,
        [(1000, 0.95), (90, 0.95), (1, 0.5), (20, 0.99)],
        [
            Mistake(
                _three_over_n, "that is the rule of thumb for a level of 0.95; solve (1 - p) ** n = 1 - level for p."
            ),
            Mistake(_level_to_the_n, "the chance of such luck is 1 - level, not level."),
            Mistake(_share_of_good_texts, "that is the share of good texts: the false ones are the rest."),
        ],
    ),
    Exercise(
        "14.5",
        falls_more,
        [
            ({"A": 2.0, "B": 0.5, "C": -0.5}, ["A"]),
            ({"A": 2.0, "B": 1.0, "C": 0.0, "D": 0.4}, ["A", "C"]),
            ({"A": 2.0}, ["A"]),
            ({"A": 2.0, "B": 1.0}, ["Z"]),
        ],
        [
            Mistake(
                _compared_with_all, "the cited purchases are among those that you compare with: leave them out there."
            ),
            Mistake(_sums_not_means, "means, not sums: a shopper has more other purchases than cited ones."),
            Mistake(_sign_reversed, "the sign is turned round: cited less others."),
            Mistake(_zero_for_nan, "where there is nothing to compare, the answer is nan: zero would be a finding."),
        ],
    ),
]
