"""Cold start: the expected shares of purchases, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from recbook.ranking.cold_start import COUNTRY_PRIOR, POPULARITY_HALF_LIFE, SEASON_WEIGHT, popular_now

CODES, WHEN = np.array(["A", "B", "C"]), pd.Timestamp("2011-06-01")
HALF_LIFE = POPULARITY_HALF_LIFE


def lines(*rows):
    """(days before, code, country), each by a shopper of their own."""
    table = pd.DataFrame(rows, columns=["before", "code", "country"])
    return table.assign(date=WHEN - pd.to_timedelta(table["before"], unit="D"), customer=range(len(table)))


def test_a_purchase_halves_with_its_age():
    sold = lines((HALF_LIFE, "A", "UK"), (2 * HALF_LIFE, "B", "UK"), (1e-6, "C", "UK"))
    assert popular_now(sold, CODES, WHEN) == pytest.approx(np.array([0.5, 0.25, 1]) / 1.75, abs=1e-6)


def test_a_shopper_counts_once_by_the_last_purchase():
    sold = lines((HALF_LIFE, "A", "UK"), (1e-6, "B", "UK"), (5 * HALF_LIFE, "B", "UK")).assign(customer=[1, 2, 2])
    assert popular_now(sold, CODES, WHEN) == pytest.approx(np.array([0.5, 1, 0]) / 1.5, abs=1e-6)


def test_what_comes_after_or_is_not_in_the_catalogue_counts_nothing():
    sold = lines((20, "A", "UK"), (0, "B", "UK"), (-3, "C", "UK"), (1, "Z", "UK"))
    assert popular_now(sold, CODES, WHEN).tolist() == [1, 0, 0]


def test_the_coming_weeks_a_year_ago_count_once_there_is_a_year():
    recent = [(10, "A", "UK"), (330, "C", "UK"), (360, "B", "UK")]  # only B fell in those weeks
    plain = np.array([0.5 ** (10 / HALF_LIFE), 0.5 ** (360 / HALF_LIFE), 0.5 ** (330 / HALF_LIFE)])
    assert popular_now(lines(*recent), CODES, WHEN) == pytest.approx(plain / plain.sum())
    season = SEASON_WEIGHT
    expected = (plain / plain.sum() + season * np.array([0, 1, 0])) / (1 + season)
    whole = lines(*recent, (400, "C", "UK"))
    assert popular_now(whole, CODES, WHEN) == pytest.approx(expected, abs=1e-6)


def test_a_country_is_shrunk_to_the_whole_shop():
    sold = lines((1, "A", "UK"), (1, "A", "UK"), (1, "B", "Spain"))
    whole = popular_now(sold, CODES, WHEN)
    spain = popular_now(sold, CODES, WHEN, "Spain")
    assert spain == pytest.approx((np.array([0, 1, 0]) + COUNTRY_PRIOR * whole) / (1 + COUNTRY_PRIOR))
    for unknown in ("UK", "Atlantis", ""):  # the country with most purchases is the shop
        assert popular_now(sold, CODES, WHEN, unknown) == pytest.approx(whole)


def test_with_many_purchases_a_country_is_hardly_shrunk():
    sold = lines(*[(300, "C", "Spain")] * 20_000, *[(1, "A", "UK")] * 30_000)
    assert popular_now(sold, CODES, WHEN, "Spain")[2] > 0.98


def test_nothing_sold_is_said():
    with pytest.raises(ValueError, match="nothing of the catalogue was sold before 2011-06-01"):
        popular_now(lines((-1, "A", "UK")), CODES, WHEN)
