# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Numbers to beat, and how evaluation misleads
#
# You will have seven simple recommenders on one fair scoreboard, with intervals, and you will know how the same model
# can be made to look hopeless or brilliant.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("02_baselines")

# %% [markdown]
# **You will learn**
#
# - to cut receipts in time, so that a recommender is judged on what it could not have seen;
# - to compute NDCG by hand, and to read it beside recall, hit rate, coverage and novelty;
# - to build popularity, personal frequency, item neighbours and EASE, and to blend them;
# - to say with an interval whether one method beats another;
# - to recognise the protocols that turn a weak model into a great one on paper.
#
# **You need** clean receipts and baskets from [Chapter 1](01_cleaning.ipynb), and a little linear algebra for one
# section: what the inverse of a matrix is.

# %%
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import sparse

from recbook.baselines import metrics, models
from recbook.baselines.evaluation import PARTS, Split, count_invoices, default_cut, evaluate, next_basket, scoreboard
from recbook.baselines.intervals import paired
from recbook.baselines.results import load_results
from recbook.book import workshop
from recbook.cleaning import receipts as rc

# %% [markdown]
# ## Is it any good?
#
# Somebody shows you a recommender and says: "it scores `0.9`". Should you put it in your shop? You cannot say. A score
# answers a question, and you have not been told the question: which shoppers, which products, seen when, ranked against
# what. By the end of this chapter you will take one model, change nothing in it, and move its score from poor to
# excellent by changing the question alone.
#
# So first, a question worth answering. A shop wants to know: **what will this shopper put into the next basket?**
# Everything that happened up to a day is known, everything after it is not.

# %%
receipts = workshop.cleaned().receipts
cut = default_cut(receipts)
past = receipts[receipts["date"] < cut]
first_day, last_day = receipts["date"].min(), receipts["date"].max()

Markdown(
    f"The receipts run from {first_day:%d %B %Y} to {last_day:%d %B %Y}. We stand at midnight of "
    f"**{cut:%d %B %Y}** and know {len(past):,} of their {len(receipts):,} lines."
)

# %% [markdown]
# ## A cut in time, the same for everybody
#
# We recommend from a catalogue. A product that almost nobody has bought yet cannot be judged, so the catalogue is what
# at least five shoppers bought before the cut. The target of a shopper is the first basket after the cut that holds
# any of it.

# %%
buyers = past.groupby("code")["customer"].nunique()
catalogue = sorted(buyers.index[buyers >= 5])
baskets = rc.baskets(receipts[receipts["code"].isin(catalogue)])

before, after = baskets[baskets["date"] < cut], baskets[baskets["date"] >= cut]
# shopper -> list of baskets, oldest first
histories = before.groupby("customer")["codes"].agg(list)
# shopper -> the first basket after the cut
targets = after.drop_duplicates("customer").set_index("customer")["codes"].map(set)
targets = targets[targets.index.isin(histories.index)].sort_index()

judged = f"{len(targets):,} shoppers with a history and a next basket"
Markdown(f"{len(catalogue):,} products in the catalogue; {judged}.")

