# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A fast student
#
# At the end you have a small model that learned from your best recommender, a file of labels that any teacher can write, and
# you can say what the student kept, what it lost, how much faster it is, and whether it needed a teacher at all.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,search,language,embeddings,ranking]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("16_distillation")

# %% [markdown]
# **You will learn**
#
# - what a teacher's label tells that a receipt cannot, and how to keep labels in a file that is checked;
# - to turn scores into soft targets, and to measure a teacher's confidence;
# - to write the joint loss on true baskets and labels, and to read its gradient;
# - to label histories without leaking the answers of the evaluation;
# - to measure a student against its teacher, and against itself without one.
#
# **You need** the scoreboard ([Chapter 2](02_baselines.ipynb)), the BasketGPT ([Chapter 9](09_baskets.ipynb)), quantized
# weights ([Chapter 11](11_quantization.ipynb)) and the blend that ranks best ([Chapter 12](12_ranking.ipynb)).

# %% [markdown]
# ## The best answer comes too late. Can a small model learn to give it?
#
# Chapter 12 ended with a blend: channels propose candidates, dozens of features are counted for each, LambdaRank scores them,
# and a GPT adds its log-probability. On the real log the blend came out first, and it is a lot of machinery for ten places on
# a page. Each part has to be kept, updated and run, while a shopper waits.
#
# *Distillation* trains a small model on the answers of a large one. The slow **teacher** labels many histories, once, at night
# (*offline*). The small **student** learns from the labels, and answers requests by day (*online*).

# %% tags=["nbval-ignore-output"]
import copy
import json
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from recbook import storage
from recbook.baselines import evaluation, intervals, metrics
from recbook.baselines.results import has_results, load_results
from recbook.baskets.model import scores_at_cut
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.distillation import labels
from recbook.distillation import student as distillation
from recbook.distillation.student import (
    BASKETS_DROPPED,
    STUDENT_CONFIG,
    DistillationConfig,
    count_features,
    distil,
    listwise_kl,
    teacher_confidence,
)
from recbook.llm_ranking.api_ranker import CallBudget, EndpointRanker
from recbook.lora.pairs import encode_pairs
from recbook.quantization.layers import quantize
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, propose_candidates, ranking_examples
from recbook.ranking.rankers import BasketGPTRanker, shoppers_at
from recbook.system.build import RecommenderConfig, fit_lambdarank
from recbook.tokens.documents import encode_document

log = workshop.cleaned().receipts
split = evaluation.next_basket(log, evaluation.default_cut(log))
model = workshop.basket_gpt()
codes, matrix = workshop.embeddings()
vectors, names = pd.DataFrame(matrix, index=codes).loc[split.codes], rc.descriptions(split.receipts)
assert np.array_equal(model.catalogue.codes, split.codes)

# %% [markdown]
# Here is the teacher as of the cut. Its trees learned from the next baskets after earlier cuts, as in Chapter 12. Then send it
# online requests, one shopper after another: find candidates, count features, score with the GPT, score with the trees.

# %% tags=["nbval-ignore-output"]
ranker = fit_lambdarank(split.receipts, vectors, RecommenderConfig())
features = CandidateFeatures(Snapshot(split, model, vectors.to_numpy()), split)
teacher = LambdaRank(ranker.trees, ranker.names, ranker.settings, features)
shoppers = shoppers_at(split.receipts, split.shoppers[:40].tolist(), split.cut)


def by_teacher(shopper):
    """All that the blend does for one shopper."""
    requests = features.snapshot.online([shopper])
    candidates = propose_candidates(features, requests, labels.CANDIDATES_LABELLED)
    return teacher.predict(features.table(requests, candidates, features.snapshot.gpt(requests)))


def milliseconds(methods):
    """The median time of one online answer, the methods in turn, so that a busy machine is busy for all."""
    taken = {name: [] for name in methods}
    for shopper in shoppers:
        for name, answer in methods.items():
            start = time.perf_counter()
            answer(shopper)
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.median(each) for name, each in taken.items()}


spent = milliseconds({"teacher": by_teacher, "GPT": lambda shopper: model.score([shopper.history], shopper.when)})
assert spent["teacher"] > spent["GPT"]
Markdown(
    f"One answer takes the teacher {spent['teacher']:.0f} milliseconds, for {labels.CANDIDATES_LABELLED} candidates and "
    f"{len(teacher.names)} features of each. "
    f"The BasketGPT, which is only one part of it, takes {spent['GPT']:.0f}."
)

# %% [markdown]
# ## What a label tells that a basket does not
#
# Your training data so far is *true baskets*: somebody had a history, came back, and bought a few things. That is the truth,
# and there is little in it. It exists only for those who came back. And of thousands of products it says *yes* to a handful;
# to all others it says the same *no*, to the one that was nearly bought as to the one that nobody would want.
#
# A **teacher's label** is a list: what the teacher would recommend for this history, today, best first, with its scores. Let
# the teacher label everybody with a history.

# %% tags=["nbval-ignore-output"]
start = time.perf_counter()
everybody = labels.label_snapshot(teacher, features, later=split)
came_back = [label for label in everybody if label.action is not None]
assert len(came_back) == len(split.shoppers) < len(everybody)
Markdown(
    f"{len(everybody):,} shoppers have a history, and now a label, in {time.perf_counter() - start:.0f} seconds. {len(came_back):,} of "
    f"them came back in the month after and bought {np.mean([len(label.action) for label in came_back]):.0f} products on average, out of {len(split.codes):,}. "
    f"A label grades {len(everybody[0].recommendations)}."
)

# %% [markdown]
# One of those who came back, seen in both ways. Each circle is a product that the teacher grades; the filled ones were then
# bought.

# %% tags=["nbval-ignore-output"]
one = min(came_back, key=lambda label: abs(len(set(label.action) & set(label.recommendations)) - 6))
bought = np.isin(one.recommendations, one.action)
places = np.arange(1, len(bought) + 1)
fig, ax = plt.subplots(figsize=(7, 3.4))
ax.plot(places, one.scores, color="#b8b8b8", zorder=0)
ax.scatter(places[~bought], np.array(one.scores)[~bought], facecolor="white", edgecolor="#1b4f72", label="not bought")
ax.scatter(places[bought], np.array(one.scores)[bought], color="#d9822b", edgecolor="black", s=55, label="bought")
ax.set(xlabel="place on the teacher's list", ylabel="the teacher's score")
ax.set_title("A basket marks a few products, a label says how near the others came")
ax.legend()
assert bought.any() and np.all(np.diff(one.scores) <= 0)
plt.show()

