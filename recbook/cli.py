"""The command line: `recbook score` measures the baselines and the GPT on receipts and keeps the figures."""

import argparse
import re
import shlex
import sys
import time
from collections.abc import Sequence

import pandas as pd

from recbook import __version__

EMBEDDED = "embedded"  # the name, on the command line, of the shop that comes with the book
BAD_INPUT = 2  # exit code
STRANGE = 0.05  # share of lines with a customer whose codes are no product's, above which something may be wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 and one line on stderr where the input is at fault."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:  # receipts.ReceiptsError is a ValueError
        print("recbook: " + " ".join(str(error).split()), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("recbook: stopped", file=sys.stderr)
        return 130
    return 0


def score(options: argparse.Namespace) -> None:
    """Clean the receipts, split them at the cut, score every method, print the scoreboard and keep it."""
    from recbook import baselines, evaluation, receipts

    start = time.perf_counter()
    methods = baselines.METHODS | ({} if options.baselines else _gpt())
    asked = _date(options.cut)  # what is wrong with the options is said before the work, not after it
    _say(f"reading {options.data}")
    raw = _load(options.data, options.date_format)
    data = evaluation.describe_data(raw, "embedded shop" if options.data == EMBEDDED else options.data)
    _say(f"cleaning {len(raw):,} lines of {data['name']}")
    clean, _, audit = receipts.clean(raw, options.product_code or receipts.PRODUCT_CODE)
    _account(audit)
    usual = evaluation.default_cut(clean)
    cut = usual if asked is None else asked
    folder = options.out if options.out is not None or _of_the_book(options, data) else "."
    evaluation.results_path(name := options.name or _name(data["name"], cut, usual), folder)
    split = evaluation.next_basket(clean, cut)
    board = evaluation.scoreboard(split, methods, 10, baselines.description_similarity(split), _say)
    print(f"{data['name']}, cut {cut:%Y-%m-%d}: {len(split.shoppers):,} shoppers, {len(split.codes):,} products\n")
    print(table(board).to_string())
    seconds, rows = time.perf_counter() - start, evaluation.result_rows(board, split)
    command = _command(options, data["name"], cut)
    path = evaluation.save_results(name, rows, command=command, data=data, seconds=seconds, folder=folder)
    _say(f"wrote {path} after {seconds:.0f} seconds")


def _gpt() -> dict:
    """The BasketGPT as a method; ValueError if what it needs is not installed."""
    try:
        from recbook import baskets
    except ImportError as error:
        remedy = "install 'recbook[receipts,embeddings,language]', or measure the baselines alone with --baselines"
        raise ValueError(f"the GPT needs {error.name}: {remedy}") from error

    def score(split):
        try:
            return baskets.basket_gpt(split, progress=True)
        except ValueError as error:
            raise ValueError(f"the GPT: {error}; --baselines measures the baselines alone") from error

    return {"BasketGPT": score}


def table(board: pd.DataFrame) -> pd.DataFrame:
    """A scoreboard as a table to read: a row a method, worst first, intervals beside the headline figures."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="recbook", description="Recommenders from receipts, as the book builds them.")
    parser.add_argument("--version", action="version", version=f"recbook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "score",
        help="measure the baselines and the GPT at the next basket",
        description="Measure the baselines and the BasketGPT at predicting each shopper's next basket after a cut in "
        "time: NDCG@10 with 95% bootstrap intervals over all products, over those bought before, over those new to "
        "the shopper.",
        epilog="Exit codes: 0 done; 2 the receipts, the cut or a folder is at fault, one line on stderr says how.",
    )
    command.add_argument(
        "--data",
        default=EMBEDDED,
        metavar="FILE",
        help="CSV, xlsx, parquet or gzip of receipts; `online-retail` to download them; `embedded`, the book's shop "
        "(default)",
    )
    command.add_argument(
        "--cut", metavar="DATE", help="first day that is predicted, as 2011-11-09 (default: 30 days before the last)"
    )
    command.add_argument(
        "--baselines", action="store_true", help="the baselines alone: seconds, where the GPT trains for minutes"
    )
    command.add_argument(
        "--product-code",
        metavar="REGEX",
        help="what a product's code looks like, such as 'SKU-[0-9]+' (default: five digits and up to three letters)",
    )
    command.add_argument(
        "--date-format",
        metavar="FORMAT",
        help="how dates are written, such as '%%d/%%m/%%Y %%H:%%M' (default: found out)",
    )
    command.add_argument(
        "--out",
        metavar="FOLDER",
        help="where the figures are kept (default: this folder; for the book's own data the checkout's results/, or "
        "./results)",
    )
    command.add_argument("--name", help="of the file of figures (default: scoreboard_ and the data's name)")
    command.set_defaults(run=score)
    return parser


def _date(text: str | None) -> pd.Timestamp | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise ValueError(f"--cut {text!r} is not a date: write year-month-day, such as 2011-11-09")
    try:
        return pd.Timestamp(text)
    except ValueError:
        raise ValueError(
            f"--cut {text} is not a day of the calendar: write year-month-day, such as 2011-11-09"
        ) from None


def _load(source: str, date_format: str | None) -> pd.DataFrame:
    from recbook import receipts, workshop

    return workshop.the_shop().receipts if source == EMBEDDED else receipts.load(source, date_format)


def _account(audit: pd.DataFrame) -> None:
    """Say on stderr what cleaning kept and removed, and warn where its idea of a product's code may not fit."""
    rows, share = audit.set_index("rule")["rows"], audit.set_index("rule")["share"]
    removed = ", ".join(f"{rule} {share[rule]:.1%}" for rule in rows.index if rule != "kept" and rows[rule])
    print(f"  kept {share['kept']:.1%} of the lines; removed: {removed or 'none'}", file=sys.stderr)
    strange = rows["not a product"] / max(rows.sum() - rows["no customer"], 1)
    if strange > STRANGE:
        text = f"{strange:.0%} of the lines with a customer were removed for their code, as no product's"
        print(f"  warning: {text}; if they are products, say how codes look with --product-code", file=sys.stderr)


def _of_the_book(options: argparse.Namespace, data: dict) -> bool:
    """Whether the figures are of data that the book itself shows, known by content, read and cleaned as it does."""
    from recbook.records import ONLINE_RETAIL

    return options.product_code is None and (options.data == EMBEDDED or data["sha256"] == ONLINE_RETAIL)


def _command(options: argparse.Namespace, name: str, cut: pd.Timestamp) -> str:
    """What to type to measure the same again; a file goes by its name, without the folder that it was in."""
    data = EMBEDDED if options.data == EMBEDDED else "online-retail" if name == "Online Retail" else name
    words = ["recbook", "score", "--data", data, *["--baselines"] * options.baselines, "--cut", f"{cut:%Y-%m-%d}"]
    for option, value in [("--product-code", options.product_code), ("--date-format", options.date_format)]:
        words += [option, value] if value is not None else []
    return shlex.join(words)


def _name(data: str, cut: pd.Timestamp, usual: pd.Timestamp) -> str:
    """The results' name: the headline's where the cut is the usual one, or with the date, so as not to overwrite it."""
    from recbook import evaluation

    return f"scoreboard_{evaluation.slug(data)}" + ("" if cut == usual else f"_{cut:%Y-%m-%d}")


def _say(message: str) -> None:
    print(f"  {message} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
