# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Make it write, and make it true
#
# At the end you can make a language model write with the variety you want, fast, in batches, and so that it cannot name
# a product or a price that the shop does not have.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts,language]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("08_generation")

# %% [markdown]
# **You will learn**
#
# - why the most likely text is a dull one, and what temperature, top-k, top-p and a repetition penalty do about it;
# - to draw a token with one random number, so that a seed gives the same text again;
# - why a key-value cache turns quadratic work into linear work, and that it changes nothing else;
# - to continue prompts of different lengths in one batch, and to stream;
# - to allow only what is true, with a trie; and what that costs, and what it bends.
#
# **You need** tokens ([Chapter 5](05_tokens.ipynb)), the model ([Chapter 6](06_gpt.ipynb)) and the training that made
# it ([Chapter 7](07_training.ipynb)).

# %% [markdown]
# ## The model knows the shop. How do you make it say something useful, and never something false?
#
# In Chapter 7 a GPT learned the shop's cards, baskets and narratives. All it can do is one thing: given a text, it gives
# every token of the vocabulary a probability of coming next. Whether what comes out is dull, varied, nonsense or true is
# decided by what *you* do with those probabilities. That is this chapter.

# %% tags=["nbval-ignore-output"]
import re
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from recbook.baselines.results import has_results, load_results
from recbook.book import workshop
from recbook.book.exercises import check
from recbook.cleaning import receipts as rc
from recbook.generation.generate import Trie, constrained_after, generate, stream
from recbook.generation.sampling import Sampling, choose_tokens, draw_tokens, shape_logits
from recbook.gpt.model import KVCache
from recbook.tokens.documents import format_day, format_pounds, product_cards, sentence_case

known = workshop.known_receipts()
vocabulary = workshop.vocabulary()
model, metrics = workshop.language_model()

# %% tags=["nbval-ignore-output"]
controls = ("<|end|>", "<|product|>", "<|basket|>", "<|shopper|>", "<|because|>")
END, PRODUCT, BASKET, SHOPPER, BECAUSE = (vocabulary.control[name] for name in controls)


def next_probabilities(text):
    with torch.inference_mode():
        logits = model(torch.tensor([text], device=model.device))[0, -1]  # (1, T) -> (1, T, V) -> (V,)
    return logits.float().softmax(-1).cpu().numpy()


def likeliest(text, n=4):
    probabilities = next_probabilities(text)
    assert abs(probabilities.sum() - 1) < 1e-3
    best = np.argsort(-probabilities)[:n].tolist()
    return [f"{vocabulary.decode([token])!r} {probabilities[token]:.0%}" for token in best]


opened = [END, PRODUCT]
products = np.array(list(vocabulary.product.values()))
chosen = int(products[next_probabilities(opened)[products].argmax()])
asked = {"a card begins": opened, "its product is chosen": [*opened, chosen]}
pd.DataFrame([likeliest(text) for text in asked.values()], index=list(asked)).T.rename_axis("most likely next")

# %% [markdown]
# Two very different situations. At the beginning of a card anything in the shop may follow, and the probability is spread
# thin. Once the product's token stands there, the name should be settled.
#
# ## Always the likeliest: greedy
#
# The simplest thing to do: take the most likely token, add it to the text, ask again.


# %% tags=["nbval-ignore-output"]
def greedy(text, tokens, stop=END):
    text = list(text)
    for _ in range(tokens):
        token = int(next_probabilities(text).argmax())
        if token == stop:
            break
        text.append(token)
    return text


card = greedy([END, PRODUCT], 40)
assert len(card) > 3
print(vocabulary.decode(card[1:]))

# %% [markdown]
# The `stop` token matters as much as the rest: the model learned that a document is over at `<|end|>`. Without a stop it
# goes on with the next document, since that is what it saw in training.
#
# > **Pitfall.** Begin as the training text began. There, a document always followed the `<|end|>` of the one before it;
# > the model hardly ever saw `<|basket|>` as the first token of a window. Leave `<|end|>` out and more baskets start
# > somewhere in the middle:


# %% tags=["nbval-ignore-output"]
def opens_with_a_date(prompt):
    texts = generate(model, [prompt] * 100, 8, Sampling())
    return np.mean([bool(re.match(r" \d+ [A-Z][a-z]+ \d{4}", vocabulary.decode(text))) for text in texts])


dated = {"`<|end|><|basket|>`": opens_with_a_date([END, BASKET]), "`<|basket|>` alone": opens_with_a_date([BASKET])}
assert min(dated.values()) >= 0 and dated["`<|end|><|basket|>`"] > 0.5
pd.Series(dated, name="baskets that open with a date").map("{:.0%}".format).rename_axis("prompt").to_frame()