# %%
some = targets.index[:: max(len(targets) // 14, 1)][:14]
figure, axes = plt.subplots()
for row, shopper in enumerate(some):
    visits = baskets.loc[baskets["customer"] == shopper, "date"]
    known, later = visits[visits < cut], visits[visits >= cut]
    axes.plot(known, [row] * len(known), "o", color="#1b4f72", markersize=4)
    axes.plot(later.iloc[:1], [row], "D", color="#d9822b", markersize=7)
    unused = later.iloc[1:]
    axes.plot(unused, [row] * len(unused), "o", markerfacecolor="none", color="#8a8a8a", markersize=4)
axes.axvline(cut, color="black", linewidth=1)
axes.set(xlabel="day of the basket", ylabel="shopper", yticks=[])
axes.set_title("One cut for everybody: history to the left, the next basket (diamond) to the right")
axes.tick_params(axis="x", rotation=30)
plt.show()

# %% [markdown]
# Each row is a shopper, each mark a basket. Filled dots are known. The diamond is what we predict. The hollow dots come
# later and are not used at all: by then you would have a fresher history.
#
# > **Pitfall.** Cleaning can look into the future. A sale that was cancelled later is removed together with its
# > cancellation, and the cancellation may lie after the cut. Count such sales before you trust the cut, or clean again
# > what was known by then, `rc.clean(raw, before=cut)`:

# %%
raw = workshop.raw_receipts()
pairs = rc.match_cancellations(raw)
dates = raw["InvoiceDate"]
sold, undone = dates[pairs["sale"]].to_numpy(), dates[pairs["cancellation"]].to_numpy()
leaked = ((sold < cut) & (undone >= cut)).sum()

as_known = workshop.cleaned(before=cut).receipts
was_known = past.index[dates[past.index] < cut]  # a basket may end after midnight
assert was_known.isin(as_known.index).all()
names = rc.descriptions(past)
known_names = rc.descriptions(as_known)
renamed = sum(known_names.get(code, name) != name for code, name in names.items())
more = len(as_known) - len(past)

Markdown(
    f"Of {len(pairs):,} sales that were cancelled, {leaked:,} lie before the cut with a "
    f"cancellation after it. Cleaned as of the cut, the history has {more:,} lines more, "
    f"{more / len(past):.3%}; {renamed:,} of {len(names):,} products have another "
    "description."
)

# %% [markdown]
# Descriptions look ahead too, since cleaning gives each product its most frequent one over the *whole* file. Shares as
# small as these you can leave alone, as this book does from here on; but you would not know that they are small without
# counting.
#
# Here is one shopper with the target unfolded. Usually some of it is bought again, and some is new. Keep these two
# apart: they are two different jobs, and most of this chapter's surprises come from mixing them.

# %%
names = rc.descriptions(receipts)
# shopper -> product -> baskets with it before the cut
habits = {shopper: Counter(sum(histories[shopper], [])) for shopper in targets.index}


def mixed(shopper):
    """Whether the next basket is short, and holds old as well as new products."""
    again = sum(code in habits[shopper] for code in targets[shopper])
    return 5 <= len(targets[shopper]) <= 9 and 2 <= again <= len(targets[shopper]) - 2


shopper = next(filter(mixed, targets.index), targets.index[0])
codes = sorted(targets[shopper], key=lambda code: (-habits[shopper][code], code))
pd.DataFrame(
    {
        "next basket": [names[code] for code in codes],
        "baskets with it before": [habits[shopper][code] for code in codes],
    }
)

# %%
again = sum(len(targets[shopper] & habits[shopper].keys()) for shopper in targets.index)
share = again / targets.map(len).sum()
Markdown(f"Over all shoppers, {share:.0%} of the products in a next basket were bought before.")

# %% [markdown]
# ## NDCG by hand
#
# A recommender gives a ranked list; the shopper sees its top. A product that is bought is worth more the higher it
# stood. Take a list of five, and a next basket of three:

# %%
ranking = ["mug", "lamp", "saucer", "teapot", "clock"]
basket = {"lamp", "teapot", "cushion"}

places = np.arange(1, 6)
bought = [product in basket for product in ranking]
hand = pd.DataFrame({"place": places, "product": ranking, "bought": bought})
hand["discount"] = 1 / np.log2(places + 1)
hand["gain"] = hand["bought"] * hand["discount"]
hand.round(3)

# %% [markdown]
# The sum of the gains is the discounted cumulative gain, DCG. The best list that anyone could have made puts the three
# bought products first, and *its* gain is the yardstick:
#
# $$\text{NDCG@}k = \frac{\sum_{i=1}^{k} [\text{product } i \text{ was bought}] \,/\, \log_2(i+1)}
# {\sum_{i=1}^{\min(k,\,n)} 1/\log_2(i+1)}, \qquad n = \text{size of the next basket}.$$


# %%
def ndcg_by_hand(ranking, basket, k=10):
    """The discounted gain of the list over that of the best list."""
    hits = [place for place, product in enumerate(ranking[:k], start=1) if product in basket]
    best = range(1, min(k, len(basket)) + 1)
    return sum(1 / np.log2(place + 1) for place in hits) / sum(1 / np.log2(place + 1) for place in best)


dcg, ideal = hand["gain"].sum(), hand["discount"][:3].sum()
print(f"by the table: DCG {dcg:.3f} / best {ideal:.3f} = NDCG@5 {dcg / ideal:.3f}")
print(f"by the function: {ndcg_by_hand(ranking, basket, k=5):.3f}")

# %% [markdown]
# Other metrics look at the same list and ask other questions. None of them is wrong; they are answers to different
# questions, so two reports with different metrics cannot be compared.

# %%
hit = hand["bought"].to_numpy()[None]  # (1 shopper, 5 places)
questions = {
    "ndcg": "how early, against the best list?",
    "recall": "what share of the basket is on the list?",
    "hit": "is anything of the basket on the list?",
    "mrr": "how far down is the first hit?",
}
answers = {name: metric(hit, np.array([3]))[0] for name, metric in metrics.ACCURACY.items()}
pd.DataFrame({"asks": questions, "of this list": answers}).round(3)

# %% [markdown]
# > **Pitfall.** Some libraries divide by the gain of $k$ hits even where a basket has fewer products, others by that of
# > the whole basket even where the list is shorter. We divide by the best that a list of $k$ can reach, so a perfect
# > list always scores one.
#
# ## The first number to beat: what everybody buys
#
# The simplest recommender shows everybody the same list. It takes one line, and you should never skip it: what cannot
# beat it has learned nothing. Count shoppers, not units, or one wholesaler decides.

# %%
recent = past[past["date"] >= cut - pd.Timedelta(days=28)].groupby("code")["customer"].nunique()
bestsellers = sorted(catalogue, key=lambda code: (-buyers[code], code))
trending = sorted(catalogue, key=lambda code: (-recent.get(code, 0), code))

pd.DataFrame(
    {"most shoppers ever": [names[code] for code in bestsellers[:6]],
     "in the last four weeks": [names[code] for code in trending[:6]]},
    index=range(1, 7),
)  # fmt: skip

# %%
ever = np.mean([ndcg_by_hand(bestsellers, targets[shopper]) for shopper in targets.index])
lately = np.mean([ndcg_by_hand(trending, targets[shopper]) for shopper in targets.index])
seasonal = (
    "A shop has seasons, and forgetting what is over is the cheapest improvement you will ever make."
    if lately > ever
    else "Most shops have seasons, and gain by forgetting what is over; this one does not show it."
)
Markdown(
    f"`NDCG@10` of the bestsellers of all time: **{ever:.3f}**. "
    f"Of the last four weeks: **{lately:.3f}**. {seasonal}"
)  # fmt: skip

# %% [markdown]
# > **Pitfall.** Counts are full of ties, and a sort may leave ties in any order, another one on another machine. Say how
# > you break them. Here it is by product code, so that a list never depends on luck.

# %% [markdown]
# ## The number that embarrasses models: what you buy anyway
#
# Now use the shopper's own history in the plainest way: rank products by how many of the shopper's baskets held them.
# Break ties, and fill up, with what sells lately.


# %%
def habit_list(shopper):
    """What the shopper bought most often; ties, and the rest, by what sells lately."""
    own = habits[shopper]
    favourites = sorted(own, key=lambda code: (-own[code], -recent.get(code, 0), code))
    return (favourites + [code for code in trending if code not in own])[:10]


habit = np.mean([ndcg_by_hand(habit_list(shopper), targets[shopper]) for shopper in targets.index])
Markdown(
    f"`NDCG@10` of personal frequency: **{habit:.3f}**, {habit / lately:.1f} times that of the "
    "recent bestsellers. No training, no parameters. Many published neural models do not reach it "
    "(Li et al., 2021)."
)

# %% [markdown]
# It has one weakness, and it is a grave one: it never shows anything new. For that you need to know which products go
# together.
#
# ## Products that go together: cosine neighbours
#
# From here on, shoppers and products are a matrix. `Split` holds what we just made by hand: `counts` (shoppers by
# products, baskets with the product before the cut) and `targets` (the next basket, as yes and no).

# %%
split = next_basket(receipts, cut)
shoppers, products = split.counts.shape
print(f"{shoppers:,} shoppers x {products:,} products; {split.counts.nnz:,} counts are not zero")

# %% [markdown]
# To see neighbours work, take nine shoppers and four products. A one means: bought it.

# %%
goods = ["mug", "saucer", "teapot", "lamp"]
X = np.array(
    [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 0],
        [0, 1, 1, 1],
        [1, 1, 1, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 1],
    ],
    dtype=float,
)  # (shoppers, products)
together = X.T @ X  # (products, products): how many shoppers bought both
pd.DataFrame(together.astype(int), goods, goods)

# %% [markdown]
# The diagonal counts the buyers of each product. Co-counts favour whatever sells, so divide by the lengths of the two
# columns: that is the cosine. A product's score for a shopper is the sum of its cosines to what the shopper bought. The
# diagonal is set to zero, or every product would recommend itself.

# %%
length = np.sqrt(together.diagonal())
cosine = together / length[:, None] / length
np.fill_diagonal(cosine, 0)
mug_owner = np.array([1, 0, 0, 0])  # somebody with a mug
pd.DataFrame([mug_owner @ cosine], ["cosine scores for the owner of a mug"], goods).round(2)

# %% [markdown]
# ## EASE: let products explain each other
#
# Look at the teapot. The owner of a mug gets it recommended, because mugs and teapots share buyers. But they share them
# *through the saucer*. Among those who have a saucer, does a mug make a teapot likelier?

# %%
with_saucer = X[X[:, 1] == 1]
mug, teapot = with_saucer[:, 0] == 1, with_saucer[:, 2]
print(f"of those with a saucer, share with a teapot: {teapot[mug].mean():.2f} if they have a mug")
print(f"                                              {teapot[~mug].mean():.2f} if not")

# %% [markdown]
# A neighbour method looks at pairs and cannot see this. A regression can: predict each product's column from all the
# *other* columns at once, and let them compete. EASE (Steck, 2019) is exactly that, for all products together:
#
# $$\min_B \; \|X - XB\|^2 + \lambda\,\|B\|^2 \quad\text{such that}\quad \operatorname{diag}(B) = 0.$$
#
# Without the constraint, the best answer for small $\lambda$ is "a product predicts itself", which is useless. The
# constraint gets a Lagrange multiplier $\gamma_j$ for each product $j$. Set the derivative by $B$ to zero, writing
# $G = X^\top X$:
#
# $$-G + (G + \lambda I)\,B + \operatorname{diag}(\gamma) = 0
# \quad\Longrightarrow\quad B = P\,(G - \operatorname{diag}(\gamma)), \qquad P = (G + \lambda I)^{-1}.$$
#
# Since $PG = I - \lambda P$, this is $B = I - P\operatorname{diag}(\lambda + \gamma)$. The diagonal must be zero, so
# $1 = P_{jj}\,(\lambda + \gamma_j)$, which gives the multiplier, and with it the whole answer:
#
# $$B_{ij} = -\frac{P_{ij}}{P_{jj}} \quad (i \ne j), \qquad B_{jj} = 0.$$
#
# One inverse. No epochs, no learning rate.

# %%
l2 = 0.5
P = np.linalg.inv(X.T @ X + l2 * np.eye(4))
B = -P / P.diagonal()  # column j divided by P[j, j]
np.fill_diagonal(B, 0)
pd.DataFrame([mug_owner @ B], ["EASE scores for the owner of a mug"], goods).round(2)

# %%
figure, panels = plt.subplots(1, 2, figsize=(7, 3.4))
for panel, weights, title in zip(panels, (cosine, B), ("cosine", "EASE"), strict=True):
    panel.imshow(weights, cmap="PuOr", vmin=-1, vmax=1)
    for i, j in np.ndindex(4, 4):
        color = "white" if abs(weights[i, j]) > 0.7 else "black"
        panel.text(j, i, f"{weights[i, j]:.2f}", ha="center", va="center", color=color)
    panel.set_xticks(range(4), goods)
    panel.set_yticks(range(4), goods)
    panel.set(title=title, xlabel="product that is scored", ylabel="product that was bought")
title = "Cosine joins mug and teapot; EASE gives the saucer the credit"
figure.suptitle(title, x=0.02, ha="left", fontsize=11.5)
plt.show()

# %% [markdown]
# The weight from mug to teapot turns negative. EASE has found out that the saucer explains both. Two checks that this
# is the optimum, and not only something like it: off the diagonal the gradient is zero, and no small step that keeps
# the diagonal at zero does better.

# %%
gradient = -2 * X.T @ (X - X @ B) + 2 * l2 * B
off_diagonal = ~np.eye(4, dtype=bool)


def loss(B):
    """What EASE minimises."""
    return np.sum((X - X @ B) ** 2) + l2 * np.sum(B**2)


steps = np.random.default_rng(0).normal(scale=0.01, size=(1000, 4, 4)) * off_diagonal
print(f"steepest slope off the diagonal: {np.abs(gradient[off_diagonal]).max():.6f}")
print(f"random steps that do better: {sum(loss(B + step) < loss(B) for step in steps)} of {len(steps)}")

# %% [markdown]
# On the shop's receipts the matrix has a row for every shopper and a column for every product, and the inverse takes a
# second or so. What goes with a product? Ask both methods about the best seller.

# %%
purchases = models.shoppers_by_products(split)  # every shopper with a history, judged or not
weights = models.ease_weights(purchases, l2=200)
neighbours = models.cosine_similarity(purchases)
seller = list(split.codes).index(bestsellers[0])


def closest(matrix):
    """The products to which the bestseller gives most weight."""
    return [names[code] for code in split.codes[np.argsort(-matrix[seller], kind="stable")[:5]]]


print("goes with", names[bestsellers[0]])
pd.DataFrame({"by cosine": closest(neighbours), "by EASE": closest(weights)}, index=range(1, 6))

# %% [markdown]
# > **Pitfall.** The divisor belongs to the *column*: the product that is predicted. Dividing rows gives a matrix that
# > looks just as good and ranks worse. numpy's broadcasting divides columns in `P / P.diagonal()`; test it on a matrix
# > whose products sell differently, so that its diagonal is not constant.
#
# ## Three terms: freshness, trend, habit
#
# Each method so far knows one thing. A blend of three terms knows them all:
#
# 1. **freshness**: EASE on a matrix whose ones fade, halved every sixty days since the shopper last bought the product;
# 2. **trend**: times the square root of a product's recent popularity, divided by the mean;
# 3. **habit**: plus the logarithm of one plus the shopper's own count.

# %%
everybody = np.sort(split.receipts["customer"].unique())
fading = models.recency(split, everybody, half_life=60)  # (all shoppers, products), one at the cut
own = models.recency(split, split.shoppers, half_life=60)  # (judged shoppers, products)
trend = np.array([recent.get(code, 0) for code in split.codes], dtype=np.float32)

freshness = own @ models.ease_weights(fading, l2=100)
trend = np.sqrt(trend / trend.mean())
habit_term = np.log1p(split.counts.toarray())
blended = freshness * trend + habit_term


def by_part(scores):
    """NDCG@10 of each shopper: over all products, those bought before, those new to the shopper."""
    return evaluate(scores, split).xs("ndcg@10", axis=1, level=1)


steps = {"freshness": freshness, "x trend": freshness * trend, "+ habit": blended}
added = {name: by_part(scores) for name, scores in steps.items()}
table = pd.DataFrame({name: values.mean() for name, values in added.items()}).T
table.rename_axis(columns="NDCG@10").round(3)

# %% [markdown]
# Read the columns. *repeat* ranks only what the shopper bought before, *explore* only what is new to the shopper, each
# averaged over the shoppers who have such a target. Habit can do nothing for *explore*: its term is zero for everything
# new. And a term that gives in one column may take away in another, so read all three before you keep it.
#
# What a term is worth also depends on the others. So take each out of the finished blend, too, and pair the shoppers,
# as a later section explains: a difference whose interval in brackets holds zero may be chance.

# %%
without = {
    "blend without freshness": trend + habit_term,
    "blend without trend": freshness + habit_term,
    "blend without habit": freshness * trend,
}
lost = {
    name: {part: paired(values[part], added["+ habit"][part]) for part in values}
    for name, values in ((name, by_part(scores)) for name, scores in without.items())
}
cells = {
    name: {part: f"{duel.difference:+.3f} [{duel.low:+.3f}, {duel.high:+.3f}]" for part, duel in duels.items()}
    for name, duels in lost.items()
}
pd.DataFrame(cells).T.rename_axis(columns="NDCG@10 against the blend")

# %%
alone = (added["x trend"] - added["freshness"])["all"].mean()
removed = lost["blend without trend"]["all"]
Markdown(
    f"Trend joined to freshness alone changes `NDCG@10` by {alone:+.3f}. Trend taken out of the "
    f"finished blend changes it by {removed.difference:+.3f} [{removed.low:+.3f}, {removed.high:+.3f}]. "
    "The order in which you add terms is a choice; taking each out of the whole is the fairer question."
)

# %% [markdown]
# ## The scoreboard
#
# A mean over shoppers is an estimate: other shoppers would have given another mean. The **bootstrap** shows by how
# much. Draw as many shoppers as there are, with replacement, take the mean, repeat a thousand times, and keep the
# middle nineteen twentieths. `scoreboard` does it for every method, metric and part, as two matrix products.

# %%
similarity = models.description_similarity(split)
board = scoreboard(split, models.BASELINES, similarity=similarity)
ndcg = board[board["metric"] == "ndcg@10"]
order = ndcg[ndcg["split"] == "all"].sort_values("value")["method"].tolist()

figure, panels = plt.subplots(1, 3, figsize=(7.4, 3.4), sharey=True)
for panel, part in zip(panels, PARTS, strict=True):
    rows = ndcg[ndcg["split"] == part].set_index("method").loc[order]
    arms = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
    panel.errorbar(rows["value"], order, xerr=arms, fmt="o", capsize=3)
    panel.set(title=part, xlabel="NDCG@10", xlim=(0, None))
    panel.grid(axis="x", alpha=0.3)
means = ndcg.pivot(index="method", columns="split", values="value")
first = means.idxmax()
title = f"Best at repeats: {first['repeat']}; at discoveries: {first['explore']}"
if first.nunique() == 1:
    title = f"The {first['all']} leads at repeats, at discoveries and over all"
figure.suptitle(title, x=0.02, ha="left", fontsize=11.5)
plt.show()

# %%
like = means.corr(method="kendall")["all"]
Markdown(
    "The dots are means, the bars intervals that would hold the true mean nineteen times in twenty. "
    f"How much does the order on the left follow the other two? Kendall's rank correlation with the "
    f"middle is {like['repeat']:.2f}, with the right {like['explore']:.2f}; one is the same order."
)

# %% [markdown]
# On the right, personal frequency falls back to what everybody buys lately: a shopper's own count of a new product is
# zero by construction.
#
# Accuracy is not everything a shop wants. The same lists, looked at in other ways:

# %%
looks = {"coverage@10": "coverage", "gini@10": "Gini of exposure", "popularity@10": "popularity percentile"}
looks |= {"novelty@10": "novelty (bits)", "diversity@10": "diversity"}
wide = board[board["split"] == "all"].pivot(index="method", columns="metric", values="value")
wide["coverage@10"] *= 100
looks["coverage@10"] = "coverage (%)"
wide.loc[order[::-1], list(looks)].rename(columns=looks).rename_axis(columns=None).round(2)

# %% [markdown]
# *Coverage* is the share of the catalogue that anybody gets to see. The *Gini* coefficient says how unequally places
# are given out: zero is equal, near one a few products take all. *Popularity percentile* is the mean place of the
# shown products among all by buyers: the popularity bias. *Novelty* is the mean surprise $-\log_2(\text{share of
# buyers})$. *Diversity* is one minus the mean similarity of the descriptions in a list.

# %%
widest, narrowest = wide["coverage@10"].idxmax(), wide["diversity@10"].idxmin()
Markdown(f"Widest across shoppers: **{widest}**. Most alike within a list: **{narrowest}**.")

# %% [markdown]
# Look for the text profile in both: it reaches far into the catalogue, since any product has words, and it shows red
# mugs to the owner of a red mug.
#
# ## Is the winner better? Pair the shoppers
#
# Look again at the two best methods. Where their intervals overlap, it is tempting to say that the difference is noise.
# That does not follow. Both methods were judged on the *same* shoppers; a shopper with an odd basket is hard for both,
# and in the difference this cancels. So take the difference shopper by shopper, and bootstrap *that*.

# %%
second, best = order[-2:]
judged = {name: by_part(models.BASELINES[name](split))["all"] for name in (second, best)}
duel = paired(judged[best], judged[second])

figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.5))
rows = ndcg[ndcg["split"] == "all"].set_index("method").loc[[second, best]]
arms = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
left.errorbar(rows["value"], rows.index, xerr=arms, fmt="o", capsize=4)
left.set(xlabel="NDCG@10", title="Each on its own", ylim=(-0.6, 1.6))
arms = [[duel.difference - duel.low], [duel.high - duel.difference]]
right.errorbar([duel.difference], [0], xerr=arms, fmt="o", capsize=4)
right.axvline(0, color="black", linewidth=1, linestyle="--")
right.set(xlabel=f"{best} minus {second}", title="The difference, paired", yticks=[], ylim=(-1, 1))
plt.show()

