"""layers: against peft with the same A and B, numpy, ranks and counts by hand; what is trained, what is unmerged."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn

from recbook.generation import sampling
from recbook.generation.generate import generate
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.lora.layers import (
    LoRAConfig,
    LoRALinear,
    adapted_layers,
    adapter_parameters,
    add_adapter,
    base_fingerprint,
    merge_adapter,
    merge_and_unload,
    trained_parameters,
    unmerge_adapter,
    use_adapter,
)
from recbook.quantization.layers import QuantizedLinear, quantize
from recbook.quantization.weights import WEIGHT_CLASSES
from recbook.training import checkpoints
from recbook.training.config import TrainingConfig
from recbook.training.loop import train

SHAPE = GPTConfig(vocabulary=61, context=24, layers=2, heads=4, width=32)
SMALL = LoRAConfig(rank=3, alpha=6.0)
CLOSE = dict(rtol=0, atol=1e-5)
EFFECT = 1e-2  # what an adapter changes is larger than this, a thousand times the tolerance


pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def lively(model: nn.Module) -> nn.Module:
    """With weights large enough that every part matters, biases and norms too."""
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            parameter += 0.2 * drawn(*parameter.shape, seed=place)
    return model.eval()


def a_gpt() -> GPT:
    return lively(GPT(SHAPE, seed=0))


def a_sequence() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(10, 7, bias=False), nn.Tanh())
        return lively(nn.Sequential(nn.Linear(6, 10), nn.ReLU(), inner, nn.Linear(7, 4)))


def filled(model: nn.Module, name: str = "default", settings: LoRAConfig = SMALL, seed: int = 0) -> nn.Module:
    """With an adapter that changes something: B is not zero."""
    add_adapter(model, name, settings, seed)
    with torch.no_grad():
        for place, layer in enumerate(adapted_layers(model).values()):
            if name in layer.settings:
                layer.B[name].copy_(0.3 * drawn(*layer.B[name].shape, seed=100 + seed + place))
    return model


TOKENS = torch.randint(0, SHAPE.vocabulary, (3, 20), generator=torch.Generator().manual_seed(5))
CASES = {
    "gpt": (a_gpt, TOKENS, SMALL),
    "one kind of layer": (a_gpt, TOKENS, LoRAConfig(rank=5, alpha=2.5, targets=("query_key_value",))),
    "sequence": (a_sequence, drawn(5, 6, seed=9), LoRAConfig(rank=2, alpha=3.0, targets=("0", "3"))),
}
everywhere = pytest.mark.parametrize("case", CASES)


def out(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def differs(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a - b).abs().max().item() > EFFECT


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


# Against peft


def theirs(plain: nn.Module, ours: nn.Module, names: list[str]):
    """peft's model of the same base with the adapters that `ours` has, A and B copied."""
    peft = pytest.importorskip("peft")
    model = None
    for name in names:
        places = {place: layer for place, layer in adapted_layers(ours).items() if name in layer.settings}
        settings = next(iter(places.values())).settings[name]
        config = peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.targets), bias="none"
        )
        if model is None:
            model = peft.get_peft_model(copy.deepcopy(plain), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        adapted = {place for place, module in model.base_model.model.named_modules() if name in _names(module)}
        assert adapted == set(places)
        with torch.no_grad():
            for place, layer in places.items():
                their_layer = model.base_model.model.get_submodule(place)
                their_layer.lora_A[name].weight.copy_(layer.A[name])
                their_layer.lora_B[name].weight.copy_(layer.B[name])
    return model.eval()


def _names(module: nn.Module) -> list[str]:
    return list(getattr(module, "lora_A", {}))


@everywhere
def test_the_same_matrices_give_what_peft_gives(case):
    make, x, settings = CASES[case]
    ours = filled(make(), settings=settings)
    expected = out(theirs(make(), ours, ["default"]), x)
    torch.testing.assert_close(out(ours, x), expected, **CLOSE)
    assert differs(expected, out(make(), x))


def test_several_adapters_switched_give_what_peft_gives():
    ours = filled(filled(a_gpt(), "one"), "two", LoRAConfig(rank=4, alpha=2.0, targets=("expand", "contract")), 7)
    peft_model, results = theirs(a_gpt(), ours, ["one", "two"]), []
    for name in ["one", "two", "one"]:
        use_adapter(ours, name)
        peft_model.set_adapter(name)
        results.append(out(ours, TOKENS))
        torch.testing.assert_close(results[-1], out(peft_model, TOKENS), **CLOSE)
    assert torch.equal(results[0], results[2]) and differs(results[0], results[1])


def test_merged_weights_are_those_that_peft_merges():
    ours = filled(a_gpt())
    merged = theirs(a_gpt(), ours, ["default"]).merge_and_unload()
    merge_adapter(ours, "default")
    for place, layer in adapted_layers(ours).items():
        torch.testing.assert_close(layer.base.weight, merged.get_submodule(place).weight, **CLOSE)
    unmerge_adapter(ours)
    unloaded = state(merge_and_unload(ours, "default"))
    assert unloaded.keys() == state(merged).keys()
    for name, tensor in state(merged).items():
        torch.testing.assert_close(unloaded[name], tensor, **CLOSE)


# What an adapter adds


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_a_layer_by_hand(shape):
    model = nn.Sequential(lively(nn.Linear(*shape)))
    filled(model, settings=LoRAConfig(rank=2, alpha=5.0, targets=("0",)))
    layer, x = model[0], drawn(3, shape[0], seed=3)
    W, b = layer.base.weight.detach().double().numpy(), layer.base.bias.detach().double().numpy()
    A, B = layer.A["default"].detach().double().numpy(), layer.B["default"].detach().double().numpy()
    expected = x.double().numpy() @ (W + 2.5 * B @ A).T + b
    np.testing.assert_allclose(out(model, x).numpy(), expected, rtol=0, atol=1e-5)


@everywhere
def test_a_new_adapter_changes_nothing_and_one_that_learned_does(case):
    make, x, settings = CASES[case]
    assert torch.equal(out(add_adapter(make(), settings=settings), x), out(make(), x))
    assert differs(out(filled(make(), settings=settings), x), out(make(), x))


def test_a_change_has_the_rank_that_was_asked_for():
    for layer in adapted_layers(filled(a_gpt())).values():
        delta = layer.delta("default").detach().numpy()
        assert delta.shape == (layer.out_features, layer.in_features)
        assert np.linalg.matrix_rank(delta, tol=1e-4) == SMALL.rank < min(delta.shape)


def test_new_matrices_are_drawn_as_a_linear_layers_are_and_by_seed():
    first, again, other = (add_adapter(a_gpt(), settings=LoRAConfig(rank=16), seed=seed) for seed in (0, 0, 1))
    for place, layer in adapted_layers(first).items():
        A = layer.A["default"]
        bound = layer.in_features**-0.5
        assert 0.9 * bound < A.abs().max().item() <= bound
        assert A.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert torch.equal(A, adapted_layers(again)[place].A["default"])
        assert not torch.equal(A, adapted_layers(other)[place].A["default"])


def test_half_precision_weights_take_an_adapter():
    model = filled(a_gpt().bfloat16())
    assert out(model, TOKENS).dtype == torch.bfloat16
    full = filled(a_gpt())
    assert (out(model, TOKENS).float() - out(full, TOKENS)).abs().mean() < 0.05 * out(full, TOKENS).abs().mean()


# Counts


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_trained_numbers_are_those_of_the_formula(rank):
    model, settings = a_gpt(), LoRAConfig(rank=rank)
    on_paper = adapter_parameters(model, settings)
    add_adapter(model, settings=settings)
    C = SHAPE.width
    by_hand = SHAPE.layers * rank * ((C + 3 * C) + (C + C) + (C + 4 * C) + (4 * C + C))
    assert trained_parameters(model) == on_paper == by_hand == adapter_parameters(model, settings)
    add_adapter(model, "second", settings)
    assert trained_parameters(model) == by_hand  # the first rests
    use_adapter(model, None)
    assert trained_parameters(model) == 0


def test_trained_numbers_of_some_layers():
    settings = LoRAConfig(rank=2, targets=("0", "3"))
    model = add_adapter(a_sequence(), settings=settings)  # 6 -> 10, 10 -> 7 and 7 -> 4
    assert trained_parameters(model) == adapter_parameters(a_sequence(), settings) == 2 * (16 + 17 + 11)


# Training


def test_only_the_adapter_in_use_receives_a_gradient():
    model = filled(filled(a_gpt(), "resting"), "used", seed=3)
    model.loss(TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    expected = {f"{place}.{letter}.used" for place in adapted_layers(model) for letter in "AB"}
    assert got == expected
    assert all(model.get_parameter(name).grad.abs().max() > 0 for name in expected)


class Batches:
    """The same few texts at every step."""

    def batch(self, step, size, seed):
        return TOKENS[:size, :-1], TOKENS[:size, 1:]


def test_training_changes_the_adapter_in_use_alone_and_learns():
    model = filled(add_adapter(a_gpt(), "resting", SMALL), "used", seed=3)
    use_adapter(model, "used")
    before = state(model)
    settings = TrainingConfig(steps=8, batch=3, learning_rate=1e-2, warmup=1, evaluate_every=1, precision="float32")
    metrics = train(model, Batches(), settings, progress=False)
    assert changed(before, model) == {f"{place}.{letter}.used" for place in adapted_layers(model) for letter in "AB"}
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.05
    use_adapter(model, None)
    torch.testing.assert_close(out(model.eval(), TOKENS), out(a_gpt(), TOKENS))


def test_dropout_acts_in_training_and_on_the_adapter_alone():
    wet, dry = (filled(a_gpt(), settings=LoRAConfig(rank=3, alpha=6.0, dropout=p)) for p in (0.5, 0.0))
    assert torch.equal(out(wet, TOKENS), out(dry, TOKENS))
    assert torch.equal(out(wet, TOKENS), out(wet, TOKENS))
    wet.train()
    torch.manual_seed(0)
    first = out(wet, TOKENS)
    assert differs(first, out(wet, TOKENS)) and differs(first, out(dry, TOKENS))
    use_adapter(wet, None)
    assert torch.equal(out(wet, TOKENS), out(a_gpt(), TOKENS))


@pytest.mark.parametrize("learning", [True, False])
def test_an_adapted_layer_is_in_the_mode_of_the_one_it_wraps(learning):
    model = add_adapter(a_gpt().train(learning), settings=LoRAConfig(dropout=0.5))
    assert {module.training for module in model.modules()} == {learning}


def test_dropped_inputs_are_made_up_for():
    """The mean over many drops is what comes without dropout: what is kept is scaled up."""
    model = nn.Sequential(lively(nn.Linear(8, 5)))
    filled(model, settings=LoRAConfig(rank=2, alpha=4.0, dropout=0.25, targets=("0",)))
    x = drawn(1, 8, seed=3)
    dry = out(model, x)
    torch.manual_seed(0)
    wet = out(model.train(), x.expand(40_000, 8))
    assert (wet.mean(0) - dry).abs().max() < 0.05 < (out(a_base(model), x) - dry).abs().max()


def a_base(model: nn.Module) -> nn.Module:
    plain = copy.deepcopy(model)
    use_adapter(plain, None)
    return plain


# Merged, switched


@everywhere
def test_merged_is_adapted_and_unmerged_is_as_before(case):
    make, x, settings = CASES[case]
    model = filled(make(), settings=settings)
    adapted, before = out(model, x), state(model)
    merge_adapter(model, "default")
    torch.testing.assert_close(out(model, x), adapted, **CLOSE)
    assert differs(out(model, x), out(make(), x))
    assert all(
        differs(layer.base.weight, before[f"{place}.base.weight"]) for place, layer in adapted_layers(model).items()
    )
    unmerge_adapter(model)
    assert changed(before, model) == set()
    assert torch.equal(out(model, x), adapted)


def test_unmerged_is_in_use_whatever_was_before():
    model = filled(filled(a_gpt(), "one"), "two", seed=3)
    two = out(model, TOKENS)
    use_adapter(model, "one")
    merge_adapter(model, "two")
    torch.testing.assert_close(out(model, TOKENS), two, **CLOSE)
    unmerge_adapter(model)
    assert torch.equal(out(model, TOKENS), two)
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {"two"}


def test_merging_leaves_layers_that_the_adapter_does_not_have():
    model = filled(filled(a_gpt(), "all"), "some", LoRAConfig(rank=2, targets=("expand",)), seed=3)
    some, before = out(model, TOKENS), state(model)
    use_adapter(model, "all")  # and it acts no more, where the other one has no part either
    merge_adapter(model, "some")
    assert changed(before, model) == {f"blocks.{block}.expand.base.weight" for block in range(SHAPE.layers)}
    torch.testing.assert_close(out(model, TOKENS), some, **CLOSE)


def test_none_in_use_is_the_plain_model_and_nothing_moves():
    model = filled(a_gpt())
    before = state(model)
    use_adapter(model, None)
    assert torch.equal(out(model, TOKENS), out(a_gpt(), TOKENS))
    assert changed(before, model) == set()


# Merged for good


def linear(model: nn.Module) -> dict[str, type]:
    return {name: type(module) for name, module in model.named_modules() if hasattr(module, "in_features")}


@everywhere
def test_merged_for_good_is_a_plain_model_with_the_same_outputs(case):
    make, x, settings = CASES[case]
    model, plain = filled(make(), settings=settings), make()
    adapted = out(model, x)
    assert merge_and_unload(model, "default") is model
    torch.testing.assert_close(out(model, x), adapted, **CLOSE)
    assert differs(out(model, x), out(plain, x))
    assert linear(model) == linear(plain) and set(linear(model).values()) == {nn.Linear}
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert state(model).keys() == state(plain).keys()
    with pytest.raises(ValueError, match="no adapter is merged"):
        unmerge_adapter(model)
    add_adapter(model, "default", settings)  # the name is free again
    torch.testing.assert_close(out(model, x), adapted, **CLOSE)


def test_of_several_adapters_the_one_that_is_named_is_merged_for_good():
    model = filled(filled(a_gpt(), "one"), "some", LoRAConfig(rank=2, targets=("expand",)), seed=3)
    some = out(model, TOKENS)
    use_adapter(model, "one")
    merge_and_unload(model, "some")
    torch.testing.assert_close(out(model, TOKENS), some, **CLOSE)
    expanded = {f"blocks.{block}.expand.weight" for block in range(SHAPE.layers)}
    assert not adapted_layers(model) and changed(state(a_gpt()), model) == expanded


def test_what_is_merged_for_good_is_saved_and_loaded_as_any_model(tmp_path):
    model = filled(a_gpt())
    adapted = out(model, TOKENS)
    checkpoints.save_gpt(merge_and_unload(model, "default"), tmp_path)
    loaded = checkpoints.load_gpt(tmp_path)
    assert changed(state(model), loaded) == set()
    torch.testing.assert_close(out(loaded, TOKENS), adapted, **CLOSE)


def larger() -> GPT:
    """Matrices large enough that they are quantized."""
    return lively(GPT(GPTConfig(vocabulary=130, context=24, layers=1, heads=4, width=64), seed=0))


@pytest.mark.parametrize("scheme", WEIGHT_CLASSES)
def test_what_is_merged_for_good_can_be_quantized(scheme):
    model, by_hand = filled(larger()), larger()
    with torch.no_grad():
        for place, layer in adapted_layers(model).items():
            by_hand.get_submodule(place).weight += layer.delta("default")
    exact = out(model, TOKENS)
    quantize(merge_and_unload(model, "default"), scheme)
    assert set(linear(model).values()) == {QuantizedLinear}
    assert changed(state(quantize(by_hand, scheme)), model) == set()  # the codes are those of the sums
    error = (out(model, TOKENS) - exact).abs().mean()
    assert 0 < error < 0.5 * (exact - out(larger(), TOKENS)).abs().mean()
    with pytest.raises(ValueError, match="it has none"):
        merge_and_unload(model, "default")


@pytest.mark.parametrize("scheme", WEIGHT_CLASSES)
def test_nothing_is_merged_for_good_into_codes(scheme):
    model = filled(quantize(larger(), scheme))
    before, adapted, modules = state(model), out(model, TOKENS), [id(module) for module in model.modules()]
    with pytest.raises(ValueError, match="query_key_value is quantized: merge into the float32 model, and quantize"):
        merge_and_unload(model, "default")
    assert changed(before, model) == set() and [id(module) for module in model.modules()] == modules
    assert torch.equal(out(model, TOKENS), adapted)


# Names and errors


def test_targets_go_by_the_last_part_of_the_name():
    model = add_adapter(a_gpt(), settings=LoRAConfig(targets=("output", "expand")))
    assert set(adapted_layers(model)) == {
        f"blocks.{block}.{name}" for block in range(SHAPE.layers) for name in ("attention.output", "expand")
    }


def test_an_unknown_target_is_refused_with_the_names_that_there_are():
    model = a_gpt()
    modules = [id(module) for module in model.modules()]
    with pytest.raises(ValueError, match="no linear layer is called values; .* contract, expand, output, query_key_"):
        add_adapter(model, settings=LoRAConfig(targets=("values", "expand")))
    with pytest.raises(ValueError, match="this model has contract, expand, output, query_key_value$"):
        add_adapter(filled(a_gpt()), "second", LoRAConfig(targets=("base",)))  # what stands inside is no layer
    assert [id(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["", "a.b", "keys", "train", "training"])
def test_a_name_that_cannot_be_one_is_refused_before_anything_changes(name):
    model = a_gpt()
    with pytest.raises(ValueError, match="cannot be called"):
        add_adapter(model, name)
    assert not adapted_layers(model)


def test_adapters_that_are_not_there_and_those_that_are():
    model = filled(a_gpt(), "terse")
    for act in (use_adapter, merge_adapter, merge_and_unload):
        with pytest.raises(ValueError, match="no adapter 'warm' on this model; it has terse"):
            act(model, "warm")
        with pytest.raises(ValueError, match="it has none"):
            act(a_gpt(), "warm")
    with pytest.raises(ValueError, match="'terse' already"):
        add_adapter(model, "terse")
    with pytest.raises(ValueError, match="no adapter is merged"):
        unmerge_adapter(model)


def test_while_one_is_merged_nothing_else_is_done():
    model = filled(a_gpt(), "terse")
    merge_adapter(model, "terse")
    for act in (use_adapter, merge_adapter, merge_and_unload, add_adapter):
        with pytest.raises(ValueError, match="'terse' .* unmerge"):
            act(model, "other" if act is add_adapter else "terse")


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}, {"targets": ()}], ids=str
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match="rank is at least 1"):
        LoRAConfig(**wrong)


