# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training: from guessing to knowing
#
# At the end a GPT of your own has read the shop's documents for about a minute, every run is on record, and you can kill
# one at any moment and lose nothing but seconds.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,language,tracking]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("07_training")

# %% [markdown]
# **You will learn**
#
# - to write the loop that trains a language model, and to read its loss;
# - what each ingredient is for, from the learning rate to Muon, with a picture or a number for each;
# - to train in half the bytes and in parts, and what neither changes;
# - to stop a run at any moment and go on to the identical weights;
# - to say what a training will cost, and what it was worth beside plain counting.
#
# **You need** the model of [Chapter 6](06_gpt.ipynb) and the token files of [Chapter 5](05_tokens.ipynb).

# %% [markdown]
# ## How do you turn a model that guesses at random into one that knows the shop, in a minute, on two cores?
#
# Chapter 6 built a GPT that can say anything and knows nothing. Chapter 5 wrote down all that the shop knows: cards,
# baskets, reasons. This chapter brings the two together. First the guess. For the experiments of this chapter a model
# that is small even for this book will do, because it answers in seconds.

# %% tags=["nbval-ignore-output"]
import copy
import dataclasses
import json
import math
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from recbook.baselines.results import has_results, load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.tokens.files import TokenWindows
from recbook.training.checkpoints import list_checkpoints
from recbook.training.config import TrainingConfig, learning_rate_schedule, make_optimizers
from recbook.training.distributed import has_bfloat16
from recbook.training.loop import TrainingDiverged, next_token_loss, train, validation_loss
from recbook.training.tracking import metric_history, track_with_mlflow, tracked_runs

vocabulary = workshop.vocabulary()
learn, judge = workshop.token_files()  # memory-mapped ids: to learn from, to be judged on

# %% tags=["nbval-ignore-output"]
small = GPTConfig(len(vocabulary), context=64, layers=2, heads=4, width=64)
text = TokenWindows(learn, small.context)
later = TokenWindows(judge[: 64 * small.context + 1], small.context)  # baskets that nobody has seen yet

tokens, targets = text.batch(step=0, size=16)  # both (B, T): the target of a token is the one after it
untrained = GPT(small, seed=0)
first_loss = untrained.loss(tokens, targets).item()
assert abs(first_loss - math.log(len(vocabulary))) < 0.1
Markdown(
    f"{small.parameters:,} weights, {len(vocabulary):,} tokens to choose from. The loss of the untrained model is "
    f"{first_loss:.2f} nats a token, and $\\ln$ of the vocabulary's size is {math.log(len(vocabulary)):.2f}: it finds "
    "every token equally likely. So this is what it writes:"
)


# %% tags=["nbval-ignore-output"]
def write(model, opening, tokens=45, seed=0):
    """Draw one token after the other; Chapter 8 does it faster and with more control."""
    ids, chance = list(opening), torch.Generator().manual_seed(seed)
    model.eval()
    with torch.no_grad():
        for _ in range(tokens):
            logits = model(torch.tensor([ids[-model.config.context :]]))[0, -1]  # (V,)
            ids.append(torch.multinomial((logits / 0.7).softmax(-1), 1, generator=chance).item())
    return textwrap.fill(vocabulary.decode(ids), 100)


a_basket = [vocabulary.control["<|basket|>"]]
written = write(untrained, a_basket)
assert written.startswith("<|basket|>")
print(written)

# %% [markdown]
# ## Five lines
#
# Training is a loop of five lines. Take a batch. Ask how wrong the model is. Ask in which direction it would be less
# wrong. Do not let one batch shout. Take a step. Everything else in this chapter makes one of the five better, and none
# of it adds a sixth.


# %%
def by_hand(model, data, steps, optimizers, rate_of, batch=16, largest=math.inf):
    """The loop: the loss and the gradient's norm of every step."""
    told = []
    for step in range(steps):
        loss = model.loss(*data.batch(step, batch))  # a batch, and how wrong the model is
        loss.backward()  # the direction in which it would be less wrong
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)  # no batch may shout
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_of(step)  # how far
            optimizer.step()  # the step
            optimizer.zero_grad()
        told.append([loss.item(), norm.item()])
    return pd.DataFrame(told, columns=["loss", "norm"])


def adamw_for(model):
    return [torch.optim.AdamW(model.parameters())]


# %% tags=["nbval-ignore-output"]
model = GPT(small, seed=0)
told = by_hand(model, text, 150, adamw_for(model), lambda step: 3e-3)
assert told["loss"].iloc[0] > 7 and told["loss"].tail(20).mean() < 4

fig, ax = plt.subplots()
ax.plot(told["loss"], color="#1b4f72", linewidth=1)
ax.axhline(
    math.log(len(vocabulary)), color="#6b6b6b", linestyle="--", label="every token equally likely: ln(vocabulary)"
)
ax.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
ax.set_title(
    f"In {len(told)} steps the loss falls from {told['loss'].iloc[0]:.1f} to {told['loss'].tail(20).mean():.1f}"
)
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# Two slopes, and they are two lessons. The steep one is quick to learn: which tokens are frequent at all. The gentle one
# is slow, and never quite over: what follows what. The line trembles because each step sees another batch. And the text?

# %% tags=["nbval-ignore-output"]
written = write(model, a_basket)
assert written.startswith("<|basket|>")
print(written)

# %% [markdown]
# After seconds it has the *form* of a basket: a date, a product, a quantity, a price. What it says is still mostly
# wrong. Form comes first, facts come later, and it is worth remembering when a model sounds right.
#
# ## How far to step
#
# The most important number of a training is the learning rate. The gradient says in which direction the loss falls *just
# here*; the learning rate says how far to trust that.

# %% tags=["nbval-ignore-output"]
rates, falls = {"too small": 1e-4, "about right": 3e-3, "too large": 0.3}, {}
for name, rate in rates.items():
    model = GPT(small, seed=0)
    falls[name] = by_hand(model, text, 80, adamw_for(model), lambda step, rate=rate: rate)["loss"]