# %%
chance = "below 0.001" if duel.p_value < 0.001 else f"{duel.p_value:.3f}"
verdict = "leaves zero out" if duel.low > 0 else "holds zero: these shoppers cannot tell"
unpaired = np.hypot(*(rows["high"] - rows["low"]))  # the width, had the methods met different shoppers
wider = unpaired / (duel.high - duel.low)
Markdown(
    f"The difference is {duel.difference:.3f}, its paired interval [{duel.low:.3f}, {duel.high:.3f}], "
    f"which {verdict}. Had the methods met different shoppers, the interval would be {wider:.1f} times "
    "as wide. The permutation test asks in another way: were the two alike, chance in who happened to "
    f"be judged would give a difference as large with probability {chance}."
)

# %% [markdown]
# The permutation test flips the sign of every shopper's difference at random, many times. If the methods were alike,
# the labels would be arbitrary and the flipped means would look like ours.
#
# An interval without zero says that chance alone seldom gives such a difference. It does not say that the winner wins
# next month or in another shop. And we chose the two best *on these shoppers*, then tested them on the same: that
# flatters the winner a little, the more so the more methods you try. Name the pair first, or test on a later cut.
#
# ## How evaluation misleads
#
# Now the promise from the beginning: one model, the same data, several protocols. A protocol is nothing but another
# `Split`, or another set of products to rank against. Three more, all of them common in papers:
#
# - **Random hold-out**: hide a random fifth of each shopper's products, predict them from the rest.
# - **Leave one out**: hide each shopper's last new product, predict it from everything else.
# - **Sampled negatives**: rank the hidden product against a hundred random others instead of the catalogue.


