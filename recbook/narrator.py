"""A narrator: everything that turns facts into checked sentences, taught in one go and kept in one folder.

Chapter 13 without its experiments: a vocabulary of the shop's own words, a small GPT that reads sheets, an adapter for
one style, merged into it. Here no product is held out: a shop wants all of its own names told.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbook import checkpoints, gpt, lora, narratives, token_files, training
from recbook.claims import Checker
from recbook.documents import build_vocabulary
from recbook.facts import Facts
from recbook.ledger import Cast, Ledger, draw
from recbook.narratives import Narrative
from recbook.recitals import reading
from recbook.storytelling import STYLES
from recbook.tokens import Vocabulary

WORDS, STYLE = "vocabulary.json", "style.json"
GOODS = 900  # products that the numbers below are for: a larger catalogue is read, and said again, more often
MUON = dict(learning_rate=0.02, matrix_learning_rate=0.04)  # as Chapter 7 chose them; without Muon, ADAMW
ADAMW = dict(learning_rate=3e-3)


@dataclass(frozen=True)
class Settings:
    """How a narrator is taught; as in Chapter 13."""

    style: str = "warm"
    words: int = 2048  # tokens at most that are learned from the shop's text
    cards: int = 2  # times that each product's card is read
    recitals: int = 9000
    sayings: int = 12_000
    steps: int = 600  # of the base, at GOODS products
    batch: int = 8
    pairs: int = 3000  # sheets with narratives, to teach the style
    style_steps: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"there is no style {self.style!r}: give one of {', '.join(STYLES)}")


class Narrator:
    """`Narrator.fit(receipts, ledger)`, then `.tell(facts, checker)`."""

    def __init__(self, model: gpt.GPT, vocabulary: Vocabulary, style: str):
        """A model that was taught the style, and the vocabulary that it was taught in."""
        self.model, self.vocabulary, self.style = model.eval(), vocabulary, style

    @classmethod
    def fit(
        cls,
        receipts: pd.DataFrame,
        ledger: Ledger,
        settings: Settings = Settings(),  # noqa: B008  (frozen)
        progress: bool = True,
    ) -> "Narrator":
        """Teach one from clean receipts and what the ledger counted of them."""
        s, vocabulary = settings, build_vocabulary(receipts, settings.words)
        larger = max(1, round(len(ledger.table) / GOODS))
        read = reading(receipts, ledger, vocabulary, (s.cards, s.recitals * larger, s.sayings), s.seed)
        sizes = gpt.PRESETS["laptop"] | {"context": 256}  # room for a sheet and what is told of it
        model = gpt.GPT(gpt.Config(len(vocabulary), **sizes), seed=s.seed)
        rates = MUON if hasattr(torch.optim, "Muon") else ADAMW
        recipe = _recipe(s.steps * larger, s.batch, 40, s.seed, **rates)
        training.train(model, _windows(read, vocabulary, model.config.context), recipe, progress=progress)
        lora.adapt(model, s.style, lora.DEFAULT, s.seed)
        everybody = Cast(ledger.customers, ledger.table.index.tolist())
        told = draw(ledger, everybody, s.pairs, s.seed)
        pairs = narratives.pairs(told, s.style, vocabulary, model.config.context, s.seed)
        recipe = _recipe(s.style_steps, 16, 20, s.seed, learning_rate=1e-2, weight_decay=0.0)
        training.train(model, pairs, recipe, progress=progress)
        return cls(lora.merge_and_unload(model, s.style), vocabulary, s.style)

    def tell(self, facts: Sequence[Facts], checker: Checker, seed: int = 0) -> list[Narrative]:
        """A narrative for each of the facts, every sentence checked: see `narratives.write_true`."""
        return narratives.write_true(self.model, facts, self.vocabulary, checker, self.style, seed=seed)

    def save(self, folder: str | Path) -> None:
        """Keep the model, the vocabulary and the name of the style."""
        folder = Path(folder)
        checkpoints.save_model(self.model, folder)
        self.vocabulary.save(folder / WORDS)
        (folder / STYLE).write_text(json.dumps(self.style), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Narrator":
        """The narrator that `save` kept. ValueError if the folder does not hold one."""
        folder = Path(folder)
        try:
            style = json.loads((folder / STYLE).read_text(encoding="utf-8"))
            made = cls(checkpoints.load_model(folder), Vocabulary.load(folder / WORDS), style)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} does not hold a narrator that can be loaded ({error}); fit it anew") from error
        if style not in STYLES or made.model.config.vocabulary != len(made.vocabulary):
            raise ValueError(f"{folder} holds parts of different narrators: fit it anew")
        return made


def _recipe(steps: int, batch: int, warmup: int, seed: int, **rates: float) -> training.Settings:
    return training.Settings(
        steps=steps, batch=batch, warmup=warmup, seed=seed, evaluate_every=steps, save_every=steps, **rates
    )


def _windows(read: Sequence[Sequence[int]], vocabulary: Vocabulary, context: int) -> token_files.Windows:
    """What is read as one stream of tokens, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        token_files.write(path := Path(folder) / "read.tokens", read, vocabulary)
        return token_files.Windows(np.array(token_files.read(path, vocabulary)), context)
