# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A GPT that you wrote, equal to the library's
#
# At the end you have built a GPT from a plain average, you know what each of its parts is for because you have seen the
# model without it, and its logits are those of the library's GPT-2, number by number.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,language]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("06_gpt")

# %% [markdown]
# **You will learn**
#
# - how attention grows out of an average: weights by similarity, queries and keys, several heads, each step measured;
# - why no position may see the future, and how to prove that none does;
# - what positions, the residual stream, norms and the initialisation are for;
# - what a GPT costs in parameters, memory and arithmetic, and how a cache and a better loss save most of two of them;
# - to check a model of your own against a library's, to the last digits.
#
# **You need** text and products as tokens ([Chapter 5](05_tokens.ipynb)), and PyTorch's tensors and gradients.

# %% [markdown]
# ## What must a model know to guess what comes next on a receipt?
#
# Chapter 5 turned receipts into rows of tokens. A language model reads such a row from the left and, at every place,
# says how likely each token is to come next. What does it have to know for that? Take a receipt in its simplest form:
# a token for each product, and behind it the words of the product's description.

# %% tags=["nbval-ignore-output"]
import math
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn
from torch.nn import functional as F

from recbook.baselines.results import has_results, load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.cross_entropy import linear_cross_entropy
from recbook.gpt.model import GPT, Attention, Block, KVCache, from_transformers, to_transformers
from recbook.tokens.vocabulary import CONTROL_TOKENS

receipts = workshop.cleaned().receipts

# %%
sold = receipts.groupby("code")["invoice"].nunique()
products = sold.sort_values(ascending=False, kind="stable").index[:200]  # the best sellers are enough to learn from
description = rc.descriptions(receipts)
words = {code: description[code].lower().replace(",", "").split() for code in products}
names = ["<|basket|>", *(f"<|{code}|>" for code in products)]
names += sorted({word for line in words.values() for word in line})
number = {name: place for place, name in enumerate(names)}  # token -> id


def written(codes):
    """A basket as ids: its beginning, then each product and its words."""
    line = ["<|basket|>"]
    for code in codes:
        line += [f"<|{code}|>", *words[code]]
    return [number[token] for token in line]


baskets = rc.baskets(receipts[receipts["code"].isin(products)])["codes"]
T = 48  # tokens that the model reads
rows = [written(codes) for codes in baskets]
rows = torch.tensor([row[: T + 1] for row in rows if len(row) > T])  # (receipts, T + 1)
held_out = len(rows) // 8
learn, judge = rows[:-held_out], rows[-held_out:]  # the latest receipts are kept to judge by
a_row = [names[i] for i in judge[0].tolist()]
lines = " ".join(a_row[:20]).replace(" <|", "\n<|")
print(f"{len(names)} tokens, {len(learn):,} receipts to learn from, {len(judge)} to judge by. One begins:\n\n{lines} …")

# %% [markdown]
# Two kinds of guess are asked for. After the last word of a line comes a product, and the shopper may want almost
# anything: what helps is a rough idea of everything that is in the basket so far. Within a line the words are certain,
# to whoever remembers **which** product the line began with. The first kind needs a blend of the past, the second needs
# to pick one thing from it. Keep both in mind: every step of this chapter is measured on both.
#
# The measure is the *cross-entropy*: minus the logarithm of the probability that the model gave to the token that came,
# in nats, averaged. Certainty costs nothing; a blind guess among $V$ tokens costs $\ln V$. The yardstick is a table of how
# often each product and each word occurs. It is even told which of the two kinds comes next:


# %%
border = len(products) + 1  # the id of the first word; products come before it


def by_kind(logits):
    """Nats a token on the receipts to judge by, (B, T, V) logits: where a product came next, and where a word did."""
    came = judge[:, 1:]
    nats = F.cross_entropy(logits.flatten(0, 1), came.flatten(), reduction="none").view(came.shape)
    word = came >= border
    return {"a product": nats[(came > 0) & ~word].mean().item(), "a word": nats[word].mean().item()}


def counting(first, last):
    """The same for a table of shares among the tokens from `first` to `last`, where one of them came."""
    share = torch.bincount(learn.flatten(), minlength=len(names))[first:last] + 1.0
    nats = -(share / share.sum()).log()
    came = judge[:, 1:]
    return nats[came[(came >= first) & (came < last)] - first].mean().item()


ladder = {"how often it occurs": {"a product": counting(1, border), "a word": counting(border, len(names))}}
Markdown(
    f"Counting costs {ladder['how often it occurs']['a product']:.2f} nats where a product comes next and "
    f"{ladder['how often it occurs']['a word']:.2f} where a word does. A blind guess among all {len(names)} tokens costs "
    f"{math.log(len(names)):.2f}."
)

# %% [markdown]
# ## The average of the past
#
# Give every token a vector. The simplest blend of the past is the average of its vectors, and averages of *all* the
# beginnings of a row are one matrix product: row $t$ of the matrix has $1/t$ in its first $t$ places. Here it is, and the
# way to make it that the rest of the chapter builds on: scores of zero, the future set to minus infinity, and a softmax
# over each row.


# %%
def causal_softmax(scores):
    """Weights over itself and the past, which sum to one for each position: (…, T, T) -> (…, T, T)."""
    T = scores.shape[-1]
    future = torch.ones(T, T, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1)


x = torch.arange(8.0).view(4, 2)  # four positions of two numbers
weights = causal_softmax(torch.zeros(4, 4))
by_hand = torch.stack([x[: t + 1].mean(0) for t in range(4)])
assert torch.allclose(weights @ x, by_hand)  # (T, T) @ (T, C) -> (T, C)
pd.DataFrame(weights.numpy(), index=pd.Index(range(4), name="position"), columns=range(4)).round(2)

