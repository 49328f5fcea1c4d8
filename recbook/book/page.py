"""What all chapters' pages share: the opening, the picture of the whole system, the figures' style, shown source."""

import inspect
from collections.abc import Callable
from importlib.metadata import metadata

from IPython.display import HTML, Code, display

from recbook.baselines.results import has_results, load_results

# The system that the book builds, left to right: the stage, what it does, the chapters that teach it.
STAGES = [
    ("receipts", "clean", ["01_cleaning"]),
    ("measure", "baselines", ["02_baselines"]),
    ("embed", "text to vectors", ["03_embeddings"]),
    ("retrieve", "FAISS", ["04_search"]),
    ("language model", "GPT", ["05_tokens", "06_gpt", "07_training", "08_generation"]),
    ("next basket", "BasketGPT", ["09_baskets"]),
    ("adapt, shrink", "LoRA, NF4", ["10_lora", "11_quantization"]),
    ("rank", "rerankers", ["12_ranking"]),
    ("explain", "narratives", ["14_narratives"]),
    ("distil, serve", "student", ["16_distillation", "18_clicks", "19_trials", "21_serving", "22_system"]),
]


def repository() -> str:
    """The address of the book's repository, as the package's metadata (pyproject.toml) states it."""
    urls = dict(entry.split(", ", 1) for entry in metadata("recbook").get_all("Project-URL", []))
    return urls["Repository"]


def opening(chapter: str) -> None:
    """Show a chapter's head: the link to Colab, the cost as last measured, the map of the system."""
    owner_and_name = repository().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/book/{chapter}.ipynb"
    style()
    display(HTML(f'<p><a class="colab" href="{colab}">Open this chapter in Colab</a> · {cost(chapter)}</p>'))
    display(HTML(system_map(chapter)))


def cost(chapter: str) -> str:
    """Time and memory of a whole run on two CPU cores, as a phrase, from results/chapters.json."""
    rows = load_results("chapters")["rows"] if has_results("chapters") else []
    figures = {row["metric"]: row["value"] for row in rows if row["chapter"] == chapter}
    if not figures:
        return "not yet measured"
    return f"{figures['seconds']:.0f} seconds and {figures['peak_gb']:.1f} GB on two CPU cores, as last measured"


def system_map(chapter: str) -> str:
    """The system as a row of stages in HTML, with the stage that `chapter` teaches highlighted; wraps when narrow."""
    lit = "border:2px solid #b3541e;background:#fdf0e6;color:#3d1c08;font-weight:600"
    dim = "border:1px solid #b8b8b8;background:transparent"
    boxes = []
    for stage, what, chapters in STAGES:
        box = lit if chapter in chapters else dim
        here = ' aria-current="step"' if chapter in chapters else ""
        boxes.append(
            f'<span{here} style="{box};border-radius:6px;padding:4px 8px;display:inline-block;line-height:1.25">'
            f'{stage}<br><small style="font-weight:400">{what}</small></span>'
        )
    arrow = '<span style="opacity:.6">→</span>'
    row = "display:flex;flex-wrap:wrap;align-items:center;gap:6px;margin:.6em 0;font-size:.8em;text-align:center"
    return f'<div class="system-map" style="{row}">{arrow.join(boxes)}</div>'


def style() -> None:
    """Set the style of figures and tables: readable at the page's width and in grey-scale, descriptions not cut off."""
    import matplotlib.pyplot as plt
    import pandas as pd

    pd.set_option("display.max_colwidth", 90)
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.8),
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "font.size": 10.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11.5,
            "axes.prop_cycle": plt.cycler(color=["#1b4f72", "#d9822b", "#5b8c5a", "#9b2d30", "#8e7cc3", "#6b6b6b"]),
            "legend.frameon": False,
        }
    )


def source(thing: Callable | type) -> Code:
    """The source of a function or class of the package, highlighted, without its docstring's indentation lost."""
    return Code(inspect.getsource(thing).rstrip(), language="python")
