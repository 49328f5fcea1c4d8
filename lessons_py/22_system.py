# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The whole system
#
# At the end you have a recommender that a small shop could run on its own receipts: assembled in one page of code, asked in every way in
# which customers ask, kept on disk, and measured; and you know what it cannot do.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,search,language,embeddings,ranking]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("22_system")

# %% [markdown]
# **You will learn**
#
# - to put the parts of this book together, and to see what each takes from the one before;
# - to serve a customer, an unknown shopper, a guest with a typed basket, a query, and a wish for something cheaper that is not red;
# - to recommend a new product from the minute that it is on sale, without training anything;
# - to keep a system on disk so that damage is noticed and nothing is run that should not be;
# - to choose among methods by what they are worth *and* what they cost, and to say what yours does not do.
#
# **You need** all chapters before this one, above all the BasketGPT ([Chapter 9](09_baskets.ipynb)), candidates and rankers
# ([Chapter 12](12_ranking.ipynb)), checked narratives ([Chapter 14](14_narratives.ipynb)) and the student
# ([Chapter 16](16_distillation.ipynb)).

# %% [markdown]
# ## A customer is at the counter. Now what?
#
# You have a dozen parts. Each was measured, and none of them serves anybody. A customer wants a few products, in an order, with a reason, now. How much code
# does it take to join the parts? About a page.

# %% tags=["nbval-ignore-output"]
import hashlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from recbook.baselines import evaluation, metrics
from recbook.baselines.results import has_results, load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.embeddings.encoder import encode
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.fact_store import FactStore
from recbook.narratives.generate import write_checked
from recbook.ranking.candidates import POPULAR_CHANNEL, QUERY_CHANNEL, Snapshot, interleave
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import PER_CHANNEL, LambdaRank
from recbook.ranking.rankers import Shopper
from recbook.system.build import day_after_last
from recbook.system.recommender import Recommender
from recbook.system.retrieve_and_rank import TwoStageRecommender

shop = workshop.recommender()
raw = workshop.raw_receipts()

# %% [markdown]
# That was all of it, if nothing was cached: `Recommender.build(receipts)` cleans, embeds, and trains a BasketGPT, LambdaRank, a student and a narrator. On the
# page that follows we take the trained parts out of it, so as not to train them twice, and write everything else ourselves.
#
# ## One page
#
# **Clean** (Chapter 1). From here on "today" is the day after the last receipt, and everything before it is known.

# %%
receipts = workshop.cleaned().receipts  # rc.clean(raw).receipts
today = receipts["date"].max().normalize() + pd.Timedelta(days=1)
split = evaluation.snapshot(receipts, today)  # everybody so far, and the products that enough of them bought
texts = rc.descriptions(receipts)
assert today == shop.moment == day_after_last(receipts)
print(f"{len(raw):,} lines, {len(receipts):,} clean; {len(split.shoppers):,} customers, {len(split.codes):,} products")

# %% [markdown]
# **Embed** (Chapters 3 and 4), and the three parts that learned (Chapters 9, 12 and 14). Each comment is the line that made it.

# %%
vectors = shop.vectors  # pd.DataFrame(encode(list(texts.values())), index=list(texts))
np.testing.assert_allclose(vectors.loc[list(texts)[:9]], encode(list(texts.values())[:9]), atol=1e-4)
model = shop.two_stage.model  # BasketGPT.fit(split.receipts)
trees = shop.two_stage.ranker  # fit_lambdarank(receipts, vectors, RecommenderConfig()): trained on past cuts
narrator = shop.narrator  # Narrator.fit(receipts, FactStore(receipts, today)): a small GPT, an adapter for one style

# %% [markdown]
# **What is known now** (Chapter 12): a snapshot with channels that find candidates, features of the candidates, and the ranker, LambdaRank blended with the
# BasketGPT. And **the facts** (Chapter 14): a fact store of what may be said, a checker that reads every sentence.

# %%
snapshot = Snapshot(split, model, vectors.loc[split.codes].to_numpy())
features = CandidateFeatures(snapshot, split)
ranker = LambdaRank(trees.trees, trees.names, trees.settings, features)
fact_store = FactStore(receipts, today)
checker = ClaimChecker(fact_store)

# %% [markdown]
# **A customer comes.** Two stages, retrieve and rank, from the history alone:


# %%
def page_find(customer, k):
    """The customer with what they bought, and k codes, best first."""
    known = [(date, [c for c in codes if c in model.catalogue.column]) for date, codes in fact_store.history(customer)]
    shopper = Shopper([basket for basket in known if basket[1]], today)
    requests = snapshot.online([shopper])
    gpt = snapshot.gpt(requests)  # (1, products): log-probabilities
    lists = snapshot.channels(requests, PER_CHANNEL, gpt)
    candidates = interleave(list(lists.values()), 400)  # (1, 400): the channels take turns
    scores = ranker.predict(features.table(requests, candidates, gpt))
    return shopper, split.codes[candidates[0][metrics.rank(scores, k)[0]]].tolist()


# %% [markdown]
# **Explain.** The purchases without which the score falls most come first, the fact store counts the facts, the narrator writes, the checker reads.


# %%
def page_explain(customer, shopper, codes):
    """The facts of each product, and a narrative that tells them."""
    effects = [model.why(shopper.history, code, today).query("effect > 0")["code"] for code in codes]
    reasons = [[reason for reason in row if reason != code] for code, row in zip(codes, effects, strict=True)]
    facts = [fact_store.facts(customer, code, row) for code, row in zip(codes, reasons, strict=True)]
    narratives = write_checked(narrator.model, facts, narrator.vocabulary, checker, narrator.style)
    return facts, [each.text for each in narratives]


# %% tags=["nbval-ignore-output"]
baskets = receipts.groupby("customer")["invoice"].nunique()
regulars = baskets.index[(baskets >= 4) & (baskets <= 8)].to_numpy()
customer = int(np.random.default_rng(18).choice(regulars))
shopper, codes = page_find(customer, 5)
facts, reasons = page_explain(customer, shopper, codes)
assert len(set(codes)) == 5 and not any(checker.false(*pair) for pair in zip(reasons, facts, strict=True))
for code, reason in zip(codes, reasons, strict=True):
    print(f"{texts[code]}\n    {reason}\n")

# %% [markdown]
# Nothing in that page was trained for this customer in person. There is a history, and everything follows from it. So the page serves everybody who has
# one, and you will see below what happens to those who have none.
#
# ## From page to package
#
# `Recommender` (`recbook/system/recommender.py`) is that page, and what a shop needs around it: `build` holds the stages, `retrieve_and_rank` the two-stage
# recommender, `files` the folder on disk. Its answers are the same, product for product, place for place, except for products that too few have bought so
# far: the package can recommend them, the page cannot, so they are excluded here.

# %% tags=["nbval-ignore-output"]
too_few_buyers = shop.catalogue.index[len(split.codes) :].tolist()
answer = shop.recommend(customer, k=5, exclude=too_few_buyers)
assert answer["code"].tolist() == codes
some = np.random.default_rng(0).choice(regulars, min(30, len(regulars)), replace=False).tolist()
for each in some:
    package = shop.recommend(each, k=5, explain=False, exclude=too_few_buyers)["code"].tolist()
    assert package == page_find(each, 5)[1]
print(f"page and package agree for {len(some)} customers")
answer[["description", "price", "channel"]]

# %% [markdown]
# `channel` is the channel that retrieved a product. The reasons may be worded otherwise than on the page: the package looks for them among the
# purchases nearest to the product, where the page leaves out each in turn, which takes most of its time. The core of the package is the page's own
# lines, for every kind of shopper:

# %%
page.source(TwoStageRecommender.find)

# %% [markdown]
# ## Ask it
#
# A shop serves more kinds of people than a log holds. A customer with a query and filters:


# %%
def show(answer):
    """Description, price and channel, with the reasons below."""
    display(answer[["description", "price", "channel"]].assign(price=answer["price"].map("£{:.2f}".format)))
    if "why" in answer:
        display(Markdown("\n".join(f"- *{row.description}*: {row.why}" for row in answer.itertuples())))


# %% tags=["nbval-ignore-output"]
wished = shop.recommend(customer, query="something for the kitchen", k=4, price_max=10.0, exclude=["red"])
assert (wished["price"] <= 10).all() and not wished["description"].str.lower().str.contains(r"\bred\b").any()
show(wished)

# %% [markdown]
# Filters come *before* the ranking, so five that are allowed are five, not what is left of five.
#
# A guest session: somebody who is not in the receipts, but bought two things today:

# %% tags=["nbval-ignore-output"]
basket = answer["description"].iloc[:2].tolist()
typed = shop.recommend(history=basket, k=4)
assert not set(typed["description"]) & set(basket)
print("bought today:", "; ".join(basket))
show(typed)

# %% [markdown]
# And an unknown shopper, without any history (cold start). Here what sells now beats every model of histories (Chapter 12), and no reason is made up: a
# narrative that cites no purchase is short.