# %% [markdown]
# > **Pitfall.** Mask first, softmax after. The other way round the future is gone too, but each row has lost a different
# > share of its weight, and early positions come out small.
#
# Now the smallest model that can use it. A token's vector plus a vector for its place goes in. A *mixer* blends each
# position with its past; its result is added. What comes out is compared with every token's vector: the largest inner
# product is the likeliest next token. (The two norms only keep the numbers at one scale. Their turn comes.)


# %%
class Average(nn.Module):
    """Each position gets the average of the past, of what a linear layer makes of it."""

    def __init__(self, width, heads=1):
        super().__init__()
        self.heads = heads
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def scores(self, x):
        B, T, _ = x.shape
        return x.new_zeros(B, self.heads, T, T)

    def weights(self, x):
        return causal_softmax(self.scores(x))

    def split(self, x):
        B, T, C = x.shape
        return x.view(B, T, self.heads, C // self.heads).transpose(1, 2)  # (B, T, C) -> (B, heads, T, C / heads)

    def forward(self, x):
        blended = self.weights(x) @ self.split(self.value(x))  # (B, heads, T, T) @ (B, heads, T, d)
        return self.output(blended.transpose(1, 2).flatten(2))  # (B, heads, T, d) -> (B, T, C)


class Reader(nn.Module):
    """The smallest language model with a mixer."""

    def __init__(self, mixer, width=64, places=T):
        super().__init__()
        self.token, self.place = nn.Embedding(len(names), width), nn.Embedding(places, width)
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.place.weight, std=0.02)
        self.norm1, self.mixer, self.norm2 = nn.LayerNorm(width), mixer, nn.LayerNorm(width)

    def read(self, x):
        """From vectors (B, T, C) to logits (B, T, V)."""
        x = x + self.mixer(self.norm1(x))
        return self.norm2(x) @ self.token.weight.T

    def forward(self, ids):
        return self.read(self.token(ids) + self.place.weight[: ids.shape[1]])


def fit(model, steps=300):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = learn[torch.randint(len(learn), (32,), generator=order)]  # (32, T + 1)
        logits = model(batch[:, :-1])  # each token is asked for the one after it
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
    return model.eval()


def measured(model):
    with torch.no_grad():
        return by_kind(model(judge[:, :-1]))


# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
average = fit(Reader(Average(64)))
ladder["the average of the past"] = measured(average)
assert ladder["the average of the past"]["a word"] < 0.7 * ladder["how often it occurs"]["a word"]
pd.DataFrame(ladder).T.round(2)

# %% [markdown]
# For words the average helps a great deal, and then it stops: several products are in it, and it cannot tell which of them
# the line at hand belongs to.
#
# ## Weights by similarity
#
# A better blend gives more weight to what matters more *here*. A first idea of what matters is what is alike: score each
# pair of positions by the inner product of their vectors, and let the softmax turn a row of scores into weights. Only
# `scores` changes.


# %%
class Similarity(Average):
    """As the average, but what is like the position itself weighs more."""

    def scores(self, x):
        x = self.split(x)
        return x @ x.transpose(-1, -2) / math.sqrt(x.shape[-1])  # (B, heads, T, d) @ (B, heads, d, T)


# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
similarity = fit(Reader(Similarity(64)))
ladder["weights by similarity"] = measured(similarity)
with torch.no_grad():
    own = similarity.mixer.weights(similarity.norm1(similarity.token(judge[:, :-1]) + similarity.place.weight))
own = own.diagonal(dim1=-2, dim2=-1).mean().item()  # of each position's weight, the share that it gives itself
assert 0 < own <= 1 and ladder["weights by similarity"]["a word"] < ladder["how often it occurs"]["a word"]
Markdown(
    f"A word now costs {ladder['weights by similarity']['a word']:.2f} nats, against "
    f"{ladder['the average of the past']['a word']:.2f} with the plain average. Nothing is as like a position as the "
    f"position itself: it keeps {own:.0%} of its weight. And being alike is mutual, while a word needs its product "
    "far more than the product needs the word."
)

# %% [markdown]
# ## Queries, keys, values
#
# So let each position say three things, each with a linear layer of its own:
#
# - a **query**: what I am looking for;
# - a **key**: what I can be found by;
# - a **value**: what I hand over when found.
#
# The score of a pair is the inner product of the one's query with the other's key. *Looking for* and *found by* are now
# different things, and both are learned. This is attention:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\left(\frac{Q K^\top}{\sqrt{d}} + \text{mask}\right) V$$


# %%
class QueryKey(Average):
    """Attention: a position's query against every key of the past."""

    def __init__(self, width, heads=1):
        super().__init__(width, heads)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def scores(self, x):
        query, key = self.split(self.query(x)), self.split(self.key(x))  # (B, heads, T, d) both
        return query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, heads, T, T)


# %% [markdown]
# A *head* can look for one thing at a time, and it hands over one blend. Writing a word takes two questions: which product
# is this line about, and how far has the line got? Hence **several heads**: cut the width into equal parts, and let each
# part have its own queries, keys and weights. The arithmetic stays the same; `split` above already does it.

# %% tags=["nbval-ignore-output"]
for heads, name in ((1, "queries and keys, one head"), (4, "queries and keys, four heads")):
    torch.manual_seed(0)
    reader = fit(Reader(QueryKey(64, heads)))
    ladder[name] = measured(reader)
best = min(ladder, key=lambda step: ladder[step]["a word"])
assert best == "queries and keys, four heads"
assert ladder["queries and keys, one head"]["a word"] < 0.8 * ladder["weights by similarity"]["a word"]
pd.DataFrame(ladder).T.round(2)

