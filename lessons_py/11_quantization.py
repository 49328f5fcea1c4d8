# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The same model in a quarter and an eighth of the bytes
#
# At the end your language model fits in a quarter and in an eighth of its bytes, your recommender ranks with weights as
# small, you know what that costs in quality and in speed, and you can train an adapter on the smallest of them.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,embeddings,language,adapters]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("11_quantization")

# %% [markdown]
# **You will learn**
#
# - to keep a weight in one byte, and why one large weight can spoil a whole matrix of them;
# - where the sixteen levels of NF4 come from, and how two codes share a byte;
# - what a scale costs, and how to quantize the scales too;
# - to read a roofline: why fewer bits make decoding faster, and why four of them make it slower on a CPU;
# - QLoRA: to train an adapter beside weights of four bits that never move.
#
# **You need** the GPT ([Chapter 6](06_gpt.ipynb)) as it was trained ([Chapter 7](07_training.ipynb)), its decoding
# ([Chapter 8](08_generation.ipynb)), the basket model ([Chapter 9](09_baskets.ipynb)), and low-rank adapters
# ([Chapter 10](10_lora.ipynb)).

# %% [markdown]
# ## How many bits does a weight need?
#
# Your GPT keeps each weight in four bytes, enough for seven decimal digits. It was trained from noise, on text full of
# accidents, by steps of random batches. Nobody believes in the seventh digit. What about the third?
#
# There is a reason to ask. To write one token, a GPT reads every weight it has, once, to do two operations with it: a product
# and a sum. A processor does operations far faster than its memory delivers numbers. So the time of a token is, nearly, the
# number of bytes of the model. Fewer bytes are not only a smaller file.

# %% tags=["nbval-ignore-output"]
import copy
import logging
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from scipy.special import ndtri
from torch.nn import functional as F

from recbook.baselines import evaluation, intervals
from recbook.baselines.results import has_results, load_results
from recbook.baskets.model import scores_at_cut
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.generation.generate import generate
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT
from recbook.lora.layers import LoRAConfig, adapted_layers, adapter_parameters, add_adapter
from recbook.quantization import formats
from recbook.quantization import weights as quantized_weights
from recbook.quantization.layers import quantize
from recbook.quantization.weights import Int8Weight, NF4Weight, QuantizedWeight
from recbook.tokens.files import TokenWindows
from recbook.training.config import TrainingConfig
from recbook.training.loop import train, validation_loss

model = workshop.language_model()[0].cpu()
judge = workshop.token_files()[1]

# %% [markdown]
# ## One byte: steps of the largest
#
# A byte holds whole numbers from `-127` to `127` (and `-128`, which we leave out, so that zero stays in the middle). So measure
# the weights in steps, and keep how many steps each one is. The step must be large enough for the largest weight: its
# absolute value over `127`. That is all of *absmax* quantization:
#
# $$\text{step} = \frac{\max |w|}{127}, \qquad \text{code} = \text{round}\left(\frac{w}{\text{step}}\right), \qquad w \approx \text{code} \cdot \text{step}$$


# %%
def to_codes(weights):
    """int8 codes, and the one step that they all share."""
    step = weights.abs().max() / 127
    return (weights / step).round().to(torch.int8), step


weights = torch.tensor([0.031, -0.008, 0.0, 0.0127, -0.0254])
codes, step = to_codes(weights)
print(f"step {step:.6f}")
pd.DataFrame({"weight": weights, "code": codes, "what it stands for": codes * step}).round(4)

# %% [markdown]
# Rounding moves a weight by half a step at most. That is a promise, whatever the weights are, and the tests of the package
# hold it for every weight that a search for counterexamples could think of. But half a step of *what*? Of the largest weight
# around. So whoever is large decides for all who share its step.
#
# ## One large weight
#
# Trained networks have such weights: a few, much larger than the rest. Take a small matrix of ordinary weights and make one of
# them large. Then give a step to the whole matrix, to each row, or to each block of a row, and look at what every weight loses.

# %%
rng = np.random.default_rng(0)
ordinary = torch.from_numpy(0.02 * rng.standard_normal((12, 48))).float()
spoilt = ordinary.clone()
spoilt[4, 29] = 1.0
ways = {"one step for the matrix": "tensor", "a step a row": "row", "a step for sixteen columns of a row": 16}


def error(weights, block):
    """What each weight moves by when it is put in int8 codes, (R, C)."""
    return formats.from_int8(*formats.int8(weights, block), block) - weights


fig, axes = plt.subplots(3, 1, figsize=(7, 5.6))
for ax, (name, block) in zip(axes, ways.items(), strict=True):
    shown = ax.imshow(1000 * error(spoilt, block).abs(), cmap="Blues", vmin=0, vmax=4, aspect="auto")
    ax.set(title=f"Who pays for one large weight: {name}", ylabel="row", yticks=[])
axes[-1].set_xlabel("column")
fig.colorbar(shown, ax=axes, label="thousandths that a weight moves by")
plt.show()

# %% [markdown]
# With one step for the matrix, all pay. With a step a row, only the row does; with blocks, only its neighbours. In
# numbers, as the size of the error beside the size of the weights, for the ordinary matrix and for the spoilt one:

# %%
sizes = {}
for name, block in ways.items():
    scales = formats.int8(spoilt, block)[1].numel()
    lost = {
        kind: error(each, block).square().mean().sqrt() / ordinary.square().mean().sqrt()
        for kind, each in (("ordinary", ordinary), ("one large weight", spoilt))
    }
    sizes[name] = {f"error, {kind}": f"{value:.1%}" for kind, value in lost.items()}
    sizes[name]["bits a weight"] = f"{8 + 32 * scales / spoilt.numel():.2f}"
