# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Baskets as sentences
#
# At the end you have a GPT that reads any shopper's baskets and says what the next one will hold; you have measured what each
# of its parts is worth, on two shops; and you can say which past purchase made it say so.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,embeddings,language]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("09_baskets")

# %% [markdown]
# **You will learn**
#
# - why a GPT that predicts the next line of a receipt loses to counting;
# - to ask for a whole basket at once, and what the loss must leave out to be fair;
# - to give a network what counting knows: a pointer to past purchases, dates, trends, words, company;
# - to measure what each of these steps earns, and to say when one earns nothing;
# - to explain a recommendation by deletion, and why attention is not an explanation.
#
# **You need** the protocol and the baselines ([Chapter 2](02_baselines.ipynb)), product vectors
# ([Chapter 3](03_embeddings.ipynb)), the GPT ([Chapter 6](06_gpt.ipynb)) and its training
# ([Chapter 7](07_training.ipynb)).

# %% [markdown]
# ## Your GPT learned the shop's sentences. Does it know what I will buy?
#
# A shopper's past is a text already: a basket opens, products follow, the next basket opens. Give every product one token
# and the opening one more, and the model of Chapter 6 can read it as it stands.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from sklearn.linear_model import LogisticRegression

from recbook.baselines import evaluation, intervals, models
from recbook.baselines.results import load_results
from recbook.baskets.batches import NextBasketLoss
from recbook.baskets.features import (
    ITEM_FEATURES,
    USER_ITEM_COUNTED,
    USER_ITEM_FEATURES,
    item_features,
    on_sale_from,
    user_item_features,
)
from recbook.baskets.log import interaction_log, prediction_points
from recbook.baskets.model import scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc

receipts = workshop.cleaned().receipts
split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
log, customer = interaction_log(split.receipts, split.codes)
names = rc.descriptions(split.receipts)

few = np.flatnonzero((log.sizes >= 3) & (log.sizes <= 5) & (log.first < np.arange(len(log.days))))[0]
sentence = []
for basket in (few - 1, few):
    sentence.append("<basket>")
    sentence += [
        names[split.codes[item]].lower() for item in log.items[log.starts[basket] : log.starts[basket + 1]][:4]
    ]
print(" · ".join(sentence))

# %%
Markdown(
    f"All shoppers together: {len(log.days):,} baskets and {len(log.items):,} products in them before the cut, from a "
    f"catalogue of {len(split.codes):,}. {len(split.shoppers):,} shoppers came back and are judged on the first basket "
    "after it."
)

# %% [markdown]
# ## The obvious way
#
# Train that GPT as in Chapter 7: given the tokens so far, say the next one. Where the next basket opens, rank the catalogue
# by its probabilities. That is how sequence recommenders are usually trained. Here is what it earns, beside the simplest
# method of Chapter 2 that knows a shopper:

# %%
PARTS = list(evaluation.PARTS)
STEPS = "next item", "sets", "and a pointer", "and time", "and text", "and what is bought together"
STEPS += ("and repeats that count more",)


def measured(name):
    return pd.DataFrame(load_results(name)["rows"])


def cells(rows):
    return [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows.itertuples()]


def gained(method, results="baskets_steps_embedded-shop"):
    rows = measured(results)
    rows = rows[(rows["method"] == method) & rows["metric"].str.startswith("ndcg@10 against")].set_index("split")
    words = []
    for part in PARTS:
        low, high = rows.loc[part, ["low", "high"]]
        verdict = "a gain" if low > 0 else "a loss" if high < 0 else "not told apart from nothing"
        words.append(f"{part} {rows.loc[part, 'value']:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}")
    return Markdown(f"Against the row before it, shopper by shopper: {'; '.join(words)}.")


def so_far(methods, results="baskets_steps_embedded-shop"):
    rows = measured(results)
    rows = rows[(rows["metric"] == "ndcg@10") & rows["method"].isin(methods)]
    rows = rows.assign(cell=cells(rows))
    table = rows.pivot(index="method", columns="split", values="cell")
    return table.loc[[name for name in methods if name in table.index], PARTS].rename_axis(columns="NDCG@10")


so_far(["personal frequency", *STEPS[:1]])

