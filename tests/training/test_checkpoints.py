"""checkpoints: what is written is what is read; a kill leaves no half; damage and other models are named."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from recbook import storage
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.training import checkpoints
from recbook.training.checkpoints import RunState
from recbook.training.config import TrainingConfig, make_optimizers

SHAPE = GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=8)


pytestmark = pytest.mark.usefixtures("one_thread")


def stepped(seed: int = 0, steps: int = 2) -> tuple[GPT, list[torch.optim.Optimizer]]:
    """A model and optimizers that have made a few steps, so that there are states to save."""
    model = GPT(SHAPE, seed=seed)
    made = make_optimizers(model, TrainingConfig())
    for _ in range(steps):
        model.loss(torch.arange(8)[None], torch.arange(8)[None] + 1).backward()
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
    return model, made


def numbers(model: GPT, made: list[torch.optim.Optimizer]) -> list[torch.Tensor]:
    """All that training changes: weights, and the optimizers' states of each."""
    states = [state.get(p, {}) for state in (optimizer.state for optimizer in made) for p in model.parameters()]
    return [*model.parameters(), *(value for state in states for _, value in sorted(state.items()))]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# A run's checkpoints


def test_what_is_saved_comes_back_and_the_next_step_is_the_same(tmp_path):
    model, made = stepped()
    checkpoints.save_checkpoint(
        tmp_path, RunState(2, [{"step": 2, "loss": 3.5}]), model, made, {"steps": 9, "betas": (0.9, 0.95)}
    )
    other, others = stepped(seed=1, steps=1)
    reached = checkpoints.resume_checkpoint(tmp_path, other, others, {"steps": 9, "betas": (0.9, 0.95)})
    assert reached == RunState(2, [{"step": 2, "loss": 3.5}])
    assert all(map(torch.equal, numbers(model, made), numbers(other, others)))


def test_an_empty_folder_changes_nothing(tmp_path):
    model, made = stepped()
    before = [number.clone() for number in numbers(model, made)]
    assert checkpoints.resume_checkpoint(tmp_path / "none", model, made) == RunState(0, [])
    assert all(map(torch.equal, before, numbers(model, made)))


def test_the_last_two_are_kept(tmp_path):
    model, made = stepped()
    for step in (5, 10, 15, 10_000_000):
        checkpoints.save_checkpoint(tmp_path, RunState(step, []), model, made)
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == ["step-0000015", "step-10000000"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000015", "step-10000000"]


@pytest.mark.parametrize("name", [checkpoints.MODEL, checkpoints.OPTIMIZERS, storage.MANIFEST])
@pytest.mark.parametrize("damage", [truncate, Path.unlink, lambda path: path.write_bytes(b"\0" * 100)])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, capsys, name, damage):
    model, made = stepped()
    checkpoints.save_checkpoint(tmp_path, RunState(2, []), model, made)
    newest = checkpoints.save_checkpoint(tmp_path, RunState(3, []), *stepped(steps=3))
    damage(newest / name)
    other, others = stepped(seed=1)
    assert checkpoints.resume_checkpoint(tmp_path, other, others).step == 2
    assert all(map(torch.equal, numbers(model, made), numbers(other, others)))
    said = capsys.readouterr()
    assert str(newest) in said.out and "damaged" in said.out and said.err == ""


def test_one_changed_byte_is_damage(tmp_path, capsys):
    newest = checkpoints.save_checkpoint(tmp_path, RunState(2, []), *stepped())
    content = bytearray((newest / checkpoints.MODEL).read_bytes())
    content[-3] ^= 1
    (newest / checkpoints.MODEL).write_bytes(content)
    assert checkpoints.resume_checkpoint(tmp_path, *stepped()).step == 0 and "checksum" in capsys.readouterr().out


def test_partial_checkpoints_of_a_killed_process_are_removed(tmp_path):
    kept = checkpoints.save_checkpoint(tmp_path, RunState(2, []), *stepped())
    half = tmp_path / ".step-0000003.recbook"
    (half / storage.INCOMING).mkdir(parents=True)
    (half / storage.INCOMING / checkpoints.MODEL).write_bytes(b"half")
    (half / storage.LOCK).touch()
    assert checkpoints.list_checkpoints(tmp_path) == [kept]
    newer = checkpoints.save_checkpoint(tmp_path, RunState(4, []), *stepped())
    assert sorted(tmp_path.iterdir()) == [kept, newer]


@pytest.mark.parametrize("name", [storage.MANIFEST, checkpoints.MODEL])
def test_a_damaged_checkpoint_is_named_and_gives_way_to_the_run_that_goes_on(tmp_path, capsys, name):
    checkpoints.save_checkpoint(tmp_path, RunState(2, []), *stepped())
    newest = checkpoints.save_checkpoint(tmp_path, RunState(3, []), *stepped())
    (newest / name).write_bytes(b"{")
    assert checkpoints.resume_checkpoint(tmp_path, *stepped()).step == 2
    assert f"checkpoint {newest} is damaged" in capsys.readouterr().out
    checkpoints.save_checkpoint(tmp_path, RunState(3, []), *stepped())
    assert checkpoints.resume_checkpoint(tmp_path, *stepped()).step == 3


def test_other_settings_are_refused_by_name(tmp_path):
    checkpoints.save_checkpoint(tmp_path, RunState(2, []), *stepped(), {"steps": 9, "clip": 1.0})
    with pytest.raises(ValueError, match=r"clip 1\.0, now 2\.0"):
        checkpoints.resume_checkpoint(tmp_path, *stepped(), {"steps": 9, "clip": 2.0})