at_the_end = {name: fall.tail(20).mean() for name, fall in falls.items()}
assert at_the_end["about right"] + 0.5 < min(at_the_end["too small"], at_the_end["too large"])

fig, ax = plt.subplots()
for (name, fall), line in zip(falls.items(), (":", "-", "--"), strict=True):
    ax.plot(fall.rolling(5, min_periods=1).mean(), line, label=f"{name}: {rates[name]:g}")
ax.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, 14))
ax.set_title("Too small wastes the steps, too large wastes the model")
ax.legend()
plt.show()

# %% [markdown]
# The good range is wide on paper, about a factor of ten, and narrow in practice, because it moves with everything: wider
# models want smaller rates, larger batches larger ones. So look for it on short runs, by factors of three, and take the
# largest that does not shake.
#
# ## Warm up, then cool down
#
# One rate does not suit a whole run. At the start every weight is random and a long step goes somewhere at random, so
# the rate climbs in a straight line: the *warm-up*. At the end the model is near a good place and long steps only shake
# it, so the rate falls along half a cosine: the *cool-down*. For step $t$ of $n$, with $w$ steps of warm-up, the share of
# the highest rate is
#
# $$ s(t) = \begin{cases} (t + 1) / w & t < w \\ f + (1 - f) \, \tfrac12 \big(1 + \cos \pi \tfrac{t - w}{n - w}\big) & t \ge w
# \end{cases} $$


# %%
def share(step, steps, warmup, final=0.1):
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


schedule = [share(step, 100, warmup=20) for step in range(100)]
assert max(schedule) == 1 and np.argmax(schedule) == 19 and schedule[-1] < 0.11

# %% [markdown]
# What is it worth? A still smaller model, so that it can be tried on a short run and on a long one:

# %% tags=["nbval-ignore-output"]
tiny = GPTConfig(len(vocabulary), context=32, layers=1, heads=2, width=32)
lines_of_text = TokenWindows(learn, tiny.context)
judged_lines = TokenWindows(judge[: 128 * tiny.context + 1], tiny.context)
plans = {
    "constant": lambda step, steps: 1,
    "warm-up, then constant": lambda step, steps: min(1, (step + 1) / (steps / 8)),
    "warm-up and cosine": lambda step, steps: share(step, steps, steps // 8),
}
lengths = {"short run": 120, "long run": 800}
falls, worth = {}, pd.DataFrame(index=list(plans), columns=list(lengths), dtype=float)
for length, steps in lengths.items():
    for name, plan in plans.items():
        model = GPT(tiny, seed=0)
        rate_of = lambda step, plan=plan, steps=steps: 0.02 * plan(step, steps)  # noqa: E731
        falls[name] = by_hand(model, lines_of_text, steps, adamw_for(model), rate_of, batch=8)["loss"]
        worth.loc[name, length] = validation_loss(model, judged_lines)["validation_loss"]
assert worth["long run"].idxmin() == "warm-up and cosine" and (worth["long run"] < worth["short run"]).all()
worth.map("{:.2f}".format).rename_axis("loss on later baskets", axis=1)

# %% tags=["nbval-ignore-output"]
fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.6), width_ratios=[1, 1.3])
for (name, plan), line in zip(plans.items(), (":", "--", "-"), strict=True):
    left.plot([0.02 * plan(step, steps) for step in range(steps)], line)
    right.plot(falls[name].rolling(50).mean(), line, label=name)
assert falls["warm-up and cosine"].tail(50).mean() < falls["constant"].tail(50).mean()
left.set(xlabel="step", ylabel="learning rate", title="Three plans for the long run")
right.set(xlabel="step", ylabel="loss, nats a token", title="The one that cools down ends lowest", ylim=(0.5, 3.5))
right.legend(fontsize=8)
plt.show()

# %% [markdown]
# Watch the ends of the curves. While the rate is high, all are much alike; the one that cools down falls below the
# others in the last third, though it takes *shorter* steps there. A loss curve that flattens may only be shaking. In the
# short run there was nothing to calm yet, and look at the table: cooling down brought little or even cost something.
# Schedules are for runs long enough to need them.
#
# > **Pitfall.** A cosine belongs to a number of steps. Stop such a run in the middle and it is not a shorter run: it
# > never cooled down. To compare a short training with a long one, plan both.
#
# ## A step size for every weight: AdamW
#
# Plain gradient descent multiplies the gradient by the rate. But gradients differ in size by a factor of thousands
# between weights: those of a rare product's embedding are nearly always zero. AdamW keeps two running means for each
# weight, of its gradient and of its square, and divides the first by the root of the second:
#
# $$ m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \qquad
# w \leftarrow w - \eta \Big( \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda w \Big) $$
#
# The units of the gradient cancel. Whatever its size, a weight whose gradient keeps its sign moves by about $\eta$ a step;
# one whose gradient changes its sign all the time hardly moves.


# %%
def adamw_step(w, g, m, v, t, rate, betas=(0.9, 0.95), decay=0.1):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    direction = (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + 1e-8)
    return w - rate * (direction + decay * w), m, v


valley = np.array([25.0, 1.0])  # the loss 25 a² + b², steep one way, flat the other
start = np.array([1.0, 1.8])
plain, adaptive, m, v = [start], [start], 0.0, 0.0
theirs = torch.nn.Parameter(torch.tensor(start))
torch_adamw = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1)
for t in range(1, 41):
    plain.append(plain[-1] - 0.037 * 2 * valley * plain[-1])
    w, m, v = adamw_step(adaptive[-1], 2 * valley * adaptive[-1], m, v, t, rate=0.1)
    adaptive.append(w)
    (torch.tensor(valley) * theirs**2).sum().backward()
    torch_adamw.step()
    torch_adamw.zero_grad()
    assert np.allclose(w, theirs.detach().numpy(), atol=1e-9)