# %% [markdown]
# (Each row of this chapter's tables is one training run on the embedded shop, by `benchmarks/baskets.py steps`. The
# first is a plain GPT of the same size, trained as in Chapter 7. The intervals speak of other shoppers, not of other
# seeds.)
#
# Counting wins. Look at what the GPT has to predict. The next token is mostly the next *line of the same receipt*, and
# the order of lines says little: it is an accident of the till. Once per basket the GPT predicts what we care about,
# what a new basket holds, and then its target is one product of many, as if the others were wrong.
#
# ## Ask for the set
#
# So ask only where a basket opens, and ask for all of it. One softmax over the catalogue, and the loss is the mean over the
# basket's products of how surprising each was. By hand, with a shop of five products and a basket of two:


# %%
def set_loss(logits, targets):
    log_probabilities = logits - np.log(np.exp(logits).sum())
    return -log_probabilities[targets].mean()


logits = np.array([2.0, 0.5, 0.0, 1.0, -1.0])
print(f"the basket {{0, 3}}: {set_loss(logits, [0, 3]):.3f} nats a product")
print(f"the basket {{1, 4}}: {set_loss(logits, [1, 4]):.3f} nats a product")

# %% [markdown]
# With that come four decisions that the table below takes in the same step. A basket of many lines and a shopper of many
# baskets count less than in proportion (the power of a half), or a few wholesalers would be all that is learned. Some
# products of the history are left blank in training, so that the network does not lean on one. The log's first months
# are only looked back on. And the opening token gets a count of the baskets before it.

# %% [markdown]
# > **Pitfall.** Never ask for a product that was not on sale yet. In training you know the catalogue of the *end*; in March it
# > held things that came in June. A model that must share its probability with them learns that what is new to a shopper is
# > likely. At the cut nothing like that happens: what is not sold yet is not in the catalogue. So a product
# > enters the softmax on the day by which a handful of shoppers have bought it, and not before.
#
# Here is the share of what a basket held that the shopper had bought before, counted both ways:

# %%
points = prediction_points(log, ahead=0, seed=0)  # one per basket, on its day
on_sale = on_sale_from(log, shoppers=5)
row = np.repeat(np.arange(len(log.days)), log.sizes)
bought = user_item_features(log, points)
had = np.repeat(np.arange(len(log.days)), np.diff(bought.starts)) * log.products + bought.items
again = np.isin(row * log.products + log.items, had)
come_back = log.first < np.arange(len(log.days))
old = come_back[row] & (log.days[row] >= BasketGPTConfig().start)  # late enough to know trends
allowed = old & (on_sale[log.items] < log.days[row])
Markdown(
    f"Of all lines {again[old].mean():.1%} are repeats; of the lines that could have been recommended, "
    f"{again[allowed].mean():.1%}."
)

# %%
so_far(["personal frequency", *STEPS[:2]])

# %%
gained(STEPS[1])

# %% [markdown]
# ## A pointer to what they bought
#
# Asking for the set is not enough: for products bought before, both are far behind a method that only counts. A GPT
# *could* count: attention can find every earlier
# place of a token. But it has to learn that from a few thousand baskets, for every product anew, within the tokens
# that it sees at once. Counting is free. How much does a count tell?

# %%
point = np.repeat(np.arange(len(log.days)), np.diff(bought.starts))  # of each product bought before it
came = np.isin(point * log.products + bought.items, row * log.products + log.items)
count = np.rint(np.exp(bought.features[:, USER_ITEM_FEATURES.index("log count")])).astype(int)
days = np.expm1(3 * bought.features[:, USER_ITEM_FEATURES.index("log days")])

groups = np.minimum(count, 8)
rate = pd.Series(came).groupby(groups).agg(["mean", "size"])
assert rate["mean"].iloc[-1] > rate["mean"].iloc[0]  # the title's claim
fig, ax = plt.subplots()
ax.plot(rate.index, 100 * rate["mean"], marker="o")
ax.set(xlabel="times bought before (the last point: that often or more)", ylabel="bought again in this basket, %")
ax.set(title="What was bought often is bought again", ylim=(0, None))
plt.show()

# %%
chance = log.sizes.mean() / log.products
Markdown(
    f"A product bought once before is in the next basket with a chance of {rate['mean'].iloc[0]:.1%}; any product of the "
    f"catalogue, with {chance:.1%}. "
)

