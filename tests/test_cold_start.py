"""What to expect of somebody nobody knows: shares counted by hand."""

import numpy as np
import pandas as pd
import pytest

from recbook import cold_start

CODES, WHEN = np.array(["A", "B", "C"]), pd.Timestamp("2011-06-01")


def lines(*rows):
    """(days before, code, country), a customer and an invoice each."""
    table = pd.DataFrame(rows, columns=["before", "code", "country"])
    date = WHEN - pd.to_timedelta(table["before"], unit="D")
    return table.assign(date=date, customer=range(len(table)), invoice=[str(row) for row in range(len(table))])


def test_a_sale_halves_with_its_age():
    sold = lines((20, "A", "UK"), (40, "B", "UK"), (1e-6, "C", "UK"))
    assert cold_start.popular(sold, CODES, WHEN) == pytest.approx(np.array([0.5, 0.25, 1]) / 1.75, abs=1e-6)


def test_what_comes_after_or_is_not_in_the_catalogue_counts_nothing():
    sold = lines((20, "A", "UK"), (0, "B", "UK"), (-3, "C", "UK"), (1, "Z", "UK"))
    assert cold_start.popular(sold, CODES, WHEN).tolist() == [1, 0, 0]


def test_the_coming_weeks_a_year_ago_count_too():
    sold = lines((10, "A", "UK"), (360, "B", "UK"), (366, "C", "UK"), (330, "C", "UK"))  # only B fell in those weeks
    plain = np.array([0.5 ** (10 / 20), 0.5 ** (360 / 20), 0.5 ** (366 / 20) + 0.5 ** (330 / 20)])
    season = cold_start.SEASON
    expected = (plain / plain.sum() + season * np.array([0, 1, 0])) / (1 + season)
    assert cold_start.popular(sold, CODES, WHEN) == pytest.approx(expected)


def test_a_country_is_shrunk_to_the_whole_shop():
    sold = lines((1, "A", "UK"), (1, "A", "UK"), (1, "B", "Spain"))
    whole = cold_start.popular(sold, CODES, WHEN)
    spain = cold_start.popular(sold, CODES, WHEN, "Spain")
    assert spain == pytest.approx((np.array([0, 1, 0]) + cold_start.TRUST * whole) / (1 + cold_start.TRUST))
    for unknown in ("UK", "Atlantis", ""):  # the country with most lines is the shop
        assert cold_start.popular(sold, CODES, WHEN, unknown) == pytest.approx(whole)


def test_with_many_lines_a_country_speaks_for_itself():
    abroad = [(300, "C", "Spain")] * 20_000
    sold = pd.concat([lines(*abroad), lines(*[(1, "A", "UK")] * 30_000).assign(customer=lambda t: t["customer"] + 1e6)])
    assert cold_start.popular(sold, CODES, WHEN, "Spain")[2] > 0.98


def test_nothing_sold_is_said():
    with pytest.raises(ValueError, match="nothing of the catalogue was sold before 2011-06-01"):
        cold_start.popular(lines((-1, "A", "UK")), CODES, WHEN)