# %%
lines = receipts[receipts["code"].isin(split.codes)]
judged_lines = lines[lines["customer"].isin(split.shoppers)]
firsts = judged_lines.drop_duplicates(["customer", "code"])  # a shopper's first purchase of a product


def who_and_what(lines):
    """The (customer, code) pair of each line."""
    return pd.MultiIndex.from_frame(lines[["customer", "code"]])


def hide(hidden, invoices=()):
    """A split without a cut: all is known but the hidden pairs, anywhere, and these invoices."""
    gone = who_and_what(lines).isin(who_and_what(hidden)) | lines["invoice"].isin(invoices)
    rest, end = lines[~gone], last_day + pd.Timedelta(days=1)
    counts = count_invoices(rest, split.shoppers, split.codes)
    targets = count_invoices(hidden, split.shoppers, split.codes).astype(bool)
    return Split(end, rest, split.codes, split.shoppers, counts, targets)


last_new = firsts.groupby("customer").tail(1)
random_hold_out = hide(firsts.groupby("customer").sample(frac=0.2, random_state=0))
leave_one_out = hide(last_new)

# %% [markdown]
# For each protocol, the same seven methods. The products a shopper already has are left out of the ranking where the
# protocol hides new ones, as is the custom.


# %%
def a_hundred_others(split):
    """The targets and, for each shopper, a hundred random products that the shopper never bought."""
    targets, bought = split.targets.toarray(), split.counts.toarray() > 0
    lots = np.where(targets | bought, 2.0, np.random.default_rng(0).random(targets.shape))
    hundredth = min(99, lots.shape[1] - 1)
    return targets | (lots <= np.partition(lots, hundredth, axis=1)[:, [hundredth]])