# %% tags=["nbval-ignore-output"]
unknown = shop.recommend(k=4)
assert set(unknown["channel"]) == {POPULAR_CHANNEL}
show(unknown)

# %% [markdown]
# An unknown shopper with a query gets what the query means, best sellers first among equals.

# %% tags=["nbval-ignore-output"]
asked = shop.recommend(query="gift for a tea lover", k=4, explain=False)
assert set(asked["channel"]) == {QUERY_CHANNEL}
show(asked)

# %% [markdown]
# What cannot be answered is said in one line, with what to do about it. Where nothing is left to recommend, the answer
# is an empty table: that is no mistake of whoever asks.

# %% tags=["nbval-ignore-output"]
questions = {
    "a name misspelt": dict(history=[texts[codes[0]][:-1] + "x"]),
    "an unknown customer": dict(customer=-7),
    "a word no product has": dict(exclude=["xylophone"]),
}
messages = {}
for what, question in questions.items():
    try:
        shop.recommend(**question, explain=False)
    except ValueError as error:
        messages[what] = str(error)
assert set(messages) == set(questions) and "did you mean" in messages["a name misspelt"]
assert shop.recommend(price_max=0.001, explain=False).empty
for what, message in messages.items():
    print(f"{what}: {message}\n")

# %% [markdown]
# ## A new product
#
# A product that nobody bought yet has no co-purchases, no sales, no vector of its own in any model. It has words. `add` embeds them and gives the product
# the mean score of its nearest known products; nothing is trained.

# %% tags=["nbval-ignore-output"]
new_product = pd.DataFrame({"description": ["sage green dragon teapot"], "price": [12.5]}, index=["99999Z"])
start = time.perf_counter()
larger = shop.add(new_product)
seconds = time.perf_counter() - start
places = {
    query: larger.recommend(query=query, k=50, explain=False)["code"].tolist() for query in ("dragon teapot", "teapot")
}
assert all("99999Z" in codes for codes in places.values()) and "99999Z" not in shop.catalogue.index
print(f"on sale after {seconds:.1f} seconds")
print({query: f"place {codes.index('99999Z') + 1}" for query, codes in places.items()})

# %% [markdown]
# What reason is given for such a product? Only what the receipts say of the shopper, and the price.

# %% tags=["nbval-ignore-output"]
explained = larger.recommend(customer, query="dragon teapot", k=1)
assert explained["code"].tolist() == ["99999Z"] and "dragon" in explained["why"].iloc[0].lower()
explained["why"].iloc[0]

# %% [markdown]
# > **Pitfall.** Being rankable is not being good. A new product is ranked as well as its words are chosen; `ITEM 4711 NEW` is ranked as noise. Chapter 9
# > measured how far words alone carry.
#
# ## Save it
#
# A system that lives only in a notebook is lost at the next power cut. Saved, it is a folder: receipts as parquet, weights as safetensors, trees as text, the
# rest as JSON; nothing in it can run. It is written beside its place and then renamed, so a half-written one cannot exist.

# %% tags=["nbval-ignore-output"]
home = Path(tempfile.mkdtemp())
larger.save(home / "shop")
again = Recommender.load(home / "shop")
pd.testing.assert_frame_equal(again.recommend(customer, k=5), larger.recommend(customer, k=5))
sizes = {path: path.stat().st_size / 1e6 for path in sorted((home / "shop").rglob("*")) if path.is_file()}
assert 1 < sum(sizes.values()) < 500
pd.Series({str(path.relative_to(home)): size for path, size in sizes.items()}, name="MB").round(2).to_frame()

# %% [markdown]
# Now let a disk fail. One byte of the weights is another:

