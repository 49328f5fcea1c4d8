"""The workshop: the chapters' data follow RECBOOK_DATA, and what they need from earlier chapters is built once."""

import re
from dataclasses import replace

import pandas as pd
import pytest
import torch

from recbook import storage
from recbook.baselines import evaluation
from recbook.book import workshop
from recbook.cleaning import receipts, schema, shop
from recbook.gpt.config import GPT_PRESETS
from recbook.lora import instructions, pretraining
from recbook.tokens.files import TokenWindows, read_tokens
from recbook.training.config import TrainingConfig


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    for name in ("RECBOOK_DATA", "RECBOOK_PRODUCT_CODE", "RECBOOK_DATE_FORMAT", "RECBOOK_SCALE"):
        monkeypatch.delenv(name, raising=False)


def test_chapters_run_on_the_embedded_shop_unless_told_otherwise(monkeypatch, tmp_path):
    assert workshop.embedded()
    fingerprint = schema.receipts_fingerprint(workshop.cleaned().receipts)
    assert fingerprint == schema.receipts_fingerprint(
        receipts.clean(shop.simulate(seed=workshop.SEED).receipts).receipts
    )
    path = tmp_path / "mine.csv"
    workshop.raw_receipts().head(300).to_csv(path, index=False)
    monkeypatch.setenv("RECBOOK_DATA", str(path))
    assert not workshop.embedded() and workshop.data_name() == str(path)
    assert len(workshop.raw_receipts()) == 300 and len(workshop.cleaned().receipts) < 300


def test_cleaned_receipts_are_kept_until_the_data_or_how_to_read_them_change(monkeypatch, tmp_path):
    shop_of_letters = workshop.raw_receipts().head(200).dropna(subset="CustomerID")
    shop_of_letters["StockCode"] = "SKU-" + shop_of_letters["StockCode"]
    dates = shop_of_letters["InvoiceDate"].dt.strftime("%d/%m/%Y %H:%M")
    shop_of_letters.assign(InvoiceDate=dates).to_csv(tmp_path / "mine.csv", index=False)
    embedded = workshop.cleaned()
    assert workshop.cleaned() is embedded
    monkeypatch.setenv("RECBOOK_DATA", str(tmp_path / "mine.csv"))
    monkeypatch.setenv("RECBOOK_DATE_FORMAT", "%d/%m/%Y %H:%M")
    with pytest.raises(schema.ReceiptsError, match="RECBOOK_PRODUCT_CODE"):
        workshop.cleaned()
    monkeypatch.setenv("RECBOOK_PRODUCT_CODE", r"SKU-.+")
    mine = workshop.cleaned().receipts
    assert mine["code"].str.startswith("SKU-").all()
    assert mine["date"].min() == shop_of_letters["InvoiceDate"][mine.index].min().floor("min")
    monkeypatch.setenv("RECBOOK_DATE_FORMAT", "%m/%d/%Y %H:%M")  # January 12th for December 1st
    assert workshop.cleaned().receipts["date"].min() != mine["date"].min()


def test_changing_the_raw_receipts_does_not_change_the_shop():
    del workshop.raw_receipts()["Country"]
    assert "Country" in workshop.raw_receipts()


