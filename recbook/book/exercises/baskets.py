"""Checks of Chapter 9: the loss of a set among what is on sale, counts that fade, what was on sale, deletion."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 9.1: the loss of a set among what is on sale


def loss_on_sale(logits, targets, on_sale):
    """Mean nats of the targets that are on sale, under one softmax over what is on sale."""
    log_probabilities = logits - np.logaddexp.reduce(logits[on_sale])
    return -np.mean([log_probabilities[target] for target in targets if on_sale[target]])


def _over_the_whole_catalogue(logits, targets, on_sale):
    log_probabilities = logits - np.logaddexp.reduce(logits)
    return -np.mean([log_probabilities[target] for target in targets if on_sale[target]])


def _summed(logits, targets, on_sale):
    return loss_on_sale(logits, targets, on_sale) * sum(on_sale[target] for target in targets)


def _with_what_is_not_on_sale(logits, targets, on_sale):
    log_probabilities = logits - np.logaddexp.reduce(logits[on_sale])
    return -np.mean([log_probabilities[target] for target in targets])


def _divided_by_the_whole_basket(logits, targets, on_sale):
    return loss_on_sale(logits, targets, on_sale) * np.mean([on_sale[target] for target in targets])


def _one_softmax_a_product(logits, targets, on_sale):
    return np.mean([np.logaddexp(0, -logits[target]) for target in targets if on_sale[target]])


_LOGITS = np.array([2.0, 0.5, 0.0, 1.0, -1.0, 3.0])
_ALL = np.ones(6, bool)
_SOME = np.array([True, True, False, True, True, False])

# 9.2: counts that fade


def decayed_counts(baskets, days, day, half_life, products):
    """How often each product was bought before a day, each purchase halved every half-life: (products,)."""
    counts = np.zeros(products)
    for basket, bought in zip(baskets, days, strict=True):
        for product in basket:
            counts[product] += 0.5 ** ((day - bought) / half_life) if bought < day else 0
    return counts


def _with_the_future(baskets, days, day, half_life, products):
    counts = np.zeros(products)
    for basket, bought in zip(baskets, days, strict=True):
        for product in basket:
            counts[product] += 0.5 ** ((day - bought) / half_life)
    return counts


def _with_that_day(baskets, days, day, half_life, products):
    """As of just after the day."""
    earlier = [basket if bought != day else [] for basket, bought in zip(baskets, days, strict=True)]
    counts = decayed_counts(earlier, days, day, half_life, products)
    for basket, bought in zip(baskets, days, strict=True):
        counts[basket if bought == day else []] += 1
    return counts


def _e_instead_of_two(baskets, days, day, half_life, products):
    return decayed_counts(baskets, days, day, half_life * np.log(2), products)


def _only_the_last_time(baskets, days, day, half_life, products):
    counts = np.zeros(products)
    for basket, bought in zip(baskets, days, strict=True):
        if bought < day:
            counts[basket] = 0.5 ** ((day - bought) / half_life)
    return counts


_BASKETS, _DAYS = [[0, 2], [2], [2, 4, 1], [0, 3]], [3.0, 17.5, 31.0, 44.0]

# 9.3: what was on sale


def on_sale_by(shopper, product, day, today, least):
    """The products that at least so many different shoppers had bought before today, sorted."""
    known = day < today
    pairs = np.unique(np.stack([product[known], shopper[known]]), axis=1)
    found, buyers = np.unique(pairs[0], return_counts=True)
    return found[buyers >= least].tolist()


def _lines_instead_of_shoppers(shopper, product, day, today, least):
    found, lines = np.unique(product[day < today], return_counts=True)
    return found[lines >= least].tolist()


def _as_known_in_the_end(shopper, product, day, today, least):
    return on_sale_by(shopper, product, day, np.inf, least)


def _today_as_well(shopper, product, day, today, least):
    return on_sale_by(shopper, product, day, np.nextafter(today, np.inf), least)


def _more_than_least(shopper, product, day, today, least):
    return on_sale_by(shopper, product, day, today, least + 1)


_SHOPPER = np.array([1, 1, 2, 3, 3, 4, 2, 1, 4, 5])
_PRODUCT = np.array([7, 7, 7, 7, 5, 5, 9, 9, 9, 3])
_DAY = np.array([1.0, 2.0, 4.0, 8.0, 3.0, 6.0, 9.5, 6.0, 5.0, 7.0])

# 9.4: deletion


def effects(score, history):
    """Of each distinct product: the score with it less the score without it; baskets stay where they are."""
    whole = score(history)
    products = {product for basket in history for product in basket}
    return {gone: whole - score([[p for p in basket if p != gone] for basket in history]) for gone in products}


def _turned_round(score, history):
    return {product: -effect for product, effect in effects(score, history).items()}


def _what_is_left(score, history):
    return {product: score(history) - effect for product, effect in effects(score, history).items()}


def _one_purchase_only(score, history):
    """Takes each product out of the last basket that holds it."""
    found = {}
    for place, basket in enumerate(history):
        for gone in basket:
            left = [[p for p in b if p != gone or n != place] for n, b in enumerate(history)]
            found[gone] = score(history) - score(left)
    return found


def _empty_baskets_dropped(score, history):
    def full(baskets):
        return score([basket for basket in baskets if basket])

    return {gone: score(history) - full([[p for p in b if p != gone] for b in history]) for b in history for gone in b}


def _alone(score, history):
    """What a product says by itself, and not what is missing without it."""
    return {gone: score([[p for p in b if p == gone] for b in history]) for b in history for gone in b}


def _recent(history):
    """A score that likes teapots and cups, the later the better, and is tired by long histories."""
    liked = {"teapot": 1.0, "cup": 0.6, "lamp": -0.3}
    fades = (0.5 ** (len(history) - place) for place in range(len(history)))
    return sum(fade * sum(liked.get(p, 0.0) for p in b) for fade, b in zip(fades, history, strict=True))


def _either(history):
    """A score that a teapot or a cup lifts, and both together no further."""
    return float(any(p in ("teapot", "cup") for basket in history for p in basket)) + 0.1 * len(history)


_HISTORY = [["teapot", "bag"], ["lamp"], ["teapot", "cup"], ["bag"]]

EXERCISES = [
    Exercise(
        "9.1",
        loss_on_sale,
        [(_LOGITS, [0, 3], _ALL), (_LOGITS, [0, 1, 5], _SOME), (_LOGITS * 400, [4, 2, 3], _SOME)],
        [
            Mistake(_over_the_whole_catalogue, "what is not on sale must not share in the probability either."),
            Mistake(_summed, "take the mean, or large baskets count for more than small ones."),
            Mistake(_with_what_is_not_on_sale, "leave out targets that are not on sale: nobody could rank them."),
            Mistake(_divided_by_the_whole_basket, "the mean is over the targets that are on sale, not over all."),
            Mistake(_one_softmax_a_product, "one softmax over products, not one yes or no for each of them."),
        ],
    ),
    Exercise(
        "9.2",
        decayed_counts,
        [
            (_BASKETS, _DAYS, 60.0, 15.0, 6),
            (_BASKETS, _DAYS, 40.0, 45.0, 5),
            (_BASKETS, _DAYS, 31.0, 15.0, 5),
            ([], [], 5.0, 15.0, 3),
        ],
        [
            Mistake(_with_the_future, "only what was bought before `day` is known: the rest would even grow."),
            Mistake(_with_that_day, "what is bought on `day` itself is the answer: leave it out."),
            Mistake(_e_instead_of_two, "after one half-life a purchase weighs a half: powers of 0.5, not of e."),
            Mistake(_only_the_last_time, "add up all purchases of a product: the last one alone is no count."),
        ],
    ),
    Exercise(
        "9.3",
        on_sale_by,
        [
            (_SHOPPER, _PRODUCT, _DAY, 6.0, 2),
            (_SHOPPER, _PRODUCT, _DAY, 7.0, 2),
            (_SHOPPER, _PRODUCT, _DAY, 8.0, 3),
            (_SHOPPER, _PRODUCT, _DAY, 20.0, 3),
            (_SHOPPER, _PRODUCT, _DAY, 1.0, 1),
        ],
        [
            Mistake(_lines_instead_of_shoppers, "a shopper who buys it twice is one shopper: count different ones."),
            Mistake(_as_known_in_the_end, "nobody knows `today` who buys it later: only lines before `today`."),
            Mistake(_today_as_well, "a line of `today` itself comes too late: strictly before."),
            Mistake(_more_than_least, "`least` shoppers are enough: at least, not more than."),
        ],
    ),
    Exercise(
        "9.4",
        effects,
        [(_recent, _HISTORY), (_either, _HISTORY), (_recent, []), (_either, [["teapot"], ["bag"]])],
        [
            Mistake(_turned_round, "what helps has a positive effect: with it less without it."),
            Mistake(_what_is_left, "that is the score without the product; the effect is what it adds."),
            Mistake(_one_purchase_only, "take out every purchase of the product, not one of them."),
            Mistake(_empty_baskets_dropped, "a basket that ends up empty stays, or the others seem to move in time."),
            Mistake(_alone, "leave the others in and take this product out; you took out the others."),
        ],
    ),
]
