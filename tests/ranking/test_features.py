"""Features: columns recounted from the receipts, the same online as offline, blind to what comes after the cut."""

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from recbook.baselines import evaluation
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import (  # noqa: E402
    COUNTED_FEATURES,
    FEATURE_NAMES,
    GPT_FEATURES,
    NEAREST_SHOPPERS,
    STEADY_FEATURES,
    UNDATED_L2,
    CandidateFeatures,
)
from recbook.ranking.rankers import Shopper

DAY, ORIGIN = pd.Timedelta(days=1), pd.Timestamp("2011-01-01")
CODES = np.array([f"{20001 + 7 * n}" for n in range(24)])
CUT = ORIGIN + 120 * DAY


def encode(texts: list[str]) -> np.ndarray:
    """A unit vector a text, drawn by its length and last letters: quick, and the same each time."""
    vectors = np.array([np.random.default_rng(int(text[-3:])).normal(0, 1, 8) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made_up(seed: int = 0, shoppers: int = 40, days: int = 160) -> pd.DataFrame:
    """Receipts of shoppers who come every three weeks or so for two of three favourites and one thing more."""
    rng, rows = np.random.default_rng(seed), []
    for shopper in range(shoppers):
        day, favourites = rng.uniform(0, 30), rng.choice(24, 3, replace=False)
        while day < days:
            date = (ORIGIN + day * DAY).floor("min")
            basket = sorted({*rng.choice(favourites, 2, replace=False), int(24 * rng.random() ** 2)})
            rows += [(500 + shopper, f"{shopper}-{day:.3f}", CODES[n], date, 1.0 + n % 4) for n in basket]
            day += rng.uniform(10, 30)
    table = pd.DataFrame(rows, columns=["customer", "invoice", "code", "date", "price"])
    table["description"] = "thing " + table["code"]
    return table.sort_values("date", kind="stable", ignore_index=True)


class Oracle:
    """A stand-in for the BasketGPT: scores from how often the column was bought, in no time."""

    def __init__(self, codes: np.ndarray):
        self.catalogue = type("Catalogue", (), {"codes": codes})

    def score_log(self, log, rows: np.ndarray) -> np.ndarray:
        """(rows, N) float32, from the log alone."""
        counts = np.zeros((len(rows), log.products), np.float32)
        for place, row in enumerate(rows):
            np.add.at(counts[place], log.items[log.starts[log.first[row]] : log.starts[row]], 1)
        return counts - np.arange(log.products, dtype=np.float32) / 100


def features_of(receipts: pd.DataFrame) -> tuple[evaluation.Split, Snapshot, CandidateFeatures]:
    split = evaluation.next_basket(receipts, CUT, min_shoppers=3)
    snapshot = Snapshot(split, Oracle(split.codes), encode=encode)
    return split, snapshot, CandidateFeatures(snapshot, split)


@pytest.fixture(scope="module")
def shop():
    return features_of(made_up())


@pytest.fixture(scope="module")
def table(shop) -> np.ndarray:
    split, snapshot, made = shop
    requests = snapshot.offline(split)
    everything = np.tile(np.arange(len(split.codes)), (len(split.shoppers), 1))
    return made.table(requests, everything, snapshot.gpt(requests))


def column(table: np.ndarray, name: str) -> np.ndarray:
    return table[..., FEATURE_NAMES.index(name)]


def test_there_is_a_column_for_every_name(shop, table):
    split = shop[0]
    assert table.shape == (len(split.shoppers), len(split.codes), len(FEATURE_NAMES)) and table.dtype == np.float32
    assert (
        len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
        and FEATURE_NAMES[: len(COUNTED_FEATURES)] == COUNTED_FEATURES
        and FEATURE_NAMES[len(COUNTED_FEATURES) :] == GPT_FEATURES
    )


def test_steady_features_do_not_know_the_month():
    receipts = made_up()
    year = pd.Timedelta(days=364) // 2
    tables = []
    for lines in (receipts, receipts.assign(date=receipts["date"] + year)):
        split = evaluation.next_basket(lines, CUT + (lines["date"].min() - receipts["date"].min()), min_shoppers=3)
        snapshot = Snapshot(split, encode=encode)
        everything = np.tile(np.arange(len(split.codes)), (len(split.shoppers), 1))
        tables.append(CandidateFeatures(snapshot, split).table(snapshot.offline(split), everything))
    steady = [FEATURE_NAMES.index(name) for name in STEADY_FEATURES]
    assert np.array_equal(tables[0][..., steady], tables[1][..., steady], equal_nan=True)
    assert not np.array_equal(column(tables[0], "shopper: sine"), column(tables[1], "shopper: sine"))


def test_purchases_are_counted_as_in_the_receipts(shop, table):
    counts = shop[0].counts.toarray()
    bought = column(table, "bought: log count")
    assert (np.isnan(bought) == (counts == 0)).all()
    assert np.allclose(np.exp(bought[counts > 0]), counts[counts > 0])
    repeats = 1 - (counts > 0).sum(axis=1) / counts.sum(axis=1)
    assert np.allclose(column(table, "share of repeats"), repeats[:, None], atol=1e-6)


def test_sales_and_products_as_in_the_receipts(shop, table):
    split = shop[0]
    late = split.receipts[split.receipts["date"] >= split.cut - 28 * DAY]
    sold = late.groupby("code").size().reindex(split.codes, fill_value=0).to_numpy()
    assert np.allclose(column(table, "trend: 28 days")[0], np.log1p(sold) - np.log1p(sold).mean(), atol=0.01)  # float16
    for place in (0, 5, 11):
        of = split.receipts[split.receipts["code"] == split.codes[place]]
        times = of.groupby("customer")["invoice"].nunique()
        assert np.isclose(column(table, "log price")[0, place], np.log(of["price"].median()))
        assert np.isclose(column(table, "buyers who came back")[0, place], (times > 1).mean())
        assert np.isclose(column(table, "baskets of a buyer")[0, place], times.mean())
        assert np.isclose(column(table, "days unsold")[0, place], np.log1p((CUT - of["date"].max()) / DAY), atol=1e-5)


def test_ranks_follow_their_scores(table):
    for score, ranks in (("related: EASE", "rank by EASE"), ("blend", "rank by blend"), ("GPT", "rank by GPT")):
        order = np.argsort(-column(table, score), axis=1, kind="stable")
        places = np.take_along_axis(column(table, ranks), order, axis=1)
        assert np.allclose(places, np.log1p(np.arange(order.shape[1])))
    had = ~np.isnan(column(table, "bought: log count"))
    apart = column(table, "rank by GPT among bought or new")
    assert ((apart == 0).sum(axis=1) == 2).all()  # a first among what was bought and a first among what was not
    assert ((apart == 0) & had).any(axis=1).all() and ((apart == 0) & ~had).any(axis=1).all()


def test_the_blend_is_the_baseline_of_that_name(shop, table):
    from recbook.baselines.models import blend

    split = shop[0]
    expected, found = blend(split), column(table, "blend")
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(expected, found, strict=True)]
    assert min(alike) > 0.95  # sales are counted here, shoppers there


def test_neighbours_prices_and_texts_by_hand(shop, table):
    split, snapshot, _ = shop
    vectors = snapshot.shop_features.text
    price = np.log(split.receipts.groupby("code")["price"].median().reindex(split.codes).to_numpy())
    for row in (0, 9):
        own = np.flatnonzero(split.counts[row].toarray()[0])
        nearest = (vectors @ vectors[own].T).max(axis=1)
        assert np.allclose(column(table, "nearest text")[row], nearest, atol=1e-5)
        usual = np.abs(price - price[own].mean())
        assert np.allclose(column(table, "price against usual")[row], usual, atol=1e-5)


def test_user_based_neighbours_by_a_loop(shop, table):
    from recbook.baselines.models import recency

    split = shop[0]
    fresh = recency(split, np.sort(split.receipts["customer"].unique())).toarray()
    own = recency(split, split.shoppers).toarray()
    for row in (0, 12):
        cosine = fresh @ own[row] / np.linalg.norm(fresh, axis=1) / np.linalg.norm(own[row])
        others = [other for other in range(len(fresh)) if cosine[other] < 0.999]
        expected = sum(cosine[other] * fresh[other] for other in others)  # there are fewer than NEAREST_SHOPPERS
        assert len(others) == len(fresh) - 1 < NEAREST_SHOPPERS
        assert np.allclose(column(table, "shoppers alike")[row], expected, atol=1e-4)


def test_online_features_are_those_offline(shop, table):
    split, snapshot, made = shop
    for row in (0, 4, 17):
        own = split.receipts[split.receipts["customer"] == split.shoppers[row]]
        history = [(date, lines["code"].tolist()) for (date, _), lines in own.groupby(["date", "invoice"])]
        requests = snapshot.online([Shopper(history, CUT)])
        one = made.table(requests, np.arange(len(split.codes))[None], snapshot.gpt(requests))
        assert np.allclose(one[0], table[row], atol=1e-5, equal_nan=True)


def test_what_comes_after_the_cut_changes_nothing(shop, table):
    later = made_up(seed=3)
    later = later[later["date"] >= CUT].assign(invoice=lambda lines: "later " + lines["invoice"], price=99.0)
    split, snapshot, made = features_of(pd.concat([made_up(), later]))
    requests = snapshot.offline(split)
    everything = np.tile(np.arange(len(split.codes)), (len(split.shoppers), 1))
    again = made.table(requests, everything, snapshot.gpt(requests))
    assert np.array_equal(again[np.isin(split.shoppers, shop[0].shoppers)], table, equal_nan=True)


def test_candidates_stand_where_they_were_asked_for(shop, table):
    split, snapshot, made = shop
    requests, asked = snapshot.offline(split), np.array([[3, 0, -1]] * len(split.shoppers))
    few = made.table(requests, asked)
    assert np.array_equal(
        few[:, :2, : len(COUNTED_FEATURES)], table[:, [3, 0], : len(COUNTED_FEATURES)], equal_nan=True
    )
    assert np.isnan(few[..., len(COUNTED_FEATURES) :]).all()  # nobody asked the GPT


def test_neighbours_are_those_of_the_dense_formulas(shop):
    from recbook.baselines.models import cosine_similarity, ease_weights, shoppers_by_products

    split, _, made = shop  # fewer products than NEAREST_PRODUCTS: all are neighbours
    X = shoppers_by_products(split)
    assert np.array_equal(made.near.toarray(), cosine_similarity(X).T)
    assert np.array_equal(made.undated.toarray(), ease_weights(X, UNDATED_L2))


def test_ease_is_solved_for_the_products_with_most_buyers_only(shop):
    from recbook.baselines.models import ease_weights, shoppers_by_products

    split, snapshot, _ = shop
    X, solved = shoppers_by_products(split), 7
    bought_by = np.asarray(X.sum(axis=0)).ravel()
    most = sorted(sorted(range(len(split.codes)), key=lambda column: (-bought_by[column], column))[:solved])
    expected = np.zeros((len(split.codes),) * 2, np.float32)
    expected[np.ix_(most, most)] = ease_weights(X[:, most], UNDATED_L2)
    assert np.array_equal(CandidateFeatures(snapshot, split, solved).undated.toarray(), expected)


def test_without_a_history_there_are_features_too(shop):
    _, snapshot, made = shop
    requests = snapshot.online([Shopper([], CUT)])
    rows = made.table(requests, np.array([[0, 1]]), snapshot.gpt(requests))
    of_product = [FEATURE_NAMES.index(name) for name in FEATURE_NAMES if not name.startswith("bought: ")]
    assert np.isfinite(rows[0][:, of_product]).all()


def test_features_belong_to_one_snapshot(shop):
    split, snapshot, _ = shop
    other = evaluation.next_basket(made_up(), CUT - 20 * DAY, min_shoppers=3)
    with pytest.raises(ValueError, match="must be one"):
        CandidateFeatures(snapshot, other)
