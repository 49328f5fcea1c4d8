"""The command line: `recbook build`, `recommend`, `chat`, `score`, `cache` and `doctor`; the work is in other modules.

Answers go to stdout, progress and errors to stderr. Nothing heavy is imported before a command needs it.
"""

import codecs
import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from recbook import __version__

BAD_INPUT, STOPPED = 2, 130  # exit codes
EXITS_HELP = "Exit codes: 0 done; 2 the input is at fault, one line on stderr says how; 130 stopped (ctrl-C)."
DOCTOR_EXITS_HELP = "Exit code 1: something of the core is missing; the extras are no part of it."
COMPLETION = "_RECBOOK_COMPLETE"  # set by a shell that asks click how a line goes on
PLAIN_LETTERS = {"£": "GBP ", "…": "...", "·": "-", "’": "'", "–": "-"}  # for terminals without these characters
ANSWER_HELP = """\b
With --json, one object on stdout:
  customer, history, query, price_max, exclude, new, country, when
                the arguments; null where not given
  products      a list, best first, of objects:
    code, description, channel    text
    price                         pounds, to the penny
    score                         orders this list; says nothing across lists
    why                           text; null with --no-explain"""


def program() -> None:
    """The command as a process: `main`, less the collecting of rubbish, a sixth of the time to an answer."""
    gc.set_threshold(100_000)  # imports make many objects, and keep them
    code = main()
    gc.freeze()  # all goes with the process: nothing need be collected first
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code (`EXITS_HELP`; `doctor` has 1 too)."""
    _replace_unencodable()
    try:
        return command_line.main(arguments, prog_name="recbook", standalone_mode=False) or 0
    except SystemExit as ended:  # click's: it answered a shell, or the reader closed the pipe (`recbook … | head -1`)
        return int(ended.code or 0) if COMPLETION in os.environ else 0
    except click.Abort:
        print("recbook: stopped", file=sys.stderr)
        return STOPPED
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "recbook"
        message = f"{error.format_message().rstrip('.')} ({path} --help says what there is)"
    except ImportError as error:
        from recbook.book.doctor import COMMANDS

        remedy = f"pip install 'recbook[{COMMANDS}]' installs what is missing, recbook doctor says what that is"
        message = f"{error}: {remedy}"
    except (ValueError, OSError) as error:  # receipts.ReceiptsError is a ValueError
        message = str(error)
    if not message.isprintable():  # nothing that a terminal would obey, from a file's name perhaps
        from recbook.cleaning.schema import printable

        message = printable(message)
    print("recbook: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


def _write_out() -> None:
    """Write what was printed: here, where a pipe that was closed, or a full disk, can be told from other faults."""
    try:
        if sys.stdout is not None:  # None: it was closed from the start
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the end does not try again
        if isinstance(error, BrokenPipeError):
            raise
        raise OSError(f"the answer cannot be written: {error.strerror}") from error


def _replace_unencodable() -> None:
    """Make the streams replace characters that their encoding lacks, in place of raising UnicodeError."""

    def plain(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        letters = error.object[error.start : error.end]
        return "".join(PLAIN_LETTERS.get(letter, "?") for letter in letters), error.end

    codecs.register_error("recbook-plain", plain)
    for stream, errors in ((sys.stdout, "recbook-plain"), (sys.stderr, "recbook-plain"), (sys.stdin, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


# --- What options are made of ------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """The argument decoded as UTF-8, whatever encoding the terminal declares: the shell passes bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _day(text: str) -> str:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError:
        wrong = f"{text!r} is no day of the calendar: write year-month-day, such as 2011-11-09"
        raise click.BadParameter(wrong) from None


def _pounds(text: str) -> float:
    try:
        price = float(text.strip().lstrip("£"))
    except ValueError:
        price = math.nan
    if not 0 < price < math.inf:
        raise click.BadParameter(f"{text!r} is not a price in pounds, such as 4.50")
    return price


FOLDER = click.Path(file_okay=False)


def _reading_options(command: Callable) -> Callable:
    code = click.option(
        "--product-code",
        metavar="REGEX",
        help="What a product's code looks like, such as 'SKU-[0-9]+' (default: five digits and up to three letters).",
    )
    dates = click.option(
        "--date-format", metavar="FORMAT", help="How dates are written, such as '%d/%m/%Y %H:%M' (default: found out)."
    )
    return code(dates(command))


def _asking_options(command: Callable) -> Callable:
    shop = click.argument("shop", metavar="FOLDER", type=FOLDER)
    customer = click.option("--customer", type=int, metavar="NUMBER", help="A customer of the receipts.")
    country = click.option(
        "--country", type=_text, metavar="NAME", default="", help="Country of an unknown shopper, such as France."
    )
    k = click.option(
        "-k", type=click.IntRange(1, 1000), metavar="K", default=5, show_default=True, help="How many products."
    )
    return shop(customer(country(k(command))))


def _end(*examples: str, then: Sequence[str] = ()) -> str:
    """The end of a command's help: examples, a line each; further paragraphs; the exit codes."""
    return "\n\n".join(["\n  ".join(["\b\nExamples:", *examples]), *then, EXITS_HELP])


# --- Commands ----------------------------------------------------------------------------------------------------