print("forty steps: page and torch.optim.AdamW agree")

# %%
side = np.linspace(-2.0, 2.0, 200)
fig, ax = plt.subplots(figsize=(6.4, 4.0))
heights = valley[0] * side[None] ** 2 + valley[1] * side[:, None] ** 2  # (b, a)
ax.contour(side, side, heights, levels=[0.1, 0.5, 1, 2, 4, 8, 16, 32], colors="#bbbbbb", linewidths=0.8)
ax.plot(*np.array(plain).T, "o--", color="#d9822b", markersize=3, label="gradient descent")
ax.plot(*np.array(adaptive).T, "o-", color="#1b4f72", markersize=3, label="AdamW")
ax.plot(0, 0, "*", color="#9b2d30", markersize=14)
ax.set(xlabel="a weight with large gradients", ylabel="a weight with small gradients", xlim=(-1.4, 1.4))
ax.set_title("Gradient descent rattles; AdamW steps alike in both directions")
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# Neither path is straight. AdamW remembers where it was going, so it swings past the goal before it turns: that memory
# is a price, and a warm-up and a cool-down are how it is paid.
#
# ### What decays
#
# The term $\lambda w$ pulls every weight a little towards zero, so that what no gradient defends is forgotten. That is
# good for matrices and embeddings. For the gain of a norm, which should be about one, and for biases it makes no sense,
# so these stand in a group without decay. They are many tensors and few numbers:

# %% tags=["nbval-ignore-output"]
(adamw,) = make_optimizers(untrained, TrainingConfig())
groups = [
    [group["weight_decay"], len(group["params"]), sum(parameter.numel() for parameter in group["params"])]
    for group in adamw.param_groups
]
assert [decay for decay, _, _ in groups] == [0.1, 0.0] and groups[0][2] + groups[1][2] == small.parameters
groups = pd.DataFrame(groups, columns=["decay", "tensors", "weights"], index=["matrices, embeddings", "biases, norms"])
groups.assign(weights=groups["weights"].map("{:,}".format))

# %% [markdown]
# ## No batch may shout: clipping
#
# Now and then a batch is odd and its gradient is many times longer than usual. One such step can undo a hundred good
# ones. So the gradient's length, the *norm* of all gradients together, is limited: what is longer is shortened, all of it
# by the same factor, so that its direction stays.

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.plot(told["norm"], color="#1b4f72", linewidth=1, label="norm of the gradient")
ax.axhline(1, color="#d9822b", linestyle="--", label="what is longer is shortened to this")
shortened = (told["norm"] > 1).mean()
assert told["norm"].max() > 1 and 0 < shortened < 1
ax.set(xlabel="step", ylabel="norm, of all gradients together", ylim=(0, None))
ax.set_title(f"A limit of one shortens {shortened:.0%} of the steps of the first run")
ax.legend()
plt.show()

# %% [markdown]
# AdamW already divides by the gradient's usual size, so what matters is a gradient that is unusual, and the limit is
# there for that day. Plot the norm of every run you make: a training that is about to fail shows it there first.
#
# ## A batch that does not fit: accumulation
#
# A large batch gives a calmer gradient, but all its activations must be in memory at once. So take it in parts: call
# `backward` on each and take one step for all. PyTorch *adds* gradients until you clear them, so this needs no new code,
# only care with the mean.

# %% tags=["nbval-ignore-output"]
tokens, targets = text.batch(step=0, size=16)
targets = targets.clone()
targets[8:, 8:] = -1  # the second half of the batch are short texts: most of their targets do not count


def gradient(losses_and_weights):
    probe = GPT(small, seed=0)
    for rows, weight in losses_and_weights:
        (weight * probe.loss(tokens[rows], targets[rows])).backward()
    return torch.cat([parameter.grad.flatten() for parameter in probe.parameters()])


whole = gradient([(slice(0, 16), 1)])
halves = [slice(0, 8), slice(8, 16)]
counts = [(targets[rows] >= 0).sum() for rows in halves]
by_halves = gradient([(rows, 1 / 2) for rows in halves])
by_targets = gradient([(rows, count / sum(counts)) for rows, count in zip(halves, counts, strict=True)])
assert torch.allclose(whole, by_targets, atol=1e-6) and (whole - by_halves).norm() > 0.01 * whole.norm()
pd.Series(
    {
        "each part counts half": f"{(whole - by_halves).norm() / whole.norm():.0%}",
        "each part counts by its targets": f"{(whole - by_targets).norm() / whole.norm():.4%}",
    },
    name="off the whole batch's gradient by",
).to_frame()

# %% [markdown]
# > **Pitfall.** The mean of the parts' means is not the mean of the whole unless every part has as many targets as the
# > others. For years widely used libraries got this wrong, and nobody noticed, because a slightly wrong loss still falls.
# > `train` weighs each part by its targets.
#
# ## Numbers in two bytes
#
# A float has four bytes: a sign, eight bits for the size and twenty-three for the digits. `bfloat16` keeps the sign and
# the size and cuts the digits to seven bits. Half the bytes, and processors with instructions for it multiply
# them at twice the speed or more. What is lost?

# %%
numbers = torch.tensor([1 / 3, 1.001, 100.3, 1e30])
kept = pd.DataFrame({"float32": numbers, "bfloat16": numbers.bfloat16().float(), "float16": numbers.half().float()})
kept.map("{:.6g}".format)

# %%
weight = torch.tensor(1.0, dtype=torch.bfloat16)
for _ in range(1000):
    weight += 0.001  # a usual step of a usual weight
assert weight == 1
Markdown(
    f"A weight of one in `bfloat16`, after a thousand steps of a thousandth each: {weight.item():g}. "
    "**Every step was rounded away.**"
)

# %% [markdown]
# So the *weights* stay in float32, where small steps add up, and so do sums, softmax and norms. Only the matrix products,
# which are nearly all of the work, read their inputs as `bfloat16`. PyTorch calls that autocast. `float16` has more digits and
# a smaller range, and needs extra care with gradients that vanish; where there is a choice, `bfloat16` is the simple one.

