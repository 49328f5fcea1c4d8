"""Results on record: figures that the book quotes, each file with the data, the command and the commit that made it."""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbook import __version__, freshness
from recbook.cleaning import schema
from recbook.storage import whole_file

ONLINE_RETAIL_SHA256 = (
    "9254c05fc41baebc83d2ce37e0843e7cff7cb6ed3f9defdac9dcc82985a8b741"  # fingerprint of its raw receipts
)

STARTED = time.time()  # of this process, or soon after: what is measured in it was read by then


def slug(name: str) -> str:
    """A data set's name as part of a file's: "Online Retail" gives online-retail, my_shop.csv.gz gives my-shop."""
    stem = re.sub(r"(\.(csv|txt|xlsx|parquet|gz|zip))+$", "", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-") or "receipts"


def describe_data(raw: pd.DataFrame, source: str | Path) -> dict:
    """What a results file says of its data: name, sha256 (fingerprint of the raw receipts) and rows.

    Online Retail is known by its content, whatever the file is called; other files go by name, without their folder.
    """
    digest = schema.receipts_fingerprint(raw)
    name = "Online Retail" if digest == ONLINE_RETAIL_SHA256 else Path(source).name
    return {"name": name, "sha256": digest, "rows": len(raw)}


def save_results(
    name: str, rows: list[dict], *, command: str, data: dict, seconds: float, folder: str | Path | None = None
) -> Path:
    """Write results/<name>.json, whole or not at all, with what made it; `data` has name, sha256 and rows.

    `folder` is that of `results_path`, which raises ValueError for a bad name and OSError for a folder that is none.
    """
    if set(data) != {"name", "sha256", "rows"}:
        raise ValueError(f"`data` must have exactly name, sha256 and rows; it has {sorted(data)}")
    content: dict[str, object] = {"name": name, "command": command, "data": data}
    code = None if _changed_since(STARTED, command) else code_behind(command)
    content |= {"code": code, "commit": commit(), "machine": machine()}
    content |= {"seconds": round(float(seconds), 1), "rows": rows}
    text = json.dumps(content, indent=1, allow_nan=False, default=_plain) + "\n"
    path = results_path(name, folder)
    with whole_file(path) as file:
        file.write(text.encode())
    return path


def code_behind(command: str) -> str | None:
    """The fingerprint of the code that a command runs: a script of benchmarks/ in a checkout, or `recbook score`.

    It changes with the script, with what it imports of the package, and with the modules in the folder of its name.
    None for other commands.
    """
    scripts, starts = _behind(command)
    if not starts:
        return None
    own = "\0".join(freshness.bare(path.read_text(encoding="utf-8")) for path in scripts)
    return hashlib.sha256(f"{own}\0{freshness.fingerprint(*starts)}".encode()).hexdigest()


def _behind(command: str) -> tuple[list[Path], list[freshness.Source | str]]:
    """The scripts that a command runs, and what `freshness` starts from; empty for a command that it does not know."""
    if command.startswith("recbook score"):
        return [], ["recbook.system.scoring"]
    found = re.match(r"python (benchmarks/\w+\.py)", command)
    path = freshness.PACKAGE.parent / (found[1] if found else "nothing")
    scripts = [path, *sorted(path.with_suffix("").glob("*.py"))] if path.is_file() else []
    return scripts, [freshness.Source("script", script.read_text(encoding="utf-8")) for script in scripts]


def _changed_since(started: float, command: str) -> bool:
    """Whether a source behind a command was written after that time, so that what ran is not what stands there now."""
    scripts, starts = _behind(command)
    modules, _ = freshness.reached(*starts)
    paths = [*scripts, *(found.path for found in modules.values())]
    return any(path.stat().st_mtime > started for path in paths)


def results_path(name: str, folder: str | Path | None = None) -> Path:
    """Where the results `name` are written: <folder>/<name>.json, the folder made if it is not there.

    `folder` defaults to the repository's results/ where the package runs from a checkout, else to ./results.
    """
    path = Path(folder if folder is not None else _checkout_results() or "results") / _file_name(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"results cannot be written in {path.parent} ({error.strerror}): name another folder") from error
    return path


def load_results(name: str) -> dict:
    """The content of results/<name>.json, from the installed package or the checkout it runs from."""
    path = _find_results(name)
    if path is None:
        raise FileNotFoundError(f"no results named {name!r}: run the benchmark that writes results/{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def has_results(name: str) -> bool:
    """Whether results/<name>.json is there to load."""
    return _find_results(name) is not None


def commit() -> str:
    """The commit that the package runs from, "+changes" if the checkout has any; its version where it is installed."""
    root = freshness.PACKAGE.parent
    if not (root / ".git").exists():
        return f"recbook {__version__}"
    try:
        head = _git(root, "rev-parse", "HEAD")
        # What a benchmark has just written does not change what made it.
        outputs = (":(exclude)results", ":(exclude)book/*.ipynb")
        changed = _git(root, "status", "--porcelain", "--", ".", *outputs)
    except (OSError, subprocess.CalledProcessError):
        return f"recbook {__version__}"
    return head + ("+changes" if changed else "")


def machine() -> str:
    """The machine in a few words, cores and processor, without its name."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = names[0] if names else model
    except OSError:
        pass
    return f"{cores} cores, {model}"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _plain(value: Any) -> Any:
    """A number of numpy as one of Python, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a results file: use numbers and strings")


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name):
        raise ValueError(f"results cannot be named {name!r}: use lower-case letters, digits, - and _")
    return f"{name}.json"


def _checkout_results() -> Path | None:
    """The repository's results/ where the package runs from a checkout (an editable install)."""
    return freshness.PACKAGE.parent / "results" if (freshness.PACKAGE.parent / "pyproject.toml").exists() else None


def _find_results(name: str) -> Path | None:
    for folder in (_checkout_results(), freshness.PACKAGE / "results"):
        if folder is not None and (folder / _file_name(name)).is_file():
            return folder / _file_name(name)
    return None