# %% [markdown]
# A white circle near the top was not bought this time. To a loss that knows only the basket it is as wrong as any product of
# the catalogue. The teacher knows better: it has seen many shoppers like this one.
#
# The teacher can also be *wrong*, and then it is wrong in detail. So a label does not replace the truth; you will mix the
# two.
#
# ## A file of labels
#
# Labels outlive the program that made them. The teacher may run elsewhere, on a larger machine or behind a company's endpoint,
# and its answers cost time or money. So labels go into a file, one JSON object per line, that people and programs can read.

# %%
some = [
    replace(label, recommendations=label.recommendations[:3], scores=[round(s, 2) for s in label.scores[:3]])
    for label in came_back
]
some = sorted(some, key=lambda label: sum(len(codes) for _, codes in label.history) + len(label.action))[:4]
path = Path(tempfile.mkdtemp()) / "labels.jsonl"
assert labels.write_labels(path, some) == len(some)
# The first line says that a checksum stands on the last: labels begin on the second.
first_label = json.loads(path.read_text().splitlines()[1])
FIELDS = [labels.HISTORY_FIELD, labels.ASKED_FIELD, labels.LISTED_FIELD, labels.SCORES_FIELD, labels.ACTION_FIELD]
assert list(first_label)[:5] == FIELDS

# %% tags=["nbval-ignore-output"]
assert labels.read_labels(path, split.codes) == some  # what is written can be read
for name, value in first_label.items():  # one line of the file, a row per field
    print(f"{name}: {json.dumps(value)}")

# %% [markdown]
# `user_browsing_history` is what had been bought, `asked` the day of the request, `llm_recommendations` the list (the name
# is the one that is common where teachers are language models; yours need not be one), and `user_action` what was bought
# next, where it is known. It is `null` for those who have not come back.
#
# > **Pitfall.** Training does not notice a damaged file. A list in the wrong order, a score too many, a code that the shop
# > never had: training would run through, a little worse, and nobody would see why. So a file is checked when it is read,
# > line by line.
#
# Damage one line in five ways, and read the errors.


# %% tags=["nbval-ignore-output"]
def error_of(line):
    """The error of reading a file with this line in second place."""
    lines = path.read_text().splitlines()
    damaged = path.with_name("damaged.jsonl")
    damaged.write_text("\n".join([lines[0], line, *lines[2:]]))
    try:
        labels.read_labels(damaged, split.codes)
    except ValueError as error:
        return str(error).replace(str(damaged), damaged.name)
    return ""


good = json.loads(path.read_text().splitlines()[1])
damages = {
    "a score too few": good | {labels.SCORES_FIELD: good[labels.SCORES_FIELD][:-1]},
    "the best one last": good | {labels.SCORES_FIELD: good[labels.SCORES_FIELD][::-1]},
    "an invented product": good | {labels.LISTED_FIELD: ["GOLD1", *good[labels.LISTED_FIELD][1:]]},
    "asked before the last basket": good | {labels.ASKED_FIELD: "2001-01-01"},
}
errors = {name: error_of(json.dumps(line)) for name, line in damages.items()}
errors["half a line"] = error_of(json.dumps(good)[:60])
assert all("line 2" in error for error in errors.values()) and not error_of(json.dumps(good))
for name, error in errors.items():
    print(f"{name}:\n    {error}")

# %% [markdown]
# ## Soft targets
#
# A student should learn a distribution: so much probability for this product, so much for that. The teacher gives scores.
# They come out of trees and log-probabilities, they order products, and they have no unit. A softmax turns them into shares,
# the **soft targets**, and one number, the **temperature**, says how much a difference of scores means: divide by it first.


# %%
def softened(scores, temperature):
    """Scores of one list as shares that sum to one."""
    scores = np.asarray(scores) / temperature
    shares = np.exp(scores - scores.max())  # the largest is taken off, or exp overflows
    return shares / shares.sum()


# %% tags=["nbval-ignore-output"]
CONFIG = DistillationConfig()
temperatures = [CONFIG.temperature / 4, CONFIG.temperature, CONFIG.temperature * 4]
fig, ax = plt.subplots(figsize=(7, 3.4))
for temperature, style in zip(temperatures, ["o:", "s-", "^--"], strict=True):
    ax.plot(places[:15], softened(one.scores, temperature)[:15], style, label=f"temperature {temperature:g}")
ax.set(xlabel="place on the teacher's list", ylabel="share of the target", ylim=(0, None))
ax.set_title("The higher the temperature, the more weight far down the list")
ax.legend()
firsts = [softened(one.scores, temperature)[0] for temperature in temperatures]
assert firsts[0] > firsts[1] > firsts[2]
plt.show()

# %% [markdown]
# Neither extreme is of use. At zero the target is the first product alone, and nothing is left of "how near the others came".
# At infinity it is the same share for all of the list, and nothing is left of the order. Between them lies what Hinton called
# dark knowledge: how the teacher's second choice compares with its tenth. The package's temperature was chosen on the real
# log, on months before the one that is reported.
#
# ## How sure is the teacher?
#
# Some lists have a clear favourite, others are nearly flat. The *entropy* of the soft targets tells them apart: it is zero if
# one product has all, and the logarithm of the length if all have the same. One less the entropy, as a share of that largest
# value, is a **confidence** between zero and one.


# %%
def confidence_of(shares):
    """One less the entropy, as a share of the largest that a list of this length can have."""
    shares = shares[shares > 0]
    return max(0.0, 1 + (shares * np.log(shares)).sum() / np.log(len(shares)))  # rounding may fall below


flat, clear = np.full(5, 0.2), np.array([0.9, 0.04, 0.03, 0.02, 0.01])
pd.DataFrame(
    {"shares": [flat, clear], "confidence": [confidence_of(flat), confidence_of(clear)]},
    index=["a flat list", "a favourite"],
).round(2)

# %% [markdown]
# So the loss can weigh a label by the teacher's confidence (the field `confidence` of `DistillationConfig` is a power of it:
# at zero all labels weigh the same). Is that wise? It is if the teacher is right more often where it is confident. Here are
# those who came back, in thirds by confidence, and which share of the teacher's first ten was then bought.

# %% tags=["nbval-ignore-output"]
sure = np.array([confidence_of(softened(label.scores, CONFIG.temperature)) for label in came_back])
right = np.array([np.isin(label.recommendations[:10], label.action).mean() for label in came_back])
third = np.argsort(np.argsort(sure)) * 3 // len(sure)
visits = np.array([len(label.history) for label in came_back])
thirds = (
    pd.DataFrame({"confidence": sure, "right among the first ten": right, "baskets before": visits})
    .groupby(third)
    .mean()
)
thirds.index = ["least sure", "between", "surest"]
assert thirds["confidence"].is_monotonic_increasing
thirds.round(2)

