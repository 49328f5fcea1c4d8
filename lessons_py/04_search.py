# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Search over a million products in a millisecond
#
# At the end you find the products nearest to any text or any shopping history, among hundreds or among a million, and
# you can say what each way of searching costs in time, in memory and in answers missed.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,embeddings,search]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("04_search")

# %% [markdown]
# **You will learn**
#
# - what comparing a query with every product costs, and when that is the right thing to do;
# - three ideas that avoid it, each built by hand: cells (IVF), a graph to walk (HNSW), vectors in a few bytes (PQ);
# - to choose between them with a picture of recall, speed and bytes;
# - to search with filters, by text and by shopping history, in product codes;
# - to keep an index on disk so that it can never answer for the wrong catalogue.
#
# **You need** products as unit vectors ([Chapter 3](03_embeddings.ipynb)) and the catalogue
# ([Chapter 1](01_cleaning.ipynb)).

# %% [markdown]
# ## How do you find ten products among a million while a page loads?
#
# Chapter 3 turned every product into a vector and every question into another, so that the answer to a question is the
# products whose vectors lie nearest. That leaves one problem: there are many products, and the shopper is waiting.
# Here is the question that this chapter makes fast.

# %% tags=["nbval-ignore-output"]
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import faiss
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from recbook.baselines.results import load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.embeddings.encoder import encode
from recbook.search import measures
from recbook.search.files import load_index, save_index
from recbook.search.index import SearchParameters, brute_force, build_index, search_index, vectors_of
from recbook.search.queries import by_history, by_text

codes, vectors = workshop.embeddings()
catalogue = rc.catalogue(workshop.cleaned().receipts).loc[codes]
assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)  # unit vectors: a product of two is their cosine

# %%
wanted = encode(["a warm gift for somebody who loves coffee"])
cosines = vectors @ wanted[0]  # (products, d) @ (d,) -> (products,)
best = np.argsort(-cosines, kind="stable")[:5]
catalogue.iloc[best][["description", "price"]].round(2).assign(cosine=cosines[best].round(2))

# %% [markdown]
# One line of `numpy` searched the shop. The vectors have length one, so the dot product of two of them is the cosine of
# the angle between them, and a whole catalogue of cosines is one matrix product.
#
# ## Brute force, and what it costs
#
# Comparing a query with every product is called *brute force*. It is exact, and its cost can be counted on paper: a
# multiplication and an addition for each number of each vector, and every byte of every vector read from memory.


