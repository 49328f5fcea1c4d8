"""Text metrics: variety, ease and style by hand, and BLEU against a second way to compute it."""

from collections import Counter
from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbook.narratives import text_metrics

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join), min_size=2, max_size=6)


def test_distinct_by_hand():
    texts = ["a red mug", "a red plate"]
    assert text_metrics.distinct_ngrams(texts, 1) == 4 / 6  # a, red, mug, plate of six
    assert text_metrics.distinct_ngrams(texts, 2) == 3 / 4
    assert text_metrics.distinct_ngrams(texts, 3) == 1.0
    assert text_metrics.distinct_ngrams(texts, 4) == 0.0
    assert text_metrics.distinct_ngrams(["Red. red! RED"], 1) == pytest.approx(1 / 3)


def bleu_one_by_one(texts: list[str], n: int = 4) -> float:
    """The same as its definition says, every text against every other, no table of the largest counts."""
    scores = []
    for place, text in enumerate(texts):
        words, others = text.split(), [t.split() for t in texts[:place] + texts[place + 1 :]]
        precisions = []
        for size in range(1, n + 1):
            mine = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
            theirs = [Counter(tuple(o[i : i + size]) for i in range(len(o) - size + 1)) for o in others]
            clipped = sum(min(times, max(t[gram] for t in theirs)) for gram, times in mine.items())
            precisions.append(clipped / mine.total() if mine else 0.0)
        if min(precisions) == 0:
            scores.append(0.0)
            continue
        nearest = min((len(o) for o in others), key=lambda length: (abs(length - len(words)), length))
        penalty = 1.0 if len(words) >= nearest else exp(1 - nearest / len(words))
        scores.append(penalty * exp(sum(map(log, precisions)) / n))
    return sum(scores) / len(scores)


@given(TEXTS, st.integers(1, 4))
def test_self_bleu_is_its_definition(texts, n):
    assert text_metrics.self_bleu(texts, n) == pytest.approx(bleu_one_by_one(texts, n))


def test_self_bleu_at_its_ends_and_by_hand():
    assert text_metrics.self_bleu(["this is the same text", "this is the same text"]) == pytest.approx(1.0)
    assert text_metrics.self_bleu(["one two three four", "five six seven eight"]) == 0.0
    # "a b c" against "a b d e": 2 of 3 words, 1 of 2 pairs, and shorter; the other way 2 of 4, 1 of 3, and not shorter
    by_hand = (exp(1 - 4 / 3) * (2 / 3 * 1 / 2) ** 0.5 + (2 / 4 * 1 / 3) ** 0.5) / 2
    assert text_metrics.self_bleu(["a b c", "a b d e"], 2) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="1 texts"):
        text_metrics.self_bleu(["alone"])


def test_reading_ease_by_hand():
    assert text_metrics.reading_ease("The cat sat on the mat.") == pytest.approx(206.835 - 1.015 * 6 - 84.6)
    assert text_metrics.reading_ease("A mug! It is £8.50.") == pytest.approx(206.835 - 1.015 * 5 / 2 - 84.6)
    with pytest.raises(ValueError, match="no words"):
        text_metrics.reading_ease("...")


def test_long_words_are_harder():
    ease = [
        text_metrics.reading_ease(text)
        for text in ("I like it.", "I appreciate it.", "I unquestionably appreciate it.")
    ]
    assert all(before > after for before, after in pairwise(ease))


@pytest.mark.parametrize(
    ("word", "count"),
    [("tea", 1), ("kettle", 2), ("porcelain", 3), ("made", 1), ("the", 1), ("Guatemala", 4), ("cake", 1), ("8.50", 1)],
)
def test_syllables(word, count):
    assert text_metrics.syllables(word) == count


def test_styles_by_their_marks():
    assert text_metrics.style_of_text("What a lovely treat!") == "warm"
    assert text_metrics.style_of_text("Bought in May: the mug. £3; sells best in June.") == "terse"
    assert text_metrics.style_of_text("The mug costs £3.") == "terse"


def test_lengths():
    assert text_metrics.text_lengths(["a mug", "You've £8.50."]).tolist() == [2, 2]


def test_a_judge_is_asked_about_each_text():
    asked = []

    def complete(prompt: str) -> str:
        asked.append(prompt)
        return {"good": "I give it 9 of 10.", "bad": "1", "odd": "no idea, 42"}[prompt.split()[-1]]

    marks = text_metrics.judge_texts(["good", "bad", "odd"], complete)
    assert marks[:2].tolist() == [9.0, 1.0] and np.isnan(marks[2])
    assert [prompt.split("\n\n")[1] for prompt in asked] == ["good", "bad", "odd"]