# %% [markdown]
# The *pointer* hands this to the network. For each distinct product in the shopper's whole history, however long, it
# takes a few user-item features (how often, in what share of the baskets, in the last one or not) and the GPT's state,
# puts them through one hidden layer, and adds the result to that product's logit. It cannot touch a product that was
# never bought: those are left to the GPT.

# %% tags=["nbval-ignore-output"]
last = log.days.max() - 60  # days: learn from what came before, judge on the two months after
learn = (log.days[point] >= BasketGPTConfig().start) & (log.days[point] < last)
judge = log.days[point] >= last
small = LogisticRegression(max_iter=1000).fit(bought.features[learn][:, :USER_ITEM_COUNTED], came[learn])
pointed = small.predict_proba(bought.features[judge][:, :USER_ITEM_COUNTED])[:, 1]
tenth = pointed >= np.quantile(pointed, 0.9)
assert came[judge][tenth].mean() > came[judge].mean()
Markdown(
    f"Even a logistic regression on the {USER_ITEM_COUNTED} counts points well. In the log's last two months {came[judge].mean():.1%} of "
    f"the products that shoppers had were bought again; of the tenth that it ranks highest, {came[judge][tenth].mean():.1%}."
)

# %%
so_far(["personal frequency", *STEPS[:3]])

# %%
gained(STEPS[2])

# %% [markdown]
# ## What time tells
#
# A count does not know when. Split the same curve by how long ago the product was bought last:

# %%
ages = pd.cut(
    days, [-1, 14, 30, 60, 120, np.inf], labels=["two weeks", "a month", "two months", "four months", "longer"]
)
curves = pd.DataFrame({"age": ages, "count": np.minimum(count, 4), "came": came})
curves = curves.groupby(["age", "count"], observed=True)["came"].mean().unstack()
assert (curves.iloc[0] > curves.iloc[-1]).all()  # the title's claim
fig, ax = plt.subplots()
for times, style in zip(curves.columns, ["-", "--", "-.", ":"], strict=True):
    label = f"{times} times" if times < curves.columns.max() else f"{times} times or more"
    ax.plot(curves.index.astype(str), 100 * curves[times], style, marker="o", label=label)
ax.set(xlabel="last bought within", ylabel="bought again in this basket, %", ylim=(0, None))
ax.set_title("The same count means less, the longer ago it was")
ax.legend(title="bought before")
plt.show()

# %% [markdown]
# So the user-item features of the pointer also get dates: days and baskets since, counts that fade with half-lives of weeks
# and months, whether the product is overdue by its own rhythm. The user features at the opening of a basket say how long the
# shopper has been away and what time of year it is. And every product, bought or not, has item features, its trend: what it
# sold in the last week, month and quarter, its age, whether it rises.
#
# > **Pitfall.** All features must be counted *as of the prediction point*, the day on which the model predicts, thousands of
# > times over. One table with a row per day holds what sold before that day; a prediction point looks up its row. And it lies a
# > little before its basket, not on its day: at the cut nobody comes at that very moment, so in training the model predicts
# > each basket from some days ahead (`BasketGPTConfig.ahead`).

# %%
table = item_features(log, int(log.days.max()) + 1)  # (days + 1, products, features)
today = len(table) // 2
bought_on = np.repeat(log.days, log.sizes)
week = np.bincount(log.items[(bought_on >= today - 7) & (bought_on < today)], minlength=log.products)
np.testing.assert_allclose(table[today, :, ITEM_FEATURES.index("7 days")], np.log1p(week), atol=1e-2)
print("the row of a day holds what sold in the week before it, and nothing of the day itself")

# %%
so_far(["personal frequency", *STEPS[:4]])

# %%
gained(STEPS[3])

# %% [markdown]
# ## Words and company
#
# Two things are left that a product brings with it. Its *words*: every product vector, where it is read and where it is
# predicted, is a free vector plus a projection of the description's embedding (Chapter 3), so that a product without
# a past still has a place; and a feature says how close each description is to those bought. And its *company*, its
# co-purchases: which products the same shoppers bought. That is EASE, and the share of common buyers beside it. Both are
# counted once a fortnight, and a prediction point uses the last snapshot *before* it, so that none sees what it predicts.

# %%
so_far(["personal frequency", *STEPS[:6]])

# %%
gained(STEPS[4])

# %%
gained(STEPS[5])

