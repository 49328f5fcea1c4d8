"""weights, layers: quantized layers give what their dequantized weights give, in any module and from disk."""

import copy
import json
import re
from collections import OrderedDict

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from recbook import storage
from recbook.baskets import model as basket_model
from recbook.baskets.model import BASKET_GPT_CONFIG, BASKET_GPT_KIND, BasketGPT
from recbook.baskets.network import BasketGPTConfig
from recbook.generation.generate import generate
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT, KVCache
from recbook.quantization import formats
from recbook.quantization.layers import prepare_quantized, quantize, quantized_schemes
from recbook.quantization.weights import FEW_ROWS, WEIGHT_CLASSES, Int8Weight
from recbook.training import checkpoints
from recbook.training.loop import validation_loss

SHAPE = GPTConfig(vocabulary=300, context=64, layers=2, heads=4, width=64)
SCHEMES = formats.SCHEMES
everywhere = pytest.mark.parametrize("scheme", SCHEMES)


pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(steps: int = 100) -> GPT:
    """A GPT that has learned to count, so that its favourites are clear."""
    model = GPT(SHAPE, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        tokens = (
            torch.arange(33) + 7 * torch.arange(16 * step, 16 * step + 16)[:, None]
        ) % SHAPE.vocabulary  # (16, 33)
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module")
def model() -> GPT:
    return trained()


def small(model: GPT, scheme: str) -> GPT:
    return quantize(copy.deepcopy(model), scheme)


# Quantized weights


@everywhere
@pytest.mark.parametrize("shape", [(48, 64), (37, 50), (5, 7), (130, 96)])
@pytest.mark.parametrize("part", [2**20, 200, 1])
def test_a_quantized_weight_gives_what_its_dequantized_weight_gives(scheme, shape, part):
    quantized = WEIGHT_CLASSES[scheme].of(drawn(*shape, scale=0.02))
    weight = quantized.dequantized()
    assert weight.shape == shape and weight.dtype == torch.float32
    x, tokens = drawn(2, 3, shape[1], seed=1), torch.tensor([[0, shape[0] - 1], [3, 3]])
    torch.testing.assert_close(quantized.product(x, at_once=part), F.linear(x, weight))
    assert torch.equal(quantized.rows(tokens), F.embedding(tokens, weight))


@everywhere
@pytest.mark.parametrize("rows", [1, FEW_ROWS + 1])
def test_a_layer_multiplies_a_part_at_a_time_where_the_weight_is_large(scheme, rows):
    quantized = WEIGHT_CLASSES[scheme].of(drawn(1100, 500, scale=0.02))
    x, weight = drawn(rows, 500, seed=1).double(), quantized.dequantized().double()
    torch.testing.assert_close(quantized.linear(x), F.linear(x, weight))
    ours, theirs = (torch.autograd.grad(product(x.requires_grad_()), x, torch.ones(rows, 1100).double())[0]
                    for product in (quantized.linear, lambda x: F.linear(x, weight)))  # fmt: skip
    torch.testing.assert_close(ours, theirs)


def test_quantized_weights_hold_the_codes_of_their_format():
    weight = drawn(40, 50, scale=0.02)
    packed, absmax = formats.nf4(weight)
    again = formats.from_double_quantized(*formats.double_quantize(absmax))
    expected = {
        "int8": formats.from_int8(*formats.int8(weight)),
        "nf4": formats.from_nf4(packed, absmax, weight.shape),
        "nf4-double": formats.from_nf4(packed, again, weight.shape),
    }
    for scheme, dequantized in expected.items():
        assert torch.equal(WEIGHT_CLASSES[scheme].of(weight).dequantized(), dequantized)


@everywhere
def test_the_gradient_is_that_of_the_dequantized_weight(scheme):
    quantized = WEIGHT_CLASSES[scheme].of(drawn(24, 32))
    x = drawn(3, 32, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(quantized.linear, x)
    weight, outer = quantized.dequantized().double(), drawn(3, 24, seed=2).double()
    ours, theirs = (torch.autograd.grad(y, x, outer)[0] for y in (quantized.linear(x), F.linear(x, weight)))
    torch.testing.assert_close(ours, theirs)


@everywhere
def test_nothing_as_large_as_the_weights_is_kept_for_the_backward_pass(scheme):
    linear, kept = nn.Linear(128, 256).requires_grad_(False), []
    packed = quantize(copy.deepcopy(linear), scheme)
    x = drawn(4, 128).requires_grad_()
    for layer, at_least in ((linear, True), (packed, False)):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda _: None):
            layer(x)
        assert (max(kept, default=0) >= 128 * 256) == at_least


@everywhere
def test_under_autocast_values_and_gradients_are_within_bfloat16_rounding(scheme):
    linear = quantize(nn.Linear(64, 128), scheme)
    x, outer = drawn(70, 64, seed=1).requires_grad_(), drawn(70, 128, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        y = linear(x)
    exact = F.linear(x, linear.weight, linear.bias)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.02)
    ours, theirs = (torch.autograd.grad(each, x, outer.to(each.dtype))[0] for each in (y, exact))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0.05)