pd.DataFrame(sizes).T

# %% [markdown]
# The last column is the price: each step is a number of four bytes that has to be kept too. (This matrix is tiny; in a row of
# hundreds of weights a step costs next to nothing.) A step **a row** has a second advantage. A row makes one output: all its
# products are summed, and the step can be multiplied in once, at the end. The sum itself can run on the codes.
#
# Does your model have large weights? The largest of each kind of matrix, in standard deviations, and what one step for all
# would cost there:

# %% tags=["nbval-ignore-output"]
matrices = {
    name.removesuffix(".weight").split(".")[-1]: weight.detach()
    for name, weight in model.named_parameters()
    if weight.ndim == 2 and "position" not in name
}  # of each kind the last block's
table = {}
for name, weight in matrices.items():
    table[name] = {"largest, standard deviations": (weight.abs().max() / weight.std()).item()}
    for title, block in (("matrix", "tensor"), ("row", "row"), ("block", 64)):
        relative = error(weight, block).norm() / weight.norm()
        table[name][f"error %, a step a {title}"] = 100 * relative.item()
table = pd.DataFrame(table).T
assert (table.iloc[:, 1] > table.iloc[:, 2]).all() and (table.iloc[:, 2] > table.iloc[:, 3]).all()
assert table.iloc[:, 2].max() < 4
table.round(2)

# %% [markdown]
# > **Pitfall.** These are outliers of *weights*. In large language models the *inputs* of some layers have far worse ones, a
# > few channels a hundred times the rest, and whoever puts inputs in bytes as well must treat those apart (Dettmers and
# > others, 2022). Here only weights lose bits. The inputs stay what they are.
#
# ## Four bits: sixteen levels, but which?
#
# A byte was easy. With half a byte there are sixteen codes for everything, and it matters where they stand. Even steps, as
# before, put as many levels in the tails, where hardly a weight is, as in the middle, where most are. Better: more levels
# where there are more weights. If weights are drawn from a normal distribution, its *quantiles* stand so.
#
# This is NF4, from QLoRA (Dettmers and others, 2023). Its levels go from $-1$ to $1$; a block of sixty-four weights is divided by its largest
# absolute value first. Zero must be one of them, so that nothing stays nothing. That leaves fifteen: seven below, and eight
# above, each side at equal steps of probability. The outermost quantile cannot be the one at probability one, which is
# infinite, so it is moved in by half a share.


# %%
def levels_of_a_normal():
    tail = 0.9677083  # the mean of 1 - 1/32 and 1 - 1/30: half a share short of one, for sixteen levels and for fifteen
    below = -ndtri(torch.linspace(tail, 0.5, 8)[:-1].double().numpy())
    above = ndtri(torch.linspace(tail, 0.5, 9)[:-1].double().numpy())[::-1]
    levels = torch.from_numpy(np.concatenate([below, [0.0], above])).float()
    return levels / levels.max()


levels = levels_of_a_normal()
even = torch.linspace(-1, 1, 16)
print(" ".join(f"{level:+.3f}" for level in levels))

# %% [markdown]
# Are your weights normal? Here are those of the model, each divided by the largest of its block, with the levels of NF4 under them: the
# matrices inside the GPT's blocks, and the table of its tokens.


