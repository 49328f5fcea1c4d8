"""Distillation: soft targets and divergence by hand; without a teacher the student is the model of `BasketGPT.fit`.

The shop has thirty products, and its teacher recommends what no receipt tells.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.baskets.test_model import CODES, DAY, ORIGIN, SMALL, encode, made_up

torch = pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook.baselines import evaluation, metrics
from recbook.baskets import model as basket_model
from recbook.baskets.log import interaction_log
from recbook.baskets.model import (
    BasketGPT,
    scores_at_cut,
)
from recbook.baskets.network import BasketGPTConfig, BasketNetwork
from recbook.baskets.task import NextBasketTask
from recbook.distillation.labels import Label
from recbook.distillation.student import (
    STUDENT_CONFIG,
    DistillationConfig,
    DistillationDataset,
    DistillationTask,
    count_features,
    distil,
    listwise_kl,
    soft_targets,
    teacher_confidence,
)
from recbook.gpt.config import GPTConfig
from recbook.quantization.layers import quantize
from recbook.training.loop import train

CUT = ORIGIN + 120 * DAY
TINY = replace(SMALL, width=8, pointer=4, features=4, epochs=4)
GAP = -torch.inf


@pytest.fixture(scope="module", autouse=True)
def quick(one_thread):
    """One thread and words' vectors made here, for all that this file fits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basket_model, "encode", encode)
        yield


@pytest.fixture(scope="module")
def split() -> evaluation.Split:
    return evaluation.next_basket(made_up(), CUT)


def histories(receipts: pd.DataFrame, when: pd.Timestamp) -> list[list[tuple[pd.Timestamp, list[str]]]]:
    """What each shopper had bought by a day, straight from the receipts."""
    before = receipts[receipts["date"] < when]
    shoppers = before.groupby("customer")
    return [[(date, lines["code"].tolist()) for date, lines in own.groupby("date")] for _, own in shoppers]


def always(split: evaluation.Split, liked: list[str], when: pd.Timestamp = CUT) -> list[Label]:
    """A teacher that recommends the same to everybody, and is sure of the first."""
    scores = [3.0 * (len(liked) - place) for place in range(len(liked))]
    return [Label(history, when, liked, scores) for history in histories(split.receipts, when)]


def weights(model: BasketGPT) -> list[np.ndarray]:
    return [parameter.detach().numpy() for parameter in model.network.parameters()]


# --- The loss on labels --------------------------------------------------------------------------------------------


def test_soft_targets_by_hand():
    scores = torch.tensor([[2.0, 0.0, GAP], [1.0, 1.0, 1.0]])
    e = np.exp(1.0)
    expected = [[e / (e + 1), 1 / (e + 1), 0], [1 / 3] * 3]
    assert np.allclose(soft_targets(scores, 2.0), expected)
    assert np.allclose(soft_targets(scores, 1e4)[0], [0.5, 0.5, 0], atol=1e-3)  # hot: all of the list alike
    assert np.allclose(soft_targets(scores, 1e-2)[0], [1, 0, 0])  # cold: the first alone


def test_confidence_by_hand():
    chances = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.75, 0.25, 0, 0]])
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))  # in bits, of two
    assert np.allclose(teacher_confidence(chances), [0, 1, 0, 1 - entropy], atol=1e-6)


def test_divergence_against_a_loop():
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(0, 2, (3, 7)), np.array([1.0, 0.0, 0.5])
    columns = np.array([[4, 1, 0], [2, 3, 5], [6, 5, 0]])
    chances = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
    total = 0.0
    for row in range(3):
        student = np.exp(logits[row]) / np.exp(logits[row]).sum()
        for column, p in zip(columns[row], chances[row], strict=True):
            total += weight[row] * p * np.log(p / student[column]) if p else 0.0
    found = listwise_kl(*map(torch.from_numpy, (logits, columns, chances, weight)))
    assert np.isclose(found, total / 1.5)


def test_divergence_is_zero_only_for_the_teachers_own_list():
    columns, chances = torch.tensor([[2, 0]]), torch.tensor([[0.8, 0.2]])
    same = torch.full((1, 5), -40.0)
    same[0, [2, 0]] = chances[0].log()
    assert listwise_kl(same, columns, chances, torch.ones(1)) < 1e-6
    others = same.clone()
    others[0, 4] = 0.0  # what the teacher does not list has a chance with the student
    assert np.isclose(listwise_kl(others, columns, chances, torch.ones(1)), np.log(2))
    assert listwise_kl(others, columns, chances, torch.zeros(1)) == 0  # nobody is sure: nothing to learn