# %%
table = pd.DataFrame(ladder).T
fig, ax = plt.subplots(figsize=(7, 3.2))
places = np.arange(len(table))
ax.barh(places - 0.2, table["a word"], 0.38, label="where a word comes next", color="#d9822b")
ax.barh(places + 0.2, table["a product"], 0.38, label="where a product comes next", color="#1b4f72")
ax.set_yticks(places, table.index)
ax.invert_yaxis()
ax.set(xlabel="nats a token (less is better)", title="Choosing from the past makes the words certain")
ax.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=2)
plt.show()

# %% tags=["nbval-ignore-output"]
gain = ladder["how often it occurs"]["a product"] - ladder[best]["a product"]
assert abs(gain) < 1
learned = (
    "so it has learned something of what goes with what"
    if gain > 0.1
    else "so a few seconds on a few receipts have taught it no taste"
)
Markdown(
    "Read the two colours apart. The words fall with every step, because words are about *choosing* from the past. For "
    f"the products the best reader, which must also find out that a product comes next, is {abs(gain):.2f} nats "
    f"{'better' if gain > 0 else 'worse'} than counting how often each is bought, {learned}. What a shopper wants next "
    "stays open for any model; Chapter 9 fights for what can be had."
)

# %% [markdown]
# ## What does a head look at?
#
# The weights are numbers between zero and one, so look at them. Of the four heads, this is the one that gives most weight
# to the product that the line began with, when a word is to be written.

# %% tags=["nbval-ignore-output"]
ids = judge[:, :-1]
with torch.no_grad():
    looks = reader.mixer.weights(reader.norm1(reader.token(ids) + reader.place.weight))  # (B, heads, T, T)
is_product = (ids > 0) & (ids < border)
place = torch.arange(T)
began = torch.where(is_product, place, 0).cummax(1).values  # (B, T): where each position's line began
writing = (ids >= border) & (judge[:, 1:] >= border)  # a word that a word follows
to_product = looks.gather(3, began[:, None, :, None].expand(-1, 4, -1, 1))[..., 0]  # (B, heads, T)
share = (to_product * writing[:, None]).sum((0, 2)) / writing.sum()  # (heads,)
at_random = (writing / (place + 1)).sum() / writing.sum()  # what an average would give
head = int(share.argmax())
assert share[head] > 2 * at_random
shown = 20
fig, ax = plt.subplots(figsize=(6.4, 5.9))
ax.imshow(looks[0, head, :shown, :shown], cmap="Blues", vmin=0, vmax=1)
ax.set_xticks(range(shown), a_row[:shown], rotation=90, fontsize=8)
ax.set_yticks(range(shown), a_row[:shown], fontsize=8)
ax.set(
    xlabel="… looks at this one",
    ylabel="a position …",
    title="While it writes a line, a head looks back at its product",
)
plt.show()

# %% tags=["nbval-ignore-output"]
assert 0 < share.min() and share.max() < 1
Markdown(
    f"Over all receipts kept to judge by, this head gives {share[head]:.0%} of its weight to the product of its own line, "
    f"where an average would give {at_random:.0%}. The four heads, in order: "
    + ", ".join(f"{value:.0%}" for value in share.tolist())
    + ". Nobody told them; it is what lowers the loss."
)

# %% [markdown]
# Each row of the picture is one position and sums to one; the upper right is the future, and empty. Dark cells below a
# product's name are the words of its line, looking back at it. Do not read too much into the other heads: weights say
# where a head looks, not what it makes of it.
#
# ## No position sees the future
#
# At every position the model is asked for the token that follows. If a position could see that token, it would copy it.
# How bad would that be? Take the mask away and train:


# %%
class SeesAll(QueryKey):
    """Attention without the mask: a mistake."""

    def weights(self, x):
        return self.scores(x).softmax(-1)


# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
cheat = fit(Reader(SeesAll(64, 4)))
too_good = measured(cheat)
assert too_good["a product"] < 0.5 * ladder[best]["a product"]
Markdown(
    f"A product costs {too_good['a product']:.2f} nats instead of {ladder[best]['a product']:.2f}, on receipts that it "
    "has never seen. **A loss that is too good is a leak**, and this model is worthless: when it writes, there is no next "
    "token to copy yet."
)

# %% [markdown]
# Looking at the code does not prove that nothing leaks; a reshape with two axes exchanged can leak as well. The gradient
# proves it. Ask how the logits at position $t$ change with the vector that went in at position $s$: for every $s > t$ the
# answer must be zero, exactly.


# %%
def influence(model, ids):
    """How much the logits at each position depend on the vector at each: (T, T), row t, column s."""
    vectors = (model.token(ids) + model.place.weight[: len(ids)]).detach()[None].requires_grad_()
    logits = model.read(vectors)[0]  # (T, V)
    gradients = [torch.autograd.grad(row.square().sum(), vectors, retain_graph=True)[0] for row in logits]
    return torch.cat(gradients).norm(dim=-1)  # T of (1, T, C) -> (T, T)