# %% tags=["nbval-ignore-output"]
def of_the_largest(weight):
    """Each weight over the largest of its sixty-four."""
    blocks = weight.flatten()[: weight.numel() // 64 * 64].view(-1, 64)  # (n,) -> (blocks, 64)
    return (blocks / blocks.abs().amax(1, keepdim=True)).flatten()


def rounded(shares, levels):
    """Each number's nearest level."""
    return levels[torch.bucketize(shares, (levels[1:] + levels[:-1]) / 2)]


inside = torch.cat([of_the_largest(weight) for name, weight in matrices.items() if name != "token_embedding"])
off = {
    name: ((rounded(inside, each) - inside).norm() / inside.norm()).item()
    for name, each in (("NF4", levels), ("even", even))
}
used = torch.bincount(torch.bucketize(inside, (levels[1:] + levels[:-1]) / 2), minlength=16) / len(inside)
assert off["NF4"] < 1.05 * off["even"]
fig, ax = plt.subplots()
common = dict(bins=101, range=(-1, 1), density=True)
ax.hist(inside, color="#9fb8cc", label="inside the blocks", **common)
ax.hist(of_the_largest(matrices["token_embedding"]), histtype="step", color="#1b4f72", label="token table", **common)
ax.vlines(levels, -0.26, -0.04, color="#b3541e", linewidth=2)
ax.vlines(even, -0.52, -0.30, color="#6b6b6b", linewidth=2)
ax.text(1.03, -0.22, "NF4", color="#b3541e")
ax.text(1.03, -0.48, "even", color="#6b6b6b")
ax.set(xlabel="weight / largest of its block", ylabel="density", title="NF4's levels stand where the weights are")
ax.legend(loc="upper right")
plt.show()

# %% tags=["nbval-ignore-output"]
assert used.min() > 0
Markdown(
    f"Inside the blocks there is a bell. NF4's levels move the weights by {off['NF4']:.1%} of their size, even levels by "
    f"{off['even']:.1%} (and those have no zero). The least used level gets {used.min():.1%} of the weights and the most used "
    f"{used.max():.1%}, where equal shares would be {1 / 16:.1%}: each block is divided by its own largest weight, which makes the "
    "bell narrower than the one whose quantiles these are. NF4 is a good rule, and not the best there could be (Yoshida, below)."
)

# %% [markdown]
# The token table is no bell, and it is worth finding out why. Count how often each token occurs in the text that the model learned from.

# %% tags=["nbval-ignore-output"]
occurs = np.bincount(workshop.token_files()[0], minlength=model.config.vocabulary)
rows = matrices["token_embedding"]
spread = (rows.abs().amax(1) / rows.std(1)).numpy()  # a row's largest, in standard deviations
never, often = spread[occurs == 0], spread[occurs >= 100]
assert len(often) and np.isfinite(spread).all()
Markdown(
    f"{(occurs == 0).mean():.0%} of the tokens never occur there. "
    + (
        f"The largest number in the row of such a token is {never.mean():.1f} standard deviations of its row, in the rows of tokens that occur a hundred times or more "
        f"{often.mean():.1f}. All that training could teach the former is to be unlikely, whatever came before, and it did that by moving few of their numbers, a long "
        "way. Beside those the others are small: an outlier that you trained yourself."
        if len(never) and never.mean() > 1.5 * often.mean()
        else "Their rows differ little from the others here; a longer training widens the gap."
    )
)

# %% [markdown]
# ## Two codes in a byte
#
# No computer addresses half a byte. So two codes share one: the first moves up by four bits, the second goes in below.

# %%
codes = torch.tensor([3, 12, 7, 7], dtype=torch.uint8)
packed = (codes[0::2] << 4) | codes[1::2]
back = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
assert torch.equal(back, codes)
print("codes", codes.tolist(), "-> bytes", [f"{byte:08b}" for byte in packed.tolist()], "-> codes", back.tolist())

# %% [markdown]
# ## The scales cost bits too
#
# A block of sixty-four is small on purpose: the smaller, the fewer suffer from one large weight. But each has a scale of
# thirty-two bits. Spread over the block that is half a bit a weight, an eighth on top of the four. **Double quantization** puts the
# scales themselves in a byte each: their mean is taken off, since they are all above zero, and groups of
# `256` of them share a step.

# %%
count = 2**20  # weights
plain = formats.weight_bytes(1024, 1024, "nf4")
double = formats.weight_bytes(1024, 1024, "nf4-double")
by_hand = count // 2 + count // 64 + 4 * count // 64 // 256 + 4  # codes, a byte a block, a step a group, the mean
assert double == by_hand
bits = {
    "codes alone": 4,
    "with a float32 scale a block": 8 * plain / count,
    "with doubly quantized scales": 8 * double / count,
}
pd.Series(bits, name="bits a weight").round(3).to_frame()

# %% [markdown]
# ## Is it the library's?
#
# The library of the paper's authors is `bitsandbytes`. Give it and our package the same weights, with a block of zeros and a
# few monsters among them, in a shape that blocks do not divide. Levels, bytes, scales and dequantized weights must be equal, to the
# last bit.

# %%
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it would advise another package
import bitsandbytes.functional as library

awkward = torch.from_numpy(0.02 * rng.standard_normal((37, 50))).float()
awkward[:3] = 0
awkward[5, ::7] *= 100
theirs, state = library.quantize_4bit(awkward, blocksize=64, quant_type="nf4")
ours, absmax = formats.nf4(awkward)
assert torch.equal(formats.NF4_LEVELS, library.get_4bit_type("nf4", device="cpu"))
assert torch.equal(ours, theirs.flatten()) and torch.equal(absmax, state.absmax)
assert torch.equal(formats.from_nf4(ours, absmax, awkward.shape), library.dequantize_4bit(theirs, state))
print(f"{awkward.numel():,} weights in {len(ours)} bytes and {len(absmax)} scales: equal to the last bit")

# %% [markdown]
# In double quantization the two differ on purpose: the library's byte for a scale follows an uneven code, ours counts even steps.
# The bytes are as many, and the weights err as little.
#
# ## From page to package
#
# The room of this chapter is `recbook/quantization`. Its `formats.py` holds what this page did, as functions on tensors:

# %%
page.source(formats.nf4)

# %%
page.source(formats.from_nf4)

# %% [markdown]
# Do page and package agree?

# %%
assert torch.equal(levels, formats.NF4_LEVELS)
page_codes, page_step = to_codes(ordinary)
package_codes, package_step = formats.int8(ordinary, "tensor")
assert torch.equal(page_codes, package_codes) and page_step == package_step.item()
whole = torch.from_numpy(rng.standard_normal((32, 64))).float()
largest = whole.abs().amax(1, keepdim=True)  # here a row is a block
assert torch.allclose(rounded(whole / largest, levels) * largest, formats.from_nf4(*formats.nf4(whole), whole.shape))
assert torch.equal(formats.pack(codes), packed) and torch.equal(formats.unpack(packed, 4), codes)
print("codes, steps, levels and bytes: equal")

# %% [markdown]
# A model needs more than functions: layers that hold codes, multiply with them, and take the place of its own. `quantize`, in
# `recbook/quantization/layers.py`, replaces every linear layer and embedding of any module by a quantized one. What has few
# weights is left alone: it would save nothing, and norms and biases often matter most. So is the table of positions. The tied
# head is included, since it *is* the token embedding.

# %%
page.source(quantize)

# %% [markdown]
# How does such a layer multiply? Its weight is a `QuantizedWeight` of `recbook/quantization/weights.py`. For int8 PyTorch has a
# kernel that reads the codes as they are. For NF4 it has none, so the weight is dequantized a part at a time, multiplied, and
# forgotten. In the backward pass it is dequantized once more. Remember that: it is the whole trick of QLoRA.

# %%
page.source(QuantizedWeight.product)

# %%
page.source(Int8Weight._product)

# %% [markdown]
# > **Pitfall.** That product is fast with inputs in bfloat16. With float32 inputs the same call is slower than a plain float32
# > product, without a word of warning. And where the number of columns is no multiple of sixteen, the release that this book was
# > made with reads beyond the row. The package checks both. Measure, and check what comes out, before you trust a
# > kernel that you found.
#
# ## The ladder
#
# Now your model, rung by rung. Bytes of its weights; *perplexity*, $e$ to the nats a token, on receipts that it has never
# seen; and tokens a second, one text at a time.

# %% tags=["nbval-ignore-output"]
some = TokenWindows(judge[: 64 * model.config.context + 1], model.config.context)
prompt = judge[:16].astype(int).tolist()


def rung(scheme):
    """The model in a scheme: a copy, the first one stays whole."""
    small = copy.deepcopy(model)
    if scheme == "bfloat16":
        return small.bfloat16()
    return small if scheme == "float32" else quantize(small, scheme)


def megabytes(module):
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()]) / 1e6