# %% tags=["nbval-ignore-output"]
rises = right[third == 2].mean() - right[third == 0].mean()
margin = 1.96 * np.sqrt(sum(right[third == which].var() / (third == which).sum() for which in (0, 2)))
assert abs(rises) < 1
Markdown(
    f"From the least sure third to the surest, what is right among the first ten changes by {100 * rises:+.0f} points, give or take "
    f"{100 * margin:.0f}. "
    + (
        "So this teacher's confidence means something. "
        if rises > margin
        else "So on this shop it is the other way round: its confidence misleads. "
        if rises < -margin
        else "So with these shoppers it cannot be told whether its confidence means anything. "
    )
    + f"The surest third had come {thirds.loc['surest', 'baskets before']:.1f} times before on average, the least sure "
    f"{thirds.loc['least sure', 'baskets before']:.1f}: "
    + (
        "few baskets leave little to choose from, many leave a choice."
        if thirds.loc["surest", "baskets before"] < thirds.loc["least sure", "baskets before"]
        else "the more it knows of somebody, the surer it is."
    )
)

# %% [markdown]
# ## The loss, in the open
#
# Five products will do. The teacher lists three of them. The student has logits for all five. How far apart are the two?
# Take the **Kullback-Leibler divergence** (KL): the teacher's probability, times how much less likely the student finds the
# product (in logarithms), summed over the list:
#
# $$\text{KL} = \sum_{i \,\in\, \text{list}} t_i \,(\log t_i - \log s_i), \qquad s = \text{softmax}(\text{logits of all products})$$
#
# The student's softmax goes over *all* products. The teacher gives no probability to what is not on the list, and the student
# must learn that too.

# %%
products = ["teapot", "cup", "milk jug", "candle", "doormat"]
target = np.array([0.6, 0.3, 0.1, 0.0, 0.0])  # the teacher's soft targets: zero for what it does not list
logits = np.array([0.5, 0.0, -0.5, 1.0, 0.2])


def student_of(logits):
    return np.exp(logits) / np.exp(logits).sum()


def kl(logits):
    listed = target > 0
    return (target[listed] * np.log(target[listed] / student_of(logits)[listed])).sum()


step = 1e-5
gradient = [(kl(logits + step * unit) - kl(logits - step * unit)) / (2 * step) for unit in np.eye(5)]
table = pd.DataFrame(
    {
        "teacher": target,
        "student": student_of(logits),
        "student less teacher": student_of(logits) - target,
        "gradient of the loss": gradient,
    },
    index=products,
)
np.testing.assert_allclose(gradient, student_of(logits) - target, atol=1e-8)
table.round(3)

# %% [markdown]
# The last column was measured: change one logit a little, see how the loss changes. It equals the column before it. So the
# gradient of this loss is **what the student gives less what the teacher gives**, and nothing else. The candle is pushed down
# by all that the student gave it. The teapot is pulled up by what it lacks. Where the two agree, nothing moves.
#
# Why is it so simple? $\log s_i$ is a logit less the logarithm of the sum of all. The logit's part gives $-t_i$. The sum's
# part gives $s_i$, once for each share of the teacher, and the shares add up to one.
#
# Now add the true basket. The shopper bought the cup and the doormat: half each. The **joint loss** mixes the two by $\alpha$:
#
# $$\text{loss} = (1 - \alpha) \cdot \text{cross-entropy of the basket} + \alpha \cdot \text{KL from the list}$$
#
# Let a student that can learn anything follow the gradient for a while. Where does it end?

# %%
basket, alpha = np.array([0.0, 0.5, 0.0, 0.0, 0.5]), 0.5
learner = logits.copy()
for _ in range(2000):
    towards_basket = student_of(learner) - basket
    towards_teacher = student_of(learner) - target
    learner -= 0.5 * ((1 - alpha) * towards_basket + alpha * towards_teacher)
mixed = (1 - alpha) * basket + alpha * target
ends = pd.DataFrame(
    {"basket": basket, "teacher": target, "mixed": mixed, "student": student_of(learner)}, index=products
)
np.testing.assert_allclose(ends["student"], ends["mixed"], atol=2e-3)
ends.round(2)

# %% [markdown]
# At the mixture of both. That is what the teacher does: it fills in, for *this* history, what many baskets together would
# have said. The doormat stays, though the teacher did not list it; the teapot comes in, though this shopper did not buy one.
# With $\alpha$ at zero there is no teacher. With $\alpha$ at one there is no true basket, and the student can hardly be better
# than its teacher.
#
# > **Pitfall.** In Hinton's recipe both sides are divided by the temperature, and the loss is multiplied by its square. Here
# > only the teacher's scores are: the true baskets make the student's logits log-probabilities, and one set of logits cannot
# > have two scales. When you adopt a recipe, see what its temperature divides.
#
# ## From page to package
#
# In the room `recbook.distillation`, the module `student` does the same for many lists at once, some shorter than others, with
# torch's gradients; `labels` makes, writes and reads the labels.

# %%
page.source(distillation.soft_targets)

# %%
page.source(listwise_kl)

# %% [markdown]
# Do page and package agree? Soft targets of three temperatures, confidence, loss and gradient:

# %% tags=["nbval-ignore-output"]
scores = torch.tensor([one.scores], dtype=torch.float64)
for temperature in temperatures:
    shares = distillation.soft_targets(scores, temperature)
    np.testing.assert_allclose(shares[0], softened(one.scores, temperature))
    np.testing.assert_allclose(teacher_confidence(shares)[0], confidence_of(softened(one.scores, temperature)), 1e-5)
packaged = torch.tensor(logits[None], requires_grad=True)
columns, chances = torch.tensor([[0, 1, 2]]), torch.tensor(target[None, :3])
loss = listwise_kl(packaged, columns, chances, torch.ones(1))
loss.backward()
assert np.isclose(loss.item(), kl(logits))
np.testing.assert_allclose(packaged.grad[0], student_of(logits) - target, atol=1e-12)
print("soft targets, confidence, divergence, gradient: page and package agree")

# %% [markdown]
# The settings are what this page has named, and two more: how many places of a list are learned, and how many labels a step
# takes beside its true baskets.

# %%
page.source(DistillationConfig)

# %% [markdown]
# ## Labels without leakage
#
# Which histories should the teacher label? You have everybody's up to the cut. The judged request is: *this* history, at the
# cut, what next? If the teacher labels that very history, the student learns the teacher's answer to the very request that
# it is judged on. No receipt of the future has leaked, and a shop may well do it. But you would measure how well a student
# *copies answers*, and not whether it can answer a new shopper.
#
# So leave out each shopper's last basket, and, for a second label, the last two. What remains is the history of a shopper
# who does not exist, who asks today. No judged shopper has it. And what they really bought next was bought on another day:
# for this request, today, the teacher's list is the only answer there is.

