"""Pre-training: the corpus of the narrator's base, and that the base is built once, for a tiny shop."""

import numpy as np
import pandas as pd
import pytest

from recbook import storage
from recbook.book import workshop
from recbook.gpt.config import GPT_PRESETS
from recbook.narratives import pretraining
from recbook.narratives.templates import NARRATIVE_STYLES, document_text, expand_choices, sentence_templates
from recbook.tokens.documents import Control
from recbook.tokens.files import read_tokens


def test_invented_facts_are_about_real_products_and_differ_every_time(fact_store):
    rng = np.random.default_rng(0)
    made = [pretraining.invented_facts(fact_store, rng) for _ in range(200)]
    assert all(fact_store.names[facts.code] == facts.name for facts in made)
    assert all(facts.code != facts.purchases[0].code for facts in made)
    prices = pd.Series([facts.price for facts in made])
    true = pd.Series([fact_store.table.loc[facts.code, "price"] for facts in made])
    assert abs(np.corrcoef(prices, true)[0, 1]) < 0.2 and prices.nunique() > 150  # nothing to memorize
    assert all(date < facts.moment for facts in made for date in facts.purchases[0].dates)


def test_the_base_reads_every_template(fact_store):
    """An adapter cannot write a word that the base never read."""
    texts = [document_text(document) for document in pretraining.single_sentences(fact_store, 3000, seed=0)]
    heads = {text.split()[0] for text in texts}
    templates = [each for style in NARRATIVE_STYLES for kind in sentence_templates()[style].values() for each in kind]
    first = {way.split()[0] for each in templates for way in expand_choices(each) if not way.startswith("{")}
    assert {word for word in first if not any(mark in word for mark in "{:")} <= heads


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A few hundred lines, a model of one narrow layer, four steps on ten prompts and five sentences."""
    raw = workshop.raw_receipts()
    raw[raw["CustomerID"].isin(raw["CustomerID"].dropna().unique()[:25])].to_csv(tmp_path / "mine.csv", index=False)
    monkeypatch.setenv("RECBOOK_DATA", str(tmp_path / "mine.csv"))
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(GPT_PRESETS, "laptop", dict(context=32, layers=1, heads=2, width=16))
    plan = dict(steps=4, batch=4, warmup=2, evaluate_every=2, save_every=2)
    for name, value in dict(
        NARRATOR_BASE=plan, NARRATOR_PROMPTS=10, NARRATOR_SENTENCES=5, NARRATOR_CARDS=2, ANSWER_POSITIONS=48
    ).items():
        monkeypatch.setattr(workshop, name, value)


def test_the_base_is_built_once_from_its_corpus(tiny, capsys):
    model, metrics = workshop.narrator_base()
    assert [line["step"] for line in metrics] == [2, 4] and not model.training and model.config.context == 48
    capsys.readouterr()
    assert workshop.narrator_base()[1] == metrics
    assert "building" not in capsys.readouterr().out
    [path] = storage.home().rglob("narrator.tokens")
    names, codes = workshop.vocabulary(), workshop.known_receipts()["code"].nunique()
    documents = names.decode(read_tokens(path, names)).split("<|end|>")[:-1]
    prompts = [document for document in documents if "<|answer|>" in document]
    assert len(documents) == 2 * codes + 10 + 5 and len(prompts) == 10
    assert all(document.startswith("<|shopper|>") for document in prompts)


def test_the_copy_task_repeats_all_that_the_prompt_says(fact_store):
    for document in pretraining.copy_task_prompts(fact_store, 20, seed=1):
        place = document.index(Control("<|answer|>"))
        prompt = "".join(part for part in document[:place] if isinstance(part, str))
        copied = [part for part in document[place:] if isinstance(part, str)]
        assert prompt.count(",") + prompt.count(";") == len(copied)