# %% [markdown]
# ## What should count
#
# One line of the loss is left. A list of ten has room for so many repeats and so many new products, and cross-entropy does not
# know about lists. Count each repeat among the targets $w$ times. At its best such a network gives what was bought before $w$
# times its share: as if $\log w$ were added to its logit. So the weight settles how many of the ten places go to repeats; it was
# chosen on earlier cuts of the real log, like every other setting.

# %%
so_far(["personal frequency", *STEPS])

# %%
WHOLE = "the whole, but it does not read"


def gains_of(results):
    rows = measured(results)
    rows = rows[rows["metric"].str.startswith("ndcg@10 against")].copy()
    rows.loc[rows["metric"].str.endswith(WHOLE), "method"] = "reading (the GPT)"
    rows["cell"] = [f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in rows.itertuples()]
    return rows


def table_of(gains):
    table = gains.pivot(index="method", columns="split", values="cell")
    return table.loc[[*STEPS[1:], "reading (the GPT)"], PARTS].rename_axis(columns="gained, paired")


gains = gains_of("baskets_steps_embedded-shop")
table_of(gains)

# %% [markdown]
# The last row is the question that a doubter asks first: what is the GPT itself worth, once counts, dates, words and company are there?
# It is the whole against the whole without reading: the head gets the user features in place of the GPT's state.

# %%
sums = []
for part in PARTS:
    rows = gains[gains["split"] == part]
    up, down = rows[rows["low"] > 0]["method"].tolist(), rows[rows["high"] < 0]["method"].tolist()
    sums.append(f"*{part}*: gains of {', '.join(up) or 'none'}; losses of {', '.join(down) or 'none'}")
Markdown(
    f"With {int(gains['n'].max()):,} judged shoppers most steps are too small to see here. What the intervals vouch for: "
    f"{'. '.join(sums)}. The real log, below, has more shoppers."
)

# %% [markdown]
# ## From page to package
#
# The room of this chapter is `recbook/baskets`. The network stands in `recbook/baskets/network.py`: Chapter 6's `GPT` with
# vectors in place of tokens, and this head:

# %%
from recbook.baskets.network import BasketNetwork

page.source(BasketNetwork.scores)

# %% [markdown]
# The parts in order: the product's own vector; each feature times a weight that the state decides; a small hidden layer that
# looks at all features of a product together; and the pointer. The loss, with what is on sale and how much each target
# counts, stands in `recbook/baskets/batches.py`:

# %%
page.source(NextBasketLoss.loss)

# %% [markdown]
# With one basket, everything on sale and equal weights it is the loss on this page; and a count that fades is a user-item
# feature of `recbook/baskets/features.py`.

# %%
objective = NextBasketLoss(log, points.day, on_sale * 0 - 1, start=0, repeats=1.0)
one = np.flatnonzero(objective.predicted)[0]
scores = torch.from_numpy(np.random.default_rng(0).normal(size=(1, log.products)))
items = log.items[log.starts[one] : log.starts[one + 1]]
packaged = objective.loss(scores, np.array([one]), np.zeros(len(items), int), items, np.zeros(len(items), bool))
np.testing.assert_allclose(packaged, set_loss(scores[0].numpy(), items), rtol=1e-5)

faded = np.zeros(log.products)
for basket in range(log.first[one], one):
    faded[log.items[log.starts[basket] : log.starts[basket + 1]]] += 0.5 ** ((log.days[one] - log.days[basket]) / 45)
pairs = slice(bought.starts[one], bought.starts[one + 1])
column = USER_ITEM_FEATURES.index("count, 45 days")
np.testing.assert_allclose(bought.features[pairs, column], faded[bought.items[pairs]], rtol=1e-5)
print("page and package agree: the loss of a set, a count that fades")

# %% [markdown]
# ## Ask it
#
# `BasketGPT.fit(receipts)`, in `recbook/baskets/model.py`, counts the features, trains the network and returns the
# recommender. Here it was fitted on everything before the cut.

# %% tags=["nbval-ignore-output"]
model = workshop.basket_gpt()
assert model.catalogue.codes.tolist() == split.codes.tolist()

# %% [markdown]
# A shopper is what they bought. No customer number goes in, so the model works for anybody. Two baskets, typed in by name:

# %% tags=["nbval-ignore-output"]
popular = rc.catalogue(split.receipts).sort_values("customers", ascending=False)
typed = [[names[popular.index[3]], names[popular.index[8]]], [names[popular.index[3]]]]
answer = model.recommend(typed, k=5)
assert len(answer) == 5 and answer["score"].is_monotonic_decreasing
print(typed)
answer.round(3)