def measure(scores, split, allowed, metric=metrics.ndcg, k=10):
    """The mean of a metric when only the allowed products are ranked."""
    targets = split.targets.toarray() & allowed
    hit = metrics.hits(metrics.rank(scores, k, allowed), targets)
    return np.nanmean(metric(hit, targets.sum(axis=1)))


def masks(split):
    """Which products may be ranked: all, those bought before, those that are new."""
    bought = split.counts.toarray() > 0
    return np.ones_like(bought), bought, ~bought


# %%
whole, old, new = masks(split)
protocols = {
    "next basket": (split, whole),
    "next basket,\nrepeats only": (split, old),
    "next basket,\nnew only": (split, new),
    "random\nhold-out": (random_hold_out, masks(random_hold_out)[2]),
    "leave\none out": (leave_one_out, masks(leave_one_out)[2]),
    "leave one out,\na hundred others": (
        leave_one_out,
        masks(leave_one_out)[2] & a_hundred_others(leave_one_out),
    ),
}
settings = (split, random_hold_out, leave_one_out)
scores = {name: [models.BASELINES[name](setting) for setting in settings] for name in order[::-1]}
values = pd.DataFrame(index=list(scores), columns=list(protocols), dtype=float)
for protocol, (setting, allowed) in protocols.items():
    which = [setting is other for other in settings].index(True)
    for name in scores:
        values.loc[name, protocol] = measure(scores[name][which], setting, allowed)

# %% [markdown]
# First, EASE alone. Nothing in the model changes from bar to bar.

