"""The BasketGPT: a GPT as a next-basket recommender. Fit it on receipts; it recommends for any history.

A shopper is what they bought: the model has no parameters of a person, so a new shopper needs no retraining. A product
is known by its place in baskets and by the words of its description, so the words alone rank one that was never sold.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from recbook import storage
from recbook.baselines.evaluation import Split
from recbook.baskets.batches import BasketWindows
from recbook.baskets.catalogue import Catalogue, History
from recbook.baskets.log import (
    DAY,
    InteractionLog,
    interaction_log,
    log_of_histories,
    log_with_openings,
    prediction_points,
)
from recbook.baskets.network import BasketGPTConfig, BasketNetwork
from recbook.baskets.shop_features import ShopFeatures
from recbook.baskets.task import NextBasketTask
from recbook.cleaning.receipts import descriptions
from recbook.embeddings.encoder import encode
from recbook.embeddings.text_vectors import centred
from recbook.gpt.config import GPTConfig
from recbook.quantization.layers import prepare_quantized, quantized_schemes
from recbook.training.checkpoints import write_tensors
from recbook.training.distributed import available_device
from recbook.training.loop import train

DEFAULT_BASKET_GPT = BasketGPTConfig()
SCORED_AT_ONCE = 64  # baskets that are scored at once
BASKET_GPT_WEIGHTS, BASKET_GPT_CONFIG, BASKET_GPT_KIND = "model.safetensors", "model.json", "BasketGPT"


class BasketGPT:
    """A next-basket recommender: `BasketGPT.fit(receipts)`, then `.recommend(history, k, when=…)`."""

    def __init__(
        self, products: Mapping[str, str], shop_features: ShopFeatures, settings: BasketGPTConfig = DEFAULT_BASKET_GPT
    ):
        """An untrained one. `products` are descriptions by code, in the order of the columns of `shop_features`."""
        if len(products) != len(shop_features.text):
            raise ValueError(f"{len(products)} descriptions of the {len(shop_features.text)} products that are known")
        s, self.settings, self.shop_features, self.catalogue = settings, settings, shop_features, Catalogue(products)
        config = GPTConfig(1, s.context, s.layers, s.heads, s.width, s.dropout)
        text = torch.from_numpy(shop_features.text)
        self.network = BasketNetwork(text, config, s.pointer, s.features, s.parts, s.seed)
        self.metrics: list[dict] = []  # of training

    @classmethod
    def fit(
        cls,
        receipts: pd.DataFrame,
        settings: BasketGPTConfig = DEFAULT_BASKET_GPT,
        products: Mapping[str, str] | None = None,
        progress: bool = True,
        device: torch.device | str | None = None,
    ) -> "BasketGPT":
        """Train on clean receipts. `products`: descriptions by code, also of products that were never sold.

        It learns and answers on `device`, by default on a GPU where there is one. ValueError if no shopper comes back:
        there is then no next basket to learn from.
        """
        if receipts.empty:
            raise ValueError("there are no receipts: there is no next basket to learn from")
        texts = dict(sorted((dict(products or {}) | descriptions(receipts)).items()))
        log, _ = interaction_log(receipts, np.array(list(texts), dtype=str))
        shop_features = ShopFeatures(log, product_vectors(texts), settings.refresh, settings.nearest, settings.solved)
        model, device = cls(texts, shop_features, settings), available_device(device)
        model.network.to(device)
        task = NextBasketTask(log, shop_features, settings, device)
        task.fit_scales(model.network)
        model.metrics = train(model.network, task, task.training(), loss=task.loss, weigh=task.weigh, progress=progress)
        model.network.eval()
        return model

    # --- Scoring and recommending ------------------------------------------------------------------------------

    @torch.no_grad()
    def score_log(self, log: InteractionLog, baskets: np.ndarray) -> np.ndarray:
        """Log-probabilities of every product where these baskets of a log open: (baskets, N) float32."""
        points = prediction_points(log, ahead=0, seed=0)
        asked = np.isin(np.arange(len(log.days)), baskets)
        windows = BasketWindows(log, points, asked, self.settings.context, self.network.device)
        parts = [np.zeros((0, log.products), np.float32)]
        for start in range(0, len(baskets), SCORED_AT_ONCE):
            part = baskets[start : start + SCORED_AT_ONCE]
            tokens, basket, predicted = windows.ends(part)
            states = self.network.states(tokens, windows.shoppers[basket])
            scores = self.network.scores(states[predicted >= 0], windows.features(part, self.shop_features))
            parts.append(scores.log_softmax(dim=1).cpu().numpy())
        return np.concatenate(parts)

    def score(self, histories: Iterable[History], when: str | pd.Timestamp | None = None) -> np.ndarray:
        """Log-probabilities of every product in the next basket after each history: (histories, N) float32."""
        log = self._log(histories, when)
        return self.score_log(log, np.flatnonzero(np.diff(log.first, append=-1)))

    def _log(self, histories: Iterable[History], when: str | pd.Timestamp | None) -> InteractionLog:
        """The log of some histories, each with an empty basket at its end: the one to be predicted."""
        features = self.shop_features
        origin, gap, since = features.origin, features.rhythm, features.first_day
        day = float(features.last_day) if when is None else (pd.Timestamp(when) - origin) / DAY
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
        a list; without dates the baskets are taken to be as far apart as is usual in the shop. `when` is the day of the
        prediction (the day after the receipts if not given). `new` leaves out what the shopper has bought; `among`
        ranks only these products. ValueError names what is not in the catalogue. Scores order the products; they are no
        probabilities, since training counts some targets more than others.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one product")
        scores = self.score([history], when)[0]
        allowed = np.ones(len(scores), bool)
        if among is not None:
            allowed = np.isin(np.arange(len(scores)), self.catalogue.columns(among))
        if new:
            allowed[self.catalogue.bought(history)] = False
        best = np.argsort(np.where(allowed, -scores, np.inf), kind="stable")[: min(k, allowed.sum())]
        table = {"code": self.catalogue.codes[best], "description": self.catalogue.texts[best]}
        return pd.DataFrame(table | {"score": np.exp(scores[best])})

    def why(self, history: History, product: str, when: str | pd.Timestamp | None = None) -> pd.DataFrame:
        """Explain a recommendation by deletion: the effect of each past product on the score of `product`.

        The effect is the score with the past product less the score without it. A row per distinct past product:
        `code`, `description`, `effect` in nats on the log-odds of `product`, largest first. All purchases of a product
        are taken out at once; the baskets stay where they were.
        """
        entries, target = self.catalogue.entries(history), self.catalogue.columns([product])[0]
        items = self.catalogue.bought(entries)
        scores = self.score([entries, *(self.catalogue.without(entries, item) for item in items)], when)[:, target]
        odds = log_odds(scores)
        table = {"code": self.catalogue.codes[items], "description": self.catalogue.texts[items]}
        table = pd.DataFrame(table | {"effect": odds[0] - odds[1:]})
        return table.sort_values("effect", ascending=False, kind="stable", ignore_index=True)

    @torch.no_grad()
    def attention(self, history: History, when: str | pd.Timestamp | None = None) -> tuple[list[str], np.ndarray]:
        """The attention where the next basket opens: names of the T tokens that are read, (layers, heads, T) shares."""
        log, context = self._log([history], when), self.settings.context
        points, every = prediction_points(log, ahead=0, seed=0), np.ones(len(log.days), bool)
        windows = BasketWindows(log, points, every, context, self.network.device)
        tokens, basket, _ = windows.ends(np.array([len(log.days) - 1]))
        names = np.append(self.catalogue.texts, "<basket>")[tokens[0].cpu().numpy()].tolist()
        return names, self.network.attention(tokens, windows.shoppers[basket])[:, 0].cpu().numpy()

    # --- On disk -----------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Keep the model in a folder of its own: weights, features as of the last day, settings. No pickle.

        A loaded model knows the shop as of that day, and cannot predict on an earlier one.
        """
        latest = self.shop_features.latest()
        state = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items() if name != "text"}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in latest.arrays().items()}
        settings = asdict(self.settings) | {"parts": sorted(self.settings.parts)}
        config = {"settings": settings, "products": self.catalogue.products, "known": latest.numbers()}
        config["quantized"] = quantized_schemes(self.network)

        def write(fresh: Path) -> None:
            write_tensors(state | tensors, fresh / BASKET_GPT_WEIGHTS)
            (fresh / BASKET_GPT_CONFIG).write_text(json.dumps(config), encoding="utf-8")

        storage.save_folder(folder, BASKET_GPT_KIND, write)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str | None = None) -> "BasketGPT":
        """The model that `save` saved, on `device`, whichever it learned on; by default on a GPU where there is one.

        ValueError if the folder does not hold one, or it is damaged.
        """
        device = available_device(device)
        with storage.readable(folder, "a BasketGPT", "fit and save it anew"):
            model = storage.load_folder(folder, lambda place, _: cls._read(place), BASKET_GPT_KIND)
        model.network.to(device)
        return model

    @classmethod
    def _read(cls, folder: Path) -> "BasketGPT":
        config = storage.read_json(folder / BASKET_GPT_CONFIG)
        tensors = load_file(folder / BASKET_GPT_WEIGHTS)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith("network.")}
        settings = BasketGPTConfig(**config["settings"] | {"parts": frozenset(config["settings"]["parts"])})
        model = cls(config["products"], ShopFeatures.restored(arrays, config["known"]), settings)
        prepare_quantized(model.network, config.get("quantized", {}))
        state = {name.removeprefix("network."): tensors[name] for name in tensors if name.startswith("network.")}
        model.network.load_state_dict(state | {"text": model.network.text})
        model.network.eval()
        return model


