"""loop, config, distributed, progress, tracking: against hand-computed steps, limits, and one process or one batch."""

import json
import math
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn
from torch.nn import functional as F

from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.training import checkpoints, progress, tracking
from recbook.training import loop as training_loop
from recbook.training.config import (
    TrainingConfig,
    learning_rate_schedule,
    make_optimizers,
)
from recbook.training.distributed import available_device, has_bfloat16
from recbook.training.loop import TrainingDiverged, count_targets, next_token_loss, train, validation_loss

SHAPE = GPTConfig(vocabulary=32, context=8, layers=2, heads=2, width=8)
QUIET = {"progress": False}


class Rows:
    """Random tokens; of the targets, each row leaves out more than the row before."""

    def __init__(self, uneven: bool = False):
        self.uneven = uneven

    def batch(self, step, size, seed):
        ids = torch.randint(0, 32, (size, 9), generator=torch.Generator().manual_seed(1000 * seed + step))
        tokens, targets = ids[:, :-1], ids[:, 1:].clone()
        if self.uneven:
            targets[torch.arange(8) < torch.arange(size)[:, None]] = -1  # row r has 8 - r targets left, at least none
        return tokens, targets


class FewRows(Rows):
    """Batches of one row to five, so of fewer than there are parts."""

    def batch(self, step, size, seed):
        return super().batch(step, 1 + step % 5, seed)


class Line(nn.Module):
    """One weight and one bias: y = weight x + bias, squared error."""

    def __init__(self, weight: float = 2.0, bias: float = 0.5):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[weight]]))
        self.bias = nn.Parameter(torch.tensor([bias]))


def squared(model: Line, batch) -> torch.Tensor:
    x, y = batch
    return ((x @ model.weight.T + model.bias - y) ** 2).mean()


class Points:
    def __init__(self, x: float, y: float):
        self.x, self.y = torch.tensor([[x]]), torch.tensor([[y]])

    def batch(self, step, size, seed):
        return self.x.expand(size, 1), self.y.expand(size, 1)


def plain_descent(monkeypatch) -> None:
    """SGD in AdamW's place: with a learning rate of 1, a step is minus the gradient."""
    monkeypatch.setattr(training_loop, "make_optimizers", lambda model, _: [torch.optim.SGD(model.parameters(), 1.0)])


pytestmark = pytest.mark.usefixtures("one_thread")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# Learning rate


def test_the_learning_rate_by_hand():
    s = TrainingConfig(steps=12, warmup=4, final=0.1)
    assert [learning_rate_schedule(step, s) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate_schedule(8, s) == pytest.approx(0.1 + 0.9 * 0.5)  # halfway down: cos(90°) = 0
    assert learning_rate_schedule(6, s) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5)))  # a quarter: cos(45°)
    assert learning_rate_schedule(12, s) == learning_rate_schedule(99, s) == pytest.approx(0.1)


@pytest.mark.parametrize("warmup", [0, 1, 7, 50])
def test_the_learning_rate_rises_to_one_then_falls(warmup):
    s = TrainingConfig(steps=50, warmup=warmup, final=0.0)
    shares = np.array([learning_rate_schedule(step, s) for step in range(50)])
    peak = max(warmup - 1, 0)
    assert shares[peak] == 1 and (np.diff(shares[: peak + 1]) > 0).all() and (np.diff(shares[peak:]) <= 0).all()
    assert (shares > 0).all()


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"steps": 0}, {"accumulate": 0}, {"learning_rate": 0.0}, {"clip": -1.0}, {"precision": "float16"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TrainingConfig(**wrong)


# Optimizers


def test_the_first_step_of_adamw_by_hand():
    """Its first step has length `learning_rate` whatever the gradient; only the matrix decays."""
    model = Line(2.0, 0.5)
    s = TrainingConfig(steps=1, batch=1, learning_rate=0.01, warmup=0, weight_decay=0.3, clip=0.0, precision="float32")
    (line,) = train(model, Points(3.0, 1.0), s, loss=squared, **QUIET)
    error = 2 * (2 * 3 + 0.5 - 1)  # d loss / d bias; the weight's is that times x
    assert line["loss"] == pytest.approx(5.5**2) and line["gradient_norm"] == pytest.approx(
        math.hypot(error, 3 * error)
    )
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.01 * 0.3) - 0.01, abs=1e-7)
    assert model.bias.item() == pytest.approx(0.5 - 0.01, abs=1e-7)