# %% tags=["nbval-ignore-output"]
made = [label for dropped in BASKETS_DROPPED for label in labels.label_snapshot(teacher, features, dropped=dropped)]
file = Path(tempfile.mkdtemp()) / "labels.jsonl"
labels.write_labels(file, made)
training_labels = labels.read_labels(file, split.codes)
judged_histories = {str(label.history) for label in came_back}
same = sum(str(label.history) in judged_histories for label in training_labels)
latest = max(date for label in training_labels for date, _ in label.history)
assert training_labels == made and same <= len(training_labels) / 100 and latest < split.cut
Markdown(
    f"{len(training_labels):,} labels, {file.stat().st_size / 1e6:.1f} MB as text. {same} of them have the history of a judged "
    f"shopper; all that they hold lies before {split.cut:%d %B %Y}."
)

# %% [markdown]
# The teacher itself is clean, as in Chapter 12: its trees learned from cuts that lie a month and more back, its GPT from
# baskets before the cut. One thing remains that you should know. The basket left out *is* in the GPT's training data, and
# in the features that compare a shopper with others. So the teacher half knows it, and may be a little more confident about
# these histories than about new ones. That can make a student worse, and it cannot leak an answer of the judged month. And
# whoever came once has no shorter history, so gets no label here. That is the price of a clean evaluation; a shop that only
# wants to serve would label everybody's whole history, too.
#
# > **Pitfall.** The day of the request counts, too. Today's teacher has learned from the whole year. Asked about a history of
# > March *as of March*, it would use what nobody knew then, and the student would learn to rely on the future. Here every
# > request is made on the day of the teacher's snapshot: the cut.
#
# ## The same student, with a teacher and without
#
# The student is a BasketGPT with one layer and narrow vectors. It reads the same histories, and the same features. Is it the
# teacher that makes it good? Ask by experiment: train the very same student once with labels and once without. Same baskets,
# same steps, same order, same starting weights; only $\alpha$ differs. The labels become a `DistillationDataset`, whose
# batches stand beside those of the true baskets in the joint loss.
#
# And not once. A small model that is trained again with another seed comes out a little different, and that difference must
# not be taken for the teacher's effect. So three seeds each.

# %% tags=["nbval-ignore-output"]
ALONE, TAUGHT, SEEDS = "student without a teacher", "student with a teacher", (0, 1, 2)
EPOCHS = STUDENT_CONFIG.epochs / 2  # half of the package's, to save time: it changes little
shop_features = count_features(split.receipts)  # of the shop on every day: all students share them
students, seconds = {}, {}
for name, config in ((ALONE, DistillationConfig(alpha=0)), (TAUGHT, CONFIG)):
    start = time.perf_counter()
    settings = [replace(STUDENT_CONFIG, seed=seed, epochs=EPOCHS) for seed in SEEDS]
    students[name] = [
        distil(split.receipts, training_labels, each, config, shop_features, progress=False) for each in settings
    ]
    seconds[name] = (time.perf_counter() - start) / len(SEEDS)
assert all(np.isfinite(student.metrics[-1]["loss"]) for group in students.values() for student in group)
print(", ".join(f"{name}: {taken:.0f} s" for name, taken in seconds.items()))

# %% tags=["nbval-ignore-output"]
examples = ranking_examples(features, split)
scored = {"teacher": [teacher.scores(examples, len(split.codes))], "BasketGPT": [scores_at_cut(model, split)]}
scored |= {name: [scores_at_cut(student, split) for student in group] for name, group in students.items()}
judged = {name: [evaluation.evaluate(scores, split) for scores in group] for name, group in scored.items()}
PARTS = list(evaluation.PARTS)
ndcg = {
    name: {part: np.mean([table[part, "ndcg@10"].to_numpy() for table in tables], axis=0) for part in PARTS}
    for name, tables in judged.items()
}  # of a shopper the mean over the seeds


def verdict(change):
    return "ahead" if change.low > 0 else "behind" if change.high < 0 else "no difference beyond chance"


def compared(name, other):
    """A row: by how much one is better than the other in each part, paired by shopper."""
    changes = [intervals.paired(ndcg[name][part], ndcg[other][part]) for part in PARTS]
    return [f"{c.difference:+.3f} ({c.low:+.3f} to {c.high:+.3f})" for c in changes]


board = {name: [f"{np.nanmean(of[part]):.3f}" for part in PARTS] for name, of in ndcg.items()}
board[f"with less {ALONE.removeprefix('student ')}"] = compared(TAUGHT, ALONE)
board["with less teacher"] = compared(TAUGHT, "teacher")
board["with less BasketGPT"] = compared(TAUGHT, "BasketGPT")
assert all(np.nanmean(of["all"]) > 0.2 for of in ndcg.values())
pd.DataFrame(board, index=PARTS).T.rename_axis(columns="NDCG@10")

# %% tags=["nbval-ignore-output"]
runs = {name: [table["all", "ndcg@10"].mean() for table in tables] for name, tables in judged.items()}
spread = max(np.ptp(runs[name]) for name in (ALONE, TAUGHT))
gained = intervals.paired(ndcg[TAUGHT]["all"], ndcg[ALONE]["all"])
fig, ax = plt.subplots(figsize=(7, 3))
for row, (name, marker) in enumerate({ALONE: "o", TAUGHT: "s"}.items()):
    ax.scatter(runs[name], [row] * len(SEEDS), marker=marker, s=60, facecolor="none", edgecolor="#1b4f72")
    ax.plot([np.mean(runs[name])] * 2, [row - 0.25, row + 0.25], color="#1b4f72", linewidth=2)
for name, style in (("BasketGPT", ":"), ("teacher", "--")):
    ax.axvline(runs[name][0], color="#9b2d30", linestyle=style, label=name)
ax.set(yticks=[0, 1], ylim=(-0.6, 1.6), xlabel="NDCG@10, all products: a mark per seed, a bar at their mean")
ax.set_yticklabels(["without", "with a teacher"])
ax.locator_params(axis="x", nbins=6)
ax.set_title(f"Another seed moves a student by up to {spread:.3f}, a teacher by {gained.difference:+.3f}")
fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
assert spread < 0.1
plt.show()

