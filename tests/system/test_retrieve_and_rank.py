"""The two-stage recommender: it gives what the parts of Chapter 12 give one by one."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook.embeddings.encoder import encode
from recbook.ranking.cold_start import popular_now
from recbook.ranking.rankers import BlendedRanker, Shopper, TextRanker, rank_candidates
from recbook.search import queries
from recbook.system.retrieve_and_rank import (
    FOUND_PER_CHANNEL,
    MOST_CANDIDATES,
    NEAREST_KNOWN,
    NEW_PRODUCT_CHANNEL,
    first_channels,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shopper(small_shop):
    customer = small_shop.customers[7]
    return small_shop.shopper(customer)


@pytest.fixture(scope="module")
def everything(small_shop):
    """A mask of the known products."""
    return np.arange(len(small_shop.two_stage.codes)) < small_shop.two_stage.known


def test_scores_are_those_of_lambdarank(small_shop, shopper, everything):
    found = small_shop.two_stage.find(shopper, None, everything)
    expected = small_shop.two_stage.ranker.score(shopper, None, found.codes.tolist())
    assert np.allclose(found.scores, expected, atol=1e-4) and (np.diff(found.scores) <= 0).all()
    assert 100 < len(found.codes) <= MOST_CANDIDATES and len(set(found.codes)) == len(found.codes)


def test_a_query_weighs_as_much_as_the_shopper(small_shop, shopper, everything):
    two_stage, known = small_shop.two_stage, small_shop.two_stage.index
    both = BlendedRanker([(two_stage.ranker, 1.0), (TextRanker(known, encode), 1.0)])
    codes = two_stage.split.codes.tolist()
    hits = queries.by_text(known, ["blue mug"], encode, FOUND_PER_CHANNEL, among=codes).codes[0].tolist()
    expected = rank_candidates(both, shopper, "blue mug", hits, k=10)
    found = two_stage.find(shopper, "blue mug", everything)
    assert found.codes[:10].tolist() == expected["code"].tolist()
    assert np.allclose(found.scores[:10], expected["score"], atol=1e-4)


def test_an_unknown_shopper_gets_what_is_popular(small_shop, everything):
    two_stage = small_shop.two_stage
    found = two_stage.find(Shopper([], small_shop.moment), None, everything)
    shares = popular_now(two_stage.split.receipts, two_stage.split.codes, two_stage.split.cut)
    assert shares[[two_stage.column[code] for code in found.codes[:5]]].tolist() == sorted(shares)[::-1][:5]


def test_a_new_product_has_the_mean_score_of_its_nearest_known_products(small_shop, shopper):
    copied = small_shop.catalogue.iloc[10]
    more = small_shop.add(pd.DataFrame({"description": [copied.description + " new"], "price": [3.0]}, index=["N1"]))
    two_stage = more.two_stage
    found = two_stage.find(shopper, None, np.ones(len(two_stage.codes), bool))
    vectors = more.vectors.loc[two_stage.codes].to_numpy()
    near = np.argsort(-(vectors[: two_stage.known] @ vectors[-1]), kind="stable")[:NEAREST_KNOWN]
    assert 10 in near
    score = dict(zip(found.codes.tolist(), found.scores, strict=True))
    expected = two_stage.ranker.score(shopper, None, two_stage.codes[near].tolist()).mean()
    assert np.isclose(score["N1"], expected, atol=1e-4)
    assert found.channels[found.codes.tolist().index("N1")] == NEW_PRODUCT_CHANNEL


def test_only_what_is_allowed_is_found(small_shop, shopper, everything):
    nothing = np.zeros(len(everything), bool)
    few = nothing.copy()
    few[[5, 6, 7]] = True
    for query in (None, "a mug"):
        found = small_shop.two_stage.find(shopper, query, few)
        assert set(found.codes) == set(small_shop.two_stage.codes[few])
        assert len(small_shop.two_stage.find(shopper, query, nothing).codes) == 0


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("new", [0, 3])
def test_as_many_are_found_as_were_asked_for_or_all(small_shop, shopper, share, new):
    """The channels look only at what is allowed, so a narrow filter costs no product that it allows."""
    descriptions = [f"{colour} dragon teapot" for colour in ("red", "green", "blue")[:new]]
    unsold = pd.DataFrame({"description": descriptions, "price": 3.0}, index=[f"N{n}" for n in range(new)])
    two_stage = (small_shop.add(unsold) if new else small_shop).two_stage
    allowed = np.random.default_rng(0).random(len(two_stage.codes)) < share
    for asked in (shopper, Shopper([], shopper.when)):
        for query, fast in ((None, False), (None, True), ("a mug", False)):
            found = two_stage.find(asked, query, allowed, fast, most=200).codes
            assert min(200, allowed.sum()) <= len(found) == len(set(found))
            assert set(found) <= set(two_stage.codes[allowed])


def test_the_only_allowed_product_is_found(small_shop, shopper):
    two_stage = small_shop.two_stage
    for column in (0, two_stage.known - 1, len(two_stage.codes) - 1):
        allowed = np.arange(len(two_stage.codes)) == column
        assert two_stage.find(shopper, None, allowed).codes.tolist() == [two_stage.codes[column]]


@pytest.mark.parametrize("fast", [False, True])
def test_reasons_have_an_effect_on_the_model_that_ranked_largest_first(small_shop, shopper, fast):
    two_stage = small_shop.two_stage
    codes = small_shop.catalogue.index[::40].tolist()
    named = 0
    for code, reasons in zip(codes, two_stage.reasons(shopper, codes, fast), strict=True):
        why = (two_stage.student if fast else two_stage.model).why(shopper.history, code, shopper.when)
        effects = why.set_index("code")["effect"][reasons]
        assert (effects > -1e-5).all() and (np.diff(effects) <= 1e-4).all()
        named += bool(reasons)
    assert named and two_stage.reasons(Shopper([], shopper.when), codes[:1]) == [[]]


def test_a_product_is_no_reason_for_itself(small_shop, shopper):
    bought = shopper.history[0][1][0]
    assert bought not in small_shop.two_stage.reasons(shopper, [bought, small_shop.catalogue.index[20]])[0]


def test_the_channel_is_the_one_that_ranks_a_product_highest():
    lists = {"one": np.array([4, 2, -1]), "two": np.array([2, 4, 7])}
    assert first_channels(np.array([2, 4, 7]), lists) == ["two", "one", "two"]