def test_two_steps_of_adamw_by_hand():
    model = Line(2.0, 0.5)
    s = TrainingConfig(steps=2, batch=1, learning_rate=0.01, warmup=2, weight_decay=0.0, clip=0.0, precision="float32")
    train(model, Points(0.0, 1.0), s, loss=squared, **QUIET)
    bias, first, second = 0.5, 0.0, 0.0
    for step, rate in ((1, 0.005), (2, 0.01)):
        gradient = 2 * (bias - 1)
        first, second = 0.9 * first + 0.1 * gradient, 0.95 * second + 0.05 * gradient**2
        bias -= rate * first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.95**step)) + 1e-8)
    assert model.bias.item() == pytest.approx(bias, abs=1e-7) and model.weight.item() == 2.0


def test_only_matrices_and_embeddings_decay():
    model = GPT(SHAPE, seed=0)
    (adamw,) = make_optimizers(model, TrainingConfig(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in adamw.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decays.pop(id(parameter)) == (0.0 if "bias" in name or "norm" in name else 0.1), name
    assert not decays


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_takes_the_blocks_matrices_and_turns_them_by_orthogonal_steps():
    model = GPT(SHAPE, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    s = TrainingConfig(steps=1, batch=4, warmup=0, learning_rate=0.01, matrix_learning_rate=0.02, weight_decay=0.0)
    train(model, Rows(), s, **QUIET)
    for name, parameter in model.named_parameters():
        step = parameter.detach() - before[name]
        if "blocks." in name and step.ndim == 2:
            scale = 0.02 * max(1, step.shape[0] / step.shape[1]) ** 0.5
            sizes = torch.linalg.svdvals(step / scale)
            assert 0.6 < sizes.median() and sizes.max() < 1.3, name  # nearly all directions about equally long
        elif "norm" in name:
            assert step.abs().max() == pytest.approx(0.01, rel=0.01)  # AdamW's first step


def test_a_pytorch_without_muon_says_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(RuntimeError, match="torch 2.9 .*matrix_learning_rate=0"):
        make_optimizers(GPT(SHAPE), TrainingConfig(matrix_learning_rate=0.02))


# A step


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2, 4, 5, 12, 17])
def test_parts_that_accumulate_give_the_whole_batch_s_gradient(monkeypatch, accumulate, uneven):
    plain_descent(monkeypatch)
    model, data = GPT(SHAPE, seed=0), Rows(uneven)
    tokens, targets = data.batch(0, 12, 0)
    whole = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(whole, list(model.parameters()))])
    before = weights(model)
    s = TrainingConfig(
        steps=1, batch=12, accumulate=accumulate, learning_rate=1.0, warmup=0, clip=0.0, precision="float32"
    )
    (line,) = train(model, data, s, **QUIET)
    assert line["loss"] == pytest.approx(whole.item(), abs=1e-6)
    torch.testing.assert_close(before - weights(model), gradient, rtol=0, atol=1e-6)


def test_the_mean_of_the_parts_means_would_be_another_loss():
    """The test above can fail: with targets left out unevenly, a plain mean over parts is far off."""
    model, (tokens, targets) = GPT(SHAPE, seed=0), Rows(uneven=True).batch(0, 8, 0)
    halves = [model.loss(t, y).item() for t, y in zip(tokens.chunk(2), targets.chunk(2), strict=True)]
    assert abs(np.mean(halves) - model.loss(tokens, targets).item()) > 1e-3


def test_count_targets():
    ids = torch.tensor([[1, -1], [0, 2]])
    assert count_targets((ids, ids)) == 3
    assert count_targets((ids, torch.tensor([-1.0, 0.5]))) == 2  # a real number may be -1


def test_a_batch_without_targets_is_refused():
    class Empty:
        def batch(self, step, size, seed):
            return torch.zeros(size, 8, dtype=torch.long), torch.full((size, 8), -1)

    with pytest.raises(ValueError, match="nothing to learn"):
        train(GPT(SHAPE), Empty(), TrainingConfig(steps=1, batch=2), **QUIET)


