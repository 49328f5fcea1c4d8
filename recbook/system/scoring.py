"""`recbook score`: measures the baselines and the BasketGPT on receipts, prints a table, saves the figures."""

import shlex
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recbook.cleaning.schema import printable

if TYPE_CHECKING:
    from recbook.baselines.evaluation import Split

EMBEDDED = "embedded"  # the embedded shop's name on the command line
SUSPICIOUS_SHARE = 0.05  # share of customers' lines whose codes are no product's: above it, warn that codes may differ


def score_command(
    source: str,
    cut: str | None,
    baselines: bool,
    product_code: str | None,
    date_format: str | None,
    out: str | None,
    name: str | None,
) -> None:
    """Clean the receipts, split them at the cut, score every method, print the scoreboard and save it.

    `source`: see `receipts_of`. `cut`: a date, year-month-day. ValueError or OSError says what is wrong with the input.
    """
    from recbook.baselines import evaluation, models
    from recbook.baselines.results import describe_data, results_path, save_results
    from recbook.cleaning import receipts

    start = time.perf_counter()
    methods = models.BASELINES | ({} if baselines else _gpt())
    report(f"reading {source}")
    raw = receipts_of(source, date_format)
    data = describe_data(raw, "embedded shop" if source == EMBEDDED else source)
    report(f"cleaning {len(raw):,} lines of {data['name']}")
    clean, _, audit = receipts.clean(raw, product_code or receipts.PRODUCT_CODE)
    report_cleaning(audit)
    usual = evaluation.default_cut(clean)
    asked = usual if cut is None else pd.Timestamp(cut)
    folder = out if out is not None or of_the_book(source, product_code, data["sha256"]) else "."
    results_path(name := name or _name(data["name"], asked, usual), folder)  # reported before the work, not after it
    split = evaluation.next_basket(clean, asked)
    board = evaluation.scoreboard(split, methods, 10, models.description_similarity(split), report)
    counts = f"{len(split.shoppers):,} shoppers, {len(split.codes):,} products"
    print(f"{printable(data['name'])}, cut {asked:%Y-%m-%d}: {counts}\n")
    print(scoreboard_table(board).to_string())
    seconds, rows = time.perf_counter() - start, evaluation.result_rows(board, split)
    command = _command(source, data["name"], asked, baselines, product_code, date_format)
    path = save_results(name, rows, command=command, data=data, seconds=seconds, folder=folder)
    report(f"wrote {path} after {seconds:.0f} seconds")


def _gpt() -> dict:
    """The BasketGPT as a method; ValueError if a package that it needs is not installed."""
    try:
        from recbook.baskets.model import basket_gpt_scores
    except ImportError as error:
        remedy = "install 'recbook[receipts,embeddings,language]', or measure the baselines alone with --baselines"
        raise ValueError(f"the GPT needs {error.name}: {remedy}") from error

    def score(split: "Split") -> np.ndarray:
        try:
            return basket_gpt_scores(split, progress=True)
        except ValueError as error:
            raise ValueError(f"the GPT: {error}; --baselines measures the baselines alone") from error

    return {"BasketGPT": score}


def scoreboard_table(board: pd.DataFrame) -> pd.DataFrame:
    """A scoreboard as a table to read: one row per method, worst first, with intervals of the headline figures."""
    cells = {(row.method, row.metric, row.split): row for row in board.itertuples()}
    methods = board.loc[board["metric"] == "seconds", "method"]
    rows = {}
    for method in sorted(methods, key=lambda method: cells[method, "ndcg@10", "all"].value):
        row = {}
        for part in ("all", "repeat", "explore"):
            cell = cells[method, "ndcg@10", part]
            row[f"NDCG@10 {part}"] = f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}]"
        row["coverage"] = f"{cells[method, 'coverage@10', 'all'].value:.1%}"
        row["seconds"] = f"{cells[method, 'seconds', 'all'].value:.1f}"
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def receipts_of(source: str, date_format: str | None) -> pd.DataFrame:
    """Raw receipts: the embedded shop's, or those of a file or of `online-retail`, as `load_receipts` reads them."""
    from recbook.cleaning import shop
    from recbook.cleaning.load import load_receipts

    return shop.simulate(seed=0).receipts if source == EMBEDDED else load_receipts(source, date_format)


def report_cleaning(audit: pd.DataFrame) -> None:
    """Report on stderr what cleaning kept and removed, and warn if the pattern of product codes may not fit."""
    rows, share = audit.set_index("rule")["rows"], audit.set_index("rule")["share"]
    removed = ", ".join(f"{rule} {share[rule]:.1%}" for rule in rows.index if rule != "kept" and rows[rule])
    print(f"  kept {share['kept']:.1%} of the lines; removed: {removed or 'none'}", file=sys.stderr)
    unmatched = rows["not a product"] / max(rows.sum() - rows["no customer"], 1)
    if unmatched > SUSPICIOUS_SHARE:
        text = f"{unmatched:.0%} of the lines with a customer were removed for their code, as no product's"
        print(f"  warning: {text}; if they are products, say how codes look with --product-code", file=sys.stderr)


def of_the_book(source: str, product_code: str | None, sha256: str) -> bool:
    """Whether the data are the book's own, by content, read and cleaned as the book does."""
    from recbook.baselines.results import ONLINE_RETAIL_SHA256

    return product_code is None and (source == EMBEDDED or sha256 == ONLINE_RETAIL_SHA256)


def _command(
    source: str, name: str, cut: pd.Timestamp, baselines: bool, product_code: str | None, date_format: str | None
) -> str:
    """The command that measures the same again; a file appears by its name, without its folder."""
    data = EMBEDDED if source == EMBEDDED else "online-retail" if name == "Online Retail" else name
    words = ["recbook", "score", "--data", data, *["--baselines"] * baselines, "--cut", f"{cut:%Y-%m-%d}"]
    for option, value in [("--product-code", product_code), ("--date-format", date_format)]:
        words += [option, value] if value is not None else []
    return shlex.join(words)


def _name(data: str, cut: pd.Timestamp, usual: pd.Timestamp) -> str:
    """The results' name; it has the date unless the cut is the usual one, so as not to overwrite the headline's."""
    from recbook.baselines.results import slug

    return f"scoreboard_{slug(data)}" + ("" if cut == usual else f"_{cut:%Y-%m-%d}")


def report(message: str) -> None:
    """Report progress on stderr."""
    print(f"  {printable(message)} …", file=sys.stderr, flush=True)
