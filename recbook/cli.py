"""The command line: `recbook build`, `recommend`, `chat`, `score` and `doctor`; each command's work is in its module.

Answers go to stdout, progress and errors to stderr. Nothing heavy is imported before a command needs it.
"""

import argparse
import codecs
import math
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from datetime import date
from importlib import import_module
from typing import NoReturn

from recbook import __version__

BAD_INPUT, STOPPED = 2, 130  # exit codes
HELP_COLUMNS = 79  # of help texts
EXITS_HELP = "Exit codes: 0 done; 2 the input is at fault, one line on stderr says how; 130 stopped (ctrl-C)."
PLAIN_LETTERS = {"£": "GBP ", "…": "...", "·": "-", "’": "'", "–": "-"}  # for terminals without these characters
ANSWER_HELP = """with --json, one object on stdout:
  customer, history, query, price_max, exclude, new, country, when
                the arguments; null where not given
  products      a list, best first, of objects:
    code, description, channel    text
    price                         pounds, to the penny
    score                         orders this list; not comparable with another
    why                           text; null with --no-explain

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (`EXITS_HELP`; `doctor` has 1 too); argparse ends bad options."""
    _replace_unencodable()
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:  # None: it was closed from the start
                sys.stdout.flush()  # here, where a pipe that was closed can be told from the interpreter's end
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the end does not try again
        if isinstance(error, BrokenPipeError):  # the reader has closed the pipe, as in `recbook … | head -1`
            return 0
        print(f"recbook: the answer cannot be written: {error.strerror}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("recbook: stopped", file=sys.stderr)
        return STOPPED


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except BrokenPipeError:
        raise
    except ImportError as error:
        from recbook.book.doctor import COMMANDS

        remedy = f"pip install 'recbook[{COMMANDS}]' installs what is missing, recbook doctor says what that is"
        message = f"{error}: {remedy}"
    except (ValueError, OSError) as error:  # receipts.ReceiptsError is a ValueError
        message = str(error)
    print("recbook: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


def _replace_unencodable() -> None:
    """Make the streams replace characters that their encoding lacks, in place of raising UnicodeError."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):  # this handler is for writing alone
            raise error
        letters = error.object[error.start : error.end]
        return "".join(PLAIN_LETTERS.get(letter, "?") for letter in letters), error.end

    codecs.register_error("recbook-plain", plain)
    for stream, errors in ((sys.stdout, "recbook-plain"), (sys.stderr, "recbook-plain"), (sys.stdin, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


# --- Options -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all errors of `recbook`."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"recbook: {message} ({self.prog} --help says what there is)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="recbook", description="Recommenders from receipts, as the book builds them.", epilog=EXITS_HELP
    )
    parser.add_argument("--version", action="version", version=f"recbook {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, module: str, brief: str, description: str, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=brief,
            description=textwrap.fill(description, HELP_COLUMNS),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=more + textwrap.fill(EXITS_HELP, HELP_COLUMNS),
        )
        added.set_defaults(run=lambda options: getattr(import_module(module), f"{name}_command")(options))
        return added

    _build_options(command("build", "recbook.system.commands", "build a recommender from receipts", BUILD_HELP))
    _recommend_options(
        command("recommend", "recbook.system.commands", "ask a recommender once", RECOMMEND_HELP, ANSWER_HELP)
    )
    _asking_options(command("chat", "recbook.system.commands", "talk to a recommender", CHAT_HELP))
    _score_options(
        command("score", "recbook.system.scoring", "measure the baselines and the GPT at the next basket", SCORE_HELP)
    )
    doctor = command(
        "doctor", "recbook.book.doctor", "what is installed and what is missing", DOCTOR_HELP, DOCTOR_EXITS
    )
    doctor.add_argument("--json", action="store_true", help="the same as one JSON object")
    return parser


BUILD_HELP = (
    "Build a recommender from receipts, every stage of the book, and save it in a folder. It takes minutes; each "
    "stage reports on stderr. The folder holds the receipts: guard it as you guard them."
)
RECOMMEND_HELP = (
    "Recommend products with reasons to a customer, to a guest with these products in the basket, or to an unknown "
    "shopper."
)
CHAT_HELP = (
    "Talk to a recommender, a line a turn, on stdin and stdout: say what you look for, then 'cheaper', 'not red', "
    "'for my mother', 'more', 'why the second?', 'undo', 'start over', 'quit'. What is not understood is searched for."
)
SCORE_HELP = (
    "Measure the baselines and the BasketGPT at predicting each shopper's next basket after a cut in time: NDCG@10 "
    "with 95% bootstrap intervals over all products, over those bought before, over those new to the shopper."
)
DOCTOR_HELP = (
    "Say what is installed, what each chapter and command needs, what is missing, and where artifacts are kept."
)
DOCTOR_EXITS = "Exit code 1: something of the core is missing; the extras are no part of it.\n\n"
RECEIPTS_HELP = "CSV, xlsx, parquet or gzip of receipts; `online-retail` to download them; `embedded`, the book's shop"


def _build_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("receipts", metavar="RECEIPTS", help=RECEIPTS_HELP)
    command.add_argument(
        "--out", required=True, metavar="FOLDER", help="where to save it; a recommender that is there is replaced"
    )
    _format_options(command)


def _recommend_options(command: argparse.ArgumentParser) -> None:
    _asking_options(command)
    command.add_argument(
        "--history",
        action="append",
        type=_text,
        metavar="PRODUCTS",
        help="products in the basket now, by code or name, separated by ; (may be repeated)",
    )
    command.add_argument(
        "--query", type=_text, metavar="TEXT", help='what to search for, such as "gift for a tea lover"'
    )
    command.add_argument("--price-max", type=_pounds, metavar="POUNDS", help="the highest price")
    command.add_argument(
        "--exclude",
        action="append",
        type=_text,
        metavar="WORD",
        help="leave out a product, or all products with this word, such as red (may be repeated)",
    )
    command.add_argument("--when", type=_day, metavar="DATE", help="day of asking (default: after the last receipt)")
    command.add_argument("--new", action="store_true", help="leave out what was bought before")
    command.add_argument(
        "--fast", action="store_true", help="rank with the student alone, not with channels and rankers"
    )
    command.add_argument("--no-explain", dest="explain", action="store_false", help="without reasons: faster")
    command.add_argument("--json", action="store_true", help="one JSON object on stdout (below)")


def _asking_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("shop", metavar="FOLDER", help="a recommender that `recbook build` saved")
    command.add_argument("--customer", type=_whole, metavar="NUMBER", help="a customer of the receipts")
    command.add_argument("--country", type=_text, default="", help="country of an unknown shopper, such as France")
    command.add_argument("-k", type=_count, default=5, metavar="K", help="how many products (default: 5)")


def _score_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", default="embedded", metavar="FILE", help=f"{RECEIPTS_HELP} (default)")
    command.add_argument(
        "--cut",
        metavar="DATE",
        help="first day that is predicted, such as 2011-11-09 (default: 30 days before the last)",
    )
    command.add_argument(
        "--baselines", action="store_true", help="the baselines alone: seconds, where the GPT trains for minutes"
    )
    _format_options(command)
    command.add_argument(
        "--out",
        metavar="FOLDER",
        help="where to save the figures (default: this folder; for the book's own data the checkout's results/, or "
        "./results)",
    )
    command.add_argument("--name", help="of the file of figures (default: scoreboard_ and the data's name)")


def _format_options(command: argparse.ArgumentParser) -> None:
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


def _text(text: str) -> str:
    """The argument decoded as UTF-8, whatever encoding the terminal declares: the shell passes bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _whole(text: str) -> int:
    if not text.strip().isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a customer's number, such as 17850")
    return int(text)


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of products from 1 to 1000")
    return int(text)


def _day(text: str) -> str:
    wrong = "a date"
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            wrong = "a day of the calendar"
    raise argparse.ArgumentTypeError(f"{text!r} is not {wrong}: write year-month-day, such as 2011-11-09")


def _pounds(text: str) -> float:
    try:
        price = float(text.strip().lstrip("£"))
    except ValueError:
        price = math.nan
    if not 0 < price < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a price in pounds, such as 4.50")
    return price


if __name__ == "__main__":
    sys.exit(main())
