"""What several test files share."""

import pytest

pytest_plugins = ["tests.shop_fixtures"]


@pytest.fixture(scope="module")
def one_thread():
    """For models so small that they only wait for a second thread."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_shop():
    """A whole recommender of the embedded shop whose models hardly learned: half a minute, then shared."""
    for name in ("torch", "lightgbm", "faiss"):
        pytest.importorskip(name)
    from recbook.cleaning import shop
    from recbook.system.build import RecommenderConfig
    from recbook.system.recommender import Recommender

    return Recommender.build(shop.simulate().receipts, RecommenderConfig.tiny(), say=None)
