"""What a small model must have read before it can be taught to answer: lists said again, and words.

A large model has seen every word of English, and text that repeats text. A model of a shop's receipts has seen neither:
it knows a product by heart and never looks back, and letters that no receipt holds are all the same to it. So the
narrator's base also reads `copy_task_lists`, random products with their prices and then the same once more, and `answer_fragments`, the
words that shoppers and the shop use, torn apart. No request stands beside an answer here.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from recbook.lora.instructions import STYLES, Instruction, answer, found_products, wording, write_instructions
from recbook.tokens.documents import Control, Document, Product, format_pounds

LONGEST_LIST = 6  # products in a list


def copy_task_lists(table: pd.DataFrame, number: int, seed: int = 0) -> Iterator[Document]:
    """`number` lists of two to six random goods, each followed by the same products again, every third with prices.

    ValueError if there are fewer than six goods.
    """
    if len(table) < LONGEST_LIST:
        raise ValueError(f"{len(table)} products are too few for lists of up to {LONGEST_LIST}: take more receipts")
    rng = np.random.default_rng(seed)
    for place in range(number):
        codes = rng.choice(table.index, rng.integers(2, LONGEST_LIST + 1), replace=False)
        parts = [*found_products(codes, table), Control("<|answer|>")]
        for code in codes:
            parts += [Product(code)] + [f": {format_pounds(table.loc[code, 'price'])}."] * (place % 3 == 0)
        yield parts


def answer_fragments(table: pd.DataFrame, number: int, seed: int = 0) -> Iterator[Document]:
    """`number` requests, and twice as many remarks of the shop, torn out of answers about the goods."""
    made = write_instructions(table, number, wording("learned"), seed)
    for instruction in made:
        yield [Control("<|request|>"), f" {instruction.request}"]
        for style in STYLES:
            yield _torn(instruction, table, style)


def _torn(instruction: Instruction, table: pd.DataFrame, style: str) -> Document:
    """The last pick's words and what follows, without the products."""
    texts = [part for part in answer(instruction, table, style) if isinstance(part, str)]
    return [text.partition(":")[2] for text in texts[-2:]]
