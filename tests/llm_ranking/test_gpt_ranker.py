"""GPTRanker: scores by hand from logits; the order of the candidates changes nothing in the invariant layout, and
something in the plain one; pointwise scores are those of the invariant layout; fine-tuning changes what it should."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tiktoken")

from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.llm_ranking import prompts
from recbook.llm_ranking.gpt_ranker import (
    AFTER_LIST,
    AFTER_QUESTION,
    GPTRanker,
    TrainingListBatches,
    lay_out,
    list_loss,
    order_sensitivity,
    permuted_scores,
    rank_by_place,
    read_scores,
    teach_ranker,
    visible_positions,
    yes_and_no,
)
from recbook.llm_ranking.training_lists import TrainingList
from recbook.lora.layers import adapted_layers, base_fingerprint
from recbook.ranking.rankers import Shopper
from recbook.tokens.vocabulary import Vocabulary
from recbook.training.config import TrainingConfig

CODES = [f"P{number}" for number in range(12)]
VOCABULARY = Vocabulary({bytes([byte]): byte for byte in range(256)}, CODES)
ANN = Shopper(
    [(pd.Timestamp("2011-09-01"), CODES[:3]), (pd.Timestamp("2011-10-01"), CODES[1:2])], pd.Timestamp("2011-11-09")
)
LIST = CODES[:7]  # three that were bought, of which the blocks are longer, and four that are new


def a_gpt(context: int = 400) -> GPT:
    """A random one whose attention and positions count for something."""
    model = GPT(GPTConfig(len(VOCABULARY), context, layers=2, heads=2, width=16), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def model(one_thread) -> GPT:
    return a_gpt()


def ranker(model: GPT, reading: str = AFTER_LIST, invariant: bool = False, **how) -> GPTRanker:
    return GPTRanker(model, VOCABULARY, reading, invariant, **how)


# By hand


@torch.no_grad()
def test_after_the_list_it_is_the_logit_of_each_candidates_token(model):
    prompt = prompts.fitted_prompt(ANN, "a gift", LIST, VOCABULARY, 400)
    logits = model(torch.tensor([prompt.tokens]))[0, -1]
    expected = logits[[VOCABULARY.product[code] for code in LIST]]
    np.testing.assert_allclose(ranker(model).score(ANN, "a gift", LIST), expected.numpy(), atol=1e-5)


@torch.no_grad()
def test_after_each_question_it_is_yes_less_no(model):
    prompt = prompts.fitted_prompt(ANN, None, LIST, VOCABULARY, 400)
    text, expected = list(prompt.opening), []
    for block in prompt.blocks:
        text += block
        assert VOCABULARY.decode(text).endswith("?")
        logits = model(torch.tensor([text]))[0, -1]
        expected.append((logits[ord("y")] - logits[ord("n")]).item())  # this vocabulary has a token a byte
    np.testing.assert_allclose(ranker(model, AFTER_QUESTION).score(ANN, None, LIST), expected, atol=1e-4)


@torch.no_grad()
def test_pointwise_is_a_prompt_of_one(model):
    found = ranker(model, AFTER_QUESTION, pointwise=True).score(ANN, None, LIST)
    alone = [ranker(model, AFTER_QUESTION).score(ANN, None, [code])[0] for code in LIST]
    np.testing.assert_allclose(found, alone, atol=1e-4)


# Order


@pytest.mark.parametrize("reading", [AFTER_QUESTION, AFTER_LIST])
def test_the_order_of_the_candidates_changes_nothing_in_the_invariant_layout(model, reading):
    _, scores = permuted_scores(ranker(model, reading, True), ANN, "a gift", LIST, orders=12)
    np.testing.assert_allclose(scores, np.broadcast_to(scores[0], scores.shape), atol=1e-5)
    assert np.ptp(scores[0]) > 0.1
    assert order_sensitivity(scores) < 1e-8


@pytest.mark.parametrize("reading", [AFTER_QUESTION, AFTER_LIST])
def test_it_changes_scores_in_the_plain_one(model, reading):
    _, scores = permuted_scores(ranker(model, reading), ANN, "a gift", LIST, orders=12)
    assert np.abs(scores - scores[0]).max() > 0.05
    assert order_sensitivity(scores) > 1e-3


@pytest.mark.parametrize(("mask", "positions"), [(True, False), (False, True)])
@torch.no_grad()
def test_mask_or_positions_alone_let_order_in(model, mask, positions):
    class Half:
        """A ranker with only one of the two things that make the layout invariant."""

        def score(self, shopper, query, candidates):
            prompt = prompts.fitted_prompt(shopper, query, candidates, VOCABULARY, 400)
            lists = lay_out([prompt], 257, invariant=positions)
            return read_scores(model, lists, mask, AFTER_QUESTION, *yes_and_no(VOCABULARY))[0].numpy()

    _, scores = permuted_scores(Half(), ANN, None, LIST, orders=6)
    assert np.abs(scores - scores[0]).max() > 0.05


def test_an_invariant_list_read_at_its_questions_is_pointwise(model):
    """A candidate sees what it sees in a prompt of its own: one pass in place of one per candidate."""
    together = ranker(model, AFTER_QUESTION, True).score(ANN, "a gift", LIST)
    alone = ranker(model, AFTER_QUESTION, pointwise=True).score(ANN, "a gift", LIST)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_after_the_list_others_do_count(model):
    """Invariant, but no pointwise ranker: the end sees the whole set."""
    among = ranker(model, AFTER_LIST, True)
    whole, part = among.score(ANN, None, LIST), among.score(ANN, None, LIST[:4])
    assert np.abs(whole[:4] - part).max() > 1e-3


def test_the_mask_by_hand():
    blocks = torch.tensor([[-1, -1, 0, 0, 1, -2, -3]])
    expected = ["1......", "11.....", "111....", "1111...", "11..1..", "111111.", "11....1"]
    rows = ["".join("1" if seen else "." for seen in row) for row in visible_positions(blocks)[0, 0]]
    assert rows == expected


def test_a_layout_by_hand():
    short = prompts.RankingPrompt([1, 2], [[3, 40, 5], [41, 5]], [6], 0)
    long = prompts.RankingPrompt([1], [[42, 5], [43, 5], [3, 3, 44, 5]], [6], 0)
    lists = lay_out([short, long], 9, True, [[True, False], [False, False, True]])
    assert lists.tokens.tolist() == [[1, 2, 3, 40, 5, 41, 5, 6, 9, 9], [1, 42, 5, 43, 5, 3, 3, 44, 5, 6]]
    assert lists.positions.tolist() == [[0, 1, 2, 3, 4, 2, 3, 5, 0, 0], [0, 1, 2, 1, 2, 1, 2, 3, 4, 5]]
    assert lists.blocks.tolist() == [[-1, -1, 0, 0, 0, 1, 1, -2, -3, -3], [-1, 0, 0, 1, 1, 2, 2, 2, 2, -2]]
    assert lists.candidates.tolist() == [[40, 41, 9], [42, 43, 44]]
    assert lists.ends.tolist() == [[4, 6, 0], [2, 4, 8]] and lists.last.tolist() == [7, 9]
    assert lists.targets.tolist() == [[1, 0, -1], [0, 0, 1]]
    plain = lay_out([short], 9, False)
    assert plain.positions.tolist() == [list(range(8))] and plain.targets.tolist() == [[0, 0]]


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("reading", [AFTER_QUESTION, AFTER_LIST])
def test_prompts_side_by_side_have_the_scores_that_they_have_alone(model, reading, invariant):
    one = ranker(model, reading, invariant)
    asked = [
        prompts.fitted_prompt(ANN, query, codes, VOCABULARY, 400) for query, codes in (("tea", LIST), (None, LIST[3:5]))
    ]
    with torch.no_grad():
        both = one.read(lay_out(asked, 257, invariant)).numpy()
    np.testing.assert_allclose(both[0], one.score(ANN, "tea", LIST), atol=1e-5)
    np.testing.assert_allclose(both[1, :2], one.score(ANN, None, LIST[3:5]), atol=1e-5)


# What is refused


@pytest.mark.parametrize("pointwise", [False, True])
def test_no_candidates_have_no_scores(model, pointwise):
    assert ranker(model, AFTER_QUESTION, pointwise=pointwise).score(ANN, None, []).shape == (0,)


def test_what_cannot_be_read(model):
    with pytest.raises(ValueError, match="no reading 'somewhere'"):
        ranker(model, "somewhere")
    with pytest.raises(ValueError, match="no token for 'Z'"):
        ranker(model).score(ANN, None, ["P1", "Z"])
    with pytest.raises(ValueError, match="of 60 positions: give fewer"):
        ranker(model, positions=60).score(ANN, None, LIST)
    alike = Vocabulary({bytes([byte]): byte for byte in range(256)})
    monkey = type("Alike", (), {"encode": lambda self, text: [1], "control": alike.control})()
    with pytest.raises(ValueError, match="begin with the same token"):
        yes_and_no(monkey)


# Learning


def test_the_loss_by_hand():
    scores = torch.tensor([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0]])
    first = -np.log(np.exp([1, 2]) / np.exp([1, 2]).sum())[1]
    second = -np.log(1 / 3)
    targets = torch.tensor([[0, 1, -1], [1, 0, 1]])
    assert list_loss(scores, targets).item() == pytest.approx((first + second) / 2)
    none = torch.tensor([[0, 1, -1], [0, 0, 0]])
    assert list_loss(scores, none).item() == pytest.approx(first)  # nothing bought: nothing to learn


def test_the_loss_falls_where_the_targets_rise():
    scores = torch.zeros(1, 4, requires_grad=True)
    list_loss(scores, torch.tensor([[1, 0, 0, -1]])).backward()
    np.testing.assert_allclose(scores.grad, [[-2 / 3, 1 / 3, 1 / 3, 0]], atol=1e-6)


def training_lists(number: int, seed: int = 0) -> list[TrainingList]:
    """Shoppers who buy again what they bought twice, and nothing else."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(number):
        codes = rng.permutation(CODES)
        baskets = [(pd.Timestamp("2011-10-01"), codes[:4].tolist()), (pd.Timestamp("2011-10-20"), codes[:2].tolist())]
        listed = rng.permutation(codes[:8])
        made.append(
            TrainingList(Shopper(baskets, pd.Timestamp("2011-11-01")), listed.tolist(), np.isin(listed, codes[:2]))
        )
    return made


