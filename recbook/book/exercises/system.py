"""Checks of Chapter 22: filter then cut, tail latency, a damaged folder, the Pareto front, the feedback loop."""

import hashlib

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 22.1: filter, then cut


def first_allowed(ranked, prices, price_max, left_out, k):
    """The first k of the ranked products that are cheap enough and not left out."""
    allowed = [code for code in ranked if prices[code] <= price_max and code not in left_out]
    return allowed[:k]


def _cut_first(ranked, prices, price_max, left_out, k):
    return first_allowed(ranked[:k], prices, price_max, left_out, k)


def _price_only(ranked, prices, price_max, left_out, k):
    return first_allowed(ranked, prices, price_max, [], k)


def _strictly_below(ranked, prices, price_max, left_out, k):
    return [code for code in ranked if prices[code] < price_max and code not in left_out][:k]


def _sorted_by_price(ranked, prices, price_max, left_out, k):
    return first_allowed(sorted(ranked, key=lambda code: prices[code]), prices, price_max, left_out, k)


# 22.2: tail latency


def within(times, share):
    """The least time within which at least that share of the answers came: a quantile."""
    ordered = sorted(times)
    return ordered[max(0, int(np.ceil(round(share * len(ordered), 9))) - 1)]


def _interpolated(times, share):
    return float(np.quantile(times, share))


def _rounded_down(times, share):
    return sorted(times)[max(0, int(share * len(times)) - 1)]


def _unsorted(times, share):
    return times[max(0, int(np.ceil(round(share * len(times), 9))) - 1)]


def _off_by_one(times, share):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(np.ceil(round(share * len(ordered), 9))))]


# 22.3: a damaged folder


def damaged(manifest, files):
    """The sorted names of files that are missing or differ from the manifest."""
    return sorted(
        name for name, said in manifest.items() if name not in files or hashlib.sha256(files[name]).hexdigest() != said
    )


def _missing_ignored(manifest, files):
    return sorted(name for name, said in manifest.items() if hashlib.sha256(files.get(name, b"")).hexdigest() != said
                  and name in files)  # fmt: skip


def _unlisted_included(manifest, files):
    return sorted({*damaged(manifest, files), *(set(files) - set(manifest))})


def _only_missing(manifest, files):
    return sorted(name for name in manifest if name not in files)


def _undamaged(manifest, files):
    return sorted(set(manifest) - set(damaged(manifest, files)))


# 22.4: the Pareto front


def worth_it(methods):
    """The methods that no other dominates, fastest first: as fast and as good, and better in one of the two."""
    kept = []
    for name, (ms, quality) in methods.items():
        others = [other for key, other in methods.items() if key != name]
        if not any(o[0] <= ms and o[1] >= quality and o != (ms, quality) for o in others):
            kept.append(name)
    return sorted(kept, key=lambda name: (methods[name][0], name))


def _better_in_both(methods):
    """Leaves out only what another method beats in both."""
    kept = [
        name
        for name, (ms, quality) in methods.items()
        if not any(o[0] < ms and o[1] > quality for o in methods.values())
    ]
    return sorted(kept, key=lambda name: (methods[name][0], name))


def _best_first(methods):
    return sorted(worth_it(methods), key=lambda name: (-methods[name][1], name))


def _only_the_best(methods):
    return [max(methods, key=lambda name: methods[name][1])]


def _lower_quality_preferred(methods):
    return worth_it({name: (ms, -quality) for name, (ms, quality) in methods.items()})


# 22.5: the feedback loop


def looped(sold, shown, rounds, bought):
    """Shares of sales after rounds that show the best sellers; each product shown is bought `bought` times."""
    sold = list(sold)
    for _ in range(rounds):
        best = sorted(range(len(sold)), key=lambda product: (-sold[product], product))[:shown]
        for product in best:
            sold[product] += bought
    return [count / sum(sold) for count in sold]


def _least_sold(sold, shown, rounds, bought):
    """Shows the worst sellers."""
    best = sorted(range(len(sold)), key=lambda product: (sold[product], product))[:shown]
    sold = [count + bought * rounds * (product in best) for product, count in enumerate(sold)]
    return [count / sum(sold) for count in sold]


def _counts(sold, shown, rounds, bought):
    total = sum(sold) + shown * rounds * bought
    return [share * total for share in looped(sold, shown, rounds, bought)]


