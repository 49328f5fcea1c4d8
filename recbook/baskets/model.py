"""Baskets as sentences: the GPT as a next-basket recommender. Fit it on receipts, ask it about any history.

A shopper is what they bought: nothing is learned about anybody in person, so a shopper it has never seen needs no
retraining. A product is its place in other baskets and the words of its description, so one that was never sold can be
ranked by its words.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbook.baselines.evaluation import Split
from recbook.baskets.batches import BasketWindows, NextBasketLoss
from recbook.baskets.catalogue import Catalogue, History
from recbook.baskets.item_features import ShopFeatures
from recbook.baskets.log import (
    DAY,
    InteractionLog,
    interaction_log,
    log_of_histories,
    log_with_openings,
    prediction_points,
)
from recbook.baskets.network import BasketGPTConfig, BasketNetwork
from recbook.baskets.shopper_features import on_sale_from
from recbook.cleaning.receipts import descriptions
from recbook.embeddings.encoder import encode
from recbook.gpt.config import GPTConfig
from recbook.quantization.layers import prepare_quantized, quantized_schemes
from recbook.training.config import TrainingConfig
from recbook.training.loop import train

DEFAULT_BASKET_GPT = BasketGPTConfig()
SCORED_AT_ONCE = 64  # questions that are answered at once
BASKET_GPT_WEIGHTS, BASKET_GPT_CONFIG = "model.safetensors", "model.json"


class BasketGPT:
    """A next-basket recommender: `BasketGPT.fit(receipts)`, then `.recommend(history, k, when=…)`."""

    def __init__(
        self, products: Mapping[str, str], knowledge: ShopFeatures, settings: BasketGPTConfig = DEFAULT_BASKET_GPT
    ):
        """An untrained one. `products` are descriptions by code, in the order of the columns of what is known."""
        if len(products) != len(knowledge.text):
            raise ValueError(f"{len(products)} descriptions of the {len(knowledge.text)} products that are known")
        s, self.settings, self.knowledge, self.catalogue = settings, settings, knowledge, Catalogue(products)
        config = GPTConfig(1, s.context, s.layers, s.heads, s.width, s.dropout)
        self.network = BasketNetwork(torch.from_numpy(knowledge.text), config, s.pointer, s.clues, s.parts, s.seed)
        self.metrics: list[dict] = []  # of training

    @classmethod
    def fit(
        cls,
        receipts: pd.DataFrame,
        settings: BasketGPTConfig = DEFAULT_BASKET_GPT,
        products: Mapping[str, str] | None = None,
        progress: bool = True,
    ) -> "BasketGPT":
        """Train on clean receipts. `products`: descriptions by code, also of products that were never sold.

        ValueError if no shopper comes back: there is then no next basket to learn from.
        """
        if receipts.empty:
            raise ValueError("there are no receipts: there is no next basket to learn from")
        texts = dict(sorted((dict(products or {}) | descriptions(receipts)).items()))
        log, _ = interaction_log(receipts, np.array(list(texts), dtype=str))
        model = cls(
            texts, ShopFeatures(log, _vectors(texts), settings.refresh, settings.nearest, settings.solved), settings
        )
        model._learn(log, progress)
        return model

    def _learn(self, log: InteractionLog, progress: bool) -> None:
        s, questions = self.settings, prediction_points(log, self.settings.ahead, self.settings.seed)
        start = min(s.start, log.days.max() / 2)
        answers = NextBasketLoss(log, questions.day, on_sale_from(log, s.min_shoppers), start, s.repeats)
        sentences = BasketWindows(log, questions, answers.asked, s.context)
        if not sentences.windows:
            least = f"{start:.0f} days after the first receipt or later, something that {s.min_shoppers} shoppers had"
            raise ValueError(f"nobody came back and bought, {least}: there is no next basket to learn from")
        examples = np.flatnonzero(answers.asked)
        examples = np.sort(np.random.default_rng(s.seed).permutation(examples)[: SCORED_AT_ONCE * 4])
        self.network.fit_scales(sentences.about(examples, self.knowledge), sentences.shoppers[examples])

        def loss(network: BasketNetwork, batch: tuple[Tensor, ...]) -> Tensor:
            tokens, basket, asked = batch
            states = network.states(tokens, sentences.shoppers[basket], s.forget)  # (B, T, C)
            baskets = asked[asked >= 0].numpy()
            scores = network.scores(states[asked >= 0], sentences.about(baskets, self.knowledge))
            return answers.loss(scores, baskets, *sentences.targets(baskets))

        epoch = sentences.steps(s.batch)
        rates = dict(learning_rate=s.learning_rate, weight_decay=s.weight_decay, final=0.02)
        steps = dict(steps=ceil(s.epochs * epoch), evaluate_every=epoch, save_every=ceil(s.epochs * epoch))
        recipe = TrainingConfig(**steps, **rates, batch=s.batch, seed=s.seed, precision="float32")
        self.metrics = train(self.network, sentences, recipe, loss=loss, progress=progress)
        self.network.eval()

    # --- Asking ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def scores(self, log: InteractionLog, baskets: np.ndarray) -> np.ndarray:
        """Log-probabilities of every product where these baskets of a log open: (baskets, N) float32."""
        questions = prediction_points(log, ahead=0, seed=0)
        sentences = BasketWindows(log, questions, np.isin(np.arange(len(log.days)), baskets), self.settings.context)
        made = [np.zeros((0, log.products), np.float32)]
        for start in range(0, len(baskets), SCORED_AT_ONCE):
            part = baskets[start : start + SCORED_AT_ONCE]
            tokens, basket, asked = sentences.ends(part)
            states = self.network.states(tokens, sentences.shoppers[basket])
            scores = self.network.scores(states[asked >= 0], sentences.about(part, self.knowledge))
            made.append(scores.log_softmax(dim=1).numpy())
        return np.concatenate(made)

    def ask(self, histories: Iterable[History], when: str | pd.Timestamp | None = None) -> np.ndarray:
        """Log-probabilities of every product in the next basket after each history: (histories, N) float32."""
        log = self._typed(histories, when)
        return self.scores(log, np.flatnonzero(np.diff(log.first, append=-1)))

    def _typed(self, histories: Iterable[History], when: str | pd.Timestamp | None) -> InteractionLog:
        """The log of some histories, each with an empty basket at its end: the one that is asked about."""
        day = float(self.knowledge.last_day) if when is None else (pd.Timestamp(when) - self.knowledge.origin) / DAY
        origin, gap, since = self.knowledge.origin, self.knowledge.rhythm, self.knowledge.first_day
        if day < since:
            known = f"{origin + pd.Timedelta(days=since):%Y-%m-%d}"
            raise ValueError(f"this model knows the shop as of {known}; to ask about an earlier day, fit it on less")
        dated = [self.catalogue.dated(history, day, origin, gap) for history in histories]
        empty = (day, np.array([], np.int64))
        return log_of_histories([[*history, empty] for history in dated], len(self.catalogue.codes), origin)

    def recommend(
        self,
        history: History,
        k: int = 10,
        when: str | pd.Timestamp | None = None,
        new: bool = False,
        among: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """The k products that fit the next basket best: `code`, `description`, `score`.

        `history` is a list of baskets, oldest first, each a list of codes or descriptions, or a pair of a date and such
        a list; without dates the baskets are taken to be as far apart as is usual in the shop. `when` is the day of
        asking (the day after the receipts if not given). `new` leaves out what the shopper has bought; `among` ranks
        only these products. ValueError names what is not in the catalogue. Scores order the products; they are no
        probabilities, since training counts some targets more than others.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one product")
        scores = self.ask([history], when)[0]
        allowed = np.ones(len(scores), bool)
        if among is not None:
            allowed = np.isin(np.arange(len(scores)), self.catalogue.columns(among))
        if new:
            allowed[self.catalogue.bought(history)] = False
        best = np.argsort(np.where(allowed, -scores, np.inf), kind="stable")[: min(k, allowed.sum())]
        table = {"code": self.catalogue.codes[best], "description": self.catalogue.texts[best]}
        return pd.DataFrame(table | {"score": np.exp(scores[best])})

    def why(self, history: History, product: str, when: str | pd.Timestamp | None = None) -> pd.DataFrame:
        """What each past product did for `product`: the score with it less the score without it, strongest first.

        A row a distinct past product: `code`, `description`, `effect` in nats on the log-odds of `product`. All of
        its purchases are taken out at once; the baskets stay where they were.
        """
        history, target = self.catalogue.entries(history), self.catalogue.columns([product])[0]
        items = self.catalogue.bought(history)
        scores = self.ask([history, *(self.catalogue.without(history, item) for item in items)], when)[:, target]
        odds = scores - np.log1p(-np.exp(scores))
        table = {"code": self.catalogue.codes[items], "description": self.catalogue.texts[items]}
        table = pd.DataFrame(table | {"effect": odds[0] - odds[1:]})
        return table.sort_values("effect", ascending=False, kind="stable", ignore_index=True)

    @torch.no_grad()
    def attention(self, history: History, when: str | pd.Timestamp | None = None) -> tuple[list[str], np.ndarray]:
        """Where the GPT looks when the next basket opens: names of the T tokens it reads, (layers, heads, T) shares."""
        log = self._typed([history], when)
        sentences = BasketWindows(
            log, prediction_points(log, ahead=0, seed=0), np.ones(len(log.days), bool), self.settings.context
        )
        tokens, basket, _ = sentences.ends(np.array([len(log.days) - 1]))
        names = np.append(self.catalogue.texts, "<basket>")[tokens[0].numpy()].tolist()
        return names, self.network.attention(tokens, sentences.shoppers[basket])[:, 0].numpy()

    # --- On disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Keep the model in a folder of its own: weights, what is known on the last day, settings. No pickle.

        A model that is loaded knows the shop as of that day, and cannot be asked about an earlier one.
        """
        folder, known = Path(folder), self.knowledge.latest()
        folder.mkdir(parents=True, exist_ok=True)
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items() if name != "text"}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in known.arrays().items()}
        save_file(
            {name: tensor.contiguous() for name, tensor in (state | tensors).items()}, folder / BASKET_GPT_WEIGHTS
        )
        settings = asdict(self.settings) | {"parts": sorted(self.settings.parts)}
        words = {"settings": settings, "products": self.catalogue.products, "known": known.numbers()}
        words["quantized"] = quantized_schemes(self.network)
        (folder / BASKET_GPT_CONFIG).write_text(json.dumps(words), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "BasketGPT":
        """The model that `save` kept. ValueError if the folder does not hold one."""
        folder = Path(folder)
        try:
            words = json.loads((folder / BASKET_GPT_CONFIG).read_text(encoding="utf-8"))
            tensors = load_file(folder / BASKET_GPT_WEIGHTS)
            arrays = {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith("network.")}
            settings = BasketGPTConfig(**words["settings"] | {"parts": frozenset(words["settings"]["parts"])})
            model = cls(words["products"], ShopFeatures.restored(arrays, words["known"]), settings)
            prepare_quantized(model.network, words.get("quantized", {}))
            state = {name.removeprefix("network."): tensors[name] for name in tensors if name.startswith("network.")}
            model.network.load_state_dict(state | {"text": model.network.text})
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"{folder} does not hold a BasketGPT that can be loaded ({error}); fit and save it anew"
            ) from error
        model.network.eval()
        return model


def basket_gpt_scores(
    split: Split, settings: BasketGPTConfig = DEFAULT_BASKET_GPT, progress: bool = False
) -> np.ndarray:
    """The BasketGPT's scores in the form of the baselines: fitted before the cut, (shoppers, products) float32."""
    return scores_at_cut(BasketGPT.fit(split.receipts, settings, progress=progress), split)


def scores_at_cut(model: BasketGPT, split: Split) -> np.ndarray:
    """The scores that a fitted model gives the shoppers of a split at its cut, (shoppers, products) float32.

    ValueError if the model does not know exactly the split's products.
    """
    if not np.array_equal(model.catalogue.codes, split.codes):
        raise ValueError("the model was fitted on other products than those of the split: fit it on split.receipts")
    log, customer = interaction_log(split.receipts, split.codes, model.knowledge.origin)
    judged = np.isin(customer, split.shoppers)
    log = log_with_openings(log, judged, (split.cut - log.origin) / DAY)
    return model.scores(log, np.flatnonzero(np.diff(log.first, append=-1)))


def _vectors(products: Mapping[str, str]) -> np.ndarray:
    """Unit vectors of the descriptions, what all share taken out first: (N, d) float32."""
    vectors = encode(list(products.values()))
    vectors = vectors - vectors.mean(axis=0)
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).astype(np.float32)
