"""Checks of Chapter 8: temperature, top-k, top-p, the repetition penalty, a trie, beam search."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - np.max(logits))
    return raised / raised.sum()


# 8.1: temperature


def with_temperature(logits, temperature):
    """The probabilities that a temperature makes of logits, (V,) -> (V,)."""
    return _softmax(logits / temperature)


def _multiplied(logits, temperature):
    return _softmax(logits * temperature)


def _after_the_softmax(logits, temperature):
    return _softmax(logits) / temperature


def _powers_without_a_sum(logits, temperature):
    return _softmax(logits) ** (1 / temperature)


_LOGITS = np.array([1.2, -0.4, 3.0, 0.1, 2.9])


# 8.2: top-k


def top_k(probabilities, k):
    """The probabilities after all but the k largest are gone, (V,) -> (V,), sum one."""
    kept = np.zeros_like(probabilities)
    best = np.argsort(-probabilities, kind="stable")[:k]
    kept[best] = probabilities[best]
    return kept / kept.sum()


def _top_k_not_renormalised(probabilities, k):
    return top_k(probabilities, k) * np.sort(probabilities)[::-1][:k].sum()


def _bottom_k(probabilities, k):
    kept = np.zeros_like(probabilities)
    worst = np.argsort(probabilities, kind="stable")[:k]
    kept[worst] = probabilities[worst]
    return kept / kept.sum()


def _shortened(probabilities, k):
    best = np.sort(probabilities)[::-1][:k]
    return best / best.sum()


_CHANCES = np.array([0.05, 0.4, 0.1, 0.3, 0.15])


# 8.3: top-p


def nucleus(probabilities, p):
    """The tokens of the nucleus, most likely first: the fewest whose probabilities reach p."""
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    return order[before < p].tolist()


def _without_the_one_that_crosses(probabilities, p):
    order = np.argsort(-probabilities, kind="stable")
    return order[np.cumsum(probabilities[order]) <= p].tolist()


def _each_above_p(probabilities, p):
    order = np.argsort(-probabilities, kind="stable")
    return [token for token in order.tolist() if probabilities[token] >= 1 - p]


def _from_the_least_likely(probabilities, p):
    order = np.argsort(probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    return order[before < p].tolist()


# 8.4: the repetition penalty


def penalised(logits, text, penalty):
    """Logits (V,) with those of the tokens in `text` made smaller, each once."""
    logits = logits.copy()
    for token in set(text):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    return logits


def _always_divided(logits, text, penalty):
    logits = logits.copy()
    for token in set(text):
        logits[token] /= penalty
    return logits


def _once_an_occurrence(logits, text, penalty):
    logits = logits.copy()
    for token in text:
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    return logits


def _subtracted(logits, text, penalty):
    logits = logits.copy()
    logits[list(set(text))] -= penalty
    return logits


# 8.5: what a trie allows


def allowed_next(sequences, text, end):
    """The tokens that may follow `text` if only `sequences`, each closed by `end`, are possible: sorted."""
    closed = [[*sequence, end] for sequence in sequences]
    return sorted({s[len(text)] for s in closed if s[: len(text)] == text and len(s) > len(text)})


def _never_ends(sequences, text, end):
    return sorted({s[len(text)] for s in sequences if s[: len(text)] == text and len(s) > len(text)})


def _ends_only_at_leaves(sequences, text, end):
    return _never_ends(sequences, text, end) or ([end] if text in sequences else [])


def _any_at_this_place(sequences, text, end):
    closed = [[*sequence, end] for sequence in sequences]
    return sorted({s[len(text)] for s in closed if len(s) > len(text)})


_SEQUENCES = [[7, 1], [7, 1, 4], [7, 2], [3, 1, 5]]


# 8.6: beam search


def beam_search(log_probabilities, start, steps, width):
    """The most likely `steps` tokens after `start` that a beam of `width` finds; row i says what follows token i."""
    beams = [(0.0, [start])]
    for _ in range(steps):
        longer = [
            (score + log_probabilities[text[-1], token], [*text, token])
            for score, text in beams
            for token in range(log_probabilities.shape[1])
        ]
        beams = sorted(longer, key=lambda beam: -beam[0])[:width]
    return beams[0][1][1:]


def _width_one(log_probabilities, start, steps, width):
    return beam_search(log_probabilities, start, steps, 1)


def _with_the_start(log_probabilities, start, steps, width):
    return [start, *beam_search(log_probabilities, start, steps, width)]


def _last_step_only(log_probabilities, start, steps, width):
    beams = [(0.0, [start])]
    for _ in range(steps):
        longer = [
            (log_probabilities[text[-1], token], [*text, token])
            for _, text in beams
            for token in range(log_probabilities.shape[1])
        ]
        beams = sorted(longer, key=lambda beam: -beam[0])[:width]
    return beams[0][1][1:]


def _follows(rows: list[list[float]]) -> np.ndarray:
    return np.log(np.array(rows))


# From 0 the likelier token 1 leads to a choice among equals, the other to a certainty: .55 * .34 < .45 * .97.
_TRAP = _follows([[0.01, 0.54, 0.45], [0.33, 0.34, 0.33], [0.01, 0.02, 0.97]])
_MADE = np.log(np.random.default_rng(5).dirichlet(np.full(6, 0.4), 6) + 1e-4)

EXERCISES = [
    Exercise(
        "8.1",
        with_temperature,
        [(_LOGITS, 0.5), (_LOGITS, 2.0), (np.array([800.0, 801.0, 790.0]), 0.7)],
        [
            Mistake(_multiplied, "a low temperature must sharpen: divide the logits by it, do not multiply."),
            Mistake(_after_the_softmax, "divide the logits, before the softmax: these no longer sum to one."),
            Mistake(_powers_without_a_sum, "powers of probabilities are right, but must be made to sum to one again."),
        ],
    ),
    Exercise(
        "8.2",
        top_k,
        [(_CHANCES, 2), (_CHANCES, 5), (_softmax(_LOGITS), 1)],
        [
            Mistake(_top_k_not_renormalised, "what is left must sum to one again: divide by its sum."),
            Mistake(_bottom_k, "these are the least likely: sort from the largest down."),
            Mistake(_shortened, "every token keeps its place: the answer is as long as the vocabulary, with zeros."),
        ],
    ),
    Exercise(
        "8.3",
        nucleus,
        [(_CHANCES, 0.75), (_CHANCES, 0.35), (_CHANCES, 0.96)],
        [
            Mistake(_without_the_one_that_crosses, "the token that carries the sum to p belongs to the nucleus."),
            Mistake(_each_above_p, "p is compared with the sum of the probabilities so far, not with each of them."),
            Mistake(_from_the_least_likely, "begin with the most likely token, not with the least likely."),
        ],
    ),
    Exercise(
        "8.4",
        penalised,
        [(_LOGITS, [2, 1, 2], 1.5), (_LOGITS, [], 1.5), (-_LOGITS, [0, 0, 0, 3, 2], 2.0)],
        [
            Mistake(_always_divided, "dividing a negative logit raises it: multiply those."),
            Mistake(_once_an_occurrence, "a token is punished once, however often it stands in the text."),
            Mistake(_subtracted, "this penalty scales the logits; it subtracts nothing."),
        ],
    ),
    Exercise(
        "8.5",
        allowed_next,
        [(_SEQUENCES, [], 0), (_SEQUENCES, [7, 1], 0), (_SEQUENCES, [7, 2], 0), (_SEQUENCES, [3, 2], 0)],
        [
            Mistake(_never_ends, "where a sequence is complete, `end` is allowed, or nothing could ever be finished."),
            Mistake(_ends_only_at_leaves, "`7 1` is complete although `7 1 4` goes on: there both are allowed."),
            Mistake(_any_at_this_place, "only sequences that begin with the text count: compare all of it."),
        ],
    ),
    Exercise(
        "8.6",
        beam_search,
        [(_TRAP, 0, 2, 2), (_MADE, 0, 5, 3), (_MADE, 2, 4, 8), (_MADE, 1, 6, 2)],
        [
            Mistake(_width_one, "that is the greedy text: `width` beams must survive each step."),
            Mistake(_with_the_start, "the answer holds the tokens after `start`, not `start` itself."),
            Mistake(_last_step_only, "a beam's score is the sum over all its steps, not its last step alone."),
        ],
    ),
]