# %% tags=["nbval-ignore-output"]
words = {
    "ahead": "The teacher helped, by more than chance",
    "behind": "The teacher did harm here",
    "no difference beyond chance": "On this shop it cannot be told whether the teacher helped",
}
by_part = {part: verdict(intervals.paired(ndcg[TAUGHT][part], ndcg[ALONE][part])) for part in PARTS[1:]}
kept = np.mean(runs[TAUGHT]) / runs["teacher"][0]
assert 0.8 < kept < 1.2
Markdown(
    f"**{words[verdict(gained)]}**, if you look at all products: {gained.difference:+.3f} ({gained.low:+.3f} to {gained.high:+.3f}), "
    f"{gained.n:,} shoppers, {len(SEEDS)} seeds. "
    + (
        "The seeds alone differ by more. "
        if spread > abs(gained.difference)
        else "That is more than the seeds differ by. "
    )
    + f"{'; '.join(f'{part}: {said}' for part, said in by_part.items()).capitalize()}. The student with a teacher keeps {kept:.1%} of the "
    f"teacher's NDCG, the one without {np.mean(runs[ALONE]) / runs['teacher'][0]:.1%}."
)

# %% [markdown]
# Read both shares. "The student keeps so much of its teacher" sounds like a success of distillation. It is none unless the
# student *without* a teacher keeps less, and that run is missing from most reports. Here the student without a teacher is
# good already, because most of what the teacher knows are features, and the student reads the same features.
#
# Look at repeats and explore apart. A teacher's list expects a share of the next basket to be repeats, and the student learns
# that share. Here it is, beside what the same shoppers then did.

# %% tags=["nbval-ignore-output"]
known_before = [{code for _, basket in label.history for code in basket} for label in came_back]
expects = np.mean(
    [
        softened(label.scores, CONFIG.temperature)[[code in had for code in label.recommendations]].sum()
        for label, had in zip(came_back, known_before, strict=True)
    ]
)
happens = np.mean(
    [np.mean([code in had for code in label.action]) for label, had in zip(came_back, known_before, strict=True)]
)
assert 0 < expects < 1 and 0 < happens < 1
Markdown(
    f"Of the soft targets {expects:.0%} lie on products that the shopper had bought before; of what those shoppers then bought, "
    f"{happens:.0%}. "
    + (
        "So the labels pull towards repeats, and leave little to learn about the rest. A higher temperature would leave more."
        if expects > happens + 0.05
        else "So the labels do not overdo the repeats."
        if expects > happens - 0.05
        else "So the labels pull towards what is new. A lower temperature would leave more for the repeats."
    )
)

# %% [markdown]
# ### The share of the gap
#
# So another measure is in use: the **share of the gap closed**. The gap lies between the student alone and the teacher; which
# part of it does distillation close? It is the fair question, and an unreliable number. It divides by the gap.

# %% tags=["nbval-ignore-output"]
gap = intervals.paired(ndcg["teacher"]["all"], ndcg[ALONE]["all"])
rng = np.random.default_rng(0)
drawn = rng.integers(0, gap.n, (2000, gap.n))  # bootstrap samples of the shoppers
up, whole = ((ndcg[name]["all"] - ndcg[ALONE]["all"])[drawn].mean(axis=1) for name in (TAUGHT, "teacher"))
shares = up[whole > 0] / whole[whole > 0]
low, high = np.quantile(shares, [0.025, 0.975])
assert low <= high and len(shares)
Markdown(
    f"The gap is {gap.difference:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}). "
    + (
        f"Of it {gained.difference / gap.difference:.0%} is closed. "
        if gap.low > 0
        else "There is no gap beyond chance here, so there is nothing to close, and the share means nothing. "
    )
    + f"With other shoppers, drawn anew from these, the share would have come out anywhere from {low:.0%} to {high:.0%}"
    + (f", and in {np.mean(whole <= 0):.1%} of the draws there was no gap at all." if (whole <= 0).any() else ".")
)

# %% [markdown]
# > **Pitfall.** A share of something small is mostly noise. Before you quote a share of the gap, show the gap with its
# > interval, and the share with its own. If you read "closes ninety percent of the gap" without either, ask for the gap.
#
# The real log, below, has enough shoppers to see more.
#
# ## What it costs
#
# Now the reason for all this. Parameters, bytes of weights, and time: online, for one shopper after another, and in batch, for
# everybody at night. (The vectors of the descriptions, which large and small read alike, are not counted.) The last row is
# the student with its weights in one byte each, by Chapter 11.

# %% tags=["nbval-ignore-output"]
student = students[TAUGHT][0]
small = copy.deepcopy(student)
quantize(small.network, "int8")
models = {"BasketGPT": model, "student": student, "student, int8": small}


def megabytes(network):
    """Of weights, without the vectors of the descriptions."""
    return (sum(each.nbytes for each in [*network.parameters(), *network.buffers()]) - network.text.nbytes) / 1e6