# %% tags=["nbval-ignore-output"]
pictures = {"with the mask": influence(reader, judge[0, :16]), "without": influence(cheat, judge[0, :16])}
future = torch.ones(16, 16, dtype=torch.bool).triu(1)
assert pictures["with the mask"][future].eq(0).all() and pictures["without"][future].ne(0).all()
fig, axes = plt.subplots(1, 2, figsize=(7, 3.5), sharey=True)
for ax, (name, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow((picture / picture.max()).sqrt(), cmap="Blues", vmin=0, vmax=1)
    ax.set(title=name, xlabel="vector that goes in")
axes[0].set_ylabel("logits that come out")
fig.suptitle("The gradient shows who sees whom", x=0.02, ha="left", fontsize=11.5)
plt.show()

# %% [markdown]
# Exactly zero above the diagonal, on the left. `tests/gpt/test_model.py` asks the same of the package's model, and that no
# row of a batch sees another.
#
# ## Why divide by $\sqrt{d}$?
#
# A score is a sum of $d$ products. If queries and keys have numbers of variance one, the score has variance $d$: longer
# vectors, larger scores. A softmax over large scores gives nearly all weight to one place, and there its gradient is
# nearly zero, so the head could never learn to look elsewhere.

# %%
rng = np.random.default_rng(0)
spreads = []
for d in (4, 64, 1024):
    query, key = rng.standard_normal((500, 1, d)), rng.standard_normal((500, T, d))
    scores = (query * key).sum(-1)  # (500, T): each query against T keys
    line = {"d": f"{d:,}", "spread of the scores": scores.std()}
    for name, logits in {"as they are": scores, "divided by √d": scores / math.sqrt(d)}.items():
        weights = torch.tensor(logits).softmax(-1)
        line[f"largest weight, {name}"] = weights.amax(-1).mean().item()
    spreads.append(line)
pd.DataFrame(spreads).set_index("d").round(2)

# %% [markdown]
# With the division the weights look alike at every width. It is a *temperature*, chosen so that a new head starts out
# undecided.
#
# ## Positions
#
# Attention sums over a set. Shuffle the past, and the sum is the same: without help a model cannot tell `paper plates`
# from `plates paper`. That is why every place has a vector of its own, added to the token's. Take it away and look:

# %%
past = judge[0, :16]
shuffled = torch.cat([past[torch.randperm(15, generator=torch.Generator().manual_seed(0))], past[15:]])


def moved(model, places):
    """By how much the last position's logits change when the past is shuffled."""
    with torch.no_grad():
        logits = [
            model.read((model.token(ids) + places * model.place.weight[:16])[None])[0, -1] for ids in (past, shuffled)
        ]
    return (logits[0] - logits[1]).abs().max().item()


assert moved(reader, places=0) < 1e-4 < 0.1 < moved(reader, places=1)
print("shuffle the past: without places nothing changes, with them the logits do")

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
nowhere = Reader(QueryKey(64, 4))
nn.init.zeros_(nowhere.place.weight)
nowhere.place.requires_grad_(False)  # every place is the same, and stays so
ladder["four heads, but no places"] = measured(fit(nowhere))
assert ladder["four heads, but no places"]["a word"] > ladder[best]["a word"]
pd.DataFrame(ladder).T.loc[[best, "four heads, but no places"]].round(2)

# %% [markdown]
# GPT-2 learns a vector a place, as here. Newer models turn queries and keys by an angle that grows with the place, so that
# a score depends on the distance only: *rotary positions*, which you build in Exercise 6.5.
#
# ## The block
#
# One round of attention can look up one thing. To look up what a looked-up thing points to takes a second round, so a
# GPT stacks *blocks*. Each has two halves:
#
# - **attention** moves information between positions;
# - a **two-layer network** (an MLP: four times wider, a smooth kink called GELU, back again) works on each position alone,
#   on what attention brought.
#
# Both *add* their result to what they read. So a vector runs through the model from bottom to top, the **residual
# stream**, and every half reads from it and writes to it. An addition hands a gradient on as it is, so the loss speaks to
# the lowest block directly. Each half reads a **normed** copy (mean zero,
# variance one, then a learned scale), so it sees numbers of one size however much has been written; the stream itself is
# never normed. That is *pre-norm*.


# %%
class PageBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = QueryKey(width, heads)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        x = x + self.attention(self.norm1(x))
        return x + self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))


# %% [markdown]
# What does the stream buy? Take new blocks with and without the two additions, feed them random vectors, and ask how alike
# the positions of a row become: the mean cosine between them.


# %%
class WithoutStream(PageBlock):
    def forward(self, x):
        x = self.attention(self.norm1(x))
        return self.contract(F.gelu(self.expand(self.norm2(x)), approximate="tanh"))


def alikeness(block, depth=12):
    torch.manual_seed(0)
    x, cosines = torch.randn(4, T, 64), []
    with torch.no_grad():
        for _ in range(depth):
            x = block(64, 4)(x)
            unit = F.normalize(x, dim=-1)
            cosines.append((unit @ unit.transpose(1, 2)).mean().item())  # (B, T, C) @ (B, C, T)
    return cosines


alike = {"without the residual stream": alikeness(WithoutStream), "with it": alikeness(PageBlock)}
assert alike["without the residual stream"][-1] > 0.95 and alike["with it"][-1] < 0.5
fig, ax = plt.subplots(figsize=(7, 3))
for (name, line), marker in zip(alike.items(), "so", strict=True):
    ax.plot(range(1, 13), line, marker=marker, label=name)
ax.set(xlabel="blocks passed", ylabel="mean cosine of two positions", xticks=range(1, 13), ylim=(0, 1.05))
ax.set_title("Without the stream all positions become one")
ax.legend(fontsize=8.5, loc="center right")
plt.show()

# %% [markdown]
# Every round of attention averages, and an average of averages forgets who it was. The stream keeps each position itself.
#
# The last part is the head: the stream, normed, times every token's vector. GPT-2 uses the very vectors of the input for
# it, a **tied head**. What a token means when read is what it means when written, and for a large vocabulary it saves
# the largest matrix of the model.
#
# ## The initialisation
#
# GPT-2 draws all weights from a normal distribution of spread `0.02`, with one exception: the two matrices of a block
# that *write to the stream* get $0.02 / \sqrt{2L}$ for $L$ blocks. Why? There are $2L$ writes. Independent writes add up
# in variance, so without the exception a deeper model has a larger stream at birth, by $\sqrt{2L}$ in spread. With it,
# the sum is the same for every depth:


# %%
def stream(layers, scaled):
    """The spread of the residual stream after each block of a new GPT."""
    model = GPT(GPTConfig(len(names), context=T, layers=layers, heads=4, width=128), seed=0)
    with torch.no_grad():
        if not scaled:
            for block in model.blocks:
                block.attention.output.weight *= math.sqrt(2 * layers)
                block.contract.weight *= math.sqrt(2 * layers)
        x = model.token_embedding(judge[:4, :T]) + model.position_embedding.weight
        spreads = [x.std().item()]
        for number, block in enumerate(model.blocks):
            x = block(x, None, None, number)
            spreads.append(x.std().item())
    return spreads


depths = (4, 16, 48)
fig, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True)
ends = {}
for ax, scaled in zip(axes, (False, True), strict=True):
    for depth, style in zip(depths, ("-", "--", ":"), strict=True):
        line = stream(depth, scaled)
        ends[scaled, depth] = line[-1]
        ax.plot(np.linspace(0, 1, depth + 1), line, style, linewidth=2, label=f"{depth} blocks")
    ax.set(xlabel="share of the blocks passed", title="divided by √(2L)" if scaled else "all weights alike")
assert ends[False, 48] > 2 * ends[False, 4] and ends[True, 48] < 1.3 * ends[True, 4]
axes[0].set_ylabel("spread of the stream")
axes[0].legend(fontsize=8.5)
fig.suptitle("Divided, the stream does not grow with the depth of the model", x=0.02, ha="left", fontsize=11.5)
plt.show()

# %% [markdown]
# On the right the three lines end together: depth does not change what the head sees at birth.
#
# Two cheap tests tell whether a new model is put together well. **It knows nothing**: small random logits make all tokens
# about equally likely, so the loss is a little above $\ln V$. Far above means that it is confidently wrong. And **it can
# learn one batch by heart**: eight receipts, again and again, must go to nearly nothing. A model that fails has a bug, and
# a day of training would not have found it.

