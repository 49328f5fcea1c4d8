"""generate, sampling: against transformers' generate and its knobs, scipy's chi-square, cases by hand, and limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

torch = pytest.importorskip("torch")

from recbook.generation import sampling as knobs
from recbook.generation.generate import Trie, constrained_after, generate, stream
from recbook.generation.sampling import GREEDY, Sampling
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT, KVCache, from_transformers, to_transformers

SMALL = GPTConfig(vocabulary=53, context=48, layers=2, heads=2, width=16)
PROMPTS = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8], [30, 31]]
EVERY_KNOB = Sampling(repetition=1.3, temperature=0.8, top_k=20, top_p=0.9)

pytestmark = pytest.mark.usefixtures("one_thread")


def peaked(config: GPTConfig = SMALL, seed: int = 0) -> GPT:
    """A random model whose choices are far apart: no two logits are close enough for rounding to swap them."""
    model = GPT(config, seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return model


@pytest.fixture(scope="module")
def model() -> GPT:
    return peaked()


def random_logits(rows: int, vocabulary: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (rows, vocabulary)).astype(np.float32))


def by_hand(model: GPT, prompt: list[int], tokens: int) -> list[int]:
    """Greedy text without a cache, a whole forward pass a token."""
    text = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    return text[len(prompt) :]


# The cache


@pytest.mark.parametrize("first", [1, 3, 10])
def test_logits_with_the_cache_are_those_without_at_every_position(model, first):
    tokens = torch.randint(0, SMALL.vocabulary, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(tokens)
        cache = KVCache(SMALL, 3)
        parts = [model(tokens[:, :first], cache)]
        parts += [model(tokens[:, place : place + 1], cache) for place in range(first, 20)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)


def test_greedy_is_the_most_likely_token_again_and_again(model):
    assert generate(model, PROMPTS, 12) == [by_hand(model, prompt, 12) for prompt in PROMPTS]


# transformers


@pytest.mark.parametrize("shape", [(1, 1), (2, 4), (3, 2)])
def test_greedy_agrees_with_transformers_for_prompts_of_several_lengths(shape):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    layers, heads = shape
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=61, n_positions=40, n_embd=16, n_layer=layers, n_head=heads, initializer_range=0.3
        )
    ).eval()
    ours = from_transformers(theirs).eval()
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    expected = theirs.generate(input_ids=ids, attention_mask=seen, **options)[:, longest:]
    assert generate(ours, PROMPTS, 20) == expected.tolist()
    for prompt in PROMPTS:
        alone = torch.tensor([prompt])
        expected = theirs.generate(input_ids=alone, attention_mask=torch.ones_like(alone), **options)[:, len(prompt) :]
        assert generate(ours, [prompt], 20) == expected.tolist()


def test_greedy_with_a_penalty_agrees_with_transformers(model):
    pytest.importorskip("transformers")
    theirs, prompt = to_transformers(model), torch.tensor([PROMPTS[2]])
    options = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    expected = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), repetition_penalty=1.7, **options)
    got = generate(model, [PROMPTS[2]], 20, Sampling(temperature=0, repetition=1.7))
    assert got == expected[:, len(PROMPTS[2]) :].tolist()
    assert got != generate(model, [PROMPTS[2]], 20)


@pytest.mark.parametrize("seed", range(3))
def test_each_knob_is_that_of_transformers(seed):
    pytest.importorskip("transformers")
    from transformers.generation import logits_process as theirs

    logits, seen = random_logits(5, 40, seed), torch.randint(0, 40, (5, 9))
    pairs = [
        (knobs.shape_logits(logits, Sampling(temperature=0.7)), theirs.TemperatureLogitsWarper(0.7)),
        (knobs.keep_top_k(logits, 7), theirs.TopKLogitsWarper(7)),
        (knobs.keep_top_k(logits, 90), theirs.TopKLogitsWarper(90)),
        (knobs.keep_top_p(logits, 0.6), theirs.TopPLogitsWarper(0.6)),
        (knobs.penalise(logits, seen, 1.4), theirs.RepetitionPenaltyLogitsProcessor(1.4)),
    ]
    for ours, wrapper in pairs:
        torch.testing.assert_close(ours.log_softmax(-1), wrapper(seen, logits.clone()).log_softmax(-1))
    expected = logits
    for wrapper in (pairs[4][1], pairs[0][1], pairs[1][1], pairs[3][1]):  # penalty, temperature, top-k, top-p
        expected = wrapper(seen, expected.clone())
    ours = knobs.shape_logits(logits, Sampling(repetition=1.4, temperature=0.7, top_k=7, top_p=0.6), seen)
    torch.testing.assert_close(ours.log_softmax(-1), expected.log_softmax(-1))


# The knobs by hand


def test_temperature_by_hand():
    logits = torch.tensor([[1.0, 2.0, 4.0]]).log()  # chances 1 : 2 : 4
    half = knobs.shape_logits(logits, Sampling(temperature=0.5)).softmax(-1)
    torch.testing.assert_close(half, torch.tensor([[1 / 21, 4 / 21, 16 / 21]]))
    hot = knobs.shape_logits(logits, Sampling(temperature=1e6)).softmax(-1)
    torch.testing.assert_close(hot, torch.full((1, 3), 1 / 3))
    assert knobs.shape_logits(logits, Sampling()) is logits


def test_top_k_by_hand_keeps_exactly_k_even_of_equals():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    kept = knobs.keep_top_k(logits, 2)
    assert kept[0].tolist() == [-np.inf, 3, 2, -np.inf]
    assert (kept > -np.inf).sum(-1).tolist() == [2, 2]


def test_top_p_by_hand_keeps_the_token_that_crosses_p():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept = {p: (knobs.keep_top_p(logits, p) > -torch.inf)[0].tolist() for p in (0.1, 0.49, 0.51, 0.76, 1.0)}
    assert kept[0.1] == kept[0.49] == [False, True, False, False]  # never fewer than one
    assert kept[0.51] == [False, True, False, True]
    assert kept[0.76] == [False, True, True, True]
    assert kept[1.0] == [True] * 4


def test_penalty_by_hand_lowers_both_signs_once_however_often_a_token_was_seen():
    logits = torch.tensor([[3.0, -1.0, 2.0, 0.0]])
    assert knobs.penalise(logits, torch.tensor([[0, 1, 0, 3]]), 2.0).tolist() == [[1.5, -2.0, 2.0, 0.0]]


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"repetition": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="temperature and top_k are 0 or more"):
        Sampling(**wrong)


@pytest.mark.parametrize("name", ["temperature", "repetition", "top_p"])
def test_a_setting_that_is_no_number_is_refused(name):
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=name):
            Sampling(**{name: value})


# The draw


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=5),
        Sampling(top_p=0.8),
        EVERY_KNOB,
        Sampling(temperature=1.7),
    ],
    ids=str,
)
def test_tokens_come_as_often_as_they_should(sampling):
    """A token for each of 20,000 rows, by Pearson's chi-square against the softmax of `shape_logits`."""
    prompt, rows = [5, 9, 2], 20_000
    small = GPT(GPTConfig(vocabulary=30, context=8, layers=1, heads=1, width=8), seed=1).eval()
    with torch.no_grad():
        small.token_embedding.weight.mul_(20)
        logits = small(torch.tensor([prompt]))[:, -1]
    expected = knobs.shape_logits(logits, sampling, torch.tensor([prompt])).softmax(-1)[0].double().numpy() * rows
    drawn = np.array(generate(small, [prompt] * rows, 1, sampling, seed=11))[:, 0]
    observed = np.bincount(drawn, minlength=len(expected))
    assert not observed[expected == 0].any()
    order = np.argsort(-expected)
    last = max(1, int((expected >= 5).sum()))  # the rare ones together, so that the test's approximation holds
    groups = [np.append(counts[order][:last], counts[order][last:].sum()) for counts in (observed, expected)]
    kept = groups[1] > 0
    if kept.sum() > 1:
        assert chisquare(groups[0][kept], groups[1][kept] * rows / groups[1][kept].sum()).pvalue > 0.001