# %% [markdown]
# Greedy text has a worse fault. Ask for a basket:

# %% tags=["nbval-ignore-output"]
basket = greedy([END, BASKET], 100)
assert sum(token in vocabulary.product.values() for token in basket) > 2
print(vocabulary.decode(basket[1:]).replace(";", ";\n"))

# %% [markdown]
# If it repeats itself, that is no accident of this model. A line that stands in the text once makes the same line likelier; twice,
# likelier still; and a machine that always takes the likeliest can never leave. Besides, it has one answer: ask a
# hundred times and you get one product a hundred times.
#
# ## Is it true?
#
# Before turning any knob, decide what you want. A card makes four statements that you can look up: there is such a
# code, this is its name, this is its price, this is when it was first sold. So truth can be counted.

# %%
catalogue = rc.catalogue(known)


def judge(text):
    """What is true of a card, as the model wrote it after `<|product|>`."""
    found = re.fullmatch(r"<\|(.+?)\|> (.+), (£\S+), first sold (.+)\.", vocabulary.decode(text))
    if not found or found[1] not in catalogue.index:
        return dict.fromkeys(["reads as a card", "name", "price", "first sold", "all true"], False)
    product = catalogue.loc[found[1]]
    since = f"{product['first_sold'].month_name()} {product['first_sold'].year}"
    truths = [sentence_case(product["description"]), format_pounds(product["price"]), since]
    name, price, sold = (said == truth for said, truth in zip(found.groups()[1:], truths, strict=True))
    return {
        "reads as a card": True,
        "name": name,
        "price": price,
        "first sold": sold,
        "all true": name and price and sold,
    }


real_cards = [tuple(card[1:]) for card in product_cards(known, vocabulary)]  # without `<|product|>`
assert all(judge(card)["all true"] for card in real_cards)
print("The judge accepts every real card.")


# %% tags=["nbval-ignore-output"]
def write_cards(how, constraint=None, cards=100):
    texts = generate(model, [opened] * cards, 60, how, stop=[END], seed=1, constraint=constraint)
    assert len(texts) == cards
    return texts


def report(texts):
    table = pd.DataFrame([judge(text) for text in texts])
    shares = table.mean().map("{:.0%}".format)
    return {**shares, "different products": len({text[0] for text in texts if text})}


one = {what: "yes" if true else "no" for what, true in judge(card[2:]).items()}
hundred = report(write_cards(Sampling()))
assert hundred["different products"] > 10
pd.DataFrame({"the greedy card": {**one, "different products": 1}, "a hundred sampled": hundred})

# %% [markdown]
# The second column is a hundred cards, each token drawn with exactly the probability that the model gives it. Now there is variety,
# and now there are errors: every improbable token has its chance, a card is many tokens long, and one wrong token makes
# it false. And greedy is no way out: look at its column. Fluent is not the same as true.
#
# ## Temperature
#
# Between "always the likeliest" and "as likely as the model says" lies a scale. Divide the logits by a *temperature* $\tau$
# before the softmax:
#
# $$p_i = \frac{e^{z_i / \tau}}{\sum_j e^{z_j / \tau}}$$
#
# Below one, differences grow and the likely becomes likelier; above one, they shrink. At the first product of a
# basket:

# %% tags=["nbval-ignore-output"]
today, country = format_day(known["date"].max()), known["country"].mode()[0]
first_line = [END, BASKET, *vocabulary.encode(f" {today}, {country}.")]
logits = np.log(next_probabilities(first_line))

fig, ax = plt.subplots()
for temperature, style in ((0.5, "--"), (1.0, "-"), (2.0, ":")):
    p = np.exp(logits / temperature)
    p = np.sort(p / p.sum())[::-1]
    assert abs(np.log(p[0])) < 20
    ax.loglog(np.arange(1, len(p) + 1), p, style, label=f"temperature {temperature:g}")
ax.set(xlabel="tokens, the likeliest first", ylabel="probability", ylim=(1e-9, 1))
ax.set_title("Cold favours the favourites, heat feeds the tail")
ax.legend()
plt.show()

# %% [markdown]
# What does that do to truth and to variety? Temperature zero is greedy by definition.

# %% tags=["nbval-ignore-output"]
by_temperature = {t: report(write_cards(Sampling(temperature=t))) for t in (0, 0.3, 0.6, 1.0, 1.5)}
table = pd.DataFrame(by_temperature).T.rename_axis("temperature")
assert table.loc[0, "different products"] == 1 < table.loc[1.0, "different products"]
table[["reads as a card", "name", "price", "all true", "different products"]]