# ---- the language model, in a shop and at a size that are small -----------------------------------------------------


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A few hundred lines, a model of two narrow layers, six steps."""
    raw = workshop.raw_receipts()
    raw[raw["CustomerID"].isin(raw["CustomerID"].dropna().unique()[:25])].to_csv(tmp_path / "mine.csv", index=False)
    monkeypatch.setenv("RECBOOK_DATA", str(tmp_path / "mine.csv"))
    monkeypatch.setitem(GPT_PRESETS, "laptop", dict(context=32, layers=2, heads=2, width=16))
    plan = dict(steps=6, batch=4, warmup=2, evaluate_every=2, save_every=1)
    monkeypatch.setitem(workshop.GPT_TRAINING, "laptop", plan)
    return plan


def built(capsys) -> set[str]:
    """What the workshop said it was building since the last call."""
    return {line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if line.endswith("building …")}


def test_a_model_learns_from_what_was_before_the_cut_and_is_judged_on_what_came_after(tiny):
    names, (learn, judge) = workshop.vocabulary(), workshop.token_files()
    cut = evaluation.default_cut(workshop.cleaned().receipts)
    known = workshop.known_receipts()
    assert known["date"].max() < cut and set(names.products) == set(known["code"])

    def days(ids):
        texts = names.decode(ids).split("<|end|>")
        return pd.to_datetime([re.match(r"<\|basket\|> ([^,]+),", t).group(1) for t in texts if t[:10] == "<|basket|>"])

    assert days(learn).max() < cut <= days(judge).min()
    later = workshop.cleaned().receipts.drop(known.index)
    assert len(days(learn)) == known["invoice"].nunique() and len(days(judge)) == later["invoice"].nunique()
    kinds = pd.Series(names.decode(learn).split("<|end|>")[:-1]).str.extract(r"^<\|(\w+)\|>")[0].value_counts()
    assert (
        kinds["product"] == workshop.CARDS * known["code"].nunique() and kinds["shopper"] >= known["customer"].nunique()
    )
    assert "<|product|>" not in names.decode(judge) and "<|shopper|>" not in names.decode(judge)


def test_the_language_model_is_built_once_and_again_when_it_should_be_another(tiny, capsys, monkeypatch):
    model, metrics = workshop.language_model()
    assert built(capsys) == {"vocabulary", "token files", "language model"}
    assert [line["step"] for line in metrics] == [2, 4, 6] and not model.training
    assert all(line["validation_loss"] > 0 for line in metrics)
    again, same = workshop.language_model()
    assert built(capsys) == set() and same == metrics
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not list(storage.home().glob("training-*[!k]"))  # the run's own checkpoints are gone, its lock may stay
    monkeypatch.setitem(tiny, "steps", 8)
    other, metrics = workshop.language_model()
    assert built(capsys) == {"language model"} and metrics[-1]["step"] == 8


def test_a_model_whose_training_was_cut_off_goes_on_and_ends_the_same(tiny, monkeypatch, tmp_path):
    whole, _ = workshop.language_model()
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "other"))
    batch, seen = TokenWindows.batch, []

    def fails_at_step_three(self, step, size, seed=0):
        seen.append(step)
        if seen == [0, 1, 2, 3]:
            raise KeyboardInterrupt
        return batch(self, step, size, seed)

    monkeypatch.setattr(TokenWindows, "batch", fails_at_step_three)
    with pytest.raises(KeyboardInterrupt):
        workshop.language_model()
    resumed, metrics = workshop.language_model()
    assert seen == [0, 1, 2, 3, 3, 4, 5] and [line["step"] for line in metrics] == [2, 4, 6]
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# ---- what Part III asks for, and the narrator -----------------------------------------------------------------------


def test_goods_of_the_embedded_shop_are_by_its_truth():
    known, truth = workshop.known_receipts(), workshop.the_shop().products
    table = workshop.goods()
    assert set(table.index) == set(known["code"]) < set(truth.index)  # of what was sold before the cut
    assert (table["occasion"] == truth["occasion"][table.index]).all()
    told = instructions.goods_table(known)["occasion"]
    assert (told != table["occasion"]).mean() > 0.2  # which the descriptions alone do not tell


def test_goods_of_another_shop_are_by_their_descriptions(tiny, monkeypatch):
    monkeypatch.setattr(workshop, "the_shop", lambda: pytest.fail("another shop's truth is not known"))
    table, known = workshop.goods(), workshop.known_receipts()
    assert len(table) and set(table.index) == set(known["code"])
    pd.testing.assert_frame_equal(table, instructions.goods_table(known))


@pytest.fixture
def small_corpus(tiny, monkeypatch):
    """An assistant of the tiny shop: six steps on ten lists and five fragments."""
    plan = dict(steps=6, batch=4, warmup=2, evaluate_every=3, save_every=3)
    for name, value in dict(
        ASSISTANT_BASE=plan, ASSISTANT_LISTS=10, ASSISTANT_FRAGMENTS=5, ASSISTANT_CARDS=2, ANSWER_POSITIONS=48
    ).items():
        monkeypatch.setattr(workshop, name, value)
    return plan


def test_the_assistant_is_built_once_and_again_when_it_should_be_another(small_corpus, capsys, monkeypatch):
    model, metrics = workshop.assistant_base()
    assert built(capsys) == {"vocabulary", "assistant's reading", "assistant base"}
    assert [line["step"] for line in metrics] == [3, 6] and not model.training
    assert model.config.context == 48 and model.config.width == GPT_PRESETS["laptop"]["width"]
    again, same = workshop.assistant_base()
    assert built(capsys) == set() and same == metrics
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert not list(storage.home().glob("training-*[!k]"))
    monkeypatch.setitem(small_corpus, "steps", 3)
    assert workshop.assistant_base()[1][-1]["step"] == 3
    assert built(capsys) == {"assistant base"}  # the same corpus, fewer steps
    monkeypatch.setattr(workshop, "ASSISTANT_LISTS", 11)
    workshop.assistant_base()
    assert built(capsys) == {"assistant's reading", "assistant base"}
    monkeypatch.setattr(workshop, "_code", lambda function: "of other code")
    workshop.assistant_base()
    assert "assistant's reading" in built(capsys)


def test_a_model_of_more_positions_than_answers_take_keeps_them(small_corpus, monkeypatch):
    monkeypatch.setattr(workshop, "ANSWER_POSITIONS", 16)
    assert workshop.assistant_base()[0].config.context == 32 == workshop.language_model()[0].config.context


def test_the_assistants_corpus(small_corpus, monkeypatch):
    """Cards, narratives, lists and fragments, and no basket; products held out are in lists, but in no fragment."""
    asked, seen = {}, {name: getattr(pretraining, name) for name in ("copy_task_lists", "answer_fragments")}
    for name, write in seen.items():
        monkeypatch.setattr(
            pretraining, name, lambda table, *rest, n=name, w=write: asked.update({n: table}) or w(table, *rest)
        )
    workshop.assistant_base()
    [path] = storage.home().rglob("assistant.tokens")
    names, known = workshop.vocabulary(), workshop.known_receipts()
    documents = names.decode(read_tokens(path, names)).split("<|end|>")[:-1]
    kinds = pd.Series(documents).str.extract(r"^<\|(\w+)\|>")[0]
    codes = known["code"].nunique()
    lists = [document for document in documents if "<|answer|>" in document]
    assert (kinds == "product").sum() == 2 * codes + len(lists) and len(lists) == 10
    assert (kinds == "request").sum() == 5 and kinds.isna().sum() == 10  # of each request two fragments
    assert (kinds == "shopper").sum() >= known["customer"].nunique() and "basket" not in set(kinds)
    assert not [document for document in lists if "<|request|>" in document]
    pd.testing.assert_frame_equal(asked["copy_task_lists"], workshop.goods())
    learned, held = instructions.split_goods(workshop.goods(), workshop.HELD_OUT, workshop.SEED)
    assert (
        set(asked["answer_fragments"].index) == set(learned.index)
        and len(held)
        and not set(held.index) & set(learned.index)
    )


def test_an_unknown_scale_is_refused(monkeypatch):
    monkeypatch.setenv("RECBOOK_SCALE", "huge")
    with pytest.raises(ValueError, match="RECBOOK_SCALE is 'huge'; the scales are laptop, colab, full"):
        workshop.model_scale()


def test_every_scale_has_a_shape_a_plan_and_rates():
    scales = set(GPT_PRESETS)
    assert set(workshop.GPT_TRAINING) == set(workshop.WITH_MUON) == set(workshop.WITHOUT_MUON) == scales
    for scale in scales:
        for rates in (workshop.WITH_MUON[scale], {"learning_rate": workshop.WITHOUT_MUON[scale]}):
            TrainingConfig(**workshop.GPT_TRAINING[scale], **rates)
    TrainingConfig(**workshop.ASSISTANT_BASE, **workshop.WITH_MUON["laptop"])


def test_the_student_is_taught_once_and_loaded(monkeypatch, capsys):
    from recbook.baskets.model import BasketGPT
    from recbook.distillation import student as distilled_student
    from recbook.distillation.student import STUDENT_CONFIG
    from recbook.system import build as build_stages
    from recbook.system.build import RecommenderConfig

    hardly = RecommenderConfig.tiny()
    monkeypatch.setattr(build_stages, "RecommenderConfig", lambda: hardly)
    monkeypatch.setattr(distilled_student, "STUDENT_CONFIG", replace(STUDENT_CONFIG, epochs=0.05))
    split = evaluation.snapshot(workshop.cleaned().receipts, evaluation.default_cut(workshop.cleaned().receipts))
    model = BasketGPT.fit(split.receipts, hardly.baskets, progress=False)
    monkeypatch.setattr(workshop, "basket_gpt", lambda split: model)
    first = workshop.student(split)
    assert "student: built" in capsys.readouterr().out
    again = workshop.student(split)
    assert "student: loaded from the cache" in capsys.readouterr().out
    asked = [[split.codes[0]]], [[split.codes[3], split.codes[9]]]
    assert (first.score(asked) == again.score(asked)).all() and first.settings.width == STUDENT_CONFIG.width


def test_the_recommender_is_built_once_and_loaded(small_shop, monkeypatch, capsys):
    from recbook.system.recommender import Recommender

    built = []

    def build(raw, settings, product_code):
        built.append(len(raw))
        return small_shop

    monkeypatch.setattr(Recommender, "build", build)
    customer = small_shop.customers[0]
    for _ in range(2):
        shop_now = workshop.recommender()
        pd.testing.assert_frame_equal(shop_now.recommend(customer, k=3), small_shop.recommend(customer, k=3))
    assert built == [len(workshop.raw_receipts())] and "recommender: loaded from the cache" in capsys.readouterr().out