def speeds(models, tokens, rounds=5):
    """Tokens a second of each, one text at a time: the median of rounds in which they take turns."""
    taken = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, each in models.items():
            start = time.perf_counter()
            generate(each, [prompt], tokens)
            taken[name].append(time.perf_counter() - start)
    return {name: tokens / np.median(seconds[1:]) for name, seconds in taken.items()}


def perplexity_of(each):
    """With the products that decoding uses, though so many rows at once would go another way."""
    few, quantized_weights.FEW_ROWS = quantized_weights.FEW_ROWS, 10**9
    try:
        with torch.inference_mode():
            nats = [F.cross_entropy(each(x).float().flatten(0, 1), y.flatten()).item() for x, y in some.blocks(8)]
    finally:
        quantized_weights.FEW_ROWS = few
    return math.exp(np.mean(nats))


rungs = {scheme: rung(scheme) for scheme in ("float32", "bfloat16", *formats.SCHEMES)}
perplexity = {name: perplexity_of(each) for name, each in rungs.items()}
speed = speeds(rungs, 64)
ladder = pd.DataFrame(
    {
        "megabytes": {name: megabytes(each) for name, each in rungs.items()},
        "perplexity": perplexity,
        "tokens a second": speed,
    }
)
assert ladder["megabytes"].is_monotonic_decreasing
assert perplexity["int8"] < 1.01 * perplexity["float32"] and perplexity["nf4"] < 1.3 * perplexity["float32"]
ladder.round({"megabytes": 2, "perplexity": 3, "tokens a second": 0})

# %% tags=["nbval-ignore-output"]
worse = {name: perplexity[name] / perplexity["float32"] - 1 for name in rungs}
shrunk = {name: ladder.loc["float32", "megabytes"] / ladder.loc[name, "megabytes"] for name in rungs}
assert abs(worse["int8"]) < 0.01 and shrunk["int8"] > 3
Markdown(
    f"int8 takes {shrunk['int8']:.1f} times fewer bytes and changes perplexity by {worse['int8']:+.2%}. NF4 takes {shrunk['nf4']:.1f} "
    f"times fewer and changes it by {worse['nf4']:+.1%}, with doubly quantized scales {shrunk['nf4-double']:.1f} times fewer and "
    f"{worse['nf4-double']:+.1%}. (What is left whole, norms, biases and positions, keeps these factors below four and eight.)"
)

# %% [markdown]
# The bytes are what was promised. The speed is not. A model of this size fits in the processor's own cache, so there is little
# reading to be saved, and each call of a function that does more takes longer. Hold that thought.
#
# The recommender is asked the same question. Its numbers are product vectors and a small GPT; what counts is the list that a
# shopper sees.

# %% tags=["nbval-ignore-output"]
receipts = workshop.cleaned().receipts
split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
recommender = workshop.basket_gpt()
judged = {}
for scheme in ("float32", "int8", "nf4"):
    few = copy.deepcopy(recommender)
    if scheme != "float32":
        quantize(few.network, scheme)
    judged[scheme] = evaluation.evaluate(scores_at_cut(few, split), split)

shown = {}
for scheme, table in judged.items():
    shown[scheme] = {part: f"{table[part, 'ndcg@10'].mean():.3f}" for part in evaluation.PARTS}
    change = intervals.paired(table["all", "ndcg@10"].to_numpy(), judged["float32"]["all", "ndcg@10"].to_numpy())
    shown[scheme]["all, against float32"] = f"{change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
    assert abs(change.difference) < 0.03
pd.DataFrame(shown).T.rename_axis(columns="NDCG@10")

# %% [markdown]
# The last column is the difference shopper by shopper, with its interval. Where the interval holds zero, this month cannot tell the
# two apart. Ranking is kind to rounding: a score may move, as long as few products change places.
#
# ## Why four bits are slow here: a roofline
#
# A product of weights with $n$ inputs must do two things: read the weights, and do $2n$ operations with each. Both go on at once, so it takes
# as long as the slower one. Measure this machine's two limits, and you know the best that any product can do. That is its **roofline**
# (Williams and others, 2009): on the left, where there are few operations a byte, a slope set by the memory; on the right a flat roof set by
# the arithmetic.

# %% tags=["nbval-ignore-output"]
much = torch.ones(50_000_000)
square = torch.randn(1024, 1024)


