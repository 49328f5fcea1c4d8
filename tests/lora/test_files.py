"""files: adapters that come back exactly, that peft reads; wrong bases, other kinds and damage are refused by name."""

import copy
import json
import pickle
import resource

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file
from torch import nn

from recbook import storage
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.lora.files import ADAPTER_CONFIG, ADAPTER_KIND, ADAPTER_WEIGHTS, load_adapter, save_adapter
from recbook.lora.layers import (
    LoRAConfig,
    adapted_layers,
    adapter_parameters,
    add_adapter,
    merge_adapter,
    trained_parameters,
    unmerge_adapter,
    use_adapter,
)
from recbook.quantization.layers import quantize

SHAPE = GPTConfig(vocabulary=61, context=24, layers=2, heads=4, width=32)
SMALL = LoRAConfig(rank=3, alpha=7.5, dropout=0.25, targets=("query_key_value", "contract"))
TOKENS = torch.randint(0, SHAPE.vocabulary, (3, 20), generator=torch.Generator().manual_seed(5))
CLOSE = dict(rtol=0, atol=1e-5)
EFFECT = 1e-2


pytestmark = pytest.mark.usefixtures("one_thread")


def a_gpt(seed: int = 0) -> GPT:
    """With weights large enough that every part matters."""
    model, generator = GPT(SHAPE, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def filled(model: nn.Module, name: str = "default", settings: LoRAConfig = SMALL, seed: int = 0) -> nn.Module:
    """With an adapter that changes something: B is not zero."""
    add_adapter(model, name, settings, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    with torch.no_grad():
        for layer in adapted_layers(model).values():
            if name in layer.settings:
                layer.B[name].copy_(0.3 * torch.randn(layer.B[name].shape, generator=generator))
    return model


def out(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS)


def differs(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a - b).abs().max().item() > EFFECT


@pytest.fixture
def folder(tmp_path):
    """One with an adapter of ours in it."""
    save_adapter(filled(a_gpt()), "default", tmp_path / "adapter")
    return tmp_path / "adapter"


def rewrite(folder, **changes) -> None:
    """Change entries of the adapter's configuration."""
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    if (folder / storage.MANIFEST).exists():
        reseal(folder)


def reseal(folder) -> None:
    """Give a folder of ours a manifest of what is in it now."""
    storage.seal(folder, ADAPTER_KIND, {})


# Round trips


def test_what_is_saved_comes_back_exactly(folder):
    model, saved = load_adapter(a_gpt(), folder), filled(a_gpt())
    assert torch.equal(out(model), out(saved)) and differs(out(model), out(a_gpt()))
    ours, theirs = adapted_layers(model), adapted_layers(saved)
    assert ours.keys() == theirs.keys()
    for place, layer in ours.items():
        assert torch.equal(layer.A["default"], theirs[place].A["default"])
        assert torch.equal(layer.B["default"], theirs[place].B["default"])
        loaded = layer.settings["default"]
        assert (loaded.rank, loaded.alpha, loaded.dropout) == (SMALL.rank, SMALL.alpha, SMALL.dropout)
        assert set(loaded.targets) == set(SMALL.targets)


def test_one_of_several_is_saved_alone_and_loads_beside_others(tmp_path):
    model = filled(filled(a_gpt(), "one"), "two", LoRAConfig(rank=2, targets=("expand",)), seed=3)
    two = out(model)
    use_adapter(model, "one")
    path = save_adapter(model, "two", tmp_path)
    assert path == tmp_path / ADAPTER_WEIGHTS
    assert {name.split(".")[-3] for name in load_file(path)} == {"expand"}
    other = load_adapter(filled(a_gpt(), "mine", seed=8), tmp_path, "yours")
    assert torch.equal(out(other), two)
    use_adapter(other, "mine")
    assert torch.equal(out(other), out(filled(a_gpt(), "mine", seed=8)))


def test_an_adapter_that_is_loaded_can_be_trained_on(folder):
    model = load_adapter(a_gpt(), folder)
    assert trained_parameters(model) == adapter_parameters(model, SMALL)


def test_a_file_holds_the_adapter_and_nothing_of_the_base(folder):
    size = (folder / ADAPTER_WEIGHTS).stat().st_size
    numbers = adapter_parameters(a_gpt(), SMALL)
    assert 4 * numbers < size < 4 * numbers + 2000 < 4 * SHAPE.parameters


# peft


def test_ours_loads_in_peft(folder):
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(a_gpt(), folder).eval()
    torch.testing.assert_close(out(theirs), out(filled(a_gpt())), **CLOSE)
    assert differs(out(theirs), out(a_gpt()))


def pefts(folder, **options):
    """peft's model of our GPT with an adapter that changes something, saved in the folder."""
    peft = pytest.importorskip("peft")
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["output", "expand"], "lora_dropout": 0.1} | options
    theirs = peft.get_peft_model(a_gpt(), peft.LoraConfig(**options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("targets", [["output", "expand"], r".*\.(output|expand)"], ids=["names", "pattern"])
def test_pefts_loads_here_if_its_base_is_taken_on_trust(tmp_path, targets):
    theirs = pefts(tmp_path, target_modules=targets)
    with pytest.raises(ValueError, match="does not say which base .* any_base=True"):
        load_adapter(a_gpt(), tmp_path)
    ours = load_adapter(a_gpt(), tmp_path, any_base=True)
    torch.testing.assert_close(out(ours), out(theirs), **CLOSE)
    assert differs(out(ours), out(a_gpt()))


@pytest.mark.parametrize(
    "options",
    [
        {"use_rslora": True},
        {"bias": "all"},
        {"use_dora": True},
        {"lora_bias": True},
        {"rank_pattern": {"expand": 2}},
        {"alpha_pattern": {"expand": 2}},
        {"layers_to_transform": [0], "layers_pattern": "blocks"},
        {"modules_to_save": ["norm"]},
        {"init_lora_weights": "pissa"},
    ],
    ids=lambda options: next(iter(options)),
)
@pytest.mark.filterwarnings("ignore")  # peft has doubts about some of these itself
def test_other_kinds_of_peft_are_refused_by_name(tmp_path, options):
    pefts(tmp_path, **options)
    with pytest.raises(ValueError, match=f"only plain LoRA .* {next(iter(options))}="):
        load_adapter(a_gpt(), tmp_path, any_base=True)


def test_another_method_is_refused_by_name(folder):
    rewrite(folder, peft_type="IA3")
    with pytest.raises(ValueError, match="peft_type='IA3'"):
        load_adapter(a_gpt(), folder)


def test_an_entry_that_is_not_set_is_no_other_kind(folder):
    rewrite(folder, use_rslora=None, use_dora=False, modules_to_save=None, rank_pattern={})
    load_adapter(a_gpt(), folder)


# Bases


def test_a_wrong_base_is_refused_and_stays_as_it_was(folder):
    wrong = a_gpt(seed=1)
    before = out(wrong)
    with pytest.raises(ValueError, match="belongs to another base"):
        load_adapter(wrong, folder)
    assert not adapted_layers(wrong) and torch.equal(out(wrong), before)
    assert adapted_layers(load_adapter(wrong, folder, any_base=True))


def test_a_quantized_base_is_another_one_unless_you_say_so(folder, tmp_path):
    def base():
        return quantize(a_gpt(), "nf4")

    with pytest.raises(ValueError, match="another base"):
        load_adapter(base(), folder)
    model = load_adapter(base(), folder, any_base=True)
    save_adapter(model, "default", tmp_path / "quantized")
    assert torch.equal(out(load_adapter(base(), tmp_path / "quantized")), out(model))


def test_a_base_with_adapters_on_it_is_the_same_base(folder):
    load_adapter(filled(a_gpt(), "another"), folder)


def test_what_was_merged_and_unmerged_is_the_same_base(tmp_path):
    model = filled(a_gpt())
    merge_adapter(model, "default")
    with pytest.raises(ValueError, match="merged"):
        save_adapter(model, "default", tmp_path)
    unmerge_adapter(model)
    save_adapter(model, "default", tmp_path)
    assert torch.equal(out(load_adapter(a_gpt(), tmp_path)), out(model))


def test_while_one_is_merged_none_is_loaded(folder):
    model = filled(a_gpt(), "terse")
    merge_adapter(model, "terse")
    with pytest.raises(ValueError, match="'terse' is merged"):
        load_adapter(model, folder)


def test_names_that_are_taken_or_unknown(folder, tmp_path):
    with pytest.raises(ValueError, match="'default' already"):
        load_adapter(filled(a_gpt()), folder)
    with pytest.raises(ValueError, match="no adapter 'warm'"):
        save_adapter(a_gpt(), "warm", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_another_shape_is_refused_and_its_first_matrix_named(folder):
    wide = GPT(GPTConfig(vocabulary=61, context=24, layers=2, heads=4, width=48), seed=0)
    with pytest.raises(ValueError, match=r"blocks.0.*lora_A.weight is \(3, 32\) in the file, \(3, 48\) in the model"):
        load_adapter(wide, folder, any_base=True)
    deep = GPT(GPTConfig(vocabulary=61, context=24, layers=3, heads=4, width=32), seed=0)
    with pytest.raises(ValueError, match="blocks.2.* is not there in the file"):
        load_adapter(deep, folder, any_base=True)
    assert not adapted_layers(wide) and not adapted_layers(deep)


# Damage


@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, ADAPTER_CONFIG])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(storage.Damaged, match=f"{name} is missing"):
        load_adapter(a_gpt(), folder)
    (folder / storage.MANIFEST).unlink()  # as peft writes them
    with pytest.raises(FileNotFoundError, match=f"no file .*{name}.*save_adapter"):
        load_adapter(a_gpt(), folder)


def test_one_of_ours_needs_its_manifest(folder):
    (folder / storage.MANIFEST).unlink()
    with pytest.raises(storage.Damaged, match="its manifest is missing"):
        load_adapter(a_gpt(), folder)


def test_every_flipped_bit_is_noticed(folder):
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in range(0, len(whole), len(whole) // 60 or 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
            with pytest.raises(ValueError, match="adapter"):
                load_adapter(a_gpt(), folder)
        path.write_bytes(whole)
    load_adapter(a_gpt(), folder)


class Trap:
    """What is loaded by unpickling has already run."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize("content", [b"", b"\0" * 100, pickle.dumps(Trap())], ids=["empty", "zeros", "a pickle"])
@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, ADAPTER_CONFIG])
def test_a_file_that_is_none_is_refused(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(storage.Damaged, match=name):
        load_adapter(a_gpt(), folder)
    reseal(folder)
    with pytest.raises(ValueError, match="does not hold an adapter"):
        load_adapter(a_gpt(), folder)


def test_a_file_that_is_cut_off_anywhere_is_refused(folder):
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        whole = (folder / name).read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            (folder / name).write_bytes(whole[:length])
            reseal(folder)
            with pytest.raises(ValueError, match="does not hold an adapter"):
                load_adapter(a_gpt(), folder)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("about", ["[]", "3", "{}", '{"r": "four"}', '{"r": 0, "lora_alpha": 1, "lora_dropout": 0}'])
def test_a_configuration_that_says_something_else_is_refused(folder, about):
    (folder / ADAPTER_CONFIG).write_text(about)
    reseal(folder)
    with pytest.raises(ValueError, match="does not hold an adapter"):
        load_adapter(a_gpt(), folder)


def test_matrices_that_are_missing_or_strange_are_named(folder):
    path = folder / ADAPTER_WEIGHTS
    tensors = load_file(path)
    name = sorted(tensors)[0]
    for strange, message in [
        ({"x": torch.zeros(1)}, "does not hold an adapter"),
        ({key: tensor for key, tensor in tensors.items() if key != name}, f"{name} is not there in the file"),
        (tensors | {f"{name}.more": torch.zeros(1)}, "does not fit"),
    ]:
        save_file(strange, path)
        reseal(folder)
        with pytest.raises(ValueError, match=message):
            load_adapter(a_gpt(), folder, any_base=True)


def test_a_writing_that_fails_leaves_what_was_there(folder, tmp_path):
    """The disk is full after some bytes: no file may be longer."""
    expected, before = out(load_adapter(a_gpt(), folder)), {p.name: p.read_bytes() for p in folder.iterdir()}
    another = filled(a_gpt(), settings=LoRAConfig(rank=1, alpha=99.0), seed=5)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, usual[1]))
    try:
        for place in (folder, tmp_path / "new"):
            with pytest.raises(OSError):
                save_adapter(another, "default", place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert torch.equal(out(load_adapter(a_gpt(), folder)), expected)


def test_saving_over_another_replaces_it_whole(folder):
    another = filled(a_gpt(), settings=LoRAConfig(rank=1, alpha=99.0, targets=("output",)), seed=5)
    save_adapter(another, "default", folder)
    assert torch.equal(out(load_adapter(a_gpt(), folder)), out(another))
    assert {path.name for path in folder.iterdir()} == {ADAPTER_WEIGHTS, ADAPTER_CONFIG, storage.MANIFEST}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt: name another folder"):
        save_adapter(another, "default", folder)


def test_saving_changes_nothing(tmp_path):
    model = filled(a_gpt())
    before = copy.deepcopy(model.state_dict())
    save_adapter(model, "default", tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert trained_parameters(model) == adapter_parameters(model, SMALL)