# %%
def brute_force_by_hand(vectors, queries, k):
    product = queries @ vectors.T  # (q, d) @ (d, n) -> (q, n)
    rows = np.argsort(-product, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(product, rows, axis=1), rows


def milliseconds(answer, queries, times=5):
    """A query's share of one call, the best of several calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        answer(queries)
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds) / len(queries)


# %% tags=["nbval-ignore-output"]
dimensions = vectors.shape[1]
rng = np.random.default_rng(0)
any_vectors = rng.standard_normal((50_000, dimensions), dtype=np.float32)  # time ignores content
costs = []
for n in (1_000, 10_000, 50_000):
    one = milliseconds(lambda q, n=n: q @ any_vectors[:n].T, any_vectors[:1], times=20)
    many = milliseconds(lambda q, n=n: q @ any_vectors[:n].T, any_vectors[:256])
    costs.append([n, n * dimensions / 1e6, 4 * n * dimensions / 1e6, one, many])
    assert one < 500 and many < 500
columns = ["products", "million multiply-adds", "MB read", "ms, alone", "ms, in a batch"]
costs = pd.DataFrame(costs, columns=columns)
costs.assign(products=costs["products"].map("{:,}".format)).round(2).set_index("products")

# %%
Markdown(
    f"Ten times the products, ten times the cost. At a million, a query is {1e6 * dimensions / 1e6:,.0f} million "
    f"multiply-adds over {4e6 * dimensions / 1e9:.2f} GB. A modern core does the arithmetic in a few hundredths of a "
    "second; it waits for the bytes. That is why a batch of queries is so much cheaper a query: each product is fetched "
    "once and compared with all of them."
)

# %% [markdown]
# Brute force also needs `sort`, and sorting everything to keep ten is waste: the package's version uses `argpartition`,
# which finds the ten largest without ordering the rest. That is as far as exactness can go. To be faster you must
# **not look at** most of the products, and accept that you sometimes miss one. The share of the true ten that you do
# find is called `recall@10`.
#
# > **Pitfall.** The largest inner product is the nearest vector only if all vectors have the same length. Give one
# > product a long vector and it answers most questions, whatever they ask:

# %%
stretched = vectors.copy()
stretched[7] *= 5  # one vector that somebody forgot to scale
inner = brute_force_by_hand(stretched, vectors[:200], 1)[1]
scaled = brute_force_by_hand(vectors, vectors[:200], 1)[1]
pd.Series(
    {
        "queries that the stretched product wins": f"{(inner == 7).mean():.0%}",
        "the same, all vectors of length one": f"{(scaled == 7).mean():.1%}",
    },
    name="inner product",
).to_frame()

# %% [markdown]
# Distance has no such weakness, and on unit vectors the two agree: $\lVert a - b \rVert^2 = 2 - 2\, a \cdot b$, so the
# largest product is the smallest distance. `build_index` refuses vectors that are not of length one.
#
# ## What an index bets on
#
# Every index skips products by betting that **near things cluster**. Is that so? Take a product's neighbours by
# distance: if the first is far nearer than the twentieth, the data spreads in few directions and there is something to
# exploit. The *intrinsic dimension* puts a number on it. Random vectors are the control.

# %%
noise = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
noise /= np.linalg.norm(noise, axis=1, keepdims=True)


def spread(rows):
    distances = measures.neighbour_distances(rows, rows[:500], 11)  # the first is the row itself
    distances = np.median(distances[:, [1, 10]], axis=0)
    middle = np.median(np.sqrt(np.maximum(2 - 2 * rows[:500] @ rows[-500:].T, 0)))
    return {
        "numbers a vector": f"{rows.shape[1]:,}",
        "intrinsic dimension": f"{measures.intrinsic_dimension(rows):.0f}",
        "to the first neighbour": f"{distances[0]:.2f}",
        "to the tenth": f"{distances[1]:.2f}",
        "between any two": f"{middle:.2f}",
    }


pd.DataFrame({"this shop": spread(vectors), "random vectors": spread(noise)})

# %% [markdown]
# In the shop a neighbour is much nearer than a stranger. Among random vectors everything is about as far as everything
# else: no index can help, and a benchmark on random vectors measures nothing. So to practise on more products than this
# shop has, make them from the real ones: `measures.grow` moves each product a random step along the directions in which
# its own neighbours lie. That it spreads as the original does is something to measure, so measure it.

# %% tags=["nbval-ignore-output"]
many = measures.grow(vectors, 20_000, seed=0)
asked = measures.grow(vectors, 200, seed=1)  # 200 more, which the index does not hold
labels = np.array([f"{row:05d}" for row in range(len(many))])
sample = many[np.random.default_rng(0).permutation(len(many))[: len(vectors)]]  # as many as the shop has
spreads = pd.DataFrame({"this shop": spread(vectors), "grown, as many": spread(sample), "grown, all": spread(many)})
first = spreads.loc["to the first neighbour"].astype(float)
assert 0 < first["grown, all"] <= first["grown, as many"] < 2 * first["this shop"]
spreads

# %% [markdown]
# Read the rows across. The distances of the sample are about those of the shop, so this is a fair place to practise. If
# the grown products spread in fewer directions than the shop's own, as they do on real receipts, the practice is a
# little easier than the real thing, and the recall that follows a little flattered. With more products in the same
# space, neighbours move closer: that is the last column.
#
# ## Cells: look only nearby (IVF)
#
# The first idea is a town's. Divide it into districts, each with a centre; to find the nearest bakery, look in the
# nearest districts only. In FAISS this is an *inverted file*, IVF, and the districts come from k-means: put every point
# with its nearest centre, move each centre to the mean of its points, repeat.


# %%
def kmeans(points, cells, rounds=10, seed=0):
    centres = points[np.random.default_rng(seed).permutation(len(points))[:cells]].copy()
    for _ in range(rounds):
        cell = nearest_centre(points, centres)
        for c in np.unique(cell):
            centres[c] = points[cell == c].mean(axis=0)
    return centres


def nearest_centre(points, centres, how_many=None):
    squared = (centres**2).sum(axis=1) - 2 * points @ centres.T  # |p - c|^2 but for |p|^2, which changes no order
    return np.argmin(squared, axis=1) if how_many is None else np.argsort(squared, axis=1)[:, :how_many]


def search_cells(points, centres, query, nprobe, k):
    visited = nearest_centre(query[None], centres, nprobe)[0]
    inside = np.flatnonzero(np.isin(nearest_centre(points, centres), visited))
    order = np.argsort(((points[inside] - query) ** 2).sum(axis=1), kind="stable")[:k]
    return inside[order], visited


rng = np.random.default_rng(4)
town = rng.normal(0, 0.55, (600, 2)) + rng.uniform(-3, 3, (25, 2))[rng.integers(25, size=600)]
town = town.astype(np.float32)
centres = kmeans(town, 16)
query = np.array([0.15, 0.65], np.float32)
found, visited = search_cells(town, centres, query, nprobe=2, k=10)

# %%
side = np.linspace(-4.2, 4.2, 300)
grid = np.stack(np.meshgrid(side, side))  # (2, 300, 300)
districts = nearest_centre(grid.reshape(2, -1).T.astype(np.float32), centres).reshape(300, 300)
fig, ax = plt.subplots(figsize=(5.6, 5.2))
ax.contourf(*grid, np.isin(districts, visited), [-1, 0.5, 2], colors=["w", "#fdebd8"])
ax.contour(*grid, districts, np.arange(16) + 0.5, colors="#bbbbbb", linewidths=0.8)
ax.plot(*town.T, ".", color="#6b6b6b", markersize=3, label="products")
ax.plot(*centres.T, "x", color="#1b4f72", label="centres of the cells")
ax.plot(*town[found].T, "o", color="#d9822b", markersize=5, label="ten found")
ax.plot(*query, "*", color="#9b2d30", markersize=14, label="query")
ax.set(xlabel="first coordinate", ylabel="second coordinate")
ax.set_title("Two cells visited of sixteen; the rest is never read")
ax.legend(loc="lower left", frameon=True, fontsize=8)
plt.show()

# %% [markdown]
# What if the query stands at a border? Then some of its neighbours live across the street, in a cell that is not
# visited. The remedy is to visit more cells; `nprobe` says how many. Over two hundred queries:


# %%
def toy_recall(nprobe):
    places = np.random.default_rng(1).uniform(-3, 3, (200, 2)).astype(np.float32)
    hits, compared = [], []
    for place in places:
        rows, visited = search_cells(town, centres, place, nprobe, 10)
        truth = np.argsort(((town - place) ** 2).sum(axis=1))[:10]
        hits.append(np.isin(truth, rows).mean())
        compared.append(np.isin(nearest_centre(town, centres), visited).mean())
    return np.mean(hits), np.mean(compared)


cells_visited = [1, 2, 3, 4, 8, 16]
measured = [toy_recall(nprobe) for nprobe in cells_visited]
table = pd.DataFrame(measured, columns=["recall@10", "share of products compared"], index=cells_visited)
table.rename_axis("nprobe").map("{:.0%}".format)

# %% [markdown]
# Every index that skips products has such a knob: turn it, and you buy recall with work. At the end of the knob is brute
# force. The same on the grown catalogue, with FAISS. It names an index by a *factory string*: `IVF128,Flat` is cells,
# with the vectors in them as they are. The *search parameters*, here `nprobe`, say how much a search visits.

# %% tags=["nbval-ignore-output"]
truth = labels[brute_force(many, asked, 10)[1]]
ivf = build_index(labels, many, "IVF128,Flat")
rows = []
for nprobe in (1, 2, 4, 8, 16, 128):
    hits = search_index(ivf, asked, 10, parameters=SearchParameters(nprobe=nprobe))
    rows.append([nprobe, measures.index_recall(hits.codes, truth), nprobe / 128])
assert rows[-1][1] > 0.999 and rows[3][1] > 0.8
pd.DataFrame(rows, columns=["nprobe", "recall@10", "share of cells"]).set_index("nprobe").map("{:.0%}".format)

# %% [markdown]
# > **Pitfall.** The centres are learned, so they need enough to learn from: about forty products a cell, or cells
# > follow noise. FAISS warns below that, and with fewer products than cells there is nothing to learn at all:

# %%
try:
    build_index(labels[:100], many[:100], "IVF128,Flat")
except ValueError as error:
    print(error)

# %% [markdown]
# ## A graph to walk (HNSW)
#
# The second idea is asking the way. Join every product to a few of its neighbours. To search, start anywhere and keep
# stepping to the neighbour that lies nearest to the query, until none is nearer.


# %%
def neighbour_graph(points, links):
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)  # (n, n)
    near = np.argsort(squared, axis=1)[:, 1 : links + 1]
    graph = {row: set(near[row].tolist()) for row in range(len(points))}
    for row, others in enumerate(near.tolist()):
        for other in others:
            graph[other].add(row)  # a road leads both ways
    return graph


def walk(points, graph, query, start):
    distance = ((points - query) ** 2).sum(axis=1)
    path = [start]
    while True:
        step = min(graph[path[-1]], key=lambda row: distance[row])
        if distance[step] >= distance[path[-1]]:
            return path
        path.append(step)


village = town[:200]
graph = neighbour_graph(village, links=5)
target = np.array([1.6, 1.9], np.float32)
nearest = np.argmin(((village - target) ** 2).sum(axis=1))
ends = {start: walk(village, graph, target, start) for start in range(len(village))}
arrived = next(path for path in sorted(ends.values(), key=len, reverse=True) if path[-1] == nearest)
stuck = next((path for path in sorted(ends.values(), key=len, reverse=True) if path[-1] != nearest), None)

# %%
fig, ax = plt.subplots(figsize=(5.8, 5.0))
for row, others in graph.items():
    for other in others:
        if row < other:
            ax.plot(*village[[row, other]].T, color="#dddddd", linewidth=0.7, zorder=0)
ax.plot(*village.T, ".", color="#6b6b6b", markersize=4)
walks = [(arrived, "#1b4f72", "a walk that arrives"), (stuck, "#d9822b", "a walk that gets stuck")]
for path, colour, name in walks:
    if path:
        ax.plot(*village[path].T, "-o", color=colour, markersize=4, linewidth=2, label=name)
        ax.plot(*village[path[0]], "s", color=colour, markersize=9)
ax.plot(*target, "*", color="#9b2d30", markersize=14, label="query")
share = np.mean([path[-1] == nearest for path in ends.values()])
ax.set(xlabel="first coordinate", ylabel="second coordinate")
ax.set_title(f"A greedy walk reaches the nearest product from {share:.0%} of the starts")
ax.legend(loc="lower left", frameon=True, fontsize=8)
plt.show()

# %% [markdown]
# A walk starts at a square. It may end in a place whose neighbours are all farther from the query, though the nearest
# product is elsewhere. Two remedies make the walk into *HNSW*, hierarchical navigable small worlds:
#
# - **Keep several candidates.** Do not drop the second-best place: keep the best `ef` seen so far and go on from each.
# - **Build motorways.** A few products also live on an upper floor with long roads, fewer still on the floor above. Walk
#   there first, then come down.
#
# The first is a few lines:


# %%
def walk_with_candidates(points, graph, query, start, ef):
    distance = ((points - query) ** 2).sum(axis=1)
    seen, waiting, kept = {start}, [start], [start]
    while waiting:
        here = min(waiting, key=lambda row: distance[row])
        waiting.remove(here)
        if len(kept) == ef and distance[here] > distance[kept[-1]]:
            break  # the nearest place left is farther than everything kept
        new = graph[here] - seen
        seen |= new
        waiting += new
        kept = sorted(kept + list(new), key=lambda row: distance[row])[:ef]
    return kept, len(seen)


walks = []
for ef in (1, 5, 10, 20, 40):
    results = [walk_with_candidates(village, graph, target, start, ef) for start in range(len(village))]
    arrive = np.mean([kept[0] == nearest for kept, _ in results])
    walks.append([ef, arrive, np.mean([seen for _, seen in results])])
walks = pd.DataFrame(walks, columns=["ef", "walks that arrive", "products compared"]).set_index("ef")
walks.assign(
    **{
        "walks that arrive": walks["walks that arrive"].map("{:.0%}".format),
        "products compared": walks["products compared"].round().astype(int),
    }
)

# %% [markdown]
# With enough candidates nearly every walk arrives, and this toy has no motorways. In FAISS the factory string `HNSW32`
# gives each product up to thirty-two roads on the upper floors and twice that on the ground. The price is memory: the
# roads are kept beside the whole vectors.
#
# ## Vectors in eight bytes (PQ)
#
# The third idea attacks the bytes. *Product quantization* cuts a vector into pieces, and for each piece keeps a small
# book of typical pieces, its *codebook*, learned by k-means. A piece is then stored as its number in the book. A book of
# two hundred and fifty-six entries has one-byte numbers, so a vector costs a byte a piece.

# %% tags=["nbval-ignore-output"]
pieces, width = 8, dimensions // 8
cut = many.reshape(-1, pieces, width)  # (n, d) -> (n, pieces, d / pieces)
books = [kmeans(cut[:4000, j], 256, rounds=6, seed=j) for j in range(pieces)]
books = np.stack(books)  # (pieces, 256, width)
stored = [nearest_centre(cut[:, j], books[j]) for j in range(pieces)]
stored = np.stack(stored, axis=1).astype(np.uint8)  # (n, pieces)
restored = books[np.arange(pieces), stored]  # (n, pieces) -> (n, pieces, width)
restored = restored.reshape(-1, dimensions)  # -> (n, d)
assert stored.nbytes == pieces * len(many)
assert np.linalg.norm(many - restored, axis=1).mean() < 0.8  # of a length of one: more is kept than lost
Markdown(
    f"A vector of {dimensions} numbers took {4 * dimensions:,} bytes and now takes {stored.shape[1]}: "
    f"`{stored[0].tolist()}`. The books are paid once, {books.nbytes / 1e6:.1f} MB, for however many products."
)

# %% [markdown]
# To score a query nothing is unpacked. Multiply the query's pieces with every entry of every book, once; then each
# product's score is a sum of eight numbers looked up in that table.

# %% tags=["nbval-ignore-output"]
table = np.einsum("jw,jcw->jc", asked[0].reshape(pieces, width), books)  # (pieces, 256)
looked_up = table[np.arange(pieces), stored].sum(axis=1)  # (n, pieces) -> (n,)
exact = many @ asked[0]
assert np.allclose(looked_up, restored @ asked[0], atol=1e-4)

fig, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.4), width_ratios=[1.7, 1])
shown = slice(0, 3 * width)
left.plot(many[0, shown], color="#6b6b6b", linewidth=0.9, label="as it was")
left.plot(restored[0, shown], color="#d9822b", linewidth=1.2, label="from three bytes")
for border in (width, 2 * width):
    left.axvline(border, color="#bbbbbb", linestyle=":")
left.set(
    xlabel="place in the vector",
    ylabel="value",
    title="Three pieces of a product: the shape survives",
)
left.legend(fontsize=8)
right.plot(exact[::10], looked_up[::10], ".", markersize=2, color="#1b4f72")
right.axline((0, 0), slope=1, color="#9b2d30", linewidth=1)
right.set(xlabel="true cosine", ylabel="from the table", title="Scores, nearly")
plt.show()

# %% [markdown]
# The scores are near enough to find the neighbourhood, not the order within it. So look up many, then compute the exact
# score of those few: *re-ranking*. It needs the whole vectors, but only a handful of them for each query, so they may
# live on a disk.

# %% tags=["nbval-ignore-output"]
exact_rows = brute_force(many, asked, 10)[1]
by_code = asked @ restored.T
candidates = np.argsort(-by_code, axis=1)[:, :200]
refined = []
for query_row, few in zip(asked, candidates, strict=True):
    refined.append(few[np.argsort(-(many[few] @ query_row), kind="stable")[:10]])
pq_recall = {
    "eight bytes": measures.index_recall(candidates[:, :10], exact_rows),
    "eight bytes, two hundred re-ranked": measures.index_recall(np.array(refined), exact_rows),
}
assert pq_recall["eight bytes, two hundred re-ranked"] > max(0.6, pq_recall["eight bytes"])
pd.Series(pq_recall, name="recall@10").map("{:.0%}".format).to_frame()

# %% [markdown]
# ## Which one? Recall against speed against bytes
#
# Now all of them on the grown catalogue, each with several search parameters. A method is better than another if it lies
# above it and to the right. The ideas also combine: `IVF128,PQ16,RFlat` visits cells, reads sixteen bytes a product
# there, and re-ranks.

# %% tags=["nbval-ignore-output"]
tried = {
    "Flat": [SearchParameters()],
    "IVF128,Flat": [SearchParameters(nprobe=n) for n in (1, 2, 4, 8, 16)],
    "HNSW16": [SearchParameters(ef=n) for n in (16, 32, 64, 128)],
    "SQ8": [SearchParameters()],
    "PQ16": [SearchParameters()],
    "IVF128,PQ16,RFlat": [SearchParameters(nprobe=8, refine=n) for n in (1, 2, 4, 8)],
}
live = []
for factory, settings in tried.items():
    index = build_index(labels, many, factory)
    for parameters in settings:
        hits = search_index(index, asked, 10, parameters=parameters)
        speed = 1000 / milliseconds(
            lambda q, i=index, e=parameters: search_index(i, q, 10, parameters=e), asked, times=3
        )
        size = measures.index_bytes(factory, len(many), dimensions) / len(many)
        live.append([factory, measures.index_recall(hits.codes, truth), speed, size])
live = pd.DataFrame(live, columns=["factory string", "recall@10", "queries a second", "bytes a product"])
best_recall = live.groupby("factory string", sort=False)["recall@10"].max()
assert best_recall["Flat"] > 0.999 and best_recall["HNSW16"] > 0.85 and best_recall["IVF128,Flat"] > 0.85


# %% tags=["nbval-ignore-output"]
def trade_off(table, title):
    fig, ax = plt.subplots(figsize=(7, 4))
    for (factory, group), marker in zip(table.groupby("factory string", sort=False), "*osD^vPX", strict=False):
        name = f"{factory} ({group['bytes a product'].iloc[0]:,.0f} bytes)"
        line = group.sort_values("recall@10")
        ax.plot(line["recall@10"], line["queries a second"], marker=marker, label=name)
    ax.set(xlabel="recall@10", ylabel="queries a second, batched", yscale="log", title=title)
    ax.legend(fontsize=8)
    plt.show()


trade_off(live, "Twenty thousand products: speed is paid for in recall or in bytes")

# %% [markdown]
# Cells and graph keep the whole vectors and some more; the codes alone are small but miss much; re-ranking wins the
# recall back. `SQ8`, one byte a number, is the quiet one: a quarter of the memory, next to nothing missed, no gain in
# speed to speak of.
#
# ## A million
#
# Twenty thousand is practice. This is the same sweep on a million products, measured on two cores by
# `python benchmarks/search.py`. They are grown from tens of thousands of descriptions, the embedded shop's words in every
# combination, that MiniLM encoded; a thousand other descriptions, held out, are the queries:

# %%
million = load_results("search")
figures = pd.DataFrame(million["rows"])
wide = figures.pivot_table(index=["method", "setting"], columns="metric", values="value", sort=False)
wide = wide[wide["recall@10"].notna()].reset_index()
wide = wide.rename(columns={"method": "factory string", "per_second_batched": "queries a second"})
trade_off(wide, "A million products: the gap to Flat grows with the catalogue")

# %%
best_single = figures[figures["metric"] == "best times Flat, single, recall >= 0.95"].iloc[0]
best_batch = figures[figures["metric"] == "best times Flat, batched, recall >= 0.95"].iloc[0]
chosen = wide.set_index(["factory string", "setting"])
flat_line = chosen.loc[("Flat", "best")]
single_line = chosen.loc[(best_single["method"], best_single["setting"])]
batch_line = chosen.loc[(best_batch["method"], best_batch["setting"])]
Markdown(
    f"One query at a time, brute force takes {flat_line['milliseconds_single']:,.0f} ms and `{best_single['method']}` "
    f"({best_single['setting']}) {single_line['milliseconds_single']:.2f} ms, with `recall@10` of "
    f"{single_line['recall@10']:.3f}: {best_single['value']:,.0f} times as fast. In batches, which suit brute force "
    f"best, Flat answers {flat_line['queries a second']:,.0f} queries a second and `{best_batch['method']}` "
    f"({best_batch['setting']}) {batch_line['queries a second']:,.0f}, {best_batch['value']:,.0f} times as many, at "
    f"{batch_line['recall@10']:.3f}. **A million products in a millisecond is no boast.**"
)

# %%
built = figures[figures["metric"] == "build_seconds"].drop_duplicates("method")
built = built.set_index("method")["value"]
sizes = wide.drop_duplicates("factory string").set_index("factory string")["bytes a product"]
pd.DataFrame(
    {
        "bytes a product": sizes.map("{:,.0f}".format),
        "minutes to build": (built / 60).map("{:.1f}".format),
    }
).loc[sizes.index].fillna("–")

# %% [markdown]
# Nothing is free: training and building take minutes, and an index with `RFlat` still keeps every vector for the
# re-ranking.
#
# How much are the grown vectors like those that they grew from? Their spread, in a sample as large as the original,
# beside the original's, and beside the descriptions of a real shop:

# %%
kinds = ["original", "grown", "grown, all"]
spreads = figures[figures["method"].isin(kinds)]
spreads = spreads.pivot(index="metric", columns="method", values="value")[kinds]
real = pd.DataFrame(load_results("search_online-retail")["rows"])
real_dimension = real.loc[real["metric"] == "intrinsic dimension", "value"].item()
spreads.loc["intrinsic dimension", "Online Retail"] = real_dimension
spreads.map("{:.2f}".format).replace("nan", "–")

# %%
Markdown(
    f"So the million is easier than real text: it spreads in {spreads.loc['intrinsic dimension', 'grown, all']:.0f} "
    f"directions, real descriptions in {real_dimension:.0f}. On yours, expect to visit more for the "
    "same recall, and measure it."
)

# %% [markdown]
# ## And your shop?
#
# Before you reach for any of this: how long does brute force take over the catalogue in front of you?

# %% tags=["nbval-ignore-output"]
shop_index = build_index(codes, vectors)
walked = build_index(codes, vectors, "HNSW16")
times = {}
for name, index in {"Flat": shop_index, "HNSW16": walked}.items():
    each = [milliseconds(lambda q, i=index: search_index(i, q, 10), q[None], times=3) for q in vectors[:100]]
    times[name] = np.median(each)
encoding = milliseconds(encode, ["a warm gift for somebody who loves coffee"])
assert times["Flat"] < 20
Markdown(
    f"{len(codes):,} products, one query at a time: Flat {times['Flat']:.2f} ms, HNSW {times['HNSW16']:.2f} ms. "
    "**Brute force is the right choice for a small shop**: exact, nothing to train, nothing to tune, any filter, and "
    "quicker than the page that shows the answer. Consider an index when the first table's times begin to hurt. And where "
    f"the question is a text, look elsewhere first: turning it into a vector takes {encoding:.0f} ms."
)

# %% [markdown]
# ## Codes in, codes out, and filters
#
# FAISS numbers its vectors and knows nothing else. A shop speaks in product codes, and asks with conditions: under three
# pounds, only coffee. `recbook.search.index` translates. A filter is the codes that may be answered, so every condition
# that `pandas` can express is one.

# %%
cheap = catalogue.query("price < 3").index
hits = search_index(shop_index, wanted, 5, among=cheap)
catalogue.loc[hits.codes[0], ["description", "price"]].round(2).assign(cosine=hits.scores[0].round(2))

# %% [markdown]
# > **Pitfall.** It is tempting to search first and throw away what does not pass. Then ten answers become three, or
# > none. The filter has to be *inside* the search, so that the search goes on until it has ten.

# %%
inside = search_index(shop_index, vectors, 10, among=cheap).codes
afterwards = np.isin(search_index(shop_index, vectors, 10).codes, cheap).sum(axis=1)
fig, ax = plt.subplots(figsize=(7, 3))
left = np.bincount(afterwards, minlength=11) / len(codes)
ax.bar(range(11), left, color="#d9822b", label="filter after the search")
ax.axvline(
    inside.shape[1],
    color="#1b4f72",
    linewidth=3,
    label=f"filter inside the search: always {inside.shape[1]}",
)
ax.set(xlabel="answers left of ten", ylabel="share of queries", xticks=range(11))
ax.set_title(f"Filtered afterwards, {(afterwards < 10).mean():.0%} of the queries get fewer than ten answers")
ax.legend(loc="upper center", fontsize=8)
plt.show()

# %% [markdown]
# Inside an approximate index a filter is harder than it looks. FAISS skips the products that do not pass (an
# `IDSelector` in the search parameters), but it still visits only `nprobe` cells, or walks only `ef` candidates, and
# with a narrow filter these hold too few. `search_index` therefore compares one by one where few products pass, and
# falls back to that whenever an index comes home with fewer than there are. Against brute force on the allowed alone:

# %%
allowed = labels[::1000]  # one product in a thousand
narrow = search_index(ivf, asked, 10, among=allowed, parameters=SearchParameters(nprobe=1))
expected = labels[::1000][brute_force(many[::1000], asked, 10)[1]]
assert np.array_equal(narrow.codes, expected)
Markdown(f"{narrow.codes.shape[1]} answers to each query, all allowed, and the same as brute force: yes.")

# %% [markdown]
# ## Ask with a text, ask with a history
#
# A text becomes a query by the encoder that made the catalogue's vectors, no other. A category is one more filter; where
# the receipts name none, as in a real log, a word of the description stands in.

# %%
if workshop.embedded():
    coffee = workshop.the_shop().products.query("department == 'coffee'").index
else:
    coffee = catalogue.index[catalogue["description"].str.contains("coffee|mug|cup", case=False)]
questions = ["something chocolaty and strong", "bright and fruity"]
hits = by_text(shop_index, questions, encode, k=3, among=coffee)
pd.DataFrame(
    {
        "question": np.repeat(questions, hits.codes.shape[1]),
        "answer": catalogue.loc[hits.codes.ravel(), "description"].to_numpy(),
        "cosine": hits.scores.ravel().round(2),
    }
)

# %% [markdown]
# Read the cosines too: the nearest product is not always near, and a low cosine says that nothing in the shop fits well.
#
# A shopper's history is many vectors. Their mean is one, so it can be asked. But whoever buys for the kitchen and for the
# wardrobe has a mean that lies between the two, and near to neither. Group the history by k-means first, ask with each
# group's mean, and let the groups take turns.

# %%
baskets = rc.histories(workshop.cleaned().receipts)
bought_by = {shopper: list(dict.fromkeys(sum(visits, []))) for shopper, visits in baskets.items()}
shopper = min(bought_by, key=lambda s: (abs(len(bought_by[s]) - 12), s))  # a history of about twelve
bought = bought_by[shopper]
answers = {
    "by the mean": by_history(shop_index, bought, k=6).codes,
    "by three interests": by_history(shop_index, bought, k=6, interests=3).codes,
}
pd.DataFrame({"bought": catalogue.loc[bought[:6], "description"].to_numpy()}).join(
    pd.DataFrame({how: catalogue.loc[found, "description"].to_numpy() for how, found in answers.items()})
)


# %%
def reach(found, bought):
    """The mean, over what was bought, of the cosine to the nearest answer."""
    cosines = vectors_of(shop_index, bought) @ vectors_of(shop_index, found).T
    return cosines.max(axis=1).mean()


rows = []
for bought in list(bought_by.values())[:120]:
    if len(bought) >= 6:
        lists = [by_history(shop_index, bought, 10, interests).codes for interests in (1, 3, 5)]
        rows.append([reach(found, bought) for found in lists])
table = pd.DataFrame(rows, columns=["the mean", "three interests", "five"])
table.mean().round(2).rename("cosine to the nearest answer").to_frame()

# %% [markdown]
# Several interests reach more of what a shopper bought. Whether that sells more is another question; receipts answer it
# below.
#
# ## An index that knows its catalogue
#
# An index on disk is a list of numbers whose meaning lies elsewhere, in the catalogue. Add a product, sort differently,
# change the encoder: the old index still answers, fluently and wrongly. So a saved index carries a *fingerprint*, a
# checksum of the codes and of the vectors that it was built of, and loading compares.

# %%
folder = TemporaryDirectory()
path = save_index(shop_index, Path(folder.name) / "shop.index")
again = load_index(path, codes, vectors)
assert np.array_equal(search_index(again, wanted).codes, search_index(shop_index, wanted).codes)


def try_to_load(codes, vectors):
    try:
        load_index(path, codes, vectors)
    except ValueError as error:
        print("•", str(error).replace(folder.name, "…"))


try_to_load(np.append(codes[:-1], "99999Z"), vectors)  # one product replaced
try_to_load(codes[::-1], vectors[::-1])  # the same, sorted otherwise
try_to_load(codes, np.roll(vectors, 1, axis=0))  # other vectors
path.write_bytes(path.read_bytes()[:-100])  # a copy that broke off
try_to_load(codes, vectors)
folder.cleanup()

# %% [markdown]
# > **Pitfall.** A stale index raises no error by itself, and its answers look plausible. Refuse it by its content, not by
# > its date. And write a new one beside the old, then rename: a reader then meets the old file or the new one, never half
# > of either. `save_index` does.
#
# ## From page to package
#
# The brute force of `recbook.search.index`, and its search with the fallbacks:

# %%
page.source(brute_force)

# %%
page.source(search_index)

# %% [markdown]
# Does FAISS do what this page did by hand? Brute force first, then the toy town with the same centres, then the same
# codebooks:

# %%
ours = brute_force_by_hand(many, asked, 10)
package = brute_force(many, asked, 10)
flat = search_index(build_index(labels, many), asked, 10)
assert np.array_equal(ours[1], package[1]) and np.array_equal(labels[ours[1]], flat.codes)
assert np.allclose(ours[0], flat.scores, atol=1e-5)

quantizer = faiss.IndexFlatL2(2)
quantizer.add(centres)
faiss_town = faiss.IndexIVFFlat(quantizer, 2, len(centres), faiss.METRIC_L2)
faiss_town.add(town)
faiss_town.nprobe = 2
for place in town[:50] + np.float32(0.05):
    assert np.array_equal(search_cells(town, centres, place, 2, 10)[0], faiss_town.search(place[None], 10)[1][0])

faiss_pq = faiss.IndexPQ(dimensions, pieces, 8, faiss.METRIC_INNER_PRODUCT)
faiss.copy_array_to_vector(books.astype(np.float32).ravel(), faiss_pq.pq.centroids)
faiss_pq.is_trained = True
faiss_pq.add(many)
same_codes = (faiss.vector_to_array(faiss_pq.codes).reshape(-1, pieces) == stored).mean()
assert same_codes > 0.999  # a tie between two entries may go either way
scores, rows = faiss_pq.search(asked, 10)
assert np.allclose(scores, np.take_along_axis(by_code, rows, axis=1), atol=1e-3)
print("brute force, cells, codes: equal to FAISS")

# %% [markdown]
# ## On real receipts
#
# Online Retail has a few thousand products. Is an index worth it there, what do filters cost, and do several interests
# sell more than one?

# %%
real = pd.DataFrame(load_results("search_online-retail")["rows"])
speeds = real[real["metric"].isin(["milliseconds_single", "recall@10", "bytes a product"])]
speeds = speeds.pivot(index="method", columns="metric", values="value")
pd.DataFrame(
    {
        "ms a query": speeds["milliseconds_single"].map("{:.2f}".format),
        "recall@10": speeds["recall@10"].fillna(1).map("{:.3f}".format),
        "bytes a product": speeds["bytes a product"].fillna(4 * dimensions).map("{:,.0f}".format),
    }
).rename_axis(None)

# %%
simulated = pd.DataFrame(load_results("search_embedded-shop")["rows"])
columns = {}
for name, rows in {"Online Retail": real, "embedded shop": simulated}.items():
    explore = rows[(rows["split"] == "explore") & (rows["metric"] == "ndcg@10")].set_index("method")
    low, high = (explore[side].map("{:.3f}".format) for side in ("low", "high"))
    columns[f"explore NDCG@10, {name}"] = explore["value"].map("{:.3f}".format)
    columns[f"95% interval, {name}"] = low + " to " + high
pd.DataFrame(columns).rename(lambda method: method.replace("=", ": ")).rename_axis(None)

# %%
value = real.set_index(["method", "metric"])["value"]
gain = real[real["metric"] == "ndcg@10 gained over the mean"].sort_values("value").iloc[-1]
clear = "an interval that excludes zero" if gain["low"] > 0 else "an interval that includes zero"
there = simulated[simulated["metric"] == "ndcg@10 gained over the mean"]
few, there = there["n"].max(), there["value"]
Markdown(
    f"{value['catalogue', 'products']:,.0f} products: brute force takes {value['Flat', 'milliseconds_single']:.2f} ms, "
    f"so the message stands. With a filter that keeps the cheapest quarter, filtering afterwards leaves "
    f"{value['filter after search', 'mean answers']:.1f} of ten answers on average. The best of the numbers of "
    f"interests, picked after looking and so a little flattered, changes `NDCG@10` by {gain['value']:+.3f} "
    f"({gain['low']:+.3f} to {gain['high']:+.3f}; {gain['n']:,.0f} shoppers), {clear}. On the embedded shop the "
    f"numbers above one change it by {there.min():+.3f} to {there.max():+.3f}, but its {few:,.0f} shoppers are too few "
    "for three comparisons to settle anything."
)

# %% [markdown]
# Run this page on those receipts yourself:
#
# `RECBOOK_DATA=online-retail jupyter lab book/04_search.ipynb`

# %% [markdown]
# ## Exercises
#
# ### Exercise 4.1: brute force
# Write `nearest_rows(vectors, queries, k)`: for every query the `k` rows of `vectors` with the largest inner product,
# best first, as an integer array (queries, k).


# %%
def nearest_rows(vectors, queries, k):
    """The rows of the k largest inner products, best first, for every query."""
    ...


# %%
check("4.1", nearest_rows)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nearest_rows(vectors, queries, k):
#     return np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :k]
# ```
#
# The minus sign turns ascending into descending; the stable sort gives ties to the lower row.
#
# </details>
#
# ### Exercise 4.2: recall
# Write `recall_at_k(found, truth)`: both are (queries, k); return the share of the true neighbours that were found,
# wherever in the list they stand.


# %%
def recall_at_k(found, truth):
    """The share of the true neighbours that were found."""
    ...


# %%
check("4.2", recall_at_k)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def recall_at_k(found, truth):
#     return (found[:, :, None] == truth[:, None, :]).any(axis=1).mean()
# ```
#
# Every found code is compared with every true one; a true one counts if any of the found equals it.
#
# </details>
#
# ### Exercise 4.3: cells
# Write `search_some_cells(vectors, centres, query, nprobe, k)` for inner products: a vector belongs to the centre with the
# largest inner product; visit the `nprobe` centres best for the query; return the rows of the `k` best vectors there.


# %%
def search_some_cells(vectors, centres, query, nprobe, k):
    """The rows of the k best vectors in the nprobe best cells, best first."""
    ...


# %%
check("4.3", search_some_cells)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def search_some_cells(vectors, centres, query, nprobe, k):
#     cell = np.argmax(vectors @ centres.T, axis=1)
#     visited = np.argsort(-(centres @ query), kind="stable")[:nprobe]
#     rows = np.flatnonzero(np.isin(cell, visited))
#     return rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:k]]
# ```
#
# The last line maps places among the visited back to rows of the catalogue: forgetting that is the usual mistake.
#
# </details>
#
# ### Exercise 4.4: bytes
# Write `pq_bytes(products, dimensions, pieces)`: all the bytes of a product quantizer with two hundred and fifty-six entries a codebook,
# floats of four bytes, codebooks included.


# %%
def pq_bytes(products, dimensions, pieces):
    """The bytes of the codes and of the codebooks."""
    ...


# %%
check("4.4", pq_bytes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def pq_bytes(products, dimensions, pieces):
#     return products * pieces + pieces * 256 * (dimensions // pieces) * 4
# ```
#
# However many pieces there are, the codebooks together hold `256` whole vectors.
#
# </details>
#
# ### Exercise 4.5: a filter inside the search
# Write `search_allowed(vectors, query, allowed, k)`: `allowed` is a boolean for each row; return the rows of the `k` best
# allowed vectors (fewer only if fewer are allowed), best first.


# %%
def search_allowed(vectors, query, allowed, k):
    """The rows of the k best vectors among those allowed."""
    ...


# %%
check("4.5", search_allowed)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def search_allowed(vectors, query, allowed, k):
#     rows = np.flatnonzero(allowed)
#     return rows[np.argsort(-(vectors[rows] @ query), kind="stable")[:k]]
# ```
#
# Choose first, score after: no allowed product can be crowded out, and the work shrinks with the filter.
#
# </details>
#
# ### Exercise 4.6: which index?
# A shop has three thousand products, a marketplace fifty million on one machine with thirty-two gigabytes, a news site
# two hundred thousand articles of which it adds a thousand an hour. Which factory string for each, and why?
#
# <details><summary>Answer</summary>
#
# The shop: Flat; nothing else is worth an afternoon. The marketplace: the vectors alone would not fit, so IVF with PQ
# codes, and the whole vectors on disk for re-ranking. The news site: HNSW takes additions one at a time and needs no
# training; IVF works too, as long as the centres are learned again when the topics have moved.
#
# </details>
#
# ### Exercise 4.7: the direction of a gap
# Texts that people type are not descriptions: they are shorter, and name occasions rather than materials. Write twenty
# queries that you would type in this shop, and for each the products that you would accept. Does the recall of an index,
# measured with descriptions as queries, still hold for yours? And is recall against brute force the right goal, when
# brute force itself is sometimes wrong?

# %% [markdown]
# ## Summary
#
# - Brute force is one matrix product: exact, and cheap for a small shop. Its cost is bytes read.
# - An index skips most products, betting that near things cluster. On random vectors the bet is lost.
# - IVF visits a few cells, HNSW walks a graph, PQ stores a vector in a few bytes; re-ranking mends what PQ blurs. Each
#   has a knob from fast to exact.
# - Compare methods on recall, speed and bytes together, with brute force at its best as the measure.
# - Filters belong inside the search; a saved index carries the fingerprint of its catalogue.
#
# You can now retrieve. What is retrieved still has to be ranked, and for that the next part of the book builds a language
# model.
#
# ## Further reading
#
# - Douze and others, [The Faiss library](https://arxiv.org/abs/2401.08281) (2024): the whole design, by its authors.
# - Malkov and Yashunin, [Hierarchical navigable small world graphs](https://arxiv.org/abs/1603.09320) (2016).
# - Jégou, Douze and Schmid, [Product quantization for nearest neighbor search](https://doi.org/10.1109/TPAMI.2010.57)
#   (2011).
# - Sivic and Zisserman, [Video Google](https://doi.org/10.1109/ICCV.2003.1238663) (2003): the inverted file's way from
#   text to vectors.
# - [Guidelines to choose an index](https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index), in
#   FAISS's own wiki.