# %% tags=["nbval-ignore-output"]
plan = TrainingConfig(steps=100, batch=16, warmup=20, evaluate_every=10)
precise = {}
for precision in ("float32", "bfloat16"):
    model = GPT(small, seed=0)
    settings = TrainingConfig(**(vars(plan) | {"precision": precision}))
    train(model, text, settings, progress=False)
    precise[precision] = validation_loss(model, later)["validation_loss"]
apart = abs(precise["bfloat16"] - precise["float32"])
assert apart < 0.1
native = "has such instructions" if has_bfloat16("cpu") else "has no such instructions: there it gains nothing"
Markdown(
    f"Loss on later baskets: float32 {precise['float32']:.3f}, bfloat16 {precise['bfloat16']:.3f}. "
    f"This processor {native}. What it gains in speed stands in a table below."
)

# %% [markdown]
# ## A step for matrices: Muon
#
# AdamW treats a matrix as a heap of numbers. But a matrix does something: it turns and stretches vectors. Its gradient
# usually stretches a few directions a lot and all others hardly at all, so a step along it teaches a few things loudly.
# *Muon* makes the step equally long in all directions: of the gradient's singular value decomposition $U S V^\top$ it
# keeps $U V^\top$. A decomposition at each step would be slow. A polynomial of the matrix, applied five times, pushes all
# singular values towards one, with nothing but matrix products:


# %%
def evened(matrix, times=5):
    """About U Vᵀ, by a polynomial that pulls singular values into the neighbourhood of one. Jordan et al. (2024)."""
    X = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    X = X / X.norm()
    for _ in range(times):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return X.T if matrix.shape[0] > matrix.shape[1] else X


# %% tags=["nbval-ignore-output"]
probe = GPT(small, seed=0)
probe.loss(*text.batch(0, 16)).backward()
matrix = probe.blocks[1].expand.weight
before = torch.linalg.svdvals(matrix.grad)[:-1]  # the norm before it leaves one direction empty
after = torch.linalg.svdvals(evened(matrix.grad))[:-1]
assert before[0] / before.median() > 3 * after[0] / after.median()

fig, ax = plt.subplots(figsize=(7, 3.4))
ax.semilogy(before / before[0], "o-", markersize=3, color="#d9822b", label="the gradient")
ax.semilogy(after / after[0], "s-", markersize=3, color="#1b4f72", label="Muon's step")
ax.set(xlabel="direction, the longest first", ylabel="length, longest = 1")
ax.set_title(f"The gradient's middle direction has {before.median() / before[0]:.0%} of the longest; "
             f"Muon's {after.median() / after[0]:.0%}", fontsize=10.5)  # fmt: skip
ax.legend()
plt.show()

# %% [markdown]
# Muon is for matrices that turn vectors into vectors, which are those inside the blocks. Embeddings are rows to look up,
# and biases and norms are no matrices at all: AdamW keeps those. PyTorch has it since version `2.9`. Does it pay? The same
# data, the same model, the same number of steps, and each optimizer at a rate that suits it:

# %% tags=["nbval-ignore-output"]
runs_folder = TemporaryDirectory()
store = Path(runs_folder.name)
choices = {"AdamW": dict(learning_rate=0.012), "AdamW, timid": dict(learning_rate=1e-3)}
if hasattr(torch.optim, "Muon"):
    choices["Muon"] = dict(learning_rate=0.02, matrix_learning_rate=0.04)
curves = {}
for name, rate in choices.items():
    settings = TrainingConfig(steps=120, batch=16, warmup=20, evaluate_every=15, **rate)
    curves[name] = train(
        GPT(small, seed=0), text, settings, store / name,
        validate=lambda model: validation_loss(model, later),
        track=track_with_mlflow(store, settings, name), progress=False,
    )  # fmt: skip
ends = {name: curve[-1]["validation_loss"] for name, curve in curves.items()}
assert ends["AdamW"] < ends["AdamW, timid"] and ends.get("Muon", 0) < ends["AdamW"] + 0.1


# %% tags=["nbval-ignore-output"]
def plot_curves(curves, title):
    fig, ax = plt.subplots()
    for (name, curve), line in zip(curves.items(), ("o--", "s:", "D-"), strict=False):
        points = pd.DataFrame(curve)
        ax.plot(points["step"], points["validation_loss"], line, markersize=4, label=name)
    ax.set(xlabel="step", ylabel="loss on later baskets, nats a token", title=title)
    ax.legend()
    plt.show()


best = min(ends, key=ends.get)
assert ends[best] < ends["AdamW, timid"]
plot_curves(curves, f"After {settings.steps} steps, {best} is lowest: {ends[best]:.2f} nats a token")

# %% [markdown]
# A step of Muon also costs more arithmetic. Whether *time* is gained is another question, and a table below answers it at
# the size that matters.
#
# ## What happened in each run
#
# You will try much and remember little, so let runs write their own diary. `train` leaves one in every folder it is
# given, `metrics.jsonl`: a line every so many steps, readable with nothing but a text editor.

# %% tags=["nbval-ignore-output"]
lines = (store / "AdamW" / "metrics.jsonl").read_text().splitlines()
assert len(lines) == 8 and json.loads(lines[-1])["step"] == 120
print(textwrap.fill(lines[-1], 100))

# %% [markdown]
# And *MLflow* collects the runs of many folders in one store and shows them side by side. The `track` above wrote the
# same figures there. Here it is a file on your disk, and nothing leaves your machine:

# %% tags=["nbval-ignore-output"]
table = tracked_runs(store).set_index("run")
for name, curve in curves.items():
    kept = metric_history(store, name, "validation_loss")
    assert kept.tolist() == [line["validation_loss"] for line in curve]  # MLflow holds what metrics.jsonl holds
