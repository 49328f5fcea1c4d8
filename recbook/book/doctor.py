"""What is installed, what each chapter needs, where artifacts are kept: `recbook doctor`.

It reads the packages' metadata and imports none of them but `packaging`, so a broken package cannot break it. What the
core and each extra consist of stands in recbook's own metadata (pyproject.toml); which extras a chapter needs is kept
here, and is what the chapter's first cell installs.
"""

import json
import os
import platform
from importlib import metadata

from packaging.requirements import Requirement

CHAPTER_EXTRAS = {
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


def doctor_command(as_json: bool) -> int:
    """Print the report, as text or as one JSON object; 0 if the core is complete, 1 if something of it is missing."""
    known = doctor_report()
    print(json.dumps(known) if as_json else report_text(known))
    return 0 if known["complete"] else 1


def doctor_report() -> dict:
    """All that `recbook doctor` knows, JSON-able: python, recbook, packages, chapters, commands, cache, complete."""
    packages = installed_packages()
    core = [package for package in packages.values() if CORE in package["extras"]]
    return {
        "python": platform.python_version(),
        "recbook": _version("recbook"),
        "packages": packages,
        "chapters": {chapter: missing_packages(extras, packages) for chapter, extras in CHAPTER_EXTRAS.items()},
        "commands": missing_packages(COMMANDS, packages),
        "cache": os.environ.get("RECBOOK_HOME"),  # nothing: the user's cache folder
        "complete": bool(core) and all(package["ok"] for package in core),
    }


def installed_packages() -> dict[str, dict]:
    """Every package of the core and the chapters' extras, by name: `version` (or nothing), `wanted`, `extras`, `ok`."""
    extras = sorted({CORE, *",".join([*CHAPTER_EXTRAS.values(), COMMANDS]).split(",")})
    packages: dict[str, dict] = {}
    for line in _required():
        wanted = Requirement(line)
        marker = wanted.marker
        core = marker is None or marker.evaluate({"extra": ""})
        for extra in [CORE] if core else [each for each in extras if marker and marker.evaluate({"extra": each})]:
            version = _version(wanted.name)
            ok = version is not None and wanted.specifier.contains(version, prereleases=True)
            package = packages.setdefault(
                wanted.name, {"version": version, "wanted": str(wanted.specifier), "extras": [], "ok": ok}
            )
            package["extras"].append(extra)
    return packages


def missing_packages(extras: str, packages: dict[str, dict]) -> list[str]:
    """What is missing or too old for these extras and the core; an extra that this recbook does not know counts too."""
    wanted, known = {CORE, *extras.split(",")}, {extra for package in packages.values() for extra in package["extras"]}
    missing = [name for name, package in packages.items() if not package["ok"] and wanted & {*package["extras"]}]
    return missing + [f"recbook's extra {extra}" for extra in sorted(wanted - known - {CORE})]


def report_text(known: dict) -> str:
    """A report as text."""
    lines = [f"recbook {known['recbook'] or 'is not installed as a package'}, Python {known['python']}", ""]
    for name, package in known["packages"].items():
        mark = "" if package["ok"] else f"  missing or too old, wanted {package['wanted'] or 'any'}"
        lines.append(f"  {name:<22} {package['version'] or '-':<14} {', '.join(package['extras'])}{mark}")
    lines.append("")
    needs = {**{name: (CHAPTER_EXTRAS[name], missing) for name, missing in known["chapters"].items()}}
    needs["build, recommend, chat"] = COMMANDS, known["commands"]
    for name, (extras, missing) in needs.items():
        remedy = f"needs {', '.join(missing)}:\n    pip install 'recbook[{extras}]'" if missing else "ready"
        lines.append(f"  {name:<22} {remedy}")
    lines += ["", f"Artifacts are kept in {known['cache'] or 'your cache folder (RECBOOK_HOME names another)'}."]
    lines.append("The core is complete." if known["complete"] else "The core is not complete: pip install recbook")
    return "\n".join(lines)


def _required() -> list[str]:
    """What recbook's metadata ask for, a line per package; nothing where they cannot be read."""
    try:
        return metadata.requires("recbook") or []
    except metadata.PackageNotFoundError:
        return []


def _version(name: str) -> str | None:
    """A package's version as its metadata state it; nothing where it is not there, or cannot be read."""
    try:
        return metadata.version(name)
    except Exception:  # damaged metadata fail in many ways
        return None