# %%
weights = home / "shop" / "baskets" / "model.safetensors"
content = bytearray(weights.read_bytes())
hashes = json.loads((home / "shop" / "manifest.json").read_text(encoding="utf-8"))["files"]
assert hashlib.sha256(content).hexdigest() == hashes["baskets/model.safetensors"]
content[len(content) // 2] ^= 1
weights.write_bytes(content)
try:
    Recommender.load(home / "shop")
except ValueError as error:
    print(str(error).replace(str(home), "…"))

# %% [markdown]
# A manifest holds the hash of each file, and loading compares them all before it reads one. Without it this byte would be one weight of thousands: no
# error, other recommendations, and nobody would know since when.
#
# > **Pitfall.** A hash in the folder protects against accidents, not against people: whoever can change the weights can change the manifest. Against people
# > keep the folder where they cannot write. To *read* is a matter, too: the folder holds the receipts, so it is saved for its owner's eyes alone.
#
# ## From the command line
#
# The same without Python. `recbook build RECEIPTS --out shop/` makes such a folder; these ask it.


# %%
def recbook(*words, said=""):
    """What the command prints, and its exit code."""
    command = [sys.executable, "-m", "recbook.cli", *words]
    done = subprocess.run(command, input=said, capture_output=True, text=True, encoding="utf-8", cwd=home)
    return done.stdout + done.stderr * (done.returncode != 0), done.returncode


# %% tags=["nbval-ignore-output"]
shop.save(home / "shop")
out, code = recbook("recommend", "shop", "--query", "gift for a tea lover", "--price-max", "8", "-k", "3")
assert code == 0
print(out)

# %% [markdown]
# A program adds `--json` and gets one object. A person may prefer a conversation: every turn narrows the same question.

# %% tags=["nbval-ignore-output"]
turns = "a present for my mother\ncheaper\nnot red\nquit\n"
out, code = recbook("chat", "shop", "--customer", str(customer), "-k", "2", said=turns)
assert code == 0 and "cheaper" in out
print(out)

# %% [markdown]
# And when something is missing, ask the doctor. It imports nothing, so a broken library cannot break it.

# %% tags=["nbval-ignore-output"]
out, code = recbook("doctor")
assert "22_system" in out
print(out.splitlines()[0], *out.splitlines()[-6:], sep="\n")
print("exit code:", code)

# %% [markdown]
# A wrong command ends with one line and another exit code, so that a script notices.

# %%
out, code = recbook("recommend", "no-such-shop")
assert code == 2 and len(out.strip().splitlines()) == 1
print(out.strip())

# %% [markdown]
# ## What it costs
#
# Building is done once a night, asking a hundred times an hour. So measure the two apart, and of asking not the mean but the *tail latency*: nobody is
# served the mean. With `fast=True` the student of Chapter 16 ranks alone, in place of channels, LambdaRank and teacher.


# %% tags=["nbval-ignore-output"]
def milliseconds(**options):
    """The time of an answer, for each of some customers."""
    taken = []
    for row, each in enumerate(some[:20]):
        start = time.perf_counter()
        shop.recommend(each, k=5, seed=row, **options)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


taken = {
    "products, by the student": milliseconds(explain=False, fast=True),
    "products": milliseconds(explain=False),
    "products with reasons": milliseconds(),
}
table = pd.DataFrame({name: np.percentile(ms, [50, 90, 100]) for name, ms in taken.items()}).T
table.columns = ["p50", "p90", "maximum"]
assert table["p50"].is_monotonic_increasing and table.loc["products with reasons", "p50"] < 60_000
table.round(0).astype(int).rename_axis("milliseconds for five")

# %% tags=["nbval-ignore-output"]
alike = [
    len(set(page_find(each, 5)[1]) & set(shop.recommend(each, k=5, explain=False, fast=True)["code"])) for each in some
]
assert 0.5 < np.mean(alike) <= 5
Markdown(f"Of five products of the whole system, the student alone gives {np.mean(alike):.1f} too.")

# %% [markdown]
# Reasons cost many times what products cost. If your page must be fast, show the products and fetch the reasons while the eye is still on the first.
#
# ## What it does not do
#
# **It is not private.** The folder holds all receipts. Worse, answers leak: whoever may type a customer's number reads off the list what that customer
# buys, and whoever may type a history learns what others bought beside it.

# %% tags=["nbval-ignore-output"]
lists = {each: shop.recommend(each, k=10, explain=False)["code"].tolist() for each in some}
repeats = np.mean([np.mean([code in shop.fact_store.bought(each) for code in codes]) for each, codes in lists.items()])
assert 0 <= repeats <= 1
Markdown(
    f"Of the ten products shown to each of {len(some)} customers, {repeats:.0%} are their own purchases. So show nobody another's list, ask who "
    "is asking, and guard the folder and the logs as you guard the receipts."
)

# %% [markdown]
# **It feeds itself (a feedback loop).** What is on the list is bought, and what is bought is on the next list. A log of receipts made with a recommender is
# half a log of the recommender.

# %% tags=["nbval-ignore-output"]
shown = [code for codes in lists.values() for code in codes]
lines = receipts[receipts["code"].isin(split.codes)]["code"].to_numpy()
rng = np.random.default_rng(0)
sold = np.mean([len(set(rng.choice(lines, len(shown)))) for _ in range(100)])
assert 0 < len(set(shown)) < len(shown)
Markdown(
    f"The {len(shown)} places on these lists went to {len(set(shown))} different products. As many lines drawn from the receipts hold {sold:.0f}. "
    "What is never shown can hardly be sold, and so will not be shown."
)

# %% [markdown]
# **It has not learned from a click.** Receipts say what was bought, not what was seen and left. It cannot tell a product that nobody wants from one that nobody was
# shown. Every figure in this book is of a log, and says which basket would have been *guessed*, not what a customer would have done before another list. For
# that you must show lists at random now and then, and compare: that is a trial, and another chapter's work.
#
# **It knows no stock, no margin, no season it has not seen,** and a purchase for a friend looks like a taste. A filter is the place for the first, a talk with the shopkeeper
# for the second.

# %% [markdown]
# ## On real receipts
#
# Now the whole chain on Online Retail, November, every stage a row, in the book's order. *Text only* asks the index for what is nearest to the
# mean of what was bought. *Blend* is the formula of Chapter 2. The *learned trees* are LambdaRank, and the *learned blend*, with the BasketGPT, is what `Recommender` does; the
# *LLM reranker* is Chapter 12's fine-tuned GPT over text, which reranks the BasketGPT's best twenty; the *student* is what `fast=True` uses. *ms* is the median for one shopper
# whose history is at hand, *MB* what the method keeps in memory to answer. Nothing was chosen by this table; but earlier chapters have looked at November, too.


# %%
def measured(name):
    """Rows of a results file as a table, or an empty one."""
    rows = load_results(name)["rows"] if has_results(name) else []
    return pd.DataFrame(rows, columns=["method", "split", "metric", "value", "low", "high", "n", "p", "cut"])


rows = measured("system_scoreboard_online-retail")
board = rows[rows["metric"] == "ndcg@10"].pivot_table(index="method", columns="split", values="value", sort=False)
methods = rows.dropna(subset="method")["method"].drop_duplicates().tolist()
if len(rows):
    every = rows[rows["split"].isin(["all"]) | rows["split"].isna()].pivot_table(
        index="method", columns="metric", values="value"
    )
    ndcg = rows[(rows["metric"] == "ndcg@10") & (rows["split"] == "all")].set_index("method")
    costs = every.rename(
        columns={
            "coverage@10": "coverage",
            "diversity@10": "diversity",
            "milliseconds a shopper": "ms",
            "megabytes kept": "MB",
        }
    )
    table = board[["all", "repeat", "explore"]].join(costs[["coverage", "diversity", "ms", "MB"]]).reindex(methods)
    interval = [f"{ndcg.loc[name, 'low']:.3f} to {ndcg.loc[name, 'high']:.3f}" for name in table.index]
    table.insert(1, "interval of all", interval)
    display(
        table.round({"all": 3, "repeat": 3, "explore": 3, "coverage": 2, "diversity": 2, "ms": 2, "MB": 1}).rename_axis(
            None
        )
    )

# %% [markdown]
# A table of fourteen rows asks for a picture: how good is each method, and how long does a shopper wait for it?


# %%
def quality_against_time(costs, best):
    """NDCG@10 over milliseconds, one point per method; names stand at the right, with a line to each point."""
    fig, ax = plt.subplots(figsize=(6.2, 4.8))
    names = costs.sort_values("all").index.tolist()
    low, high = costs["all"].min(), costs["all"].max()
    gap, place = 1.12 * (high - low) / (len(names) - 1), low - 0.06 * (high - low)
    for number, name in enumerate(names):
        y, x = costs.loc[name, "all"], costs.loc[name, "ms"]
        worth = name in best
        ax.plot(
            x, y, marker="o" if worth else "s", markersize=7 if worth else 5, color="#1b4f72" if worth else "#9a9a9a"
        )
        arrow = dict(arrowstyle="-", color="#b0b0b0", linewidth=0.7, relpos=(0, 0.5))
        spot = dict(xytext=(1.04, place + number * gap), textcoords=ax.get_yaxis_transform(), va="center")
        ax.annotate(name, (x, y), **spot, arrowprops=arrow, fontweight="bold" if worth else "normal")
    front = costs.loc[best].sort_values("ms")
    ax.plot(front["ms"], front["all"], color="#1b4f72", linewidth=1, zorder=0)
    ax.set(xscale="log", xlabel="milliseconds per shopper (logarithmic)", ylabel="NDCG@10, November")
    ax.set_ylim(low - 0.1 * (high - low), place + len(names) * gap)
    ax.set_title("Only methods on the line are worth their time")


def on_the_line(costs):
    """The Pareto front: methods for which no other is as fast and as good."""
    return [
        name
        for name, mine in costs.iterrows()
        if not ((costs["ms"] <= mine["ms"]) & (costs["all"] >= mine["all"])).drop(name).any()
    ]


# %%
if len(rows):
    best = on_the_line(table)
    quality_against_time(table, best)
    plt.show()

# %% [markdown]
# Dots on the line, the *Pareto front*: no other method is as fast and as good. Squares: another one is.

# %%
if len(rows):
    first = table["all"].idxmax()
    against = rows[rows["metric"] == f"ndcg@10 against {first}"].set_index(["method", "split"])
    tied = [name for name in table.index if name != first and against.loc[(name, "all"), "high"] >= 0]
    cheap = min([first, *tied], key=lambda name: table.loc[name, "ms"])
    teacher = table.loc["learned blend"]
    kept, faster = table["all"] / teacher["all"], teacher["ms"] / table["ms"]
    verdict = [
        f"Best on all products is **{first}** with {table.loc[first, 'all']:.3f}. Not worse than it beyond chance: "
        f"{'; '.join(tied) or 'none'}. Of these the fastest is **{cheap}**, at {table.loc[cheap, 'ms']:.1f} ms.",
        f"What the language model over text does to the BasketGPT's twenty: {table.loc['LLM reranker', 'all'] - table.loc['BasketGPT', 'all']:+.3f}, "
        f"for {table.loc['LLM reranker', 'ms'] / table.loc['BasketGPT', 'ms']:.1f} times the time.",
        f"The student keeps {kept['student']:.1%} of its teacher, the learned blend, at {faster['student']:.1f} times its speed, in int8 "
        f"{kept['student, int8']:.1%} at {faster['student, int8']:.1f} times, in NF4 {kept['student, nf4']:.1%} at "
        f"{faster['student, nf4']:.1f} times. On what is new to a shopper it has {table.loc['student', 'explore']:.3f}, its teacher "
        f"{teacher['explore']:.3f}.",
        f"Text alone, the recommender of most tutorials, reaches {table.loc['text only', 'all']:.3f}; counting what each "
        f"customer bought before reaches {table.loc['personal frequency', 'all']:.3f} in {table.loc['personal frequency', 'ms']:.2f} ms.",
    ]
    display(Markdown("\n".join(f"- {line}" for line in verdict)))

# %% [markdown]
# Read the last line twice. If you have one afternoon, count. What the rest of the book adds is in the column *explore*, in reasons that are true, and in
# answers to people without a history.
#
# And the system as a whole, on one thread, beside a plain pipeline: the nearest by text, and as many tokens from a model of the same size by
# `transformers.generate`, unchecked.


# %%
def asked_in(data):
    """Milliseconds by way of asking: the median, the 99th percentile, the maximum."""
    rows = measured(f"system_latency_{data}")
    rows = rows[rows["metric"].isin(["p50", "p99", "max"]) & (rows["method"] != "target")]
    return rows.pivot_table(index="method", columns="metric", values="value", sort=False).reindex(
        columns=["p50", "p99", "max"]
    )


SHOPS = {"embedded shop": "embedded-shop", "Online Retail": "online-retail"}
latency = {shop_: asked_in(data) for shop_, data in SHOPS.items() if has_results(f"system_latency_{data}")}
if latency:
    display(pd.concat(latency, axis=1).round(1).rename_axis(None).rename_axis([None, None], axis=1))


# %%
def verdict_of(data):
    """Each target, what was measured, whether the target was met."""
    rows = measured(f"system_latency_{data}").set_index(["method", "metric"])["value"]
    targets = [
        ("build, minutes", rows["build", "seconds"] / 60, rows["target", "seconds"] / 60),
        ("five products, p50, ms", rows["customer", "p50"], rows["target", "p50"]),
        ("with reasons, p50, ms", rows["customer, explained", "p50"], rows["target", "p50, explained"]),
        (
            "five products, p99 over p50",
            rows["customer", "p99 over p50"],
            rows["target", "p99 over p50"],
        ),
        ("with reasons, p99 over p50", rows["customer, explained", "p99 over p50"], rows["target", "p99 over p50"]),
    ]
    table = pd.DataFrame(targets, columns=["target", "measured", "at most"]).set_index("target")
    return table.assign(met=np.where(table["measured"] <= table["at most"], "yes", "no"))


if latency:
    display(pd.concat({shop_: verdict_of(SHOPS[shop_]) for shop_ in latency}).round(1))

# %%
told_of = []
for shop_ in latency:
    rows_ = measured(f"system_latency_{SHOPS[shop_]}").set_index(["method", "metric"])
    of, n = rows_["value"], rows_.loc[("customer, explained", "claims"), "n"]
    stage = {
        name.removeprefix("seconds: "): v
        for (m, name), v in of.items()
        if m == "build" and name.startswith("seconds: ")
    }
    longest = max(stage, key=stage.get)
    told_of.append(
        f"**{shop_}.** Built in {of['build', 'seconds'] / 60:.1f} minutes, of which *{longest}* took {stage[longest] / of['build', 'seconds']:.0%}; at most "
        f"{of['build', 'peak GB']:.1f} GB of memory; {of['build', 'MB on disk']:.0f} MB on disk; loaded in {of['load', 'seconds']:.1f} seconds. Of "
        f"{n:,.0f} reasons {of['customer, explained', 'redrawn']:.0%} were sampled again and {of['customer, explained', 'plainest']:.0%} ended in the plainest "
        f"words; the checker found {of['customer, explained', 'false claims']:.0f} false claims in them."
    )
Markdown("\n\n".join(told_of) or "(No results of the benchmark are there yet.)")

# %% [markdown]
# Run the chapter on the real log: `RECBOOK_DATA=online-retail make lab`. Build your own: `recbook build receipts.csv --out shop/`, and measure it:
# `python benchmarks/system.py scoreboard --data receipts.csv`.

# %% [markdown]
# ## Exercises
#
# ### Exercise 22.1: filter, then cut
# Write `first_allowed(ranked, prices, price_max, left_out, k)`: `ranked` is a list of codes, best first, `prices` a dictionary, `left_out` a list of codes. Return
# the first `k` that cost at most `price_max` and are not left out; fewer, if there are no more.


# %%
def first_allowed(ranked, prices, price_max, left_out, k):
    """The first k that are allowed."""
    ...


# %%
check("22.1", first_allowed)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def first_allowed(ranked, prices, price_max, left_out, k):
#     allowed = [code for code in ranked if prices[code] <= price_max and code not in left_out]
#     return allowed[:k]
# ```
#
# Whoever cuts first shows four teapots to a customer who asked for five cheap ones, and none to one who asked for very cheap ones.
#
# </details>
#
# ### Exercise 22.2: tail latency
# Write `within(times, share)`: the least of the `times` within which at least that share of all answers came. With a share of `0.5` it is a median that some answer
# really took, with `0.99` the p99.


# %%
def within(times, share):
    """A time that some answer took."""
    ...


# %%
check("22.2", within)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def within(times, share):
#     ordered = sorted(times)
#     return ordered[max(0, int(np.ceil(round(share * len(ordered), 9))) - 1)]
# ```
#
# The `round` is for floats: `0.55 * 100` is a little more than it should be, and `ceil` would go one place too far. With forty times the p99 is the slowest: to know a
# hundredth you need some hundreds.
#
# </details>
#
# ### Exercise 22.3: a damaged folder
# Write `damaged(manifest, files)`: `manifest` holds a SHA-256 in hexadecimal by file name, `files` the bytes by file name. Return the sorted names of those in the
# manifest that are missing or hold something else. Files that it does not name do not matter. `hashlib` is imported.


# %%
def damaged(manifest, files):
    """Names of files that are not what the manifest says."""
    ...


# %%
check("22.3", damaged)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def damaged(manifest, files):
#     def whole(name):
#         return name in files and hashlib.sha256(files[name]).hexdigest() == manifest[name]
#
#     return sorted(name for name in manifest if not whole(name))
# ```
#
# </details>
#
# ### Exercise 22.4: the Pareto front
# Write `worth_it(methods)`: a dictionary of pairs (milliseconds, quality) by name. Leave out each method than which another is at least as fast *and* at least as
# good, and better in one of the two. Return the names of the rest, the fastest first, equals by name.


# %%
def worth_it(methods):
    """The methods that are worth their time."""
    ...


# %%
check("22.4", worth_it)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def worth_it(methods):
#     kept = []
#     for name, (ms, quality) in methods.items():
#         if not any(o[0] <= ms and o[1] >= quality and o != (ms, quality) for o in methods.values()):
#             kept.append(name)
#     return sorted(kept, key=lambda name: (methods[name][0], name))
# ```
#
# Two equal methods both stay: neither is better than the other. The line of the figure is this list.
#
# </details>
#
# ### Exercise 22.5: the feedback loop
# Write `looped(sold, shown, rounds, bought)`: `sold` are sales by product. In each round the `shown` products with most sales (of equals the first) are on the list, and each of
# them is bought `bought` times; nothing else is. Return each product's share of all sales after all rounds.


# %%
def looped(sold, shown, rounds, bought):
    """Shares of sales after the rounds."""
    ...


# %%
check("22.5", looped)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def looped(sold, shown, rounds, bought):
#     sold = list(sold)
#     for _ in range(rounds):
#         best = sorted(range(len(sold)), key=lambda product: (-sold[product], product))[:shown]
#         for product in best:
#             sold[product] += bought
#     return [count / sum(sold) for count in sold]
# ```
#
# The list of the first day is the list of every day: whoever was ahead by one sale is ahead for good. Real shops are less extreme, because people also buy what they
# were not shown. How much less, no log of receipts will tell you.
#
# </details>
#
# ### Exercise 22.6: which part would you take out?
# Your shop has one core, and customers who wait for two tenths of a second and no longer. Use the table of the real log and the latency figures. What do you keep, what
# do you drop, and what do you compute at night (offline) and not when a customer asks (online)?
#
# <details><summary>Answer</summary>
#
# There is no single answer, but there is a wrong one: dropping the candidates' filters or the checker. A student or the formula blend ranks in a few milliseconds;
# reasons can be written at night for the products that each customer will most likely see, since a list changes only when receipts come in; who
# types something gets the products at once and the reasons a moment later. The trees are worth their time only if the interval says so.
#
# </details>
#
# ## Projects
#
# Each is work for a week or two. Hand in: a notebook that runs from nothing on the embedded shop; a page of findings; the figures with
# intervals, losses too; the command that repeats them. All are judged alike.
#
# | what is judged | of ten points | full points for |
# |---|---|---|
# | the question | one | can be answered by the figures, and was asked before they were seen |
# | the comparison | three | the same shoppers, paired, intervals; the simplest thing that could work is a row |
# | no peeking | two | tuned on earlier cuts or the embedded shop; November once; every look is written down |
# | the code | two | short, tested against something independent, runs for a stranger |
# | what it does not show | two | limits, who could be harmed, what would change your mind |
#
# **Your own shop.** Get receipts of a real shop (with leave), clean them, build the recommender, and sit with the shopkeeper for an hour before twenty customers' lists. *Hand in:*
# the audit of cleaning, the scoreboard, what the shopkeeper crossed out and why, and one change made because of it.
#
# **A channel that is missing.** Stock, margin, the weather, the neighbour's catalogue: add one to the two-stage recommender as a channel, as a feature, or as a filter. *Hand in:*
# recall at equal size, the blend with and without it, and when it hurts.
#
# **Break the loop.** The embedded shop's shoppers react to what they are shown. Let the recommender run for half a year on receipts that it made itself. *Hand in:* coverage and sales by month, with and without
# a tenth of random places, and what the random tenth cost.
#
# **Reasons that help.** Let twenty people choose between two lists of five, with reasons and without, the same products. *Hand in:* the form, the raw answers, an interval, and which
# claims they asked about. True is not yet useful.
#
# **An attack.** You may type histories and queries, and see lists. Find out what one customer of the embedded shop bought, or bring a product of yours to the top by its
# description. *Hand in:* how often it works, what it costs, a defence, and what the defence costs everybody else.
#
# ## Summary
#
# - The page is short because each part takes a history and gives something that can be checked alone.
# - Filter before you rank; fall back before you fail; say in one line which argument was wrong.
# - A description is enough for a new product to be ranked, not enough to be ranked well.
# - Save nothing that can run, hash everything, write beside and rename.
# - Choose by quality and time together. The fastest method within the interval of the best is the best.
# - A log tells what was bought. What another list would have done, it does not tell.
#
# ## Further reading
#
# - Sculley et al. (2015), [Hidden Technical Debt in Machine Learning Systems](https://papers.nips.cc/paper/5656-hidden-technical-debt-in-machine-learning-systems):
#   the model is the smallest box.
# - Dean and Barroso (2013), [The Tail at Scale](https://research.google/pubs/the-tail-at-scale/): why p99 and not the mean.
# - Chaney, Stewart and Engelhardt (2018), [How Algorithmic Confounding in Recommendation Systems Increases Homogeneity](https://arxiv.org/abs/1710.11214): the loop, simulated.
# - Calandrino et al. (2011), ["You Might Also Like:" Privacy Risks of Collaborative Filtering](https://ieeexplore.ieee.org/document/5958032): histories read out of lists.
# - Covington, Adams and Sargin (2016), [Deep Neural Networks for YouTube Recommendations](https://research.google/pubs/deep-neural-networks-for-youtube-recommendations/): two
#   stages at scale.