shown = ["learning_rate", "matrix_learning_rate", "validation_loss", "status"]
params = {name: table[name].astype(float) for name in shown[:3]}
table[shown].assign(**params | {"validation_loss": table["validation_loss"].round(3)})

# %% [markdown]
# `mlflow ui --backend-store-uri sqlite:///…/mlflow.db` opens the same in a browser, with curves.
#
# ## Killed, and none the worse
#
# Machines go down, sessions end, somebody trips over a cable. What does a run need to go on *as if nothing had happened*?
# The weights, of course. The optimizer's two running means, or the first steps after the break would be like a second
# warm-up. The number of the step, for the learning rate. And then two that are easily forgotten: which batches were
# already read, and the state of the random numbers behind dropout.
#
# The simplest way to restore the last two is not to have them. Here batch and dropout of a step are *computed from its
# number*: `TokenWindows.batch(step, size, seed)`. Nothing has to be stored, so nothing can be stored wrongly.


# %%
class PowerCut(Exception):
    pass


class UntilPowerCut:
    """The same data, until the lights go out."""

    def __init__(self, data, step):
        self.data, self.step = data, step

    def batch(self, step, size, seed=0):
        if step == self.step:
            raise PowerCut
        return self.data.batch(step, size, seed)


# %% tags=["nbval-ignore-output"]
forgetful = dataclasses.replace(tiny, dropout=0.1)
settings = TrainingConfig(steps=60, batch=8, warmup=10, evaluate_every=20, save_every=10)
undisturbed = GPT(forgetful, seed=0)
train(undisturbed, lines_of_text, settings, progress=False)

folder = TemporaryDirectory()
for cut in (17, 23, 45):
    try:
        train(GPT(forgetful, seed=0), UntilPowerCut(lines_of_text, cut), settings, folder.name, progress=False)
    except PowerCut:
        print("cut before step", cut, "· on disk:", *[path.name for path in list_checkpoints(folder.name)])
resumed = GPT(forgetful, seed=0)
train(resumed, lines_of_text, settings, folder.name, progress=False)
pairs = zip(undisturbed.parameters(), resumed.parameters(), strict=True)
assert all(torch.equal(one, other) for one, other in pairs)
print("undisturbed and three times cut: the same weights, bit for bit")

# %% [markdown]
# `torch.equal` means equal, not close. The package's tests do it the hard way: they kill the process from outside, at
# random moments and in the midst of writing a checkpoint, and compare the files byte by byte.
#
# That second kind of moment is why a checkpoint is first written under another name, forced to the disk, and then
# renamed, which the file system does as a whole or not at all. Its files are `safetensors`, plain numbers, and JSON: they
# cannot run code when you load them, which a pickle from a stranger can. And the one before is kept, because disks fail too:

# %% tags=["nbval-ignore-output"]
newest = list_checkpoints(folder.name)[-1]
weights_file = newest / "model.safetensors"
weights_file.write_bytes(weights_file.read_bytes()[:-1000])  # a disk that lost the end of a file
again = GPT(forgetful, seed=0)
train(again, lines_of_text, settings, folder.name, progress=False)
assert torch.equal(again.token_embedding.weight, undisturbed.token_embedding.weight)

# %% [markdown]
# > **Pitfall.** Change a setting and resume in the same folder, and you get a run that nobody can repeat: half old, half
# > new. It is refused, by name. Identical weights also need the same machine and the same number of threads, because
# > floating-point sums depend on their order.

# %%
try:
    other = TrainingConfig(steps=60, batch=16, warmup=10, evaluate_every=20, save_every=10)
    train(GPT(forgetful, seed=0), lines_of_text, other, folder.name, progress=False)
except ValueError as error:
    print(textwrap.fill(str(error).replace(folder.name, "…"), 100))

# %% [markdown]
# ## When it fails
#
# A run that fails rarely stops by itself. The loss becomes `nan`, the next step makes every weight `nan`, and the next
# checkpoint saves them over the last good one. So look at loss and gradient *before* each step:


# %%
def poisoned(model, batch):
    loss = next_token_loss(model, batch)
    return loss * math.nan if model.steps_seen.append(1) or len(model.steps_seen) == 26 else loss


patient = GPT(forgetful, seed=0)
patient.steps_seen = []
with TemporaryDirectory() as ward:
    try:
        train(patient, lines_of_text, settings, ward, loss=poisoned, progress=False)
    except TrainingDiverged as error:
        print(textwrap.fill(str(error).replace(ward, "…"), 100))
assert all(torch.isfinite(parameter).all() for parameter in patient.parameters())
folder.cleanup()

# %% [markdown]
# ## The shop's language model
#
# Now the real one, `laptop` size, with everything above switched on. It is trained on what was written before the cut of
# [Chapter 2](02_baselines.ipynb), and judged on baskets after it. If you run this chapter for the first time, it
# takes a minute or two; later chapters load the result.

# %% tags=["nbval-ignore-output"]
model, metrics = workshop.language_model()
curve = pd.DataFrame(metrics)
size = model.config
windows = TokenWindows(judge, size.context)
judged = validation_loss(model, windows)["validation_loss"]
start = TokenWindows(judge[: 32 * size.context + 1], size.context)
at_first = validation_loss(GPT(size, seed=0), start)["validation_loss"]
assert judged < 3 < at_first

# %% [markdown]
# A loss is a number without a scale. Give it one: what does *counting* reach? The frequency of each token alone; then the
# frequency of each token after the one before it, which is all that can be known from looking one token back.


# %%
def counted(learn, judge, V, weight=10):
    """Nats a token of counting single tokens, and of counting pairs, smoothed by the single ones."""
    learn, judge = learn.astype(np.int64), judge.astype(np.int64)
    singles = np.bincount(learn, minlength=V) + 1.0
    frequency = singles / singles.sum()
    pairs, times = np.unique(learn[:-1] * V + learn[1:], return_counts=True)
    asked = judge[:-1] * V + judge[1:]
    place = np.minimum(np.searchsorted(pairs, asked), len(pairs) - 1)
    seen = np.where(pairs[place] == asked, times[place], 0)
    after = (seen + weight * frequency[judge[1:]]) / (singles[judge[:-1]] + weight)
    return -np.log(frequency[judge[1:]]).mean(), -np.log(after).mean()