# The int8 kernel


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 64])
@pytest.mark.parametrize("shape", [(65, 16), (1, 48), (384, 128), (7, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_codes_multiply_within_bfloat16_rounding(rows, shape, dtype):
    quantized, x = Int8Weight.of(drawn(*shape)), drawn(rows, 3, shape[1], seed=1).to(dtype)[:, 1]
    y = quantized.linear(x)
    weight = quantized.dequantized()
    rounding = 4 * 2**-9 * F.linear(x.float().abs(), weight.abs())  # of x, scales, the sum, and their product
    assert y.dtype == dtype and ((y.float() - F.linear(x.float(), weight)).abs() <= rounding + 1e-6).all()


@pytest.mark.skipif(not hasattr(torch, "_weight_int8pack_mm"), reason="this PyTorch has no such product")
def test_the_fast_product_is_for_few_rows_of_a_fitting_width_without_a_gradient(monkeypatch):
    calls, kernel = [], torch._weight_int8pack_mm
    monkeypatch.setattr(torch, "_weight_int8pack_mm", lambda *given: calls.append(given) or kernel(*given))
    quantized, narrow = Int8Weight.of(drawn(8, 64)), Int8Weight.of(drawn(8, 40))
    quantized.linear(drawn(FEW_ROWS, 64))
    assert len(calls) == 1
    for other in (drawn(FEW_ROWS + 1, 64), drawn(0, 64), drawn(2, 64).double(), drawn(2, 64).requires_grad_()):
        assert torch.equal(quantized.linear(other), F.linear(other, quantized.dequantized().to(other.dtype)))
    narrow.linear(drawn(2, 40))
    assert len(calls) == 1


def test_without_the_kernel_the_weights_are_made(monkeypatch):
    monkeypatch.delattr(torch, "_weight_int8pack_mm", raising=False)  # as in other releases, and on other devices
    quantized, x = Int8Weight.of(drawn(8, 64)), drawn(2, 64)
    torch.testing.assert_close(quantized.linear(x), F.linear(x, quantized.dequantized()))


# Layers and models


@everywhere
def test_layers_stand_in_for_torchs(scheme):
    linear, embedding = nn.Linear(64, 96), nn.Embedding(100, 48)
    ours, table = (quantize(copy.deepcopy(layer), scheme) for layer in (linear, embedding))
    assert (ours.in_features, ours.out_features) == (64, 96) and (table.num_embeddings, table.embedding_dim) == (
        100,
        48,
    )
    x, tokens = drawn(70, 64), torch.tensor([3, 99, 0])
    torch.testing.assert_close(ours(x), F.linear(x, ours.weight, linear.bias))
    assert torch.equal(table(tokens), table.weight[tokens])
    torch.testing.assert_close(table.logits(drawn(70, 48)), drawn(70, 48) @ table.weight.T)
    assert scheme in repr(ours) and "96, 64" in repr(ours)
    error = (ours.weight - linear.weight).abs().max() / linear.weight.abs().max()
    assert 0 < error < (0.01 if scheme == "int8" else 0.17)


class Network(nn.Module):
    """A module of its own: a table, a tied head, a layer used twice, some that are left as they are."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(200, 64), nn.Linear(64, 200, bias=False)
        self.head.weight = self.table.weight
        self.layers = nn.Sequential(OrderedDict(first=nn.Linear(64, 64), act=nn.ReLU(), small=nn.Linear(64, 8)))
        self.again = self.layers.first
        self.clipped = nn.Embedding(100, 64, max_norm=1.0)
        self.norm = nn.LayerNorm(64)

    def forward(self, tokens):
        x = self.norm(self.again(self.layers.first(self.table(tokens))))
        return self.head(x), self.layers.small(x)


@everywhere
def test_any_module_is_quantized_in_place_and_keeps_what_it_shares(scheme):
    torch.manual_seed(0)
    network = Network().eval()
    before = [y.detach() for y in network(torch.arange(200))]
    assert quantize(network, scheme) is network
    named = {"table", "head", "layers.first"}
    assert quantized_schemes(network) == dict.fromkeys(named, scheme)
    assert network.again is network.layers.first and network.head.quantized_weight is network.table.quantized_weight
    assert isinstance(network.clipped, nn.Embedding) and type(network.layers.small) is nn.Linear
    assert not any(module.training for module in network.modules())
    for old, new in zip(before, network(torch.arange(200)), strict=True):
        assert (new - old).square().mean() < (0.001 if scheme == "int8" else 0.1) * old.square().mean()


@everywhere
def test_a_gpt_in_few_bits_still_counts(model, scheme):
    few = small(model, scheme)
    prompts = [[7, 8, 9], list(range(100, 110))]
    ours, theirs = (generate(each, prompts, 12) for each in (few, model))
    assert theirs == [list(range(10, 22)), list(range(110, 122))] == ours
    tokens = torch.arange(50, 82)[None]
    with torch.no_grad():
        near = (few(tokens) - model(tokens)).square().mean().sqrt() / model(tokens).std()
        losses = [each.loss(tokens[:, :-1], tokens[:, 1:]).item() for each in (few, model)]
    assert near < (0.02 if scheme == "int8" else 0.3) and abs(losses[0] - losses[1]) < (
        0.02 if scheme == "int8" else 0.5
    )


def test_step_by_step_int8_logits_are_close_to_those_at_once(model):
    few, tokens = small(model, "int8"), torch.arange(40, 56)[None]
    cache = KVCache(SHAPE, 1)
    with torch.inference_mode():
        steps = torch.cat([few(tokens[:, [place]], cache) for place in range(16)], dim=1)
        exact = model(tokens)
    assert (steps - exact).abs().max() < 0.03 * exact.abs().max() and few.dtype == torch.float32


@everywhere
def test_positions_norms_biases_and_small_layers_stay_as_they_are(model, scheme):
    few = small(model, scheme)
    names = {"token_embedding"} | {
        f"blocks.{block}.{name}"
        for block in (0, 1)
        for name in ("attention.query_key_value", "attention.output", "expand", "contract")
    }
    assert set(quantized_schemes(few)) == names
    left = dict(few.named_parameters())
    assert {name.rpartition(".")[0] for name in left if name.endswith("weight")} == {
        "position_embedding", "norm", "blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2",
    }  # fmt: skip
    originals = dict(model.named_parameters())
    assert all(torch.equal(parameter, originals[name]) for name, parameter in left.items())


@pytest.mark.parametrize("skip", [["token_embedding", "blocks.1.expand"], ["expand", "contract"]])
def test_what_is_on_the_skip_list_is_left(model, skip):
    few = quantize(copy.deepcopy(model), "nf4", skip=skip)
    left = {name for name, layer in few.named_modules() if isinstance(layer, nn.Linear | nn.Embedding)}
    for name in skip:
        assert any(other == name or other.endswith(f".{name}") for other in left)
    assert ("blocks.0.expand" in left) == (
        "expand" in skip
    ) and "position_embedding" not in left  # the list given is the whole list


@everywhere
def test_buffers_take_the_bytes_that_the_formula_says(model, scheme):
    few = small(model, scheme)
    for name in quantized_schemes(few):
        layer = few.get_submodule(name)
        expected = formats.weight_bytes(*layer.quantized_weight.shape, scheme)
        assert sum(buffer.nbytes for buffer in layer.buffers()) == expected


def test_what_cannot_be_quantized_is_refused_and_left_alone(model):
    with pytest.raises(ValueError, match="int3.*int8, nf4, nf4-double"):
        small(model, "int3")
    with pytest.raises(ValueError, match=r"already \(token_embedding in nf4\)"):
        quantize(small(model, "nf4"), "int8")
    with pytest.raises(ValueError, match="4,096"):
        quantize(nn.Linear(8, 8), "int8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@everywhere
def test_weights_that_are_not_finite_are_refused_by_name(model, scheme, bad):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.blocks[1].expand.weight[5, 3] = bad
    with pytest.raises(ValueError, match=rf"blocks\.1\.expand has the weight {bad} at \[5, 3\]"):
        quantize(broken, scheme)
    assert quantized_schemes(broken) == {} and isinstance(broken.token_embedding, nn.Embedding)


@everywhere
def test_a_quantized_model_moves_to_another_type(model, scheme):
    few = small(model, scheme).bfloat16()
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert few(tokens).dtype == torch.bfloat16
        assert torch.equal(few(tokens)[0, -3:].argmax(-1), model(tokens)[0, -3:].argmax(-1))


@everywhere
def test_what_stands_before_a_quantized_layer_learns_through_it(model, scheme):
    few = small(model, scheme)
    tokens = torch.arange(33)[None]
    few.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in few.parameters())


# On disk


@everywhere
def test_a_saved_model_comes_back_to_the_bit(model, scheme, tmp_path):
    few = small(model, scheme)
    path = checkpoints.save_gpt(few, tmp_path)
    again = checkpoints.load_gpt(tmp_path)
    assert again.config == few.config and not again.training and quantized_schemes(again) == quantized_schemes(few)
    states = few.state_dict(), again.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(
        torch.equal(tensor, states[1][name]) and tensor.dtype == states[1][name].dtype
        for name, tensor in states[0].items()
    )
    assert generate(again, [[5, 6]], 8) == generate(few, [[5, 6]], 8)
    assert sorted(each.name for each in tmp_path.iterdir()) == [storage.MANIFEST, path.name]
    assert all(parameter.requires_grad for parameter in again.parameters())


@everywhere
def test_the_file_is_as_large_as_the_arithmetic_says(model, scheme, tmp_path):
    few = small(model, scheme)
    path = checkpoints.save_gpt(few, tmp_path)
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    layers = [few.get_submodule(name).quantized_weight.shape for name in quantized_schemes(few)]
    codes = sum(formats.weight_bytes(*shape, scheme) for shape in layers)
    rest = sum(4 * parameter.numel() for parameter in few.parameters())
    assert path.stat().st_size - header == codes + rest


class LargestFloat(TorchDispatchMode):
    """Notes the most numbers in one floating-point tensor that an operation makes in memory."""

    most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if isinstance(made, torch.Tensor) and made.is_floating_point() and made.device.type != "meta":
            self.most = max(self.most, made.numel())
        return made


@everywhere
def test_loading_never_makes_the_float_weights(model, scheme, tmp_path):
    checkpoints.save_gpt(small(model, scheme), tmp_path)
    with LargestFloat() as noted:
        again = checkpoints.load_gpt(tmp_path)
    assert noted.most <= SHAPE.context * SHAPE.width < SHAPE.width * 4 * SHAPE.width  # the positions; a matrix
    with LargestFloat() as noted:
        again.token_embedding.weight  # noqa: B018
    assert noted.most == SHAPE.vocabulary * SHAPE.width  # what it would have noted


def test_a_write_that_fails_leaves_the_model_that_was_there(model, tmp_path, monkeypatch):
    path = checkpoints.save_gpt(model, tmp_path)
    before = path.read_bytes()

    def full(*given):
        raise OSError("no space left on device")

    monkeypatch.setattr(storage, "force_to_disk", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save_gpt(small(model, "nf4"), tmp_path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == [storage.MANIFEST, path.name]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("not JSON", "does not hold a GPT"),
        ('["token_embedding"]', "does not hold a GPT"),
        ('{"blocks.7.expand": "int8"}', "blocks.7.expand"),
        ('{"norm": "int8"}', "norm"),
        ('{"token_embedding": "int3"}', "int3"),
        ('{"token_embedding": ["int8"]}', "does not hold a GPT"),
        ("{}", "another model"),
        ('{"token_embedding": "nf4"}', "another model"),
    ],
)
def test_a_header_that_says_something_else_is_an_error_that_names_the_file(model, tmp_path, header, words):
    path = checkpoints.save_gpt(small(model, "int8"), tmp_path)
    with safe_open(path, framework="pt") as file:
        config = file.metadata()["config"]
    save_file(load_file(path), path, {"config": config, "quantized": header})
    storage.seal(tmp_path, checkpoints.GPT_KIND, {})
    with pytest.raises(ValueError, match=f"{tmp_path}.*{words}"):
        checkpoints.load_gpt(tmp_path)


def test_codes_of_another_type_are_refused(model, tmp_path):
    path = checkpoints.save_gpt(small(model, "int8"), tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    name = "blocks.0.expand.quantized_weight.codes"
    weights[name] = weights[name].view(torch.uint8)
    save_file(weights, path, metadata)
    storage.seal(tmp_path, checkpoints.GPT_KIND, {})
    with pytest.raises(ValueError, match=f"{re.escape(name)} is .*uint8 in the file, .*int8 in the model"):
        checkpoints.load_gpt(tmp_path)


def test_a_truncated_file_is_named(model, tmp_path):
    path = checkpoints.save_gpt(small(model, "nf4-double"), tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(storage.Damaged, match=f"{path} is missing, or does not have the checksum"):
        checkpoints.load_gpt(tmp_path)


def test_models_that_are_not_quantized_load_as_ever(model, tmp_path):
    path = checkpoints.save_gpt(model, tmp_path)
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"config"} and json.loads(file.metadata()["config"])["width"] == 64
    again = checkpoints.load_gpt(tmp_path)
    path.write_bytes(b"")  # nothing of the model is still in the file
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


@everywhere
def test_a_quantized_model_can_be_a_checkpoint_of_its_run(model, scheme, tmp_path):
    few = small(model, scheme)
    path = checkpoints.save_checkpoint(tmp_path, checkpoints.RunState(3, []), few)
    other = prepare_quantized(GPT(SHAPE, seed=1), quantized_schemes(few))
    assert checkpoints.resume_checkpoint(tmp_path, other).step == 3
    assert all(torch.equal(tensor, few.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert quantized_schemes(checkpoints.load_gpt(path)) == quantized_schemes(few)


# Baskets

NAMES = {f"{20001 + n}": f"{colour} {thing}" for n, (colour, thing) in enumerate(
    (colour, thing) for colour in ("RED", "BLUE", "GREEN", "WHITE") for thing in ("MUG", "PLATE", "BOWL", "LAMP")
)}  # fmt: skip


def receipts() -> pd.DataFrame:
    """Sixty shoppers who come every two weeks or so for two of four favourites."""
    rng, rows = np.random.default_rng(0), []
    for shopper in range(60):
        day, favourites = rng.uniform(0, 20), rng.choice(16, 4, replace=False)
        while day < 150:
            date = (pd.Timestamp("2011-01-01") + pd.Timedelta(days=day)).floor("min")
            codes = [list(NAMES)[n] for n in rng.choice(favourites, 2, replace=False)]
            rows += [(shopper, f"{shopper}-{day:.3f}", code, NAMES[code], date) for code in codes]
            day += rng.uniform(8, 20)
    table = pd.DataFrame(rows, columns=["customer", "invoice", "code", "description", "date"])
    return table.sort_values("date", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def baskets_gpt() -> BasketGPT:
    def encode(texts):
        return np.random.default_rng(0).standard_normal((len(texts), 80)).astype(np.float32)

    settings = BasketGPTConfig(context=64, layers=1, epochs=2, start=30, min_shoppers=3, nearest=8, solved=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basket_model, "encode", encode)
        return BasketGPT.fit(receipts(), settings, progress=False)


@everywhere
def test_a_basket_gpt_is_saved_quantized_and_recommends_the_same(baskets_gpt, scheme, tmp_path):
    few = copy.deepcopy(baskets_gpt)
    quantize(few.network, scheme)
    history = [list(NAMES)[:3], list(NAMES)[2:5]]
    few.save(tmp_path)
    again = BasketGPT.load(tmp_path)
    assert quantized_schemes(again.network) == quantized_schemes(few.network) != {}
    pd.testing.assert_frame_equal(again.recommend(history), few.recommend(history))
    names, shares = again.attention(history)
    assert np.allclose(shares.sum(-1), 1, atol=1e-5) and len(names) == shares.shape[-1]
    exact, near = (each.recommend(history, k=16).set_index("code")["score"] for each in (baskets_gpt, few))
    assert np.corrcoef(np.log(exact), np.log(near.reindex(exact.index)))[0, 1] > (0.999 if scheme == "int8" else 0.9)


def test_a_basket_gpt_whose_schemes_are_wrong_is_refused(baskets_gpt, tmp_path):
    baskets_gpt.save(tmp_path)
    config = json.loads((tmp_path / BASKET_GPT_CONFIG).read_text())
    (tmp_path / BASKET_GPT_CONFIG).write_text(json.dumps(config | {"quantized": {"gpt.nothing": "int8"}}))
    storage.seal(tmp_path, BASKET_GPT_KIND, {})
    with pytest.raises(ValueError, match="gpt.nothing"):
        BasketGPT.load(tmp_path)
    del config["quantized"]  # as before there were any
    (tmp_path / BASKET_GPT_CONFIG).write_text(json.dumps(config))
    storage.seal(tmp_path, BASKET_GPT_KIND, {})
    assert quantized_schemes(BasketGPT.load(tmp_path).network) == {}


def test_validation_loss_reads_a_quantized_model(model):
    class Blocks:
        def blocks(self, size):
            tokens = torch.arange(33)[None]
            yield tokens[:, :-1], tokens[:, 1:]

    losses = [validation_loss(each, Blocks())["validation_loss"] for each in (model, small(model, "int8"))]
    assert abs(losses[0] - losses[1]) < 0.02
