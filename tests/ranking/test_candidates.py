"""Candidates: channels by loops over receipts, interleaving and recall by hand, online requests like offline ones."""

import zlib

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from recbook.baselines import evaluation
from recbook.baskets import model as basket_model
from recbook.baskets.model import BasketGPT, scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.ranking.candidates import (
    CO_PURCHASE_CHANNEL,
    GPT_CHANNEL,
    HISTORY_CHANNEL,
    POPULAR_CHANNEL,
    POPULARITY_DAYS,
    PROFILE_CHANNEL,
    QUERY_CHANNEL,
    Snapshot,
    candidate_recall,
    interleave,
)
from recbook.ranking.rankers import Shopper

DAY, ORIGIN = pd.Timedelta(days=1), pd.Timestamp("2011-01-01")
COLOURS, THINGS = ("RED", "BLUE", "GREEN", "WHITE", "BLACK"), ("MUG", "PLATE", "BOWL", "LAMP", "CLOCK", "FRAME")
NAMES = {f"{20001 + 7 * n}": f"{COLOURS[n % 5]} {THINGS[n // 5]}" for n in range(30)}
CODES = np.array(list(NAMES))
CUT = ORIGIN + 120 * DAY
TINY = BasketGPTConfig(context=32, layers=1, heads=2, width=16, pointer=8, features=4, epochs=1, start=30, refresh=60)


