"""How well texts read: variety, length, ease, style. Whether they are true is the `claim_checker`'s to say."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import exp, log

import numpy as np

TEXT_WORDS = re.compile(r"[^\W_]+(?:['’.][^\W_]+)*")  # 8.50 and you've are one word each
VOWEL_RUNS = re.compile(r"[aeiouy]+")
SENTENCE_ENDS = re.compile(r"[.!?]+(?=\s|$)")
STYLE_MARKS = {  # marks of a style; every occurrence counts
    "warm": re.compile(
        r"!|\?|\b(?:lovely|happy|happily|sweet|treat|treated|love|enjoy|dream|perfect|hello|just right)\b"
    ),
    "terse": re.compile(r":|;|\b(?:Bought|Ordered|Price|Cost|Suggested|Consider)\b"),
}


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Distinct-n: the different n-grams of words over all n-grams; 1 if none occurs twice. Li et al. (2016)."""
    counts = Counter(gram for text in texts for gram in _grams(_words(text), n))
    return len(counts) / counts.total() if counts else 0.0


def self_bleu(texts: Sequence[str], n: int = 4) -> float:
    """The mean BLEU of each text with all others as its references: 1 if all are alike. Zhu et al. (2018).

    BLEU as Papineni et al. (2002) have it, for single sentences, without smoothing: the geometric mean of the clipped
    precisions of 1- to n-grams, times the brevity penalty against the nearest length. ValueError for fewer than two.
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts: each is compared with the others, so give two or more")
    words = [_words(text) for text in texts]
    counts = [[Counter(_grams(each, size)) for size in range(1, n + 1)] for each in words]
    most = [_two_largest([count[size] for count in counts]) for size in range(n)]
    lengths = Counter(map(len, words))
    return float(np.mean([_bleu(len(each), count, most, lengths) for each, count in zip(words, counts, strict=True)]))


def _two_largest(counts: list[Counter]) -> dict[tuple, tuple[int, int]]:
    """By n-gram the largest and the second largest count in a text: one of them is the largest without a given text."""
    most: dict[tuple, tuple[int, int]] = {}
    for count in counts:
        for gram, times in count.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (times, first) if times > first else (first, max(second, times))
    return most


def _bleu(length: int, counts: list[Counter], most: list[dict], lengths: Counter) -> float:
    """BLEU of one text against the others; `most` and `lengths` are of all texts, its own included."""
    total = 0.0
    for count, (size, best) in zip(counts, enumerate(most), strict=True):
        clipped = 0
        for gram, times in count.items():
            first, second = best[gram]
            clipped += min(times, second if times == first else first)
        if not clipped:
            return 0.0
        total += log(clipped / max(length - size, 1))
    others = lengths - Counter([length])
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return exp(total / len(counts)) * (1.0 if length >= nearest else exp(1 - nearest / length))


def reading_ease(text: str) -> float:
    """Flesch's reading ease: about 60 plain English, 90 very easy, 30 hard. Flesch (1948).

    206.835 - 1.015 words per sentence - 84.6 syllables per word; a syllable is a run of vowels, a silent e is none.
    """
    words, sentences = _words(text), max(1, len(SENTENCE_ENDS.findall(text)))
    if not words:
        raise ValueError("there are no words in the text")
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


def syllables(word: str) -> int:
    """Runs of vowels; an e at the end is silent unless it is the only one or follows an l after a consonant."""
    small = word.lower()
    count = len(VOWEL_RUNS.findall(small))
    if count > 1 and re.search(r"[^aeiouy]e$", small) and not re.search(r"[^aeiouy]le$", small):
        count -= 1
    return max(count, 1)


def style_of_text(text: str) -> str:
    """The style with more STYLE_MARKS in a text; terse in a tie, since a warm text has to show it."""
    return max(("terse", "warm"), key=lambda style: len(STYLE_MARKS[style].findall(text)))


JUDGE_QUESTION = (
    "How well does this product recommendation read, from 1 (badly) to 10 (very well)? Answer with the number.\n\n"
)


def judge_texts(texts: Sequence[str], complete: Callable[[str], str]) -> np.ndarray:
    """Marks from 1 to 10 that a language model gives each text, (texts,); NaN where its answer contains none.

    `complete` sends a prompt to a model and returns its answer. The model is asked how a text reads, not whether it is
    true.
    """
    answers = [re.search(r"\b(?:10|[1-9])\b", complete(JUDGE_QUESTION + text)) for text in texts]
    return np.array([float(answer[0]) if answer else np.nan for answer in answers])


def text_lengths(texts: Sequence[str]) -> np.ndarray:
    """Words of each text, (texts,)."""
    return np.array([len(_words(text)) for text in texts])


def _words(text: str) -> list[str]:
    return TEXT_WORDS.findall(text.lower())


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