def test_another_model_is_refused_with_the_tensor_that_differs(tmp_path):
    checkpoints.save_checkpoint(tmp_path, RunState(2, []), *stepped())
    wider = GPT(GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=16))
    with pytest.raises(ValueError, match=r"another model: blocks.*8.* in the file, .*16.* in the model"):
        checkpoints.resume_checkpoint(tmp_path, wider)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_never_saved(tmp_path, bad):
    model, made = stepped()
    with torch.no_grad():
        model.norm.bias[3] = bad
    with pytest.raises(checkpoints.NotFinite, match="norm.bias is not finite after step 2"):
        checkpoints.save_checkpoint(tmp_path, RunState(2, []), model, made)
    assert not tmp_path.exists() or list(tmp_path.iterdir()) == []


# A model alone


def test_a_saved_model_gives_the_same_logits(tmp_path):
    model, _ = stepped()
    assert checkpoints.save_gpt(model, tmp_path / "a" / "b").name == checkpoints.MODEL
    again = checkpoints.load_gpt(tmp_path / "a" / "b")
    tokens = torch.arange(8)[None]
    assert again.config == model.config and not again.training
    assert torch.equal(again(tokens), model.eval()(tokens))
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [storage.MANIFEST, checkpoints.MODEL]


def test_a_checkpoint_holds_a_model_too(tmp_path):
    model, made = stepped()
    path = checkpoints.save_checkpoint(tmp_path, RunState(2, []), model, made)
    assert all(map(torch.equal, checkpoints.load_gpt(path).parameters(), model.parameters()))


def test_a_model_that_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} does not hold a GPT.*save_gpt"):
        checkpoints.load_gpt(tmp_path)
    path = checkpoints.save_gpt(stepped()[0], tmp_path)
    truncate(path)
    with pytest.raises(storage.Damaged, match=f"{path} is missing, or does not have the checksum"):
        checkpoints.load_gpt(tmp_path)


def test_a_file_of_weights_without_or_with_another_shape_is_refused(tmp_path):
    weights = {name: tensor.contiguous() for name, tensor in stepped()[0].state_dict().items()}
    shape = {"vocabulary": 33, "context": 8, "layers": 1, "heads": 2, "width": 8}
    for about, message in [
        (None, "config"),
        (shape, r"token_embedding.weight is \(32, 8\) in the file, \(33, 8\) in the model"),
        (shape | {"layers": 10**9}, "1000000000 layers"),
    ]:
        header = about and {"config": json.dumps(about)}
        checkpoints.write_tensors(weights, tmp_path / checkpoints.MODEL, header)
        storage.seal(tmp_path, checkpoints.GPT_KIND, {})
        with pytest.raises(ValueError, match=message):
            checkpoints.load_gpt(tmp_path)


# Killed

CHILD = """
import os, signal, sys
import torch
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.training.config import TrainingConfig
from recbook.training.loop import train

folder, fatal = sys.argv[1], int(sys.argv[2])  # die at this call of fsync, rename or rmdir: while it writes or forgets
calls = 0
def dangerous(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
os.fsync = dangerous(lambda descriptor: None)  # none is really forced, which would only take time
os.rename, os.replace, os.rmdir = dangerous(os.rename), dangerous(os.replace), dangerous(os.rmdir)

class Data:
    def batch(self, step, size, seed):
        ids = torch.randint(0, 32, (size, 9), generator=torch.Generator().manual_seed(1000 * seed + step))
        return ids[:, :-1], ids[:, 1:]

torch.set_num_threads(1)
model = GPT(GPTConfig(vocabulary=32, context=8, layers=1, heads=2, width=8, dropout=0.1), seed=0)
muon = 0.02 if hasattr(torch.optim, "Muon") else 0.0
settings = TrainingConfig(
    steps=300, batch=4, accumulate=2, warmup=10, evaluate_every=3, save_every=1, matrix_learning_rate=muon
)
train(model, Data(), settings, folder, progress=False)
"""
STEPS = 300


def spawn(folder: Path, fatal: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", CHILD, str(folder), str(fatal)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def last_step(folder: Path) -> int:
    found = checkpoints.list_checkpoints(folder)
    return int(found[-1].name.removeprefix("step-")) if found else 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_run_that_is_killed_again_and_again_reaches_the_identical_weights(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    whole = spawn(undisturbed)
    chance = random.Random(0)
    for kill in range(5):
        before = last_step(killed)
        fatal = chance.randrange(60, 260) if kill % 2 else 0  # every second one dies at a dangerous moment
        child = spawn(killed, fatal)
        while not fatal and last_step(killed) == before and child.poll() is None:
            time.sleep(0.002)
        if not fatal:
            time.sleep(chance.uniform(0, 0.1))
            child.kill()
        assert child.wait(30) == -signal.SIGKILL, child.stderr.read()
        assert before < last_step(killed) < STEPS
    for run in (spawn(killed), whole):
        assert run.wait(60) == 0, run.stderr.read()
    for name in (checkpoints.MODEL, checkpoints.OPTIMIZERS):
        paths = [checkpoints.list_checkpoints(folder)[-1] / name for folder in (undisturbed, killed)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    clocks = {"seconds", "tokens_per_second"}
    lines = [[json.loads(line) for line in (each / "metrics.jsonl").open()] for each in (undisturbed, killed)]
    told = [[{key: line[key] for key in line.keys() - clocks} for line in each] for each in lines]
    assert told[0] == told[1] and [line["step"] for line in told[0]] == list(range(3, STEPS + 1, 3))
