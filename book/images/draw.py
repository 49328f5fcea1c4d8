"""Draw the README's pictures: `python book/images/draw.py`, after `make html`.

chapter.png is a screenshot of a rendered page (Chromium has to be installed). recommendation.png shows the blend of
Chapter 2 for one shopper, drawn by lot, with the reason for each product and what the shopper really bought next.
"""

import shutil
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from recbook.baselines import evaluation, models
from recbook.book import workshop
from recbook.cleaning import receipts

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "_build" / "html" / "03_embeddings.html"


def screenshot(page: Path, target: Path, top: int, height: int) -> None:
    """Write the part of a rendered page that begins `top` pixels down."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size=1280,{top + height}"]
    subprocess.run(
        [chromium, *options, "--virtual-time-budget=4000", f"--screenshot={target}", page.as_uri()], check=True
    )
    with Image.open(target) as image:
        image.crop((0, top, 1280, top + height)).save(target, optimize=True)


def recommendation(target: Path, seed: int = 0) -> None:
    """Draw one shopper's history, three products to buy again and three new ones, the reasons, and what came true."""
    clean = workshop.cleaned().receipts
    split = evaluation.next_basket(clean, evaluation.default_cut(clean))
    names = receipts.descriptions(clean)
    baskets = receipts.baskets(split.receipts)
    several = [row for row in range(len(split.shoppers)) if split.counts[row].nnz >= 8]
    row = int(np.random.default_rng(seed).choice(several))
    history = baskets[baskets["customer"] == split.shoppers[row]]
    lists = evaluation.top_lists(models.blend(split), split, 3)
    best = [*lists["repeat"][row], *lists["explore"][row]]
    weights = models.ease_weights(models.shoppers_by_products(split), l2=200)
    bought = split.counts[row].toarray()[0]
    lines = []
    for product in best:
        partner = int(np.argmax(np.where(bought > 0, weights[:, product], -np.inf)))
        times = int(bought[product])
        reason = (
            f"bought on {times} visits"
            if times > 1
            else "bought once"
            if times
            else f"goes with {names[split.codes[partner]]}"
        )
        lines.append((names[split.codes[product]], reason, bool(split.targets[row, product])))
    draw(target, history, names, lines)


def draw(target: Path, history, names: dict[str, str], lines: list[tuple[str, str, bool]]) -> None:
    """Lay out the history on the left and the recommendations on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.1), width_ratios=[1, 1.15], layout="constrained")
    left.set_title("The last baskets of a shopper", loc="left", fontweight="bold")
    right.set_title("Recommended, and why (✓ was in the next basket)", loc="left", fontweight="bold")
    y = 0.97
    for _, basket in history.tail(3).iloc[::-1].iterrows():
        left.text(
            0, y, f"{basket['date']:%d %B}, {len(basket['codes'])} products", fontsize=10, weight="bold", va="top"
        )
        for code in basket["codes"][:3]:
            y -= 0.075
            left.text(0.03, y, short(names[code]), fontsize=9.5, va="top")
        y -= 0.12
    for place, (name, reason, hit) in enumerate(lines):
        top = 0.97 - 0.165 * place
        right.text(0, top, "✓" if hit else "·", fontsize=15, va="top", color="#41703f", weight="bold")
        right.text(0.05, top, short(name), fontsize=10.5, va="top", weight="bold")
        right.text(0.05, top - 0.07, short(reason, 62), fontsize=9.5, va="top", color="#55606b")
    for axes in (left, right):
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.axis("off")
    figure.savefig(target, dpi=110, facecolor="white")


def short(text: str, length: int = 52) -> str:
    """A text cut at a word, so that it fits its line."""
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0].rstrip(",") + " …"


if __name__ == "__main__":
    recommendation(HERE / "recommendation.png")
    screenshot(PAGE, HERE / "chapter.png", top=0, height=860)