# %% tags=["nbval-ignore-output"]
config = GPTConfig(len(names), context=T, layers=2, heads=4, width=64)
model = GPT(config, seed=0)
batch = learn[:8]
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
curve = []
for _ in range(120):
    loss = model.loss(batch[:, :-1], batch[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    curve.append(loss.item())
blind = math.log(config.vocabulary)
assert abs(curve[0] - blind) < 0.15 and curve[-1] < 0.3
fig, ax = plt.subplots(figsize=(7, 3))
ax.plot(curve)
ax.axhline(blind, color="#6b6b6b", linestyle=":")
ax.annotate("a blind guess, ln V", (60, blind), (60, blind - 0.7), color="#6b6b6b")
ax.set(xlabel="step", ylabel="nats a token", ylim=(0, None))
ax.set_title(f"It starts at {curve[0]:.2f}, a blind guess at {blind:.2f}, and learns one batch by heart")
plt.show()

# %% [markdown]
# Does the whole pay over the single mixer? Two blocks, on the same receipts, for as many steps:

# %% tags=["nbval-ignore-output"]
ladder["a GPT of two blocks"] = measured(fit(GPT(config, seed=0)))
assert ladder["a GPT of two blocks"]["a word"] < ladder[best]["a word"]
pd.DataFrame(ladder).T.round(2)

# %% [markdown]
# ## Write without reading everything again: the key-value cache
#
# To write, the model guesses a token, the token is put at the end, and the model guesses again. Done plainly, every step
# reads the whole text anew. But what a new position needs of the old ones is only their keys and values, and those never
# change: no position sees the future, so the future cannot change it. Keep them, and each step feeds one position. How
# many multiplications does that save?


# %%
def multiplications(config, n):
    """To write n tokens one by one: without a cache, and with one. Head, blocks' matrices, attention."""
    head, matrices = config.vocabulary * config.width, 12 * config.layers * config.width**2
    pairs = 2 * config.layers * config.width  # a query against a key, and a weight times a value
    plain = sum(head + t * matrices + pairs * t * t for t in range(1, n + 1))
    cached = sum(head + matrices + pairs * t for t in range(1, n + 1))
    return plain, cached


shop_vocabulary = workshop.TEXT_TOKENS + len(CONTROL_TOKENS) + receipts["code"].nunique()
gpt2_vocabulary = 50_256 + len(CONTROL_TOKENS) + receipts["code"].nunique()
presets = {
    name: GPTConfig(gpt2_vocabulary if name == "full" else shop_vocabulary, **shape)
    for name, shape in GPT_PRESETS.items()
}
saved = {}
for name, config in presets.items():
    plain, cached = multiplications(config, config.context)
    saved[name] = {
        "tokens written": config.context,
        "billions, plain": plain / 1e9,
        "billions, cached": cached / 1e9,
        "times fewer": plain / cached,
        "MB of cache": config.cache_bytes() / 1e6,
    }
saved = pd.DataFrame(saved).T
saved.assign(**{column: saved[column].map("{:,.0f}".format) for column in saved.columns[[0, 3]]}).round(2)

# %% [markdown]
# The price is memory: two numbers (a key's and a value's) for each channel of each layer, for each position of each text.
# The cache is also where bugs like to live, so hold it against the plain model at every position, in pieces of several
# sizes, with texts of different lengths. Shorter texts are padded on the left, and `start` says where each begins:

# %%
laptop = GPT(presets["laptop"], seed=0).eval()
text = torch.randint(0, shop_vocabulary, (3, 96), generator=torch.Generator().manual_seed(0))
cache = KVCache(laptop.config, batch=3)
cache.start = torch.tensor([0, 5, 9])  # the first few tokens of the second and third row are padding
with torch.inference_mode():
    pieces = [laptop(text[:, :40], cache), laptop(text[:, 40:47], cache)]
    pieces += [laptop(text[:, t : t + 1], cache) for t in range(47, 96)]  # one token at a time
    cached_logits = torch.cat(pieces, dim=1)
    for row, begins in enumerate(cache.start.tolist()):
        assert torch.allclose(cached_logits[row, begins:], laptop(text[row : row + 1, begins:])[0], atol=1e-5)
print("with and without the cache: equal to a hundred-thousandth at every position")


# %% tags=["nbval-ignore-output"]
@torch.inference_mode()
def seconds(with_cache, batch=8, length=laptop.config.context):
    """To write `length` tokens in each row, the best of three times: the hidden state of every new position."""
    ids, times = torch.zeros(batch, length, dtype=torch.long), []
    for _ in range(3):
        cache, start = KVCache(laptop.config, batch), time.perf_counter()
        for t in range(length):
            laptop.hidden(ids[:, t : t + 1], cache) if with_cache else laptop.hidden(ids[:, : t + 1])
        times.append(time.perf_counter() - start)
    return min(times)


faster = seconds(with_cache=False) / seconds(with_cache=True)
assert faster > 1.5
Markdown(
    f"Eight rows as long as the laptop preset's context are written {faster:.0f} times as fast. The time shrinks by less "
    "than the multiplications: with one token at a time, a small model spends its time on starting operations."
)

# %% [markdown]
# ## What does it cost?
#
# Everything about a GPT's cost can be counted on paper. A block has twelve matrices' worth of $C \times C$ weights: four in
# attention, eight in the MLP. Each weight that multiplies costs one multiplication and one addition a token forward, and
# twice that backward: six operations. Attention adds $12\,L\,C\,T$ for its scores and blends. Training with AdamW keeps
# four numbers a parameter: the weight, its gradient, and two running means.

# %%
costs = {}
for name, config in presets.items():
    costs[name] = {
        "blocks × width": f"{config.layers} × {config.width}",
        "context": f"{config.context:,}",
        "vocabulary": f"{config.vocabulary:,}",
        "parameters (millions)": f"{config.parameters / 1e6:.1f}",
        "of them in tokens": f"{config.vocabulary * config.width / config.parameters:.0%}",
        "MB to train": f"{config.training_bytes() / 1e6:,.0f}",
        "million operations a token": f"{config.flops_per_token / 1e6:,.0f}",
    }
pd.DataFrame(costs)

# %% [markdown]
# The tests hold these formulas against the thing itself: parameters counted, bytes of weights, gradients and optimizer
# added up, operations as PyTorch's own counter records them forward and back. Two things are not in them: the
# *activations* kept for the backward pass, which grow with the batch, and that attention computes its masked half in
# vain (or skips it, where the kernel is good).
#
# Look at the share of the tokens' vectors: much of a small model is vocabulary. The next section meets the vocabulary
# again, as a number for every position *and* every token.
#
# ## The loss without the logits

# %%
batch_sizes = {"laptop": 32, "colab": 64, "full": 128}
largest = {}
for name, config in presets.items():
    positions = batch_sizes[name] * config.context
    largest[name] = {
        "positions in a batch": f"{positions:,}",
        "MB of weights": f"{4 * config.parameters / 1e6:,.0f}",
        "MB of an MLP's widest layer": f"{4 * positions * 4 * config.width / 1e6:,.0f}",
        "MB of logits": f"{4 * positions * config.vocabulary / 1e6:,.0f}",
        "MB of their gradient": f"{4 * positions * config.vocabulary / 1e6:,.0f}",
        "MB, a block of 512 positions": f"{4 * 512 * config.vocabulary / 1e6:,.0f}",
    }
pd.DataFrame(largest)

# %% [markdown]
# The logits are the largest tensor in training, and their gradient is as large again. All that is wanted of them is one
# number, the loss, and two gradients. The gradient of the cross-entropy by the logits is as simple as can be: the softmax, minus one at the token
# that came. So take a few positions at a time, compute their logits, add to the loss and to both gradients, and forget
# them:


# %%
def loss_in_blocks(hidden, weight, came, block=4):
    """Mean cross-entropy of logits hidden @ weight.T, and its gradients by hidden (N, C) and by weight (V, C)."""
    loss, by_hidden, by_weight = 0.0, torch.empty_like(hidden), torch.zeros_like(weight)
    for start in range(0, len(hidden), block):
        some = slice(start, start + block)
        logits = hidden[some] @ weight.T  # (block, C) @ (C, V)
        loss += F.cross_entropy(logits, came[some], reduction="sum") / len(hidden)
        gradient = (logits.softmax(-1) - F.one_hot(came[some], len(weight))) / len(hidden)
        by_hidden[some] = gradient @ weight  # (block, V) @ (V, C)
        by_weight += gradient.T @ hidden[some]  # (V, block) @ (block, C)
    return loss, by_hidden, by_weight


generator = torch.Generator().manual_seed(0)
hidden = torch.randn(10, 6, generator=generator).requires_grad_()
weight = torch.randn(20, 6, generator=generator).requires_grad_()
came = torch.randint(0, 20, (10,), generator=generator)
whole = F.cross_entropy(hidden @ weight.T, came)
expected = whole, *torch.autograd.grad(whole, (hidden, weight))
with torch.no_grad():
    ours = loss_in_blocks(hidden, weight, came)
assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, expected, strict=True))
print("loss and both gradients: equal to those through the whole logits")

