"""Every chapter runs as a reader's does: from the built wheel, in an empty folder; and gives the outputs on its page.

Once each, one after the other, with the artifacts of those before at hand; `make alone` runs each cold, with nothing
kept from before.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build_book
from recbook.baselines.results import load_results

ROOT = Path(build_book.__file__).parent
LIMIT = 180  # seconds on two cores, as `make refresh` measured them: for a reader's patience
LONGER = {"22_system": 300}  # builds the whole system from nothing
KERNEL = "recbook-wheel"


@pytest.fixture(scope="session")
def kernels(stranger, tmp_path_factory) -> Path:
    """A folder for JUPYTER_PATH, whose kernel is the stranger's interpreter."""
    folder = tmp_path_factory.mktemp("jupyter")
    spec = {"argv": [str(stranger), "-m", "ipykernel_launcher", "--log-level=40", "-f", "{connection_file}"]}
    place = folder / "kernels" / KERNEL
    place.mkdir(parents=True)
    (place / "kernel.json").write_text(json.dumps(spec | {"display_name": KERNEL, "language": "python"}))
    return folder


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory) -> Path:
    """Where chapters keep artifacts for one another: RECBOOK_HOME, which `make test` keeps, or a new folder."""
    return Path(os.environ.get("RECBOOK_HOME") or tmp_path_factory.mktemp("home"))


def surroundings(home: Path, artifacts: Path) -> dict[str, str]:
    """An environment as on a new machine: no caches, no settings of the book, and a network that is not there."""
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")
    nowhere = "http://127.0.0.1:9"
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "RECBOOK_HOME": str(artifacts),
        "HF_HUB_OFFLINE": "1",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


def run(chapter: str, kernels: Path, folder: Path, artifacts: Path) -> None:
    """Run a chapter's notebook in an empty folder and compare its outputs, as nbval does."""
    empty, home = folder / "empty", folder / "home"
    empty.mkdir(), home.mkdir()
    notebook = shutil.copy(ROOT / "book" / f"{chapter}.ipynb", empty)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(empty),
    ]
    command += ["--nbval", f"--nbval-kernel-name={KERNEL}", f"--nbval-cell-timeout={build_book.patience(chapter)}"]
    environment = surroundings(home, artifacts) | {"JUPYTER_PATH": str(kernels), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*command, notebook], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert [path.name for path in empty.iterdir()] == [f"{chapter}.ipynb"], "the chapter left files with the reader"


def test_the_package_of_the_kernels_is_the_wheel(stranger, tmp_path):
    names = sorted(path.stem for path in (ROOT / "results").glob("*.json"))
    code = "import json; from recbook.baselines import results as r; "
    code += f"print(json.dumps([r.__file__, [r.has_results(name) for name in {names!r}]]))"
    environment = surroundings(tmp_path, tmp_path)
    done = subprocess.run([str(stranger), "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    place, found = json.loads(done.stdout)
    assert Path(place).is_relative_to(stranger.parent.parent), f"the package comes from {place}, not from the wheel"
    assert names and found == [True] * len(names)  # the measured figures are in the wheel


@pytest.mark.slow
@pytest.mark.parametrize("chapter", build_book.chapters())
def test_chapter_gives_the_outputs_on_its_page(chapter, kernels, shared_home, tmp_path):
    run(chapter, kernels, tmp_path, shared_home)


@pytest.mark.slow
@pytest.mark.cold
@pytest.mark.parametrize("chapter", build_book.chapters())
def test_chapter_runs_cold(chapter, kernels, tmp_path):
    run(chapter, kernels, tmp_path, tmp_path / "artifacts")


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_chapter_was_measured_and_is_within_the_limit(chapter):
    rows = load_results("chapters")["rows"]
    figures = {row["metric"]: row["value"] for row in rows if row["chapter"] == chapter}
    assert 0 < figures["seconds"] <= LONGER.get(chapter, LIMIT)
    assert 0 < figures["peak_gb"] < 8
