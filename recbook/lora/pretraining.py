"""Pre-training text for the assistant's base: a copy task, and fragments of requests and answers.

A large model has read every word of English, and much text that repeats text. A model of a shop's receipts has read
neither: it knows products by heart and never copies from its context, and it cannot spell words that no receipt holds.
So the base also reads `copy_task_lists`, lists of random products followed by the same products again, and
`answer_fragments`, requests and parts of answers, never a request together with its answer.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from recbook.lora.instructions import STYLES, Instruction, answer, found_products, wording, write_instructions
from recbook.tokens.documents import Control, Document, Product, format_pounds

LONGEST_LIST = 6  # products in a list


def copy_task_lists(table: pd.DataFrame, number: int, seed: int = 0) -> Iterator[Document]:
    """`number` lists of two to six random products, each followed by the same products again, every third with prices.

    ValueError if there are fewer than six goods.
    """
    if len(table) < LONGEST_LIST:
        raise ValueError(f"{len(table)} products are too few for lists of up to {LONGEST_LIST}: take more receipts")
    rng = np.random.default_rng(seed)
    for place in range(number):
        codes = rng.choice(table.index, rng.integers(2, LONGEST_LIST + 1), replace=False).tolist()
        parts = [*found_products(codes, table), Control("<|answer|>")]
        for code in codes:
            parts += [Product(code)] + [f": {format_pounds(table.loc[code, 'price'])}."] * (place % 3 == 0)
        yield parts


def answer_fragments(table: pd.DataFrame, number: int, seed: int = 0) -> Iterator[Document]:
    """`number` requests, and twice as many fragments of answers about the goods, one per style."""
    for instruction in write_instructions(table, number, wording("learned"), seed):
        yield [Control("<|request|>"), f" {instruction.request}"]
        for style in STYLES:
            yield _fragment(instruction, table, style)


def _fragment(instruction: Instruction, table: pd.DataFrame, style: str) -> Document:
    """The text of the last pick and of what follows it, without the products."""
    texts = [part for part in answer(instruction, table, style) if isinstance(part, str)]
    return [text.partition(":")[2] for text in texts[-2:]]