def test_the_likeliest_by_hand_and_as_torch_finds_it():
    assert knobs.likeliest(torch.tensor([[0.0, 2.0, 2.0], [-1.0, -3.0, -2.0]])).tolist() == [1, 0]
    logits = random_logits(16, 4000)
    assert knobs.likeliest(logits).equal(logits.argmax(-1))


def test_a_draw_by_hand():
    logits = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().repeat(6, 1)  # cumulative: .2, .2, .7, 1
    uniforms = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 1 - 2**-52], dtype=torch.float64)
    assert knobs.draw_tokens(logits, uniforms).tolist() == [0, 0, 2, 2, 3, 3]


def test_what_has_no_chance_is_not_drawn_at_the_ends():
    logits = torch.tensor([[-np.inf, 1.0, 0.5, -np.inf], [-np.inf, 1e-3, -np.inf, -np.inf]], dtype=torch.float32)
    for uniform, expected in ((0.0, [1, 1]), (1 - 2**-52, [2, 1])):
        assert knobs.draw_tokens(logits, torch.full((2,), uniform, dtype=torch.float64)).tolist() == expected


@pytest.mark.parametrize("sampling", [Sampling(top_k=4), Sampling(top_k=4, top_p=0.7, temperature=0.9), EVERY_KNOB])
def test_choose_tokens_has_the_chances_of_shape_logits(sampling):
    logits, seen, grid = random_logits(1, 30), torch.tensor([[3, 8]]), 20_000
    uniforms = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    chosen = knobs.choose_tokens(logits.expand(grid, -1), sampling, uniforms, seen.expand(grid, -1))
    shares = torch.bincount(chosen, minlength=30) / grid
    torch.testing.assert_close(shares, knobs.shape_logits(logits, sampling, seen).softmax(-1)[0], atol=2 / grid, rtol=0)