STEPS = TrainingConfig(
    steps=60, batch=8, learning_rate=2e-2, warmup=5, weight_decay=0, evaluate_every=60, save_every=60
)


@pytest.mark.parametrize("reading, invariant", [(AFTER_QUESTION, True), (AFTER_LIST, False)])
def test_fine_tuning_trains_an_adapter_and_nothing_else(one_thread, reading, invariant):
    base = a_gpt()
    before = base_fingerprint(base)
    one = ranker(base, reading, invariant)
    metrics = teach_ranker(one, training_lists(10), replace(STEPS, steps=3), name="mine", positions=300)
    assert base_fingerprint(base) == before and not base.training and metrics[-1]["step"] == 3
    assert all(layer.B["mine"].abs().sum() > 0 for layer in adapted_layers(base).values())
    assert {layer.used for layer in adapted_layers(base).values()} == {"mine"}


def test_what_can_be_learned_is(one_thread):
    """Read at its question, a candidate's own count is enough; judged on new shoppers."""
    base, judged = a_gpt(), training_lists(30, seed=1)

    def hits() -> float:
        best = [one.score(q.shopper, None, q.candidates).argsort()[-2:] for q in judged]
        return np.mean([q.bought[places].mean() for q, places in zip(judged, best, strict=True)])

    one = ranker(base, AFTER_QUESTION, True)
    assert hits() < 0.6
    teach_ranker(one, training_lists(200), STEPS, positions=300)
    assert hits() > 0.95