def batch(score):
    """Milliseconds a shopper, all at once; the better of two times."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        score()
        taken.append(time.perf_counter() - start)
    return 1e3 * min(taken) / len(split.shoppers)


def weights(network):
    return sum(each.numel() for each in network.parameters())


online = {"teacher": by_teacher}
offline = {"teacher": batch(lambda: teacher.scores(ranking_examples(features, split), len(split.codes)))}
for name, each in models.items():
    online[name] = lambda shopper, each=each: each.score([shopper.history], shopper.when)
    offline[name] = batch(lambda each=each: scores_at_cut(each, split))
trees = sum(len(each.model_to_string()) for each in teacher.trees) / 1e6  # as text
cost = pd.DataFrame(
    {
        "parameters": {"BasketGPT": weights(model.network), "student": weights(student.network)},
        "MB": {"teacher": megabytes(model.network) + trees} | {n: megabytes(m.network) for n, m in models.items()},
        "ms online": milliseconds(online),
        "ms in batch": offline,
    }
).reindex(list(online))
assert cost.loc["student", "parameters"] <= cost.loc["BasketGPT", "parameters"] / 4
assert cost.loc["student", "ms online"] < cost.loc["teacher", "ms online"]
cost.map(lambda value: "" if np.isnan(value) else f"{value:,.0f}" if value > 999 else f"{value:.3g}")

# %% tags=["nbval-ignore-output"]
faster = cost.loc["teacher"] / cost.loc["student"]
in_int8 = evaluation.evaluate(scores_at_cut(small, split), split)["all", "ndcg@10"].mean()
assert abs(in_int8 - runs[TAUGHT][0]) < 0.03
Markdown(
    f"The student answers {faster['ms online']:.1f} times as fast as the teacher online and {faster['ms in batch']:.1f} times as fast "
    f"in batch. It has {cost.loc['BasketGPT', 'parameters'] / cost.loc['student', 'parameters']:.1f} times fewer parameters "
    f"than the teacher's GPT. In int8 its NDCG changes by {in_int8 - runs[TAUGHT][0]:+.4f}."
)

# %% [markdown]
# Look at where the speed comes from, and where it does not. Online the student gains less on the *BasketGPT* than its size
# promises: to read one history, and to look up what goes with each purchase, takes both the same time, whatever the network.
# And int8 saves bytes here, hardly time: the layers are little work already. What the student saves is the rest of the
# machinery, channels, features and trees; and in batch, where one call serves many, its small layers count as well.
#
# ## Where the teacher is wrong and the student right
#
# A student copies. So how can it be right where its teacher is wrong? Count, for each shopper, how many of ten
# recommendations were then bought: who finds more, the teacher or the student? And for comparison the same between two seeds
# of one student, where neither is the teacher.


# %% tags=["nbval-ignore-output"]
def lists_of(scores):
    """The ten best of each shopper, and which of them were bought."""
    ranked = metrics.rank(scores, 10)
    return ranked, np.take_along_axis(split.targets.toarray(), ranked, axis=1)


lists = {"teacher": lists_of(scored["teacher"][0])} | {f"seed {s}": lists_of(scored[TAUGHT][s]) for s in (0, 1)}


def who_finds_more(first, second):
    (listed, hit), (others, theirs) = lists[first], lists[second]
    ahead = theirs.sum(axis=1) - hit.sum(axis=1)
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(listed, others, strict=True)])
    return {
        "the first": (ahead < 0).sum(),
        "as many": (ahead == 0).sum(),
        "the student": (ahead > 0).sum(),
        "shared": shared,
    }


pairings = {"teacher, student": ("teacher", "seed 0"), "another seed, student": ("seed 1", "seed 0")}
apart = pd.DataFrame({name: who_finds_more(*pair) for name, pair in pairings.items()}).T
assert (apart.iloc[:, :3].sum(axis=1) == len(split.shoppers)).all()
apart.round(1).rename(columns={"shared": "products that both list"}).rename_axis(columns="finds more")

# %% tags=["nbval-ignore-output"]
against_teacher, against_itself = apart["the student"]
more = against_teacher > 1.3 * against_itself
assert against_teacher >= 0
Markdown(
    f"For {against_teacher:.0f} of {len(split.shoppers):,} shoppers the student finds more than its teacher. That looks like knowledge "
    f"of its own. But for {against_itself:.0f} it finds more than another seed of *itself*. "
    + (
        "So a part of it is luck, lists that differ in a few places, and a part is more than that."
        if more
        else "So it is mostly luck: lists that differ in a few places."
    )
)

# %% [markdown]
# Two of the shoppers for whom the student finds more, with names: what it found and the teacher did not, and how far down the
# teacher had put it.

# %% tags=["nbval-ignore-output"]
texts = np.array([names[code] for code in split.codes])
(listed, hit), (others, theirs) = lists["teacher"], lists["seed 0"]
ahead, order = theirs.sum(axis=1) - hit.sum(axis=1), metrics.rank(scored["teacher"][0], labels.CANDIDATES_LABELLED)
cases = {}
for number, row in enumerate(np.argsort(-ahead, kind="stable")[: min(2, (ahead > 0).sum())], start=1):
    found = np.setdiff1d(others[row][theirs[row]], listed[row])
    history = shoppers_at(split.receipts, [int(split.shoppers[row])], split.cut)[0].history
    places = [1 + order[row].tolist().index(column) if column in order[row] else "none" for column in found]
    cases[f"shopper {number}"] = {
        "bought last": "; ".join(names[code] for code in history[-1][1][:2]),
        "the teacher's first": "; ".join(texts[listed[row][:2]]),
        "found by the student alone": "; ".join(texts[found]),
        "at the teacher's place": ", ".join(map(str, places)),
    }
assert len(cases) == min(2, (ahead > 0).sum())
pd.DataFrame(cases)

# %% [markdown]
# The last row tells most. A place just below the tenth is chance. A place far down is a case to learn from: a product that the
# channels did not propose, or a shopper whose history says something else than the features do.
#
# ## Any ranker as the teacher
#
# Nothing so far depends on what the teacher *is*. It needs a list and scores. Whatever has the `score` method of Chapter 12's
# `Ranker` can label, by `label_requests`: a GPT, a language model, a rule in three lines.


# %% tags=["nbval-ignore-output"]
class FrequencyRule:
    """What the shopper bought often; of the rest, what sells."""

    sold = split.receipts["code"].value_counts(normalize=True)

    def score(self, shopper, query, candidates):
        held = Counter(code for _, basket in shopper.history for code in basket)
        return np.array([held[code] + self.sold[code] for code in candidates])


three = [label.shopper for label in came_back[:3]]
candidates = [label.recommendations for label in came_back[:3]]
teachers = {"the blend": teacher, "the BasketGPT": BasketGPTRanker(model), "a frequency rule": FrequencyRule()}
written = {name: labels.label_requests(each, three, candidates, k=20) for name, each in teachers.items()}
apart = np.array(written["the blend"][0].scores) - came_back[0].scores[:20]
assert np.median(np.abs(apart)) < 0.05  # online, the blend gives the scores that it gave offline
assert labels.write_labels(path, [label for by_one in written.values() for label in by_one]) == 9
firsts = {name: [names[label.recommendations[0]] for label in some] for name, some in written.items()}
pd.DataFrame(firsts, index=[f"shopper {place}" for place in ("one", "two", "three")]).T.rename_axis(columns="put first")

# %% [markdown]
# Their scores have different scales: log-probabilities, counts, trees. That is what the temperature is for, and why each
# teacher needs its own. `EndpointRanker` of Chapter 12 is a ranker, too, so a large language model behind an endpoint can
# teach: one call per label, cached on disk, under a budget. With `OPENAI_BASE_URL` and `OPENAI_MODEL` set, the next cell asks
# it.

# %% tags=["nbval-ignore-output"]
if os.environ.get("OPENAI_BASE_URL") and os.environ.get("OPENAI_MODEL"):
    large = EndpointRanker(os.environ["OPENAI_MODEL"], names, storage.home() / "answers", budget=CallBudget(calls=20))
    of_llm = labels.label_requests(large, three, [codes[:20] for codes in candidates], k=5)
    assert all(len(label.recommendations) == 5 for label in of_llm)
    print("\n".join(names[label.recommendations[0]] for label in of_llm))
else:
    print("no endpoint is configured")

# %% [markdown]
# > **Pitfall.** Read the terms of a model before you use it as a teacher: some providers forbid training on what their models
# > write. And a history that goes to an endpoint is personal data that leaves the shop.
#
# ## The same label as a prompt and an answer
#
# The student above is a recommender. It could be a language model: then a label is one more pair of prompt and answer, as in
# [Chapter 10](10_lora.ipynb). "User purchased …" is the prompt, "Recommend: …" the answer, and each product is its token and
# its name.

# %% tags=["nbval-ignore-output"]
vocabulary = workshop.vocabulary()
label = came_back[0]
prompt, answer = labels.label_documents(label, names, most=3, k=2)
assert " purchased" in prompt and answer[0] == " Recommend:"
for text in (prompt, answer):
    print(vocabulary.decode(encode_document(text, vocabulary)))

# %% [markdown]
# Receipts hold purchases and nothing else. A web shop logs more: what was viewed, what was put into the basket and not paid
# for. Labels have a field for each, and the prompt tells them if they are there.

# %% tags=["nbval-ignore-output"]
with_views = replace(label, viewed=tuple(label.recommendations[3:5]), added=(label.recommendations[2],))
prompt, _ = labels.label_documents(with_views, names, most=2, k=2)
assert [" viewed" in part for part in prompt if isinstance(part, str)].count(True) == 1
print(vocabulary.decode(encode_document(prompt, vocabulary)))

# %% tags=["nbval-ignore-output"]
documents = [labels.label_documents(each, names, most=8, k=3) for each in training_labels]
pairs = encode_pairs([prompt for prompt, _ in documents], [answer for _, answer in documents], vocabulary)
fitting = pairs.fitting(workshop.ANSWER_POSITIONS)
tokens, targets = pairs.take(fitting).batch(0, 4)
assert 0 < (targets >= 0).sum() < (tokens != pairs.pad).sum()
Markdown(
    f"{len(fitting):,} of {len(pairs):,} pairs fit a model with {workshop.ANSWER_POSITIONS} positions. In a batch of four, "
    f"{int((targets >= 0).sum())} of {int((tokens != pairs.pad).sum())} tokens are learned: the answers. The prompt is given."
)

# %% [markdown]
# Training is that of Chapter 10: an adapter on the assistant's base, and these pairs.
#
# ```python
# from recbook.lora.layers import LoRAConfig, add_adapter
# from recbook.training.config import TrainingConfig
# from recbook.training.loop import train
#
# assistant = workshop.assistant_base()[0]
# add_adapter(assistant, settings=LoRAConfig(rank=16, alpha=32.0), seed=0)
# steps = TrainingConfig(steps=300, batch=16, warmup=20, learning_rate=5e-3, weight_decay=0.0)
# train(assistant, pairs.take(fitting), steps)
# ```
#
# Two things are lost. The answer keeps the order and drops the *scores*, so the targets are hard, not soft: it is Kim and
# Rush's sequence-level distillation. And a model that writes can write a product that the shop does not sell, unless it is
# constrained as in [Chapter 8](08_generation.ipynb). What is gained is a model that reads words: a shop that has clicks,
# requests and few receipts can start here.
#
# ## On real receipts
#
# The same on Online Retail: the teacher of the full log, three seeds a student, judged in the month that nothing was chosen
# on.


# %%
def figures(name):
    """The rows of a result; none if it has not been measured."""
    columns = ["method", "split", "metric", "value", "low", "high", "seed", "found", "teacher_first"]
    rows = load_results(name)["rows"] if has_results(name) else []
    return pd.DataFrame(rows).reindex(columns=columns)


REAL, METRIC = figures("distillation_online-retail"), "ndcg@10"
OWN_DROPOUT = "student without a teacher, its own dropout"
ORDER = ["teacher", "BasketGPT", "student", ALONE, OWN_DROPOUT, "student, int8", "student, nf4"]


def cells(rows, sign=""):
    return [f"{row.value:{sign}.3f} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]" for row in rows.itertuples()]


# %%
if len(REAL):
    rows = REAL[(REAL["metric"] == METRIC) & REAL["seed"].isna()]
    table = rows.assign(cell=cells(rows)).pivot(index="method", columns="split", values="cell")
    display(table.reindex(ORDER)[PARTS].rename_axis(index=None, columns="NDCG@10"))

# %%
if len(REAL):
    columns = {  # the names in results/, and what this page calls them
        "parameters": "parameters", "megabytes of weights": "MB", "milliseconds at the counter": "ms online",
        "milliseconds in batch": "ms in batch",
    }  # fmt: skip
    table = REAL[REAL["metric"].isin(list(columns))].pivot(index="method", columns="metric", values="value")
    table = table.reindex(index=ORDER, columns=list(columns)).rename(columns=columns).dropna(how="all")
    table = table.map(lambda value: "" if np.isnan(value) else f"{value:,.0f}" if value > 999 else f"{value:.3g}")
    display(table.rename_axis(index=None, columns=None))


# %%
def value_of(method, metric):
    return REAL[(REAL["method"] == method) & (REAL["metric"] == metric)]["value"].iloc[0]


if len(REAL):
    sentences = []
    for other in (ALONE, OWN_DROPOUT, "teacher", "BasketGPT"):
        rows = REAL[(REAL["method"] == "student") & (REAL["metric"] == f"{METRIC} against {other}")].set_index("split")
        judged_by = [f"{part} {verdict(rows.loc[part])} ({rows.loc[part, 'value']:+.3f})" for part in PARTS]
        sentences.append(f"Against the *{other}*: {', '.join(judged_by)}.")
    kept_of = {name: value_of(name, "share of the teacher") for name in ("student", ALONE, OWN_DROPOUT)}
    assert kept_of["student"] > 0.8
    display(
        Markdown(
            f"Here there were {value_of('teacher', 'labels'):,.0f} labels. The student keeps {kept_of['student']:.1%} of its teacher's "
            f"NDCG, the same student without a teacher {kept_of[ALONE]:.1%}, and one without a teacher but with the large "
            f"model's dropout {kept_of[OWN_DROPOUT]:.1%}. "
            f"It answers {value_of('student', 'times as fast at the counter'):.1f} times as fast online, on two threads, "
            f"{value_of('student', 'times as fast in batch'):.1f} times in batch. " + " ".join(sentences)
        )
    )

# %% [markdown]
# Look at the row with *its own dropout*. The settings of the student were chosen for training with a teacher. Without one, a
# small model with so little dropout memorises its few baskets; give it the dropout that suits it, and most of the gap is gone
# before any teacher takes part. Judge a teacher against the best student without one that you can make, or you credit it with
# what a setting does.
#
# What differs from the embedded shop: more shoppers, so many more labels to learn from, and narrower intervals to judge by;
# and more products, so more about which a basket says nothing. Where the two disagree, believe this one.
#
# And the shoppers for whom one of the two finds something of the next basket among ten places and the other nothing. Below,
# some for whom it is the student:

# %%
if len(REAL):
    rows = REAL[REAL["metric"] == "only the student"].set_index("found")[["teacher_first"]]
    share = {
        name: value_of("student", f"share: {name}")
        for name in ("student right, teacher wrong", "teacher right, student wrong")
    }
    print("; ".join(f"{name}: {value:.1%} of the shoppers" for name, value in share.items()))
    display(rows.rename_axis("found by the student").rename(columns={"teacher_first": "the teacher's first three"}))

# %% [markdown]
# To run the chapter on your own receipts: `RECBOOK_DATA=receipts.csv make lab`; to measure this again:
# `python benchmarks/distillation.py score --data online-retail`.

# %% [markdown]
# ## Exercises
#
# ### Exercise 16.1: soft targets
# Write `soft_targets(scores, temperature)`: the scores of one list as an array of shares that sum to one. A score of minus
# infinity gets a share of zero. Scores may be as large as `1500`, and the temperature as small as `0.5`.


# %%
def soft_targets(scores, temperature):
    """Shares of one list, (K,)."""
    ...


# %%
check("16.1", soft_targets)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def soft_targets(scores, temperature):
#     scores = np.asarray(scores, float) / temperature
#     shares = np.exp(scores - scores.max())
#     return shares / shares.sum()
# ```
#
# Taking the largest off changes nothing but the size of the numbers, since shares depend on differences alone.
#
# </details>
#
# ### Exercise 16.2: the teacher's confidence
# Write `confidence(chances)`: one less the entropy of a list, as a share of the largest entropy that a list with so many
# products can have. `chances` are the soft targets. Zeros are places that the list lacks: they count neither in the sum nor in
# the length. A list with one product has a confidence of one.


# %%
def confidence(chances):
    """From 0, all alike, to 1, one has it all."""
    ...


# %%
check("16.2", confidence)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def confidence(chances):
#     some = np.asarray([chance for chance in chances if chance > 0], float)
#     if len(some) == 1:
#         return 1.0
#     return float(1 + (some * np.log(some)).sum() / np.log(len(some)))
# ```
#
# Whether you take bits or nats does not matter: the share is the same.
#
# </details>
#
# ### Exercise 16.3: the divergence
# Write `divergence(logits, listed, chances)`: the Kullback-Leibler divergence, in nats, of a student from a teacher's list.
# `logits` are the student's of all products, `listed` the columns on the list, `chances` the teacher's probabilities of them.
# A probability of zero adds nothing. Logits may be as large as `1200`.


# %%
def divergence(logits, listed, chances):
    """Nats, 0 if the student agrees with the list."""
    ...


# %%
check("16.3", divergence)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def divergence(logits, listed, chances):
#     logits, chances = np.asarray(logits, float), np.asarray(chances, float)
#     logs = logits - logits.max()
#     logs = (logs - np.log(np.exp(logs).sum()))[listed]
#     some = chances > 0
#     return float((chances[some] * (np.log(chances[some]) - logs[some])).sum())
# ```
#
# With a softmax among the listed products alone, the student could put its first choice off the list and lose nothing.
#
# </details>
#
# ### Exercise 16.4: the share of the gap
# Write `share_closed(alone, taught, teacher, least)`: each of the first three is an array of NDCG, an entry per shopper. Return
# the share of the mean gap, the teacher less the student alone, that distillation closes, or `nan` if the gap is smaller than
# `least`.


# %%
def share_closed(alone, taught, teacher, least):
    """1: as good as the teacher; 0: no better than alone; nan: there is no gap to speak of."""
    ...


# %%
check("16.4", share_closed)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def share_closed(alone, taught, teacher, least):
#     gap = np.mean(teacher) - np.mean(alone)
#     if gap < least:
#         return float("nan")
#     return float((np.mean(taught) - np.mean(alone)) / gap)
# ```
#
# A student that beats its teacher closes more than the whole gap; one that the labels harmed closes less than nothing. Both
# happen.
#
# </details>
#
# ### Exercise 16.5: what leaks?
# A colleague labels histories for a student that will be judged on November. Which of these give something away, and what?
#
# - (a) The teacher was fitted on receipts up to the end of November; the histories end in October.
# - (b) The teacher is clean, and labels the judged shoppers' whole histories.
# - (c) The teacher is clean, and labels histories without their last baskets, as of the first of November.
# - (d) As (c), but the temperature with the best NDCG of November was taken.
# - (e) The teacher is a large language model, trained on the web last year.
#
# <details><summary>Answer</summary>
#
# (a) leaks the answers: the teacher has read the judged baskets, and its lists repeat them.
#
# (b) leaks no basket, but the student has seen the judged requests answered; it is measured on copying.
#
# (c) is clean.
#
# (d) leaks a little: one number was chosen on the judged month. It is small and it is real, and it grows with every setting
# chosen so.
#
# (e) cannot be known. Online Retail has been on the web for years, so the model may have read the receipts of November. Say
# so when you report it.
#
# </details>
#
# ### Exercise 16.6: a better teacher, or a better student?
# The student is near its teacher. Where would you go on? Choose one, write down what you expect before you try it, and
# measure it with three seeds and a paired interval: a student half as wide; labels of one-time shoppers, who have no true
# basket; a teacher that is the mean of two blends with other seeds; labels for histories that you *invent*, by mixing baskets
# of different shoppers.
#
# <details><summary>Answer</summary>
#
# There is no right choice, but there is a right order. First ask what the teacher has that the student lacks. If the gap is
# within its interval, no change of the distillation can show an effect: a *smaller* student makes the gap wide enough to
# measure. One-time shoppers bring requests that the true baskets never hold, so look at them apart from the others. Two
# blends with other seeds agree on the signal and differ in noise; their mean is a better teacher at twice the cost, offline.
# Invented histories are free, and most of them are like no real one: if they help, it is because the student sees products
# that few buy.
#
# </details>
#
# ## Summary
#
# - A true basket says which few were bought; a teacher's label says how near the others came, also for histories without a next
#   basket.
# - Labels are kept in a file, and the file is checked: order, scores, products, dates.
# - The temperature sets the scale of a teacher's scores, entropy gives its confidence, and the gradient of the loss on labels is
#   what the student gives less what the teacher gives. The joint loss mixes labels and true baskets by $\alpha$.
# - Label histories that no judged request has, with a teacher that has not seen the judged month.
# - The run that matters is the same student without a teacher, over several seeds. A share of a small gap is noise.
# - Distillation saves machinery: channels, features, trees. What the student itself has to count, it still has to count.
#
# ## Further reading
#
# - Hinton, Vinyals and Dean (2015), [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531):
#   temperature and soft targets.
# - Tang and Wang (2018), [Ranking Distillation](https://arxiv.org/abs/1809.07428): lists in the place of classes, for
#   recommenders.
# - Kim and Rush (2016), [Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947): a teacher's sentences as
#   the student's text.
# - Kweon, Kang and Yu (2021), [Bidirectional Distillation for Top-K Recommender System](https://arxiv.org/abs/2106.02870):
#   where the student can teach the teacher.
# - Cao and others (2007),
#   [Learning to Rank: From Pairwise Approach to Listwise Approach](https://doi.org/10.1145/1273496.1273513): a loss on a
#   list.