# Fingerprints


def test_a_fingerprint_is_of_the_base_alone():
    plain = base_fingerprint(a_gpt())
    model = filled(filled(a_gpt(), "one"), "two", LoRAConfig(rank=2, targets=("expand",)))
    assert base_fingerprint(model) == plain == base_fingerprint(a_gpt())
    merge_adapter(model, "one")
    assert base_fingerprint(model) != plain
    unmerge_adapter(model)
    assert base_fingerprint(model) == plain  # to the last bit, or what is saved now would fit no other copy


def test_other_weights_names_shapes_or_types_have_other_fingerprints():
    prints = [base_fingerprint(a_gpt()), base_fingerprint(a_gpt().bfloat16())]
    nudged = a_gpt()
    with torch.no_grad():
        nudged.blocks[1].expand.weight[3, 4] += 1e-3
    prints.append(base_fingerprint(nudged))
    flat, square = torch.zeros(1, 4), torch.zeros(2, 2)
    for name, weight in [("a", flat), ("b", flat), ("a", square)]:
        module = nn.Module()
        module.register_parameter(name, nn.Parameter(weight))
        prints.append(base_fingerprint(module))
    assert len(set(prints)) == len(prints)


# With the rest of the package


def test_generation_with_an_adapter_is_that_of_its_merged_weights():
    model, prompts = filled(a_gpt()), [[3, 4, 5], [7]]
    merged = a_gpt()
    with torch.no_grad():
        for place, layer in adapted_layers(model).items():
            merged.get_submodule(place).weight += layer.delta("default")
    greedy = sampling.Sampling(temperature=0.0)
    texts = generate(model, prompts, 10, greedy)
    assert texts == generate(merged, prompts, 10, greedy)
    assert texts != generate(a_gpt(), prompts, 10, greedy)


