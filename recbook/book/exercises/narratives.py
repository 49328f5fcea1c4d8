"""Checks of chapter 14: the offending span, distinct n-grams, what may come next, what nothing proves, the reason."""

import re

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 14.1: the offending span


def false_prices(text, price):
    """Where every price stands that is not the one given."""
    places = re.finditer(r"£\d+\.\d\d", text)
    return [place.span() for place in places if place[0] != f"£{price:.2f}"]


def _true_ones(text, price):
    return [place.span() for place in re.finditer(r"£\d+\.\d\d", text) if place[0] == f"£{price:.2f}"]


def _with_the_full_stop(text, price):
    places = re.finditer(r"£[\d.]+", text)
    return [place.span() for place in places if place[0] != f"£{price:.2f}"]


def _first_only(text, price):
    return false_prices(text, price)[:1]


def _without_the_sign(text, price):
    return [(start + 1, end) for start, end in false_prices(text, price)]


def _whole_pounds(text, price):
    places = re.finditer(r"£\d+\.\d\d", text)
    return [place.span() for place in places if int(float(place[0][1:])) != int(price)]


# 14.2: distinct n-grams


def distinct(texts, n):
    """Different n-grams over all n-grams, of all texts together."""
    grams = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _each_by_itself(texts, n):
    return float(np.mean([distinct([text], n) for text in texts])) if texts else 0.0


def _across_texts(texts, n):
    return distinct([" ".join(texts)], n)


def _words_alone(texts, n):
    return distinct(texts, 1)


def _last_one_lost(texts, n):
    grams = []
    for text in texts:
        words = text.split()
        grams += [tuple(words[place : place + n]) for place in range(len(words) - n)]
    return len(set(grams)) / len(grams) if grams else 0.0


# 14.3: what may come next


def may_follow(phrases, text):
    """The tokens with which a text made of these phrases may go on."""
    found = set()
    for phrase in phrases:
        if len(phrase) > len(text) and phrase[: len(text)] == text:
            found.add(phrase[len(text)])
        if len(phrase) <= len(text) and phrase == text[: len(phrase)]:
            found |= set(may_follow(phrases, text[len(phrase) :]))
    return sorted(found)


def _one_phrase_alone(phrases, text):
    return sorted({phrase[len(text)] for phrase in phrases if len(phrase) > len(text) and phrase[: len(text)] == text})


def _shortest_first(phrases, text):
    """Takes the first phrase that fits and never looks back."""
    for phrase in sorted(phrases, key=len):
        if text and len(phrase) <= len(text) and phrase == text[: len(phrase)]:
            return _shortest_first(phrases, text[len(phrase) :])
    return _one_phrase_alone(phrases, text)


def _whole_phrases_only(phrases, text):
    """Lets the next phrase begin, but no longer phrase go on."""
    ends = any(phrase == text[-len(phrase) :] for phrase in phrases if text)
    return sorted({phrase[0] for phrase in phrases}) if ends or not text else _one_phrase_alone(phrases, text)


# 14.4: what nothing proves


def at_most(n, level):
    """The largest share that still gives n good ones in a row with a chance of 1 - level."""
    return 1 - (1 - level) ** (1 / n)


def _three_over_n(n, level):
    return 3 / n


def _level_to_the_n(n, level):
    return 1 - level ** (1 / n)


def _chance_of_luck(n, level):
    return (1 - level) ** (1 / n)


# 14.5: the reason or another


def falls_more(effects, cited):
    """The mean effect of the cited purchases less that of the others."""
    mine = [effect for code, effect in effects.items() if code in cited]
    others = [effect for code, effect in effects.items() if code not in cited]
    return float(np.mean(mine) - np.mean(others)) if mine and others else float("nan")


def _against_all(effects, cited):
    mine = [effect for code, effect in effects.items() if code in cited]
    return float(np.mean(mine) - np.mean(list(effects.values()))) if mine and len(mine) < len(effects) else float("nan")


def _sums(effects, cited):
    mine = [effect for code, effect in effects.items() if code in cited]
    others = [effect for code, effect in effects.items() if code not in cited]
    return float(sum(mine) - sum(others)) if mine and others else float("nan")


def _turned_round(effects, cited):
    return -falls_more(effects, cited)


def _zero_for_nothing(effects, cited):
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
            Mistake(_true_ones, "those are the prices that are right: the wrong ones are asked for."),
            Mistake(_with_the_full_stop, "the full stop after a price is no part of it: two digits after the point."),
            Mistake(_first_only, "a text may have several wrong prices: all of them are asked for."),
            Mistake(_without_the_sign, "the pound sign belongs to the price: the span begins there."),
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
                _each_by_itself, "that is the mean of each text's own share; put the n-grams of all texts together."
            ),
            Mistake(_across_texts, "an n-gram does not reach from one text into the next."),
            Mistake(_words_alone, "those are single words; take n words in a row."),
            Mistake(_last_one_lost, "the last n-gram of each text is missing: there are words - n + 1 of them."),
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
            Mistake(_one_phrase_alone, "after a whole phrase the next one may begin: the text is several phrases."),
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
            Mistake(_chance_of_luck, "that is the share of good texts: the false ones are the rest."),
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
            Mistake(_against_all, "the cited purchases are among those that you compare with: leave them out there."),
            Mistake(_sums, "means, not sums: a shopper has more other purchases than cited ones."),
            Mistake(_turned_round, "the sign is turned round: cited less others."),
            Mistake(
                _zero_for_nothing, "where there is nothing to compare, the answer is nan: zero would be a finding."
            ),
        ],
    ),
]
