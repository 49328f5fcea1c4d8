"""The whole system in one object: `Recommender.build(receipts)`, then `.recommend(…)`, `.save(…)`, `.load(…)`.

The shelf finds and ranks, the ledger knows the facts, the narrator says why in sentences that the checker has read.
Nothing is learned about anybody in person, so who is new needs no retraining; nor does a new product.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbook import artifacts, evaluation
from recbook import receipts as rc
from recbook.asking import Catalogue, History
from recbook.baskets import BasketGPT
from recbook.claims import Checker
from recbook.embeddings import encode
from recbook.learned import LearnedRanker
from recbook.ledger import VISITOR, Ledger
from recbook.mentions import WORD, stem
from recbook.narrator import Narrator
from recbook.reranking import Shopper
from recbook.shelf import Shelf
from recbook.stages import Settings as Settings
from recbook.stages import learned_ranker, now, stage, taught_student

KIND, FORMAT = "recommender", 1  # of a saved one
RECEIPTS, UNSOLD, VECTORS = "receipts.parquet", "unsold.json", "vectors.npy"
BASKETS, RANKER, STUDENT, NARRATOR = "baskets", "ranker", "student", "narrator"


class Recommender:
    """A shop's recommender: what it learned, and what it knows as of `moment`, the day after the last receipt."""

    def __init__(
        self,
        receipts: pd.DataFrame,
        model: BasketGPT,
        ranker: LearnedRanker,
        student: BasketGPT,
        narrator: Narrator,
        vectors: pd.DataFrame,
        settings: Settings = Settings(),  # noqa: B008  (frozen)
        unsold: pd.DataFrame | None = None,
    ):
        """Clean receipts and the parts that learned from them. `vectors`: unit rows by code; `unsold`: see `add`."""
        self.receipts, self.settings, self.narrator, self.vectors = receipts, settings, narrator, vectors
        self.moment = now(receipts)
        self.unsold = pd.DataFrame({"description": [], "price": []}) if unsold is None else unsold
        split = evaluation.standing(receipts, self.moment, settings.min_shoppers)
        self.shelf = Shelf(split, model, ranker, student, vectors, self.unsold.index)
        self.ledger = Ledger(receipts, self.moment, unsold=self.unsold if len(self.unsold) else None)
        self.checker = Checker(self.ledger)
        self.products = Catalogue(rc.descriptions(receipts) | self.unsold["description"].to_dict())
        self.prices = self.ledger.table["price"].loc[self.shelf.codes].to_numpy()  # (codes,) pounds
        self.seconds: dict[str, float] = {}  # of each stage of the build

    # --- Building ----------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        raw: pd.DataFrame,
        settings: Settings = Settings(),  # noqa: B008  (frozen)
        product_code: str = rc.PRODUCT_CODE,
        say: Callable[[str], None] | None = print,
    ) -> "Recommender":
        """Every stage, from raw receipts (`receipts.load`) to a recommender. `say` is told of each stage.

        ValueError if the receipts cannot be cleaned, or are too few to learn from.
        """
        seconds: dict[str, float] = {}
        with stage("clean the receipts", seconds, say):
            receipts = rc.clean(raw, product_code).receipts
            split = evaluation.standing(receipts, now(receipts), settings.min_shoppers)
        with stage("turn descriptions into vectors", seconds, say):
            texts = rc.descriptions(receipts)
            vectors = pd.DataFrame(encode(list(texts.values())), index=list(texts))
        with stage("learn baskets", seconds, say):
            model = BasketGPT.fit(split.receipts, settings.baskets, progress=say is not None)
        with stage("learn to rank", seconds, say):
            ranker = learned_ranker(receipts, vectors, settings)
        with stage("teach a student", seconds, say):
            student = taught_student(split, model, ranker, vectors, settings.student, progress=say is not None)
        with stage("learn to explain", seconds, say):
            narrator = Narrator.fit(receipts, Ledger(receipts, split.cut), settings.narrator, progress=say is not None)
        with stage("put together", seconds, say):
            made = cls(receipts, model, ranker, student, narrator, vectors, settings)
        made.seconds = seconds
        return made

    def add(self, products: pd.DataFrame) -> "Recommender":
        """The same recommender with new products on the shelf, without retraining: `description`, `price` by code.

        ValueError for a code that is sold already, or a price or a description that is none.
        """
        products = products[["description", "price"]].rename_axis("code")
        known = [code for code in products.index if code in self.products.products]
        if known or not products.index.is_unique:
            raise ValueError(
                f"the product {(known or ['of one code'])[0]} is there already: give new products new codes"
            )
        if wrong := [p.Index for p in products.itertuples() if not (p.price > 0) or not str(p.description).strip()]:
            raise ValueError(f"the product {wrong[0]} needs a description and a price above zero, in pounds")
        vectors = pd.DataFrame(encode(products["description"].tolist()), index=products.index)
        unsold = products if self.unsold.empty else pd.concat([self.unsold, products])
        parts = self.shelf.model, self.shelf.ranker, self.shelf.student, self.narrator
        return Recommender(self.receipts, *parts, pd.concat([self.vectors, vectors]), self.settings, unsold)

    # --- On disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Keep all in a folder, whole or not at all, with checksums; a recommender that lies there is replaced.

        The folder holds the receipts: guard it as you guard them. ValueError if something else lies there.
        """
        made_of = {"format": FORMAT, "kind": KIND, "receipts": rc.fingerprint(self.receipts)}
        artifacts.replace(check_place(folder), self._write, made_of | {"settings": self.settings.numbers()})

    def _write(self, folder: Path) -> None:
        self.receipts.to_parquet(folder / RECEIPTS, index=False)
        np.save(folder / VECTORS, self.vectors.to_numpy(), allow_pickle=False)
        unsold = self.unsold.reset_index(names="code").to_dict("records")
        (folder / UNSOLD).write_text(
            json.dumps({"codes": list(self.vectors.index), "unsold": unsold}), encoding="utf-8"
        )
        self.shelf.model.save(folder / BASKETS)
        self.shelf.ranker.save(folder / RANKER)
        self.shelf.student.save(folder / STUDENT)
        self.narrator.save(folder / NARRATOR)

    @classmethod
    def load(cls, folder: str | Path) -> "Recommender":
        """The recommender that `save` kept. ValueError says what is missing, damaged or of another version."""
        folder = Path(folder)
        made_of = artifacts.verified(folder)
        if made_of.get("kind") != KIND or made_of.get("format") != FORMAT:
            raise ValueError(f"{folder} holds no recommender of this version of recbook: build it anew")
        receipts = pd.read_parquet(folder / RECEIPTS)
        if rc.fingerprint(receipts) != made_of["receipts"]:
            raise ValueError(f"the receipts in {folder} are not those that the recommender was built of: build it anew")
        listed = json.loads((folder / UNSOLD).read_text(encoding="utf-8"))
        vectors = pd.DataFrame(np.load(folder / VECTORS, allow_pickle=False), index=listed["codes"])
        unsold = pd.DataFrame(listed["unsold"], columns=["code", "description", "price"]).set_index("code")
        networks = (
            BasketGPT.load(folder / BASKETS),
            LearnedRanker.load(folder / RANKER),
            BasketGPT.load(folder / STUDENT),
        )
        return cls(
            receipts,
            *networks,
            Narrator.load(folder / NARRATOR),
            vectors,
            Settings.restored(made_of["settings"]),
            unsold,
        )

    # --- Asking ------------------------------------------------------------------------------------------------

    @property
    def catalogue(self) -> pd.DataFrame:
        """What can be recommended: `description` and `price`, by code."""
        texts = [self.products.products[code] for code in self.shelf.codes]
        return pd.DataFrame({"description": texts, "price": self.prices}, index=pd.Index(self.shelf.codes, name="code"))

    @property
    def customers(self) -> list[int]:
        """Who bought before, sorted."""
        return self.ledger.customers

    def recommend(
        self,
        customer: int | None = None,
        history: History | Sequence[str] | None = None,
        query: str | None = None,
        k: int = 5,
        explain: bool = True,
        price_max: float | None = None,
        exclude: Sequence[str] = (),
        new: bool = False,
        fast: bool = False,
        country: str = "",
        seed: int = 0,
    ) -> pd.DataFrame:
        """At most k products, best first: `code`, `description`, `price`, `score`, `channel`, and `why` if explained.

        For a `customer` of the receipts; or for a `history`, one list of products (codes or names) that are in the
        basket now, or dated baskets, oldest first; or, with neither, for somebody nobody knows, from a `country` if one
        is given. `query`: what they typed. `price_max` in pounds. `exclude`: products, or words such as "red" that
        descriptions must not have. `new` leaves out what they bought; what they bought today always is. `fast`: the
        student ranks. Scores order the list, and mean nothing beside another. ValueError says what was asked wrongly.
        """
        if k < 1 or query is not None and not query.strip():
            raise ValueError(
                f"k is {k} and the query {query!r}: ask for one product or more, and type something or None"
            )
        shopper = self.shopper(customer, history, country)
        found = self.shelf.find(shopper, query, self._allowed(shopper, price_max, exclude, new), fast)
        codes = found.codes[:k].tolist()
        if not codes:
            raise ValueError("nothing is left to recommend: allow a higher price, or exclude less")
        table = self.catalogue.loc[codes].reset_index()
        table = table.assign(score=found.scores[:k], channel=found.channels[:k])
        return table.assign(why=self._why(customer, shopper, codes, seed)) if explain else table

    def shopper(self, customer: int | None, history: History | Sequence[str] | None, country: str = "") -> Shopper:
        """Who asks, of their history only what is on the shelf. ValueError as in `recommend`."""
        if customer is not None and history is not None:
            raise ValueError("give a customer or a history, not both: a customer's history is in the receipts")
        if customer is not None and customer not in self.ledger:
            raise ValueError(f"customer {customer} bought nothing so far; to recommend to somebody new, give a history")
        baskets = self._typed(history) if customer is None else self.ledger.history(customer)
        known = [
            (date, [code for code in codes if code in self.shelf.model.catalogue.column]) for date, codes in baskets
        ]
        return Shopper([basket for basket in known if basket[1]], self.moment, country)

    def _typed(self, history: History | Sequence[str] | None) -> list[tuple[pd.Timestamp, list[str]]]:
        """A history as dated baskets of codes; one list of products is a basket of today."""
        if history is None or not len(history):
            return []
        if not isinstance(history, str) and all(isinstance(entry, str) for entry in history):
            history = [(self.moment, history)]
        entries = self.products.entries(history)
        if any(entry.date is None for entry in entries):
            raise ValueError(
                "several baskets need their dates, [('2011-10-03', ['22423']), …]; or give one list of products"
            )
        self.products.dated(entries, 0.0, self.moment, 0.0)  # ValueError: not oldest first, or after today
        return [(entry.date, self.products.codes[entry.items].tolist()) for entry in entries]

    def _allowed(self, shopper: Shopper, price_max: float | None, exclude: Sequence[str], new: bool) -> np.ndarray:
        """What may be recommended, (codes,) bool."""
        left_out = {code for word in ([exclude] if isinstance(exclude, str) else exclude) for code in self._meant(word)}
        left_out |= {code for date, basket in shopper.history for code in basket if new or date >= self.moment}
        allowed = ~np.isin(self.shelf.codes, list(left_out))
        return allowed if price_max is None else allowed & (self.prices <= price_max)

    def _meant(self, text: str) -> set[str]:
        """The codes of the product that the text names, or of all whose name or attributes have its words."""
        try:
            return set(self.products.codes[self.products.columns([text])].tolist())
        except ValueError as error:
            words, of = {stem(word) for word in WORD.findall(text.lower())}, self.checker.lexicon.of
            if words and (found := {code for code in self.products.products if words <= of[code]}):
                return found
            raise ValueError(
                f"{error}; and no product has the word in its description: exclude something else"
            ) from None

    def _why(self, customer: int | None, shopper: Shopper, codes: list[str], seed: int) -> list[str]:
        """A checked narrative for each product; the reason is what the BasketGPT's opinion rests on most."""
        ledger = self.ledger if customer is not None else self.ledger.visited(shopper.history)
        customer = VISITOR if customer is None else customer
        reasons = self.shelf.reasons(shopper, codes)
        facts = [ledger.facts(customer, code, best) for code, best in zip(codes, reasons, strict=True)]
        return [told.text for told in self.narrator.tell(facts, self.checker, seed)]


def check_place(folder: str | Path) -> Path:
    """The folder, if a recommender may be kept there: it is not there, or empty, or holds one. ValueError otherwise."""
    folder = Path(folder)
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return folder
    try:
        if artifacts.manifest(folder)["made_of"].get("kind") == KIND:
            return folder
    except ValueError:  # there is no manifest, or it is none of ours
        pass
    raise ValueError(f"{folder} is there and holds no recommender: name another folder, nothing is overwritten")
