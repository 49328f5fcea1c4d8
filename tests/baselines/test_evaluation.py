"""Evaluation against hand-computed cases, limits, ranx, scipy and scikit-learn; results on record; no leak."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score
from sklearn.metrics.pairwise import cosine_similarity

from recbook.baselines import evaluation, intervals, metrics
from recbook.baselines import results as results_files
from recbook.baselines.results import (
    commit,
    describe_data,
    has_results,
    load_results,
    machine,
    results_path,
    save_results,
)


def receipts_of(lines):
    """Clean receipts from (invoice, customer, date, codes) tuples."""
    rows = [
        {"invoice": invoice, "code": code, "description": f"THING {code}", "customer": customer, "date": date}
        for invoice, customer, date, codes in lines
        for code in codes
    ]
    frame = pd.DataFrame(rows)
    frame["date"] = pd.to_datetime(frame["date"])
    return frame.assign(quantity=1, price=1.0, country="United Kingdom")


TINY = receipts_of(
    [
        ("1", 10, "2011-01-01 09:00", "AB"),
        ("2", 20, "2011-01-02 09:00", "ABC"),
        ("3", 10, "2011-01-03 09:00", "A"),
        ("4", 30, "2011-01-04 09:00", "Z"),  # a product of one shopper: outside the catalogue
        ("5", 40, "2011-01-05 09:00", "AC"),
        ("6", 10, "2011-02-01 00:00", "Z"),  # at the cut, but holds nothing of the catalogue
        ("7", 20, "2011-02-02 09:00", "CN"),
        ("8", 10, "2011-02-03 09:00", "BC"),
        ("9", 10, "2011-02-04 09:00", "A"),  # a second basket: not a target
        ("10", 50, "2011-02-05 09:00", "A"),  # no history
        ("11", 30, "2011-02-06 09:00", "A"),  # history outside the catalogue
    ]
)
CUT = "2011-02-01"


@pytest.fixture
def tiny():
    return evaluation.next_basket(TINY, CUT, min_shoppers=2)


def test_split_by_hand(tiny):
    assert tiny.codes.tolist() == ["A", "B", "C"]
    assert tiny.shoppers.tolist() == [10, 20]  # 40 has no later basket
    assert tiny.counts.toarray().tolist() == [[2, 1, 0], [1, 1, 1]]
    assert tiny.targets.toarray().tolist() == [[False, True, True], [False, False, True]]
    assert tiny.receipts["date"].max() < tiny.cut
    assert set(tiny.receipts["code"]) == {"A", "B", "C"}
    assert evaluation.buyers(tiny).tolist() == [3, 2, 2]


def test_cold_start_by_hand():
    split = evaluation.cold_start(TINY, CUT, min_shoppers=2)
    assert split.codes.tolist() == ["A", "B", "C"]
    assert split.shoppers.tolist() == [50]  # 30 was there before, if only for a product outside the catalogue
    assert split.counts.nnz == 0 and split.targets.toarray().tolist() == [[True, False, False]]


def test_snapshot_by_hand():
    split = evaluation.snapshot(TINY, CUT, min_shoppers=2)
    assert split.codes.tolist() == ["A", "B", "C"] and split.shoppers.tolist() == [10, 20, 40]
    assert split.counts.toarray().tolist() == [[2, 1, 0], [1, 1, 1], [1, 0, 1]]
    assert split.targets.shape == (3, 3) and split.targets.nnz == 0 and split.receipts["date"].max() < split.cut
    with pytest.raises(ValueError, match="no product was bought by 9 shoppers"):
        evaluation.snapshot(TINY, CUT, min_shoppers=9)


def test_cold_start_shoppers_are_judged_on_what_they_explore():
    split = evaluation.cold_start(TINY, CUT, min_shoppers=2)
    judged = evaluation.evaluate(np.array([[3.0, 2.0, 1.0]]), split, k=2)
    assert judged["all", "ndcg@2"].tolist() == judged["explore", "ndcg@2"].tolist() == [1.0]
    assert judged["repeat", "ndcg@2"].isna().all()


def test_no_cold_start_shoppers_is_an_error():
    with pytest.raises(ValueError, match="nobody came for the first time after 2011-02-01.*span"):
        evaluation.cold_start(TINY[TINY["customer"] != 50], CUT, min_shoppers=2)


def test_split_never_sees_the_future():
    """Whatever happens after the first baskets after the cut, the split is the same."""
    changed = TINY[~TINY["invoice"].isin(["9", "10"])]
    a, b = evaluation.next_basket(TINY, CUT, 2), evaluation.next_basket(changed, CUT, 2)
    assert (a.counts != b.counts).nnz == 0 and (a.targets != b.targets).nnz == 0
    pd.testing.assert_frame_equal(a.receipts, b.receipts)


def test_split_does_not_depend_on_the_order_of_lines(tiny):
    shuffled = evaluation.next_basket(TINY.sample(frac=1, random_state=1), CUT, 2)
    assert (tiny.counts != shuffled.counts).nnz == 0 and (tiny.targets != shuffled.targets).nnz == 0


@pytest.mark.parametrize("cut", ["2010-01-01", "2012-01-01"])
def test_a_cut_outside_the_receipts_is_refused(cut):
    with pytest.raises(ValueError, match="2011-01-01 to 2011-02-06"):
        evaluation.next_basket(TINY, cut, 2)


def test_a_catalogue_without_products_is_refused():
    with pytest.raises(ValueError, match="no product had 50 shoppers"):
        evaluation.next_basket(TINY, CUT, 50)
    with pytest.raises(ValueError, match="no receipts"):
        evaluation.next_basket(TINY.iloc[:0], CUT)


def test_default_cut_leaves_a_month():
    lines = TINY.assign(date=pd.Timestamp("2011-12-09 12:50"))
    assert evaluation.default_cut(lines) == pd.Timestamp("2011-11-09")


def test_count_invoices_counts_an_invoice_once():
    twice = pd.concat([TINY, TINY])
    counts = evaluation.count_invoices(twice, np.array([10, 20]), np.array(["A", "B"]))
    assert counts.toarray().tolist() == [[3, 2], [1, 1]]


def test_rank_by_hand_with_ties_and_gaps():
    scores = np.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert metrics.rank(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]
    allowed = np.array([[True, False, False, False], [False, False, True, True]])
    assert metrics.rank(scores, 3, allowed).tolist() == [[0, -1, -1], [2, 3, -1]]
    with pytest.raises(ValueError, match="1 shoppers have scores that are not numbers"):
        metrics.rank(np.array([[1.0, np.nan], [0, 0]]), 1)


def test_rank_equals_a_stable_sort_whatever_the_ties():
    rng = np.random.default_rng(7)
    for levels, k in [(2, 5), (4, 1), (30, 30), (1000, 12), (3, 50)]:
        scores = rng.integers(0, levels, size=(200, 30)).astype(np.float32)
        expected = np.full((200, k), -1)  # where the catalogue is shorter than the list, the rest stays empty
        expected[:, : min(k, 30)] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert (metrics.rank(scores, k) == expected).all()


def test_top_lists_separate_repeat_from_explore(tiny):
    lists = evaluation.top_lists(np.array([[1.0, 2, 3], [3, 2, 1]]), tiny, k=2)
    assert lists["all"].tolist() == [[2, 1], [0, 1]]
    assert lists["repeat"].tolist() == [[1, 0], [0, 1]]
    assert lists["explore"].tolist() == [[2, -1], [-1, -1]]
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        evaluation.top_lists(np.zeros((3, 2)), tiny)


HIT = np.array([[True, False, True], [False, False, False], [False, True, False], [False, False, False]])
RELEVANT = np.array([2, 1, 5, 0])


def test_an_empty_place_is_no_hit():
    assert metrics.hits(np.array([[1, -1], [0, 2]]), np.ones((2, 3), bool)).tolist() == [[True, False], [True, True]]


def test_ranking_metrics_by_hand():
    gain = 1 / np.log2(np.arange(2, 5))  # 1, 0.63, 0.5
    expected = [(gain[0] + gain[2]) / (gain[0] + gain[1]), 0, gain[1] / gain.sum(), np.nan]
    np.testing.assert_allclose(metrics.ndcg(HIT, RELEVANT), expected)
    np.testing.assert_allclose(metrics.recall(HIT, RELEVANT), [1, 0, 1 / 5, np.nan])
    np.testing.assert_allclose(metrics.hit_rate(HIT, RELEVANT), [1, 0, 1, np.nan])
    np.testing.assert_allclose(metrics.reciprocal_rank(HIT, RELEVANT), [1, 0, 1 / 2, np.nan])


def test_limits_of_the_ranking_metrics():
    """The best list has NDCG 1 whatever the number of targets; the empty list has 0 everywhere."""
    for targets in (1, 3, 9):
        best = np.arange(5)[None] < targets
        assert metrics.ndcg(best, np.array([targets])) == pytest.approx(1)
        assert metrics.recall(best, np.array([targets])) == pytest.approx(min(5 / targets, 1))
    for metric in metrics.ACCURACY.values():
        assert metric(np.zeros((1, 5), bool), np.array([3])) == 0


@pytest.fixture(scope="module")
def noise():
    """Random scores, targets and history: 40 shoppers, 60 products."""
    rng = np.random.default_rng(3)
    return rng.normal(size=(40, 60)), rng.random((40, 60)) < 0.1, rng.random((40, 60)) < 0.3


def test_accuracy_equals_ranx(noise):
    from ranx import Qrels, Run
    from ranx import evaluate as ranx_evaluate

    scores, targets, _ = noise
    targets = targets[targets.any(axis=1)]
    scores = scores[: len(targets)]
    qrels = Qrels({str(u): {str(i): 1 for i in np.flatnonzero(row)} for u, row in enumerate(targets)})
    run = Run({str(u): {str(i): float(s) for i, s in enumerate(row)} for u, row in enumerate(scores)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ranx_evaluate(qrels, run, ["ndcg@10", "recall@10", "hit_rate@10", "mrr@10"])
    hit, relevant = metrics.hits(metrics.rank(scores, 10), targets), targets.sum(axis=1)
    ours = {name: metric(hit, relevant).mean() for name, metric in metrics.ACCURACY.items()}
    assert [ours[name] for name in ("ndcg", "recall", "hit", "mrr")] == pytest.approx(list(theirs.values()))


def test_ndcg_equals_scikit_learn(noise):
    scores, targets, _ = noise
    hit = metrics.hits(metrics.rank(scores, 10), targets)
    ours = metrics.ndcg(hit, targets.sum(axis=1))
    assert np.nanmean(ours) == pytest.approx(
        ndcg_score(targets[targets.any(axis=1)], scores[targets.any(axis=1)], k=10)
    )


def test_self_information_and_percentile_by_hand(tiny):
    np.testing.assert_allclose(evaluation.self_information(tiny), [0, np.log2(1.5), np.log2(1.5)])  # 3, 2, 2 of 3
    np.testing.assert_allclose(evaluation.popularity_percentile(tiny), [1, 0.5, 0.5])
    assert metrics.list_mean(np.array([1.0, 2.0, 6.0]), np.array([[0, 2], [1, -1], [-1, -1]])).tolist()[:2] == [
        3.5,
        2,
    ]
    assert np.isnan(metrics.list_mean(np.ones(3), np.array([[-1, -1]])))[0]


def test_diversity_against_brute_force(noise):
    scores, _, _ = noise
    similarity = cosine_similarity(np.random.default_rng(0).normal(size=(60, 5)))
    ranking = metrics.rank(scores, 4)
    pairs = np.triu_indices(4, 1)
    brute = [1 - similarity[np.ix_(row, row)][pairs].mean() for row in ranking]
    np.testing.assert_allclose(metrics.intra_list_diversity(ranking, similarity), brute)


def test_diversity_limits():
    ranking = np.array([[0, 1, 2], [0, 1, -1], [0, -1, -1]])
    np.testing.assert_allclose(metrics.intra_list_diversity(ranking, np.ones((3, 3))), [0, 0, np.nan])
    np.testing.assert_allclose(metrics.intra_list_diversity(ranking, np.eye(3)), [1, 1, np.nan])


def test_coverage_and_gini():
    everybody_the_same = np.tile([3, 7], (50, 1))
    assert metrics.coverage(everybody_the_same, 10) == 0.2
    assert metrics.coverage(np.array([[0, -1], [-1, -1]]), 4) == 0.25
    assert metrics.exposure_gini(np.arange(10).reshape(5, 2), 10) == pytest.approx(0)
    assert metrics.exposure_gini(np.zeros((50, 1), int), 10) == pytest.approx(0.9)  # 1 - 1/products
    exposure = np.array([5, 1, 0, 3])
    brute = np.abs(exposure[:, None] - exposure).sum() / (2 * 4 * exposure.sum())  # the definition, by mean difference
    assert metrics.exposure_gini(np.repeat(np.arange(4), exposure)[:, None], 4) == pytest.approx(brute)


def test_judge_splits_targets(tiny):
    """Shopper 10 buys B again and C for the first time; shopper 20 buys C again and nothing new of the catalogue."""
    judged = evaluation.evaluate(np.array([[3.0, 2, 1], [3, 2, 1]]), tiny, k=1)
    assert judged["all", "ndcg@1"].tolist() == [0, 0]
    assert judged["repeat", "recall@1"].tolist() == [0, 0]
    assert judged["explore", "ndcg@1"].iloc[0] == 1 and np.isnan(judged["explore", "ndcg@1"].iloc[1])
    assert judged.index.tolist() == [10, 20]
    assert ("all", "diversity@1") not in judged
    assert ("all", "diversity@2") in evaluation.evaluate(np.zeros((2, 3)), tiny, 2, np.eye(3))


def test_the_targets_as_scores_are_perfect(tiny):
    judged = evaluation.evaluate(tiny.targets.toarray().astype(float), tiny, k=2)
    for part in evaluation.PARTS:
        assert np.nanmin(judged[part, "ndcg@2"]) == 1


def test_bootstrap_agrees_with_scipy_and_is_seeded():
    values = np.random.default_rng(5).exponential(size=(400, 1))
    mean, low, high = intervals.bootstrap(values, draws=4000, seed=1)
    theirs = stats.bootstrap((values[:, 0],), np.mean, n_resamples=4000, method="percentile", random_state=2)
    assert mean[0] == pytest.approx(values.mean())
    np.testing.assert_allclose([low[0], high[0]], theirs.confidence_interval, atol=0.01)
    assert intervals.bootstrap(values, seed=1)[1] == intervals.bootstrap(values, seed=1)[1]
    assert intervals.bootstrap(values, seed=1)[1] != intervals.bootstrap(values, seed=2)[1]


def test_bootstrap_leaves_out_what_is_missing():
    values = np.array([[1.0, np.nan], [3.0, 7.0], [np.nan, 7.0]])
    mean, low, high = intervals.bootstrap(values)
    assert mean.tolist() == [2, 7] and low[1] == high[1] == 7


def test_bootstrap_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(300, 200))  # 300 shoppers, 200 worlds with a true mean of zero
    _, low, high = intervals.bootstrap(samples)
    assert 0.90 <= ((low < 0) & (high > 0)).mean() <= 0.99


def test_paired_agrees_with_scipy():
    rng = np.random.default_rng(2)
    a = rng.normal(size=60)
    b = a - 0.1 + rng.normal(scale=0.4, size=60)
    ours = intervals.paired(a, b, draws=10_000)
    theirs = stats.permutation_test((a, b), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=20_000)
    assert ours.difference == pytest.approx((a - b).mean())
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.015)
    assert ours.low < ours.difference < ours.high


def test_paired_limits():
    a = np.random.default_rng(0).random(100)
    nothing = intervals.paired(a, a)
    assert nothing.difference == nothing.low == nothing.high == 0 and nothing.p_value == 1
    always = intervals.paired(a + 1, a, draws=999)
    assert always.p_value == 1 / 1000 and always.low == pytest.approx(1)
    assert intervals.paired(np.array([1.0, np.nan]), np.array([0.0, 1])).n == 1
    swapped = intervals.paired(a, a + 1, draws=999)
    assert swapped.difference == -always.difference and swapped.p_value == always.p_value
    with pytest.raises(ValueError, match="100 against 99"):
        intervals.paired(a, a[1:])


@pytest.mark.filterwarnings("error")
def test_no_data_proves_nothing():
    nan = np.nan
    for a, difference, n in [([nan, nan], nan, 0), ([], nan, 0), ([nan, 1.0], 1, 1)]:
        duel = intervals.paired(np.array(a), np.zeros(len(a)))
        assert duel == pytest.approx((difference, nan, nan, nan, n), nan_ok=True)
    mean, low, high = intervals.bootstrap(np.array([[nan, 1, 1], [nan, nan, 3]]))
    assert mean.tolist() == pytest.approx([nan, 1, 2], nan_ok=True)
    assert low.tolist() == pytest.approx([nan, nan, 1], nan_ok=True) and high[2] == 3


def test_resampling_draws_shoppers_with_replacement_and_in_blocks_the_same():
    """Many shoppers are drawn a few resamples at a time; what is kept in bytes is what multinomial gives."""
    values = np.random.default_rng(6).normal(size=(300, 2))
    values[::3, 1] = np.nan
    whole, duel = intervals.bootstrap(values), intervals.paired(*values.T)
    drawn = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), size=1000)
    limits = np.quantile(drawn @ values[:, 0] / 300, [0.025, 0.975])
    np.testing.assert_allclose([whole[1][0], whole[2][0]], limits, rtol=1e-12)
    few = 300 * 64
    np.testing.assert_allclose(intervals.bootstrap(values, at_once=few), whole, rtol=1e-12)
    in_blocks = intervals.paired(*values.T, at_once=few)
    np.testing.assert_allclose(in_blocks[:3], duel[:3], rtol=1e-12)
    assert in_blocks.p_value == pytest.approx(duel.p_value, abs=0.02)


def test_paired_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(1)
    p_values = [intervals.paired(*rng.normal(size=(2, 40)), draws=300).p_value for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.10


def test_scoreboard_is_tidy(tiny, tmp_path):
    heard = []
    methods = {"best": lambda split: split.targets.toarray().astype(float), "none": lambda split: np.zeros((2, 3))}
    board = evaluation.scoreboard(tiny, methods, k=2, announce=heard.append)
    assert heard == ["best", "none"]
    assert not board.duplicated(["method", "split", "metric"]).any()
    ndcg = board[board["metric"] == "ndcg@2"].set_index(["method", "split"])["value"]
    assert (ndcg["best"] == 1).all() and (ndcg["none"] <= 1).all()
    behind = board[board["metric"] == "ndcg@2 against best"].set_index("split")
    assert set(behind["method"]) == {"none"} and behind.loc["all", "value"] == pytest.approx(ndcg["none", "all"] - 1)
    rows = evaluation.result_rows(board, tiny)
    assert rows[0] == {"split": "all", "metric": "shoppers", "value": 2, "cut": "2011-02-01"}
    save_results("board", rows, command="c", data=DATA, seconds=1, folder=tmp_path)  # all of it can be kept


# --- Results on record -------------------------------------------------------------------------------------------

DATA = {"name": "a shop", "sha256": "0" * 64, "rows": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The results of an empty checkout that the package seems to run from."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(results_files.freshness, "PACKAGE", tmp_path / "recbook")
    return tmp_path / "results"


def test_results_come_back_as_they_went(folder):
    rows = [{"metric": "ndcg@10", "value": np.float32(0.5), "n": np.int64(7)}]
    assert not has_results("trial")
    path = save_results("trial", rows, command="recbook trial", data=DATA, seconds=1.26)
    assert path == folder / "trial.json" and has_results("trial")
    content = load_results("trial")
    assert list(content) == ["name", "command", "data", "code", "commit", "machine", "seconds", "rows"]
    assert content["rows"] == [{"metric": "ndcg@10", "value": 0.5, "n": 7}] and content["seconds"] == 1.3
    assert [p.name for p in folder.iterdir()] == ["trial.json"]  # nothing half-written is left beside it


@pytest.mark.parametrize("value", [float("nan"), np.arange(3), {1, 2}])
def test_what_is_no_figure_is_refused_and_the_old_file_stays(folder, value):
    save_results("trial", [], command="c", data=DATA, seconds=1)
    with pytest.raises((ValueError, TypeError)):
        save_results("trial", [{"value": value}], command="c", data=DATA, seconds=1)
    assert load_results("trial")["rows"] == [] and len(list(folder.iterdir())) == 1


def test_results_need_a_good_name_folder_and_data(folder, tmp_path):
    for name in ("../up", "A B", "", ".hidden"):
        with pytest.raises(ValueError, match="cannot be named"):
            has_results(name)
    with pytest.raises(ValueError, match="exactly name, sha256 and rows"):
        save_results("trial", [], command="c", data={"name": "x"}, seconds=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="name another folder"):
        results_path("trial", tmp_path / "file" / "below")
    with pytest.raises(FileNotFoundError, match="run the benchmark"):
        load_results("never-measured")


def test_the_installed_package_carries_its_results(tmp_path, monkeypatch):
    monkeypatch.setattr(results_files.freshness, "PACKAGE", tmp_path / "recbook")
    (tmp_path / "recbook" / "results").mkdir(parents=True)
    (tmp_path / "recbook" / "results" / "kept.json").write_text('{"rows": []}')
    assert load_results("kept") == {"rows": []}
    assert commit().startswith("recbook ")  # no checkout: the version


def test_machine_names_no_host():
    import platform

    assert "core" in machine() and (platform.node() or "?") not in machine()


def test_data_goes_by_its_content_or_its_own_name(tmp_path):
    frame = pd.DataFrame({"InvoiceNo": ["1"]})
    described = describe_data(frame, tmp_path / "till.csv")
    assert described["name"] == "till.csv" and described["rows"] == 1 and len(described["sha256"]) == 64


@pytest.mark.parametrize(
    "name, slug",
    [("Online Retail", "online-retail"), ("my_shop.csv.gz", "my-shop"), ("Été 2011.XLSX", "t-2011"), ("…", "receipts")],
)
def test_a_name_as_part_of_a_files_name(name, slug):
    assert results_files.slug(name) == slug