single, pair = counted(learn, judge, len(vocabulary))
bars = {
    "every token alike": math.log(len(vocabulary)),
    "counts of tokens": single,
    "counts of pairs": pair,
}

# %% tags=["nbval-ignore-output"]
assert judged < pair < single < math.log(len(vocabulary))
scale = pd.Series(bars | {"this GPT": judged}, name="nats a token").to_frame()
scale["perplexity"] = np.exp(scale["nats a token"]).map("{:,.1f}".format)
scale.round(2)

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots()
ax.plot(
    [0, *curve["step"]],
    [at_first, *curve["validation_loss"]],
    "o-",
    color="#1b4f72",
    label="GPT, on baskets after the cut",
)
ax.plot(curve["step"], curve["loss"], "s:", color="#5b8c5a", markersize=4, label="GPT, on the batch it learns from")
assert curve["validation_loss"].iloc[-1] < pair
for (name, height), colour in zip(bars.items(), ("#6b6b6b", "#d9822b", "#9b2d30"), strict=True):
    ax.axhline(height, color=colour, linestyle="--", linewidth=1)
    ax.annotate(name, (curve["step"].max(), height), ha="right", va="bottom", color=colour, fontsize=9)
ax.set(xlabel="step", ylabel="loss, nats a token", ylim=(0, None))
ax.set_title(f"At its first look, after {curve['step'].iloc[0]} steps, it has passed plain counting"
             if curve["validation_loss"].iloc[0] < pair else "Counting pairs is passed on the way")  # fmt: skip
ax.legend(loc="center right", fontsize=9)
plt.show()

# %% [markdown]
# *Perplexity* is the exponential of the loss: among how many equally likely tokens the model seems to hesitate. Much of
# the fall is easy money. After a product's token, its description follows token by token; after `at £` comes its price.
# These are near certain once learned, and they are most of the tokens. What is left is the hard part, *which product comes
# next*, and Chapter 9 looks at that alone. Now let it write:

# %% tags=["nbval-ignore-output"]
cpu_model = copy.deepcopy(model).cpu()
openings = {
    "a basket": a_basket,
    "a card": [vocabulary.control["<|product|>"]],
    "a reason": [vocabulary.control["<|shopper|>"]],
}
for name, opening in openings.items():
    written = write(cpu_model, opening, tokens=70, seed=1)
    assert len(written) > 20
    print(f"{name}:\n{written}\n")

# %% [markdown]
# Compare with the first sample of this chapter. The form is right, most products carry their own names. Are the *facts*
# right, the prices, the dates, the counts? Often not, and nothing in the loss demands it: a likely price and the true
# price cost nearly the same. That is the gap that a recommender which explains itself has to close, and the rest of the
# book is about it.
#
# ## What it cost, and what it would cost
#
# A weight that multiplies needs six operations for each token it is trained on: two forward, four backward. Attention
# adds its share. So a training's arithmetic can be counted before it starts:

# %% tags=["nbval-ignore-output"]
read = (curve["tokens_per_second"] * curve["seconds"]).sum()
work = read * size.flops_per_token
seconds = max(curve["seconds"].sum(), 1e-3)
assert size.flops_per_token > 6 * 12 * size.layers * size.width**2 and work / seconds < 1e16
Markdown(
    f"{size.parameters:,} weights, {size.flops_per_token / 1e6:.1f} million operations a token, {read / 1e6:.1f} million "
    f"tokens read: {work / 1e12:,.1f} million million operations, in {seconds:,.0f} seconds of training. That is "
    f"{work / seconds / 1e9:,.0f} thousand million a second. The share of a machine's best that a training reaches is called "
    "*model FLOPs utilisation*."
)

# %% [markdown]
# How much faster is all this than the loop that one would write first: GPT-2 from `transformers`, AdamW, nothing else? At
# `laptop` size, in one run on two cores, each ingredient switched on after the other, by `python benchmarks/training.py`:


# %%
def measured(part):
    rows = pd.DataFrame(load_results("training")["rows"])
    return rows[rows["part"] == part]


def table_of_steps():
    wide = measured("step").pivot_table(index="method", columns="metric", values="value", sort=False)
    wide = wide[wide["tokens a second"].notna()]  # without the peaks themselves
    plain = wide.loc["transformers, AdamW", "tokens a second"]
    return pd.DataFrame(
        {
            "tokens a second": wide["tokens a second"].map("{:,.0f}".format),
            "times the plain loop": (wide["tokens a second"] / plain).map("{:.2f}".format),
            "of the float32 peak": wide["utilisation"].map("{:.0%}".format),
            "of the bfloat16 peak": wide["utilisation of the bfloat16 peak"].map("{:.0%}".format),
        }
    )


table_of_steps() if has_results("training") else Markdown("Not measured yet.")

# %% [markdown]
# Read it from the top down: each line switches one thing more on. Numbers in two bytes, attention that is told to stay in
# float32, where the two-byte kernel of this processor is slow, and not holding the logits of every position at once.
# A line that gains nothing stays in the table. The peaks are those of one large matrix product on the same machine, in
# the same run; beyond the one of float32 you only get in the other format. Speed is measured, not assumed.
#
# Tokens a second are not the goal, though. The goal is a low loss soon. How long until the loss on later baskets is what
# the plain loop reaches at its end?


