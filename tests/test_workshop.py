"""Artifacts are whole, fit what made them, or are built again; the chapters' data follows RECBOOK_DATA."""

import json
import multiprocessing

import pytest

from recbook import receipts, shop, workshop


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    for name in ("RECBOOK_DATA", "RECBOOK_PRODUCT_CODE", "RECBOOK_DATE_FORMAT"):
        monkeypatch.delenv(name, raising=False)


def save(text, folder):
    (folder / "text.txt").write_text(text)


def load(folder):
    return (folder / "text.txt").read_text()


def make(made_of, content="hello", name="greeting"):
    built = []

    def build():
        built.append(1)
        return content

    return workshop.artifact(name, made_of, build, save, load), len(built)


def folders():
    return sorted(path.name for path in workshop.home().iterdir())


def test_built_once_then_loaded(capsys):
    assert make({"a": 1}) == ("hello", 1)
    assert "building" in capsys.readouterr().out
    assert make({"a": 1}, "not used") == ("hello", 0)
    assert "loaded from the cache" in capsys.readouterr().out


def test_made_of_something_else_is_built_again():
    make({"a": 1})
    assert make({"a": 2}, "other") == ("other", 1)
    assert make({"a": 1}) == ("hello", 0)  # and the first is still there


@pytest.mark.parametrize("damage", ["changed", "missing file", "missing manifest", "broken manifest"])
def test_damage_is_named_and_mended(damage, capsys):
    make({"a": 1})
    (folder,) = workshop.home().iterdir()
    if damage == "changed":
        (folder / "text.txt").write_text("hellp")
    elif damage == "missing file":
        (folder / "text.txt").unlink()
    elif damage == "missing manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text('{"files"')
    assert make({"a": 1}) == ("hello", 1)
    assert f"the kept copy {folder.name} is damaged" in capsys.readouterr().out
    assert make({"a": 1}) == ("hello", 0)


def test_a_failed_build_or_save_leaves_nothing(monkeypatch):
    def fail(*_):
        raise RuntimeError("no space")

    for build, keep in [(fail, save), (lambda: "x", fail)]:
        with pytest.raises(RuntimeError, match="no space"):
            workshop.artifact("greeting", {}, build, keep, load)
        assert not workshop.home().exists() or folders() == []


def test_the_manifest_says_what_it_was_made_of():
    make({"texts": "abc", "model": "minilm"})
    (folder,) = workshop.home().iterdir()
    assert json.loads((folder / "manifest.json").read_text())["made_of"] == {"texts": "abc", "model": "minilm"}


def _write(number):
    return workshop.artifact("greeting", {"a": 1}, lambda: "hello", save, load)


def test_writers_at_the_same_time_leave_one_whole_artifact():
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_write, range(12)) == ["hello"] * 12
    assert len(folders()) == 1
    assert make({"a": 1}) == ("hello", 0)


def test_chapters_run_on_the_embedded_shop_unless_told_otherwise(monkeypatch, tmp_path):
    assert workshop.embedded()
    fingerprint = receipts.fingerprint(workshop.cleaned().receipts)
    assert fingerprint == receipts.fingerprint(receipts.clean(shop.simulate(seed=workshop.SEED).receipts).receipts)
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
    with pytest.raises(receipts.ReceiptsError, match="RECBOOK_PRODUCT_CODE"):
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