# %% [markdown]
# Cooling makes more of it true, and less of it different, until there is one card, true or not. A low temperature is no
# lie detector: where the model is sure and wrong, it is wrong every time. No temperature gives a guarantee.
#
# ## Top-k and top-p: cut the tail off
#
# Most nonsense comes from the tail: a great many tokens, each absurd, that together still get their turn. Two knobs cut it.
# **Top-k** keeps the `k` likeliest. **Top-p** (the *nucleus*) keeps the fewest that together reach the probability `p`. See
# the two situations of the beginning again:

# %% tags=["nbval-ignore-output"]
K, P = 20, 0.9
situations = {"first product of a basket": first_line, "a name, after its code": [*opened, chosen]}
fig, axes = plt.subplots(2, 1, figsize=(7.0, 5.4), sharex=True)
nuclei = []
for ax, (name, text) in zip(axes, situations.items(), strict=True):
    p = np.sort(next_probabilities(text))[::-1]
    nuclei.append(int((np.cumsum(p) - p < P).sum()))
    ax.step(np.arange(1, len(p) + 1), np.cumsum(p), where="post", label="probability of all so far")
    ax.axvline(K, color="#6b6b6b", linestyle=":", label=f"top-k of {K}")
    ax.axvline(nuclei[-1], color="#d9822b", linestyle="--", label=f"top-p of {P}: {nuclei[-1]} kept")
    ax.set(ylabel="probability", ylim=(0, 1.05), xscale="log")
    ax.set_title(name)
    ax.legend(loc="upper left" if ax is axes[0] else "center right", fontsize=8.5)
axes[1].set_xlabel("tokens, the likeliest first")
fig.suptitle("The nucleus is wide where much is possible and narrow where little is", fontsize=11.5)
assert nuclei[0] > nuclei[1] >= 1
plt.show()

# %% [markdown]
# A fixed `k` has no right value: where the model is sure, the twentieth token is nonsense; where a whole catalogue may
# follow, twenty is a keyhole. In a shop that is a real harm: every product beyond the k-th can never be
# mentioned.

# %% tags=["nbval-ignore-output"]
settings = {
    "all tokens": Sampling(),
    "top-k of 50": Sampling(top_k=50),
    "top-k of 5": Sampling(top_k=5),
    "top-p of 0.9": Sampling(top_p=0.9),
    "top-p of 0.9, temperature 0.6": Sampling(top_p=0.9, temperature=0.6),
}
table = pd.DataFrame({name: report(write_cards(how)) for name, how in settings.items()}).T
assert table.loc["top-k of 5", "different products"] <= 5
table[["reads as a card", "name", "price", "all true", "different products"]]

# %% [markdown]
# > **Pitfall.** The knobs do not commute. Here, as in most libraries, the penalty (below) acts first, then the temperature,
# > then top-k, then top-p on what is left; the same numbers in another order give another distribution.
#
# ## One random number a token
#
# How do you draw a token with given probabilities? Lay them end to end on a line from zero to one and throw one dart.


# %%
def draw(probabilities, dart):
    return int(np.searchsorted(np.cumsum(probabilities), dart, side="right"))


chances = np.array([0.5, 0.3, 0.2])
darts = (np.arange(1000) + 0.5) / 1000  # one for every thousandth of the line
np.bincount([draw(chances, dart) for dart in darts]) / 1000

# %% [markdown]
# That makes seeds simple: a row's darts come from its seed and its number alone, all drawn before the first token. The same seed gives
# the same text, and what else is in the batch does not matter (up to rounding in the model's own sums).

# %% tags=["nbval-ignore-output"]
warm = Sampling(temperature=0.8, top_p=0.95)
three = [generate(model, [opened], 40, warm, stop=[END], seed=seed)[0] for seed in (7, 7, 8)]
assert three[0] == three[1] != three[2]
for seed, text in zip((7, 7, 8), three, strict=True):
    print(seed, vocabulary.decode(text))

# %% [markdown]
# ## The repetition penalty
#
# Greedy text runs in circles. The *repetition penalty* makes tokens that already stand in the text less likely: it divides
# their logits, if positive, or multiplies them, if negative, by a number above one. What does it do to the basket?


# %% tags=["nbval-ignore-output"]
def lines_of(penalty):
    how = Sampling(temperature=0, repetition=penalty)
    text = generate(model, [[END, BASKET]], 110, how, stop=[END])[0]
    lines = re.findall(r"<\|[^<]+?(?=<\||$)", vocabulary.decode(text))[:-1]  # the last may be cut off
    well_formed = sum(bool(re.fullmatch(r"<\|.+?\|> .+, \d+ at £\S+[;.]", line)) for line in lines)
    products = len({line.split(">")[0] for line in lines})
    return {"lines": len(lines), "different products": products, "well formed": well_formed}


