"""The whole system in one object: `Recommender.build(receipts)`, then `.recommend(…)`, `.save(…)`, `.load(…)`.

The two-stage recommender retrieves and ranks, the fact store counts the facts, the narrator writes the reasons, the
checker checks them. No parameters belong to single shoppers, so neither a new shopper nor a new product needs training.
"""

import copy
from collections.abc import Callable, Container, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from recbook.baselines import evaluation
from recbook.baskets.catalogue import Catalogue, History
from recbook.baskets.log import DAY
from recbook.baskets.model import BasketGPT
from recbook.cleaning import receipts as rc
from recbook.embeddings.encoder import encode
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.entities import PLAIN_WORD_PATTERN, word_stem
from recbook.narratives.fact_store import GUEST, NEW_FOR, FactStore
from recbook.narratives.narrator import Narrator
from recbook.ranking.lambdarank import LambdaRank
from recbook.ranking.rankers import Shopper
from recbook.system.build import RecommenderConfig, day_after_last, fit_lambdarank, fit_student, timed_stage
from recbook.system.files import RecommenderParts, load_recommender, save_recommender
from recbook.system.retrieve_and_rank import TwoStageRecommender

Baskets = list[tuple[pd.Timestamp, list[str]]]  # dates and codes, oldest first
NO_PRODUCTS = pd.DataFrame({"description": [], "price": []})
LONGEST_DESCRIPTION = 100  # letters of a new product's description: it must fit into a fact prompt


