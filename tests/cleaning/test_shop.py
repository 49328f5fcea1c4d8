"""The embedded shop: deterministic, quick, messy as a real log is, and true to the truth that it keeps."""

import time
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from recbook.baselines import evaluation, models
from recbook.baselines.results import load_results
from recbook.cleaning import receipts, schema
from recbook.cleaning.shop import ACTIONS, END, START, Shop, gumbel_top_k, simulate

# sha256 of the clean receipts of seed 0: a change of the simulator changes it, and every chapter with it.
GOLDEN = "c27030cf6200beb45294429ff506d4e13f8a32b1648e8b7a1b815f4b41cca1ec"


@pytest.fixture(scope="module")
def by_seed(shop) -> Callable[[int], Shop]:
    """Shops by seed, each simulated once."""
    return cache(lambda seed: simulate(seed) if seed else shop)


def test_the_same_seed_gives_the_same_receipts_on_every_platform(cleaned):
    assert schema.receipts_fingerprint(cleaned.receipts) == GOLDEN


def test_the_seed_alone_decides(shop, by_seed):
    pd.testing.assert_frame_equal(simulate(seed=0).receipts, shop.receipts)
    assert not by_seed(1).receipts["StockCode"].equals(shop.receipts["StockCode"])


def test_sixty_thousand_lines_within_five_seconds():
    start = time.process_time()
    table = simulate(seed=3).receipts
    assert time.process_time() - start < 5
    assert 50_000 < len(table) < 72_000


def test_lines_scale_the_shop():
    assert 150_000 < len(simulate(seed=0, lines=180_000).receipts) < 220_000
    with pytest.raises(ValueError, match="at least 2,000 lines"):
        simulate(lines=10)


def test_receipts_have_the_eight_columns_in_time_order(shop):
    table = shop.receipts
    assert list(table.columns) == [
        "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country",
    ]  # fmt: skip
    assert table["InvoiceDate"].is_monotonic_increasing
    assert table["InvoiceDate"].min() >= START and table["InvoiceDate"].max() <= END
    sales = table[~table["InvoiceNo"].str.startswith("C")]
    assert (table["InvoiceDate"].dt.day_of_week != 5).all()  # closed on Saturdays, and over Christmas
    days = sales["InvoiceDate"].dt
    assert not ((days.month == 12) & (days.day > 23)).any() and not ((days.month == 1) & (days.day < 4)).any()


# Bounds around the real log's facts: the simulated share must be near it, not merely above zero.
FACTS = {
    "without customer": (0.249, 0.04, lambda raw: raw["CustomerID"].isna().mean()),
    "cancelled": (0.017, 0.005, lambda raw: raw["InvoiceNo"].str.startswith("C").mean()),
    "without description": (0.0027, 0.0015, lambda raw: raw["Description"].isna().mean()),
    "duplicates": (0.0097, 0.003, lambda raw: raw.duplicated().mean()),
    "abroad": (0.086, 0.06, lambda raw: (raw["Country"] != "United Kingdom").mean()),
}


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_messy_as_the_real_log(by_seed, fact, seed):
    real, margin, measure = FACTS[fact]
    assert measure(by_seed(seed).receipts) == pytest.approx(real, abs=margin)


def test_every_kind_of_noise_is_there(shop):
    raw = shop.receipts
    assert (raw["UnitPrice"] == 0).any() and (raw["UnitPrice"] < 0).sum() == 1
    assert {"POST", "M", "BANK CHARGES"} <= set(raw["StockCode"])
    assert raw["StockCode"].str.contains("[a-z]").any()
    assert raw["Quantity"].abs().max() > 70_000  # the keying error, and its cancellation
    assert raw.loc[raw["Quantity"] < 0, "InvoiceNo"].str.startswith("C").mean() < 1  # stock corrections too
    texts = raw[raw["CustomerID"].notna()].groupby("StockCode")["Description"].nunique()
    assert 0.02 < (texts > 1).mean() < 0.12