def test_at_temperature_zero_the_other_knobs_have_no_say(model):
    assert generate(model, PROMPTS, 10, Sampling(temperature=0, top_k=3, top_p=0.1)) == generate(
        model, PROMPTS, 10, GREEDY
    )
    assert generate(model, PROMPTS, 10, Sampling(top_k=1)) == generate(model, PROMPTS, 10, GREEDY)
    assert generate(model, PROMPTS, 10, Sampling(temperature=1e-4)) == generate(model, PROMPTS, 10, GREEDY)


# Seeds, batches, streams, stops


def test_the_same_seed_gives_the_same_text_and_another_another(model):
    first = generate(model, PROMPTS, 20, EVERY_KNOB, seed=4)
    torch.manual_seed(99)  # the global state has no say
    assert generate(model, PROMPTS, 20, EVERY_KNOB, seed=4) == first
    assert generate(model, PROMPTS, 20, EVERY_KNOB, seed=5) != first


def test_rows_with_the_same_prompt_differ(model):
    texts = generate(model, [[5, 9]] * 8, 20, Sampling(temperature=2.0))
    assert len({tuple(text) for text in texts}) == 8


@pytest.mark.parametrize("sampling", [GREEDY, EVERY_KNOB, Sampling(temperature=1.5)], ids=str)
def test_a_text_does_not_depend_on_what_else_is_in_the_batch(model, sampling):
    texts = generate(model, PROMPTS, 16, sampling, seed=2)
    others = [[8] * 3, [9, 1, 1, 1, 1, 1], [50], [2, 2]]
    for row, prompt in enumerate(PROMPTS):
        company = [*others[:row], prompt, *others[row:][:2]]
        assert generate(model, company, 16, sampling, seed=2)[row] == texts[row]


@pytest.mark.parametrize("sampling", [GREEDY, EVERY_KNOB], ids=str)
def test_streaming_gives_what_generate_gives(model, sampling):
    for prompt in PROMPTS:
        expected = generate(model, [prompt], 20, sampling, stop=[7, 11], seed=3)[0]
        assert list(stream(model, prompt, 20, sampling, stop=[7, 11], seed=3)) == expected


def test_a_stream_gives_a_token_before_it_computes_the_next(model):
    calls = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
    hidden = model.hidden
    try:
        model.hidden = lambda *arguments: calls.append(1) or hidden(*arguments)
        tokens = stream(model, [5, 9], 20)
        next(tokens)
        next(tokens)
    finally:
        hook.remove()
        del model.hidden
    assert len(calls) == 2