# %%
def race():
    rows = measured("race")
    fig, ax = plt.subplots()
    lines = rows[rows["metric"] == "validation_loss"]
    for (name, line), style in zip(lines.groupby("method", sort=False), ("o--", "s-", "D-"), strict=True):
        ax.plot(line["seconds"], line["value"], style, markersize=4, label=name)
    target = rows.loc[rows["metric"] == "target", "value"].item()
    ax.axhline(target, color="#6b6b6b", linewidth=1)
    times = rows[rows["metric"] == "seconds to target"].set_index("method")["value"]
    ax.set(xlabel="seconds of training", ylabel="loss on later baskets, nats a token")
    plain, best = times["transformers, AdamW"], times.drop("transformers, AdamW")
    ax.set_title(f"What takes the plain loop {plain:,.0f} seconds takes {best.idxmin()} {best.min():,.0f}")
    ax.legend()
    plt.show()


race() if has_results("training") else print("not measured yet")

# %% [markdown]
# Be fair to the plain loop: it has a constant learning rate, the better of two that were tried, and our rates were chosen
# on the same baskets with more care. Most of the lead is not speed but the schedule, and then Muon, and each of them
# could be added to the plain loop in an afternoon. That is the point of this chapter.

# %% [markdown]
# And `full`, with the vocabulary of GPT-2? It is meant for a large GPU. But it should run on this machine too, if only to
# find mistakes before they cost money:


# %%
def full_in_words():
    value = measured("full").drop_duplicates("metric", keep="last").set_index("metric")["value"]
    losses = measured("full").query("metric == 'loss'")["value"]
    return Markdown(
        f"{value['parameters'] / 1e6:.0f} million weights: {value['seconds a step']:.1f} seconds a step of "
        f"{value['tokens a step']:,.0f} tokens, {value['peak GB']:.1f} GB at its peak, and on one batch, repeated, the "
        f"loss falls from {losses.iloc[0]:.2f} to {losses.iloc[-1]:.2f} in {len(losses)} steps. A training on a thousand "
        f"million tokens would take {1e9 / value['tokens a step'] * value['seconds a step'] / 86400:,.0f} days here."
    )


full_in_words() if has_results("training") else Markdown("Not measured yet.")

# %% [markdown]
# ## On more than one processor
#
# Each process takes its share of every batch, and before each step the gradients are added up. On processors nothing in
# your code changes; on GPUs each process moves the model to its own, `cuda:` and the number that `LOCAL_RANK` holds.
# Put the training in a file of its own,
#
# ```python
# from recbook.book import workshop
# from recbook.gpt.config import GPT_PRESETS, GPTConfig
# from recbook.gpt.model import GPT
# from recbook.tokens.files import TokenWindows
# from recbook.training.config import TrainingConfig
# from recbook.training.loop import train
#
# config = GPTConfig(len(workshop.vocabulary()), **GPT_PRESETS["laptop"])
# text = TokenWindows(workshop.token_files()[0], config.context)
# train(GPT(config, seed=0), text, TrainingConfig(), "my_run")
# ```
#
# and start it as often as there are processors: `torchrun --nproc-per-node 2 my_training.py`. A test holds two processes to
# the losses of one.
#
# ## From page to package
#
# The loop of `recbook.training.loop` is the page's, with what a long run needs around it. The optimizers come from
# `recbook.training.config`:

# %%
page.source(train)

# %%
page.source(make_optimizers)

# %% [markdown]
# With the same settings, page and package make the same model:

# %% tags=["nbval-ignore-output"]
settings = TrainingConfig(steps=30, batch=16, warmup=5, precision="float32")
package = GPT(small, seed=0)
train(package, text, settings, progress=False)

ours = GPT(small, seed=0)
rate_of = lambda step: 3e-3 * share(step, steps=30, warmup=5)  # noqa: E731
by_hand(ours, text, 30, make_optimizers(ours, settings), rate_of, largest=1.0)
gaps = [(a - b).abs().max().item() for a, b in zip(ours.parameters(), package.parameters(), strict=True)]
assert max(gaps) < 1e-5
assert all(math.isclose(share(t, 30, 5), learning_rate_schedule(t, settings)) for t in range(30))
if hasattr(torch.optim, "Muon"):
    weight = torch.nn.Parameter(torch.zeros_like(matrix))
    weight.grad = matrix.grad.clone()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    likeness = torch.nn.functional.cosine_similarity(-weight.flatten(), evened(matrix.grad).flatten(), dim=0)
    assert likeness > 0.99  # PyTorch computes the polynomial in bfloat16
print("page and package: the same weights after thirty steps, the same step of Muon")

# %% [markdown]
# ## On real receipts
#
# Online Retail has several times the products of the embedded shop, many more lines, and descriptions that people
# typed. The same model, the same minute, judged on the baskets after the cut:


# %%
def beside_counting():
    columns = {}
    for shown, name in {"embedded shop": "embedded-shop", "Online Retail": "online-retail"}.items():
        if has_results(f"language_model_{name}"):
            rows = pd.DataFrame(load_results(f"language_model_{name}")["rows"])
            losses = rows[rows["metric"] == "validation_loss"].set_index("method")["value"]
            columns[f"nats a token, {shown}"] = losses.map("{:.2f}".format)
            columns[f"perplexity, {shown}"] = np.exp(losses).map("{:,.1f}".format)
    return pd.DataFrame(columns).rename_axis(None) if columns else Markdown("Not measured yet.")


beside_counting()

# %% [markdown]
# Do not compare the columns: the two shops have different tokens, and a loss a token means something only beside another
# on the same tokens. Compare within a column. The GPT is ahead of counting on both, and the distance between the two
# kinds of counting says how much of each shop's text is repetition.
#
# Run this page on those receipts yourself:
#
# `RECBOOK_DATA=online-retail make lab`

# %% [markdown]
# ## Exercises
#
# ### Exercise 7.1: the schedule
# Write `rate(step, steps, warmup, highest, lowest)`: a straight line that reaches `highest` at the last step of the
# warm-up (the first step already moves), then half a cosine from `highest` towards `lowest`, which it would reach at step
# number `steps`.


