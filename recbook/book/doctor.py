"""What is installed, what each chapter needs, what is cached, what the machine has: `recbook doctor`.

It reads the packages' metadata and imports none of them but pooch, which knows where the cache is (and imports tqdm),
so it is fast, and a broken package cannot break it. What the core and each extra consist of is read from recbook's own
metadata (pyproject.toml); which extras a chapter needs is kept here, and is what the chapter's first cell installs.
"""

import argparse
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

CHAPTERS = {
    "01_cleaning": "receipts",
    "02_baselines": "receipts",
    "03_embeddings": "receipts,embeddings",
    "04_search": "receipts,embeddings,search",
    "05_tokens": "receipts,language",
    "06_gpt": "receipts,language",
    "07_training": "receipts,language,tracking",
    "08_generation": "receipts,language",
    "09_baskets": "receipts,embeddings,language",
    "10_lora": "receipts,language,adapters",
    "11_quantization": "receipts,embeddings,language,adapters",
    "12_ranking": "receipts,search,language,embeddings,ranking",
    "14_narratives": "receipts,embeddings,language",
    "16_distillation": "receipts,search,language,embeddings,ranking",
    "22_system": "receipts,search,language,embeddings,ranking",
}  # the extras that each chapter needs
COMMANDS = "receipts,search,language,embeddings,ranking"  # the extras that build, recommend and chat need
CORE = "core"  # what is installed without any extra
INSTALLED, TOO_OLD, MISSING_PACKAGE, BROKEN_PACKAGE = "ok", "too old", "missing", "broken"
OLDEST = (3, 11)  # Python
DIGEST = re.compile(r"-[0-9a-f]{16}(?=$|\.|-)")  # of what an artifact was made of, in its folder's name
DRIVER = Path("/proc/driver/nvidia/gpus")
MB, GB = 1e6, 2**30


def doctor_report() -> dict:
    """All that `recbook doctor` knows, JSON-able: python, packages, chapters, commands, cache, machine, complete."""
    packages = installed()
    return {
        "python": {"version": platform.python_version(), "ok": sys.version_info[:2] >= OLDEST, "at": sys.executable},
        "recbook": _version("recbook")[0],
        "packages": packages,
        "chapters": {chapter: chapter_needs(extras, packages) for chapter, extras in CHAPTERS.items()},
        "commands": chapter_needs(COMMANDS, packages),
        "cache": cached(),
        "machine": machine_report(),
        "complete": complete(packages),
    }


def doctor_command(options: argparse.Namespace) -> int:
    """Print the report, as text or as one JSON object; 0 if the core is complete, 1 if something of it is missing."""
    known = doctor_report()
    print(json.dumps(known) if options.json else report_text(known))
    return 0 if known["complete"] else 1


def complete(packages: dict[str, dict]) -> bool:
    """Whether Python is new enough, and recbook's core is known, there, and new enough."""
    core = [package["state"] for package in packages.values() if CORE in package["extras"]]
    return bool(core) and set(core) == {INSTALLED} and sys.version_info[:2] >= OLDEST


# --- Packages ----------------------------------------------------------------------------------------------------


def installed() -> dict[str, dict]:
    """Every package of the core and of the chapters' extras by name: `version`, `wanted`, `extras`, `state`."""
    packages: dict[str, dict] = {}
    for name, wanted, extra in _required():
        package = packages.setdefault(name, {"version": None, "wanted": wanted, "extras": [], "state": MISSING_PACKAGE})
        package["extras"].append(extra)
        package["version"], package["state"] = _version(name, wanted)
    return packages


def _required() -> Iterator[tuple[str, str, str]]:
    """What recbook's metadata ask for: name, versions, extra (or `CORE`), of the core and the chapters' extras."""
    used = {CORE} | {extra for extras in (*CHAPTERS.values(), COMMANDS) for extra in extras.split(",")}
    try:
        lines = metadata.requires("recbook") or []
    except Exception:  # not installed, or its metadata cannot be read: `complete` says that the core is unknown
        return
    for line in lines:
        name, wanted = re.match(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*)", line).groups()
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", line)
        if (where := extra[1] if extra else CORE) in used:
            yield name, wanted.strip(), where


def _version(name: str, wanted: str = "") -> tuple[str | None, str]:
    """A package's version, as its metadata state it, and whether that is new enough."""
    try:
        version = metadata.version(name)
        floor = re.search(r"[>=]=\s*([\d.]+)", wanted)
        new_enough = floor is None or _numbers(version) >= _numbers(floor[1])
    except metadata.PackageNotFoundError:
        return None, MISSING_PACKAGE
    except Exception:  # metadata without a version, or that cannot be read
        return None, BROKEN_PACKAGE
    return version, INSTALLED if new_enough else TOO_OLD