def log_odds(log_probabilities: np.ndarray) -> np.ndarray:
    """The logarithm of p / (1 - p), of the same shape; a p that rounds to 1 counts as the largest number below it."""
    below_one = np.minimum(log_probabilities, -np.finfo(log_probabilities.dtype).epsneg)
    return below_one - np.log1p(-np.exp(below_one))


def basket_gpt_scores(
    split: Split, settings: BasketGPTConfig = DEFAULT_BASKET_GPT, progress: bool = False
) -> np.ndarray:
    """The scores of a BasketGPT fitted before the cut, in the form of the baselines: (shoppers, products) float32."""
    return scores_at_cut(BasketGPT.fit(split.receipts, settings, progress=progress), split)


def scores_at_cut(model: BasketGPT, split: Split) -> np.ndarray:
    """The scores that a fitted model gives the shoppers of a split at its cut, (shoppers, products) float32.

    ValueError if the model does not know exactly the split's products.
    """
    if not np.array_equal(model.catalogue.codes, split.codes):
        raise ValueError("the model was fitted on other products than those of the split: fit it on split.receipts")
    log, customer = interaction_log(split.receipts, split.codes, model.shop_features.origin)
    judged = np.isin(customer, split.shoppers)
    log = log_with_openings(log, judged, (split.cut - log.origin) / DAY)
    return model.score_log(log, np.flatnonzero(np.diff(log.first, append=-1)))


def product_vectors(products: Mapping[str, str]) -> np.ndarray:
    """What a BasketGPT reads of descriptions: their sentence vectors, centred, (N, d) float32."""
    return centred(encode(list(products.values())))