def encode(texts: list[str]) -> np.ndarray:
    """Unit vectors of bags of words, in place of a sentence-transformer."""
    axes = {w: np.random.default_rng(zlib.crc32(w.encode())).normal(0, 1, 12) for t in texts for w in t.split()}
    vectors = np.array([sum(axes[word] for word in text.split()) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made_up(seed: int = 0, shoppers: int = 40, days: int = 160) -> pd.DataFrame:
    """Receipts of shoppers who buy two of their three favourites and something popular every three weeks or so."""
    rng = np.random.default_rng(seed)
    popular, rows = np.arange(30, 0, -1) / 465, []
    for shopper in range(shoppers):
        day, favourites = rng.uniform(0, 30), rng.choice(30, 3, replace=False)
        while day < days:
            basket = {*rng.choice(favourites, 2, replace=False), rng.choice(30, p=popular)}
            date = (ORIGIN + day * DAY).floor("min")
            rows += [(500 + shopper, f"{shopper}-{day:.3f}", CODES[n], date, 1.0 + n % 4) for n in sorted(basket)]
            day += rng.uniform(10, 30)
    table = pd.DataFrame(rows, columns=["customer", "invoice", "code", "date", "price"])
    table["description"] = table["code"].map(NAMES)
    return table.sort_values("date", kind="stable", ignore_index=True)


def shopper_of(split: evaluation.Split, customer: int) -> Shopper:
    """A judged shopper as an online request tells them: what they bought and when."""
    own = split.receipts[split.receipts["customer"] == customer]
    history = [(date, lines["code"].tolist()) for (date, _), lines in own.groupby(["date", "invoice"])]
    return Shopper(history, split.cut)


@pytest.fixture(scope="module")
def split() -> evaluation.Split:
    return evaluation.next_basket(made_up(), CUT, min_shoppers=3)


@pytest.fixture(scope="module")
def snapshot(split) -> Snapshot:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basket_model, "encode", encode)
        model = BasketGPT.fit(split.receipts, TINY, progress=False)
    yield Snapshot(split, model, encode=encode)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lists(snapshot, split) -> dict[str, np.ndarray]:
    requests = snapshot.offline(split)
    return snapshot.channels(requests, 12, snapshot.gpt(requests), ["RED MUG"] * len(split.shoppers))


def test_history_is_what_was_bought_by_count_and_recency(split, lists):
    for shopper, ranking in list(zip(split.shoppers, lists[HISTORY_CHANNEL], strict=True))[:10]:
        own = split.receipts[split.receipts["customer"] == shopper]
        worth = (0.5 ** ((split.cut - own["date"]) / DAY / 120)).groupby(own["code"]).sum()
        assert split.codes[ranking[ranking >= 0]].tolist() == worth.sort_values(ascending=False).index[:12].tolist()


def test_what_is_popular_is_counted(split, lists):
    late = split.receipts[split.receipts["date"] >= split.cut - POPULARITY_DAYS * DAY]
    counts = late.groupby("code")["customer"].nunique().reindex(split.codes, fill_value=0).to_numpy()
    expected = sorted(range(len(counts)), key=lambda column: (-counts[column], column))[:12]
    assert (lists[POPULAR_CHANNEL] == expected).all()


def test_the_co_purchase_channel_is_ease(split, lists):
    from recbook.baselines.models import ease_weights, recency

    everybody = np.sort(split.receipts["customer"].unique())
    scores = recency(split, split.shoppers) @ ease_weights(recency(split, everybody), 100)
    for row, ranking in zip(scores, lists[CO_PURCHASE_CHANNEL], strict=True):
        assert np.allclose(np.sort(row)[::-1][:12], row[ranking], atol=2e-5)  # the same products, but for ties


def test_text_channels_are_the_nearest_descriptions(split, lists):
    vectors = encode([NAMES[code] for code in split.codes])
    means = np.array([vectors[row > 0].mean(axis=0) for row in split.counts.toarray()])
    assert (np.argsort(-means @ vectors.T, axis=1)[:, :5] == lists[PROFILE_CHANNEL][:, :5]).all()
    asked = (vectors @ encode(["RED MUG"])[0])[lists[QUERY_CHANNEL][0]]
    assert (np.diff(asked) <= 1e-6).all() and NAMES[split.codes[lists[QUERY_CHANNEL][0, 0]]] == "RED MUG"


def test_the_gpt_is_a_channel(snapshot, split, lists):
    scores = scores_at_cut(snapshot.model, split)
    assert np.allclose(
        np.take_along_axis(scores, lists[GPT_CHANNEL], axis=1), -np.sort(-scores, axis=1)[:, :12], atol=1e-5
    )


def test_without_a_model_or_texts_there_are_four_channels(snapshot, split):
    other = Snapshot(split, vectors=snapshot.vectors)
    requests = other.offline(split)
    assert other.gpt(requests) is None
    assert list(other.channels(requests, 5)) == [HISTORY_CHANNEL, CO_PURCHASE_CHANNEL, POPULAR_CHANNEL, PROFILE_CHANNEL]


def test_an_online_request_finds_what_the_offline_one_finds(snapshot, split, lists):
    for row in (0, 7, 20):
        requests = snapshot.online([shopper_of(split, split.shoppers[row])])
        one = snapshot.channels(requests, 12, snapshot.gpt(requests), ["RED MUG"])
        assert list(one) == list(lists)
        assert all((one[name][0] == lists[name][row]).all() for name in lists)


def test_without_a_history_there_is_what_is_popular(snapshot):
    requests = snapshot.online([Shopper([], CUT)])
    lists = snapshot.channels(requests, 5)
    assert (
        (lists[HISTORY_CHANNEL] == -1).all()
        and (lists[PROFILE_CHANNEL] == -1).all()
        and (lists[POPULAR_CHANNEL] >= 0).all()
    )


def test_every_channel_lists_its_best_among_the_allowed_products(snapshot, split):
    requests, texts, products = snapshot.offline(split), ["RED MUG"] * len(split.shoppers), len(split.codes)
    gpt, allowed = snapshot.gpt(requests), np.arange(len(split.codes)) % 3 == 0
    everything = snapshot.channels(requests, products, gpt, texts)
    for name, few in snapshot.channels(requests, 6, gpt, texts, allowed).items():
        for whole, ranking in zip(everything[name], few, strict=True):
            expected = [column for column in whole if column >= 0 and allowed[column]][:6]
            assert ranking.tolist() == expected + [-1] * (6 - len(expected)), name
    for mask in (np.ones(products, bool), np.zeros(products, bool)):
        found = snapshot.channels(requests, products, gpt, texts, mask)
        assert all((found[name] == (everything[name] if mask.all() else -1)).all() for name in everything)


def test_what_comes_after_the_cut_changes_nothing(snapshot, split, lists):
    later = made_up(seed=5)
    later = later[later["date"] >= CUT].assign(invoice=lambda table: "later " + table["invoice"])
    longer = evaluation.next_basket(pd.concat([made_up(), later]), CUT, min_shoppers=3)
    again = Snapshot(longer, snapshot.model, encode=encode)
    requests = again.offline(longer)
    shared = np.isin(longer.shoppers, split.shoppers)
    found = again.channels(requests, 12, again.gpt(requests))
    assert all((found[name][shared] == lists[name]).all() for name in found)


def test_a_snapshot_says_what_does_not_fit(snapshot, split):
    with pytest.raises(ValueError, match="known as of 2011-05-01"):
        snapshot.online([Shopper([], CUT - 9 * DAY)])
    few = evaluation.next_basket(made_up(), CUT, min_shoppers=12)
    with pytest.raises(ValueError, match="other products"):
        Snapshot(few, snapshot.model, encode=encode)


def test_interleaving_takes_turns_and_nothing_twice():
    first, second = np.array([[1, 2, 3], [4, 5, -1]]), np.array([[2, 9], [-1, -1]])
    assert interleave([first, second], 4).tolist() == [[1, 2, 9, 3], [4, 5, -1, -1]]
    assert interleave([first, second], 2).tolist() == [[1, 2], [4, 5]]


@pytest.mark.parametrize("seed", range(5))
def test_interleaving_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    lists = [np.array([rng.permutation(9)[:k] for _ in range(6)]) for k in (5, 3, 7)]
    for ranking in lists:
        ranking[rng.random(ranking.shape) < 0.2] = -1
    made = interleave(lists, 6)
    for row in range(6):
        turns = [r[row, place] for place in range(7) for r in lists if place < r.shape[1] and r[row, place] >= 0]
        distinct = list(dict.fromkeys(turns))[:6]
        assert made[row].tolist() == distinct + [-1] * (6 - len(distinct))


def test_candidate_recall_by_hand():
    counts = np.array([[1, 0, 0, 2], [0, 1, 0, 0]])
    targets = np.array([[1, 1, 1, 0], [0, 1, 0, 0]])
    from scipy import sparse

    split = evaluation.Split(
        CUT, made_up(), CODES[:4], np.array([1, 2]), sparse.csr_matrix(counts), sparse.csr_matrix(targets.astype(bool))
    )
    table = candidate_recall(np.array([[0, 3, 2], [2, 0, -1]]), split, sizes=(1, 3))
    assert table["all", "recall@1"].tolist() == [1 / 3, 0]
    assert table["all", "recall@3"].tolist() == [2 / 3, 0]
    assert table["repeat", "recall@3"].tolist() == [1, 0]
    assert table["explore", "recall@3"].iloc[0] == 1 / 2 and np.isnan(table["explore", "recall@3"].iloc[1])
