"""Pairs of a prompt and the answer that a model is to learn: batches in which only the answers count.

The prompt is given, so it has no loss: its targets are -1. `load_pairs` reads instruction sets of free text, such as
`neuralwork/fashion-style-instruct`, from a file or from the Hugging Face hub.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recbook.gpt.cross_entropy import IGNORE_INDEX
from recbook.tokens.documents import Control, Document, encode_document
from recbook.tokens.vocabulary import Vocabulary
from recbook.training.batching import batch_of_like_length

if TYPE_CHECKING:
    import torch

INSTRUCTION_SET = "neuralwork/fashion-style-instruct"
PAIRS_COLUMNS, PAIRS_SUFFIXES = ["input", "context", "completion"], (".parquet", ".jsonl")  # of a set of free text


@dataclass(frozen=True)
class PromptAnswerPairs:
    """Token ids of prompts and of their answers, each answer closed by the token that ends a document.

    `train` calls `batch`, `validation_loss` calls `blocks`.
    """

    prompts: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    pad: int  # the token that fills up short rows

    def __post_init__(self) -> None:
        if len(self.prompts) != len(self.answers) or not len(self.prompts):
            raise ValueError(f"{len(self.prompts)} prompts and {len(self.answers)} answers: give as many, and some")
        if empty := [row for row, pair in enumerate(zip(self.prompts, self.answers, strict=True)) if not all(pair)]:
            raise ValueError(f"pair {empty[0]} has an empty prompt or answer: there is nothing to learn from it")

    def __len__(self) -> int:
        return len(self.prompts)

    def fitting(self, positions: int) -> list[int]:
        """Rows of the pairs that fit in a model with so many positions."""
        return np.flatnonzero(self._lengths - 1 <= positions).tolist()

    def take(self, rows: Sequence[int]) -> "PromptAnswerPairs":
        """These pairs alone, in this order."""
        return PromptAnswerPairs([self.prompts[row] for row in rows], [self.answers[row] for row in rows], self.pad)

    def batch(self, step: int, size: int, seed: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
        """`size` pairs of like length as (tokens, targets), both (B, T) int64: see `batch_of_like_length`."""
        return self._at(batch_of_like_length(self._lengths, step, size, seed).tolist())

    @cached_property
    def _lengths(self) -> np.ndarray:
        both = zip(self.prompts, self.answers, strict=True)
        return np.array([len(prompt) + len(answer) for prompt, answer in both])

    def blocks(self, size: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """Every pair once, at most `size` a batch."""
        for first in range(0, len(self), size):
            yield self._at(range(first, min(first + size, len(self))))

    def _at(self, rows: Sequence[int]) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        texts = [[*self.prompts[row], *self.answers[row]] for row in rows]
        length = max(map(len, texts)) - 1
        tokens = torch.full((len(texts), length), self.pad)
        targets = torch.full((len(texts), length), IGNORE_INDEX)
        for place, (row, text) in enumerate(zip(rows, texts, strict=True)):
            given = len(self.prompts[row]) - 1  # position t predicts token t + 1: the prompt's last the answer's first
            tokens[place, : len(text) - 1] = torch.tensor(text[:-1])
            targets[place, given : len(text) - 1] = torch.tensor(text[given + 1 :])
        return tokens, targets


def encode_pairs(prompts: Sequence[Document], answers: Sequence[Document], vocabulary: Vocabulary) -> PromptAnswerPairs:
    """Documents as `PromptAnswerPairs`, each answer closed by `<|end|>`."""
    end, pad = vocabulary.control["<|end|>"], vocabulary.control["<|pad|>"]
    prompt_ids = [encode_document(prompt, vocabulary) for prompt in prompts]
    return PromptAnswerPairs(prompt_ids, [[*encode_document(answer, vocabulary), end] for answer in answers], pad)


def load_pairs(source: str | Path = INSTRUCTION_SET) -> tuple[list[Document], list[Document]]:
    """Prompts and answers of an instruction set of free text.

    `source`: a parquet or JSON Lines file with the text columns `input`, `context` and `completion`, or the name of
    such a data set on the Hugging Face hub, whose parquet files are fetched and read in the order of their names (no
    code of it is run). ValueError for other columns, rows without an answer, another kind of file, or a data set that
    cannot be fetched.
    """
    path = Path(source)
    if path.suffix not in PAIRS_SUFFIXES and path.exists():
        raise ValueError(f"{path} is here, and is no file that ends in {' or '.join(PAIRS_SUFFIXES)}: give such a file")
    files = [path] if path.suffix in PAIRS_SUFFIXES else _fetched(str(source))
    table = pd.concat([_read(file) for file in files], ignore_index=True)
    requests = table["input"].fillna("") + " " + table["context"].fillna("")
    prompts: list[Document] = [[Control("<|request|>"), f" {text.strip()}", Control("<|answer|>")] for text in requests]
    return prompts, [[f" {text.strip()}"] for text in table["completion"]]


def _read(path: Path) -> pd.DataFrame:
    """The columns of one file, each row with an answer."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=True, dtype=False)
    if missing := [name for name in PAIRS_COLUMNS if name not in table]:
        raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(table)}")
    if bad := [row for row, text in enumerate(table["completion"]) if not isinstance(text, str) or not text.strip()]:
        raise ValueError(f"{path} has no text in completion of rows {bad[:5]}: mend them, or leave them out")
    return table[PAIRS_COLUMNS]


def _fetched(name: str) -> list[Path]:
    """The parquet files of a data set on the hub, in the library's cache, by name."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet")
    except Exception as error:  # of its network library too, which changes with the version
        raise ValueError(f"the data set {name} could not be had from the hub ({error}); give a file instead") from error
    found = sorted(Path(folder).rglob("*.parquet"))
    if not found:
        raise ValueError(f"the data set {name} has no parquet file: save one yourself, and give its path")
    return found