penalties = pd.DataFrame({penalty: lines_of(penalty) for penalty in (1.0, 1.1, 1.3, 1.8)}).T.rename_axis("penalty")
assert (
    penalties["lines"].min() >= 0 and penalties.loc[1.0, "different products"] <= penalties["different products"].max()
)
penalties

# %% [markdown]
# It breaks the circle. But it knows no grammar: commas, pound signs and the digits of prices are tokens too, every line needs them
# again, and they are punished as the products are. Push it and the lines fall apart. On text full of forms and numbers keep it
# small, or leave it out and sample.
#
# ## Fast: the cache
#
# Look again at `greedy`. For every new token it feeds the *whole* text through the model: for a text of $n$ tokens that is
# $1 + 2 + \dots + n$ positions, about $n^2 / 2$. Nearly all of it is done again and again for nothing: attention only looks
# back, so what a position's keys and values are cannot depend on what comes after it. Compute them once, keep them, and
# feed only the new token:

# %% tags=["nbval-ignore-output"]
text = torch.tensor([[END, *real_cards[0], END, PRODUCT, *real_cards[1], END]], device=model.device)  # (1, T)
cache = KVCache(model.config, batch=1, device=model.device)
with torch.inference_mode():
    whole = model(text)  # (1, T, V), all at once
    one_by_one = [model(text[:, [place]], cache) for place in range(text.shape[1])]  # each (1, 1, V)
difference = (torch.cat(one_by_one, dim=1) - whole).abs().max().item()
assert difference < 1e-3
print(f"{text.shape[1]} positions; largest difference of a logit: {difference:.0e}")

# %% [markdown]
# The same logits, but for rounding. What does it save?


# %% tags=["nbval-ignore-output"]
def median_ms(run, times=5):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return 1000 * np.median(seconds)