def seconds(run, rounds=4):
    """The shortest time of a call in some rounds, each after the caches were filled with something else."""
    taken = []
    for _ in range(rounds + 1):
        much.sum()
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


bandwidth = much.nbytes / seconds(much.sum)  # bytes a second
peak, peak16 = (2 * 1024**3 / seconds(lambda s=s: s @ s, 7) for s in (square, square.bfloat16()))  # operations a second
assert bandwidth > 1e9 and peak > 1e9
Markdown(
    f"This machine reads {bandwidth / 1e9:.0f} GB a second from memory and does {peak / 1e9:.0f} billion float32 operations a second: "
    f"in the time that one byte takes, {peak / bandwidth:.0f} operations. Decoding one text does two a weight."
)

# %% [markdown]
# Now the largest product of the full-size model, its head: GPT-2's tokens and some thousands of products, times the width. With one, with
# sixteen and with a hundred and twenty-eight inputs; in float32, bfloat16, int8 and NF4.

# %% tags=["nbval-ignore-output"]
vocabulary, width = 54_304, GPT_PRESETS["full"]["width"]
head = 0.02 * torch.randn(vocabulary, width)
bfloat16_head, int8_head, nf4_head = head.bfloat16(), Int8Weight.of(head), NF4Weight.of(head)
routes = {
    "float32": (lambda x: x @ head.T, formats.weight_bytes(*head.shape, "float32")),
    "bfloat16": (lambda x: x.bfloat16() @ bfloat16_head.T, formats.weight_bytes(*head.shape, "bfloat16")),
    "int8": (int8_head.linear, formats.weight_bytes(*head.shape, "int8")),
    "NF4": (nf4_head.linear, formats.weight_bytes(*head.shape, "nf4")),
}
points = []
with torch.inference_mode():
    for inputs in (1, 16, 128):
        x = torch.randn(inputs, width)
        for name, (product, size) in routes.items():
            points.append((name, inputs, 2 * inputs * head.numel(), size, seconds(lambda p=product, x=x: p(x))))
points = pd.DataFrame(points, columns=["weights", "inputs", "operations", "bytes", "seconds"])
times = points.pivot(index="inputs", columns="weights", values="seconds")[list(routes)]
assert 1.3 * times.loc[1, "int8"] < times.loc[1, "float32"] and 1.5 * times.loc[1, "int8"] < times.loc[1, "NF4"]
(1000 * times).round(1).rename_axis(columns="milliseconds")

# %%
fig, ax = plt.subplots(figsize=(7, 4.4))
reach = np.logspace(-1, 3, 100)  # operations a byte
ax.plot(reach, np.minimum(peak, bandwidth * reach) / 1e9, color="#222222", linewidth=2)
ax.plot(reach, np.minimum(peak16, bandwidth * reach) / 1e9, color="#222222", linestyle="--", linewidth=1)
ax.text(900, 1.1 * peak / 1e9, "float32", ha="right")
ax.text(900, 1.1 * peak16 / 1e9, "bfloat16", ha="right")
for (name, some_points), marker in zip(points.groupby("weights", sort=False), "os^D", strict=True):
    ax.plot(
        some_points["operations"] / some_points["bytes"], some_points["operations"] / some_points["seconds"] / 1e9,
        marker=marker, linestyle=":", label=name,
    )  # fmt: skip
ax.set(xscale="log", yscale="log", xlabel="operations for each byte of weights that is read")
ax.set(ylabel="billion operations a second", title="With one input the memory is the roof; NF4 does not reach it")
ax.legend(title=f"{', '.join(map(str, times.index))} inputs: left to right", fontsize=9, title_fontsize=9)
plt.show()

# %% tags=["nbval-ignore-output"]
part = NF4Weight.of(head[:1024])
unpacking = seconds(part.dequantized, 9) * vocabulary / 1024
reading = {name: size / bandwidth for name, (_, size) in routes.items()}
assert unpacking > 2 * reading["NF4"]
Markdown(
    f"Look at the leftmost points, one input each: decoding. Reading float32's bytes takes {1000 * reading['float32']:.1f} ms at best and the "
    f"product {1000 * times.loc[1, 'float32']:.1f}: with the memory as the limit only fewer bytes help, and int8, which has a quarter of them, is "
    f"{times.loc[1, 'float32'] / times.loc[1, 'int8']:.1f} times as fast. NF4 has half of int8's, to be read in {1000 * reading['NF4']:.1f} ms, and takes "
    f"{1000 * times.loc[1, 'NF4']:.1f} ms. A processor cannot multiply with codes that stand for levels: it looks each one up, and multiplies it by its "
    f"block's scale. To do that for all of these weights takes about {1000 * unpacking:.0f} ms, however few the inputs are. With {times.index[-1]} inputs the price is "
    f"shared: there NF4 takes {times.loc[times.index[-1], 'NF4'] / times.loc[times.index[-1], 'float32']:.1f} times as long as float32, with one input "
    f"{times.loc[1, 'NF4'] / times.loc[1, 'float32']:.1f} times."
)

# %% [markdown]
# So on a CPU four bits save memory and cost speed. On a GPU a kernel can look codes up in registers, beside arithmetic that would be idle,
# and then bytes saved are time saved (this book has not measured that). The bytes are the same everywhere; what they are worth depends on the machine.
#
# ## A model that does not fit in the cache
#
# Back to the thought that you held. At the full size, the one for a large GPU, the weights no longer fit in a cache. It does not have to be trained: how
# fast a weight is read does not depend on what it says.

