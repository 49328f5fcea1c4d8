# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Clean receipts
#
# At the end you have clean receipts, a basket for every visit, a catalogue, and an audit that accounts for every line
# of the file.

# %%
# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[receipts]==0.1.0'")

# %% tags=["nbval-ignore-output"]
from recbook.book import page

page.opening("01_cleaning")

# %% [markdown]
# **You will learn**
#
# - to read a file of receipts without the silent damage that happens before the first line of analysis;
# - to tell a purchase from everything else that a till writes down;
# - to match a cancellation with the sale that it undoes;
# - to clean by rules that add up, so that no line disappears without a reason;
# - to turn lines into baskets, histories and a catalogue.
#
# **You need** Python and a little pandas: selecting rows, `groupby`. Nothing from other chapters.

# %% [markdown]
# ## What did your customers really buy?
#
# You have a year of receipts, and you want to recommend to each customer what they may like next. The file looks like a
# list of purchases. It is not. It is a list of what the tills wrote: purchases, but also postage, broken jars, typing
# errors, and sales that were undone an hour later. A method that learns from the file as it stands learns all of that.
#
# So the first question is not which model to train. It is which lines of this file are purchases.

# %%
import io
import os

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown

from recbook.baselines.results import load_results
from recbook.book import workshop
from recbook.cleaning import receipts as rc
from recbook.cleaning.schema import ReceiptsError, check_receipts

raw = workshop.raw_receipts()
raw.head(6)

# %%
origin = (
    "the embedded shop, which the book simulates: homeware and gifts, clothing, coffee"
    if workshop.embedded()
    else workshop.data_name().rpartition("/")[2]
)
first_day, last_day = (f"{day:%d %B %Y}" for day in raw["InvoiceDate"].agg(["min", "max"]))
Markdown(
    f"These are the receipts of {origin}. The file has **{len(raw):,} lines** "
    f"on {raw['InvoiceNo'].nunique():,} invoices, from {first_day} to {last_day}."
)

# %% [markdown]
# A row is one *line* of a receipt: so many units of one product. Lines with the same `InvoiceNo` were paid together.
# The eight columns are those of [Online Retail](https://doi.org/10.24432/C5BW33), a year of a British gift shop on the
# web. Most tills can export something close to them.

# %% [markdown]
# ## Three traps before the first row
#
# Damage at reading time is the worst kind: nothing fails, and every later number is a little wrong. Here is a file of
# two lines, as Windows programs write them.

