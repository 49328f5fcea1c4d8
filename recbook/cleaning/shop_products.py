"""The embedded shop's true catalogue: products with attributes, prices, and what completes or replaces what.

The words are in assortment.json; this module turns them into products. A *family* is one kind in one theme and
material; its members differ in colour and share the digits of their code (85123A, 85123B), as in the real log.
"""

import json
from importlib.resources import files

import numpy as np
import pandas as pd

LINKS = 8  # products, at most, that one product completes or replaces


def true_catalogue(rng: np.random.Generator) -> pd.DataFrame:
    """The true catalogue, indexed by `code`: what a product is, what it costs, what it completes and replaces.

    Columns: name, description, department, group, kind, material, colour, theme, occasion, season (texts, empty where
    nothing applies), price (pounds), and `completes`, `replaces` (lists of codes, nearest first).
    """
    words = json.loads(files("recbook.cleaning").joinpath("assortment.json").read_text(encoding="utf-8"))
    members = []
    for department in ("homeware", "clothing", "coffee"):
        members += _department(department, words[department], rng)
    table = pd.DataFrame(members).drop_duplicates("description").reset_index(drop=True)
    numbers = 20_000 + 7 * rng.permutation(10_000)[: table["family"].nunique()]
    digits = pd.Series(numbers, index=table["family"].unique())[table["family"]].to_numpy().astype(str)
    in_family = table.groupby("family").cumcount()
    alone = table.groupby("family")["family"].transform("size") == 1
    table["code"] = digits + np.where(alone, "", in_family.map(lambda position: "ABCDEFGH"[position]))
    table = table.drop(columns="family").set_index("code").sort_index()
    return table.assign(completes=_completes(table, words["complete"]), replaces=_replaces(table))


def _department(department: str, words: dict, rng: np.random.Generator) -> list[dict]:
    """Members of families drawn until the department has about its number of products."""
    members: list[dict] = []
    if department == "coffee":
        members = _beans(words, rng)
    seen: set[tuple] = set()
    while len(members) < words["products"]:
        kind = words["kinds"][rng.integers(len(words["kinds"]))]
        themes = words.get("group_themes", {}).get(kind[1], words["themes"])
        themes = words["winter_themes"] if kind[5] == "Christmas" else themes
        theme, material = themes[rng.integers(len(themes))], kind[2][rng.integers(len(kind[2]))]
        if (kind[0], theme, material) in seen:
            continue
        seen.add((kind[0], theme, material))
        colours = rng.permutation(words["colours"])[: 1 + rng.integers(4)]
        detail = kind[6][rng.integers(len(kind[6]))] if department == "clothing" else ""
        price = _shelf_price(kind[3] * (0.75 + 0.6 * rng.random()))
        for colour in colours:
            member = dict(
                department=department, group=kind[1], kind=kind[0], material=material, colour=str(colour), theme=theme
            )
            member |= dict(occasion=kind[4], season=kind[5], price=price)
            members.append(member | _texts(member, detail) | {"family": (department, kind[0], theme, material)})
    return members


def _texts(member: dict, detail: str) -> dict:
    """The short name and the description that stands on the receipt."""
    kind, colour, material, theme = (member[key] for key in ("kind", "colour", "material", "theme"))
    if member["department"] == "clothing":
        name = f"{kind} in {colour} {material}"
        return {"name": name, "description": f"{name}, {theme}, {detail}"}
    article, noun = kind.rsplit(" of ", 1) if " of " in kind else ("", kind)  # "set" of "party hats"
    adjectives = [colour] + [word for word in (theme, material) if word != "plain" and word not in noun]
    name = " ".join([f"{article} of"] * bool(article) + adjectives + [noun])
    named = not member["occasion"] or member["occasion"].rstrip("s") in name  # no "Christmas cards, for Christmas"
    return {"name": name, "description": name if named else f"{name}, for {member['occasion']}"}


def _beans(words: dict, rng: np.random.Generator) -> list[dict]:
    """Single-origin coffees: an origin in one or two roasts, each with two notes and up to three grinds."""
    members = []
    for origin in words["origins"]:
        for roast in rng.permutation(words["roasts"])[: 1 + rng.integers(2)]:
            first, second = rng.permutation(words["notes"][str(roast)])[:2]
            price = _shelf_price(7.0 + 5.0 * rng.random())
            joined = "decaf" if roast == "decaf" else f"{roast} roast"
            for grind in words["grinds"][: 1 + rng.integers(3)]:
                name = f"single-origin {origin}, {first} with {second}"
                members.append(
                    dict(
                        department="coffee", group="beans", kind=f"{joined} coffee", material=grind, colour="",
                        theme=origin, occasion="morning coffee", season="", price=price, name=name,
                        description=f"{name}, {joined}, {grind}", family=("coffee", origin, str(roast), ""),
                    )
                )  # fmt: skip
    return members


def _shelf_price(price: float) -> float:
    """A price as shops write it: 0.42, 1.25, 3.95, 12.95."""
    if price < 1:
        return float(
            np.array([0.29, 0.42, 0.55, 0.65, 0.85, 0.95])[np.searchsorted([0.35, 0.48, 0.6, 0.75, 0.9], price)]
        )
    if price < 3:
        return round(np.floor(price * 2.5) / 2.5 + 0.05, 2)
    return float(np.floor(price)) + (0.95 if price % 1 >= 0.5 else 0.5)


def _replaces(table: pd.DataFrame) -> list[list[str]]:
    """For each product those of its kind, most shared attributes first: a shopper buys one of them, not both."""
    return _most_alike(table, _equal(table["kind"]), ["theme", "material", "colour"])


def _completes(table: pd.DataFrame, sets: list[list[str]]) -> list[list[str]]:
    """For each product those of other kinds in the same set, most shared attributes first: one calls for the other."""
    member = np.array([table["kind"].isin(kinds) for kinds in sets], dtype=np.int32)  # (sets, products)
    return _most_alike(table, (member.T @ member > 0) & ~_equal(table["kind"]), ["theme", "colour", "material"])


def _most_alike(table: pd.DataFrame, allowed: np.ndarray, attributes: list[str]) -> list[list[str]]:
    """For each product up to LINKS allowed others: most shared attributes first, a like price next, then by code."""
    log_price = np.log(table["price"].to_numpy())
    alike = sum(_equal(table[attribute]).astype(float) for attribute in attributes)
    alike = alike + 0.5 * (np.abs(log_price[:, None] - log_price) < 1.5)  # (products, products)
    np.fill_diagonal(allowed, False)
    order = np.argsort(-np.where(allowed, alike, -1.0), axis=1, kind="stable")[:, :LINKS]
    codes = table.index.to_numpy()
    return [codes[row[allowed[product, row]]].tolist() for product, row in enumerate(order)]


def _equal(column: pd.Series) -> np.ndarray:
    """A matrix (products, products) of which pairs have the same value."""
    values = pd.factorize(column)[0]
    return values[:, None] == values