@click.group(
    name="recbook",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    epilog=_end("recbook build receipts.csv --out shop/", "recbook recommend shop/ --customer 17850"),
)
@click.version_option(__version__, message="recbook %(version)s")
@click.pass_context
def command_line(context: click.Context) -> None:
    """Recommenders from receipts, as the book builds them."""
    context.call_on_close(_write_out)


@command_line.command(
    epilog=_end(
        "recbook build receipts.csv --out shop/",
        "recbook build till.xlsx --out shop/ --product-code 'SKU-[0-9]+'",
        "recbook build embedded --out /tmp/shop",
    )
)
@click.argument("receipts", type=click.Path())
@click.option(
    "--out",
    required=True,
    type=FOLDER,
    metavar="FOLDER",
    help="Where to save it; a recommender that is there is replaced.",
)
@_reading_options
def build(**options: Any) -> None:
    """Build a recommender from receipts, and save it in a folder.

    Every stage of the book runs; that takes minutes, and each reports on stderr. RECEIPTS: CSV, xlsx, parquet or gzip;
    online-retail to download them; embedded, the book's shop. The folder holds the receipts: guard it as you guard
    them.
    """
    from recbook.system.commands import build_command

    build_command(**options)


@command_line.command(
    epilog=_end(
        "recbook recommend shop/ --customer 17850",
        'recbook recommend shop/ --query "gift for a tea lover" --price-max 10',
        'recbook recommend shop/ --history "85123A; white mug" --exclude red --json',
        then=[ANSWER_HELP],
    )
)
@_asking_options
@click.option(
    "--history",
    multiple=True,
    type=_text,
    metavar="PRODUCTS",
    help="Products in the basket now, by code or name, separated by ; (may be repeated).",
)
@click.option("--query", type=_text, metavar="TEXT", help='What to search for, such as "gift for a tea lover".')
@click.option("--price-max", type=_pounds, metavar="POUNDS", help="The highest price.")
@click.option(
    "--exclude",
    multiple=True,
    type=_text,
    metavar="WORD",
    help="Leave out a product, or all products with this word, such as red (may be repeated).",
)
@click.option("--when", type=_day, metavar="DATE", help="Day of asking (default: after the last receipt).")
@click.option("--new", is_flag=True, help="Leave out what was bought before.")
@click.option("--fast", is_flag=True, help="Rank with the student alone, not with channels and rankers.")
@click.option("--no-explain", is_flag=True, help="Without reasons: faster.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout (below).")
def recommend(no_explain: bool, **options: Any) -> None:
    """Recommend products with reasons.

    To a customer, to a guest with these products in the basket, or to an unknown shopper. FOLDER: a recommender that
    recbook build saved.
    """
    from recbook.system.commands import recommend_command

    recommend_command(explain=not no_explain, **options)


@command_line.command(epilog=_end("recbook chat shop/", "recbook chat shop/ --customer 17850 -k 3"))
@_asking_options
def chat(**options: Any) -> None:
    """Talk to a recommender, a line a turn, on stdin and stdout.

    Say what you look for, then 'cheaper', 'not red', 'for my mother', 'more', 'why the second?', 'undo', 'start over',
    'quit'. What is not understood is searched for. FOLDER: a recommender that recbook build saved.
    """
    from recbook.system.commands import chat_command

    chat_command(**options)


@command_line.command(
    epilog=_end("recbook score --baselines", "recbook score --data receipts.csv --cut 2011-11-09 --out figures/")
)
@click.option(
    "--data",
    "source",
    type=click.Path(),
    metavar="FILE",
    default="embedded",
    help="CSV, xlsx, parquet or gzip of receipts; online-retail to download them; embedded, the book's shop (default).",
)
@click.option(
    "--cut",
    type=_day,
    metavar="DATE",
    help="First day that is predicted, such as 2011-11-09 (default: 30 days before the last).",
)
@click.option("--baselines", is_flag=True, help="The baselines alone: seconds, where the GPT trains for minutes.")
@_reading_options
@click.option(
    "--out",
    type=FOLDER,
    metavar="FOLDER",
    help="Where to save the figures (default: this folder; for the book's own data the checkout's results/, or "
    "./results).",
)
@click.option("--name", help="Of the file of figures (default: scoreboard_ and the data's name).")
def score(**options: Any) -> None:
    """Measure the baselines and the GPT at the next basket.

    How well each predicts every shopper's next basket after a cut in time: NDCG@10 with 95% bootstrap intervals over
    all products, over those bought before, over those new to the shopper.
    """
    from recbook.system.scoring import score_command

    score_command(**options)


@command_line.command(epilog=_end("recbook cache", "recbook cache --clear"))
@click.option("--clear", is_flag=True, help="Remove all that can be made again; downloads and paid answers stay.")
def cache(clear: bool) -> None:
    """List what is kept between runs.

    Trained models and other artifacts of the chapters, with their sizes and when they were last used, in RECBOOK_HOME
    or your cache folder. Artifacts of code that has changed go by themselves, but for the newest three of a kind.
    """
    from recbook.system.commands import cache_command

    cache_command(clear)


@command_line.command(epilog=_end("recbook doctor", "recbook doctor --json", then=[DOCTOR_EXITS_HELP]))
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON object.")
def doctor(as_json: bool) -> int:
    """Say what is installed, needed and cached.

    What each chapter needs, and what the machine has. No heavy package is imported, nothing is changed.
    """
    from recbook.book.doctor import doctor_command

    return doctor_command(as_json)


if __name__ == "__main__":
    program()
