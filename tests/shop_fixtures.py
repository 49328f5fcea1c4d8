"""The embedded shop and what is counted from it, made once for all test files. A test changes none of it."""

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def shop():
    """The embedded shop: its raw receipts, and the truth behind them."""
    from recbook.cleaning.shop import simulate

    return simulate(seed=0)


@pytest.fixture(scope="session")
def cleaned(shop):
    """Its clean receipts, the lines removed, and the audit of the rules."""
    from recbook.cleaning.receipts import clean

    return clean(shop.receipts)


@pytest.fixture(scope="session")
def clean_receipts(cleaned) -> pd.DataFrame:
    """Its clean receipts alone."""
    return cleaned.receipts


@pytest.fixture(scope="session")
def goods(shop, clean_receipts) -> pd.DataFrame:
    """Its products with their true attributes."""
    from recbook.lora.instructions import goods_table

    return goods_table(clean_receipts, shop.products)


@pytest.fixture(scope="session")
def fact_store(shop, clean_receipts):
    """What may be said of its shoppers and products a month before the last receipts."""
    from recbook.narratives.fact_store import FactStore

    return FactStore(clean_receipts, pd.Timestamp("2011-11-09"), shop.products)


@pytest.fixture(scope="session")
def fact_subsets(fact_store):
    """Its shoppers and products to train on, and a fifth of each held out."""
    from recbook.narratives.fact_store import split_facts

    return split_facts(fact_store, 0.2)


@pytest.fixture(scope="session")
def claim_checker(fact_store):
    """The claim checker that knows its products."""
    from recbook.narratives.claim_checker import ClaimChecker

    return ClaimChecker(fact_store)