# %% [markdown]
# The score orders the products; it is no probability, since some targets counted more than others in training.
#
# One product, no history at all, a later day: the same call. `when` moves the clock forward; `new` leaves out what the
# shopper has; what is not in the catalogue is named.

# %% tags=["nbval-ignore-output"]
ways = {
    "one product": model.recommend([[popular.index[3]]], k=3),
    "the same, only new": model.recommend([[popular.index[3]]], k=3, new=True),
    "nothing known": model.recommend([], k=3),
}
assert popular.index[3] not in ways["the same, only new"]["code"].tolist()
pd.DataFrame({way: table["description"] for way, table in ways.items()}).T.set_axis(
    ["first", "second", "third"], axis=1
)

# %%
try:
    model.recommend([["no such thing", str(popular.index[0])], ["0000X"]])
except ValueError as error:
    print(error)

# %% [markdown]
# ## Is it better?
#
# The same protocol, the same shoppers, every baseline of Chapter 2.

# %% tags=["nbval-ignore-output"]
judged = {name: evaluation.evaluate(method(split), split) for name, method in models.BASELINES.items()}
judged["BasketGPT"] = evaluation.evaluate(scores_at_cut(model, split), split)
means = {name: [table[part, "ndcg@10"].mean() for part in PARTS] for name, table in judged.items()}
board = pd.DataFrame(means, index=PARTS).T.sort_values("all", ascending=False)
assert board.index.get_loc("BasketGPT") < 3
board.round(3).rename_axis(columns="NDCG@10")

# %% tags=["nbval-ignore-output"]
best = next(name for name in board.index if name != "BasketGPT")
rows, verdicts = {}, []
for part in PARTS:
    ours, theirs = (judged[name][part, "ndcg@10"].to_numpy() for name in ("BasketGPT", best))
    change = intervals.paired(ours, theirs)
    rows[part] = [f"{change.difference:+.3f}", f"[{change.low:+.3f}, {change.high:+.3f}]"]
    verdicts.append("ahead" if change.low > 0 else "behind" if change.high < 0 else "not told apart")
assert len(verdicts) == len(PARTS)
pd.DataFrame(rows, index=[f"BasketGPT against {best}", "paired interval"]).T.assign(verdict=verdicts)

# %% [markdown]
# A small shop teaches little and judges few. On the real log, with ten times the shoppers, the intervals are narrow enough
# to decide; that comes below.

# %% [markdown]
# ## Where it looks
#
# At the opening of the next basket, each head of each layer spreads its attention over the tokens before. Here for one
# shopper, as the mean of the heads:

# %% tags=["nbval-ignore-output"]
sizes = split.counts.getnnz(axis=1)
shopper = split.shoppers[np.flatnonzero((sizes > 8) & (sizes < 14))[0]]
table = rc.baskets(split.receipts[split.receipts["customer"] == shopper])
history = list(zip(table["date"], table["codes"], strict=True))
tokens, weights = model.attention(history)
shown = pd.DataFrame(
    weights.mean(axis=1).T, index=tokens, columns=[f"layer {layer}" for layer in range(1, len(weights) + 1)]
)
assert np.allclose(shown.sum(), 1, atol=1e-4)
fig, ax = plt.subplots(figsize=(7, 0.26 * len(shown) + 0.8))
image = ax.imshow(shown, aspect="auto", cmap="Greys")
ax.set_yticks(range(len(shown)), [token.lower()[:36] for token in tokens], fontsize=8)
ax.set_xticks(range(len(weights)), shown.columns)
ax.set_title("Attention at the opening of the next basket")
fig.colorbar(image, label="share of the attention")
plt.show()

# %% [markdown]
# Read it with care. It shows what a layer *mixes in*, not what changes the answer: the pointer, the trends and the company
# go past attention altogether.
#
# ## Why this product?
#
# So ask by experiment. Take one past product out of the history, ask again, and see how the recommendation's log-odds
# fall. What falls most, mattered most. That is *deletion*, and it needs nothing but the model's answers.

