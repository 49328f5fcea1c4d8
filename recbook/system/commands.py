"""`recbook build`, `recommend`, `chat` and `cache`: build a recommender, ask it once, talk to it; what is kept."""

import contextlib
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbook.cleaning.schema import printable
from recbook.conversation.dialogue import EXPLAIN, HELP, NOTHING, QUIT, SHOW, DialogueState, ShownProduct, next_state
from recbook.conversation.patterns import EXAMPLE_TURNS
from recbook.system.scoring import receipts_of, report, report_cleaning

if TYPE_CHECKING:
    import pandas as pd

    from recbook.system.recommender import Recommender

MB = 1e6
NARROW, WIDE = 40, 100  # columns that an answer is set in, at least and at most


# --- build -------------------------------------------------------------------------------------------------------


def build_command(receipts: str, out: str, product_code: str | None, date_format: str | None) -> None:
    """Build a recommender from receipts and save it; the folder and the receipts are checked first.

    `receipts`: see `receipts_of`. ValueError or OSError says what is wrong with them, or with the folder `out`.
    """
    from recbook import storage
    from recbook.cleaning.receipts import PRODUCT_CODE, clean
    from recbook.system.files import check_recommender_place
    from recbook.system.recommender import Recommender

    start, folder = time.perf_counter(), check_recommender_place(Path(out).resolve())
    storage.try_place(folder)
    code = product_code or PRODUCT_CODE
    with contextlib.redirect_stdout(sys.stderr):
        report(f"reading {receipts}")
        raw = receipts_of(receipts, date_format)
        report_cleaning(clean(raw, code).audit)
        made = Recommender.build(raw, product_code=code, say=print)
        made.save(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / MB
    stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in made.seconds.items())
    kept = f"{len(made.catalogue):,} products, {len(made.customers):,} customers, {size:.1f} MB"
    print(f"kept {printable(out)}: {kept}; {time.perf_counter() - start:.0f} seconds ({stages})")


# --- recommend ---------------------------------------------------------------------------------------------------


def recommend_command(
    shop: str,
    customer: int | None,
    history: Sequence[str],
    query: str | None,
    k: int,
    explain: bool,
    price_max: float | None,
    exclude: Sequence[str],
    new: bool,
    fast: bool,
    country: str,
    when: str | None,
    as_json: bool,
) -> None:
    """Recommend once, and print text or one JSON object. `shop`: the recommender's folder.

    `history`: texts of products with ; between them; the rest as for `Recommender.recommend`. ValueError says which is
    wrong.
    """
    if query is not None and not query.strip():
        raise ValueError('--query is empty: write what you look for, as in --query "gift for a tea lover"')
    asked: dict[str, Any] = {
        "customer": customer, "history": _products(history), "query": query, "price_max": price_max,
        "exclude": list(exclude), "new": new, "country": country, "when": when,
    }  # fmt: skip
    with contextlib.redirect_stdout(sys.stderr):
        table = _recommender(shop).recommend(**asked, k=k, explain=explain, fast=fast)
    if as_json:
        products = [_as_json(row) for row in table.to_dict("records")]
        print(json.dumps(asked | {"products": products}, allow_nan=False))
    else:
        products = _products_of(table)
        print("\n\n".join(_as_text(place, product) for place, product in enumerate(products, 1)))


def _products(texts: Sequence[str]) -> list[str] | None:
    """The products that texts name, with ; between them; None without texts. ValueError if they name none."""
    names = [name.strip() for text in texts for name in text.split(";") if name.strip()]
    if texts and not names:
        raise ValueError('--history names no product: write codes or names, as in --history "85123A; white mug"')
    return names or None


def _recommender(folder: str) -> "Recommender":
    from recbook.system.recommender import Recommender

    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder {folder}: recbook build RECEIPTS --out {folder} makes a recommender")
    return Recommender.load(folder)


