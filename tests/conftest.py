"""What several test files share."""

import subprocess
import sys
from pathlib import Path

import pytest

import build_book


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """The folder of the book's HTML, rendered from the committed notebooks with warnings as errors."""
    out = tmp_path_factory.mktemp("rendered")
    command = [sys.executable, build_book.__file__, "html", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "_build" / "html"


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