def _numbers(version: str) -> list[int]:
    """The leading numbers of a version, without zeros at their end: 2.10.0rc1+cpu is [2, 10]."""
    numbers = [int(part) for part in re.match(r"v?(\d+(?:\.\d+)*)", version)[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def chapter_needs(extras: str, packages: dict[str, dict]) -> dict:
    """What a chapter needs: its `extras`, the packages `missing` (or broken, or too old), the line to `install` them.

    An extra that recbook's metadata do not have is missing too: an older recbook is installed, or none.
    """
    wanted, known = [CORE, *extras.split(",")], {extra for package in packages.values() for extra in package["extras"]}
    missing = [name for name, each in packages.items() if each["state"] != INSTALLED and {*wanted} & {*each["extras"]}]
    missing += [f"recbook's extra {extra}" for extra in wanted[1:] if extra not in known]
    line = f"pip install 'recbook[{extras}]'"
    return {"extras": wanted[1:], "missing": missing, "install": line if missing else None}


def remedy(error: ImportError) -> str:
    """What to do about something that could not be imported, in a line."""
    return f"{error}: pip install 'recbook[{COMMANDS}]' installs what is missing, recbook doctor says what that is"


# --- The cache ---------------------------------------------------------------------------------------------------


def cached() -> dict:
    """What is kept in the folder of artifacts: `folder`, `mb`, `error`, and a row each in `artifacts`."""
    try:
        from recbook.storage import home

        folder = home()
        rows = [_artifact(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []
    except Exception as error:  # pooch is missing or broken, or the folder cannot be read: the rest is still told
        return {"folder": None, "mb": 0.0, "error": f"{type(error).__name__}: {error}", "artifacts": []}
    rows = [row for row in rows if row is not None]
    return {"folder": str(folder), "mb": round(sum(row["mb"] for row in rows), 1), "error": None, "artifacts": rows}


def _artifact(path: Path) -> dict | None:
    """A row of the cache: `name`, `kind`, `mb`, `days` since it was written, `state`. None: a lock, or gone."""
    if path.suffix == ".lock":
        return None
    try:
        seconds = time.time() - path.stat().st_mtime
        sizes = [file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    except OSError:  # removed meanwhile
        return None
    state = (
        "half-written"
        if path.name.startswith(".")
        else "unfinished"
        if path.name.startswith("training-")
        else INSTALLED
    )
    kind = DIGEST.split(path.name.lstrip("."))[0].replace("-", " ")
    days = round(max(0.0, seconds) / 86_400, 2)
    return {"name": path.name, "kind": kind, "mb": round(sum(sizes) / MB, 1), "days": days, "state": state}


# --- The machine -------------------------------------------------------------------------------------------------


def machine_report() -> dict:
    """`system`, `cores` that this process may use, `memory_gb` that it may use (None: not known), names of `gpus`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": cores,
        "memory_gb": _memory(),
        "gpus": _gpus(),
    }


def _memory() -> float | None:
    """GiB of memory: the machine's, or what a container is allowed where that is less."""
    try:
        sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # no POSIX
        return None
    sizes += [int(size) for size in _text(Path("/sys/fs/cgroup/memory.max")).split() if size.isdecimal()]
    return round(min(sizes) / GB, 1)


def _gpus() -> list[str]:
    """The NVIDIA GPUs that the driver names; Apple's, which the book's code does not use, is not looked for."""
    folders = sorted(DRIVER.glob("*/information"))
    found = [re.search(r"Model:\s*(.+)", _text(path)) for path in folders]
    return [match[1].strip() for match in found if match]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# --- Told --------------------------------------------------------------------------------------------------------


def report_text(known: dict) -> str:
    """A report as text of at most 80 columns where names allow."""
    python, box = known["python"], known["machine"]
    memory = "memory unknown" if box["memory_gb"] is None else f"{box['memory_gb']:.1f} GB of memory"
    gpus = ", ".join(box["gpus"]) or "no NVIDIA GPU"
    lines = [
        f"recbook {known['recbook'] or 'is not installed as a package'}, Python {python['version']}"
        + ("" if python["ok"] else " (too old: 3.11 or newer is needed)"),
        f"{box['system']}, {box['cores']} cores, {memory}, {gpus}",
        "",
        "Installed",
    ]
    for name, package in known["packages"].items():
        mark = "" if package["state"] == INSTALLED else f"  {package['state']}, wanted {package['wanted'] or 'any'}"
        lines += [f"  {name:<22} {package['version'] or '-':<14} {', '.join(package['extras'])}{mark}"]
    lines += ["", "Chapters and commands"]
    lines += [_told_needs(name, need) for name, need in known["chapters"].items()]
    lines += [_told_needs("build, recommend, chat", known["commands"]), "", *_told_cache(known["cache"]), ""]
    lines += ["The core is complete." if known["complete"] else "The core is not complete: pip install recbook"]
    return "\n".join(lines)


def _told_needs(name: str, need: dict) -> str:
    if need["install"] is None:
        return f"  {name:<22} ready"
    return f"  {name:<22} needs {', '.join(need['missing'])}:\n    {need['install']}"


def _told_cache(cache: dict) -> Iterator[str]:
    if cache["error"]:
        yield f"Cached: not known ({cache['error']})"
        return
    yield f"Cached: {cache['mb']:,.0f} MB in {cache['folder']}"
    for row in cache["artifacts"]:
        mark = "" if row["state"] == INSTALLED else f"  {row['state']}"
        age = f"{row['days']:.0f} days" if row["days"] >= 2 else f"{row['days'] * 24:.0f} h"
        yield f"  {row['name']:<43} {row['mb']:>7,.1f} MB {age:>8}{mark}"
    if {row["state"] for row in cache["artifacts"]} - {INSTALLED}:
        yield "  What is half-written can be removed, unless something is being built now;"
        yield "  what is unfinished goes on where it stopped, the next time it is needed."