def test_the_gradient_is_what_the_student_gives_less_what_the_teacher_gives():
    logits = torch.tensor([[0.5, 0.2, -0.4, 1.0]], requires_grad=True)
    chances = torch.tensor([[0.6, 0.4]])
    listwise_kl(logits, torch.tensor([[3, 0]]), chances, torch.ones(1)).backward()
    student = np.exp([0.5, 0.2, -0.4, 1.0]) / np.exp([0.5, 0.2, -0.4, 1.0]).sum()
    assert np.allclose(logits.grad[0], student - [0.4, 0, 0, 0.6], atol=1e-6)


# --- The distillation dataset --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(split) -> BasketGPT:
    return BasketGPT.fit(split.receipts, replace(SMALL, epochs=1), progress=False)


def test_training_predicts_what_an_online_request_predicts(split, model):
    """Each label's question, through the batches of training, gives what `score` gives."""
    labels = always(split, CODES[:3]) + [Label([], CUT - 9 * DAY, CODES[:2], [2.0, 1.0])]
    dataset = DistillationDataset(
        labels, model.catalogue, model.shop_features.origin, SMALL.context, DistillationConfig()
    )
    with torch.no_grad():
        tokens, basket, chosen = dataset.batch(3, 20, 0)
        states = dataset.states(model.network, tokens, basket, 0.0)
        known = dataset.windows.features(dataset.rows[chosen.numpy()], model.shop_features)
        scores = model.network.scores(states, known).log_softmax(dim=1).numpy()
    for row, label in enumerate(chosen.tolist()):
        asked = model.score([labels[label].history], labels[label].asked)[0]
        assert np.allclose(scores[row], asked, atol=1e-4)


