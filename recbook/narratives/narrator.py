"""A narrator: all that turns facts into checked sentences, trained in one go and kept in one folder.

Chapter 14 without its experiments: a vocabulary of the shop's own words, a small GPT that reads fact prompts, an
adapter for one style, merged into it. No product is held out here: a shop wants to tell of all its products.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbook import storage
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT
from recbook.lora.layers import DEFAULT_LORA, add_adapter, merge_and_unload
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.fact_store import FactStore, FactSubset, draw_facts
from recbook.narratives.facts import Facts
from recbook.narratives.generate import Narrative, narrative_pairs, write_checked
from recbook.narratives.pretraining import pretraining_corpus
from recbook.narratives.templates import NARRATIVE_STYLES
from recbook.tokens.documents import build_vocabulary
from recbook.tokens.files import TokenWindows, read_tokens, write_tokens
from recbook.tokens.vocabulary import Vocabulary
from recbook.training import checkpoints
from recbook.training.config import TrainingConfig
from recbook.training.distributed import available_device
from recbook.training.loop import train

NARRATOR_MODEL, NARRATOR_VOCABULARY, NARRATOR_KIND = "gpt", "vocabulary.json", "narrator"
REFERENCE_PRODUCTS = 900  # catalogue size that `NarratorConfig` is for: prompts and steps grow with a larger one
# How the base learns, as in Chapter 7: with Muon, or with AdamW where PyTorch has no Muon; and how it learns the style.
NARRATOR_MUON = TrainingConfig(learning_rate=0.02, matrix_learning_rate=0.04)
NARRATOR_ADAMW = TrainingConfig(learning_rate=3e-3)
NARRATOR_STYLE_TUNING = TrainingConfig(learning_rate=1e-2, weight_decay=0.0)


@dataclass(frozen=True)
class NarratorConfig:
    """How a narrator is trained; as in Chapter 14."""

    style: str = "warm"
    words: int = 2048  # text tokens of the vocabulary, at most
    cards: int = 2  # repeats of each product's card in the pre-training corpus
    prompts: int = 9000  # of the copy task, at REFERENCE_PRODUCTS products
    sentences: int = 12_000  # single sentences in the corpus
    steps: int = 600  # of pre-training, at REFERENCE_PRODUCTS products
    batch: int = 8
    pairs: int = 3000  # fact prompts with narratives, to teach the style
    style_steps: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        if self.style not in NARRATIVE_STYLES:
            raise ValueError(f"there is no style {self.style!r}: give one of {', '.join(NARRATIVE_STYLES)}")

    def for_catalogue(self, products: int) -> "NarratorConfig":
        """The same for a catalogue of so many products: prompts and steps grow with a larger one."""
        larger = max(1, round(products / REFERENCE_PRODUCTS))
        return replace(self, prompts=larger * self.prompts, steps=larger * self.steps)


class Narrator:
    """`Narrator.fit(receipts, fact_store)`, then `.tell(facts, checker)`."""

    def __init__(self, model: GPT, vocabulary: Vocabulary, style: str):
        """A model that was taught the style, and its vocabulary."""
        self.model, self.vocabulary, self.style = model.eval(), vocabulary, style

    @classmethod
    def fit(
        cls,
        receipts: pd.DataFrame,
        fact_store: FactStore,
        settings: NarratorConfig = NarratorConfig(),  # noqa: B008  (frozen)
        progress: bool = True,
        device: torch.device | str | None = None,
    ) -> "Narrator":
        """Train a narrator on clean receipts and their fact store, on `device`: by default a GPU where there is one."""
        s = settings.for_catalogue(len(fact_store.table))
        vocabulary, numbers = build_vocabulary(receipts, s.words), (s.cards, s.prompts, s.sentences)
        corpus = pretraining_corpus(receipts, fact_store, vocabulary, numbers, s.seed)
        sizes = GPT_PRESETS["laptop"] | {"context": 256}  # room for a fact prompt and its narrative
        model = GPT(GPTConfig(len(vocabulary), **sizes), seed=s.seed).to(available_device(device))
        rates = NARRATOR_MUON if hasattr(torch.optim, "Muon") else NARRATOR_ADAMW
        pretraining = _for_steps(rates, s.steps, s.batch, 40, s.seed)
        train(model, _windows(corpus, vocabulary, model.config.context), pretraining, progress=progress)
        add_adapter(model, s.style, DEFAULT_LORA, s.seed)
        everything = FactSubset(fact_store.customers, fact_store.table.index.tolist())
        facts = draw_facts(fact_store, everything, s.pairs, s.seed)
        pairs = narrative_pairs(facts, s.style, vocabulary, model.config.context, s.seed)
        tuning = _for_steps(NARRATOR_STYLE_TUNING, s.style_steps, 16, 20, s.seed)
        train(model, pairs, tuning, progress=progress)
        merge_and_unload(model, s.style)
        return cls(model, vocabulary, s.style)

    def tell(self, facts: Sequence[Facts], checker: ClaimChecker, seed: int = 0) -> list[Narrative]:
        """A narrative for each of the facts, every sentence checked: see `write_checked`."""
        return write_checked(self.model, facts, self.vocabulary, checker, self.style, seed=seed)

    def save(self, folder: str | Path) -> None:
        """Keep the model, the vocabulary and the name of the style in a folder of their own."""

        def write(fresh: Path) -> None:
            checkpoints.save_gpt(self.model, fresh / NARRATOR_MODEL)
            self.vocabulary.save(fresh / NARRATOR_VOCABULARY)

        storage.save_folder(folder, NARRATOR_KIND, write, {"style": self.style})

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str | None = None) -> "Narrator":
        """The narrator that `save` wrote, on `device`: by default a GPU where there is one.

        ValueError if the folder does not hold one, or it is damaged.
        """
        device = available_device(device)

        def read(place: Path, made_of: dict[str, Any]) -> "Narrator":
            model, style = checkpoints.load_gpt(place / NARRATOR_MODEL), made_of["style"]
            vocabulary = Vocabulary.load(place / NARRATOR_VOCABULARY)
            if style not in NARRATIVE_STYLES or model.config.vocabulary != len(vocabulary):
                raise ValueError("it holds parts of different narrators")
            return cls(model, vocabulary, style)

        with storage.readable(folder, "a narrator", "fit it anew"):
            narrator = storage.load_folder(folder, read, NARRATOR_KIND)
        narrator.model.to(device)
        return narrator


def _for_steps(rates: TrainingConfig, steps: int, batch: int, warmup: int, seed: int) -> TrainingConfig:
    return replace(rates, steps=steps, batch=batch, warmup=warmup, seed=seed, evaluate_every=steps, save_every=steps)


def _windows(corpus: Sequence[Sequence[int]], vocabulary: Vocabulary, context: int) -> TokenWindows:
    """The corpus as one stream of tokens, in memory."""
    with tempfile.TemporaryDirectory() as folder:
        write_tokens(path := Path(folder) / "corpus.tokens", corpus, vocabulary)
        return TokenWindows(np.array(read_tokens(path, vocabulary)), context)