def test_training_batches_are_the_same_for_the_same_step(model):
    data = TrainingListBatches(ranker(model, AFTER_QUESTION, True), training_lists(10), 300)
    first, again, other = data.batch(3, 4, 0), data.batch(3, 4, 0), data.batch(4, 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.tokens, other.tokens)
    assert sorted(map(tuple, data.batch(0, 99).targets.tolist())) == sorted(
        tuple(q.bought.astype(int).tolist()) for q in training_lists(10)
    )


def test_a_pointwise_ranker_is_not_fine_tuned(model):
    with pytest.raises(ValueError, match="teach an invariant one"):
        teach_ranker(ranker(model, AFTER_QUESTION, pointwise=True), training_lists(3))


# Position bias


class ByPlace:
    """A ranker by the place alone, by the product alone, or by both alike."""

    def __init__(self, place: float, product: float):
        self.place, self.product = place, product

    def score(self, shopper, query, candidates):
        return np.array([-self.place * i + self.product * int(code[1:]) for i, code in enumerate(candidates)])


def test_permuted_scores_stand_under_their_candidates():
    places, scores = permuted_scores(ByPlace(1, 100), ANN, None, CODES, orders=5)
    np.testing.assert_array_equal(scores, 100 * np.arange(12) - places)
    assert (np.sort(places, axis=1) == np.arange(12)).all() and len(np.unique(places, axis=0)) == 5


def test_sensitivity_from_nothing_to_all():
    by_product, by_place, by_both = (
        order_sensitivity(permuted_scores(ByPlace(*weights), ANN, None, CODES, orders=400)[1])
        for weights in ((0, 1), (1, 0), (1, 1))
    )
    assert by_product == 0 and by_place == pytest.approx(1, abs=0.01) and by_both == pytest.approx(0.5, abs=0.03)
    shifted = np.array([[1.0, 2], [11, 12]])  # the same ranking on another level
    assert order_sensitivity(shifted) == 0 and order_sensitivity(np.ones((2, 3))) == 0


def test_ranks_by_place():
    places, scores = permuted_scores(ByPlace(1, 0), ANN, None, CODES, orders=5)
    np.testing.assert_array_equal(rank_by_place(places, scores), np.arange(1, 13))
    for orders in (12, 36):  # each product stands at each place equally often, so chance plays no part
        places, scores = permuted_scores(ByPlace(0, 1), ANN, None, CODES, orders)
        np.testing.assert_allclose(rank_by_place(places, scores), 6.5)
        assert (np.sort(places, axis=0) == np.repeat(np.arange(12), orders // 12)[:, None]).all()
