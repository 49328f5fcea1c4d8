"""The narrator: what it writes is true however little it learned; saved and loaded it writes the same."""

import pytest

torch = pytest.importorskip("torch")

from recbook import storage
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.narratives.fact_store import FactSubset, draw_facts
from recbook.narratives.narrator import NARRATOR_KIND, NARRATOR_MODEL, REFERENCE_PRODUCTS, Narrator, NarratorConfig
from recbook.training import checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def facts(small_shop):
    everything = FactSubset(small_shop.customers, small_shop.fact_store.table.index.tolist())
    return draw_facts(small_shop.fact_store, everything, 6, seed=3)


def test_narratives_are_true_and_name_product_and_price(small_shop, facts):
    for told, each in zip(small_shop.narrator.tell(facts, small_shop.checker), facts, strict=True):
        assert each.name in told.text and f"{each.price:.2f}" in told.text
        assert not small_shop.checker.false(told.text, each)


def test_saved_and_loaded_it_writes_the_same(small_shop, facts, tmp_path):
    small_shop.narrator.save(tmp_path)
    again = Narrator.load(tmp_path)
    assert again.tell(facts, small_shop.checker, seed=5) == small_shop.narrator.tell(facts, small_shop.checker, seed=5)
    assert again.style == "warm" and again.vocabulary == small_shop.narrator.vocabulary


def test_it_is_loaded_on_the_device_asked_for_and_saved_from_there(small_shop, elsewhere, tmp_path):
    small_shop.narrator.save(tmp_path / "here")
    moved = Narrator.load(tmp_path / "here", elsewhere)
    moved.save(tmp_path / "there")
    back = Narrator.load(tmp_path / "there", "cpu")
    assert (moved.model.device, back.model.device) == (elsewhere, torch.device("cpu"))
    for mine, theirs in zip(small_shop.narrator.model.parameters(), back.model.parameters(), strict=True):
        assert torch.equal(mine.cpu(), theirs)


def test_the_adapter_is_merged_and_every_product_has_a_token(small_shop):
    narrator = small_shop.narrator
    assert not [name for name in narrator.model.state_dict() if "A." in name or "lora" in name]
    assert set(narrator.vocabulary.product) == set(small_shop.fact_store.table.index)


def test_a_larger_catalogue_takes_more_prompts_and_steps(small_shop):
    tiny = NarratorConfig(prompts=5, steps=7)
    sizes = {n: (tiny.for_catalogue(n).prompts, tiny.for_catalogue(n).steps) for n in (1, REFERENCE_PRODUCTS, 2700)}
    assert sizes == {1: (5, 7), REFERENCE_PRODUCTS: (5, 7), 2700: (15, 21)}

    class Asked(Exception):
        pass

    class Config(NarratorConfig):
        def for_catalogue(self, products):
            raise Asked(products)

    with pytest.raises(Asked, match=str(len(small_shop.fact_store.table))):
        Narrator.fit(small_shop.receipts, small_shop.fact_store, Config(), progress=False)


def test_a_folder_without_a_whole_narrator_is_refused(small_shop, tmp_path):
    with pytest.raises(ValueError, match="does not hold a narrator"):
        Narrator.load(tmp_path)
    small_shop.narrator.save(tmp_path)
    storage.seal(tmp_path, NARRATOR_KIND, {"style": "shouting"})
    with pytest.raises(ValueError, match="different narrators"):
        Narrator.load(tmp_path)
    small_shop.narrator.save(tmp_path)
    checkpoints.save_gpt(GPT(GPTConfig(40, 16, 1, 2, 8)), tmp_path / NARRATOR_MODEL)
    with pytest.raises(storage.Damaged, match=NARRATOR_MODEL):
        Narrator.load(tmp_path)
    storage.seal(tmp_path, NARRATOR_KIND, {"style": "warm"})
    with pytest.raises(ValueError, match="different narrators"):
        Narrator.load(tmp_path)
    with pytest.raises(ValueError, match="no style 'shouting'"):
        NarratorConfig(style="shouting")