# %%
same_model = values.loc["EASE"]
at_cut, held_out, left_out = scores["EASE"]  # the scores of the same model in the three settings
ladder = {
    "new products, NDCG@10": same_model["next basket,\nnew only"],
    "next basket, NDCG@10": same_model["next basket"],
    "next basket, NDCG@100": measure(at_cut, split, whole, k=100),
    "next basket, hit@10": measure(at_cut, split, whole, metrics.hit_rate),
    "repeats only, NDCG@10": same_model["next basket,\nrepeats only"],
    "random hold-out, NDCG@10": same_model["random\nhold-out"],
    "random hold-out, hit@10": measure(held_out, *protocols["random\nhold-out"], metrics.hit_rate),
    "last product against a hundred, NDCG@10": same_model["leave one out,\na hundred others"],
    "last product against a hundred, hit@10": measure(
        left_out, *protocols["leave one out,\na hundred others"], metrics.hit_rate
    ),
}
ladder = pd.Series(ladder).sort_values(kind="stable")

figure, axes = plt.subplots(figsize=(7, 3.6))
colours = ["#d9822b" if name == "next basket, NDCG@10" else "#1b4f72" for name in ladder.index]
axes.barh(ladder.index, ladder, color=colours)
for row, value in enumerate(ladder):
    axes.text(value + 0.01, row, f"{value:.2f}", va="center")
axes.set(xlabel="score of the same model on the same receipts", xlim=(0, 1.05))
axes.set_title(f"From {ladder.iloc[0]:.2f} to {ladder.iloc[-1]:.2f} without touching the model", x=-0.55)
plt.show()

# %%
Markdown(
    f"EASE scores {ladder.iloc[0]:.2f} ({ladder.index[0]}) or {ladder.iloc[-1]:.2f} "
    f"({ladder.index[-1]}), as you like. Neither number is a lie; they answer different questions. "
    "The shop asked the question of the orange bar."
)

# %% [markdown]
# A shift of all scores would be harmless: you could still compare methods under one protocol. But the *order* changes
# too, and that is what you choose a model by.

# %%
places = values.rank(ascending=False, method="min")
figure, axes = plt.subplots(figsize=(7.4, 3.9))
axes.imshow(places, cmap="YlGnBu_r", vmin=0, vmax=9, aspect="auto")
for i, j in np.ndindex(values.shape):
    text = f"{places.iloc[i, j]:.0f}.  ({values.iloc[i, j]:.2f})"
    color = "white" if places.iloc[i, j] < 4 else "black"
    axes.text(j, i, text, ha="center", va="center", fontsize=9, color=color)
axes.set_xticks(range(values.shape[1]), values.columns, fontsize=8.5)
axes.set_yticks(range(len(values)), values.index)
axes.tick_params(length=0)
axes.spines[:].set_visible(False)
axes.set_title("Place of each method (NDCG@10 in brackets) under each protocol", x=-0.2)
plt.show()

# %%
honest, leaky = places["next basket"], places["random\nhold-out"]
agreement = values["next basket"].corr(values["random\nhold-out"], method="kendall")
fallen = (leaky - honest).idxmax()
Markdown(
    f"Under a random hold-out the winner is **{leaky.idxmin()}**; at the next basket it is "
    f"**{honest.idxmin()}**. The one that falls most is **{fallen}**, from place {honest[fallen]:.0f} "
    f"to {leaky[fallen]:.0f} of {len(places)}. Kendall's rank correlation between the two orders is "
    f"{agreement:.2f}; one would be agreement, zero none at all."
)

# %% [markdown]
# Do not read too much into the fall of personal frequency. Where only new products are ranked, its own term is zero by
# construction, and what is left *is* recent popularity: the two have the same score there. Such a protocol does not
# find that habit is weak; it forbids habit.

# %%
only_new = []
for name, (setting, allowed) in protocols.items():
    if not (allowed & masks(setting)[1]).any():  # nothing that was bought before is ranked
        only_new.append(name)
twins = values.loc[["personal frequency", "recent popularity"], only_new]
np.testing.assert_allclose(*twins.to_numpy())
print("the same score under:", "; ".join(name.replace("\n", " ") for name in only_new))

# %% [markdown]
# What goes wrong in each?
#
# - **Random hold-out** hides the saucer and leaves the cup from the same basket in the history. Finding it is no
#   prediction; it is filling in a gap. And popularity is counted on days that come after the hidden line.
# - **Leave one out** does the same to every target: the last new product nearly always has its basket around it.
# - **Sampled negatives** let a model win against products that nobody wants. The score rises, and it does not rise
#   alike for all: `NDCG` on a sample can put methods in another order than `NDCG` on the catalogue (Krichene & Rendle,
#   2020).
# - **Repeats mixed with new products** hide that a method does only one of the two jobs.
# - **A longer list** raises the number. The shopper's screen does not grow.
#
# The leak can be weighed. Take the same hidden product. Once, the history keeps the rest of its basket, as leave one
# out does; once, the whole basket is hidden, as life does.

# %%
shared = last_new["invoice"].isin(leave_one_out.receipts["invoice"]).mean()

invoice_of = last_new.set_index("customer")["invoice"]
same_basket = firsts[firsts["invoice"] == firsts["customer"].map(invoice_of)]
basket_hidden = hide(same_basket, invoice_of)
earlier = basket_hidden.counts.getnnz(axis=1) > 0  # shoppers who have another basket
target = leave_one_out.targets.multiply(earlier[:, None]).toarray()  # no target, no say in the mean
allowed = masks(leave_one_out)[2]  # the same products are ranked in both

found = {
    name: metrics.hits(metrics.rank(ease_scores, 10, allowed), target)
    for name, ease_scores in [
        ("rest of the basket known", left_out),
        ("whole basket hidden", models.ease(basket_hidden)),
    ]
}
relevant = target.sum(axis=1)
leak = pd.DataFrame(
    {
        "NDCG@10": {name: np.nanmean(metrics.ndcg(hit, relevant)) for name, hit in found.items()},
        "hit@10": {name: np.nanmean(metrics.hit_rate(hit, relevant)) for name, hit in found.items()},
    }
)
leak.round(3)

# %%
gain = paired(*(metrics.ndcg(hit, relevant) for hit in found.values()))
if gain.low > 0:
    verdict = "the leak lifts the score"
elif gain.high < 0:
    verdict = "here the rest of the basket misleads EASE"
else:
    verdict = "on these shoppers this one leak cannot be told from nothing"