def _products_of(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """The products of a table of recommendations, for JSON. ValueError if there are none."""
    if table.empty:
        raise ValueError("nothing is left to recommend: allow a higher price, or exclude less")
    return [_as_json(row) for row in table.to_dict("records")]


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A product for JSON: price to the penny, score to four digits, `why` null without explanations.

    Texts are `printable`: a recommender built by an older version may hold what a terminal would obey.
    """
    texts = {key: printable(str(row[key])) for key in ("code", "description")}
    why = None if row.get("why") is None else printable(row["why"])
    numbers = {"price": round(float(row["price"]), 2), "score": float(f"{float(row['score']):.4g}")}
    return texts | numbers | {"channel": str(row["channel"]), "why": why}


def _as_text(place: int, product: dict[str, Any]) -> str:
    """A product as a paragraph: place, description, price and code in columns, then the channel and the reason."""
    about = f"found by {product['channel']}, score {product['score']:.3g}"
    return "\n".join(
        [_as_row(place, product), _wrapped(about), *([_wrapped(product["why"])] if product["why"] else [])]
    )


def _as_row(place: int, product: dict[str, Any]) -> str:
    """Place, description, price and code in columns; a long description continues on the next lines."""
    name, *more = textwrap.wrap(product["description"], _width() - 28) or [""]
    price = f"£{product['price']:,.2f}"
    first = f"{place:>2}  {name:<{_width() - 28}} {price:>10}  {product['code']:<10}".rstrip()
    return "\n".join([first, *(f"    {line}" for line in more)])


def _width() -> int:
    return max(NARROW, min(WIDE, shutil.get_terminal_size((80, 24)).columns))


def _wrapped(text: str, indent: str = "    ", further: str = "    ") -> str:
    return textwrap.fill(printable(text), _width(), initial_indent=indent, subsequent_indent=further)


# --- chat --------------------------------------------------------------------------------------------------------


def chat_command(shop: str, customer: int | None, country: str, k: int) -> None:
    """Chat on stdin and stdout, turn by turn, until "quit" or the end of the input. `shop`: the recommender's folder.

    ValueError if there is no recommender, or it cannot recommend to this customer.
    """
    with contextlib.redirect_stdout(sys.stderr):
        session = ChatSession(_recommender(shop), customer, country, k)
        session.check()
    print(f"{len(session.recommender.catalogue):,} products. What are you looking for?")
    print(_wrapped(f"You can say: {EXAMPLE_TURNS}", "", "  "))
    for text in _turns():
        if not session.turn(text):
            return


def _turns() -> Iterator[str]:
    """The turns, one per line of stdin; where stdin is no terminal, each is printed too."""
    while sys.stdin is not None:  # None: it was closed from the start
        try:
            text = input("> ")
        except EOFError:
            print()
            return
        if not sys.stdin.isatty():
            print(printable(text))
        yield text


class ChatSession:
    """A conversation with a recommender: its state, and what it prints."""

    def __init__(self, recommender: "Recommender", customer: int | None, country: str, k: int):
        """With a recommender, for this customer or a shopper from this country, k products a list."""
        self.recommender, self.state = recommender, DialogueState()
        self.fixed: dict[str, Any] = {"customer": customer, "k": k, "country": country}

    def check(self) -> None:
        """Recommend once, so that an unknown customer or a wrong k is reported before the first turn."""
        self.recommender.recommend(**self.fixed, explain=False)

    def turn(self, text: str) -> bool:
        """Answer a turn; False after the last one. What cannot be done is reported, and the state stays as it was."""
        after = next_state(self.state, text)
        for note in after.notes:
            print(printable(note))
        if after.act == HELP:
            print(_wrapped(f"You can say: {EXAMPLE_TURNS}", "", "  "))
        elif after.act in (QUIT, NOTHING):
            self.state = after
        elif after.act == SHOW:
            for place in after.places:
                print(_as_row(place + 1, after.shown[place]._asdict()))
        else:
            self._answer(after)
        sys.stdout.flush()
        return after.act != QUIT

    def _answer(self, after: DialogueState) -> None:
        try:
            after, products = self._state_and_products(after)
        except ValueError as error:
            print(_wrapped(f"That cannot be done: {error}.", "", ""))
            print(_wrapped(f"I go on with: {self.state.said}.", "", ""))
            return
        if after.act == EXPLAIN:
            for place in after.places:
                product = products.get(after.shown[place].code)
                print(f"{place + 1}. {after.shown[place].description}")
                print(_wrapped(product["why"]) if product else "    I would not recommend it any more.")
            return
        print(_wrapped(f"Looking for {after.said}:", "", "  "))
        for place, product in enumerate(products.values(), 1):
            print(_as_row(place, product))
        shown = [ShownProduct(code, product["description"], product["price"]) for code, product in products.items()]
        self.state = replace(after, shown=tuple(shown))

    def _state_and_products(self, after: DialogueState) -> tuple[DialogueState, dict[str, dict[str, Any]]]:
        """The state without the excluded words that no product has, which are reported, and the products for it."""
        try:
            return after, self._products(after)
        except ValueError:
            unknown = [word for word in after.exclude if word not in self.state.exclude and not self._known_word(word)]
            if not unknown:
                raise
            print(_wrapped(f"Nothing here has {' or '.join(unknown)}: there is nothing to leave out.", "", ""))
            after = replace(after, exclude=tuple(word for word in after.exclude if word not in unknown))
            return after, self._products(after)

    def _known_word(self, word: str) -> bool:
        """Whether any product has the word: a recommender refuses to exclude a word that no product has."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                self.recommender.recommend(k=1, explain=False, fast=True, exclude=[word])
        except ValueError:
            return False
        return True

    def _products(self, after: DialogueState) -> dict[str, dict[str, Any]]:
        """The products for a state, by code, best first; with reasons where the turn asks why."""
        with contextlib.redirect_stdout(sys.stderr):
            table = self.recommender.recommend(
                **self.fixed, query=after.asked or None, explain=after.act == EXPLAIN, price_max=after.price_max,
                exclude=after.leaving_out,
            )  # fmt: skip
        return {product["code"]: product for product in _products_of(table)}


# --- cache -------------------------------------------------------------------------------------------------------


def cache_command(clear: bool) -> None:
    """List what `storage.home` keeps, what was used last first; or remove of it what can be made again."""
    from recbook import storage

    total = 0
    storage.sweep(storage.home())
    for path in sorted(storage.home().glob("[!.]*"), key=lambda path: -path.lstat().st_mtime):
        again = path.is_dir() and storage.ARTIFACT.fullmatch(path.name)
        if clear and again:
            storage.discard(path)
        if path.exists():
            size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.lstat().st_mtime))
            print(f"{size / MB:>10,.1f} MB  {used}  {printable(path.name)}{'' if again else '  (--clear leaves it)'}")
            total += size
    print(f"{total / MB:>10,.1f} MB in {storage.home()}")