# %% [markdown]
# No approximation, only a different order of sums. What stays in memory is two gradients, each of the size of what it is the
# gradient of.
#
# ## From page to package
#
# `recbook.gpt.model` has the same parts with the names of this page, `recbook.gpt.cross_entropy` the loss. The package's
# attention makes queries, keys and values with one matrix product, can keep them in a cache, and leaves the softmax to
# PyTorch's `scaled_dot_product_attention`, which never stores the weights (but in training with dropout on a CPU, where plain
# products like those above take half the time):

# %%
page.source(Attention)

# %%
page.source(Block)

# %%
page.source(GPT.hidden)

# %%
page.source(linear_cross_entropy)

# %% [markdown]
# Do the page's block, with the package's weights, and the page's loss give what the package gives?

# %%
theirs, ours = GPT(replace(presets["laptop"], layers=1), seed=1).blocks[0], PageBlock(128, 4)
state = theirs.state_dict()
for part in ("weight", "bias"):
    thirds = state.pop(f"attention.query_key_value.{part}").chunk(3)  # three matrices that lie on top of each other
    state |= {f"attention.{name}.{part}": third for name, third in zip(("query", "key", "value"), thirds, strict=True)}
ours.load_state_dict(state)
x = torch.randn(2, 30, 128, generator=torch.Generator().manual_seed(0))
assert torch.allclose(ours(x), theirs(x, None, None, 0), atol=1e-6)

loss = linear_cross_entropy(hidden, weight, came, chunk=4)
package = loss, *torch.autograd.grad(loss, (hidden, weight))
assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(package, expected, strict=True))
print("the block and the loss: equal")

# %% [markdown]
# And is it GPT-2? Make a small GPT-2 of the `transformers` library, with weights large enough that every part matters, load
# it, and compare. Then back: the weights must return bit by bit.

# %%
import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")  # there is no progress to show
    import transformers

transformers.logging.set_verbosity_error()
shape = transformers.GPT2Config(vocab_size=500, n_positions=64, n_embd=48, n_layer=3, n_head=4)
torch.manual_seed(0)
library = transformers.GPT2LMHeadModel(shape).eval()
with torch.no_grad():
    for parameter in library.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    loaded = from_transformers(library)
    ids = torch.randint(0, 500, (4, 64))
    assert torch.allclose(loaded(ids), library(ids).logits, atol=1e-5)
    back = to_transformers(loaded).state_dict()
assert all(torch.equal(value, back[name]) for name, value in library.state_dict().items())
print("logits: equal to a hundred-thousandth; weights, there and back: identical")

# %% [markdown]
# From here on the book has one GPT. Whatever it does later (rank, explain, adapt, shrink), it is this class.
#
# ## On real receipts
#
# How large is the model for Online Retail, and what does it learn? The laptop preset, trained for about a minute on two
# cores on what Chapter 5 wrote, judged on the baskets of the last month:

# %%
real_name = "language_model_online-retail"
real = load_results(real_name)["rows"] if has_results(real_name) else []
figures = {row["metric"]: row["value"] for row in real if row.get("method", "GPT") == "GPT" and "step" not in row}
counted = {row["method"]: row["value"] for row in real if str(row.get("method", "")).startswith("counts")}
if real:
    V = int(figures["vocabulary"])
    config = GPTConfig(V, **GPT_PRESETS["laptop"])
    real_table = {
        "vocabulary": f"{V:,}",
        "parameters": f"{figures['parameters']:,.0f}",
        "operations to train on a token": f"{config.flops_per_token:,}",
        "nats a token, blind guess": f"{math.log(V):.2f}",
        **{f"nats a token, {name}": f"{value:.2f}" for name, value in counted.items()},
        "nats a token, GPT": f"{figures['validation_loss']:.2f}",
    }
else:
    real_table = {"measured": "not yet"}
pd.Series(real_table, name="Online Retail").to_frame()

# %% [markdown]
# The catalogue is larger than the embedded shop's, so more of the model is vocabulary. Run this page on those receipts
# yourself, and watch the products in the ladder: on a real receipt lines that stand together are often alike, while the
# embedded shop shuffles them.
#
# `RECBOOK_DATA=online-retail make lab`

# %% [markdown]
# ## Exercises
#
# ### Exercise 6.1: the causal mask
# Write `causal_weights(scores)`: from a `numpy` array of scores (T, T), row $t$ for the position that asks, the weights of
# a softmax over itself and what comes before. Rows sum to one.


# %%
def causal_weights(scores):
    """Each row's softmax over columns 0 to its own: (T, T)."""
    ...


