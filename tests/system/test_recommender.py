"""The recommender: every stage, every way to ask, every wrong argument; on disk whole or not at all."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook import storage
from recbook.baselines import evaluation
from recbook.cleaning import receipts as rc
from recbook.narratives.fact_store import GUEST, NEW_FOR
from recbook.system.build import RecommenderConfig
from recbook.system.files import RECOMMENDER_KIND, check_recommender_place
from recbook.system.recommender import Recommender

DRAGON = pd.DataFrame({"description": ["sage green dragon teapot"], "price": [12.5]}, index=["99999Z"])

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def customer(small_shop) -> int:
    """A customer with a history of medium length."""
    return sorted(small_shop.customers, key=lambda who: len(small_shop.fact_store.bought(who)))[-60]


@pytest.fixture
def kept(small_shop, tmp_path):
    small_shop.save(tmp_path / "shop")
    return tmp_path / "shop"


def test_a_customer_gets_products_with_true_reasons(small_shop, customer):
    table = small_shop.recommend(customer, k=7)
    assert list(table.columns) == ["code", "description", "price", "score", "channel", "why"] and len(table) == 7
    assert table["code"].is_unique and table["score"].is_monotonic_decreasing and (table["price"] > 0).all()
    listed = small_shop.catalogue.loc[table["code"]]
    assert listed["description"].tolist() == table["description"].tolist()
    bought = small_shop.fact_store.bought(customer)
    reasons = small_shop.two_stage.reasons(small_shop.shopper(customer), table["code"].tolist())
    assert any(reasons)
    for code, why, reason in zip(table["code"], table["why"], reasons, strict=True):
        facts = small_shop.fact_store.facts(customer, code, reason)
        assert [purchase.code for purchase in facts.purchases] == reason[:1] and set(reason) <= set(bought)
        assert all(purchase.name in why for purchase in facts.purchases) and not small_shop.checker.false(why, facts)


def test_the_same_question_has_the_same_answer_with_and_without_reasons(small_shop, customer):
    first = small_shop.recommend(customer, query="a mug", k=3)
    pd.testing.assert_frame_equal(small_shop.recommend(customer, query="a mug", k=3), first)
    plain = small_shop.recommend(customer, query="a mug", k=3, explain=False)
    pd.testing.assert_frame_equal(plain, first.drop(columns="why"))


def test_a_typed_history_gets_what_its_customer_gets(small_shop, customer):
    typed = [(str(date), codes) for date, codes in small_shop.fact_store.history(customer)]
    theirs, mine = (small_shop.recommend(explain=False, k=10, **asked) for asked in
                    ({"customer": customer}, {"history": typed}))  # fmt: skip
    pd.testing.assert_frame_equal(theirs, mine)


def test_products_bought_today_are_not_recommended(small_shop):
    texts = small_shop.catalogue["description"].iloc[[3, 40]].tolist()
    table = small_shop.recommend(history=texts, k=400, explain=False)
    assert not set(table["description"]) & set(texts)
    more = small_shop.add(DRAGON)
    assert "99999Z" not in set(more.recommend(history=["99999Z", texts[0]], k=900, explain=False)["code"])


def test_baskets_after_the_moment_need_a_later_time_of_asking(small_shop):
    code, later = small_shop.catalogue.index[3], small_shop.moment + pd.Timedelta(days=9)
    asked = {"history": [(f"{later:%Y-%m-%d} 14:00Z", [code])], "explain": False, "k": 400}
    assert code not in set(small_shop.recommend(when=later, **asked)["code"])
    with pytest.raises(ValueError, match="none later than"):
        small_shop.recommend(**asked)
    tomorrow = [(small_shop.moment.normalize() + pd.Timedelta(days=1), [code])]
    with pytest.raises(ValueError, match=f"none later than the day of asking, {small_shop.moment:%Y-%m-%d}"):
        small_shop.recommend(history=tomorrow, explain=False)
    with pytest.raises(ValueError, match="known as of"):
        small_shop.recommend(when="2001-01-01")


def test_a_guest_is_not_counted_among_the_buyers(small_shop, customer):
    code, *others = small_shop.fact_store.bought(customer)[:30]
    guest = small_shop.fact_store.guest([(small_shop.moment, others)])
    lines = small_shop.receipts.drop_duplicates(["customer", "code"])
    both = {other: len(set(lines.customer[lines.code == code]) & set(lines.customer[lines.code == other]))
            for other in others}  # fmt: skip
    for co_purchase in guest.facts(GUEST, code).co_purchases:
        assert co_purchase.shoppers == both[co_purchase.code]
    assert GUEST in guest and GUEST not in small_shop.fact_store


def test_an_unknown_shopper_gets_what_sells_now_in_the_country(small_shop):
    table = small_shop.recommend(country="France", k=8)
    assert set(table["channel"]) == {"popular lately"} and table["why"].str.len().min() > 0
    assert (
        table["code"].tolist()
        == small_shop.recommend(history=[], country="France", k=8, explain=False)["code"].tolist()
    )


def test_excluded_expensive_and_bought_products_are_left_out(small_shop, customer):
    usual = small_shop.recommend(customer, k=200, explain=False)
    dear = float(usual["price"].median())
    named = usual["description"][0]
    table = small_shop.recommend(customer, k=200, explain=False, price_max=dear, exclude=["red", named], new=True)
    assert (table["price"] <= dear).all() and named not in set(table["description"])
    assert (
        not table["description"].str.contains(r"\bred\b").any() and usual["description"].str.contains(r"\bred\b").any()
    )
    assert not set(table["code"]) & set(small_shop.fact_store.bought(customer))
    assert set(usual["code"]) & set(small_shop.fact_store.bought(customer))


def test_fast_is_the_student_alone(small_shop, customer):
    table = small_shop.recommend(customer, k=6, fast=True)
    asked = small_shop.shopper(customer)
    expected = small_shop.two_stage.student.recommend(asked.history, 6, asked.when)
    assert table["code"].tolist() == expected["code"].tolist() and set(table["channel"]) == {"student"}
    assert np.allclose(np.exp(table["score"]), expected["score"], rtol=1e-4) and table["why"].str.len().min() > 0


def test_a_query_finds_what_it_names(small_shop, customer):
    table = small_shop.recommend(customer, query="teapot", k=3, explain=False)
    assert table["description"].str.contains("teapot").all() and set(table["channel"]) == {"text query"}


def test_a_new_product_can_be_recommended_at_once(small_shop, customer):
    more = small_shop.add(DRAGON)
    assert "99999Z" in more.catalogue.index and "99999Z" not in small_shop.catalogue.index
    table = more.recommend(customer, query="a dragon teapot", k=5).set_index("code")
    assert "dragon teapot" in table.loc["99999Z", "why"] and table.loc["99999Z", "price"] == 12.5
    reasons = dict(zip(table.index, more.two_stage.reasons(more.shopper(customer), table.index), strict=True))["99999Z"]
    assert not more.checker.false(table.loc["99999Z", "why"], more.fact_store.facts(customer, "99999Z", reasons))
    with pytest.raises(ValueError, match="99999Z is there already"):
        more.add(DRAGON)
    small = DRAGON.rename(index=lambda code: small_shop.catalogue.index[0].lower())
    with pytest.raises(ValueError, match="is there already"):
        small_shop.add(small)
    for wrong in ({"price": float("nan")}, {"price": "free"}, {"price": np.inf}, {"price": 0}, {"description": None},
                  {"description": "???"}, {"description": "long " * 30}):  # fmt: skip
        with pytest.raises(ValueError, match="99999Z needs a description of words"):
            small_shop.add(DRAGON.assign(**wrong))
    assert small_shop.add(DRAGON.assign(price="4.5")).catalogue.loc["99999Z", "price"] == 4.5


def test_adding_products_gives_what_a_rebuild_gives__and_keeps_the_two_stages(small_shop, customer):
    two_stage, kettle = small_shop.two_stage, DRAGON.assign(description="red kettle").set_axis(["99998Z"])
    parts = two_stage.model, two_stage.ranker, two_stage.student, small_shop.narrator
    checker = small_shop.checker  # made before, of fewer products
    more = small_shop.add(DRAGON).add(kettle)
    rebuilt = Recommender(small_shop.receipts, *parts, more.vectors, small_shop.settings, more.unsold)
    assert more.two_stage.features is two_stage.features and more.two_stage.snapshot is two_stage.snapshot
    assert more.checker is not checker and small_shop.checker is checker
    pd.testing.assert_frame_equal(more.catalogue, rebuilt.catalogue)
    assert more.checker.lexicon.stems == rebuilt.checker.lexicon.stems
    for who in (customer, None):
        for asked in ({"query": "a red teapot"}, {"exclude": ["dragon"]}, {"new": True, "k": 900}):
            tables = [shop.recommend(who, **asked, explain=False) for shop in (more, rebuilt)]
            pd.testing.assert_frame_equal(*tables)
    explained = [shop.recommend(customer, query="dragon teapot", k=1) for shop in (more, rebuilt)]
    pd.testing.assert_frame_equal(*explained)


@pytest.mark.parametrize("asked", [{"price_max": 0.001}, {"price_max": 0.001, "query": "a mug"}, {"exclude": "every"}])
def test_where_nothing_is_left_the_table_is_empty(small_shop, customer, asked):
    if asked == {"exclude": "every"}:
        asked = {"exclude": small_shop.catalogue.index.tolist()}
    columns = ["code", "description", "price", "score", "channel"]
    for explain, expected in ((True, [*columns, "why"]), (False, columns)):
        table = small_shop.recommend(customer, explain=explain, **asked)
        assert table.empty and list(table.columns) == expected


def test_recent_products_with_few_buyers_count_as_new(small_shop):
    receipts = small_shop.receipts
    first, buyers = receipts.groupby("code")["date"].min(), receipts.groupby("code")["customer"].nunique()
    rare = buyers.index[buyers < small_shop.settings.min_shoppers]
    fresh = [code for code in rare if first[code] >= small_shop.moment - NEW_FOR]
    assert small_shop.two_stage.codes[small_shop.two_stage.known :].tolist() == fresh
    one = (
        receipts[receipts["code"] == small_shop.catalogue.index[0]]
        .iloc[:1]
        .assign(code="12345", description="RED KETTLE", date=receipts["date"].max())
    )
    two_stage = small_shop.two_stage
    parts = two_stage.model, two_stage.ranker, two_stage.student, small_shop.narrator
    vectors = pd.concat([small_shop.vectors, small_shop.vectors.iloc[:1].set_axis(["12345"])])
    more = Recommender(pd.concat([receipts, one]), *parts, vectors)
    assert "12345" in more.catalogue.index and more.catalogue.loc["12345", "description"] == "RED KETTLE"


def test_excluding_a_name_excludes_all_with_its_words_and_a_code_only_one(small_shop):
    more = small_shop.add(DRAGON.assign(description="teapot"))
    pots = more.catalogue.index[more.catalogue["description"].str.contains("teapot")]
    assert len(pots) > 2 and not set(more.recommend(k=900, exclude=["teapot"], explain=False)["code"]) & set(pots)
    assert set(pots) - set(more.recommend(k=900, exclude=[pots[0]], explain=False)["code"]) == {pots[0]}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"customer": 1}, "customer 1 bought nothing"),
        ({"customer": 1, "history": []}, "not both"),
        ({"history": ["NO SUCH THING"]}, "'NO SUCH THING'"),
        ({"history": [["{0}"], ["{1}"]]}, "need their dates"),
        ({"history": [("2031-01-01", ["{0}"])]}, "none later than"),
        ({"history": [("2011-05-01", ["{0}"]), ("2011-04-01", ["{1}"])]}, "oldest first"),
        ({"exclude": ["xyzzy"]}, "no product has the word"),
        ({"price_max": 0.0}, "above zero"),
        ({"price_max": float("nan")}, "above zero"),
        ({"k": 0}, "one product or more"),
        ({"query": " "}, "type something"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_named(small_shop, asked, said):
    codes = small_shop.catalogue.index[:2].tolist()
    filled = {"{0}": codes[0], "{1}": codes[1]}

    def fill(value):
        if isinstance(value, list | tuple):
            return type(value)(fill(each) for each in value)
        return filled.get(value, value) if isinstance(value, str) else value

    with pytest.raises(ValueError, match=said):
        small_shop.recommend(**{name: fill(value) for name, value in asked.items()})


def test_saved_and_loaded_it_recommends_the_same(small_shop, kept, customer):
    loaded = Recommender.load(kept)
    pd.testing.assert_frame_equal(loaded.recommend(customer), small_shop.recommend(customer))
    assert loaded.settings == small_shop.settings and loaded.moment == small_shop.moment
    assert not [path for path in kept.rglob("*") if path.suffix in (".pkl", ".pt", ".pickle")]
    loaded.add(DRAGON).save(kept)
    assert "99999Z" in Recommender.load(kept).catalogue.index
    assert [path.name for path in kept.parent.iterdir()] == ["shop"]


@pytest.mark.parametrize("name", ["receipts.parquet", "baskets/model.safetensors", "ranker/trees-0.txt", "vectors.npy"])
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_damage_is_named(kept, name, harm):
    path = kept / name
    path.write_bytes(path.read_bytes()[:-3] + b"xyz") if harm == "changed" else path.unlink()
    with pytest.raises(ValueError, match=path.name.replace(".", r"\.")):
        Recommender.load(kept)


def test_other_folders_are_neither_loaded_nor_overwritten(small_shop, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"manifest\.json"):
        Recommender.load(tmp_path)
    with pytest.raises(ValueError, match="nothing is overwritten"):
        small_shop.save(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    storage.save_folder(tmp_path / "other", "something else", lambda folder: (folder / "a.txt").write_text("a"))
    with pytest.raises(ValueError, match="nothing is overwritten"):
        check_recommender_place(tmp_path / "other")
    with pytest.raises(ValueError, match="holds a something else, and no recommender"):
        Recommender.load(tmp_path / "other")
    small_shop.save(tmp_path / "shop")
    (tmp_path / "shop" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        small_shop.save(tmp_path / "shop")
    (tmp_path / "empty").mkdir()
    assert check_recommender_place(tmp_path / "empty") == tmp_path / "empty"


@pytest.mark.parametrize("lost", ["settings", "encoder", "receipts"])
def test_a_manifest_of_another_version_is_named(kept, lost):
    made_of = storage.manifest(kept)["made_of"]
    del made_of[lost]
    storage.seal(kept, RECOMMENDER_KIND, made_of)
    with pytest.raises(ValueError, match="build it anew"):
        Recommender.load(kept)


def test_it_is_its_owners_alone(kept):
    assert not [path for path in (kept, *kept.rglob("*")) if path.stat().st_mode & 0o077]


def test_a_link_is_followed(small_shop, kept, tmp_path):
    (tmp_path / "link").symlink_to(kept)
    small_shop.add(DRAGON).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and "99999Z" in Recommender.load(kept).catalogue.index


def test_a_save_that_fails_leaves_the_old_one(small_shop, kept, monkeypatch):
    monkeypatch.setattr(small_shop.narrator, "save", lambda folder: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        small_shop.save(kept)
    assert Recommender.load(kept).customers == small_shop.customers
    assert [path.name for path in kept.parent.iterdir()] == ["shop"]


def test_receipts_without_returning_customers_are_refused(shop):
    raw = shop.receipts
    once = raw[raw["CustomerID"].map(raw.groupby("CustomerID")["InvoiceNo"].nunique()) == 1]
    with pytest.raises(ValueError, match=r"came back|next basket|product had"):
        Recommender.build(once, RecommenderConfig.tiny(), say=None)


def test_the_catalogue_has_products_with_enough_buyers_and_the_moment_is_the_day_after(small_shop, clean_receipts):
    assert small_shop.moment == clean_receipts["date"].max().normalize() + pd.Timedelta(days=1)
    split = evaluation.snapshot(clean_receipts, small_shop.moment)
    assert small_shop.catalogue.index[: len(split.codes)].tolist() == split.codes.tolist()
    assert np.allclose(
        small_shop.catalogue["price"][split.codes], rc.catalogue(clean_receipts)["price"].loc[split.codes].round(2)
    )
    assert list(small_shop.seconds) and min(small_shop.seconds.values()) >= 0
