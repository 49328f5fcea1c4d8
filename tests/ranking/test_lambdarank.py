"""LambdaRank: it finds an order that one feature decides, twice the same; saved and loaded; online as offline."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.ranking.test_features import DAY, ORIGIN, Oracle, encode, made_up

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook import storage
from recbook.baselines import evaluation
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import COUNTED_FEATURES, FEATURE_NAMES, CandidateFeatures
from recbook.ranking.lambdarank import (
    RANKER_KIND,
    LambdaRank,
    LambdaRankConfig,
    RankingExamples,
    ranking_examples,
)
from recbook.ranking.rankers import Shopper

SMALL = LambdaRankConfig(trees=20, leaves=7, min_leaf_fraction=0.004, feature_fraction=0.6, averaged=2)
DECISIVE = FEATURE_NAMES.index("blend")


def drawn(seed: int, n: int = 60, c: int = 12) -> RankingExamples:
    """Examples in which the next basket holds the three candidates with the largest `blend`; all else is noise."""
    rng = np.random.default_rng(seed)
    table = rng.normal(0, 1, (n, c, len(FEATURE_NAMES))).astype(np.float32)
    targets = table[..., DECISIVE] >= np.sort(table[..., DECISIVE], axis=1)[:, -3, None]
    return RankingExamples(np.array([rng.permutation(30)[:c] for _ in range(n)]), table, targets)


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
    past, features = at(cut - 30 * DAY, cut)
    split, today = at(cut, cut + 40 * DAY)
    examples = [ranking_examples(features, past, 15)]
    return split, today, LambdaRank.fit(examples, COUNTED_FEATURES, SMALL, features=today)


def test_it_orders_new_examples(ranker):
    new = drawn(2)
    best = np.argsort(-ranker.predict(new.table), axis=1)[:, :3]
    assert np.take_along_axis(new.targets, best, axis=1).mean() > 0.9
    assert next(iter(ranker.importance())) == "blend" and np.isclose(sum(ranker.importance().values()), 1)


def test_a_feature_that_is_left_out_is_not_read():
    names = [name for name in FEATURE_NAMES if name != "blend"]
    blind = LambdaRank.fit([drawn(0), drawn(1)], names, SMALL)
    new = drawn(2)
    changed = new.table.copy()
    changed[..., DECISIVE] = 9
    assert np.array_equal(blind.predict(changed), blind.predict(new.table))
    best = np.argsort(-blind.predict(new.table), axis=1)[:, :3]
    assert np.take_along_axis(new.targets, best, axis=1).mean() < 0.5


def test_the_same_examples_make_the_same_ranker(ranker):
    again = LambdaRank.fit([drawn(0), drawn(1)], FEATURE_NAMES, SMALL)
    assert np.array_equal(again.predict(drawn(2).table), ranker.predict(drawn(2).table))
    assert ranker.trees[0].model_to_string() != ranker.trees[1].model_to_string()  # two seeds


def test_the_mean_of_the_trees_is_the_score(ranker):
    rows = drawn(2).table[0]
    apart = [trees.predict(rows) for trees in ranker.trees]
    assert np.allclose(ranker.predict(rows), np.mean(apart, axis=0))


def test_padding_and_shoppers_without_a_target_change_nothing(ranker):
    one, two = drawn(0), drawn(1)
    empty = one._replace(targets=np.zeros_like(one.targets))
    padded = RankingExamples(
        np.pad(two.candidates, ((0, 0), (0, 3)), constant_values=-1),
        np.pad(two.table, ((0, 0), (0, 3), (0, 0)), constant_values=5),
        np.pad(two.targets, ((0, 0), (0, 3))),
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


def test_it_is_saved_and_loaded(ranker, tmp_path):
    ranker.save(tmp_path / "ranker")
    loaded = LambdaRank.load(tmp_path / "ranker")
    assert np.array_equal(loaded.predict(drawn(2).table), ranker.predict(drawn(2).table))
    assert (loaded.names, loaded.settings) == (ranker.names, ranker.settings)


@pytest.mark.parametrize("damage", ["no folder", "no trees", "other keys", "no trees at all"])
def test_a_damaged_ranker_is_named(ranker, tmp_path, damage):
    folder = tmp_path / "ranker"
    if damage != "no folder":
        ranker.save(folder)
    if damage == "no trees":
        (folder / "trees-1.txt").unlink()
    if damage == "other keys":
        (folder / "ranker.json").write_text(json.dumps({"names": []}))
    if damage == "no trees at all":
        (folder / "trees-0.txt").write_text("these are no trees")
    if damage in ("other keys", "no trees at all"):
        storage.seal(folder, RANKER_KIND, {})
    with pytest.raises(ValueError, match="does not hold a LambdaRank"):
        LambdaRank.load(folder)


def test_every_flipped_bit_is_noticed_before_lightgbm_reads_a_byte(ranker, tmp_path):
    folder = tmp_path / "ranker"
    ranker.save(folder)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), len(whole) // 40):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            with pytest.raises(storage.Damaged, match="does not hold a LambdaRank"):
                LambdaRank.load(folder)
        path.write_bytes(whole)
    LambdaRank.load(folder)


def test_online_scores_are_those_offline(shop):
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


def test_the_gpt_gives_features_but_no_candidates(shop):
    split, today, _ = shop
    features = CandidateFeatures(Snapshot(split, Oracle(split.codes), encode=encode), split)
    with_gpt, without = ranking_examples(features, split, 15), ranking_examples(today, split, 15)
    counted = len(COUNTED_FEATURES)
    assert np.array_equal(with_gpt.candidates, without.candidates)
    assert np.array_equal(with_gpt.targets, without.targets)
    assert np.isfinite(with_gpt.table[with_gpt.candidates >= 0][:, counted:]).all()
    assert np.isnan(without.table[..., counted:]).all()
    assert np.array_equal(with_gpt.table[..., :counted], without.table[..., :counted], equal_nan=True)


def test_a_ranker_that_reads_the_gpt_asks_it_online(shop):
    split = shop[0]
    features = CandidateFeatures(Snapshot(split, Oracle(split.codes), encode=encode), split)
    examples = ranking_examples(features, split, 15)
    ranker = LambdaRank.fit([examples], ["GPT"], SMALL, features=features)
    history = [(split.cut - 9 * DAY, [split.codes[3]]), (split.cut - 2 * DAY, [split.codes[3], split.codes[7]])]
    scores = ranker.score(Shopper(history, split.cut), None, split.codes[[7, 3]].tolist())
    with_gpt = ranker.with_gpt(1.0).score(Shopper(history, split.cut), None, [split.codes[3]])
    assert np.allclose(with_gpt, scores[1] + 1.97)
    rows = np.full((1, 2, len(FEATURE_NAMES)), np.nan, np.float32)
    # The scores of the stand-in: the count, less a hundredth per column.
    rows[0, :, FEATURE_NAMES.index("GPT")] = [1 - 0.07, 2 - 0.03]
    assert np.array_equal(scores, ranker.predict(rows)[0])


def test_with_gpt_adds_the_weighted_log_probability(ranker, tmp_path):
    new = drawn(2)
    with_gpt = ranker.with_gpt(1.5)
    expected = ranker.predict(new.table) + 1.5 * new.table[..., FEATURE_NAMES.index("GPT")]
    assert np.array_equal(with_gpt.predict(new.table), expected)
    assert np.array_equal(with_gpt.with_gpt(0).predict(new.table), ranker.predict(new.table))
    with_gpt.save(tmp_path)
    assert np.array_equal(LambdaRank.load(tmp_path).predict(new.table), expected)


def test_it_beats_chance_by_far(shop):
    split, today, ranker = shop
    scores = ranker.scores(ranking_examples(today, split, 15), len(split.codes))
    chance = np.random.default_rng(0).random(scores.shape)
    found = [evaluation.evaluate(s, split)["all", "ndcg@10"].mean() for s in (scores, chance)]
    assert found[0] > found[1] + 0.1


def test_it_says_what_is_wrong(ranker):
    with pytest.raises(ValueError, match="no feature 'weather'.*FEATURE_NAMES"):
        LambdaRank.fit([drawn(0)], ["weather"])
    with pytest.raises(ValueError, match="no order to learn"):
        LambdaRank.fit([drawn(0)._replace(targets=np.zeros((60, 12), bool))])
    unasked = drawn(0).table.copy()
    unasked[..., FEATURE_NAMES.index("GPT")] = np.nan
    with pytest.raises(ValueError, match="GPT was not asked"):
        ranker.with_gpt().predict(unasked)
    with pytest.raises(ValueError, match="has no features"):
        ranker.score(Shopper([], ORIGIN), None, ["20001"])
