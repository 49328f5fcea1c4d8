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
# At the end you have a GPT that reads a shopper's baskets and says what the next one will hold, better than every
# baseline of Chapter 2, for shoppers it has never seen; and you can say which past purchase made it say so.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,embeddings,language]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook import page

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

from recbook import baselines, baskets, clues, evaluation, histories, sentences, workshop
from recbook import receipts as rc
from recbook.exercises import check

receipts = workshop.cleaned().receipts
split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
log, customer = histories.read(split.receipts, split.codes)
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
    return pd.DataFrame(evaluation.load_results(name)["rows"])


def cells(rows):
    return [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in rows.itertuples()]


def so_far(methods, results="baskets_steps_embedded-shop"):
    rows = measured(results)
    rows = rows[(rows["metric"] == "ndcg@10") & rows["method"].isin(methods)]
    rows = rows.assign(cell=cells(rows))
    table = rows.pivot(index="method", columns="split", values="cell")
    return table.loc[[name for name in methods if name in table.index], PARTS].rename_axis(columns="NDCG@10")


so_far(["personal frequency", *STEPS[:1]])

# %% [markdown]
# (Each row of this chapter's tables is a training run on the embedded shop, all with the same settings, by
# `benchmarks/baskets.py steps`.)
#
# It is not even close. Look at what it was asked. The next token is almost always the next *line of the same receipt*, and
# the order of lines says nothing: a till's accident. Once in a basket it is asked the question that we care about, what
# a new basket holds, and then it is told one product of many as if the others had been wrong.
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
# > **Pitfall.** Never ask for a product that was not on sale yet. In training you know the catalogue of the *end*; in March it
# > held things that came in June. A model that must share its probability with them learns that what is new to a shopper is
# > likely. At the cut nothing like that happens: what is not sold yet is not in the catalogue. So a product
# > enters the softmax on the day by which a handful of shoppers have bought it, and not before.
#
# Here is the share of what a basket held that the shopper had bought before, counted both ways:

# %%
questions = histories.before_each(log, ahead=0, seed=0)
on_sale = clues.on_sale_from(log, shoppers=5)
row = np.repeat(np.arange(len(log.days)), log.sizes)
bought = clues.of_bought(log, questions)
had = np.repeat(np.arange(len(log.days)), np.diff(bought.starts)) * log.products + bought.items
again = np.isin(row * log.products + log.items, had)
old = (log.first < np.arange(len(log.days)))[row] & (log.days[row] >= 90)  # shoppers who come back, a trend behind them
allowed = old & (on_sale[log.items] < log.days[row])
Markdown(
    f"Of all lines {again[old].mean():.1%} are repeats; of the lines that could have been recommended, "
    f"{again[allowed].mean():.1%}."
)

# %%
so_far(["personal frequency", *STEPS[:2]])

# %% [markdown]
# ## A pointer to what they bought
#
# A better question, and not enough: for products bought before, both are far behind a method that only counts. A GPT
# *could* count: attention can find every earlier
# place of a token. But it has to learn that from a few thousand baskets, for every product anew, within the tokens
# that it sees at once. Counting is free. How much does a count tell?

# %%
known = clues.of_bought(log, questions)
asked = np.repeat(np.arange(len(log.days)), np.diff(known.starts))  # the question of each product bought before
came = np.isin(asked * log.products + known.items, row * log.products + log.items)
count = np.rint(np.exp(known.clues[:, clues.BOUGHT.index("log count")])).astype(int)
days = np.expm1(3 * known.clues[:, clues.BOUGHT.index("log days")])

groups = np.minimum(count, 8)
rate = pd.Series(came).groupby(groups).agg(["mean", "size"])
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
# takes a few numbers (how often, in what share of the baskets, in the last one or not) and the GPT's state, puts them
# through one hidden layer, and adds the result to that product's logit. It cannot touch a product that was never bought: those
# are left to the GPT.

# %%
so_far(["personal frequency", *STEPS[:3]])

# %% [markdown]
# ## What time tells
#
# A count does not know when. Split the same curve by how long ago the product was bought last:

# %%
ages = pd.cut(days, [-1, 14, 30, 60, 120, 400], labels=["two weeks", "a month", "two months", "four months", "longer"])
curves = pd.DataFrame({"age": ages, "count": np.minimum(count, 4), "came": came})
curves = curves.groupby(["age", "count"], observed=True)["came"].mean().unstack()
fig, ax = plt.subplots()
for times, style in zip(curves.columns, ["-", "--", "-.", ":"], strict=True):
    label = f"{times} times" if times < curves.columns.max() else f"{times} times or more"
    ax.plot(curves.index.astype(str), 100 * curves[times], style, marker="o", label=label)
ax.set(xlabel="last bought within", ylabel="bought again in this basket, %", ylim=(0, None))
ax.set_title("The same count means less, the longer ago it was")
ax.legend(title="bought before")
plt.show()