# %%
check("6.1", causal_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def causal_weights(scores):
#     seen = np.tri(len(scores), dtype=bool)  # True on and below the diagonal
#     scores = np.where(seen, scores, -np.inf)
#     powers = np.exp(scores - scores.max(axis=1, keepdims=True))
#     return powers / powers.sum(axis=1, keepdims=True)
# ```
#
# Taking off each row's largest score changes no weight, and keeps the exponential from overflowing.
#
# </details>
#
# ### Exercise 6.2: one head
# Write `attend(queries, keys, values)`, each a `numpy` array (T, d): one causal head, with its scale.


# %%
def attend(queries, keys, values):
    """What each position takes from itself and the past: (T, d)."""
    ...


# %%
check("6.2", attend)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def attend(queries, keys, values):
#     T, d = queries.shape
#     scores = queries @ keys.T / np.sqrt(d)  # (T, d) @ (d, T)
#     scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
#     powers = np.exp(scores - scores.max(axis=1, keepdims=True))
#     return powers / powers.sum(axis=1, keepdims=True) @ values
# ```
#
# Compare with Exercise 6.1: attention is a causal softmax and one more matrix product.
#
# </details>
#
# ### Exercise 6.3: how many parameters?
# Write `count_parameters(vocabulary, context, layers, width)` for a GPT-2 with a tied head: token and position vectors; in
# each block a query, key, value and output layer, two layers of the MLP that is four times as wide, all with biases, and
# two norms (a scale and a shift each); one norm at the end.


# %%
def count_parameters(vocabulary, context, layers, width):
    """All trainable numbers."""
    ...


# %%
check("6.3", count_parameters)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def count_parameters(vocabulary, context, layers, width):
#     attention = 4 * (width * width + width)
#     mlp = width * 4 * width + 4 * width + 4 * width * width + width
#     norm = 2 * width
#     return (vocabulary + context) * width + layers * (attention + mlp + 2 * norm) + norm
# ```
#
# With `50_257`, `1024`, `12` and `768` it gives the number of the published small GPT-2. The number of heads does not
# occur: heads share the width.
#
# </details>
#
# ### Exercise 6.4: the cache's bytes
# Write `cache_bytes(batch, positions, layers, heads, width, bytes_a_number)`: the bytes of the key-value cache.


# %%
def cache_bytes(batch, positions, layers, heads, width, bytes_a_number):
    """The bytes of all keys and values kept."""
    ...


# %%
check("6.4", cache_bytes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cache_bytes(batch, positions, layers, heads, width, bytes_a_number):
#     per_head = width // heads  # numbers in a key, and in a value
#     return 2 * batch * positions * layers * heads * per_head * bytes_a_number
# ```
#
# It grows with the text and with the number of texts, the weights do not. For long texts and many readers at once the
# cache, not the model, decides how large a machine you need.
#
# </details>
#
# ### Exercise 6.5: rotary positions
# Write `rotate(x, positions)` for a `numpy` array `x` (T, d) of queries or keys and integer positions (T,): number $i$ and
# number $i + d/2$ of a row, for $i$ from $0$ to $d/2 - 1$, are the two coordinates of a point; turn it by the angle
# $p \cdot 10000^{-2i/d}$ for a row at position $p$. A point $(a, b)$ turned by $\varphi$ is
# $(a \cos\varphi - b \sin\varphi,\; a \sin\varphi + b \cos\varphi)$.


# %%
def rotate(x, positions):
    """Each row's pairs of numbers, turned by angles that grow with its position: (T, d)."""
    ...


# %%
check("6.5", rotate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def rotate(x, positions):
#     half = x.shape[1] // 2
#     speeds = 10000.0 ** (-2 * np.arange(half) / x.shape[1])
#     angles = positions[:, None] * speeds  # (T, 1) * (d/2,) -> (T, d/2)
#     a, b = x[:, :half], x[:, half:]
#     a, b = a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles)
#     return np.concatenate([a, b], axis=1)
# ```
#
# Turning both by the same angle changes no inner product. So the score of a query at $p$ and a key at $q$ depends on
# $p - q$ only: what matters is how far back, not where on the page. No vector a place is needed, and none has to be learned.
#
# </details>
#
# ### Exercise 6.6: a head that cannot choose
# Somebody forgets the division by $\sqrt{d}$, with sixty-four numbers in a query. Training starts and the loss falls, but
# more slowly than it should. What would you look at to find the cause, and why does the loss fall at all?
#
# <details><summary>Answer</summary>
#
# Look at the largest weight of each row at the start: near one instead of spread out. Or at the gradient of the query's
# matrix: tiny, since the softmax is flat where one weight is nearly one. The loss still falls because everything else
# learns (the vectors, the MLP, what values hand over), and because weights of `0.02` make small scores at first: the
# trouble begins when queries and keys have grown.
#
# </details>
#
# ### Exercise 6.7: depth or width?
# Give the reader of this page twice the parameters in two ways: two blocks of `GPT` at the same width, or one block
# that is wider. Train both for as many steps with three seeds each. Which lowers the words' loss more, which the
# products', and is the difference larger than between seeds? Then remove the MLPs from the deeper one. What is left?

# %% [markdown]
# ## Summary
#
# - A language model guesses the next token from a blend of the past. Attention is that blend with learned weights: what I
#   look for, against what each can be found by. Several heads look for several things.
# - The mask comes before the softmax. A loss that is too good is a leak; the gradient proves that there is none.
# - Scores are divided by $\sqrt{d}$ so that a new head is undecided, writes to the stream by $\sqrt{2L}$ so that depth
#   does not change the start. A new model's loss is about $\ln V$, and it can learn one batch by heart.
# - Keys and values never change once computed: keep them, and writing costs one position a step.
# - Six operations a weight and token, four numbers a parameter to train. The logits would be the largest tensor: do not
#   make them.
#
# You now have a GPT that knows nothing. The next chapter trains it.
#
# ## Further reading
#
# - Vaswani and others, [Attention is all you need](https://arxiv.org/abs/1706.03762) (2017): attention, heads, the scale.
# - Radford and others,
#   [Language models are unsupervised multitask learners](https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)
#   (2019): GPT-2, its norms and its initialisation.
# - Su and others, [RoFormer](https://arxiv.org/abs/2104.09864) (2021): rotary positions.
# - Wijmans and others, [Cut your losses](https://arxiv.org/abs/2411.09009) (2024), and Hsu and others,
#   [Liger kernel](https://arxiv.org/abs/2410.10989) (2024): losses that never hold the logits.
# - Karpathy, [nanoGPT](https://github.com/karpathy/nanoGPT): another GPT to read in one sitting.
# - Elhage and others, [A mathematical framework for transformer circuits](https://transformer-circuits.pub/2021/framework/index.html)
#   (2021): what heads do with the residual stream.