@pytest.mark.parametrize("rows", [4, 9])
def test_a_stop_ends_its_row_and_the_others_go_on(model, rows):
    prompts = [[row, row + 1, 3 * row % 50] for row in range(rows)]
    free = generate(model, prompts, 24, EVERY_KNOB, seed=6)
    stop = {text[place] for place, text in zip((0, 3, 7), free, strict=False)}
    expected = []
    for text in free:
        ends = [place for place, token in enumerate(text) if token in stop]
        expected.append(text[: ends[0]] if ends else text)
    assert len({len(text) for text in expected}) > 2  # rows do end at different times
    assert generate(model, prompts, 24, EVERY_KNOB, stop=stop, seed=6) == expected


def test_generation_ends_when_every_row_has(model):
    first = generate(model, [[5, 9, 2]], 1)[0][0]
    assert generate(model, [[5, 9, 2]], 30, stop=[first]) == [[]]
    assert list(stream(model, [5, 9, 2], 30, stop=[first])) == []


def test_the_context_can_be_filled_to_the_last_position(model):
    prompt = [1] * (SMALL.context - 5)
    assert generate(model, [prompt], 5) == [by_hand(model, prompt, 5)]


# Constraints


def test_trie_by_hand():
    trie = Trie([[1, 2], [1, 2, 3], [4]], end=9)
    assert sorted(trie([])) == [1, 4]
    assert trie([1]) == [2]
    assert sorted(trie([1, 2])) == [3, 9]  # complete, and the beginning of a longer one
    assert trie([1, 2, 3]) == trie([4]) == [9]
    assert trie([2]) == trie([1, 9]) == []  # not in the tree
    assert trie([1, 2, 9]) is None and trie([4, 9, 1, 7]) is None  # past the end: free


@pytest.mark.parametrize("sequences", [[[1], []], [[1], [1, 9, 2]], [[1, 9, 2], [1]]])
def test_a_trie_refuses_a_sequence_whose_end_could_not_be_told(sequences):
    with pytest.raises(ValueError, match="is empty, or with the closing 9 begins another"):
        Trie(sequences, end=9)


def test_the_closing_token_may_stand_inside_a_sequence():
    trie = Trie([[1, 9, 2], [3]], end=9)
    assert trie([1]) == [9] and trie([1, 9]) == [2] and trie([1, 9, 2]) == [9] and trie([1, 9, 2, 9]) is None


SEQUENCES = st.lists(st.lists(st.integers(0, 51), min_size=1, max_size=6), min_size=1, max_size=12)