def test_baskets_and_visits_like_the_real_log(cleaned):
    baskets = receipts.baskets(cleaned.receipts)
    sizes = baskets["codes"].map(len)
    visits = baskets.groupby("customer").size()
    assert 12 <= sizes.median() <= 18 and 17 <= sizes.mean() <= 25
    assert visits.median() == 2 and (visits == 1).mean() == pytest.approx(0.35, abs=0.05)
    months = baskets.groupby(baskets["date"].dt.month).size()
    assert 2 < months[11] / months[2] < 5  # Christmas


def test_bought_again_and_new_as_in_the_real_log(shop, cleaned):
    clean = cleaned.receipts
    for cut, real in [("2011-08-01", 0.37), ("2011-11-01", 0.43)]:
        split = evaluation.next_basket(clean, cut, min_shoppers=1)
        again = split.targets.multiply(split.counts > 0).sum(axis=1) / split.targets.sum(axis=1)
        assert np.mean(again) == pytest.approx(real, abs=0.08)
    known = clean.loc[clean["date"] < "2011-09-01", "code"].unique()
    autumn = clean[clean["date"].between("2011-09-01", "2011-12-01")]
    assert (~autumn["code"].isin(known)).mean() == pytest.approx(0.09, abs=0.04)
    sizes = clean.groupby("invoice")["code"].nunique()
    assert (sizes == 1).mean() == pytest.approx(0.07, abs=0.03)
    raw_matches = len(receipts.match_cancellations(shop.receipts))
    assert raw_matches / (cleaned.removed["rule"] == "cancellation").sum() == pytest.approx(0.33, abs=0.08)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_methods_rank_as_on_the_real_log(by_seed, seed):
    """Kendall's tau of the baselines' order with the real log's, as results/scoreboard_online-retail.json has it."""
    real = pd.DataFrame(load_results("scoreboard_online-retail")["rows"])
    clean = receipts.clean(by_seed(seed).receipts).receipts
    split = evaluation.next_basket(clean, evaluation.default_cut(clean))
    ours = evaluation.scoreboard(split, models.BASELINES)
    for part in ("all", "explore"):
        values = []
        for board in (real, ours):
            chosen = board[(board["metric"] == "ndcg@10") & (board["split"] == part)]
            values.append(chosen.set_index("method")["value"].loc[list(models.BASELINES)])
        assert kendalltau(*values).statistic >= 0.6


def test_only_true_products_survive_cleaning(shop, cleaned):
    assert set(cleaned.receipts["code"]) <= set(shop.products.index)
    first = cleaned.receipts.groupby("code")["date"].min()
    assert (first >= shop.products["launched"][first.index]).all()  # nothing is sold before it is launched


def test_descriptions_name_the_attributes(shop):
    products = shop.products
    assert products["description"].is_unique and products.index.is_unique
    homeware = products[products["department"] == "homeware"]
    assert all(row.colour in row.description for row in homeware.itertuples())
    dresses = products[products["kind"] == "short dress"]
    assert dresses["description"].str.match(r"short dress in [\w ]+ (linen|cotton|viscose), \w+, ").all()
    beans = products[products["group"] == "beans"]
    assert beans["description"].str.match(r"single-origin [\w ]+, [\w ]+ with [\w ]+, .*(roast|decaf)").all()


def test_complements_and_substitutes_are_what_they_say(shop):
    products = shop.products
    kind = products["kind"]
    for code, row in products.iterrows():
        assert code not in row["completes"] + row["replaces"]
        assert all(kind[other] == row["kind"] for other in row["replaces"])
        assert all(kind[other] != row["kind"] for other in row["completes"])
    assert (products["completes"].map(len) >= 1).all()


def test_complements_are_bought_together_more_than_chance(shop, cleaned):
    """What the truth says must show in the receipts: a complement shares more baskets than a random product does."""
    lines = cleaned.receipts[["invoice", "code"]].drop_duplicates()
    inside = pd.crosstab(lines["invoice"], lines["code"]).astype(bool)
    together = (inside.T.astype(np.float32) @ inside.astype(np.float32)).to_numpy(copy=True)
    bought = together.diagonal().copy()
    expected = np.outer(bought, bought) / len(inside)
    column = {code: position for position, code in enumerate(inside.columns)}
    pairs = [
        (column[code], column[other])
        for code, others in shop.products["completes"].items()
        for other in others
        if code in column and other in column
    ]
    rows, columns = np.array(pairs).T
    lift = together[rows, columns].sum() / expected[rows, columns].sum()
    np.fill_diagonal(together, 0)
    np.fill_diagonal(expected, 0)
    assert lift > 1.3 * together.sum() / expected.sum()


