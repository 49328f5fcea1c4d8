"""cross_entropy: against PyTorch's loss of the whole logits, finite differences, a record of every tensor made."""

import math

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbook.gpt.cross_entropy import linear_cross_entropy


def example(N=50, C=8, V=30, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, C, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(V, C, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(0, V, (N,), generator=generator)


def plain(hidden, weight, targets):
    """The loss through the whole logits."""
    return F.cross_entropy(hidden @ weight.T, targets, ignore_index=-1)


def with_gradients(loss, hidden, weight, targets, outer=1.0):
    value = loss(hidden, weight, targets)
    return value.detach(), *torch.autograd.grad(outer * value, (hidden, weight))


class Largest(TorchDispatchMode):
    """Records the numbers in the largest tensor that any operation makes; views of what was there do not count."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        there = {tensor.untyped_storage().data_ptr() for tensor in tensors(args, kwargs)}
        made = [tensor for tensor in tensors(given) if tensor.untyped_storage().data_ptr() not in there]
        self.numbers = max([self.numbers, *(tensor.numel() for tensor in made)])
        return given


def tensors(*things):
    return [leaf for leaf in tree_leaves(things) if isinstance(leaf, torch.Tensor)]


def largest(loss, *arguments):
    with Largest() as record:
        with_gradients(loss, *arguments)
    return record.numbers


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    hidden, weight, targets = torch.ones(3, 2), torch.ones(5, 2), torch.tensor([0, 4, 2])
    assert linear_cross_entropy(hidden, weight, targets).item() == pytest.approx(math.log(5))


def test_by_hand():
    hidden, weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 0.0], [math.log(3), math.log(2)]])
    expected = (math.log(4) - math.log(3) + math.log(5)) / 2  # odds of 1 : 3, and of 1 : 4
    assert linear_cross_entropy(hidden, weight, torch.tensor([1, 0])).item() == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [1, 7, 25, 50, 512])
@pytest.mark.parametrize("outer", [1.0, -2.5])
def test_value_and_gradients_are_those_of_the_whole_logits_in_any_chunk(chunk, outer):
    hidden, weight, targets = example()
    targets[[0, 3, 4, 49]] = -1

    def ours(h, w, t):
        return linear_cross_entropy(h, w, t, chunk)

    pairs = zip(
        with_gradients(ours, hidden, weight, targets, outer),
        with_gradients(plain, hidden, weight, targets, outer),
        strict=True,
    )
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    hidden, weight, targets = example(N=5, C=3, V=4, dtype=torch.float64)
    targets[2] = -1
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, 2), (hidden, weight))


def test_large_logits_neither_overflow_nor_lose_the_gradient():
    hidden, weight, targets = example()
    with torch.no_grad():
        hidden *= 100
    assert (hidden @ weight.T).max() > 89  # exp of more is infinite in float32
    got, expected = (with_gradients(f, hidden, weight, targets) for f in (linear_cross_entropy, plain))
    for a, b in zip(got, expected, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_targets_left_out_neither_count_nor_get_a_gradient():
    hidden, weight, targets = example()
    targets[10:] = -1
    value, hidden_grad, _ = with_gradients(linear_cross_entropy, hidden, weight, targets)
    assert value.item() == pytest.approx(plain(hidden[:10], weight, targets[:10]).item(), abs=1e-6)
    assert hidden_grad[10:].eq(0).all() and hidden_grad[:10].ne(0).any(1).all()


def test_all_targets_left_out_is_a_loss_of_zero():
    hidden, weight, targets = example()
    value, *gradients = with_gradients(linear_cross_entropy, hidden, weight, torch.full_like(targets, -1))
    assert value.item() == 0 and all(gradient.eq(0).all() for gradient in gradients)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_weight_or_frozen_input_gets_no_gradient(frozen):
    *pair, targets = example()
    expected = with_gradients(plain, *pair, targets)[2 - frozen]
    pair[frozen].requires_grad_(False)
    linear_cross_entropy(*pair, targets).backward()
    assert pair[frozen].grad is None
    torch.testing.assert_close(pair[1 - frozen].grad, expected, atol=1e-6, rtol=1e-5)


def test_without_gradients_it_is_only_a_number():
    hidden, weight, targets = example()
    with torch.no_grad():
        value = linear_cross_entropy(hidden, weight, targets)
    assert not value.requires_grad
    torch.testing.assert_close(value, plain(hidden, weight, targets).detach())
    with torch.inference_mode():
        torch.testing.assert_close(linear_cross_entropy(hidden, weight, targets), value)


def test_no_tensor_is_as_large_as_the_logits():
    hidden, weight, targets = example(N=600, C=8, V=300)
    logits, chunk = 600 * 300, 32 * 300
    assert largest(plain, hidden, weight, targets) >= logits  # the record sees what it should
    assert largest(lambda *a: linear_cross_entropy(*a, 32), hidden, weight, targets) == chunk


def test_without_gradients_no_weights_are_added_up():
    hidden, weight, targets = example(N=16, C=64, V=100)
    with Largest() as record, torch.no_grad():
        linear_cross_entropy(hidden, weight, targets, 4)
    assert record.numbers <= 16 * 64  # not even a gradient of (V, C)


def test_under_autocast_the_products_are_bfloat16_and_the_sums_float32():
    hidden, weight, targets = example(N=200, C=64, V=500)
    with torch.no_grad():
        weight *= 0.2
    exact = with_gradients(plain, hidden, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        close = with_gradients(lambda *a: linear_cross_entropy(*a, 64), hidden, weight, targets)
    assert [tensor.dtype for tensor in close] == [torch.float32] * 3
    assert 0 < abs(close[0] - exact[0]) < 0.01 * exact[0]
    for got, expected in zip(close[1:], exact[1:], strict=True):
        assert 0 < (got - expected).norm() < 0.02 * expected.norm()


def test_bfloat16_tensors_give_a_float32_loss_and_gradients_of_their_type():
    hidden, weight, targets = example(dtype=torch.bfloat16)
    value, *gradients = with_gradients(linear_cross_entropy, hidden, weight, targets)
    assert value.dtype == torch.float32 and all(gradient.dtype == torch.bfloat16 for gradient in gradients)
    assert value.item() == pytest.approx(plain(hidden.float(), weight.float(), targets).item(), rel=0.02)


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="this torch has no linear_cross_entropy")
def test_equals_the_one_that_new_versions_of_pytorch_have():
    hidden, weight, targets = example()
    targets[5:9] = -1
    got = with_gradients(linear_cross_entropy, hidden, weight, targets)
    expected = with_gradients(lambda h, w, t: F.linear_cross_entropy(h, w, t, ignore_index=-1), hidden, weight, targets)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_shapes_that_do_not_fit_are_named():
    hidden, weight, targets = example()
    with pytest.raises(ValueError, match=r"\(50, 8\), \(30, 8\), \(49,\)"):
        linear_cross_entropy(hidden, weight, targets[:-1])
    with pytest.raises(ValueError, match="do not fit"):
        linear_cross_entropy(hidden, weight.T, targets)


def test_the_gradient_has_no_gradient_of_its_own():
    hidden, weight, targets = example()
    (gradient,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