@given(SEQUENCES, st.sampled_from([GREEDY, Sampling(temperature=3.0), EVERY_KNOB]), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_whatever_the_trie_only_its_sequences_are_generated(sequences, sampling, seed):
    trie = Trie(sequences, end=52)
    texts = generate(peaked(), PROMPTS, 7, sampling, stop=[52], seed=seed, constraint=trie)
    assert all(text in sequences for text in texts)


def test_a_constraint_is_obeyed_by_a_model_that_wants_something_else(model):
    wanted = generate(model, [[5, 9, 2]], 1)[0][0]
    other = [token for token in range(10) if token != wanted][:2]
    assert generate(model, [[5, 9, 2]], 1, constraint=lambda text: other)[0][0] in other


def test_constrained_chances_are_the_models_own_renormalised(model):
    with torch.no_grad():
        chances = model(torch.tensor([[5, 9, 2]]))[0, -1].softmax(-1)
    allowed = chances.argsort(descending=True)[3:6].tolist()
    expected = chances[allowed].double().numpy()
    drawn = np.array(generate(model, [[5, 9, 2]] * 5000, 1, Sampling(), constraint=lambda text: allowed))[:, 0]
    observed = np.array([(drawn == token).sum() for token in allowed])
    assert observed.sum() == 5000
    assert chisquare(observed, expected / expected.sum() * 5000).pvalue > 0.001


def test_free_text_then_a_sequence_then_free_text_again(model):
    trie = Trie([[10, 11, 12], [10, 13]], end=52)
    rule = constrained_after(20, trie)
    assert rule([1, 2]) is None and rule([20]) == [10] and sorted(rule([20, 10])) == [11, 13]
    assert rule([20, 10, 13, 52, 5]) is None and rule([20, 10, 13, 52, 20]) == [10]
    texts = generate(model, [[row, 3] for row in range(20)], 40, Sampling(temperature=4.0), constraint=rule, seed=1)
    opened = [text[text.index(20) + 1 :][:4] for text in texts if 20 in text[:36]]
    assert len(opened) > 3
    assert all(part[:2] == [10, 13] and part[2] == 52 or part == [10, 11, 12, 52] for part in opened)
    assert any(text[0] not in (10, 20) for text in texts)  # what comes before is free


def test_every_row_can_have_its_own_constraint(model):
    rules = [lambda text: [3], None, lambda text: [4]]
    texts = generate(model, [[5, 9, 2]] * 3, 5, constraint=rules)
    assert texts == [[3] * 5, generate(model, [[5, 9, 2]], 5)[0], [4] * 5]


def test_a_constraint_sees_what_was_generated_and_cannot_change_it(model):
    seen = []

    def rule(text):
        seen.append(list(text))
        text.append(0)
        return None

    text = generate(model, [[5, 9, 2]], 4, constraint=rule)[0]
    assert seen == [text[:n] for n in range(4)] and text == generate(model, [[5, 9, 2]], 4)[0]


# What is refused


@pytest.mark.parametrize(
    ("prompts", "tokens", "message"),
    [
        ([], 5, "0 prompts"),
        ([[1]], 0, "0 tokens"),
        ([[1], []], 5, "prompt 1 is empty"),
        ([1, 2, 3], 5, r"\[\[1, 2, 3\]\]"),
        ([[1], [2, 53]], 5, "prompt 1 holds token 53 at place 1; ids are 0 to 52"),
        ([[1, -1]], 5, "prompt 0 holds token -1 at place 1"),
        ([[1], [1] * 44], 5, "prompt 1 of 44 tokens and 5 new ones do not fit the context of 48"),
    ],
)
def test_prompts_that_cannot_be_continued_are_named(model, prompts, tokens, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, tokens)


def test_a_negative_seed_is_refused(model):
    with pytest.raises(ValueError, match="the seed is -1"):
        generate(model, [[1]], 5, seed=-1)


def test_a_constraint_that_allows_nothing_is_named(model):
    with pytest.raises(ValueError, match=r"row 1: the constraint allows no token after \[3\]"):
        generate(model, [[1], [2]], 5, constraint=[None, lambda text: [] if text else [3]])


@pytest.mark.parametrize("token", [53, -1])
def test_a_constraint_that_allows_an_unknown_token_is_named(model, token):
    with pytest.raises(ValueError, match="row 0: the constraint allows a token that is not among"):
        generate(model, [[1]], 5, constraint=lambda text: [2, token])


def test_as_many_constraints_as_prompts(model):
    with pytest.raises(ValueError, match="1 constraints for 2 prompts"):
        generate(model, [[1], [2]], 5, constraint=[None])


def test_a_model_in_training_mode_or_with_damaged_weights_is_refused():
    dropping = GPT(GPTConfig(20, 8, 1, 1, 8, dropout=0.1), seed=0)
    with pytest.raises(ValueError, match="Call model.eval"):
        generate(dropping, [[1]], 2)
    assert len(generate(dropping.eval(), [[1]], 2)[0]) == 2
    with torch.no_grad():
        dropping.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        generate(dropping, [[1]], 2)


def test_no_temperature_is_too_small():
    logits = torch.tensor([[1.0, 3.0, 2.0], [-5e4, 5e4, 4e4]])
    for temperature in (1e-38, 1e-6):
        cold = Sampling(temperature=temperature)
        assert knobs.choose_tokens(logits, cold, torch.tensor([0.3, 0.9])).tolist() == [1, 1]
        assert torch.equal(knobs.shape_logits(logits, cold).softmax(-1), torch.eye(3)[[1, 1]])