# %% tags=["nbval-ignore-output"]
large = GPT(GPTConfig(vocabulary, **GPT_PRESETS["full"]), seed=0).eval()
in_int8 = quantize(copy.deepcopy(large), "int8")
full_speed = speeds({"float32": large, "int8": in_int8}, 24, rounds=3)
faster = full_speed["int8"] / full_speed["float32"]
assert faster > 1.3
Markdown(
    f"{large.config.parameters / 1e6:.0f} million weights: {megabytes(large):.0f} MB in float32, {megabytes(in_int8):.0f} in int8. One text at a time, "
    f"float32 writes {full_speed['float32']:.0f} tokens a second, int8 {full_speed['int8']:.0f}: {faster:.1f} times as fast."
)

# %% [markdown]
# The bytes are a quarter, so memory alone would give four times. Less comes of it because the keys and values, the norms and
# the calls of functions take the time that they took before. It is Amdahl's law: what you do not speed up is what remains. (Where the cache
# holds the codes but not the floats, more than four can come of it.)
#
# ## QLoRA: train beside weights that never move
#
# Codes cannot be trained. A gradient step is far smaller than the distance to the next level; rounded, it is no step at all. But
# Chapter 10 trained a model whose weights were frozen: what learns there are two low-rank matrices beside each of them. So freeze
# the base in **four bits**, and put the adapters, in float32, beside it. That is QLoRA.
#
# What does it save? Training keeps four numbers of four bytes for every trained number: itself, its gradient, and two of the
# optimizer's. For the full-size model:

# %%
settings = LoRAConfig(rank=16)
adapter = adapter_parameters(large, settings)
everything = large.config.parameters
in_nf4 = quantize(copy.deepcopy(large), "nf4-double")
frozen = {
    "full fine-tuning": 0,
    "LoRA, float32 base": 4 * everything,
    "QLoRA, NF4 base": round(1e6 * megabytes(in_nf4)),
}
trained = {"full fine-tuning": everything, "LoRA, float32 base": adapter, "QLoRA, NF4 base": adapter}
dequantized = {"full fine-tuning": 0, "LoRA, float32 base": 0, "QLoRA, NF4 base": 4 * vocabulary * width}
memory = pd.DataFrame(
    {
        "frozen weights": frozen,
        "trained, 16 bytes each": {name: 16 * n for name, n in trained.items()},
        "dequantized at most": dequantized,
    }
)
(memory.assign(total=memory.sum(axis=1)) / 1e6).round(1).rename_axis(columns="MB")

# %% [markdown]
# The last column is the head: our loss takes it whole, dequantized to float32 for the moment. (A loss that went through the
# vocabulary in parts would not need that.) On top come the activations that the backward pass needs, nearly the same for all
# three. But not the weights of the layers: an ordinary layer
# keeps its weight for the backward pass, and if that weight were a float32 copy made from codes, all would be lost. Ours keeps
# the codes, and dequantizes them again. Watch what is kept:

# %%
kept = []
layer = torch.nn.Linear(512, 2048).requires_grad_(False)
codes_layer = quantize(copy.deepcopy(layer), "nf4")
for name, each in {"float32": layer, "NF4": codes_layer}.items():
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda tensor: tensor):
        each(torch.ones(4, 512, requires_grad=True))
    print(f"{name}: {sum(kept):,} numbers kept for the backward pass")

# %% [markdown]
# Does it learn? The model has read the receipts before the cut. Let an adapter on the NF4 base read the first half of the month
# after it, and judge it on the second half; and the same adapter on the float32 base, which no rounding has touched.

# %% tags=["nbval-ignore-output"]
half = len(judge) // 2
reads = TokenWindows(judge[:half], model.config.context)
second = TokenWindows(judge[half : half + 64 * model.config.context + 1], model.config.context)
steps = TrainingConfig(
    steps=30, batch=16, warmup=3, learning_rate=2e-3, weight_decay=0.0, evaluate_every=30, save_every=30
)


def adapted(scheme):
    """An adapter on the base in a scheme, after a short training, and the base's codes before it."""
    student = rung(scheme)
    codes = {name: tensor.clone() for name, tensor in student.state_dict().items() if not tensor.is_floating_point()}
    add_adapter(student, settings=LoRAConfig(rank=8, alpha=16.0), seed=0)
    train(student, reads, steps, progress=False)
    return student.eval(), codes


students = {"float32": adapted("float32")[0]}
students["NF4"], before = adapted("nf4")
losses = pd.DataFrame(
    {
        "the base": [validation_loss(rungs[name], second)["validation_loss"] for name in ("float32", "nf4")],
        "with its adapter": [validation_loss(students[name], second)["validation_loss"] for name in students],
    },
    index=list(students),
)
after = {name.replace(".base.", "."): tensor for name, tensor in students["NF4"].state_dict().items()}
assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
assert (losses["with its adapter"] < losses["the base"]).all()
losses.round(3).rename_axis(columns="nats a token")

# %% tags=["nbval-ignore-output"]
apart = losses.loc["NF4"] - losses.loc["float32"]
moved = copy.deepcopy(rungs["float32"])
add_adapter(moved, settings=LoRAConfig(rank=8, alpha=16.0), seed=0)
for ours, theirs in zip(adapted_layers(moved).values(), adapted_layers(students["NF4"]).values(), strict=True):
    ours.A.load_state_dict(theirs.A.state_dict())
    ours.B.load_state_dict(theirs.B.state_dict())