def test_an_epoch_reads_every_label_once(split, model):
    dataset = DistillationDataset(
        always(split, CODES[:3]), model.catalogue, model.shop_features.origin, 32, DistillationConfig()
    )
    count = len(dataset.rows)
    for size in (10, 10**6):
        batches = [dataset.batch(step, size, 5)[2].tolist() for step in range(max(1, count // size))]
        asked = [label for batch in batches for label in batch]
        assert len(asked) == len(set(asked)) == count - count % min(size, count)
    again, other = (dataset.batch(step, 10, 5)[2].tolist() for step in (2, 8))
    assert again == dataset.batch(2, 10, 5)[2].tolist() != other  # a function of the step; an order an epoch


def test_labels_of_similar_length_share_a_batch(split, model):
    labels = [replace(one, history=one.history[: n % 8]) for n, one in enumerate(always(split, CODES[:3]))]
    dataset = DistillationDataset(labels, model.catalogue, model.shop_features.origin, 256, DistillationConfig())
    lengths = [sum(len(codes) + 1 for _, codes in label.history) + 1 for label in labels]
    assert dataset.lengths.tolist() == lengths
    padded = [dataset.batch(step, 10, 0) for step in range(6)]
    spread = np.mean([np.std([lengths[label] for label in chosen.tolist()]) for _, _, chosen in padded])
    assert spread < 0.7 * np.std(lengths)
    assert all(tokens.shape[1] == max(lengths[label] for label in chosen.tolist()) for tokens, _, chosen in padded)


def test_lists_of_unequal_length_are_padded_with_probability_zero(split, model):
    labels = [Label([], CUT, CODES[3:6], [3.0, 2.0, 1.0]), Label([], CUT, CODES[:1], [9.0])]
    dataset = DistillationDataset(
        labels, model.catalogue, model.shop_features.origin, 32, DistillationConfig(kept=2, temperature=1.0)
    )
    e = np.exp(1.0)
    assert np.allclose(dataset.chances, [[e / (e + 1), 1 / (e + 1)], [1, 0]])
    assert dataset.columns[:, 0].tolist() == [3, 0] and dataset.columns[0].tolist() == [3, 4]
    assert dataset.weight[1] == 1 and 0 < dataset.weight[0] < 1


# --- Students ------------------------------------------------------------------------------------------------------


def test_without_a_teacher_it_is_the_same_model_as_fitted_alone(split):
    alone = BasketGPT.fit(split.receipts, TINY, progress=False)
    without_teacher = distil(split.receipts, [], TINY, DistillationConfig(alpha=0), progress=False)
    ignoring = distil(split.receipts, always(split, CODES[:3]), TINY, DistillationConfig(alpha=0), progress=False)
    for model in (without_teacher, ignoring):
        assert all(np.array_equal(a, b) for a, b in zip(weights(alone), weights(model), strict=True))


@pytest.fixture(scope="module")
def taught(split) -> BasketGPT:
    """By a teacher that recommends two products which hardly anybody buys."""
    return distil(split.receipts, always(split, CODES[-2:]), TINY, DistillationConfig(alpha=0.9), progress=False)


def test_a_student_learns_its_teachers_lists(split, taught):
    without_teacher = distil(split.receipts, [], TINY, DistillationConfig(alpha=0), progress=False)
    firsts = [metrics.rank(scores_at_cut(model, split), 2) for model in (taught, without_teacher)]
    shared = [np.isin(first, [28, 29]).mean() for first in firsts]
    assert shared[0] > 0.9 and shared[1] < 0.3


def test_the_same_twice_and_with_features_at_hand(split, taught):
    known = count_features(split.receipts, TINY)
    again = distil(
        split.receipts, always(split, CODES[-2:]), TINY, DistillationConfig(alpha=0.9), known, progress=False
    )
    assert all(np.array_equal(a, b) for a, b in zip(weights(taught), weights(again), strict=True))


PLAIN = replace(TINY, dropout=0.0, forget=0.0, epochs=0.3)  # nothing is drawn: the device or the parts change nothing


def test_a_student_learns_on_another_device_what_it_learns_on_the_cpu(split, elsewhere):
    labels, devices = always(split, CODES[-2:]), ("cpu", elsewhere)
    here, there = (distil(split.receipts, labels, PLAIN, progress=False, device=device) for device in devices)
    assert there.network.device == elsewhere
    for mine, theirs in zip(here.network.parameters(), there.network.parameters(), strict=True):
        torch.testing.assert_close(theirs.cpu(), mine, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_a_batch_learned_in_parts_is_learned_as_a_whole(split, model, alpha):
    """Windows, baskets, lines and labels all differ in weight, and some of the parts have no window."""
    how, labels = DistillationConfig(alpha=alpha, questions=9), always(split, CODES[-3:])
    labels += [replace(label, recommendations=CODES[:2], scores=[1.0, 0.9]) for label in labels]
    log, _ = interaction_log(split.receipts, model.catalogue.codes)
    baskets = NextBasketTask(log, model.shop_features, PLAIN)
    dataset = DistillationDataset(labels, model.catalogue, log.origin, PLAIN.context, how) if alpha else None
    task, learned = DistillationTask(baskets, dataset, how), []
    assert min(len(task.batch(step, 1, 0)[0]) for step in range(9)) < 7
    for parts in (1, 7):
        network = BasketGPT(model.catalogue.products, model.shop_features, PLAIN).network
        baskets.fit_scales(network)
        settings = replace(baskets.training(), batch=1, steps=9, accumulate=parts, evaluate_every=1)
        metrics = train(network, task, settings, loss=task.loss, weigh=task.weigh, progress=False)
        learned.append([line[figure] for line in metrics for figure in ("loss", "gradient_norm")])
    assert learned[0] == pytest.approx(learned[1], rel=1e-4)


def test_unsure_labels_hardly_count(split):
    """Half of the labels are flat lists of other products: weighed by confidence they change nothing."""
    sure = always(split, CODES[-2:])
    flat = [replace(label, recommendations=CODES[:9], scores=[1.0] * 9) for label in sure]
    made = []
    for power in (1.0, 0.0):
        how = DistillationConfig(alpha=0.9, confidence=power, questions=64)
        student = distil(split.receipts, sure + flat, TINY, how, progress=False)
        made.append(np.isin(metrics.rank(scores_at_cut(student, split), 2), [28, 29]).mean())
    assert made[0] > 0.8 and made[0] > made[1] + 0.1


def test_a_student_is_saved_and_quantized(split, taught, tmp_path):
    taught.save(tmp_path / "student")
    loaded = BasketGPT.load(tmp_path / "student")
    assert np.allclose(scores_at_cut(loaded, split), scores_at_cut(taught, split), atol=1e-5)
    with pytest.raises(ValueError, match="nothing to gain"):  # at this size every layer is tiny
        quantize(loaded.network, "int8")


def test_the_student_of_the_book_is_a_quarter_of_its_teacher_or_less():
    sizes = []
    for settings in (BasketGPTConfig(), STUDENT_CONFIG):
        s, text = settings, torch.zeros(3000, 384)
        config = GPTConfig(1, s.context, s.layers, s.heads, s.width, s.dropout)
        network = BasketNetwork(text, config, s.pointer, s.features, s.parts, 0)
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    assert sizes[1] <= sizes[0] / 4


def test_it_says_what_is_wrong(split):
    with pytest.raises(ValueError, match="there are no labels"):
        distil(split.receipts, [], TINY, progress=False)
    with pytest.raises(ValueError, match="not in the catalogue.*99999"):
        distil(split.receipts, [Label([], CUT, ["99999"], [1.0])], TINY, progress=False)
    once = split.receipts.drop_duplicates("customer")
    with pytest.raises(ValueError, match="nobody came back"):
        distil(once, always(split, CODES[:2]), TINY, DistillationConfig(alpha=0), progress=False)
    for wrong in ({"alpha": 1.5}, {"temperature": 0.0}, {"confidence": -1.0}, {"kept": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DistillationConfig(**wrong)
