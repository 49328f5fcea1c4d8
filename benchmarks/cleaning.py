"""What is left of a real shop's receipts after cleaning, and how long does that take on one core?

    python benchmarks/cleaning.py [--data data.csv.gz]

prints the audit and facts of the clean receipts and writes results/cleaning.json. `--data` takes what `RECBOOK_DATA`
takes: a path, or `online-retail` (the default), which is downloaded once. Seconds are processor time, the median of
three runs.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from recbook.baselines.results import describe_data, save_results
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts


def facts(raw: pd.DataFrame, cleaned: receipts.Cleaned) -> dict[str, float]:
    """What the chapter's table shows of a file of receipts; shares are between 0 and 1."""
    clean = cleaned.receipts
    sizes = clean.groupby("invoice")["code"].nunique()
    visits = clean.groupby("customer")["invoice"].nunique()
    cancellations = raw[raw["CustomerID"].notna() & raw["InvoiceNo"].str.startswith("C")].drop_duplicates()
    undone = (cleaned.removed["rule"] == "sale later cancelled").sum()
    return {
        "lines in the file": len(raw),
        "share without a customer": raw["CustomerID"].isna().mean(),
        "lines kept": len(clean),
        "share kept": len(clean) / len(raw),
        "invoices": clean["invoice"].nunique(),
        "products": clean["code"].nunique(),
        "customers": clean["customer"].nunique(),
        "median products a basket": sizes.median(),
        "baskets with one product, share": (sizes == 1).mean(),
        "mean products a basket": sizes.mean(),
        "customers with one invoice, share": (visits == 1).mean(),
        "cancellations matched to a sale, share": undone / max(len(cancellations), 1),
        "repeat purchases, share": repeat_share(clean),
    }


def repeat_share(clean: pd.DataFrame) -> float:
    """Of the products in baskets after a customer's first, the share that the customer had bought before."""
    bought = clean.drop_duplicates(["invoice", "code"])
    first_invoice = bought.groupby("customer")["invoice"].transform("first")
    again = bought.duplicated(["customer", "code"])
    return float(again[bought["invoice"] != first_invoice].mean())


def timed(work: Callable, repeats: int = 3) -> tuple[object, float]:
    """What `work` returns, and the median of its processor seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return result, float(np.median(seconds))


def main() -> None:
    """Load, clean, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="online-retail", help="a file of receipts, or online-retail (default)")
    source = parser.parse_args().data
    start = time.perf_counter()
    raw, reading = timed(lambda: load_receipts(source))
    cleaned, cleaning = timed(lambda: receipts.clean(raw))
    found = facts(raw, cleaned) | {"seconds to read": reading, "seconds to clean": cleaning}
    print(cleaned.audit.to_string(index=False))
    print(pd.Series(found).map("{:,.4g}".format).to_string())
    rows = [{"part": "audit", "metric": row.rule, "value": int(row.rows)} for row in cleaned.audit.itertuples()]
    rows += [{"part": "facts", "metric": name, "value": round(float(value), 6)} for name, value in found.items()]
    path = save_results(
        "cleaning",
        rows,
        command=f"python benchmarks/cleaning.py --data {source if source == 'online-retail' else Path(source).name}",
        data=describe_data(raw, source),
        seconds=time.perf_counter() - start,
    )
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
