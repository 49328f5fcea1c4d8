"""pairs: targets by hand, the loss of each pair alone, every pair once; instruction sets from files and the hub."""

import json

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tiktoken")

from torch.nn import functional as F

from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.lora.pairs import INSTRUCTION_SET, PromptAnswerPairs, encode_pairs, load_pairs
from recbook.tokens.documents import Control, Product
from recbook.tokens.vocabulary import Vocabulary
from recbook.training.batching import batch_of_like_length
from recbook.training.config import TrainingConfig
from recbook.training.loop import train, validation_loss

PAD = 0
SHAPE = GPTConfig(vocabulary=31, context=16, layers=2, heads=2, width=16)
VOCABULARY = Vocabulary({bytes([byte]): byte for byte in range(256)}, ["A", "B"])


def some(number: int = 11, seed: int = 0) -> PromptAnswerPairs:
    """Pairs of many lengths that fit the small model; token 0 is in texts too, so it is no mark."""
    rng = np.random.default_rng(seed)

    def texts(most: int) -> list[list[int]]:
        return [rng.integers(0, SHAPE.vocabulary, rng.integers(1, most + 1)).tolist() for _ in range(number)]

    return PromptAnswerPairs(texts(9), texts(8), PAD)


def a_gpt() -> GPT:
    model, generator = GPT(SHAPE, seed=0), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


# Targets


def test_targets_are_the_answers_tokens_by_hand():
    data = PromptAnswerPairs([[5, 6, 7], [8]], [[9, 2], [3, 4]], PAD)
    [(given, wanted)] = data.blocks(2)
    assert given.tolist() == [[5, 6, 7, 9], [8, 3, PAD, PAD]]
    assert wanted.tolist() == [[-1, -1, 9, 2], [3, 4, -1, -1]]
    assert given.dtype == wanted.dtype == torch.int64
    assert len(data) == 2


def test_what_counts_is_exactly_the_answers():
    data = some()
    for (given, wanted), prompt, answer in zip(data.blocks(1), data.prompts, data.answers, strict=True):
        assert wanted[wanted != -1].tolist() == answer
        assert [*given[0].tolist(), answer[-1]] == [*prompt, *answer]


# Those that fit