# %% [markdown]
# So the pointer also gets dates: days and baskets since, counts that fade with half-lives of weeks and months, whether the product is
# overdue by its own rhythm. The opening of a basket is told how long the shopper has been away and what time of
# year it is. And every product, bought or not, gets its trend: what it sold in the last week, month and quarter, its age,
# whether it rises.
#
# > **Pitfall.** All of this must be counted *as of the day of asking*, thousands of times over. One table with a row a day holds
# > what sold before that day; a question looks up its row. And ask a little before the basket, not on its day: at the cut nobody
# > comes at that very moment, so in training each basket is asked for up to ten days ahead.

# %%
so_far(["personal frequency", *STEPS[:4]])

# %% [markdown]
# ## Words and company
#
# Two things are left that a product brings with it. Its *words*: every product vector, where it is read and where it is
# predicted, is a free vector plus a projection of the description's embedding (Chapter 3), so that a product without
# a past still has a place. And its *company*: which products the same shoppers bought. That is EASE, with weights
# refreshed every fortnight, so that no question sees what it asks for.

# %%
so_far(["personal frequency", *STEPS[:6]])

# %% [markdown]
# ## What should count
#
# One line of the loss is left. A top-ten list has room for ten; a shopper with a long history fills it with repeats or takes a risk
# on something new. Cross-entropy does not know about lists. It spends most of its effort on the long tail of products
# that nobody would put among ten. Counting each repeat in the targets several times over moves the network's attention to where the list
# is decided.

# %%
so_far(["personal frequency", *STEPS])

# %%
steps = measured("baskets_steps_embedded-shop")
gains = steps[steps["metric"].str.startswith("ndcg@10 against") & steps["method"].isin(STEPS)]
gains = gains.assign(cell=[f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in gains.itertuples()])
table = gains.pivot(index="method", columns="split", values="cell").loc[list(STEPS[1:]), PARTS]
table.rename_axis(columns="gained over the step before, paired")

# %%
unproven = gains[(gains["split"] == "all") & (gains["low"] <= 0)]["method"].tolist()
Markdown(
    "An interval that holds zero is a step that this shop cannot vouch for. On all products that is true of: "
    f"{', '.join(unproven) or 'none'}."
)

# %% [markdown]
# ## From page to package
#
# The network is Chapter 6's `GPT` with vectors in place of tokens, and this head:

# %%
from recbook.basket_model import BasketNetwork

page.source(BasketNetwork.scores)

# %% [markdown]
# The loss on this page and the package's agree; so do a count that fades and the package's clue.

# %%
answers = sentences.Answers(log, questions.day, on_sale * 0 - 1, start=0, repeats=1.0)
one = np.flatnonzero(answers.asked)[0]
scores = torch.from_numpy(np.random.default_rng(0).normal(size=(1, log.products)))
items = log.items[log.starts[one] : log.starts[one + 1]]
packaged = answers.loss(scores, np.array([one]), np.zeros(len(items), int), items, np.zeros(len(items), bool))
np.testing.assert_allclose(packaged, set_loss(scores[0].numpy(), items), rtol=1e-5)

behind = np.arange(log.first[one], one)
faded = np.zeros(log.products)
for basket in behind:
    faded[log.items[log.starts[basket] : log.starts[basket + 1]]] += 0.5 ** ((log.days[one] - log.days[basket]) / 45)
pairs = slice(known.starts[one], known.starts[one + 1])
column = clues.BOUGHT.index("count, 45 days")
np.testing.assert_allclose(known.clues[pairs, column], faded[known.items[pairs]], rtol=1e-5)
print("page and package agree: the loss of a set, a count that fades")

# %% [markdown]
# ## Ask it
#
# `BasketGPT.fit(receipts)` counts, trains and returns the recommender. Here it was fitted on everything before the cut.

# %% tags=["nbval-ignore-output"]
model = workshop.basket_gpt()
assert model.catalogue.codes.tolist() == split.codes.tolist()

# %% [markdown]
# A shopper is what they bought. Nobody's number goes in, so nobody needs to be known. Two baskets, typed in by name:

# %% tags=["nbval-ignore-output"]
popular = rc.catalogue(split.receipts).sort_values("customers", ascending=False)
typed = [[names[popular.index[3]], names[popular.index[8]]], [names[popular.index[3]]]]
answer = model.recommend(typed, k=5)
assert len(answer) == 5 and answer["share"].is_monotonic_decreasing
print(typed)
answer.assign(share=answer["share"].map("{:.1%}".format))

# %% [markdown]
# `share` is the part of the next basket's lines that the model expects this product to be (repeats were counted several
# times over in training, so read it as an order, not as a probability).
#
# One product, no history at all, or another day: the same call. `when` moves the clock; `new` leaves out what the shopper
# has; what is not in the catalogue is named.

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
judged = {name: evaluation.evaluate(method(split), split) for name, method in baselines.METHODS.items()}
judged["BasketGPT"] = evaluation.evaluate(baskets.scored(model, split), split)
means = {name: [table[part, "ndcg@10"].mean() for part in PARTS] for name, table in judged.items()}
board = pd.DataFrame(means, index=PARTS).T.sort_values("all", ascending=False)
assert board.index[0] == "BasketGPT"
board.round(3).rename_axis(columns="NDCG@10")