elsewhere = validation_loss(moved, second)["validation_loss"]
assert np.isfinite(elsewhere)
Markdown(
    f"A gradient comes through the codes: beside four bits the adapter gains {losses.loc['NF4', 'the base'] - losses.loc['NF4', 'with its adapter']:.3f} "
    f"nats, beside float32 {losses.loc['float32', 'the base'] - losses.loc['float32', 'with its adapter']:.3f}, and not one code has changed. What rounding "
    f"cost was {apart['the base']:+.3f} nats before and is {apart['with its adapter']:+.3f} after: "
    f"{'part of it is learned back.' if apart['with its adapter'] < 0.9 * apart['the base'] else 'it is not learned back in so few steps.'} (That is little either way: there was little to learn back.) "
    f"The adapter of the NF4 base, put on the float32 base, gives {elsewhere:.3f}, where that base's own gives {losses.loc['float32', 'with its adapter']:.3f}."
)

# %% [markdown]
# > **Pitfall.** An adapter that was trained beside four bits belongs to *those* weights; its file says so, and another base is
# > refused unless you insist. And it cannot be merged into codes: they have no room for it.
#
# ## On real receipts
#
# The same on Online Retail. A full-size model, trained on two cores for a quarter of an hour, which is too little to be good and enough to have
# something to lose; each rung in a process of its own, ours and the library's. `benchmarks/quantization.py` says how each column is measured.


# %%
def figures(name):
    rows = load_results(name)["rows"] if has_results(name) else []
    return pd.DataFrame(rows, columns=["method", "metric", "batch", "split", "value", "low", "high"])


full_ladder = figures("quantization_full_online-retail")
named = full_ladder["metric"].where(
    full_ladder["batch"].isna(), "tokens/s, batch " + full_ladder["batch"].map("{:.0f}".format)
)
wanted = {
    "megabytes_of_weights": "MB", "peak_megabytes_decoding": "peak MB, decoding", "perplexity": "perplexity",
    "tokens/s, batch 1": "tokens/s, one text", "tokens/s, batch 16": "tokens/s, sixteen",
}  # fmt: skip
if len(full_ladder):
    climbed = full_ladder.assign(metric=named).pivot(index="method", columns="metric", values="value")
    climbed = climbed.loc[full_ladder["method"].unique(), list(wanted)].rename(columns=wanted).rename_axis(columns=None)
    climbed = climbed.round(
        {"MB": 1, "peak MB, decoding": 0, "perplexity": 3, "tokens/s, one text": 0, "tokens/s, sixteen": 0}
    )
else:
    climbed = pd.DataFrame({"measured": ["not yet"]})
climbed

# %% [markdown]
# The same as a picture: each rung by its bytes, on the left against what it costs, on the right against how fast it writes.

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.6))
if "MB" in climbed:
    worse = 100 * (climbed["perplexity"] / climbed.loc["float32", "perplexity"] - 1)
    for ax, values, label in (
        (axes[0], worse, "% more perplexity"),
        (axes[1], climbed["tokens/s, one text"], "tokens a second"),
    ):
        for name, value in values.items():
            theirs = name.startswith("bitsandbytes")
            ax.plot(climbed.loc[name, "MB"], value, "^" if theirs else "o", color="#d9822b" if theirs else "#1b4f72")
            if not theirs:  # the two NF4 stand close together: one label above, one below
                ax.annotate(
                    name, (climbed.loc[name, "MB"], value), xytext=(5, -11 if name == "nf4" else 5),
                    textcoords="offset points", fontsize=8,
                )  # fmt: skip
        ax.margins(y=0.15)
        ax.set(xscale="log", xlabel="megabytes of weights", ylabel=label)
        ax.set_xticks([30, 60, 120, 240], [30, 60, 120, 240])
        ax.minorticks_off()
axes[0].set_title("Ours: circles; the library's: triangles")
plt.show()

# %%
if "MB" in climbed:
    faster = climbed.loc["int8", "tokens/s, one text"] / climbed.loc["float32", "tokens/s, one text"]
    lost = climbed.loc["int8", "perplexity"] / climbed.loc["float32", "perplexity"] - 1
    assert lost < 0.01
    verdict = f"int8 writes {faster:.1f} times as many tokens a second as float32, one text at a time, and changes perplexity by {lost:+.2%}."
else:
    verdict = "Not measured yet."
Markdown(verdict)

# %% [markdown]
# And the recommender:

# %%
ndcg = figures("quantization_baskets_online-retail")
if len(ndcg):
    paired = ndcg[ndcg["metric"] == "ndcg@10 against float32"]
    paired = paired.assign(cell=[f"{row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]" for row in paired.itertuples()])
    lost = paired.pivot(index="method", columns="split", values="cell")[list(evaluation.PARTS)]
    lost = lost.loc[paired["method"].unique()].rename_axis(columns="NDCG@10 against float32")
else:
    lost = pd.DataFrame({"measured": ["not yet"]})
lost

# %% [markdown]
# Run this page on those receipts yourself. What changes is the model and the recommender; the bytes and the roofline do not.
#
# `RECBOOK_DATA=online-retail make lab`

# %% [markdown]
# ## Exercises
#
# ### Exercise 11.1: a step a row
# Write `by_row(weights)` for a `numpy` array (R, C) without rows of zeros: its int8 codes as integers (R, C), and the step of each row,
# `(R, 1)`.


# %%
def by_row(weights):
    """Codes from -127 to 127, and steps: (R, C), (R, 1)."""
    ...


