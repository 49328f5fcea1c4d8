"""What to offer somebody whom nobody knows: what sells now, at this time of year, where they live."""

import numpy as np
import pandas as pd

FRESH = 20.0  # days after which a sale weighs half
SEASON = 0.5  # weight of what sold in the coming weeks a year ago, beside what sells now
WEEKS = 4  # how many weeks are looked at, a year ago
TRUST = 300.0  # lines of a country after which its own sales weigh as much as the whole shop's


def popular(receipts: pd.DataFrame, codes: np.ndarray, when: pd.Timestamp, country: str = "") -> np.ndarray:
    """Shares of sales to expect, (products,) float64, that add up to one: by recency, by season, by country.

    A line counts one whatever its quantity, and half as much after FRESH days. Where the receipts reach back a year,
    the weeks that followed this day then count too. A `country` other than the one with most lines has sales of its
    own, shrunk to the whole shop's: the fewer lines it has, the more. ValueError if nothing was sold before.
    """
    lines = receipts[(receipts["date"] < when) & receipts["code"].isin(codes)]
    lines = lines.drop_duplicates(["customer", "invoice", "code"])
    if lines.empty:
        raise ValueError(f"nothing of the catalogue was sold before {when:%Y-%m-%d}: there is nothing to expect")
    column, age = pd.Index(codes).get_indexer(lines["code"]), (when - lines["date"]) / pd.Timedelta(days=1)
    now = _shares(np.bincount(column, 0.5 ** (age / FRESH), minlength=len(codes)))
    year_ago = ((age <= 365) & (age > 365 - 7 * WEEKS)).to_numpy()
    if year_ago.any():
        then = _shares(np.bincount(column[year_ago], minlength=len(codes)))
        now = (now + SEASON * then) / (1 + SEASON)
    theirs = (lines["country"] == country).to_numpy()
    if not theirs.any() or country == lines["country"].mode()[0]:
        return now
    return _shares(np.bincount(column[theirs], minlength=len(codes)) + TRUST * now)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()