Markdown(
    f"{shared:.0%} of the hidden lines leave others of their invoice in the history. Knowing those "
    f"changes `NDCG@10` of EASE on the very same products by {gain.difference:+.3f} "
    f"[{gain.low:+.3f}, {gain.high:+.3f}]: {verdict}. Weigh a leak before you blame it."
)

# %% [markdown]
# A few shoppers cannot settle such a thing. On the real log, with many more, the same leak shows plainly: open this page
# on it, as the last section but one says, and look at this cell again.
#
# > **Pitfall.** Levels also change with the season. A score from October and one from November differ for the *same*
# > method, so compare methods at one cut, and tune on cuts that lie before the one you report. In this book: tune on
# > August to October, report November, once.
#
# ## From page to package
#
# The room `recbook.baselines` holds what you just built, over all shoppers at once: `recbook.baselines.evaluation` the
# split and the scoreboard, `recbook.baselines.metrics` the metrics, `recbook.baselines.intervals` the intervals, and
# `recbook.baselines.models` the methods.

# %%
page.source(next_basket)

# %%
page.source(metrics.ndcg)

# %%
page.source(models.ease_weights)

# %% [markdown]
# Do page and package agree? On every shopper, every product, every weight:

# %%
assert split.codes.tolist() == catalogue and split.shoppers.tolist() == targets.index.tolist()
for row, shopper in enumerate(split.shoppers):
    assert set(split.codes[split.targets[row].indices]) == targets[shopper]
    counts = split.counts[row]
    assert dict(zip(split.codes[counts.indices], counts.data, strict=True)) == habits[shopper]

by_hand = [ndcg_by_hand(habit_list(shopper), targets[shopper]) for shopper in split.shoppers]
packaged = evaluate(models.personal_frequency(split), split)["all", "ndcg@10"]
np.testing.assert_allclose(packaged, by_hand)
np.testing.assert_allclose(evaluate(models.recent_popularity(split), split)["all", "ndcg@10"].mean(), lately)

tiny = sparse.csr_matrix(X)
np.testing.assert_allclose(models.cosine_similarity(tiny), cosine, atol=1e-6)
np.testing.assert_allclose(models.ease_weights(tiny, l2), B, atol=1e-6)
np.testing.assert_allclose(scores["blend"][0], blended, atol=1e-4)  # of models.blend(split), above
print("page and package agree: targets, counts, NDCG, popularity, habit, cosine, EASE, blend")

# %% [markdown]
# ## On real receipts
#
# The same seven methods on Online Retail, the log of a real gift shop, as `recbook score` measured them:

# %%
real = load_results("scoreboard_online-retail")
figures = pd.DataFrame(real["rows"])
headline = figures[figures["metric"] == "ndcg@10"].copy()
headline["cell"] = [
    f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in headline.itertuples()
]  # fmt: skip
table = headline.pivot(index="method", columns="split", values="cell")[list(PARTS)]
by_value = headline[headline["split"] == "all"].set_index("method")["value"]
best_first = by_value.sort_values(ascending=False).index
table.loc[best_first].rename_axis(columns=f"NDCG@10, cut {headline['cut'].iloc[0]}")

# %%
sizes = figures[figures["method"].isna()].set_index("metric")["value"]
ours = ndcg[ndcg["split"] == "all"].set_index("method")["value"]
tau = ours.corr(by_value, method="kendall")
levels = "Levels do not compare between shops: a larger catalogue makes each place harder to earn. "
Markdown(
    f"{sizes['shoppers']:,.0f} shoppers, {sizes['catalogue']:,.0f} products. Kendall's rank correlation "
    f"with the order of the methods on the receipts of this page is {tau:.2f}. "
    f"{levels if workshop.embedded() else ''}More shoppers make narrower intervals; nothing in the "
    "methods does."
)

# %% [markdown]
# And the season, at four cuts a month apart. Follow a row: the same method, the same shop, other months.

# %%
cuts = [f"scoreboard_online-retail_2011-{month}-09" for month in ("08", "09", "10")]
cuts.append("scoreboard_online-retail")
seasons = pd.concat([pd.DataFrame(load_results(name)["rows"]) for name in cuts])
seasons = seasons[seasons["split"] == "all"]
by_cut = seasons[seasons["metric"] == "ndcg@10"]
by_cut = by_cut.pivot(index="method", columns="cut", values="value")
by_cut.sort_values(by_cut.columns[-1], ascending=False).round(3)

# %%
chase = seasons[seasons["metric"] == "ndcg@10 against blend"]
chase = chase[chase["method"] == "personal frequency"].set_index("cut")
lead = -chase[["value", "high", "low"]].set_axis(["ahead by", "at least", "at most"], axis=1)
lead.round(3)

# %%
proven = lead.index[lead["at least"] > 0]
open_cuts = lead[~lead.index.isin(proven)]
unsure = (
    f"At the others it holds zero. That is not equality: there the blend may be up to "
    f"{open_cuts['at most'].max():.3f} better, or up to {-open_cuts['at least'].min():.3f} worse, "
    "and these shoppers cannot tell. "
    if len(open_cuts)
    else ""
)
Markdown(
    "This is how far the blend is ahead of personal frequency over all products, with the paired "
    f"interval. It leaves zero out at {len(proven)} of {len(cuts)} cuts ({', '.join(proven) or 'none'}). {unsure}"
)

# %% [markdown]
# Run it yourself, on these receipts or on your own: `recbook score --data online-retail --baselines` prints and
# keeps the scoreboard, and `RECBOOK_DATA=online-retail jupyter lab` opens this chapter on the real log.
#
# ## Exercises

# %%
from recbook.book.exercises import check

# %% [markdown]
# ### Exercise 2.1: which of these would you believe?
#
# Three reports on the same shop. (a) "Hit rate at ten of `0.92`, ranking against a hundred sampled products." (b)
# "`NDCG@10` of `0.31` at the next basket, full catalogue; personal frequency has `0.30`; paired interval `[0.002,
# 0.015]`." (c) "`NDCG@10` of `0.35` on a random fifth of the purchases, against `0.04` for personal frequency." Say
# for each what it tells you about tomorrow's baskets, and what you would ask its author.
#
# <details><summary>Answer</summary>
#
# (b) tells you most: the target lies in the future, the whole catalogue competes, the strong simple method stands
# beside it, and the paired interval leaves out zero. Ask for the numbers on new products alone: a method can win on
# repeats and never discover anything. (a) tells you little: against random products even popularity does well. Ask for
# the full ranking. (c) fills gaps in baskets whose rest is known, and it leaves out what personal frequency is good
# at. Ask for a cut in time.
#
# </details>

