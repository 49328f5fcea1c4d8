"""What several test files share."""

from contextlib import nullcontext

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


@pytest.fixture
def elsewhere(monkeypatch):
    """A device beside the CPU, where no GPU is. PyTorch fuses no optimizer for it, so models learn by plain SGD."""
    torch = pytest.importorskip("torch")
    from recbook.training import loop
    from tests.fake_device import ELSEWHERE, FakeDevice

    made = torch.tensor  # on a meta device it would not compute
    monkeypatch.setattr(torch, "tensor", lambda data, device=None, **how: made(data, **how).to(device or "cpu"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(loop, "make_optimizers", lambda model, _: [torch.optim.SGD(model.parameters())])
    with FakeDevice():
        yield ELSEWHERE


@pytest.fixture(scope="session")
def small_shop():
    """A whole recommender of the embedded shop whose models hardly learned: half a minute, then shared."""
    for name in ("torch", "lightgbm", "faiss"):
        pytest.importorskip(name)
    from recbook.cleaning import shop
    from recbook.system.build import RecommenderConfig
    from recbook.system.recommender import Recommender

    return Recommender.build(shop.simulate().receipts, RecommenderConfig.tiny(), say=None)