# %% tags=["nbval-ignore-output"]
first = model.recommend(history, k=1, new=True).iloc[0]
reasons = model.why(history, first["code"])
assert len(reasons) == len({code for _, codes in history for code in codes})
print(f"recommended: {first['description']}")
pd.concat([reasons.head(4), reasons.tail(2)]).round(2)

# %% [markdown]
# A positive effect speaks for the recommendation, a negative one against it. Does attention find what matters, either way? Here are
# twenty shoppers, and for each the rank correlation between the attention on a past product and the size of its effect.


# %% tags=["nbval-ignore-output"]
def agreement(shopper):
    table = rc.baskets(split.receipts[split.receipts["customer"] == shopper])
    history = list(zip(table["date"], table["codes"], strict=True))
    product = model.recommend(history, k=1, new=True)["code"].iloc[0]
    tokens, weights = model.attention(history)
    looked = pd.Series(weights.sum(axis=(0, 1)), index=tokens).groupby(level=0).sum()
    effect = model.why(history, product).drop_duplicates("description").set_index("description")["effect"].abs()
    return effect.corr(looked.reindex(effect.index).astype(float), method="spearman")


some = split.shoppers[(sizes >= 8) & (sizes <= 40)][:20]
agreements = np.array([agreement(shopper) for shopper in some])
assert np.isfinite(agreements).all() and np.abs(agreements).max() <= 1
Markdown(
    f"Mean rank correlation {agreements.mean():+.2f}, from {agreements.min():+.2f} to {agreements.max():+.2f}. "
    "Were attention an explanation, these would all be near one."
)

# %% [markdown]
# > **Pitfall.** Deletion explains the *model*, one purchase at a time. Two purchases that say the same cover for each other: take out either
# > and nothing changes. And it says nothing about why the shopper would want the product. Chapter 14 builds on facts
# > instead.
#
# ## On real receipts
#
# Online Retail, at the cut that nothing was tuned on. The settings were chosen on the cuts of August to October. The
# peers come from their own packages, and are judged by the same code.

# %%
scored = measured("baskets_score_online-retail")
peers = measured("peers_online-retail")
rows = pd.concat([scored, peers[peers["method"] != "BasketGPT"]])
rows = rows[rows["metric"] == "ndcg@10"]
rows = rows.assign(cell=cells(rows))
table = rows.pivot(index="method", columns="split", values="cell")[PARTS]
order = rows[rows["split"] == "all"].set_index("method")["value"].sort_values(ascending=False).index
table.loc[order].rename_axis(columns=f"NDCG@10, cut {scored['cut'].iloc[0]}")

# %%
both = pd.concat([scored, peers])
gained_rows = both[
    (both["method"] == "BasketGPT") & both["metric"].isin(["ndcg@10 against blend", "ndcg@10 against LambdaRank"])
]
gained_rows = gained_rows.drop_duplicates(["metric", "split"])
gained_rows = gained_rows.assign(
    cell=[f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in gained_rows.itertuples()]
)
gained_rows.pivot(index="metric", columns="split", values="cell")[PARTS].rename_axis(columns="BasketGPT gains, paired")

# %%
facts = scored[scored["method"] == "BasketGPT"].set_index("metric")["value"]
lines = gained_rows[gained_rows["split"] == "all"].set_index("metric")
assert lines.loc["ndcg@10 against blend", "low"] > 0
ranker = lines.loc["ndcg@10 against LambdaRank"]
verdict = "ahead of" if ranker["low"] > 0 else "behind" if ranker["high"] < 0 else "not told apart from"
Markdown(
    f"The GPT beats every baseline. On all products it is {verdict} the boosted ranker (LambdaRank), which is given much the same "
    f"counts by hand. It has {facts['parameters']:,.0f} parameters and took {facts['seconds to train'] / 60:.1f} minutes to "
    "train, on a machine as small as this page's. SASRec is a transformer too, trained on the next line of a receipt, without "
    "counts and without dates; it was still improving when its training was stopped."
)

# %% [markdown]
# The steps on the real log, at a cut of the months that settings were chosen on, so the gains flatter a little:

# %%
REAL_STEPS = "baskets_steps_online-retail_2011-10-09"
so_far(["personal frequency", *STEPS], REAL_STEPS)

# %%
table_of(gains_of(REAL_STEPS))


# %%
def epochs(results):
    command = load_results(results)["command"]
    return command.split("--epochs ")[1].split()[0] if "--epochs" in command else f"{BasketGPTConfig().epochs:g}"