# %% tags=["nbval-ignore-output"]
best = board.index[1]
rows = {}
for part in PARTS:
    ours, theirs = (judged[name][part, "ndcg@10"].to_numpy() for name in ("BasketGPT", best))
    change = evaluation.paired(ours, theirs)
    rows[part] = [f"{change.difference:+.3f}", f"[{change.low:+.3f}, {change.high:+.3f}]"]
assert (
    evaluation.paired(judged["BasketGPT"]["all", "ndcg@10"].to_numpy(), judged[best]["all", "ndcg@10"].to_numpy()).low
    > 0
)
pd.DataFrame(rows, index=[f"BasketGPT against {best}", "paired interval"]).T

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
shown = pd.DataFrame(weights.mean(axis=1).T, index=tokens, columns=["first layer", "second layer"])
assert np.allclose(shown.sum(), 1, atol=1e-4)
fig, ax = plt.subplots(figsize=(7, 0.26 * len(shown) + 0.8))
image = ax.imshow(shown, aspect="auto", cmap="Greys")
ax.set_yticks(range(len(shown)), [token.lower()[:36] for token in tokens], fontsize=8)
ax.set_xticks(range(2), shown.columns)
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
# A positive effect speaks for the recommendation, a negative one against it. Does attention tell the same story?

# %% tags=["nbval-ignore-output"]
looked = shown[~shown.index.str.startswith("<")].sum(axis=1).groupby(level=0).sum()
both = reasons.set_index("description")["effect"].to_frame().join(looked.rename("attention"), how="inner")
agreement = both["effect"].corr(both["attention"], method="spearman")
assert abs(agreement) <= 1
Markdown(
    f"Rank correlation of attention with the effect of deletion, for this shopper: {agreement:+.2f}. One would need it near "
    "one to take the picture above for an explanation."
)

# %% [markdown]
# > **Pitfall.** Deletion explains the *model*, one purchase at a time. Two purchases that say the same cover for each other: take out either
# > and nothing changes. And it says nothing about why the shopper would want the product. Chapter 13 builds on facts
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
gained = both[
    (both["method"] == "BasketGPT") & both["metric"].isin(["ndcg@10 against blend", "ndcg@10 against LambdaRank"])
]
gained = gained.drop_duplicates(["metric", "split"])
gained = gained.assign(cell=[f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in gained.itertuples()])
gained.pivot(index="metric", columns="split", values="cell")[PARTS].rename_axis(columns="BasketGPT gains, paired")

# %%
facts = scored[scored["method"] == "BasketGPT"].set_index("metric")["value"]
Markdown(
    f"It has {facts['parameters']:,.0f} parameters and took {facts['seconds to train'] / 60:.1f} minutes to train on two CPU "
    "cores. SASRec is a transformer too. What separates the two is not the architecture; it is what they are asked, and what "
    "they are told."
)

# %% [markdown]
# The steps on the real log, at a cut of the months that settings were chosen on:

# %%
so_far(["personal frequency", *STEPS], "baskets_steps_online-retail_2011-10-09")

# %% [markdown]
# And products that were never sold: a tenth of the catalogue was kept from the model, all but the descriptions, and ranked for each
# shopper by the model, by descriptions alone, and by chance.

# %%
rows = measured("baskets_unsold_online-retail_2011-10-09")
rows = rows[rows["metric"] == "ndcg@10"]
rows.assign(cell=cells(rows)).set_index("method")[["cell"]].set_axis(["NDCG@10 among the unsold"], axis=1)

# %% [markdown]
# Run this chapter on the real log yourself: `RECBOOK_DATA=online-retail make lab`. On the command line
# `recbook score --data receipts.csv` sets the GPT beside the baselines on your own receipts.

# %% [markdown]
# ## Exercises
#
# ### Exercise 9.1: the loss, among what is on sale
# Write `loss_on_sale(logits, targets, on_sale)`: the mean surprise of a basket's products, in nats, under one softmax over
# the products that were on sale. `logits` and the booleans `on_sale` are arrays over the catalogue, `targets` a list of
# columns. A target that was not on sale is not asked for. Logits may be as large as `1200`.


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
#     asked = [target for target in targets if on_sale[target]]
#     return log_sum - logits[asked].mean()
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
# Asked for thousands of days, this would count the same lines again and again. The package finds, once for each product, the
# day of its so-many-th shopper, and compares.
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
# One question a product, however the model works inside. One of the check's scores rises if a teapot *or* a cup was
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
# - What you ask decides more than the architecture: the next line of a receipt is noise, the next basket is the question.
# - Ask as the shop will ask: only for what is on sale, only with what is known on that day, a little ahead.
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