def test_pairs_that_fit_by_hand():
    data = PromptAnswerPairs(
        [[5, 6, 7], [8], [9], [5, 6]], [[9, 2], [3, 4], [2], [3, 4, 2]], PAD
    )  # 4, 2, 1 and 4 inputs
    assert [data.fitting(positions) for positions in range(6)] == [[], [2], [1, 2], [1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_pairs_taken_by_hand():
    data = PromptAnswerPairs([[5, 6, 7], [8], [9]], [[9, 2], [3, 4], [2]], 17)
    assert data.take([2, 0]) == PromptAnswerPairs([[9], [5, 6, 7]], [[2], [9, 2]], 17)
    assert data.prompts == [[5, 6, 7], [8], [9]]  # the others are where they were
    with pytest.raises(ValueError, match="0 prompts"):
        data.take([])


def test_what_fits_is_what_a_model_of_so_many_positions_takes():
    model = a_gpt()
    data = PromptAnswerPairs([[1] * given for given in range(1, 20)], [[2, 3]] * 19, PAD)
    fits = data.fitting(SHAPE.context)
    assert 0 < len(fits) < len(data)
    model.loss(*next(data.take(fits).blocks(len(data))))
    for row in set(range(len(data))) - set(fits):
        with pytest.raises(ValueError):
            model.loss(*next(data.take([row]).blocks(1)))


# Losses


def test_the_loss_is_that_of_each_pair_alone_without_padding():
    model, data, total, count = a_gpt(), some(), 0.0, 0
    with torch.no_grad():
        for prompt, answer in zip(data.prompts, data.answers, strict=True):
            logits = model(torch.tensor([[*prompt, *answer[:-1]]]))[0]  # each position is about the next token
            total += F.cross_entropy(logits[len(prompt) - 1 :], torch.tensor(answer), reduction="sum").item()
            count += len(answer)
        together = model.loss(*next(data.blocks(len(data)))).item()
    assert together == pytest.approx(total / count, abs=1e-5)
    for size in (1, 4, 100):
        assert validation_loss(model, data, size)["validation_loss"] == pytest.approx(total / count, abs=1e-5)


def test_what_fills_up_rows_does_not_matter():
    model, data = a_gpt(), some()
    other = PromptAnswerPairs(data.prompts, data.answers, 17)
    assert not torch.equal(next(data.blocks(11))[0], next(other.blocks(11))[0])
    with torch.no_grad():
        losses = [model.loss(*next(each.blocks(11))).item() for each in (data, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_model_learns_from_pairs():
    model, data = a_gpt().train(), some()
    before = validation_loss(model, data)["validation_loss"]
    settings = TrainingConfig(steps=30, batch=4, learning_rate=1e-2, warmup=1, precision="float32")
    train(model, data, settings, progress=False)
    assert validation_loss(model, data)["validation_loss"] < before - 1


# Batches


def rows_of(batch: tuple) -> list[tuple]:
    return [(tuple(given), tuple(wanted)) for given, wanted in zip(batch[0].tolist(), batch[1].tolist(), strict=True)]


def test_a_batch_is_a_function_of_step_size_and_seed():
    data = some(number=50)
    first = rows_of(data.batch(3, 8, seed=1))
    assert rows_of(data.batch(3, 8, seed=1)) == first and len(set(first)) == 8
    assert rows_of(data.batch(4, 8, seed=1)) != first != rows_of(data.batch(3, 8, seed=2))


def test_a_batch_larger_than_the_data_is_all_of_it():
    assert len(data := some(5)) == len(data.batch(0, 8)[0])


def test_every_pair_is_drawn_once_an_epoch():
    data = PromptAnswerPairs([[1]] * 6, [[place] for place in range(6)], PAD)
    epochs = [[data.batch(3 * epoch + step, 2)[1].flatten().tolist() for step in range(3)] for epoch in range(20)]
    assert all(sorted(sum(epoch, [])) == list(range(6)) for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) > 15  # each in an order of its own


def test_pairs_of_a_batch_are_of_like_length():
    lengths = np.random.default_rng(0).integers(2, 200, 160)
    data = PromptAnswerPairs([[1]] * 160, [[2] * length for length in lengths.tolist()], PAD)
    padded = sum(data.batch(step, 16)[0].numel() for step in range(10))
    assert padded < 1.35 * lengths.sum()  # at random: 1.8


def test_the_rows_of_a_batch_are_a_function_of_its_arguments_and_all_where_there_are_fewer():
    rows = batch_of_like_length([3, 1, 2], 5, 8, 0)
    assert sorted(rows.tolist()) == [0, 1, 2] and rows.tolist() == batch_of_like_length([3, 1, 2], 5, 8, 0).tolist()


@pytest.mark.parametrize("size", [1, 4, 11, 50])
def test_blocks_hold_every_pair_once_in_order(size):
    data = some()
    blocks = list(data.blocks(size))
    assert [len(given) for given, _ in blocks[:-1]] == [size] * (len(blocks) - 1)
    answers = [[token for token in row if token != -1] for _, wanted in blocks for row in wanted.tolist()]
    assert answers == [list(answer) for answer in data.answers]


@pytest.mark.parametrize(
    "prompts, answers, words",
    [
        ([[1]], [], "1 prompts and 0 answers"),
        ([], [], "0 prompts"),
        ([[1], []], [[2], [3]], "pair 1 has an empty"),
        ([[1], [2]], [[], [3]], "pair 0 has an empty"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(prompts, answers, words):
    with pytest.raises(ValueError, match=words):
        PromptAnswerPairs(prompts, answers, PAD)


def test_documents_as_pairs():
    data = encode_pairs([[Control("<|request|>"), " a mug"]], [[Product("B"), " mug"]], VOCABULARY)
    assert VOCABULARY.decode(data.prompts[0]) == "<|request|> a mug"
    assert VOCABULARY.decode(data.answers[0]) == "<|B|> mug<|end|>"
    assert data.pad == VOCABULARY.control["<|pad|>"]


# Instruction sets of free text

ROWS = [
    {"input": "A tall man.", "context": "For a wedding.", "completion": "Outfit 1: a navy suit.\n"},
    {"input": "42", "context": None, "completion": "  <|end|> A scarf."},
]


def written(folder, form: str, rows=ROWS):
    path = folder / f"set.{form}"
    if form == "parquet":
        pytest.importorskip("pyarrow")
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


forms = pytest.mark.parametrize("form", ["parquet", "jsonl"])


@forms
def test_a_file_is_read_as_prompts_and_answers(tmp_path, form):
    prompts, answers = load_pairs(written(tmp_path, form))
    control = [Control("<|request|>"), Control("<|answer|>")]
    assert prompts == [[control[0], " A tall man. For a wedding.", control[1]], [control[0], " 42", control[1]]]
    assert answers == [[" Outfit 1: a navy suit."], [" <|end|> A scarf."]]
    assert len(encode_pairs(prompts, answers, VOCABULARY)) == 2


def test_numbers_in_a_file_stay_as_they_are_written(tmp_path):
    rows = [{"input": "007", "context": "1e3", "completion": "3.10"}] * 2
    prompts, answers = load_pairs(written(tmp_path, "jsonl", rows))
    assert prompts[0][1] == " 007 1e3" and answers[0] == [" 3.10"]


@forms
def test_other_columns_are_named(tmp_path, form):
    with pytest.raises(ValueError, match="has no column context, completion; it has input, output"):
        load_pairs(written(tmp_path, form, [{"input": "a", "output": "b"}]))


@forms
def test_rows_without_an_answer_are_named(tmp_path, form):
    empty = [{"input": "a", "context": "", "completion": text} for text in ("fine", " ", None, "fine")]
    with pytest.raises(ValueError, match=r"no text in completion of rows \[1, 2\]"):
        load_pairs(written(tmp_path, form, empty))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_file_that_is_not_there_is_an_error_that_names_it(tmp_path, form):
    with pytest.raises(FileNotFoundError, match=f"none.{form}"):
        load_pairs(tmp_path / f"none.{form}")


@pytest.fixture
def hub(monkeypatch):
    """The hub's library, and a way to say what it answers."""
    library = pytest.importorskip("huggingface_hub")
    asked = []

    def answers(what):
        def snapshot_download(name, **options):
            asked.append((name, options))
            if isinstance(what, Exception):
                raise what
            return str(what)

        monkeypatch.setattr(library, "snapshot_download", snapshot_download)
        return asked

    return answers


def test_a_name_is_fetched_from_the_hub(tmp_path, hub):
    (tmp_path / "data").mkdir()
    written(tmp_path / "data", "parquet")
    asked = hub(tmp_path)
    assert len(load_pairs()[0]) == len(ROWS)
    [(name, options)] = asked
    assert name == INSTRUCTION_SET and options["repo_type"] == "dataset" and options["allow_patterns"] == "*.parquet"


def test_all_files_of_a_data_set_are_read_by_name(tmp_path, hub):
    for name in ("train-00001", "train-00000", "test"):  # written in another order
        (tmp_path / name).mkdir()
        rows = [{"input": name, "context": "", "completion": f"{name} {row}"} for row in range(2)]
        written(tmp_path / name, "parquet", rows).rename(tmp_path / f"{name}.parquet")
    hub(tmp_path)
    prompts, answers = load_pairs("some/set")
    names = [name for name in ("test", "train-00000", "train-00001") for _ in range(2)]
    assert [prompt[1] for prompt in prompts] == [f" {name}" for name in names]
    assert answers == [[f" {name} {row % 2}"] for row, name in enumerate(names)]


@pytest.mark.parametrize("bad", [{"input": "a"}, {"input": "a", "context": "", "completion": " "}], ids=str)
def test_of_several_files_the_one_that_is_wrong_is_named(tmp_path, hub, bad):
    for name, row in (("a", ROWS[0]), ("b", bad)):
        written(tmp_path, "parquet", [row]).rename(tmp_path / f"{name}.parquet")
    hub(tmp_path)
    with pytest.raises(ValueError, match="b.parquet has no"):
        load_pairs("some/set")


@pytest.mark.parametrize("name", ["set.csv", "set", "set.PARQUET.gz", "folder"])
def test_a_file_of_another_kind_is_not_looked_for_on_the_hub(tmp_path, hub, name):
    asked, path = hub(OSError("no route")), tmp_path / name
    path.mkdir() if name == "folder" else path.write_text("input,context,completion", encoding="utf-8")
    for source in (path, str(path)):
        with pytest.raises(ValueError, match=f"{name} is here, and is no file that ends in .parquet or .jsonl"):
            load_pairs(source)
    assert asked == []


class OfTheNetwork(Exception):
    """What network libraries raise is not always an OSError."""


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("bad name"), OfTheNetwork("no route")], ids=repr)
def test_a_hub_that_cannot_be_had_is_a_clear_error(hub, error):
    hub(error)
    with pytest.raises(ValueError, match=f"some/set could not be had .*{error}.*give a file instead") as raised:
        load_pairs("some/set")
    assert raised.value.__cause__ is error


def test_a_data_set_without_parquet_is_a_clear_error(tmp_path, hub):
    hub(tmp_path)
    with pytest.raises(ValueError, match="some/set has no parquet file"):
        load_pairs("some/set")
