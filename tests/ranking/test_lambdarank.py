"""learned: an order that one signal decides is found; twice the same; kept and loaded; a counter answers as a split."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.ranking.test_features import DAY, ORIGIN, Oracle, encode, made_up

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook.baselines import evaluation
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import COUNTED_FEATURES, FEATURE_NAMES, CandidateFeatures
from recbook.ranking.lambdarank import (
    LambdaRank,
    LambdaRankConfig,
    RankingExamples,
    ranking_examples,
)
from recbook.ranking.rankers import Shopper

SMALL = LambdaRankConfig(trees=20, leaves=7, least=0.004, columns=0.6, averaged=2)
TELLS = FEATURE_NAMES.index("blend")


def drawn(seed: int, n: int = 60, c: int = 12) -> RankingExamples:
    """Examples in which the next basket holds the three candidates with the largest `blend`; all else is noise."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 1, (n, c, len(FEATURE_NAMES))).astype(np.float32)
    wanted = table[..., TELLS] >= np.sort(table[..., TELLS], axis=1)[:, -3, None]
    return RankingExamples(np.array([rng.permutation(30)[:c] for _ in range(n)]), table, wanted)


def at(cut: pd.Timestamp, before: pd.Timestamp) -> tuple[evaluation.Split, CandidateFeatures]:
    receipts = made_up()
    split = evaluation.next_basket(receipts[receipts["date"] < before], cut, min_shoppers=3)
    return split, CandidateFeatures(Snapshot(split, encode=encode), split)


@pytest.fixture(scope="module")
def ranker() -> LambdaRank:
    return LambdaRank.fit([drawn(0), drawn(1)], FEATURE_NAMES, SMALL)


@pytest.fixture(scope="module")
def shop():
    """A ranker of receipts that learned at one cut and is asked at a later one."""
    cut = ORIGIN + 120 * DAY
    past, signals = at(cut - 30 * DAY, cut)
    split, today = at(cut, cut + 40 * DAY)
    examples = [ranking_examples(signals, past, 15)]
    return split, today, LambdaRank.fit(examples, COUNTED_FEATURES, SMALL, signals=today)


def test_the_order_is_found_in_new_examples(ranker):
    new = drawn(2)
    best = np.argsort(-ranker.predict(new.table), axis=1)[:, :3]
    assert np.take_along_axis(new.wanted, best, axis=1).mean() > 0.9
    assert next(iter(ranker.importance())) == "blend" and np.isclose(sum(ranker.importance().values()), 1)


def test_what_is_left_out_is_not_read():
    names = [name for name in FEATURE_NAMES if name != "blend"]
    blind = LambdaRank.fit([drawn(0), drawn(1)], names, SMALL)
    new = drawn(2)
    changed = new.table.copy()
    changed[..., TELLS] = 9
    assert np.array_equal(blind.predict(changed), blind.predict(new.table))
    best = np.argsort(-blind.predict(new.table), axis=1)[:, :3]
    assert np.take_along_axis(new.wanted, best, axis=1).mean() < 0.5


def test_the_same_examples_make_the_same_ranker(ranker):
    again = LambdaRank.fit([drawn(0), drawn(1)], FEATURE_NAMES, SMALL)
    assert np.array_equal(again.predict(drawn(2).table), ranker.predict(drawn(2).table))
    assert ranker.trees[0].model_to_string() != ranker.trees[1].model_to_string()  # two seeds


def test_the_mean_of_the_trees_is_the_score(ranker):
    rows = drawn(2).table[0]
    apart = [trees.predict(rows) for trees in ranker.trees]
    assert np.allclose(ranker.predict(rows), np.mean(apart, axis=0))


def test_padding_and_shoppers_without_a_target_teach_nothing(ranker):
    one, two = drawn(0), drawn(1)
    empty = one._replace(wanted=np.zeros_like(one.wanted))
    padded = RankingExamples(
        np.pad(two.candidates, ((0, 0), (0, 3)), constant_values=-1),
        np.pad(two.table, ((0, 0), (0, 3), (0, 0)), constant_values=5),
        np.pad(two.wanted, ((0, 0), (0, 3))),
    )
    again = LambdaRank.fit([one, empty, padded], FEATURE_NAMES, SMALL)
    assert np.array_equal(again.predict(drawn(2).table), ranker.predict(drawn(2).table))


def test_scores_stand_in_the_columns_of_the_candidates(ranker):
    new = drawn(2)
    scores = ranker.scores(new._replace(candidates=np.where(new.candidates == 4, -1, new.candidates)), 30)
    predicted = ranker.predict(new.table)
    for row in (0, 31):
        listed = {c: p for c, p in zip(new.candidates[row], predicted[row], strict=True) if c != 4}
        assert {column: scores[row, column] for column in np.flatnonzero(scores[row] > -np.inf)} == listed
    assert ranker.predict(new.table[:0]).shape == (0, 12)


def test_it_is_kept_and_loaded(ranker, tmp_path):
    ranker.save(tmp_path / "ranker")
    loaded = LambdaRank.load(tmp_path / "ranker")
    assert np.array_equal(loaded.predict(drawn(2).table), ranker.predict(drawn(2).table))
    assert (loaded.names, loaded.settings) == (ranker.names, ranker.settings)


