"""Teaching the narrator to answer: not at all, by full fine-tuning, by adapters of several shapes, in two styles.

    python benchmarks/lora.py --data online-retail

writes results/lora_<name of the data>.json in about ten minutes and 2 GB on two cores. Every method starts from the
same base (`workshop.assistant_base`) and reads the same answers; it is judged on requests in other words about goods
that no answer was about. `--data`: what `RECBOOK_DATA` takes, or `embedded`. `--rehearse`: ten steps each, nothing
written.
"""

import argparse
import copy
import os
import time
from dataclasses import dataclass, replace

import pandas as pd
from torch import nn

from recbook.baselines.results import describe_data, save_results, slug
from recbook.book import workshop
from recbook.generation.generate import generate
from recbook.lora import instructions
from recbook.lora.grading import grade_answer
from recbook.lora.layers import DEFAULT_LORA, LoRAConfig, add_adapter, trained_parameters
from recbook.lora.pairs import PromptAnswerPairs, encode_pairs
from recbook.training.config import TrainingConfig
from recbook.training.loop import train, validation_loss

LEARNED, JUDGED, SEED = 4000, 300, 0
STEPS = TrainingConfig(steps=200, batch=16, warmup=20, weight_decay=0.0, evaluate_every=200, save_every=200)
FULL, ADAPTER = replace(STEPS, learning_rate=3e-3), replace(STEPS, learning_rate=1e-2)
SHAPES = {
    **{f"LoRA, rank {rank}": LoRAConfig(rank=rank, alpha=2.0 * rank) for rank in (1, 4, 16, 32)},
    "LoRA, rank 16, attention only": LoRAConfig(targets=("query_key_value", "output")),
    "LoRA, rank 16, dropout": LoRAConfig(dropout=0.1),
}


@dataclass(frozen=True)
class Lesson:
    """What is learned from, and what is judged."""

    learned: PromptAnswerPairs
    judged: list[instructions.Instruction]
    prompts: PromptAnswerPairs  # of what is judged, with the answers written by rule
    table: pd.DataFrame
    vocabulary: object


def lesson(style: str, held_out: bool) -> Lesson:
    """The answers to learn in one style; to be judged on requests held out, or on others like those learned."""
    table, names = workshop.goods(), workshop.vocabulary()
    known, new = instructions.split_goods(table, workshop.HELD_OUT, workshop.SEED)
    learned = instructions.write_instructions(known, LEARNED, instructions.wording("learned"), SEED)
    wording = instructions.wording("held_out" if held_out else "learned")
    judged = instructions.write_instructions(new if held_out else known, JUDGED, wording, SEED + 1)

    def written(made: list[instructions.Instruction]) -> PromptAnswerPairs:
        prompts = [instructions.prompt(each.request, each.picks, each.close, table) for each in made]
        return encode_pairs(prompts, [instructions.answer(each, table, style) for each in made], names)

    learn, judge = written(learned), written(judged)
    fitting = judge.fitting(workshop.ANSWER_POSITIONS)
    return Lesson(
        learn.take(learn.fitting(workshop.ANSWER_POSITIONS)),
        [judged[row] for row in fitting],
        judge.take(fitting),
        table,
        names,
    )


def judgement(model: nn.Module, lesson: Lesson) -> list[dict]:
    """Loss; the shares of answers, written greedily, that pass each rule; words and exclamation marks of an answer."""
    end, written = lesson.vocabulary.control["<|end|>"], []
    for first in range(0, len(lesson.judged), 50):
        prompts = lesson.prompts.prompts[first : first + 50]
        room = model.config.context - max(map(len, prompts))
        written += generate(model, prompts, room, stop=[end])
    verdicts = pd.DataFrame(
        [
            grade_answer(ids, each, lesson.table, lesson.vocabulary)
            for ids, each in zip(written, lesson.judged, strict=True)
        ]
    )
    texts = pd.Series([lesson.vocabulary.decode(ids) for ids in written])
    rows = [
        {"metric": name, "value": float(column.mean()), "n": int(column.count())} for name, column in verdicts.items()
    ]
    style = {"words": texts.str.split().str.len().mean(), "exclamation marks": texts.str.count("!").mean()}
    loss = validation_loss(model, lesson.prompts)
    return rows + [{"metric": name, "value": float(value)} for name, value in (style | loss).items()]


def taught(
    base: nn.Module,
    lesson: Lesson,
    settings: TrainingConfig,
    shape: LoRAConfig | None,
    embeddings: bool = False,
) -> tuple[nn.Module, list[dict]]:
    """A copy of the base after training an adapter of this shape, or the base itself; what it took.

    `embeddings`: whether the tokens' vectors, which are the head too, are trained.
    """
    model = copy.deepcopy(base)
    if shape:
        add_adapter(model, "taught", shape, SEED)
    model.token_embedding.requires_grad_(embeddings)
    numbers, start = trained_parameters(model), time.perf_counter()
    train(model, lesson.learned, settings, progress=False)
    costs = {"seconds": time.perf_counter() - start, "trained numbers": numbers, "megabytes to store": 4e-6 * numbers}
    costs |= {"megabytes of gradients and optimizer": 12e-6 * numbers}
    return model.eval(), [{"metric": name, "value": value} for name, value in costs.items()]


def measure(rehearse: bool) -> list[dict]:
    """Every row of the results."""
    base, _ = workshop.assistant_base()
    shorten = dict(steps=10, evaluate_every=10) if rehearse else {}
    terse, like, rows = lesson("terse", True), lesson("terse", False), []

    def add(method: str, model: nn.Module, costs: list[dict] = ()) -> None:
        found = [{"split": "held out"} | row for row in judgement(model, terse)]
        found += [{"split": "as learned"} | row for row in judgement(model, like)] + list(costs)
        rows.extend({"method": method, "style": "terse"} | row for row in found)
        print(pd.DataFrame(found).round(3).to_string(), flush=True)

    add("base", base)
    add("full fine-tuning", *taught(base, terse, replace(FULL, **shorten), None, embeddings=True))
    add("full, but for the tokens' vectors", *taught(base, terse, replace(FULL, **shorten), None))
    for method, shape in list(SHAPES.items())[: 1 if rehearse else None]:
        print(method)
        add(method, *taught(base, terse, replace(ADAPTER, **shorten), shape))
    warm = lesson("warm", True)
    model, _ = taught(base, warm, replace(ADAPTER, **shorten), DEFAULT_LORA)
    return rows + [
        {"method": "LoRA, rank 16", "style": "warm", "split": "held out"} | row for row in judgement(model, warm)
    ]


def main() -> None:
    """Measure, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="what RECBOOK_DATA takes, or embedded")
    parser.add_argument("--rehearse", action="store_true", help="ten steps each, nothing written")
    arguments = parser.parse_args()
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    start = time.perf_counter()
    rows = measure(arguments.rehearse)
    if arguments.rehearse:
        return
    source = "embedded shop" if arguments.data == "embedded" else arguments.data
    data = describe_data(workshop.raw_receipts(), source)
    name = slug(data["name"])
    command = f"python benchmarks/lora.py --data {'embedded' if arguments.data == 'embedded' else name}"
    seconds = time.perf_counter() - start
    path = save_results(f"lora_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