@pytest.mark.parametrize("scheme", WEIGHT_CLASSES)
def test_adapters_on_a_quantized_base(scheme):
    shape = GPTConfig(vocabulary=130, context=24, layers=1, heads=4, width=64)

    def base() -> GPT:
        return quantize(lively(GPT(shape, seed=0)), scheme)

    model = add_adapter(base(), settings=SMALL)
    assert all(isinstance(layer.base, QuantizedLinear) for layer in adapted_layers(model).values())
    assert torch.equal(out(model, TOKENS), out(base(), TOKENS))
    model = filled(base())
    plain = lively(GPT(shape, seed=0))  # in floats: the dequantized weights and what the adapter adds
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                theirs = model.get_submodule(name)
                layer = theirs.base if isinstance(theirs, LoRALinear) else theirs
                module.weight.copy_(layer.weight)
                if isinstance(theirs, LoRALinear):
                    module.weight += theirs.delta("default")
    assert (out(model, TOKENS) - out(plain, TOKENS)).abs().mean() < 0.05 * (
        out(base(), TOKENS) - out(plain, TOKENS)
    ).abs().mean()
    model.loss(TOKENS[:, :-1], TOKENS[:, 1:]).backward()
    got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert got == {f"{place}.{letter}.default" for place in adapted_layers(model) for letter in "AB"}
    before = state(model)
    with pytest.raises(ValueError, match="blocks.0.attention.query_key_value is quantized"):
        merge_adapter(model, "default")
    assert changed(before, model) == set()
    assert base_fingerprint(model) == base_fingerprint(base()) != base_fingerprint(GPT(shape, seed=0))