# %%
def rate(step, steps, warmup, highest, lowest):
    """The learning rate of a step."""
    ...


# %%
check("7.1", rate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rate(step, steps, warmup, highest, lowest):
#     if step < warmup:
#         return highest * (step + 1) / warmup
#     progress = (step - warmup) / (steps - warmup)
#     return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2
# ```
#
# The cosine of zero is one and that of $\pi$ is minus one, so the bracket goes from two to nothing.
#
# </details>
#
# ### Exercise 7.2: AdamW
# Write `adamw(weight, gradient, first, second, step, rate, decay)` with betas of `0.9` and `0.95` and an epsilon of
# `1e-8`; `step` counts from one. Return the new weight and the two new running means. It must work for numbers and for
# arrays.


# %%
def adamw(weight, gradient, first, second, step, rate, decay):
    """The new weight, the running mean of the gradient, the running mean of its square."""
    ...


# %%
check("7.2", adamw)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def adamw(weight, gradient, first, second, step, rate, decay):
#     first = 0.9 * first + 0.1 * gradient
#     second = 0.95 * second + 0.05 * gradient**2
#     direction = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-8)
#     return weight * (1 - rate * decay) - rate * direction, first, second
# ```
#
# The decay shrinks the weight and never enters the means: that is the `W` in the name. In the gradient it would be
# divided by the root of the second mean like everything else, and weights with large gradients would hardly decay.
#
# </details>
#
# ### Exercise 7.3: clipping
# Write `clip(gradients, largest)`: a list of arrays of any shapes; return a list of new arrays, all shortened by one
# factor so that the norm of all of them together is at most `largest`. Short ones stay.


# %%
def clip(gradients, largest):
    """The gradients, shortened together."""
    ...


# %%
check("7.3", clip)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def clip(gradients, largest):
#     norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients))
#     return [gradient * min(1.0, largest / norm) for gradient in gradients]
# ```
#
# </details>
#
# ### Exercise 7.4: parts of a batch
# A batch came in parts. `gradients` are those of each part's *mean* loss, `targets` how many targets each part had. Write
# `whole_gradient(gradients, targets)`: the gradient of the mean loss of the whole batch.


# %%
def whole_gradient(gradients, targets):
    """The whole batch's gradient, an array like each part's."""
    ...


# %%
check("7.4", whole_gradient)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def whole_gradient(gradients, targets):
#     return sum(count * gradient for gradient, count in zip(gradients, targets)) / sum(targets)
# ```
#
# A mean times its count is a sum, sums can be added, and the sum over the count of all is the mean of all.
#
# </details>
#
# ### Exercise 7.5: how long will it take?
# Write `hours(weights, tokens, peak, utilisation)`: the hours to train that many weights on that many tokens, on a
# machine that does `peak` operations a second at its best, of which training reaches the share `utilisation`. Six operations
# a weight and token; leave attention aside.


# %%
def hours(weights, tokens, peak, utilisation):
    """Hours of training."""
    ...


# %%
check("7.5", hours)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def hours(weights, tokens, peak, utilisation):
#     return 6 * weights * tokens / (peak * utilisation) / 3600
# ```
#
# Try it for GPT-2 on your own machine, before you decide to train it there.
#
# </details>
#
# ### Exercise 7.6: what may change in the middle?
# You resume a run, and since the last checkpoint you have (a) bought a machine with more cores, (b) added yesterday's
# receipts to the token file, (c) set `evaluate_every` to a smaller number, (d) moved the folder. Which of these can change
# the final weights, and which does `train` refuse?
#
# <details><summary>Answer</summary>
#
# More cores can: sums are added in another order, so the last bits differ, and over many steps they grow. The longer
# file does: the batch of a step is drawn from the whole file, so every batch is another one; nothing refuses it, because the
# loop does not know where its data come from. So write a new file beside the old. The smaller number does not change
# the weights, but it is refused all the same, because settings are compared as a whole: a run has one record of what it was.
# Moving the folder changes nothing.
#
# </details>
#
# ### Exercise 7.7: five minutes instead of one
# You may train five times as long. Would you take more steps, a larger batch, a wider model, a longer context, or several
# of these? Decide first and write down what you expect. Then try, with `train` and the `laptop` preset as the
# start, and judge on `validation_loss` over the same baskets. Mind that a wider model wants a smaller learning
# rate, and that the shop has only so much text: at which point does the loss on later baskets rise while the loss on
# the batches still falls?

# %% tags=["nbval-ignore-output"]
runs_folder.cleanup()
assert not store.exists()

# %% [markdown]
# ## Summary
#
# - Training is five lines: a batch, a loss, its gradient, a limit, a step. All else serves one of them.
# - The learning rate matters most. Warm up, cool down, and plan the cosine for the number of steps you take.
# - AdamW gives each weight its own step size; Muon gives a matrix one step in all directions; decay is for matrices.
# - Parts of a batch count by their targets. Products may have two bytes a number; weights need four.
# - What is computed from the step's number need not be saved. A checkpoint is written beside, then renamed.
# - A loss says something beside counting on the same tokens, and says nothing about whether facts are true.
#
# You can now train a model and trust its record. Next: make it say what you want.
#
# ## Further reading
#
# - Kingma and Ba, [Adam](https://arxiv.org/abs/1412.6980) (2015); Loshchilov and Hutter,
#   [Decoupled weight decay](https://arxiv.org/abs/1711.05101) (2019).
# - Jordan and others, [Muon](https://kellerjordan.github.io/posts/muon/) (2024): the optimizer, and why the polynomial.
# - Micikevicius and others, [Mixed precision training](https://arxiv.org/abs/1710.03740) (2018).
# - Hoffmann and others, [Training compute-optimal large language models](https://arxiv.org/abs/2203.15556) (2022): how
#   to divide a budget between weights and tokens.
# - Karpathy, [nanochat](https://github.com/karpathy/nanochat): a whole training, from raw text to a model that chats.