class Recommender:
    """A shop's recommender: trained models, and the receipts as of `moment`, the day after the last one."""

    def __init__(
        self,
        receipts: pd.DataFrame,
        model: BasketGPT,
        ranker: LambdaRank,
        student: BasketGPT,
        narrator: Narrator,
        vectors: pd.DataFrame,
        settings: RecommenderConfig = RecommenderConfig(),  # noqa: B008  (frozen)
        unsold: pd.DataFrame | None = None,
    ):
        """From clean receipts and the models fitted on them. `vectors`: unit rows by code; `unsold`: see `add`."""
        self.receipts, self.settings, self.narrator = receipts, settings, narrator
        self.moment = day_after_last(receipts)
        split = evaluation.snapshot(receipts, self.moment, settings.min_shoppers)
        first, known = receipts.groupby("code")["date"].min(), set(split.codes)
        self.fresh = [code for code in first.index[first >= self.moment - NEW_FOR] if code not in known]  # few buyers
        unsold = NO_PRODUCTS if unsold is None else unsold
        fresh = [*self.fresh, *unsold.index]
        self.two_stage = TwoStageRecommender(split, model, ranker, student, vectors, fresh)
        # By customer, the country of the last receipt.
        self.countries = receipts.sort_values("date", kind="stable").groupby("customer")["country"].last().to_dict()
        self.seconds: dict[str, float] = {}  # of each stage of the build
        self._list_products(vectors, unsold)

    def _list_products(self, vectors: pd.DataFrame, unsold: pd.DataFrame) -> None:
        """All that depends on the products that nobody bought yet."""
        self.vectors, self.unsold = vectors, unsold
        self.fact_store = FactStore(self.receipts, self.moment, unsold=unsold if len(unsold) else None)
        self.products = Catalogue(rc.descriptions(self.receipts) | unsold["description"].to_dict())
        self.prices = self.fact_store.table["price"].loc[self.two_stage.codes].round(2).to_numpy()  # (codes,) pounds
        for kept in ("checker", "catalogue"):  # they are of the products before
            self.__dict__.pop(kept, None)

    @cached_property
    def checker(self) -> ClaimChecker:
        """Checks narratives, and knows the words of descriptions; made when first asked for."""
        return ClaimChecker(self.fact_store)

    # --- Building ----------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        raw: pd.DataFrame,
        settings: RecommenderConfig = RecommenderConfig(),  # noqa: B008  (frozen)
        product_code: str = rc.PRODUCT_CODE,
        say: Callable[[str], None] | None = print,
    ) -> "Recommender":
        """Run every stage, from raw receipts (`load_receipts`) to a recommender. `say` gets each stage's name.

        ValueError if the receipts cannot be cleaned, or are too few to learn from.
        """
        seconds: dict[str, float] = {}
        with timed_stage("clean the receipts", seconds, say):
            receipts = rc.clean(raw, product_code).receipts
            split = evaluation.snapshot(receipts, day_after_last(receipts), settings.min_shoppers)
        with timed_stage("turn descriptions into vectors", seconds, say):
            texts = rc.descriptions(receipts)
            vectors = pd.DataFrame(encode(list(texts.values())), index=list(texts))
        with timed_stage("learn baskets", seconds, say):
            model = BasketGPT.fit(split.receipts, settings.baskets, progress=say is not None)
        with timed_stage("learn to rank", seconds, say):
            ranker = fit_lambdarank(receipts, vectors, settings)
        with timed_stage("teach a student", seconds, say):
            student = fit_student(split, model, ranker, vectors, settings.student, progress=say is not None)
        with timed_stage("learn to explain", seconds, say):
            narrator = Narrator.fit(
                receipts, FactStore(receipts, split.cut), settings.narrator, progress=say is not None
            )
        with timed_stage("put together", seconds, say):
            made = cls(receipts, model, ranker, student, narrator, vectors, settings)
        made.seconds = seconds
        return made

    def add(self, products: pd.DataFrame) -> "Recommender":
        """The same recommender with new products: `description` and `price` by code.

        Nothing is trained, and the two stages count nothing anew; the facts are. ValueError for a code that is taken,
        or an invalid description or price.
        """
        products = checked_products(products, self.products.column)
        vectors = pd.DataFrame(encode(products["description"].tolist()), index=products.index)
        unsold = products if self.unsold.empty else pd.concat([self.unsold, products])
        larger = copy.copy(self)
        vectors = pd.concat([self.vectors, vectors])
        larger.two_stage = self.two_stage.with_unsold(vectors, [*self.fresh, *unsold.index])
        larger._list_products(vectors, unsold)
        return larger

    def save(self, folder: str | Path) -> None:
        """Save all in a folder, whole or not at all, with checksums; a recommender that is there is replaced.

        The folder holds the receipts: guard it as you guard them. ValueError if the folder holds anything else.
        """
        two_stage = self.two_stage
        networks = two_stage.model, two_stage.ranker, two_stage.student, self.narrator
        save_recommender(RecommenderParts(self.receipts, *networks, self.vectors, self.settings, self.unsold), folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Recommender":
        """The recommender that `save` wrote. ValueError says what is missing, damaged or of another version."""
        return cls(*load_recommender(folder))

    # --- Asking ------------------------------------------------------------------------------------------------

    @cached_property
    def catalogue(self) -> pd.DataFrame:
        """What can be recommended: `description` and `price`, by code; not to be changed."""
        texts = [self.products.products[code] for code in self.two_stage.codes]
        return pd.DataFrame(
            {"description": texts, "price": self.prices}, index=pd.Index(self.two_stage.codes, name="code")
        )

    @property
    def customers(self) -> list[int]:
        """The customers of the receipts, sorted."""
        return self.fact_store.customers

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
        when: str | pd.Timestamp | None = None,
        country: str = "",
        seed: int = 0,
    ) -> pd.DataFrame:
        """At most k products, best first: `code`, `description`, `price`, `score`, `channel`, and `why` if explained.

        For a `customer` of the receipts; or for a guest session with a `history`: one list of products (codes or names)
        bought today, or dated baskets, oldest first; or, with neither, for an unknown shopper, who may come from a
        `country`. `query`: their search text. `price_max` in pounds. `exclude`: products, or words such as "red" that
        descriptions must not have. `new` leaves out all that they bought; what they bought today is always left out.
        `fast`: the student alone ranks for a shopper with a history. `when`: the time of asking, the recommender's
        moment or later. Scores order this list, and cannot be compared with another's. The table is empty where nothing
        is left to recommend. ValueError says which argument is wrong.
        """
        if k < 1 or query is not None and not query.strip():
            wrong = f"k is {k} and the query {query!r}"
            raise ValueError(f"{wrong}: ask for one product or more, and type something or None")
        asked = self._as_of(when)
        baskets = self._baskets(customer, history, asked)
        shopper = self._shopper(customer, baskets, asked, country)
        today = asked.normalize()
        left_out = {code for date, codes in baskets if new or date >= today for code in codes}
        found = self.two_stage.find(shopper, query, self._allowed(left_out, price_max, exclude), fast, k)
        codes = found.codes[:k].tolist()
        table = self.catalogue.iloc[[self.two_stage.column[code] for code in codes]].reset_index()
        table = table.assign(score=found.scores[:k], channel=found.channels[:k])
        return table.assign(why=self._explanations(customer, baskets, shopper, codes, fast, seed)) if explain else table

    def shopper(
        self,
        customer: int | None = None,
        history: History | Sequence[str] | None = None,
        when: str | pd.Timestamp | None = None,
        country: str = "",
    ) -> Shopper:
        """The shopper as rankers see them: only purchases that the models know. ValueError: see `recommend`."""
        asked = self._as_of(when)
        return self._shopper(customer, self._baskets(customer, history, asked), asked, country)

    def _shopper(self, customer: int | None, baskets: Baskets, asked: pd.Timestamp, country: str) -> Shopper:
        column = self.two_stage.model.catalogue.column
        known = [(min(date, asked), [code for code in codes if code in column]) for date, codes in baskets]
        return Shopper([basket for basket in known if basket[1]], asked, country or self.countries.get(customer, ""))

    def _baskets(self, customer: int | None, history: History | Sequence[str] | None, asked: pd.Timestamp) -> Baskets:
        """The shopper's baskets: dates and codes, also of products that are no longer on sale."""
        if customer is not None and history is not None:
            raise ValueError("give a customer or a history, not both: a customer's history is in the receipts")
        if customer is not None and customer not in self.fact_store:
            raise ValueError(f"customer {customer} bought nothing so far; to recommend to somebody new, give a history")
        if customer is not None:
            return self.fact_store.history(customer)
        if history is None or not len(history):
            return []
        if not isinstance(history, str) and all(isinstance(entry, str) for entry in history):
            history = [(asked, list(map(str, history)))]
        entries = self.products.entries(history)
        if any(entry.date is None for entry in entries):
            example = "[('2011-10-03', ['22423']), …]"
            raise ValueError(f"several baskets need their dates, {example}; or give one list of products")
        end = asked.normalize() + DAY - pd.Timedelta(1, "ns")  # a basket of today may have a time of day
        self.products.dated(entries, 0.0, end, 0.0)  # ValueError: not oldest first, or after today
        return [(entry.date, self.products.codes[entry.items].tolist()) for entry in entries]

    def _as_of(self, when: str | pd.Timestamp | None) -> pd.Timestamp:
        asked = self.moment if when is None else pd.Timestamp(when).tz_localize(None)
        if not asked >= self.moment:  # written so that NaT is refused too
            raise ValueError(
                f"asked on {when}, but the shop is known as of {self.moment:%Y-%m-%d}: build on fewer receipts"
            )
        return asked

    def _allowed(self, left_out: set[str], price_max: float | None, exclude: Sequence[str]) -> np.ndarray:
        """The products that may be recommended, (codes,) bool."""
        if price_max is not None and not price_max > 0:
            raise ValueError(f"price_max is {price_max}: give a price above zero, in pounds, or None")
        words = [exclude] if isinstance(exclude, str) else exclude
        column, allowed = self.two_stage.column, np.ones(len(self.two_stage.codes), bool)
        allowed[[column[code] for code in left_out.union(*map(self._matching_codes, words)) if code in column]] = False
        return allowed if price_max is None else allowed & (self.prices <= price_max)

    def _matching_codes(self, text: str) -> set[str]:
        """The product with this code; or the one with this name, and all whose name or attributes have its words."""
        if (code := text.strip().upper()) in self.products.column:
            return {code}
        stems = self.checker.lexicon.stems
        words = {word_stem(word) for word in PLAIN_WORD_PATTERN.findall(text.lower())}
        found = {code for code in self.products.products if words and words <= stems[code]}
        try:
            return found | set(self.products.codes[self.products.columns([text])].tolist())
        except ValueError as error:
            if found:
                return found
            raise ValueError(f"{error}; and no product has the word in its description") from None

    def _explanations(
        self, customer: int | None, baskets: Baskets, shopper: Shopper, codes: list[str], fast: bool, seed: int
    ) -> list[str]:
        """A checked narrative per product; its reason is the purchase with the largest effect on the model's score."""
        if not codes:
            return []
        fact_store = self.fact_store if customer is not None else self.fact_store.guest(baskets)
        customer = GUEST if customer is None else customer
        reasons = self.two_stage.reasons(shopper, codes, fast)
        facts = [fact_store.facts(customer, code, best) for code, best in zip(codes, reasons, strict=True)]
        return [told.text for told in self.narrator.tell(facts, self.checker, seed)]


def checked_products(products: pd.DataFrame, known: Container[str]) -> pd.DataFrame:
    """New products in standard form: `description` and `price` in pounds, by code in capitals.

    ValueError names the first that is `known` or occurs twice, or has no description of at most LONGEST_DESCRIPTION
    letters or no price above zero.
    """
    texts = products["description"].map(lambda text: " ".join(text.split()) if isinstance(text, str) else "")
    prices = pd.to_numeric(products["price"], errors="coerce")
    codes = pd.Index([str(code).strip().upper() for code in products.index], name="code")
    table = pd.DataFrame({"description": texts.to_numpy(), "price": prices.to_numpy(float)}, index=codes)
    if again := [code for code in codes if code in known] or codes[codes.duplicated()].tolist():
        raise ValueError(f"the product {again[0]} is there already: give new products new codes")
    for code, text, price in table.itertuples():
        if not any(map(str.isalpha, text)) or len(text) > LONGEST_DESCRIPTION or not 0 < price < np.inf:
            wanted = f"a description of words, at most {LONGEST_DESCRIPTION} letters, and a price above zero, in pounds"
            raise ValueError(f"the product {code} needs {wanted}; it has {text[:LONGEST_DESCRIPTION]!r} and {price}")
    return table