def _one_round(sold, shown, rounds, bought):
    return looped(sold, shown, 1, bought)


def _divided_by_first_total(sold, shown, rounds, bought):
    return [count / sum(sold) for count in _counts(sold, shown, rounds, bought)]


FILES = {"model.json": b"{}", "model.safetensors": b"weights", "receipts.parquet": b"lines"}
MANIFEST = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}

EXERCISES = [
    Exercise(
        "22.1",
        first_allowed,
        [
            (["a", "b", "c", "d"], {"a": 9.0, "b": 2.0, "c": 5.0, "d": 4.0}, 5.0, ["b"], 2),
            (["a", "b", "c"], {"a": 1.0, "b": 2.0, "c": 3.0}, 10.0, [], 2),
            (["a", "b"], {"a": 7.0, "b": 8.0}, 5.0, [], 3),
            (["c", "a", "b"], {"a": 1.0, "b": 2.0, "c": 3.0}, 3.0, ["a"], 5),
        ],
        [
            Mistake(_cut_first, "that cuts first and filters then: the list comes out short. Filter, then cut."),
            Mistake(_price_only, "what is left out must not come back: look at both conditions."),
            Mistake(_strictly_below, "a product that costs exactly the limit is within it."),
            Mistake(_sorted_by_price, "the order is the ranking's: the cheapest is not the best."),
        ],
    ),
    Exercise(
        "22.2",
        within,
        [
            ([30.0, 10.0, 20.0, 40.0], 0.5),
            ([5.0, 9.0, 7.0], 0.9),
            ([float(n) for n in range(100, 0, -1)], 0.99),
            ([12.0], 0.5),
            ([3.0, 1.0, 2.0, 5.0, 4.0], 1.0),
        ],
        [
            Mistake(_interpolated, "that lies between two answers: give a time that some answer really took."),
            Mistake(_rounded_down, "too few answers came within that time: round the number of them up."),
            Mistake(_unsorted, "sort the times first: the answers came in any order."),
            Mistake(_off_by_one, "that is one answer too far: the places of a list count from zero."),
        ],
    ),
    Exercise(
        "22.3",
        damaged,
        [
            (MANIFEST, FILES),
            (MANIFEST, FILES | {"model.json": b"{ }"}),
            (MANIFEST, {"model.json": b"{}"}),
            (MANIFEST, FILES | {"notes.txt": b"mine", "model.safetensors": b""}),
        ],
        [
            Mistake(_missing_ignored, "a file that is missing is damaged, too."),
            Mistake(_unlisted_included, "a file that the manifest does not name is none of its business."),
            Mistake(_only_missing, "a file can be there and hold something else: compare its hash."),
            Mistake(_undamaged, "those are the whole ones: the others are asked for."),
        ],
    ),
    Exercise(
        "22.4",
        worth_it,
        [
            ({"count": (0.1, 0.30), "trees": (20.0, 0.33), "slow": (90.0, 0.31), "GPT": (8.0, 0.34)},),
            ({"a": (1.0, 0.2), "b": (1.0, 0.3), "c": (2.0, 0.3)},),
            ({"a": (5.0, 0.5), "b": (1.0, 0.1), "c": (3.0, 0.3)},),
            ({"twin": (2.0, 0.3), "other twin": (2.0, 0.3)},),
        ],
        [
            Mistake(
                _better_in_both,
                "a method that is as fast and worse is not worth it either: it need not be beaten in both.",
            ),
            Mistake(_best_first, "sort by the time, the fastest first."),
            Mistake(_only_the_best, "that is the best one: a worse one that is faster can be worth it, too."),
            Mistake(_lower_quality_preferred, "of the quality more is better, of the time less."),
        ],
    ),
    Exercise(
        "22.5",
        looped,
        [
            ([3, 2, 1], 1, 2, 1),
            ([5, 5, 4], 2, 10, 2),
            ([1, 1, 1, 1], 2, 3, 4),
            ([10, 1], 1, 0, 5),
        ],
        [
            Mistake(_least_sold, "the best sellers are those with the most sales, not the fewest."),
            Mistake(_counts, "those are counts: divide by all sales at the end."),
            Mistake(_one_round, "that is one round: the shop goes on as often as `rounds` says."),
            Mistake(_divided_by_first_total, "divide by the sales at the end, or the shares add up to more than one."),
        ],
    ),
]
