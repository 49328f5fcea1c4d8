"""Checks of chapter 12: round-robin interleaving, ΔNDCG of a swap, shrinkage, lift, an order-invariant mask."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 12.1: round-robin interleaving


def interleaved(channels, n):
    """The first n distinct products, by round-robin over the channels."""
    taken = []
    for turn in range(max(map(len, channels), default=0)):
        for channel in channels:
            if turn < len(channel) and channel[turn] not in taken:
                taken.append(channel[turn])
    return taken[:n]


def _one_after_the_other(channels, n):
    return list(dict.fromkeys(code for channel in channels for code in channel))[:n]


def _with_repeats(channels, n):
    turns = range(max(map(len, channels), default=0))
    return [channel[turn] for turn in turns for channel in channels if turn < len(channel)][:n]


def _shortest_ends_it(channels, n):
    turns = zip(*channels, strict=False)
    return list(dict.fromkeys(code for turn in turns for code in turn))[:n]


# 12.2: ΔNDCG of a swap


def delta_ndcg(hits, i, j):
    """The absolute change of NDCG when the products at places i and j change places."""
    discount = 1 / np.log2(np.arange(len(hits)) + 2)
    ideal = discount[: sum(hits)].sum()
    return float(abs((hits[i] - hits[j]) * (discount[i] - discount[j])) / ideal)


def _not_ideal(hits, i, j):
    discount = 1 / np.log2(np.arange(len(hits)) + 2)
    return float(abs((hits[i] - hits[j]) * (discount[i] - discount[j])))


def _over_all_places(hits, i, j):
    discount = 1 / np.log2(np.arange(len(hits)) + 2)
    return float(abs((hits[i] - hits[j]) * (discount[i] - discount[j])) / discount.sum())


def _places_from_one_too_late(hits, i, j):
    discount = 1 / np.log2(np.arange(len(hits)) + 3)
    return float(abs((hits[i] - hits[j]) * (discount[i] - discount[j])) / discount[: sum(hits)].sum())


# 12.3: shrinkage


def shrunk(theirs, whole, prior):
    """A country's shares, with `prior` lines added that are spread as the whole shop's."""
    theirs, whole = np.asarray(theirs, float), np.asarray(whole, float)
    return (theirs + prior * whole) / (theirs.sum() + prior)


def _shares_averaged(theirs, whole, prior):
    theirs, whole = np.asarray(theirs, float), np.asarray(whole, float)
    return (theirs / max(theirs.sum(), 1) + whole) / 2


def _same_for_every_product(theirs, whole, prior):
    theirs = np.asarray(theirs, float)
    return (theirs + prior / len(theirs)) / (theirs.sum() + prior)


def _not_shares(theirs, whole, prior):
    return np.asarray(theirs, float) + prior * np.asarray(whole, float)


# 12.4: lift


def lift(both, first, second, baskets, prior):
    """The log of observed over expected baskets, `prior` added to each."""
    return float(np.log((both + prior) / (first * second / baskets + prior)))


def _share_of_the_first(both, first, second, baskets, prior):
    return float(np.log((both + prior) / (first + prior)))


def _without_the_prior(both, first, second, baskets, prior):
    return float(np.log(max(both, 1e-9) / (first * second / baskets)))


def _baskets_forgotten(both, first, second, baskets, prior):
    return float(np.log((both + prior) / (first * second + prior)))


def _no_logarithm(both, first, second, baskets, prior):
    return float((both + prior) / (first * second / baskets + prior))


# 12.5: the mask of the order-invariant prompt


def invariant_mask(prefix, lengths):
    """The attention mask, (T, T) bool: the prefix, candidate blocks, and one closing position that sees all."""
    block = np.repeat(np.arange(len(lengths) + 2), [prefix, *lengths, 1])
    before = np.tri(len(block), dtype=bool)
    closing = block == len(lengths) + 1
    return before & ((block[:, None] == block) | (block == 0) | closing[:, None])


def _plain(prefix, lengths):
    return np.tri(prefix + sum(lengths) + 1, dtype=bool)


def _prefix_unseen(prefix, lengths):
    block = np.repeat(np.arange(len(lengths) + 2), [prefix, *lengths, 1])
    closing = block == len(lengths) + 1
    return np.tri(len(block), dtype=bool) & ((block[:, None] == block) | closing[:, None])


def _looks_ahead(prefix, lengths):
    block = np.repeat(np.arange(len(lengths) + 2), [prefix, *lengths, 1])
    closing = block == len(lengths) + 1
    return (block[:, None] == block) | (block == 0) | closing[:, None]


def _closing_sees_the_prefix_alone(prefix, lengths):
    block = np.repeat(np.arange(len(lengths) + 2), [prefix, *lengths, 1])
    return np.tri(len(block), dtype=bool) & ((block[:, None] == block) | (block == 0))


EXERCISES = [
    Exercise(
        "12.1",
        interleaved,
        [
            ([["a", "b", "c"], ["b", "d", "e"]], 4),
            ([["a"], ["b", "c", "d"], ["d", "e"]], 5),
            ([["x", "y"]], 10),
            ([["a", "b"], []], 2),
        ],
        [
            Mistake(
                _one_after_the_other,
                "you empty the first channel before you look at the second: take the first of each, then the second.",
            ),
            Mistake(_with_repeats, "a product that two channels found stands twice: take each once."),
            Mistake(_shortest_ends_it, "you stop when the shortest channel is empty: the others go on."),
        ],
    ),
    Exercise(
        "12.2",
        delta_ndcg,
        [
            ([0, 1, 0, 0, 1], 0, 1),
            ([1, 0, 0, 1, 0, 1], 1, 5),
            ([1, 1, 0], 0, 1),
            ([0, 0, 1], 2, 0),
        ],
        [
            Mistake(_not_ideal, "that is the change of the gain; NDCG divides it by the gain of the best list."),
            Mistake(_over_all_places, "the best list has as many hits as there are: sum only so many discounts."),
            Mistake(_places_from_one_too_late, "the first place has the discount 1 / log2(2), which is one."),
        ],
    ),
    Exercise(
        "12.3",
        shrunk,
        [
            ([8, 2, 0], [0.2, 0.3, 0.5], 10.0),
            ([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], 300.0),
            ([500, 100, 400], [0.5, 0.4, 0.1], 50.0),
        ],
        [
            Mistake(
                _shares_averaged,
                "half and half, however many lines there are: few must count less than many. Add lines, then divide.",
            ),
            Mistake(
                _same_for_every_product, "you added the same to every product: add the whole shop's shares times prior."
            ),
            Mistake(_not_shares, "these do not add up to one: divide by their sum."),
        ],
    ),
    Exercise(
        "12.4",
        lift,
        [
            (12, 40, 60, 1000, 20.0),
            (0, 5, 8, 500, 20.0),
            (30, 30, 30, 90, 1.0),
        ],
        [
            Mistake(
                _share_of_the_first,
                "that is how many baskets with the first hold the second: a product in every basket would always win.",
            ),
            Mistake(
                _without_the_prior,
                "the prior is missing: a pair that never met would have minus infinity, one that met once a huge lift.",
            ),
            Mistake(
                _baskets_forgotten, "by chance first · second / baskets hold both: divide by the number of baskets."
            ),
            Mistake(_no_logarithm, "take the logarithm of the ratio: zero is then what chance gives."),
        ],
    ),
    Exercise(
        "12.5",
        invariant_mask,
        [
            (2, [1, 2]),
            (3, [2, 2, 2]),
            (1, [1]),
            (4, [3, 1, 2, 1]),
        ],
        [
            Mistake(_plain, "a candidate sees those before it, so its place tells: let it see the prefix and itself."),
            Mistake(_prefix_unseen, "candidates do not see the prefix: nobody would know whose candidates they are."),
            Mistake(_looks_ahead, "some positions look ahead: within the prefix and a block, only back."),
            Mistake(_closing_sees_the_prefix_alone, "the closing position must see every candidate."),
        ],
    ),
]