@pytest.mark.parametrize("damage", ["no folder", "no trees", "other words", "no trees at all"])
def test_a_damaged_ranker_is_named(ranker, tmp_path, damage):
    folder = tmp_path / "ranker"
    if damage != "no folder":
        ranker.save(folder)
    if damage == "no trees":
        (folder / "trees-1.txt").unlink()
    if damage == "other words":
        (folder / "ranker.json").write_text(json.dumps({"names": []}))
    if damage == "no trees at all":
        (folder / "trees-0.txt").write_text("these are no trees")
    with pytest.raises(ValueError, match="does not hold a learned ranker"):
        LambdaRank.load(folder)


def test_a_counter_scores_as_a_split_does(shop):
    split, today, ranker = shop
    examples = ranking_examples(today, split, 15)
    scores = ranker.scores(examples, len(split.codes))
    for row in (0, 5):
        own = split.receipts[split.receipts["customer"] == split.shoppers[row]]
        history = [(date, lines["code"].tolist()) for (date, _), lines in own.groupby(["date", "invoice"])]
        columns = examples.candidates[row]
        columns = columns[columns >= 0][::-1]
        one = ranker.score(Shopper(history, split.cut), None, split.codes[columns].tolist())
        assert np.allclose(one, scores[row, columns])
    assert ranker.score(Shopper([], split.cut), None, []).shape == (0,)


def test_the_gpt_tells_but_does_not_propose(shop):
    split, today, _ = shop
    signals = CandidateFeatures(Snapshot(split, Oracle(split.codes), encode=encode), split)
    told, untold = ranking_examples(signals, split, 15), ranking_examples(today, split, 15)
    assert np.array_equal(told.candidates, untold.candidates) and np.array_equal(told.wanted, untold.wanted)
    there = told.candidates >= 0
    assert (
        np.isfinite(told.table[there][:, len(COUNTED_FEATURES) :]).all()
        and np.isnan(untold.table[..., len(COUNTED_FEATURES) :]).all()
    )
    assert np.array_equal(
        told.table[..., : len(COUNTED_FEATURES)], untold.table[..., : len(COUNTED_FEATURES)], equal_nan=True
    )


def test_a_ranker_that_reads_the_gpt_asks_it_at_the_counter(shop):
    split = shop[0]
    signals = CandidateFeatures(Snapshot(split, Oracle(split.codes), encode=encode), split)
    examples = ranking_examples(signals, split, 15)
    ranker = LambdaRank.fit([examples], ["GPT"], SMALL, signals=signals)
    history = [(split.cut - 9 * DAY, [split.codes[3]]), (split.cut - 2 * DAY, [split.codes[3], split.codes[7]])]
    scores = ranker.score(Shopper(history, split.cut), None, split.codes[[7, 3]].tolist())
    trusting = ranker.trusting(1.0).score(Shopper(history, split.cut), None, [split.codes[3]])
    assert np.allclose(trusting, scores[1] + 1.97)
    told = np.full((1, 2, len(FEATURE_NAMES)), np.nan, np.float32)
    told[0, :, FEATURE_NAMES.index("GPT")] = [
        1 - 0.07,
        2 - 0.03,
    ]  # what the stand-in says: the count, less a hundredth a column
    assert np.array_equal(scores, ranker.predict(told)[0])


def test_trust_adds_the_log_probability(ranker, tmp_path):
    new = drawn(2)
    trusting = ranker.trusting(1.5)
    expected = ranker.predict(new.table) + 1.5 * new.table[..., FEATURE_NAMES.index("GPT")]
    assert np.array_equal(trusting.predict(new.table), expected)
    assert np.array_equal(trusting.trusting(0).predict(new.table), ranker.predict(new.table))
    trusting.save(tmp_path)
    assert np.array_equal(LambdaRank.load(tmp_path).predict(new.table), expected)


def test_it_beats_chance_by_far(shop):
    split, today, ranker = shop
    scores = ranker.scores(ranking_examples(today, split, 15), len(split.codes))
    chance = np.random.default_rng(0).random(scores.shape)
    found = [evaluation.evaluate(s, split)["all", "ndcg@10"].mean() for s in (scores, chance)]
    assert found[0] > found[1] + 0.1


def test_it_says_what_is_wrong(ranker):
    with pytest.raises(ValueError, match="no signal 'weather'"):
        LambdaRank.fit([drawn(0)], ["weather"])
    with pytest.raises(ValueError, match="no order to learn"):
        LambdaRank.fit([drawn(0)._replace(wanted=np.zeros((60, 12), bool))])
    unasked = drawn(0).table.copy()
    unasked[..., FEATURE_NAMES.index("GPT")] = np.nan
    with pytest.raises(ValueError, match="GPT was not asked"):
        ranker.trusting().predict(unasked)
    with pytest.raises(ValueError, match="has no signals"):
        ranker.score(Shopper([], ORIGIN), None, ["20001"])