real = gains_of(REAL_STEPS)
reading = real[real["method"] == "reading (the GPT)"].set_index("split")
verdicts = []
for part in PARTS:
    low, high = reading.loc[part, ["low", "high"]]
    verdicts.append(f"{part}: {'a gain' if low > 0 else 'a loss' if high < 0 else 'not told apart from nothing'}")
Markdown(
    f"To save time these runs took {epochs(REAL_STEPS)} epochs each; the model of the first table took "
    f"{BasketGPTConfig().epochs:g}. So look at the last row with care. Reading, after that little training: "
    f"{'; '.join(verdicts)}. The counts are ready from the first step and the GPT is not, and these rows cannot say "
    "what it is worth once it is trained in full. What they do say is where most of the result comes from."
)

# %% [markdown]
# And products that were never sold: a tenth of the catalogue was kept from the model, all but the descriptions, and ranked for each
# shopper by the model, by descriptions alone, and by chance.

# %%
unsold = measured("baskets_unsold_online-retail_2011-10-09")
rows = unsold[unsold["metric"] == "ndcg@10"].sort_values("value", ascending=False)
rows.assign(cell=cells(rows)).set_index("method")[["cell"]].set_axis(["NDCG@10 among the unsold"], axis=1)

# %%
against = unsold[unsold["metric"] == "ndcg@10 against text profile, TF-IDF"].iloc[0]
shown_to = unsold[unsold["metric"] == "share of the lists of all products"]["value"].iloc[0]
kept = unsold[unsold["metric"] == "kept from the model"]["value"].iloc[0]
verdict = "ahead of" if against["low"] > 0 else "behind" if against["high"] < 0 else "not told apart from"
Markdown(
    f"It can rank what nobody has bought, by its words, far better than chance. It is {verdict} the plain count of words in common "
    f"({against['value']:+.3f} [{against['low']:+.3f}, {against['high']:+.3f}]). In lists of *all* products these "
    f"{kept:,.0f} fill {shown_to:.1%} of the places. (Training took {epochs('baskets_unsold_online-retail_2011-10-09')} epochs.)"
)

# %% [markdown]
# What would a larger shop cost? Ten times the shoppers, three times the products:

# %%
growth = measured("baskets_growth_embedded-shop")
columns = ["seconds to count", "seconds an epoch", "milliseconds an epoch and shopper", "peak GB"]
growth.pivot(index="method", columns="metric", values="value")[columns].round(1).rename_axis(None)

# %% [markdown]
# Time grows with the shoppers as it must, and less than in proportion with the products.

# %% [markdown]
# Run this chapter on the real log yourself: `RECBOOK_DATA=online-retail make lab`. On the command line
# `recbook score --data receipts.csv` sets the GPT beside the baselines on your own receipts.

# %% [markdown]
# ## Exercises
#
# ### Exercise 9.1: the loss, among what is on sale
# Write `loss_on_sale(logits, targets, on_sale)`: the mean surprise of a basket's products, in nats, under one softmax over
# the products that were on sale. `logits` and the booleans `on_sale` are arrays over the catalogue, `targets` a list of
# columns. A target that was not on sale does not count. Logits may be as large as `1200`.


# %%
def loss_on_sale(logits, targets, on_sale):
    """Mean nats of the targets that are on sale, under one softmax over what is on sale."""
    ...


# %%
check("9.1", loss_on_sale)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def loss_on_sale(logits, targets, on_sale):
#     open_to = np.where(on_sale, logits, -np.inf)
#     largest = open_to.max()
#     log_sum = largest + np.log(np.exp(open_to - largest).sum())
#     counted = [target for target in targets if on_sale[target]]
#     return log_sum - logits[counted].mean()
# ```
#
# Minus infinity takes a product out of the softmax and out of the gradient: nothing is learned about it, good or bad.
#
# </details>
#
# ### Exercise 9.2: counts that fade
# Write `decayed_counts(baskets, days, day, half_life, products)`: an array with a number for each product. Every purchase
# before `day` adds $0.5^{a/h}$, where $a$ is its age on that day and $h$ the half-life. `baskets` are lists of columns,
# `days` says when each was bought, and some of them may be from `day` or later.


# %%
def decayed_counts(baskets, days, day, half_life, products):
    """How often each product was bought before a day, each purchase halved every half-life: (products,)."""
    ...


