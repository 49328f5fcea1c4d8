"""The stages of a build: settings go to JSON and back, past cuts lie before the moment, stages are named and timed."""

import json
import time

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook.system import build as build_stages
from recbook.system.build import RecommenderConfig, day_after_last, fit_lambdarank, timed_stage


@pytest.mark.parametrize("settings", [RecommenderConfig(), RecommenderConfig.tiny()])
def test_settings_come_back_from_json(settings):
    assert RecommenderConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError):
        RecommenderConfig.from_dict(RecommenderConfig().to_dict() | {"trees": {"leafs": 3}})


def test_the_moment_is_the_day_after_the_last_receipt():
    receipts = pd.DataFrame({"date": pd.to_datetime(["2011-03-01 09:00", "2011-03-04 17:30"])})
    assert day_after_last(receipts) == pd.Timestamp("2011-03-05")


def test_a_mistyped_year_is_named():
    dates = pd.date_range("2011-01-01", periods=2000, freq="h").tolist() + [pd.Timestamp("2021-03-04")]
    with pytest.raises(ValueError, match="2021-03-04, nearly all others of 2011-03"):
        day_after_last(pd.DataFrame({"date": dates}))


def test_a_stage_is_named_and_timed():
    seconds, said = {}, []
    with timed_stage("wait", seconds, said.append):
        time.sleep(0.02)
    assert said == ["wait …"] and 0.02 <= seconds["wait"] < 2
    with pytest.raises(RuntimeError), timed_stage("fail", seconds, None):
        raise RuntimeError
    assert "fail" not in seconds


def test_the_trees_learn_from_cuts_before_the_moment_alone(small_shop, monkeypatch):
    cuts = []
    real = build_stages.evaluation.next_basket

    def noted(receipts, cut, least):
        cuts.append(cut)
        return real(receipts, cut, least)

    monkeypatch.setattr(build_stages.evaluation, "next_basket", noted)
    settings = RecommenderConfig(trees=RecommenderConfig.tiny().trees, months=2)
    ranker = fit_lambdarank(small_shop.receipts, small_shop.vectors, settings)
    assert cuts == [small_shop.moment - pd.DateOffset(months=month) for month in (1, 2)]
    assert len(ranker.trees) == 1 and ranker.settings.gpt_weight > 0 and ranker.features is None


def test_a_shop_too_young_to_have_past_baskets_is_named(small_shop):
    young = small_shop.receipts[small_shop.receipts["date"] >= small_shop.moment - pd.Timedelta(days=20)]
    assert np.ptp(young["date"]) < pd.Timedelta(days=28)
    with pytest.raises(ValueError, match="no past baskets to learn to rank from"):
        fit_lambdarank(young, small_shop.vectors, RecommenderConfig.tiny())
