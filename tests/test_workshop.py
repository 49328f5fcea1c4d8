"""The chapters' data follows RECBOOK_DATA, and what they need of earlier ones is made once."""

import pytest

from recbook import receipts, shop, workshop


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path / "home"))
    for name in ("RECBOOK_DATA", "RECBOOK_PRODUCT_CODE", "RECBOOK_DATE_FORMAT"):
        monkeypatch.delenv(name, raising=False)


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
