"""The oldest releases that pyproject.toml allows do work: Colab's own packages are often older than the lock."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recbook.cleaning import receipts, schema, shop

ROOT = Path(__file__).parents[2]
CHECK = """
from recbook.baselines import evaluation, models
from recbook.cleaning import receipts, shop
from recbook.cleaning.schema import receipts_fingerprint
clean = receipts.clean(shop.simulate(seed=0).receipts).receipts
split = evaluation.next_basket(clean, evaluation.default_cut(clean))
board = evaluation.scoreboard(split, models.BASELINES)
print(receipts_fingerprint(clean), board["value"].notna().all())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the oldest NumPy allowed has no wheel for this Python")
def test_the_shop_is_the_same_on_the_oldest_packages_allowed(tmp_path):
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = [re.sub(r">=([\d.]+).*", r"==\1.*", requirement) for requirement in wanted]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path), *oldest]
    subprocess.run(install, check=True, capture_output=True)
    command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{CHECK}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    here = schema.receipts_fingerprint(receipts.clean(shop.simulate(seed=0).receipts).receipts)
    assert printed == [here, "True"]