# %%
FILE = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123A,Café light,6,12/1/2010 8:26,2.55,17850,France
541900,22423,CAKE STAND,1,1/24/2011 9:02,12.75,,France
""".encode("latin-1")

naive = pd.read_csv(io.BytesIO(FILE), encoding="latin-1")
naive[["InvoiceDate", "CustomerID", "Description"]]

# %% [markdown]
# **Customers became floats.** One missing number turns the whole column into fractions, and customer `17850` is now
# called `17850.0`. Join that, as text, with another table and nobody is found.
#
# **Dates are text, and ambiguous.** Is `12/1/2010` the first of December or the twelfth of January? Each line on its
# own allows both. Only the second line, with its `24`, decides: the month comes first.
#
# **The letters have no label.** A file does not say how its bytes become letters. Guess wrong and you get an error, if
# you are lucky:

# %%
try:
    pd.read_csv(io.BytesIO(FILE), encoding="utf-8")
except UnicodeDecodeError as error:
    print(f"read as UTF-8: {error.reason} at byte {error.start}")
print("the other mistake:", "Café light".encode().decode("latin-1"))

# %% [markdown]
# The second mistake raises nothing. It prints nonsense, and the nonsense becomes a product's name.
#
# `check_receipts` turns a frame into receipts of known types. It reads the dates in the one order that fits every line,
# and it refuses what it would have to guess.

# %%
checked = check_receipts(naive)
pd.DataFrame({"read by pandas": naive.dtypes.astype(str), "checked": checked.dtypes.astype(str)})

# %%
doubtful = {"Quantity": ["6", "a dozen"], "InvoiceDate": ["12/1/2010 8:26", "1/2/2011 9:02"]}
for column, values in doubtful.items():
    try:
        check_receipts(naive.assign(**{column: values}))
    except ReceiptsError as error:
        print(error, end="\n\n")

# %% [markdown]
# And the receipts of this page?

# %%
raw = check_receipts(raw)
print(f"{len(raw):,} lines, all of the right types")

# %% [markdown]
# An error names the column, the row, what stands there, and what to do. `recbook.cleaning.load.load_receipts` does the
# same for a whole file: CSV in either encoding, an Excel workbook, parquet, zipped or not.
#
# > **Pitfall.** A date column that reads without an error proves nothing. Look at the days: if a year of receipts knows
# > no day after the twelfth, day and month were exchanged.

# %% [markdown]
# ## Rules that add up
#
# Now the cleaning. Each rule looks at the lines that are left and says which of them to take out. A ledger keeps count.

# %%
ledger = []


def take_out(lines, doomed, rule):
    """The lines without the doomed ones, whose number goes into the ledger."""
    ledger.append({"rule": rule, "rows": int(doomed.sum())})
    return lines[~doomed]


# %% [markdown]
# Because every line is either passed on or written into the ledger, the counts add up to the file. That is worth more
# than it seems: when somebody asks where the missing lines went, the ledger answers.

# %% [markdown]
# ## Who bought it?
#
# A line without a customer cannot teach you what that customer likes. In a shop, these are people who paid as guests.

# %%
unknown = raw["CustomerID"].isna()
turnover = (raw["Quantity"] * raw["UnitPrice"]).clip(lower=0)

lines = take_out(raw, unknown, "no customer")
Markdown(
    f"**{unknown.mean():.1%}** of the lines have no customer. "
    f"They carry {turnover[unknown].sum() / turnover.sum():.1%} of the turnover."
)

# %% [markdown]
# This is the most expensive rule, and the one that throws real purchases away. Guests' baskets could still tell
# you which products go together. This book needs a *history* for each shopper, so they go; if your shop has mostly
# guests, start from [item-to-item methods](02_baselines.ipynb) and keep them.

# %% [markdown]
# ## What was bought?
#
# Most tills also write lines without a description. The first ones of this file, if it has any:

# %%
nameless = raw["Description"].isna() | (raw["Description"].str.strip() == "")
columns = ["InvoiceNo", "StockCode", "Description", "Quantity", "UnitPrice", "CustomerID"]
raw.loc[nameless, columns].head(4)

# %% [markdown]
# No name, no customer, a price of zero, an odd quantity: that is how a correction of the stock looks. A till has no
# button for "we found them broken", so it writes a sale.

# %%
doomed = lines["Description"].isna() | (lines["Description"].str.strip() == "")
lines = take_out(lines, doomed, "no description")
Markdown(
    f"The file has {nameless.sum():,} lines without a description. "
    f"With a customer, and so still here: **{doomed.sum():,}**."
)

# %% [markdown]
# Rules overlap, and the order decides which one gets the credit. So an audit needs two columns: what a rule took, and
# what it *would* take alone. You will see both below.

# %% [markdown]
# ## Said twice
#
# Look for lines that are equal in all eight columns, down to the minute.

# %%
twice = lines.duplicated(keep=False)
lines[twice].sort_values(["InvoiceNo", "StockCode"], kind="stable").head(4)

# %%
doomed = lines.duplicated()
lines = take_out(lines, doomed, "exact duplicate")
Markdown(f"**{doomed.sum():,}** lines repeat an earlier one exactly.")

# %% [markdown]
# Perhaps a hand scanned the same mug twice by mistake; perhaps there were two mugs. The file cannot say. For a
# recommender it does not matter: the mug was in the basket. For the accounts it would, so do not reuse this rule there.

# %% [markdown]
# ## Bought, then not bought
#
# Look at the largest quantities of all.

# %%
shown = ["InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "CustomerID"]
extreme = lines.loc[lines["Quantity"].abs().nlargest(2).index].sort_values("InvoiceDate")
extreme[shown]

# %%
alike = (extreme[["StockCode", "CustomerID"]].nunique() == 1).all()
minutes = np.ptp(extreme["InvoiceDate"]).total_seconds() / 60
Markdown(
    f"An order of **{extreme['Quantity'].max():,}** units, cancelled by the same customer after "
    f"{minutes:,.0f} minutes: somebody's finger slipped."
    if alike and extreme["Quantity"].sum() == 0
    else "In many shops these are an order and its cancellation. Not in this file."
)

# %% [markdown]
# An invoice whose number begins with `C` is a cancellation, and its quantities are negative.
#
# Many recipes on the web drop the `C` lines and go on. Then the slip of the finger stays: the *sale* is still in the
# file. So take out the sale too. Which one? When a customer has bought the same thing more than once, a cancellation
# undoes the **latest earlier sale that is not yet undone**, of the same customer, product and quantity.
#
# That is how brackets match. A sale opens, a cancellation closes, and a closing bracket belongs to the last one still
# open. Follow one customer and one product:

# %%
# step: +1 a sale, -1 a cancellation
visits = pd.DataFrame({"day": [1, 3, 4, 6, 8, 9, 11], "step": [-1, 1, 1, -1, 1, -1, -1]})
closes = visits["step"] < 0
visits["depth"] = visits["step"].cumsum() + closes  # that a sale opens, or a cancellation closes
before = visits["day"].groupby(visits["depth"]).shift()
visits["undoes the sale of day"] = before.where(closes).astype("Int64")
visits

# %% [markdown]
# The trick is the `depth`. Within one depth, openings and closings take turns. So a cancellation belongs to whatever
# stands before it *at its depth*; and where nothing does, as on the first day here, it undoes a sale from before the
# file began.

# %%
figure, axes = plt.subplots(figsize=(7, 3))
walk = visits["step"].cumsum()
axes.step([0, *visits["day"], 12], [0, *walk, walk.iloc[-1]], where="post", color="0.6")
axes.plot(visits["day"][~closes], visits["depth"][~closes], "o", label="sale")
axes.plot(visits["day"][closes], visits["depth"][closes], "X", markersize=9, label="cancellation")
for event in visits.dropna().itertuples(index=False):
    arrow = {"arrowstyle": "->", "color": "#9b2d30"}
    axes.annotate("", (event[3], event.depth), (event.day, event.depth), arrowprops=arrow)
axes.set(
    xlabel="day",
    ylabel="sales not yet undone",
    title="Each cancellation points back to the sale at its depth",
)
axes.set_yticks(range(-1, 3))
axes.legend(loc="upper right")
plt.show()


# %% [markdown]
# On the whole file there is one such walk for every customer, product and quantity. `groupby` runs them all at once.


# %%
def undone_sales(lines):
    """The rows of the sales that a cancellation undoes."""
    cancels = lines["InvoiceNo"].str.startswith("C")
    events = lines[(lines["Quantity"] < 0) == cancels].sort_values("InvoiceDate", kind="stable")
    cancels = cancels[events.index]
    same = [events["CustomerID"], events["StockCode"].str.upper(), events["Quantity"].abs()]
    walk = events.groupby(same, sort=False).ngroup()
    steps = pd.Series(np.where(cancels, -1, 1), index=events.index)
    depth = steps.groupby(walk).cumsum() + cancels
    opened = events.index.to_series().groupby([walk, depth]).shift()
    return opened[cancels].dropna().astype(int)  # index: the cancellation; value: the sale


undone = undone_sales(lines)
cancels = lines["InvoiceNo"].str.startswith("C")
pair = [*undone.head(1), *undone.index[:1]]
lines.loc[pair, shown] if pair else Markdown("No sale in this file is undone by a cancellation.")

# %% [markdown]
# And the cancellations that match no sale? Some customers sent back only *part* of a larger sale. Others return what
# they bought before the file begins, or several sales at once.

# %%
open_sales = lines[~cancels & ~lines.index.isin(undone)]
unmatched = lines[cancels & ~lines.index.isin(undone.index)].reset_index()
candidates = unmatched.merge(open_sales, on=["CustomerID", "StockCode"], suffixes=("", " sold"))
larger = candidates["Quantity sold"] > -candidates["Quantity"]
earlier = candidates["InvoiceDate sold"] <= candidates["InvoiceDate"]
partial = candidates.loc[larger & earlier, "index"].nunique()
fates = pd.Series(
    {
        "undid a whole sale": len(undone),
        "returned a part": partial,
        "match no single sale": len(unmatched) - partial,
    }
)
total = fates.sum()
finding = f"{fates.max() / max(total, 1):.0%} of the {total:,} cancelled lines {fates.idxmax()}"

axes = fates.iloc[::-1].plot.barh(figsize=(7, 2.2), color="#1b4f72", width=0.6)
axes.bar_label(axes.containers[0], fmt="{:,.0f}", padding=4)
axes.set(
    xlabel="cancelled lines",
    title=finding if total else "Nothing here is cancelled",
)
axes.margins(x=0.12)
plt.show()

# %% [markdown]
# A partial return leaves the sale alone. The shopper wanted the product and still has some of it.

# %%
lines = take_out(lines, lines.index.isin(undone), "sale later cancelled")
lines = take_out(lines, lines["InvoiceNo"].str.startswith("C"), "cancellation")

sold = raw.loc[undone, ["CustomerID", "StockCode"]].drop_duplicates()
kept = set(zip(lines["CustomerID"], lines["StockCode"], strict=True))
phantoms = sum(pair not in kept for pair in sold.itertuples(index=False, name=None))
Markdown(
    f"**{len(undone):,}** sales were undone. In **{phantoms:,}** cases, "
    "that sale was the only time the customer bought the product."
)

# %% [markdown]
# > **Pitfall.** Keep those sales and you teach the model that these customers like what they sent back. It is the
# > opposite of the truth, it is in the training data, and, after the cut, it is in the test data too.

# %% [markdown]
# ## A quantity and a price
#
# A purchase has a positive quantity and a positive price. Most lines that fail here were caught by an earlier rule;
# look at how few are left.

# %%
no_units, no_price = lines["Quantity"] <= 0, lines["UnitPrice"] <= 0
lines = take_out(lines, no_units, "quantity not positive")
lines = take_out(lines, lines["UnitPrice"] <= 0, "price not positive")
Markdown(
    f"In the whole file, {(raw['Quantity'] <= 0).sum():,} lines have no positive quantity and "
    f"{(raw['UnitPrice'] <= 0).sum():,} no positive price. "
    f"Of those still here: **{no_units.sum():,}** and **{no_price.sum():,}**."
)

# %% [markdown]
# A line that costs nothing and does have a customer is a gift: the shop put something in the parcel. The customer did
# not choose it, so it says nothing about taste.

# %% [markdown]
# ## Not everything sold is a product
#
# Products have a code of five digits, some with a letter for the colour. If yours look different, say how: the setting
# `RECBOOK_PRODUCT_CODE` takes a regular expression. What is sold and is no product:

# %%
product_code = os.environ.get("RECBOOK_PRODUCT_CODE") or rc.PRODUCT_CODE
is_product = lines["StockCode"].str.fullmatch(product_code)
services = (
    lines[~is_product]
    .groupby("StockCode")
    .agg(
        description=("Description", "first"),
        lines=("Quantity", "size"),
        customers=("CustomerID", "nunique"),
    )
)
services.sort_values("lines", ascending=False).head(8)

# %%
ranks = lines.groupby("StockCode")["CustomerID"].nunique().rank(ascending=False, method="min")
first = services["customers"].idxmax() if len(services) else None
Markdown(
    f"By number of customers, `{first}` would rank **{ranks[first]:.0f}** "
    f"among {len(ranks):,} codes. Leave it in, and a method that counts popularity recommends it."
    if first
    else "Nothing in this file: every code that is left is a product's."
)

# %%
lines = take_out(lines, ~is_product, "not a product")
print(f"{len(lines):,} lines are left")

# %% [markdown]
# ## One product, one code, one name
#
# The lines that are left are purchases. But the same product can still hide behind several names, because people rename
# things. This is the product of the file with the most names:

# %%
single_spaced = lines["Description"].str.split().str.join(" ")
names = lines.assign(code=lines["StockCode"].str.upper(), name=single_spaced)
variants = names.groupby("code")["name"].nunique()
renamed = names[names["code"] == variants.idxmax()]
renamed = renamed.assign(day=renamed["InvoiceDate"].dt.date)
renamed.groupby("name").agg(lines=("day", "size"), first=("day", "min"), last=("day", "max"))

# %%
spellings = raw.groupby(raw["StockCode"].str.upper())["StockCode"].nunique()
Markdown(
    f"**{(variants > 1).sum():,}** products have more than one name. And in the whole file "
    f"**{(spellings > 1).sum():,}** codes are written in two ways, as `85123A` and `85123a`: "
    "some tills make the letter small."
)

# %% [markdown]
# So codes go into capitals, and each code gets one name: its most frequent one. [Chapter 3](03_embeddings.ipynb) turns
# these names into vectors; with several names a product would sit in several places of the map. Nothing is taken out by
# this rule, so it does not appear in the ledger.

# %%
counts = names.value_counts(["code", "name"]).reset_index()
counts = counts.sort_values(["count", "name"], ascending=[False, True], kind="stable")
one_name = counts.drop_duplicates("code").set_index("code")["name"]

by_hand = pd.DataFrame(
    {
        "invoice": names["InvoiceNo"],
        "code": names["code"],
        "description": names["code"].map(one_name),
        "quantity": names["Quantity"],
        "date": names["InvoiceDate"],
        "price": names["UnitPrice"],
        "customer": names["CustomerID"].astype("int64"),
        "country": names["Country"].fillna("Unspecified"),
    }
).sort_values("date", kind="stable")
by_hand.head(3)

# %% [markdown]
# ## The audit
#
# Here is the whole ledger as a picture: the file at the top, what each rule takes, what is left at the bottom.

# %%
audit = pd.DataFrame(ledger)
left = len(raw) - audit["rows"].cumsum()

figure, axes = plt.subplots(figsize=(7, 4))
axes.barh("the file", len(raw), color="0.75")
axes.barh(audit["rule"], audit["rows"], left=left, color="#9b2d30")
axes.barh("kept", len(lines), color="#1b4f72")
for rule, rows, start in zip(audit["rule"], audit["rows"], left, strict=True):
    taken = f"−{rows:,}" if rows else "0"
    axes.text(start - len(raw) * 0.01, rule, taken, ha="right", va="center")
axes.text(len(lines) * 0.98, "kept", f"{len(lines):,}", ha="right", va="center", color="white")
axes.text(len(raw) * 0.98, "the file", f"{len(raw):,}", ha="right", va="center")
axes.invert_yaxis()
axes.xaxis.set_major_formatter("{x:,.0f}")
share = len(lines) / len(raw)
axes.set(xlabel="lines", title=f"{share:.0%} of the lines are purchases by known customers")
plt.show()

# %%
assert audit["rows"].sum() + len(lines) == len(raw)
print(f"{audit['rows'].sum():,} taken out + {len(lines):,} kept = {len(raw):,} in the file")

# %% [markdown]
# ## Baskets
#
# A recommender of this book sees *baskets*: the distinct products that one customer buys on one invoice on one day, or
# after midnight within twelve hours of the line before. Quantities are dropped. A dozen candles is not twelve times the
# interest of one, and a shop that resells buys by the hundred.
#
# Is a basket not simply an invoice number? Mostly. But a till begins its numbers anew, two tills count alike, and a
# customer is still at the counter when midnight comes:

# %%
odd = pd.DataFrame(
    [
        ("7", "candle", "2011-03-01 23:58", 17850),
        ("7", "teapot", "2011-03-02 00:03", 17850),  # midnight passed
        ("7", "garland", "2011-03-01 15:20", 13047),  # another till
        ("7", "napkins", "2011-11-20 10:00", 17850),  # the numbers began anew
    ],
    columns=["invoice", "code", "date", "customer"],
)
rc.with_baskets(odd.assign(date=pd.to_datetime(odd["date"])))

# %% [markdown]
# Three baskets, each with a name and one time, that of its first line. It matters that this is settled once, and here.
# If every chapter drew the line on its own, a network would learn from one kind of basket and be asked about another;
# and a cut in time, at midnight say, would lay half of a basket on each side: half of the answer, given away.

# %%
by_hand = rc.with_baskets(by_hand)
baskets = rc.baskets(by_hand)
assert (by_hand.groupby("invoice")[["customer", "date"]].nunique() == 1).all(axis=None)
baskets.head(3)

# %%
sizes = baskets["codes"].str.len()
edge = int(sizes.quantile(0.98))

figure, axes = plt.subplots()
axes.hist(sizes.clip(upper=edge), bins=range(1, edge + 2), color="#1b4f72")
median = sizes.median()
axes.axvline(median, color="#d9822b", linewidth=2)
axes.annotate(f" median {median:.0f}", (median, axes.get_ylim()[1] * 0.92), color="#a85c10")
axes.set(
    xlabel=f"distinct products in the basket (the last bar: {edge} or more)",
    ylabel="baskets",
    title=f"Half of the baskets hold {median:.0f} products or fewer; mean {sizes.mean():.0f}",
)
plt.show()

# %% [markdown]
# In a shop like this one, baskets are large: many customers are small shops themselves. It matters for what follows: the question "what is
# the *next item*?" makes little sense here, since the next item is mostly on the same receipt.
# [Chapter 2](02_baselines.ipynb) asks for the next basket instead, and shows what goes wrong otherwise.

# %% [markdown]
# ## A catalogue from receipts
#
# Nobody gave you a list of products, but the receipts contain one.

# %%
catalogue = rc.catalogue(by_hand)
popular = catalogue.nlargest(5, "customers").drop(columns=["invoices", "last_sold"])
popular.assign(first_sold=popular["first_sold"].dt.date)

# %% [markdown]
# The price is the median of the last twenty lines. The mean of all lines would mix in old prices and discounts for
# bulk, and a single typing error would move it. `first_sold` matters later: a method must not recommend in March what
# the shop first sold in May.

# %% [markdown]
# ## The year in a shop
#
# Last, look at time. It decides how the rest of the book measures.

# %%
weekly = baskets.set_index("date").resample("W-SUN", label="left")["invoice"].count()
if len(weekly) > 3:
    weekly = weekly.iloc[1:-1]  # the first and the last week are not whole

products = by_hand.drop_duplicates(["invoice", "code"])
later = products["invoice"] != products.groupby("customer")["invoice"].transform("first")
again = products.duplicated(["customer", "code"])
monthly = again[later].groupby(products["date"].dt.to_period("M")).mean().iloc[1:]

figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), sharex=False)
above.plot(weekly.index, weekly, color="#1b4f72")
busiest = f"{weekly.idxmax():%d %B %Y}"
above.set(ylabel="baskets a week", ylim=(0, None), title=f"The busiest week begins on {busiest}")
below.plot(monthly.index.to_timestamp(), 100 * monthly, "o-", color="#d9822b")
below.set(
    xlabel="week, month",
    ylabel="bought before (%)",
    ylim=(0, None),
    title=f"Of what returning customers buy, {again[later].mean():.0%} they have bought before",
)
plt.show()

# %% [markdown]
# Two facts to carry into the next chapters. The season is strong, so last month predicts this month better than last
# spring does. And people buy the same things again: whoever recommends only what is new to a shopper gives up a large
# part of the basket, and whoever recommends only repeats never shows them anything.
#
# The second curve needs care. Its start is low because the file has a beginning: in the first months nobody has a
# history yet.

# %% [markdown]
# ## From page to package
#
# `recbook.cleaning.receipts` holds the same rules. Each is a name and a function from lines to the ones that must go:

# %%
page.source(rc.rules)

# %%
page.source(rc.clean)

# %% [markdown]
# It gives three things: the receipts, the removed lines with the rule that took each, and the audit. The column `alone`
# says what a rule would take if it were the first.

# %%
cleaned = rc.clean(raw, product_code)
shares = (100 * cleaned.audit["share"]).round(2)
cleaned.audit.assign(share=shares).rename(columns={"share": "share (%)"})

# %% [markdown]
# Is it what you have done by hand? Line by line, rule by rule:

# %%
pd.testing.assert_frame_equal(cleaned.receipts, by_hand)
assert cleaned.audit["rows"].tolist() == [*audit["rows"], len(by_hand)]
early = cleaned.removed["rule"].isin(["no customer", "no description", "exact duplicate"])
pairs = rc.match_cancellations(raw.drop(cleaned.removed.index[early]))
assert dict(pairs.itertuples(index=False)) == undone.to_dict()
print("the same receipts, the same audit, the same matched sales")

# %% [markdown]
# Nothing is thrown away for good. If you want to know why a line is missing, ask:

# %%
reasons = cleaned.removed.groupby("rule").head(1)
reasons[["InvoiceNo", "StockCode", "Description", "Quantity", "UnitPrice", "CustomerID", "rule"]]

# %% [markdown]
# With a simulated shop there is one more check, impossible on real receipts: the true catalogue is known, so every code
# that cleaning kept must be in it.

# %%
if workshop.embedded():
    truth = workshop.the_shop().products
    strangers = set(cleaned.receipts["code"]) - set(truth.index)
    assert not strangers
    count = cleaned.receipts["code"].nunique()
    print(f"{count:,} codes kept, of {len(truth):,} true products; none that is no product")
else:
    print("real receipts: there is no true catalogue to compare with")

# %% [markdown]
# ## On real receipts
#
# The same cleaning on all of Online Retail, beside the receipts of this page:


# %%
def facts(raw, receipts):
    """What this chapter has found out about a file of receipts."""
    sizes = receipts.groupby("invoice")["code"].nunique()
    visits = receipts.groupby("customer")["invoice"].nunique()
    return {
        "lines in the file": len(raw),
        "share without a customer": raw["CustomerID"].isna().mean(),
        "lines kept": len(receipts),
        "share kept": len(receipts) / len(raw),
        "invoices": receipts["invoice"].nunique(),
        "products": receipts["code"].nunique(),
        "customers": receipts["customer"].nunique(),
        "median products a basket": sizes.median(),
        "baskets with one product, share": (sizes == 1).mean(),
        "customers with one invoice, share": (visits == 1).mean(),
        "cancellations matched to a sale, share": len(undone) / max(cancels.sum(), 1),
        "repeat purchases, share": again[later].mean(),
    }


measured = load_results("cleaning")
rows = [row for row in measured["rows"] if row["part"] == "facts"]
online_retail = {row["metric"]: row["value"] for row in rows}
here = pd.Series(facts(raw, cleaned.receipts))
there = pd.Series(online_retail).reindex(here.index)
table = pd.DataFrame({"this page": here, measured["data"]["name"]: there})
written = {fact: "{:.1%}" if "share" in fact else "{:,.0f}" for fact in table.index}
table.apply(lambda column: [written[fact].format(value) for fact, value in column.items()])

# %%
Markdown(
    f"Reading all {there['lines in the file']:,.0f} lines of {measured['data']['name']} took "
    f"{online_retail['seconds to read']:.1f} seconds of one core, cleaning them "
    f"{online_retail['seconds to clean']:.1f} ({measured['machine']})."
)

# %% [markdown]
# What differs?

# %%
both = {}
for fact, value in there.items():
    both[fact] = f"{written[fact].format(value)} (here {written[fact].format(here[fact])})"

if np.allclose(here, there, rtol=1e-4):
    difference = "Nothing: this page runs on Online Retail itself."
else:
    difference = (
        f"Online Retail has {both['lines in the file']} lines. "
        f"Of its cancellations, {both['cancellations matched to a sale, share']} match a sale; "
        f"of its baskets, {both['baskets with one product, share']} hold a single product; "
        f"of its customers, {both['customers with one invoice, share']} came once; "
        f"of what the others buy later, {both['repeat purchases, share']} they have bought before."
    )
if workshop.embedded():
    difference += (
        " The embedded shop was made to resemble it: "
        "look at the share of lines without a customer, and at the median basket."
    )
Markdown(difference)

# %% [markdown]
# To run this chapter on the real log, or on your own receipts, change one setting:
#
# ```
# RECBOOK_DATA=online-retail jupyter lab
# RECBOOK_DATA=my_receipts.csv jupyter lab
# ```
#
# In Colab, set it in a cell before the imports: `os.environ["RECBOOK_DATA"] = "online-retail"`.

# %% [markdown]
# ## Exercises

# %%
from recbook.book.exercises import check

# %% [markdown]
# ### Exercise 1.1: where did they go?
#
# The audit says that the rule `no description` took nothing, or next to nothing. Yet the file has lines without a
# description. Where are they? Would moving the rule to the top change the receipts that you get?

# %% [markdown]
# <details><summary>Answer</summary>
#
# The rule before it took them: lines without a description are stock corrections, and those have no customer. Moved to
# the top, the rule would take what its column `alone` says, and `no customer` would take that many fewer. The clean
# receipts would be the same. Order moves credit between rules that look at one line at a time.
#
# It is different for rules that look at several lines. Match cancellations before duplicates are gone, and a sale
# scanned twice survives a cancellation: one of its two lines is undone, the other is no longer a duplicate of
# anything.
#
# </details>

# %% [markdown]
# ### Exercise 1.2: how big is a basket?
#
# Return the number of distinct products on each invoice: a Series indexed by `invoice`, sorted by invoice.


# %%
def basket_sizes(receipts):
    """A Series: for each invoice, the number of distinct products."""
    ...


# %%
check("1.2", basket_sizes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def basket_sizes(receipts):
#     """A Series: for each invoice, the number of distinct products."""
#     return receipts.groupby("invoice")["code"].nunique()
# ```
#
# `size()` would count lines, and a product can stand on two lines of one receipt. A sum of `quantity` would count
# units.
#
# </details>

# %% [markdown]
# ### Exercise 1.3: which sale is undone?
#
# Here is one customer and one product: a list of quantities in time order, positive for a sale, negative for a
# cancellation. Return the sorted positions of the sales that are undone. A cancellation undoes the latest earlier sale
# of the same quantity that is not yet undone. Loops are fine.
#
# For `[6, 6, -6, 2]` the answer is `[1]`.


# %%
def undone_positions(quantities):
    """The sorted positions of the sales that a later cancellation undoes."""
    ...


# %%
check("1.3", undone_positions)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def undone_positions(quantities):
#     """The sorted positions of the sales that a later cancellation undoes."""
#     open_sales, result = {}, []
#     for position, quantity in enumerate(quantities):
#         if quantity > 0:
#             open_sales.setdefault(quantity, []).append(position)
#         elif open_sales.get(-quantity):
#             result.append(open_sales[-quantity].pop())
#     return sorted(result)
# ```
#
# A stack for each quantity. `pop()` takes the latest sale; `pop(0)` would take the first one.
#
# </details>

# %% [markdown]
# ### Exercise 1.4: the name it has now
#
# A shop that renames a product may prefer the *newest* name to the most frequent one. Return a dictionary from code to
# the description on its latest line. On a tie in time the later row wins. The receipts may come in any order.


# %%
def newest_names(receipts):
    """A dict: for each code, the description on its latest line."""
    ...


# %%
check("1.4", newest_names)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def newest_names(receipts):
#     """A dict: for each code, the description on its latest line."""
#     ordered = receipts.sort_values("date", kind="stable")
#     return ordered.groupby("code")["description"].last().to_dict()
# ```
#
# `kind="stable"` keeps rows of the same minute in the order of the file, so that the later row wins.
#
# </details>

# %% [markdown]
# ### Exercise 1.5: how much is bought again?
#
# Take each customer's baskets after the first one. Return the share of their products that the customer had in an
# earlier basket. A product counts once a basket. The receipts are clean: in time order, and each invoice is one basket.


# %%
def repeat_share(receipts):
    """A float between 0 and 1: among products in later baskets, the share bought before."""
    ...


# %%
check("1.5", repeat_share)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def repeat_share(receipts):
#     """A float between 0 and 1: among products in later baskets, the share bought before."""
#     products = receipts.drop_duplicates(["invoice", "code"])
#     first = products.groupby("customer")["invoice"].transform("first")
#     bought_before = products.duplicated(["customer", "code"])
#     return bought_before[products["invoice"] != first].mean()
# ```
#
# Count first baskets too, and the share falls: nothing in them can be a repeat. Skip the first `drop_duplicates`, and a
# product on two lines of one receipt counts as its own repeat.
#
# </details>

# %% [markdown]
# ### Exercise 1.6: give back a part
#
# A customer buys twelve, returns two, then three, then seven. Nothing is left, yet no single cancellation matches the
# sale, so it stays. Write a rule that takes out a sale whose units all came back, in whatever portions. How many lines
# does it take, and would you add it to the package? (Open-ended. On Online Retail it concerns a very small share of the
# lines. Decide what to do when a customer returns more than was ever bought.)

# %% [markdown]
# ## Summary
#
# - A file of receipts records what tills wrote, not what people wanted. Decide, line by line, what is a purchase.
# - Reading is where silent damage happens: numbers as floats, days as months, letters as nonsense. Refuse to guess.
# - A cancellation has two halves. Take out the sale too, or you teach the opposite of the truth.
# - Rules that pass on what they do not take add up by construction. Keep what you remove, with the reason.
# - You now have `receipts`, `baskets`, `catalogue` and `audit`, and every later chapter starts from
#   `workshop.cleaned()`.
#
# Next: [Chapter 2](02_baselines.ipynb) asks how good a recommendation is, and finds that a simple count is hard to
# beat.
#
# ## Further reading
#
# - D. Chen, S. L. Sain, K. Guo: [Data mining for the online retail industry](https://doi.org/10.1057/dbm.2012.17)
#   (2012). The shop behind Online Retail, and what its owners wanted to know.
# - D. Chen: [Online Retail](https://doi.org/10.24432/C5BW33), UCI Machine Learning Repository (2015). The log itself,
#   under CC BY.
# - H. Wickham: [Tidy data](https://doi.org/10.18637/jss.v059.i10) (2014). Why one row should be one observation.
# - N. Sambasivan and others: ["Everyone wants to do the model work, not the data
#   work"](https://doi.org/10.1145/3411764.3445518) (2021). What bad data costs later, in other people's words.
# - pandas: [working with missing data](https://pandas.pydata.org/docs/user_guide/missing_data.html). Why an integer
#   column turns into floats, and the type that does not.
