"""model, config: against transformers, gradients, an attention written out by hand, and counts of tensors and bytes."""

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT, KVCache, from_transformers, scaled_dot_product_attention, to_transformers

SMALL = GPTConfig(vocabulary=61, context=24, layers=3, heads=4, width=32)


@pytest.fixture
def model() -> GPT:
    return lively(GPT(SMALL, seed=0))


def lively(model: GPT) -> GPT:
    """With weights large enough that every part of the model matters, biases and norms too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def some_tokens(batch: int, length: int, config: GPTConfig = SMALL, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, config.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


# Configuration


@pytest.mark.parametrize("preset", GPT_PRESETS)
@pytest.mark.parametrize("vocabulary", [50, 4096])
def test_parameters_are_those_of_the_model(preset, vocabulary):
    config = GPTConfig(vocabulary, **GPT_PRESETS[preset])
    with torch.device("meta"):
        model = GPT(config)
    assert config.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_presets_are_of_the_sizes_that_they_are_meant_for():
    millions = {
        name: GPTConfig(vocabulary, **GPT_PRESETS[name]).parameters / 1e6
        for name, vocabulary in {"laptop": 4096, "colab": 4096, "full": 50_256 + 3_700}.items()
    }
    assert 1 < millions["laptop"] < 3 < millions["colab"] < 50 < millions["full"] < 60


@pytest.mark.parametrize("config", [SMALL, GPTConfig(300, **GPT_PRESETS["laptop"])])
def test_flops_are_those_that_pytorch_counts_forward_and_back(config):
    model, batch = GPT(config, seed=0), 2
    tokens = some_tokens(batch, config.context, config)
    # In plain matrix products, so that attention, whose upper half the mask throws away, is counted whole.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.loss(tokens, tokens).backward()
    assert counter.get_total_flops() == config.flops_per_token * tokens.numel()


def test_forward_alone_is_a_third_of_the_flops():
    tokens = some_tokens(2, SMALL.context)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        GPT(SMALL)(tokens)
    assert 3 * counter.get_total_flops() == SMALL.flops_per_token * tokens.numel()


@pytest.mark.parametrize("momentum, states", [(0.0, 0), (0.9, 1), ("adam", 2)])
def test_training_bytes_are_those_of_weights_gradients_and_optimizer(momentum, states):
    model = GPT(SMALL, seed=0)
    if momentum == "adam":
        optimizer = torch.optim.AdamW(model.parameters())
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    model.loss(some_tokens(2, 8), some_tokens(2, 8)).backward()
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    there = [*model.parameters(), *(p.grad for p in model.parameters()), *(v for v in kept if v.ndim)]
    assert sum(tensor.nbytes for tensor in there) == SMALL.training_bytes(states)


def test_cache_bytes_are_those_of_the_cache():
    for batch, size, dtype in ((1, 0, torch.float32), (3, 10, torch.bfloat16)):
        cache = KVCache(SMALL, batch, dtype=dtype, size=size)
        assert sum(layer.nbytes for layer in cache.layers) == SMALL.cache_bytes(batch, size, dtype.itemsize)


def test_shapes_that_make_no_gpt_are_refused():
    with pytest.raises(ValueError, match="width 30 is not a multiple of heads 4"):
        GPTConfig(10, width=30)
    for wrong in (dict(vocabulary=0), dict(vocabulary=9, layers=1.5), dict(vocabulary=9, dropout=1.0)):
        with pytest.raises(ValueError, match="whole numbers above 0"):
            GPTConfig(**wrong)


# Initialisation and learning


@pytest.mark.parametrize("preset", ["laptop", "colab"])
def test_a_new_model_knows_nothing(preset):
    config = GPTConfig(1000, **GPT_PRESETS[preset])
    tokens = some_tokens(4, 33, config)
    loss = GPT(config, seed=0).loss(tokens[:, :-1], tokens[:, 1:])
    spread = 0.02**2 * config.width  # the logits' variance: a normed vector times a row of N(0, 0.02)
    assert loss.item() == pytest.approx(math.log(1000) + spread / 2, abs=0.06)


def test_weights_are_spread_as_in_gpt2_and_follow_the_seed():
    config = replace(SMALL, width=128, layers=8)
    model = GPT(config, seed=0)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all()
        elif "norm" in name:
            assert parameter.eq(1).all()
        else:
            expected = 0.02 / 4 if "attention.output" in name or "contract" in name else 0.02  # sqrt(2 · 8) = 4
            assert parameter.std().item() == pytest.approx(expected, rel=0.05), name
            assert abs(parameter.mean().item()) < expected / 10
    same, other = GPT(config, seed=0).state_dict(), GPT(config, seed=1).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.token_embedding.weight, other["token_embedding.weight"])


def test_one_batch_is_memorised():
    torch.manual_seed(0)
    model, tokens = GPT(SMALL, seed=0), some_tokens(4, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert torch.equal(model(tokens[:, :-1]).argmax(-1), tokens[:, 1:])


def test_the_loss_is_the_cross_entropy_of_the_logits(model):
    tokens, targets = some_tokens(3, 10), some_tokens(3, 10, seed=1)
    targets[1, 4:] = -1
    expected = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    torch.testing.assert_close(model.loss(tokens, targets), expected)


# What a position sees


def test_no_position_sees_the_future_and_no_row_another_row(model):
    vectors = model.token_embedding(some_tokens(2, 9)).detach().requires_grad_()
    logits = model.logits(model.hidden(vectors))
    for row in range(2):
        for t in range(9):
            (gradient,) = torch.autograd.grad(logits[row, t].square().sum(), vectors, retain_graph=True)
            reached = gradient.abs().amax(-1) > 0  # (2, 9)
            expected = torch.zeros(2, 9, dtype=torch.bool)
            expected[row, : t + 1] = True
            assert torch.equal(reached, expected)


def test_padding_on_the_left_reaches_nobody(model):
    vectors = model.token_embedding(some_tokens(3, 9)).detach().requires_grad_()
    cache = KVCache(SMALL, 3)
    cache.start = torch.tensor([4, 0, 2])
    hidden = model.hidden(vectors, cache)
    for row, start in enumerate([4, 0, 2]):
        (gradient,) = torch.autograd.grad(hidden[row, start:].square().sum(), vectors, retain_graph=True)
        reached = gradient.abs().amax(-1) > 0
        expected = torch.zeros(3, 9, dtype=torch.bool)
        expected[row, start:] = True
        assert torch.equal(reached, expected)
    assert hidden.isfinite().all()


def test_a_mask_of_ones_own_says_what_is_seen(model):
    vectors = model.token_embedding(some_tokens(1, 6)).detach().requires_grad_()
    mask = torch.ones(6, 6, dtype=torch.bool)  # everything, the future too
    mask[:, 2] = False  # but for one position, which sees itself
    mask[2] = torch.arange(6) == 2
    hidden = model.hidden(vectors, mask=mask[None, None])
    (gradient,) = torch.autograd.grad(hidden[0, 0].square().sum(), vectors, retain_graph=True)
    assert (gradient[0].abs().amax(-1) > 0).tolist() == [True, True, False, True, True, True]
    (gradient,) = torch.autograd.grad(hidden[0, 2].square().sum(), vectors)
    assert (gradient[0].abs().amax(-1) > 0).tolist() == [False, False, True, False, False, False]


def test_vectors_in_the_place_of_tokens_give_the_same(model):
    tokens = some_tokens(2, 7)
    torch.testing.assert_close(model.hidden(model.token_embedding(tokens)), model.hidden(tokens), atol=0, rtol=0)


def test_attention_is_the_softmax_written_out(model):
    attention, x = model.blocks[0].attention, torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
    q, k, v = (part.view(2, 5, 4, 8) for part in attention.query_key_value(x).split(32, dim=-1))
    expected = torch.zeros(2, 5, 4, 8)
    for row in range(2):
        for head in range(4):
            for t in range(5):
                scores = torch.stack([q[row, t, head] @ k[row, s, head] for s in range(t + 1)]) / math.sqrt(8)
                weights = scores.exp() / scores.exp().sum()
                expected[row, t, head] = sum(w * v[row, s, head] for s, w in enumerate(weights))
    torch.testing.assert_close(attention(x, None, None, 0), attention.output(expected.view(2, 5, 32)))


def test_dropout_acts_in_training_and_not_in_evaluation():
    model, tokens = GPT(replace(SMALL, dropout=0.3), seed=0), some_tokens(2, 8)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    torch.testing.assert_close(model(tokens), GPT(SMALL, seed=0)(tokens))


def test_under_autocast_training_stays_close_and_its_gradients_are_float32(model):
    tokens = some_tokens(4, 20)
    exact = model.loss(tokens, tokens)
    exact.backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        close = model.loss(tokens, tokens)
    close.backward()
    assert close.item() == pytest.approx(exact.item(), rel=0.03)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert F.cosine_similarity(parameter.grad.flatten(), expected[name].flatten(), dim=0) > 0.97, name


def test_on_a_cpu_attention_stays_float32_under_autocast():
    parts = [torch.randn(1, 2, 3, 4, dtype=torch.bfloat16) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        found = scaled_dot_product_attention(*parts, None, 0.0)
    exact = F.scaled_dot_product_attention(*(part.float() for part in parts), is_causal=True)
    assert found.dtype == torch.float32 and torch.equal(found, exact)


def attended(attention, dropout):
    """What attention gives for some queries, keys and values, and the gradients of its sum of squares."""
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 20, 8, generator=generator).requires_grad_() for _ in range(3)]
    given = attention(*parts, None, dropout)
    return given, *torch.autograd.grad(given.square().sum(), parts)


def test_where_dropout_leaves_out_nothing_attention_and_its_gradients_are_the_librarys():
    def library(query, key, value, mask, dropout):
        return F.scaled_dot_product_attention(query, key, value, mask, 0.0, True)

    for ours, theirs in zip(attended(scaled_dot_product_attention, 1e-9), attended(library, 0.0), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_its_dropout_leaves_out_that_share_of_the_weights_and_makes_up_for_it():
    T = 64
    query, key, one_each = torch.zeros(50, 1, T, T), torch.zeros(50, 1, T, T), torch.eye(T).expand(50, 1, T, T)
    weights = scaled_dot_product_attention(query, key, one_each, None, 0.4)  # of the values that are seen: all equal
    whole = scaled_dot_product_attention(query, key, one_each, None, 0.0)
    assert weights[whole == 0].eq(0).all()  # what comes later stays unseen
    assert (weights[whole > 0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.01)
    torch.testing.assert_close(weights[weights > 0], (whole / 0.6)[weights > 0])


# The cache


@pytest.mark.parametrize("chunks", [[20], [1] * 20, [7, 1, 5, 1, 6], [2, 18], [19, 1]])
@pytest.mark.parametrize("starts", [[0, 0, 0], [0, 3, 6], [5, 0, 0]])
def test_with_the_cache_logits_are_those_without_at_every_position(model, chunks, starts):
    texts = [some_tokens(1, 20 - start, seed=row) for row, start in enumerate(starts)]
    expected = [model(text)[0] for text in texts]  # each alone, unpadded, without a cache
    padded = torch.cat([F.pad(text, (20 - text.shape[1], 0), value=5) for text in texts])
    cache = KVCache(SMALL, 3)
    cache.start = torch.tensor(starts)
    with torch.inference_mode():
        logits = torch.cat([model(chunk, cache) for chunk in padded.split(chunks, dim=1)], dim=1)
    assert cache.length == 20
    for row, start in enumerate(starts):
        torch.testing.assert_close(logits[row, start:], expected[row], atol=1e-5, rtol=1e-5)


def test_what_the_cache_lets_each_position_see():
    cache = KVCache(SMALL, 2)
    assert cache.visible(5) is None  # "all before it" is the model's own rule
    cache.length = 2
    assert cache.visible(1) is None  # the last position sees everything
    assert cache.visible(2).squeeze().tolist()[0] == [[True, True, True, False], [True] * 4]
    cache.length, cache.start = 0, torch.tensor([2, 0])
    padded, whole = cache.visible(3).squeeze().int().tolist()
    assert whole == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert padded == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # padding sees itself: a softmax over nothing is no number


def test_the_cache_continues_vectors_too(model):
    tokens, cache = some_tokens(2, 10), KVCache(SMALL, 2)
    parts = [model.hidden(model.token_embedding(tokens[:, :4]), cache), model.hidden(tokens[:, 4:], cache)]
    torch.testing.assert_close(torch.cat(parts, 1), model.hidden(tokens), atol=1e-5, rtol=1e-5)


def test_rows_that_leave_the_cache_change_nothing_for_those_that_stay(model):
    tokens, rows = some_tokens(4, 12), torch.tensor([3, 1])
    cache = KVCache(SMALL, 4)
    cache.start = torch.tensor([0, 2, 0, 5])
    whole = KVCache(SMALL, 4)
    whole.start = cache.start
    with torch.inference_mode():
        expected = [model(part, whole) for part in tokens.split(6, 1)][1]
        model(tokens[:, :6], cache)
        cache.keep(rows)
        got = model(tokens[rows, 6:], cache)
    torch.testing.assert_close(got, expected[rows], atol=1e-5, rtol=1e-5)
    cache.keep(torch.tensor([1]))
    assert cache.padded and len(cache.start) == 1


@pytest.mark.parametrize("size, fits", [(0, 24), (10, 10), (99, 24)])
def test_positions_beyond_the_cache_or_the_context_are_refused(model, size, fits):
    cache = KVCache(SMALL, 1, size=size)
    model(some_tokens(1, fits), cache)
    with pytest.raises(ValueError, match=f"1 rows of {fits + 1} positions do not fit 1 of {fits}"):
        model(some_tokens(1, 1), cache)
    with pytest.raises(ValueError, match="25 positions do not fit"):
        model(some_tokens(2, 25))


def test_a_cache_of_another_batch_is_refused(model):
    with pytest.raises(ValueError, match="1 rows of 3 positions do not fit 4 of 24"):
        model(some_tokens(1, 3), KVCache(SMALL, 4))


def test_a_cache_is_as_good_in_bfloat16(model):
    low, tokens = GPT(SMALL).to(torch.bfloat16).eval(), some_tokens(2, 10)
    low.load_state_dict(model.state_dict())
    cache = KVCache(SMALL, 2, dtype=torch.bfloat16)
    logits = torch.cat([low(part, cache) for part in tokens.split(1, 1)], 1)
    torch.testing.assert_close(logits, low(tokens), atol=0.3, rtol=0.1)


# The library's GPT-2


def theirs_with(**changes):
    transformers = pytest.importorskip("transformers")
    shape = dict(vocab_size=61, n_positions=24, n_layer=3, n_head=4, n_embd=32, bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    return lively(transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape | changes)))


def test_a_gpt2_of_transformers_loads_and_gives_the_same_logits_and_loss():
    theirs, tokens = theirs_with(), some_tokens(3, 24)
    ours = from_transformers(theirs)
    assert not ours.training and ours.config == replace(SMALL, dropout=0.1)
    with torch.no_grad():
        output = theirs(tokens, labels=tokens)
        torch.testing.assert_close(ours(tokens), output.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.loss(tokens[:, :-1], tokens[:, 1:]), output.loss, atol=1e-5, rtol=1e-5)


def test_there_and_back_the_weights_are_identical(model):
    theirs = to_transformers(model)
    back = from_transformers(theirs)
    assert back.config == model.config
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        tokens = some_tokens(2, 11)
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-5, rtol=1e-5)
    again = to_transformers(back).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in theirs.state_dict().items())


def test_the_two_models_share_no_memory(model):
    theirs = to_transformers(model)
    with torch.no_grad():
        before = model.token_embedding.weight.clone()
        theirs.transformer.wte.weight.zero_()
        assert torch.equal(model.token_embedding.weight, before)
        assert theirs.lm_head.weight.eq(0).all()  # tied there too


@pytest.mark.parametrize(
    "changes, named",
    [
        (dict(activation_function="relu"), "activation_function=relu"),
        (dict(n_inner=64), "n_inner=64"),
        (dict(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx=True"),
        (dict(layer_norm_epsilon=1e-3), "layer_norm_epsilon=0.001"),
    ],
)
def test_another_kind_of_gpt2_is_refused_by_name(changes, named):
    with pytest.raises(ValueError, match=named):
        from_transformers(theirs_with(**changes))