def test_shoppers_buy_what_they_like(shop, cleaned):
    """The mean affinity of bought pairs is far above that of all pairs (the taste decides, not only popularity)."""
    lines = cleaned.receipts[["customer", "code"]].drop_duplicates()
    rows = shop.shoppers.index.get_indexer(lines["customer"])
    columns = shop.products.index.get_indexer(lines["code"])
    assert shop.affinity[rows, columns].mean() > shop.affinity.mean() + shop.affinity.std()


def test_respond_follows_position_and_appeal(shop):
    customer, rng = shop.shoppers.index[0], np.random.default_rng(0)
    codes = shop.products.index[:40].tolist()
    answers = pd.concat([shop.respond(customer, list(rng.permutation(codes)), rng) for _ in range(400)])
    assert set(answers["action"]) == set(ACTIONS)
    active = answers["action"] != "ignored"
    assert active[answers["position"] < 5].mean() > 1.5 * active[answers["position"] >= 30].mean()
    by_chance = active.groupby(answers["code"]).mean().corr(answers.groupby("code")["chance"].first())
    assert by_chance > 0.8
    reached = answers["action"].map({action: step for step, action in enumerate(ACTIONS)})
    assert (reached >= 2).sum() / (reached >= 1).sum() == pytest.approx(0.4, abs=0.06)  # added, of viewed
    assert (reached >= 3).sum() / (reached >= 2).sum() == pytest.approx(0.65, abs=0.08)  # purchased, of added
    top = answers[answers["position"] == 0]
    expected = top["chance"].mean()  # position 0 is always seen
    assert (top["action"] != "ignored").mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(top)))


def test_respond_is_seeded_and_checks_its_arguments(shop):
    customer, slate = shop.shoppers.index[5], shop.products.index[:10].tolist()
    first, second = (shop.respond(customer, slate, np.random.default_rng(7)) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    with pytest.raises(KeyError, match="customer 1 is not of this shop"):
        shop.respond(1, slate, np.random.default_rng(0))
    with pytest.raises(KeyError, match="no such code"):
        shop.respond(customer, ["no such code"], np.random.default_rng(0))
    assert shop.respond(customer, [], np.random.default_rng(0)).empty


def test_appeal_knows_the_season(shop):
    baubles = shop.products.index[shop.products["season"] == "Christmas"].tolist()
    customer = shop.shoppers.index[0]
    winter = shop.appeal(customer, baubles, pd.Timestamp("2011-11-20"))
    summer = shop.appeal(customer, baubles, pd.Timestamp("2011-05-20"))
    assert (winter - summer).mean() > 2


def test_draw_takes_products_in_proportion_to_their_weights():
    """Drawing one of three with weights 1, 2, 5 many times gives their shares (the Gumbel trick's definition)."""
    rng = np.random.default_rng(0)
    drawn = [gumbel_top_k(np.log([1.0, 2.0, 5.0]), 1, rng)[0] for _ in range(8_000)]
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.02)
    assert len(gumbel_top_k(np.array([0.0, -np.inf]), 5, rng)) == 1  # no more than can be had


def test_prices_are_as_shops_write_them(shop):
    """0.42, 1.25, 3.95, 12.50."""
    prices = shop.products["price"]
    pence = (100 * prices).round().astype(int)
    assert set(prices[prices < 1]) <= {0.29, 0.42, 0.55, 0.65, 0.85, 0.95}
    assert set(pence[(prices >= 1) & (prices < 3)] % 40) == {5}
    assert set(pence[prices >= 3] % 100) == {50, 95}
    assert (prices < 1).any() and (prices > 50).any()