length = model.config.context
any_text = torch.randint(len(vocabulary), (1, length), generator=torch.Generator().manual_seed(0)).to(model.device)
places = [*range(8, length, length // 8), length]
without, with_cache = [], []
with torch.inference_mode():
    for place in places:
        without.append(
            median_ms(lambda place=place: model.logits(model.hidden(any_text[:, :place])[:, -1]).argmax().item())
        )
        cache = KVCache(model.config, batch=1, device=model.device)
        model.hidden(any_text[:, : place - 1], cache)

        def step(cache=cache, place=place):
            cache.length = place - 1  # the same step again
            model.logits(model.hidden(any_text[:, place - 1 : place], cache)[:, -1]).argmax().item()

        with_cache.append(median_ms(step))
assert 0 < sum(with_cache) < 2 * sum(without)

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots()
ax.plot(places, without, "o--", color="#d9822b", label="the whole text again")
ax.plot(places, with_cache, "s-", color="#1b4f72", label="with the cache")
ax.set(xlabel="tokens in the text", ylabel="milliseconds for the next token", ylim=(0, None))
ax.set_title("With a cache a token costs the same wherever it stands")
ax.legend()
plt.show()

# %% tags=["nbval-ignore-output"]
c = model.config
cache_bytes = 2 * c.layers * c.width * c.context * 4  # keys and values, float32
assert cache_bytes == sum(layer.nbytes for layer in KVCache(c, 1).layers)
Markdown(
    f"A text of {c.context} tokens takes {c.context * (c.context + 1) // 2:,} positions without the cache and {c.context} "
    f"with it. The price is memory: {cache_bytes / 1e6:.2f} MB a text here, for {4 * c.parameters / 1e6:.1f} MB of "
    "weights. It is reserved once, for the longest text that may come: growing it would copy it at every step."
)

# %% [markdown]
# ## Many at once: batches
#
# A small step leaves the processor waiting, so feed several texts together. Their prompts have different lengths, but
# their next tokens must be in the same column. So the padding goes on the *left*; attention is told to look at nothing before a
# row's own beginning, and positions count from there.

# %% tags=["nbval-ignore-output"]
prompts = [[END, PRODUCT, *card[:n]] for card, n in zip(real_cards[5:9], (1, 7, 3, 5), strict=True)]
continued = generate(model, prompts, 20, stop=[END])
alone = [generate(model, [prompt], 20, stop=[END])[0] for prompt in prompts]
agree = sum(a == b for a, b in zip(continued, alone, strict=True))
assert agree >= 3  # a near-tie may go either way: sums in another order round differently

longest = max(map(len, prompts))
grid = np.zeros((len(prompts), longest + 20))
for row, (prompt, new) in enumerate(zip(prompts, continued, strict=True)):
    grid[row, longest - len(prompt) : longest] = 1
    grid[row, longest : longest + len(new)] = 2

# %% tags=["nbval-ignore-output"]
fig, ax = plt.subplots(figsize=(7.0, 2.6))
ax.pcolormesh(
    grid, cmap=plt.matplotlib.colors.ListedColormap(["#eeeeee", "#d9822b", "#1b4f72"]), edgecolors="w", linewidth=1
)
for label, colour in (("prompt", "#d9822b"), ("generated", "#1b4f72"), ("padding, or ended", "#eeeeee")):
    ax.plot([], [], "s", color=colour, markersize=9, label=label)
ax.axvline(longest, color="k", linewidth=1)
ax.invert_yaxis()
ax.set(xlabel="column", ylabel="row", yticks=np.arange(len(prompts)) + 0.5, yticklabels=range(len(prompts)))
ax.set_title("Padded on the left, all rows meet at the same column")
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=3)
assert (grid[:, longest - 1] == 1).all()  # every prompt ends in the same column
plt.show()

# %% [markdown]
# Rows end at different times: one that has drawn its stop token is finished, and when half of a batch have, the package takes
# them out, so that nobody computes for the dead.
#
# ## While it writes: streaming
#
# A reader who waits wants the first word now. `stream` yields each token as soon as it is drawn, the same tokens
# that `generate` returns:

# %% tags=["nbval-ignore-output"]
streamed = []
for token in stream(model, opened, 40, warm, stop=[END], seed=7):
    streamed.append(token)
    print(vocabulary.decode([token]), end="|")
assert streamed == three[0]

# %% [markdown]
# (The bars show where one token ends.)
#
# > **Pitfall.** A token is a piece of bytes, not of letters. A letter such as `é` may be two tokens, and half a letter decodes to
# > `�`. Where that can happen, collect tokens until they decode whole.
#
# ## Only what is true: a trie
#
# All knobs so far bargain with the model. But you *know* what is true: the shop's cards. Put them into a tree, token by token, a **trie**;
# then at every step only its branches may be drawn. In words first:


# %%
def grow(sequences, end):
    root = {}
    for sequence in sequences:
        node = root
        for token in [*sequence, end]:
            node = node.setdefault(token, {})
    return root


def may_follow(root, text):
    node = root
    for token in text:
        node = node[token]
    return list(node)


shelf = grow([("red", "mug"), ("red", "mug", "rack"), ("blue", "cup")], end=".")
for text in ([], ["red"], ["red", "mug"], ["blue", "cup"]):
    print(" ".join(text) or "(nothing yet)", "→", may_follow(shelf, text))

# %% [markdown]
# `red mug` is complete, and also the beginning of something longer: there both the closing token and `rack` are
# allowed. To constrain the model, set the logit of every other token to minus infinity before the softmax.
# `Trie` does that for token ids:

# %% tags=["nbval-ignore-output"]
trie = Trie(real_cards, end=END)
start = time.perf_counter()
free = write_cards(Sampling())
between = time.perf_counter()
held = write_cards(Sampling(), constraint=trie)
seconds = {"free": between - start, "held to the trie": time.perf_counter() - between}
table = pd.DataFrame({"free": report(free), "held to the trie": report(held)})
assert all(judge(text)["all true"] for text in held)
table

# %% [markdown]
# Every card is true, and the variety is still there: the temperature is one. No knob could do that, because it is no longer a
# matter of chance. A test in the package draws random tries and random models and demands that none ever leaves its
# tree.
#
# ## What it costs, and what it bends
#
# Three things you should know before you trust it.
#
# **It takes time.** For each row a walk down the tree in Python, at each step.

# %% tags=["nbval-ignore-output"]
drawn = {"free": sum(map(len, free)), "held to the trie": sum(map(len, held))}
per_token = {name: 1e6 * seconds[name] / drawn[name] for name in drawn}
assert 0 < per_token["held to the trie"] < 100 * per_token["free"]
Markdown(
    f"In the batch of a hundred above: {per_token['free']:,.0f} microseconds a token free, "
    f"{per_token['held to the trie']:,.0f} held to the trie."
)

# %% [markdown]
# **It does not make the model wiser.** Where the model did not know, the trie knew. How often did it have to overrule?

# %% tags=["nbval-ignore-output"]
overruled, kept_mass = [], []
for text in held[:30]:
    with torch.inference_mode():
        logits = model(torch.tensor([opened + text], device=model.device))[0, len(opened) - 1 : -1].float()
    for place, p in enumerate(logits.softmax(-1).cpu().numpy()):  # (T, V)
        allowed = trie(text[:place])
        overruled.append(int(p.argmax()) not in allowed)
        kept_mass.append(p[allowed].sum())
assert 0 < np.mean(kept_mass) <= 1
Markdown(
    f"At {np.mean(overruled):.0%} of the steps the model's favourite was forbidden. On average the allowed tokens had "
    f"{np.mean(kept_mass):.0%} of its probability; the rest was taken away and shared out among them."
)

# %% [markdown]
# **It bends the distribution.** "The rest is shared out" happens at each step, without knowing what comes later. Suppose that the
# model likes to begin with `red`, but believes in none of the red things that exist:

# %%
model_says = {("red", "mug"): 0.6 * 0.02, ("red", "bag"): 0.6 * 0.02, ("blue", "cup"): 0.4 * 0.90}
exact = pd.Series(model_says) / sum(model_says.values())  # of all it might say, given that it is true
step_by_step = pd.Series({("red", "mug"): 0.6 * 0.5, ("red", "bag"): 0.6 * 0.5, ("blue", "cup"): 0.4 * 1.0})
both = pd.DataFrame({"if true, says the model": exact, "held to the trie": step_by_step})
both.set_axis([" ".join(words) for words in model_says]).map("{:.0%}".format)

# %% [markdown]
# Step by step, `red` is chosen before anybody notices that nothing red fits. So a trie favours tempting beginnings: common first words,
# and branches with many leaves behind them. With one token a product, as here, the first step decides everything, and the
# model's opinion on the product itself is kept as it is. With names spelled out in text it can bend a lot. The cure is to
# score whole sequences instead of steps; Chapter 12 ranks products that way.
#
# ## A constraint is a function
#
# A trie is one kind of constraint. In the package any function will do that takes the tokens generated so far and returns those
# allowed next, or `None` for all. This one lets the model write what it likes, but once a product's token
# stands there, the product's own name must follow:

# %% tags=["nbval-ignore-output"]
names = {
    vocabulary.product[code]: vocabulary.encode(f" {sentence_case(text)}")
    for code, text in rc.descriptions(known).items()
}


def own_name(text):
    place = next((n for n in reversed(range(len(text))) if text[n] in names), None)
    if place is None:
        return None
    written, name = text[place + 1 :], names[text[place]]
    return [name[len(written)]] if len(written) < len(name) else None


def truly_named(texts):
    """Of all mentions of products, the share followed by the product's own name; mentions that are cut off do not count."""
    right = []
    for text in texts:
        for place, token in enumerate(text):
            name = names.get(token)
            if name and place + len(name) < len(text):
                right.append(text[place + 1 :][: len(name)] == name)
    return np.mean(right)


def write_baskets(constraint):
    return generate(model, [[END, BASKET]] * 40, 110, Sampling(), stop=[END], seed=3, constraint=constraint)


shares = {"free": truly_named(write_baskets(None)), "own name enforced": truly_named(write_baskets(own_name))}
assert shares["own name enforced"] == 1 >= shares["free"] > 0
pd.Series(shares, name="mentions with the right name").map("{:.0%}".format).to_frame()

# %% [markdown]
# `constrained_after` makes a constraint wait for a token. A narrative may say what it likes about the shopper; after `<|because|>`
# comes a product that exists, under its own name; after the colon it is free again:

# %% tags=["nbval-ignore-output"]
colon = vocabulary.encode(":")[0]
real_products = Trie([[token, *name] for token, name in names.items()], end=colon)
told = generate(
    model, [[END, SHOPPER]] * 20, 115, warm, stop=[END], seed=2, constraint=constrained_after(BECAUSE, real_products)
)
reasons = [text[text.index(BECAUSE) + 1 :] for text in told if BECAUSE in text]
finished = [reason for reason in reasons if colon in reason]
assert finished and all(reason[1 : 1 + len(names[reason[0]])] == names[reason[0]] for reason in finished)
for reason in finished[:3]:
    print(vocabulary.decode(reason))

# %% [markdown]
# The product is real. Is the *reason*? Nothing checked the count, the date or the product bought together with it, and the
# model is happy to invent all three. A trie can only hold what you can list; a reason that depends on this shopper's
# history needs facts found first and a checker afterwards. That is Chapter 14.
#
# ## From page to package
#
# `recbook.generation.sampling` draws as this page does, for all rows at once, and takes the k likeliest first, so that the
# rest of the work is on `k` numbers and not on the whole vocabulary. The trie stands in `recbook.generation.generate`:

# %%
page.source(choose_tokens)

# %%
page.source(Trie)

# %% [markdown]
# Do page and package agree? Greedy texts, the dart, the tree at every beginning of every card, and softmax after
# temperature:

# %% tags=["nbval-ignore-output"]
for prompt in ([END, PRODUCT], [END, BASKET]):
    by_hand = greedy(prompt, 30)[len(prompt) :]
    packaged = generate(model, [prompt], 30, stop=[END])[0]
    for n, (mine, its) in enumerate(zip(by_hand, packaged, strict=False)):
        if mine != its:  # only a tie within rounding may part them
            p = next_probabilities([*prompt, *by_hand[:n]])
            assert abs(p[mine] - p[its]) < 1e-3
            break
    else:
        assert len(by_hand) == len(packaged)

root = grow(real_cards, END)
for card in real_cards[:50]:
    for n in range(len(card) + 1):
        assert set(may_follow(root, card[:n])) == set(trie(card[:n]))

rows = torch.tensor(np.log(chances), dtype=torch.float32).expand(len(darts), -1)  # (darts, V)
assert draw_tokens(rows, torch.tensor(darts)).tolist() == [draw(chances, dart) for dart in darts]
colder = shape_logits(torch.tensor(np.log(chances))[None], Sampling(temperature=0.5)).softmax(-1)[0]
assert np.allclose(colder, chances**2 / (chances**2).sum())
print("texts, darts, trees, temperature: equal")

# %% [markdown]
# ### How fast?
#
# The same weights in the library `transformers`, the same prompts, the same settings, in turns on one machine. Sampling means here
# a temperature, top-k, top-p and a penalty together. More is better:

# %%
if has_results("generation"):
    speed = pd.DataFrame(load_results("generation")["rows"])
    speed = speed[speed["metric"] == "tokens_per_second"].astype({"batch": int})
    columns = speed.pivot_table(index=["scale", "mode", "batch"], columns="method", values="value")
    ratio = (columns["recbook"] / columns["transformers"]).map("{:.1f}".format)
    display(columns.map("{:,.0f}".format).assign(**{"times as fast": ratio}).rename_axis(columns=None))
else:
    print("not yet measured: python benchmarks/generation.py")

# %% [markdown]
# The small model wins by doing less around each step: it has so little to compute that the bookkeeping is most of the time.
# With every knob in use it wins more, since most of the sorting is never done. In batches there is more to compute, and the
# lead shrinks. The large model spends its time on reading its weights from memory, which no bookkeeping can save;
# Chapter 11 makes them smaller.
#
# ## On real receipts
#
# Online Retail has thousands of products instead of hundreds, with descriptions that people typed. How many of the model's cards
# are true there, freely sampled and held to a trie?

# %%
columns = {}
for name, results in {
    "Online Retail": "language_model_online-retail",
    "embedded shop": "language_model_embedded-shop",
}.items():
    if has_results(results):
        rows = pd.DataFrame(load_results(results)["rows"])
        rows = rows[rows["metric"].str.contains("true")]
        columns[name] = rows.groupby("method", sort=False)["value"].last().map("{:.0%}".format)
display(pd.DataFrame(columns).rename_axis("true cards")) if columns else print("not yet measured")

# %% [markdown]
# Run this page on those receipts yourself:
#
# `RECBOOK_DATA=online-retail make lab`

# %% [markdown]
# ## Exercises
#
# ### Exercise 8.1: temperature
# Write `with_temperature(logits, temperature)`: the probabilities, an array that sums to one. Logits may be as large as
# `800`, so mind the exponential.


# %%
def with_temperature(logits, temperature):
    """The probabilities that a temperature makes of logits, (V,) -> (V,)."""
    ...


# %%
check("8.1", with_temperature)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def with_temperature(logits, temperature):
#     raised = np.exp((logits - logits.max()) / temperature)
#     return raised / raised.sum()
# ```
#
# Taking the largest logit away changes nothing in the quotient, and no exponential is above one.
#
# </details>
#
# ### Exercise 8.2: top-k
# Write `top_k(probabilities, k)`: an array of the same length, zero for all but the `k` likeliest tokens, sum one.


# %%
def top_k(probabilities, k):
    """The probabilities after all but the k largest are gone, (V,) -> (V,)."""
    ...


# %%
check("8.2", top_k)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def top_k(probabilities, k):
#     kept = np.zeros_like(probabilities)
#     best = np.argsort(-probabilities, kind="stable")[:k]
#     kept[best] = probabilities[best]
#     return kept / kept.sum()
# ```
#
# On logits one writes minus infinity and leaves the division to the softmax; on probabilities you divide yourself.
#
# </details>
#
# ### Exercise 8.3: the nucleus
# Write `nucleus(probabilities, p)`: a list of the tokens that top-p keeps, the likeliest first. The token that carries
# the sum to `p` is one of them.


# %%
def nucleus(probabilities, p):
    """The fewest tokens whose probabilities reach p, most likely first."""
    ...


# %%
check("8.3", nucleus)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def nucleus(probabilities, p):
#     order = np.argsort(-probabilities, kind="stable")
#     before = np.cumsum(probabilities[order]) - probabilities[order]
#     return order[before < p].tolist()
# ```
#
# A token is kept if those before it do *not yet* reach `p`. So the first is always kept, and a text can always go on.
#
# </details>
#
# ### Exercise 8.4: the repetition penalty
# Write `penalised(logits, text, penalty)`: a copy of the logits in which each token that occurs in `text` has become less
# likely: divided by the penalty if positive, multiplied if not; once, however often it occurs.


# %%
def penalised(logits, text, penalty):
    """Logits (V,) with those of the tokens in `text` made smaller, each once."""
    ...


# %%
check("8.4", penalised)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def penalised(logits, text, penalty):
#     logits = logits.copy()
#     seen = np.array(sorted(set(text)), dtype=int)
#     logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
#     return logits
# ```
#
# Logits are only defined up to a constant, and this rule is not: add the same number to all and it punishes differently.
# It works in practice; it has no theory.
#
# </details>
#
# ### Exercise 8.5: what may follow
# Write `allowed_next(sequences, text, end)` without building a tree: the sorted list of tokens that may follow `text` (a
# list) if only the given sequences (lists), each closed by `end`, are possible. Nothing may follow a text that begins none of
# them.


# %%
def allowed_next(sequences, text, end):
    """The tokens that may come after `text`, sorted."""
    ...


# %%
check("8.5", allowed_next)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def allowed_next(sequences, text, end):
#     closed = [[*sequence, end] for sequence in sequences]
#     return sorted({s[len(text)] for s in closed if len(s) > len(text) and s[: len(text)] == text})
# ```
#
# This looks at every sequence at every step. The trie walks the text once, however many sequences there are.
#
# </details>
#
# ### Exercise 8.6: beam search
# Greedy takes the best step, not the best text. *Beam search* keeps the `width` best texts so far: extend each by
# every token, keep the best `width` of all. Write `beam_search(log_probabilities, start, steps, width)` for a model in which
# the next token depends on the last one only: row `i` of the matrix holds what follows token `i`. Return the `steps` tokens
# after `start` of the best text found, as a list.


# %%
def beam_search(log_probabilities, start, steps, width):
    """The most likely `steps` tokens after `start` that a beam of `width` finds."""
    ...


# %%
check("8.6", beam_search)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def beam_search(log_probabilities, start, steps, width):
#     beams = [(0.0, [start])]
#     for _ in range(steps):
#         longer = []
#         for score, text in beams:
#             for token, gain in enumerate(log_probabilities[text[-1]]):
#                 longer.append((score + gain, [*text, token]))
#         beams = sorted(longer, key=lambda beam: -beam[0])[:width]
#     return beams[0][1][1:]
# ```
#
# With a width of one this is greedy. Held to a trie, a wide beam also cures the bent distribution, since it
# scores whole names; but it looks for the *best* text, and the best text is the dull one.
#
# </details>
#
# ### Exercise 8.7: your own constraint
# A basket's line ends in `, 6 at £2.55;`. Write a constraint that lets the model choose product and quantity, and
# allows only prices at which that product was really sold. Which decisions are left to the model? Measure what
# becomes true, and what does not. Then find something false that no constraint of this kind can forbid.
#
# <details><summary>Answer</summary>
#
# Extend `own_name`: after the name, everything is free until the text since the product's token ends in ` at £`; from there, a
# `Trie` of that product's prices, each encoded as it is written, closed by `;`. Mind the tokens: ` £` may be one
# token, and a price several. The model still decides on products and quantities. Every line can now be true by itself, and the basket false as a whole: this
# shopper on this date never bought it. A constraint sees the text; what is true of the world beyond the listed sequences
# must be put into the prompt, or checked afterwards.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A model gives probabilities; the text is your decision. The likeliest text runs in circles.
# - Temperature trades variety against truth and guarantees neither; top-p cuts the tail where there is one; a fixed top-k hides products.
# - One uniform number a token, from the row's own seed: texts that can be had again.
# - The cache keeps what cannot change: the same logits, linear work, memory reserved once.
# - A trie makes false products and prices impossible. It costs a little time, teaches the model nothing, and favours
#   tempting beginnings.
#
# ## Further reading
#
# - [The Curious Case of Neural Text Degeneration](https://arxiv.org/abs/1904.09751): why the likeliest text is dull;
#   top-p.
# - [CTRL](https://arxiv.org/abs/1909.05858): the repetition penalty, and control tokens.
# - [Hierarchical Neural Story Generation](https://arxiv.org/abs/1805.04833): top-k sampling.
# - [Autoregressive Entity Retrieval](https://arxiv.org/abs/2010.00904): decoding held to a trie of names.
# - [Grammar-Aligned Decoding](https://arxiv.org/abs/2405.21047): how constraints bend the distribution, and a cure.