# %% [markdown]
# ### Exercise 2.2: recall at k
#
# Return the share of `basket` (a set) that is among the first `k` of `ranking` (a list, best first).


# %%
def recall_at(ranking, basket, k):
    """The share of the basket among the first k of the ranking."""
    ...


# %%
check("2.2", recall_at)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def recall_at(ranking, basket, k):
#     return len(set(ranking[:k]) & basket) / len(basket)
# ```
#
# The divisor is the basket, not the list: divided by `k` it would be precision.
#
# </details>

# %% [markdown]
# ### Exercise 2.3: the next basket
#
# `baskets` is a list of `(customer, date, codes)` in any order, with dates as ISO strings such as `"2011-11-09"`, which
# compare as text. Return a dictionary from each customer with a basket before `cut` and another on or after it to the
# set of codes of the first basket on or after it.


# %%
def next_baskets(baskets, cut):
    """Customer -> set of codes of the first basket on or after the cut, for customers known before it."""
    ...


# %%
check("2.3", next_baskets)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def next_baskets(baskets, cut):
#     known = {customer for customer, date, codes in baskets if date < cut}
#     first = {}
#     for customer, date, codes in sorted(baskets, key=lambda basket: basket[1]):
#         if date >= cut and customer in known and customer not in first:
#             first[customer] = set(codes)
#     return first
# ```
#
# Sorting by date makes "first" mean first in time; the set of known customers comes from before the cut only.
#
# </details>

# %% [markdown]
# ### Exercise 2.4: only what is new
#
# `scores` (a vector, bigger is better) and `bought` (booleans) have an entry for each product. Return the list of the
# positions of the `k` best products that were *not* bought, best first. Of equal scores the lower position comes
# first. If fewer than `k` products are new, return those there are.


# %%
def explore_list(scores, bought, k):
    """Positions of the k best products that were not bought, best first."""
    ...


# %%
check("2.4", explore_list)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def explore_list(scores, bought, k):
#     best_first = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
#     return [int(position) for position in best_first if not bought[position]][:k]
# ```
#
# A stable sort of the *negated* scores keeps equal scores in their order. Reversing an ascending sort would turn them
# round.
#
# </details>

# %% [markdown]
# ### Exercise 2.5: one column of EASE
#
# EASE is a ridge regression for each product. Return the weights with which the other products predict product `j`: the
# vector $b$ with $b_j = 0$ that minimises $\|x_j - Xb\|^2 + \lambda\|b\|^2$, where $x_j$ is column `j` of `X` and
# $\lambda$ is `l2`. Try it without the closed form for $B$: delete the column, solve the ridge regression, put the zero
# back. (The check looks at the weights only, so this is a request and not a rule.)


# %%
def ease_column(X, j, l2):
    """The weights (products,) that predict column j from the others, zero at j."""
    ...


# %%
check("2.5", ease_column)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def ease_column(X, j, l2):
#     others = np.delete(X, j, axis=1)
#     weights = np.linalg.solve(others.T @ others + l2 * np.eye(others.shape[1]), others.T @ X[:, j])
#     return np.insert(weights, j, 0)
# ```
#
# This solves a system for each product; the closed form gets all of them from one inverse. Compare with
# `models.ease_weights`.
#
# </details>

# %% [markdown]
# ### Exercise 2.6: beat the blend, fairly
#
# Change one thing in the blend: the half-life, the root, the weight of habit, or a fourth term of your own. Choose its
# value on cuts in August, September and October, with `next_basket(receipts, "2011-08-09")` and so on. Only then run
# November, once, and report the paired difference to `models.blend` with its interval. How many values did you try? Would
# you have chosen the same on November?
#
# <details><summary>What to look for</summary>
#
# A good report names the values tried, the mean over the three tuning cuts, and one November figure with its paired
# interval. If you tried many values, the best of them is partly luck: expect November to be a little below the tuning
# cuts. A paired interval that holds zero is a result too.
#
# </details>

# %% [markdown]
# ## Summary
#
# - One cut in time for everybody, the first basket after it as the target, the whole catalogue ranked: that is the
#   test.
# - Personal frequency is the number that embarrasses models. Report it.
# - *Repeat* and *explore* are two jobs. A single number hides which one a method does.
# - EASE is one regularised inverse: each product explained by all the others, none by itself.
# - Intervals come from drawing shoppers again; comparisons from pairing them.
# - A protocol can move a model from poor to excellent, and change who wins. Ask for the question before the score.
#
# You can now judge any recommender in this book, and any that somebody brings you. Next, products become vectors:
# [Chapter 3](03_embeddings.ipynb).
#
# ## Further reading
#
# - Steck (2019), [Embarrassingly Shallow Autoencoders for Sparse Data](https://doi.org/10.1145/3308558.3313710): EASE.
# - Krichene & Rendle (2020), [On Sampled Metrics for Item Recommendation](https://doi.org/10.1145/3394486.3403226).
# - Li, Jullien, Ariannezhad & de Rijke (2021), [A Next Basket Recommendation Reality
#   Check](https://arxiv.org/abs/2109.14233): repeat and explore, and why frequency is hard to beat.
# - Dacrema, Cremonesi & Jannach (2019), [Are We Really Making Much Progress?](https://arxiv.org/abs/1907.06902)
# - Ji, Sun, Zhang & Li (2023), [A Critical Study on Data Leakage in Recommender System Offline
#   Evaluation](https://arxiv.org/abs/2010.11060).
# - Järvelin & Kekäläinen (2002), [Cumulated Gain-Based Evaluation of IR
#   Techniques](https://doi.org/10.1145/582415.582418): DCG.
# - Smucker, Allan & Carterette (2007), [A Comparison of Statistical Significance Tests for Information Retrieval
#   Evaluation](https://doi.org/10.1145/1321440.1321528): bootstrap and permutation, paired.
