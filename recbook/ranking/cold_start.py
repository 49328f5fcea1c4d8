"""Cold start: a shopper without a history is offered what sells now, at this time of year, where they live."""

import numpy as np
import pandas as pd

POPULARITY_HALF_LIFE = 7.0  # days after which a purchase has half its weight
SEASON_WEIGHT = 0.1  # weight of what sold in the coming weeks a year ago, beside what sells now; chosen on other shops
YEAR, COMING = pd.Timedelta(days=365), pd.Timedelta(days=28)
COUNTRY_PRIOR = 300.0  # purchases of a country at which its own shares weigh as much as the whole shop's


def popular_now(receipts: pd.DataFrame, codes: np.ndarray, when: pd.Timestamp, country: str = "") -> np.ndarray:
    """Expected shares of purchases, (products,) float64, that sum to one: by recency, by season, by country.

    A shopper counts once for a product, by their last purchase, with a weight that halves every POPULARITY_HALF_LIFE
    days. Where the receipts reach back a whole year, purchases of the four weeks that followed this day a year ago
    count too. A `country` other than the one with most purchases has shares of its own, shrunk towards the whole
    shop's: the fewer its purchases, the more. ValueError if nothing was sold before.
    """
    lines = receipts[(receipts["date"] < when) & receipts["code"].isin(codes)].sort_values("date", kind="stable")
    if lines.empty:
        raise ValueError(f"nothing of the catalogue was sold before {when:%Y-%m-%d}: there is nothing to expect")
    bought = lines.drop_duplicates(["customer", "code"], keep="last")
    now = _shares(bought, codes, 0.5 ** ((when - bought["date"]) / pd.Timedelta(days=1) / POPULARITY_HALF_LIFE))
    if lines["date"].iloc[0] <= when - YEAR:
        coming = lines[lines["date"].between(when - YEAR, when - YEAR + COMING)].drop_duplicates(["customer", "code"])
        now = (now + SEASON_WEIGHT * _shares(coming, codes)) / (1 + SEASON_WEIGHT) if len(coming) else now
    theirs = bought[bought["country"] == country]
    if theirs.empty or country == bought["country"].mode()[0]:
        return now
    return (len(theirs) * _shares(theirs, codes) + COUNTRY_PRIOR * now) / (len(theirs) + COUNTRY_PRIOR)


def _shares(bought: pd.DataFrame, codes: np.ndarray, weights: pd.Series | None = None) -> np.ndarray:
    counts = np.bincount(pd.Index(codes).get_indexer(bought["code"]), weights, minlength=len(codes))
    return counts / counts.sum()