# %%
check("11.1", by_row)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def by_row(weights):
#     steps = np.abs(weights).max(axis=1, keepdims=True) / 127
#     return np.rint(weights / steps).astype(int), steps
# ```
#
# No code can leave the range: the largest weight of a row is exactly `127` steps.
#
# </details>
#
# ### Exercise 11.2: two codes in a byte
# Write `pack(codes)`: from an even number of codes, a `numpy` array of integers from `0` to `15`, the bytes that hold them, the first
# of each pair in the high half.


# %%
def pack(codes):
    """Half as many numbers, from 0 to 255."""
    ...


# %%
check("11.2", pack)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def pack(codes):
#     return codes[0::2] * 16 + codes[1::2]
# ```
#
# To move up by four bits is to multiply by `16`. Back again: `packed // 16` and `packed % 16`.
#
# </details>
#
# ### Exercise 11.3: the nearest level
# Write `nearest(block, levels)`: for one block of weights (n,) and sorted levels from `-1` to `1`, the code of each weight, which is the index of
# its nearest level once the block is divided by its largest absolute value, and that value.


# %%
def nearest(block, levels):
    """Codes (n,) and the scale."""
    ...


# %%
check("11.3", nearest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest(block, levels):
#     largest = np.abs(block).max()
#     distances = np.abs(block[:, None] / largest - levels)  # (n, levels)
#     return distances.argmin(axis=1), largest
# ```
#
# The package does not compare with every level: `bucketize` finds the place among the borders half-way between neighbours.
#
# </details>
#
# ### Exercise 11.4: to the byte
# Write `double_bytes(weights, block, group)`: the bytes of so many weights in codes of four bits, with a byte for the scale of each block,
# a step of four bytes for each group of scales, and one mean of four bytes. What is left over at an end is a block, a group, a byte of its own.


# %%
def double_bytes(weights, block, group):
    """Bytes, a whole number."""
    ...


# %%
check("11.4", double_bytes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def double_bytes(weights, block, group):
#     blocks = math.ceil(weights / block)
#     return math.ceil(weights / 2) + blocks + 4 * math.ceil(blocks / group) + 4
# ```
#
# Try blocks of `32`: the error falls a little, and the scales cost twice as much.
#
# </details>
#
# ### Exercise 11.5: under the roof
# Write `least_seconds(rows, columns, batch, bytes_a_weight, bandwidth, peak)`: the shortest time that a product of a weight (rows, columns) with `batch`
# vectors can take on a machine that reads `bandwidth` bytes and does `peak` operations a second.


# %%
def least_seconds(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    """The bound that the roofline gives."""
    ...


# %%
check("11.5", least_seconds)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def least_seconds(rows, columns, batch, bytes_a_weight, bandwidth, peak):
#     weights = rows * columns
#     reading = weights * bytes_a_weight / bandwidth
#     multiplying = 2 * weights * batch / peak
#     return max(reading, multiplying)
# ```
#
# Set the two equal: the batch from which fewer bytes stop helping is `bytes_a_weight * peak / (2 * bandwidth)`.
#
# </details>
#
# ### Exercise 11.6: rows or columns?
# Somebody gives int8 a step for each *column* of the weight of a linear layer instead of each row. The error is about the same. What is lost?
#
# <details><summary>Answer</summary>
#
# An output is the sum over the columns of one row: code times step times input. With a step a row the step is the same in the whole sum, and
# multiplies it once at the end. With a step a column it is another for each term: either every code is multiplied by its step
# first, which is what the kernel wanted to avoid, or the inputs are, which works, and has to be done for each input anew.
#
# </details>
#
# ### Exercise 11.7: which layers mind?
# Quantize the language model to NF4 leaving out one kind of layer at a time, with `skip`. Which kind wins back most of the perplexity for each byte that it
# costs? Is it the one with the largest weights in the table above? Then try blocks of other sizes with `formats.nf4(weight, block)`.

# %% [markdown]
# ## Summary
#
# - A code counts steps of the largest weight that shares its scale. Rounding costs half a step at most, so one large weight costs all who share its
#   step: give each row, or each block, its own.
# - NF4's levels are quantiles of the normal distribution, divided by the outermost, with an exact zero. Two codes share a byte;
#   the scales, quantized too, cost an eighth of a bit a weight.
# - int8 takes a quarter of the bytes and costs next to nothing in quality. NF4 takes an eighth, and costs a little.
# - Decoding one text is bound by memory: fewer bytes are more tokens a second, as long as codes can be multiplied as they are. On a CPU those of
#   NF4 cannot, so it saves memory and costs time.
# - QLoRA freezes four bits, trains a float32 adapter beside them, and dequantizes the weights again in the backward pass.
#
# The model is small, adapted and quick. Part IV puts it to work: it ranks, and it explains.
#
# ## Further reading
#
# - Dettmers and others, [LLM.int8()](https://arxiv.org/abs/2208.07339) (2022): a scale a row, and what to do about outliers of inputs.
# - Dettmers and others, [QLoRA](https://arxiv.org/abs/2305.14314) (2023): NF4, double quantization, adapters on a frozen base.
# - Yoshida, [NF4 isn't information theoretically optimal](https://arxiv.org/abs/2306.06965) (2023): what dividing by a block's largest does to the
#   quantiles.
# - Frantar and others, [GPTQ](https://arxiv.org/abs/2210.17323) (2022), and Lin and others, [AWQ](https://arxiv.org/abs/2306.00978) (2023): rounding that
#   looks at the inputs.
# - Williams and others, [Roofline](https://doi.org/10.1145/1498765.1498785) (2009): the picture, and how to read it.
# - [bitsandbytes](https://github.com/bitsandbytes-foundation/bitsandbytes): the library that the proofs compare with.