class Joint(nn.Module):
    """A weight that two terms pull at, each by its own weighted mean, of rows of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def loss(self, batch):
        terms = []
        for values, weights in (batch[:2], batch[2:]):
            terms.append((weights * (self.weight - values) ** 2).sum() / weights.sum() if len(values) else values.sum())
        return torch.stack(terms)


class JointRows:
    """Seven rows for the first term and two for the second: there are parts that have none of it."""

    def batch(self, step, size, seed):
        return torch.arange(7.0), torch.arange(1.0, 8.0), torch.tensor([-1.0, 4.0]), torch.tensor([5.0, 1.0])


@pytest.mark.parametrize("accumulate", [1, 2, 5, 9])
def test_each_term_of_a_joint_loss_is_the_mean_of_the_whole_batch(monkeypatch, accumulate):
    plain_descent(monkeypatch)
    model, data = Joint(), JointRows()
    x, w, y, v = data.batch(0, 0, 0)
    expected = (w * (0.5 - x) ** 2).sum() / w.sum() + (v * (0.5 - y) ** 2).sum() / v.sum()
    slope = 2 * ((w * (0.5 - x)).sum() / w.sum() + (v * (0.5 - y)).sum() / v.sum())
    s = TrainingConfig(steps=1, accumulate=accumulate, learning_rate=1.0, warmup=0, clip=0.0, precision="float32")
    (line,) = train(
        model, data, s, loss=Joint.loss, weigh=lambda part: (part[1].sum().item(), part[3].sum().item()), **QUIET
    )
    assert line["loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert model.weight.item() == pytest.approx(0.5 - slope.item(), rel=1e-5)


@pytest.mark.parametrize(("clip", "length"), [(0.0, None), (1e9, None), (0.25, 0.25)])
def test_clipping_shortens_a_step_and_keeps_its_direction(monkeypatch, clip, length):
    plain_descent(monkeypatch)
    model = GPT(SHAPE, seed=0)
    gradient = torch.cat(
        [p.flatten() for p in torch.autograd.grad(model.loss(*Rows().batch(0, 4, 0)), model.parameters())]
    )
    before = weights(model)
    s = TrainingConfig(steps=1, batch=4, learning_rate=1.0, warmup=0, clip=clip, precision="float32")
    (line,) = train(model, Rows(), s, **QUIET)
    step = before - weights(model)
    assert line["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)  # as it was before
    assert step.norm().item() == pytest.approx(length or gradient.norm().item(), rel=1e-4)
    assert F.cosine_similarity(step, gradient, dim=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("setting", "device_has_it", "expected"), [
    ("auto", True, True), ("auto", False, False), ("bfloat16", False, True), ("float32", True, False),
])  # fmt: skip
def test_precision(monkeypatch, setting, device_has_it, expected):
    monkeypatch.setattr(training_loop, "has_bfloat16", lambda device: device_has_it)
    seen = []

    def loss(model, batch):
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16)
        return model.loss(*batch)

    train(GPT(SHAPE), Rows(), TrainingConfig(steps=1, batch=2, precision=setting), loss=loss, **QUIET)
    assert seen == [expected]


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx512f avx512_bf16", True), ("amx_bf16", True), ("avx2", False)]
)
def test_bfloat16_where_the_processor_lists_it(monkeypatch, flags, expected):
    monkeypatch.setattr(Path, "read_text", lambda self: f"processor : 0\nflags : {flags} fma\n")
    assert has_bfloat16("cpu") is expected
    assert not has_bfloat16("meta")


def test_the_device_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert available_device() == torch.device("cpu") and available_device("meta") == torch.device("meta")
    with pytest.raises(ValueError, match="device='cuda:1': .*no CUDA GPU here; give 'cpu'"):
        available_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert available_device() == torch.device("cuda:0") and available_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "3")  # each process that torchrun starts has a GPU of its own
    assert available_device() == torch.device("cuda:3") and available_device("cuda:1") == torch.device("cuda:1")


def test_compile_compiles_the_loss(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    train(GPT(SHAPE), Rows(), TrainingConfig(steps=1, batch=2, compile=True), **QUIET)
    train(GPT(SHAPE), Rows(), TrainingConfig(steps=1, batch=2), **QUIET)
    assert compiled == [next_token_loss]


def test_the_loss_compiles_in_one_piece_and_is_the_same():
    model, batch = GPT(SHAPE, seed=0), Rows().batch(0, 4, 0)
    gradients = []
    for loss in (
        next_token_loss,
        torch.compile(next_token_loss, backend="aot_eager", fullgraph=True),
    ):
        model.zero_grad()
        loss(model, batch).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


# A run


def test_training_learns_what_there_is_to_learn():
    """Rows that repeat one token: the loss falls from ln(vocabulary) to near nothing."""

    class Repeats:
        def batch(self, step, size, seed):
            ids = torch.randint(0, 32, (size, 1), generator=torch.Generator().manual_seed(step)).expand(size, 8)
            return ids, ids

    s = TrainingConfig(steps=60, batch=16, learning_rate=0.03, warmup=5, evaluate_every=10)
    metrics = train(GPT(SHAPE, seed=0), Repeats(), s, **QUIET)
    assert [line["step"] for line in metrics] == [10, 20, 30, 40, 50, 60]
    assert metrics[0]["loss"] > 2 and metrics[-1]["loss"] < 0.5
    assert metrics[-1]["learning_rate"] == pytest.approx(0.03 * learning_rate_schedule(59, s))
    assert all(line["seconds"] > 0 and line["tokens_per_second"] > 0 for line in metrics)


def test_the_caller_s_random_state_is_left_alone():
    model = GPT(SHAPE, seed=0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(model, Rows(), TrainingConfig(steps=2, batch=2), **QUIET)
    assert torch.equal(torch.rand(3), expected)


def test_the_same_seed_gives_the_same_weights_with_dropout_and_another_does_not():
    shape = GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=8, dropout=0.2)
    models = [GPT(shape, seed=0) for _ in range(3)]
    for model, (seed, state) in zip(models, [(0, 1), (0, 2), (1, 1)], strict=True):
        torch.manual_seed(state)  # the caller's state decides nothing
        train(model, Rows(), TrainingConfig(steps=3, batch=4, seed=seed), **QUIET)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


class Interrupted(Exception):
    pass


class UntilStep(Rows):
    """Data that end in an interruption."""

    def __init__(self, last: int):
        super().__init__()
        self.last = last

    def batch(self, step, size, seed):
        if step == self.last:
            raise Interrupted
        return super().batch(step, size, seed)


def run(folder, data=None, **changed):
    shape = GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=8, dropout=0.1)
    muon = 0.02 if hasattr(torch.optim, "Muon") else 0.0
    s = TrainingConfig(
        **({"steps": 20, "batch": 4, "evaluate_every": 3, "save_every": 4, "matrix_learning_rate": muon} | changed)
    )
    model, told, kept = GPT(shape, seed=0), [], {}
    kept["metrics"] = train(model, data or Rows(), s, folder, track=told.append, **QUIET)
    return model, kept["metrics"], told


def without_clocks(lines):
    return [{key: line[key] for key in line if key not in ("seconds", "tokens_per_second")} for line in lines]


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path):
    whole, metrics, _ = run(None)
    for last in (2, 7, 14):
        with pytest.raises(Interrupted):
            run(tmp_path, UntilStep(last))
    resumed, again, told = run(tmp_path)
    assert torch.equal(weights(whole), weights(resumed))
    assert without_clocks(again) == without_clocks(metrics)
    assert [line["step"] for line in told] == [15, 18, 20]  # after the checkpoint of step 12
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert lines == again and [line["step"] for line in lines] == [3, 6, 9, 12, 15, 18, 20]


def test_a_finished_run_is_not_run_again(tmp_path):
    first, metrics, _ = run(tmp_path)
    second, same, told = run(tmp_path, UntilStep(0))
    assert torch.equal(weights(first), weights(second)) and same == metrics and told == []


def test_a_damaged_newest_checkpoint_costs_only_the_steps_after_the_one_before(tmp_path, capsys):
    whole, _, _ = run(tmp_path)
    newest = checkpoints.list_checkpoints(tmp_path)[-1] / checkpoints.MODEL
    newest.write_bytes(newest.read_bytes()[:-50])
    again, _, told = run(tmp_path)
    assert torch.equal(weights(whole), weights(again)) and [line["step"] for line in told] == [18, 20]
    assert str(newest.parent) in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"other settings \(batch 4, now 8\)"):
        run(tmp_path, batch=8)


@pytest.mark.parametrize("harm", ["loss", "gradient_norm"])
def test_what_is_not_finite_stops_the_run_before_it_reaches_weights_or_checkpoints(tmp_path, harm):
    def loss(model, batch):
        value = model.loss(*batch)
        if len(seen) == 10:
            extra = model.norm.bias.sum() * 0
            value = value + (extra.sqrt() if harm == "gradient_norm" else extra + math.nan)  # d sqrt(0) is infinite
        seen.append([parameter.detach().clone() for parameter in model.parameters()])
        return value

    model, seen = GPT(SHAPE, seed=0), []
    s = TrainingConfig(steps=20, batch=4, save_every=3, warmup=0)
    with pytest.raises(
        TrainingDiverged, match=rf"{harm} is nan at step 11; .*{tmp_path}/step-0000009\. .*learning rate"
    ):
        train(model, Rows(), s, tmp_path, loss=loss, **QUIET)
    assert all(map(torch.equal, model.parameters(), seen[-1])) and torch.isfinite(weights(model)).all()
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["step-0000006", "step-0000009"]


def test_weights_that_are_not_finite_are_not_saved_either(tmp_path):
    s = TrainingConfig(steps=3, batch=4, learning_rate=1e38, weight_decay=1e10, save_every=1, warmup=0)
    with pytest.raises(TrainingDiverged, match="is not finite after step 1, .*there is no checkpoint"):
        train(GPT(SHAPE, seed=0), Rows(), s, tmp_path, **QUIET)
    assert checkpoints.list_checkpoints(tmp_path) == []


def test_what_validate_and_sample_find_is_kept_and_shown(capsys, tmp_path):
    def validate(model):
        assert not model.training and not torch.is_grad_enabled()
        return {"validation_loss": 1.5}

    s = TrainingConfig(steps=4, batch=2, evaluate_every=2)
    metrics = train(GPT(SHAPE), Rows(), s, tmp_path, validate=validate, sample=lambda model: "a text", progress=True)
    assert [(line["validation_loss"], line["sample"]) for line in metrics] == [(1.5, "a text")] * 2
    said = capsys.readouterr()
    assert said.out == "a text\na text\n" and said.err == ""  # no terminal, no bar


def test_validation_loss_counts_every_target_once():
    class Blocks:
        def blocks(self, size):
            yield from zip(*(tensor.split(5) for tensor in Rows(uneven=True).batch(0, 12, 0)), strict=True)

    model = GPT(GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=8, dropout=0.5), seed=0).train()
    found = validation_loss(model, Blocks())["validation_loss"]
    assert model.training
    tokens, targets = Rows(uneven=True).batch(0, 12, 0)
    expected = F.cross_entropy(model.eval()(tokens).flatten(0, 1), targets.flatten(), ignore_index=-1)
    assert found == pytest.approx(expected.item(), abs=1e-6)


# Several processes

WORKER = """
import json, sys
import torch
from recbook.gpt.model import GPT
from recbook.training.config import TrainingConfig
from recbook.training.distributed import join_processes
from recbook.training.loop import train
sys.path.insert(0, {root!r})
from tests.training.test_loop import FewRows, Rows, SHAPE
rank, _ = join_processes()
s = TrainingConfig(steps=6, batch=12, accumulate=2, warmup=2, evaluate_every=1, save_every=3, precision="float32")
model = GPT(SHAPE, seed=rank)  # the others take the weights of the first
for data, folder in ((Rows(uneven=True), "/even"), (FewRows(uneven=True), "/few")):
    train(model, data, s, sys.argv[1] + folder, progress=False)
    if rank == 1:  # the same weights in every process
        torch.save(model.state_dict(), sys.argv[1] + folder + ".pt")
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(root=str(Path(__file__).parents[2])))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = subprocess.run([*command, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    model = GPT(SHAPE, seed=0)
    s = TrainingConfig(steps=6, batch=12, warmup=2, evaluate_every=1, precision="float32")
    for data, folder in ((Rows(uneven=True), "even"), (FewRows(uneven=True), "few")):
        alone = train(model, data, s, **QUIET)
        together = [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").open()]
        for figure in ("loss", "gradient_norm"):
            assert [line[figure] for line in together] == pytest.approx([line[figure] for line in alone], abs=1e-5)
        first = checkpoints.load_gpt(checkpoints.list_checkpoints(tmp_path / folder)[-1])
        torch.testing.assert_close(weights(first), weights(model), rtol=0, atol=1e-4)
        second = torch.load(tmp_path / f"{folder}.pt", weights_only=True)
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.state_dict().items())


# Progress


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_clock(seconds, words):
    assert progress.clock(seconds) == words


def test_the_line_of_a_step_by_hand():
    assert progress.describe_step(1, 400, 8.3, 0, 0, 0.0) == "step 1 of 400 · loss 8.300"
    line = progress.describe_step(100, 1000, 4.2164, 40_960, 10, 2.0)
    assert line == "step 100 of 1,000 · loss 4.216 · 20,480 tokens/s · 3 min 0 s left"  # 900 steps of 0.2 s
    assert progress.describe_step(10, 10, 1.0, 100, 10, 5.0).endswith("20 tokens/s · 5 s")


def test_in_a_notebook_one_line_changes_in_place(monkeypatch, capsys):
    drawn = []

    class Handle:
        def update(self, content, raw):
            drawn.append(("update", content["text/plain"]))

    def display(content, raw, display_id):
        drawn.append(("display", content["text/plain"]))
        return Handle()

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    train(GPT(SHAPE), Rows(), TrainingConfig(steps=5, batch=2))
    assert [kind for kind, _ in drawn] == ["display"] + ["update"] * (len(drawn) - 1) and len(drawn) > 1
    assert drawn[-1][1].startswith("step 5 of 5 · loss ")
    assert capsys.readouterr() == ("", "")


# Tracking


def test_mlflow_holds_what_metrics_jsonl_holds_and_says_nothing(tmp_path, capfd):
    pytest.importorskip("mlflow")
    from recbook.training import tracking

    s = TrainingConfig(steps=6, batch=2, evaluate_every=2, save_every=2)

    def go(data):
        track = tracking.track_with_mlflow(tmp_path / "store", s, "first")
        model = GPT(SHAPE, seed=0)
        return train(model, data, s, tmp_path / "run", sample=lambda m: "text", track=track, **QUIET)

    with pytest.raises(Interrupted):
        go(UntilStep(5))
    assert tracking.tracked_runs(tmp_path / "store")["status"].tolist() == ["RUNNING"]
    metrics = go(Rows())  # goes on with the same run
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    for name in ("step", "loss", "gradient_norm", "learning_rate"):
        kept = tracking.metric_history(tmp_path / "store", "first", name)
        assert kept.tolist() == [line[name] for line in lines] and kept.index.tolist() == [2, 4, 6]
    table = tracking.tracked_runs(tmp_path / "store")
    assert table[["run", "status", "steps", "precision"]].values.tolist() == [["first", "FINISHED", "6", "auto"]]
    assert table["loss"].item() == metrics[-1]["loss"] and table["learning_rate"].item() == "0.003"  # the setting
    tracking.track_with_mlflow(tmp_path / "store", s, "first")  # the old one is finished: a new one begins
    assert tracking.tracked_runs(tmp_path / "store")["run"].tolist() == ["first", "first"]
    with pytest.raises(KeyError, match="second"):
        tracking.metric_history(tmp_path / "store", "second", "loss")
    said = capfd.readouterr()
    assert said.err == said.out == ""


def test_a_kill_between_an_evaluation_and_the_end_loses_no_figure_and_leaves_no_run_open(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    settings = TrainingConfig(steps=4, evaluate_every=2)
    looks = [{"step": step, "loss": 4.0 / step, "validation_loss": 5.0 / step} for step in (2, 4)]
    track = tracking.track_with_mlflow(tmp_path, settings, "cut")
    track(looks[0])
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(mlflow.MlflowClient, "set_terminated", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        track(looks[1])
    again = tracking.track_with_mlflow(tmp_path, settings, "cut")
    for look in looks:  # the resumed training tells what it told before
        again(look)
    assert tracking.tracked_runs(tmp_path)["status"].tolist() == ["FINISHED"]
    assert tracking.metric_history(tmp_path, "cut", "validation_loss").to_dict() == {2: 2.5, 4: 1.25}


def test_without_mlflow_tracking_says_what_to_install(monkeypatch, tmp_path):
    from recbook.training import tracking

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"recbook\[tracking\]"):
        tracking.tracked_runs(tmp_path)