# %%
check("9.2", decayed_counts)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def decayed_counts(baskets, days, day, half_life, products):
#     counts = np.zeros(products)
#     for basket, bought in zip(baskets, days):
#         if bought < day:
#             counts[basket] += 0.5 ** ((day - bought) / half_life)
#     return counts
# ```
#
# With an endless half-life this is the plain count, with a very short one only the last days count. The pointer gets
# several half-lives and learns what to make of them.
#
# </details>
#
# ### Exercise 9.3: what was on sale
# Write `on_sale_by(shopper, product, day, today, least)`: the sorted list of products that at least `least` different
# shoppers had bought before `today`. The first three are arrays with an entry for every line of every receipt, in no order.


# %%
def on_sale_by(shopper, product, day, today, least):
    """The products that at least so many different shoppers had bought before today, sorted."""
    ...


# %%
check("9.3", on_sale_by)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def on_sale_by(shopper, product, day, today, least):
#     known = day < today
#     pairs = np.unique(np.stack([product[known], shopper[known]]), axis=1)
#     found, buyers = np.unique(pairs[0], return_counts=True)
#     return found[buyers >= least].tolist()
# ```
#
# For thousands of days, this would count the same lines again and again. The package finds, once for each product, the
# first day by which enough shoppers had bought it (`on_sale_from`), and compares.
#
# </details>
#
# ### Exercise 9.4: deletion
# Write `effects(score, history)`: a dictionary from each distinct product of the history (a list of lists of names) to
# what it adds, the score with it less the score without it. `score` is a function of a history. Take out all
# purchases of a product at once, and leave every basket where it was, even if it is then empty.


# %%
def effects(score, history):
    """Of each distinct product: the score with it less the score without it."""
    ...


# %%
check("9.4", effects)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def effects(score, history):
#     whole = score(history)
#     products = {product for basket in history for product in basket}
#     found = {}
#     for gone in products:
#         left = [[product for product in basket if product != gone] for basket in history]
#         found[gone] = whole - score(left)
#     return found
# ```
#
# One more score per product, however the model works inside. One of the check's scores rises if a teapot *or* a cup was
# bought. Where both were, either one alone has no effect: the effects need not add up to anything.
#
# </details>
#
# ### Exercise 9.5: what else could it know?
# Receipts also hold a country and quantities, and nothing in this chapter says how *large* the next basket will be. Choose one of
# them, and write down before you try it: where it would enter the network, what it could tell that the counts do not, and
# on which of the three lists (all, repeat, explore) you expect to see it. Then add it, and measure it as this
# chapter measures a step.
#
# <details><summary>Answer</summary>
#
# The *country* is a fact about the shopper, so it belongs to the opening token: a small embedding added there, with one
# entry for countries that are rare or new. Where nearly all shoppers live in one country it can help only a few. The
# *quantities* are facts about a purchase: another column of the pointer, such as the logarithm of the last quantity, which may
# tell a trader's stock from a present. You would look for it among repeats. The *size* of the next basket is a
# second answer of the same state: one more output, trained on the logarithm of the number of products. It cannot change the
# order of a list by itself; at best, learning it makes the state better, and it says how many products to show.
#
# An honest test keeps everything else fixed, trains each variant with several seeds, at cuts that come before the one
# you report, and gives the paired difference with its interval. If that holds zero, the simpler model stays: write that down too.
#
# </details>

# %% [markdown]
# ## Summary
#
# - The next basket is the question. Asking for it well is not enough: the largest single step is the pointer.
# - Predict as the shop will: only what is on sale, only from what is known on that day, a little ahead.
# - A network need not learn to count. Hand it the counts, the dates and the company, and let it learn what they mean
#   together.
# - Show each step with its interval, on two shops, and keep the cut that you report away from the choices that you make.
# - Deletion says what the model used. Attention only shows where it looked.
#
# ## Further reading
#
# - [SASRec](https://arxiv.org/abs/1808.09781): the transformer as a sequence recommender.
# - [TIFU-kNN](https://arxiv.org/abs/2006.00556): why counting is so hard to beat at the next basket.
# - [ReCANet](https://doi.org/10.1145/3477495.3531708): a network for repeats.
# - [Pointer networks](https://arxiv.org/abs/1506.03134): an output that points into the input.
# - [Attention is not explanation](https://arxiv.org/abs/1902.10186).
