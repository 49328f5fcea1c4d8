"""What a stranger would trip over: a machine's paths, addresses in two places, missing pictures, unsafe calls."""

import ast
import re

import nbformat
import pytest

import build_book
from tests.project.files import ROOT, parsed, texts, tracked


def test_the_address_of_the_repository_stands_in_one_place():
    owner_and_name = build_book.repository().removeprefix("https://github.com/")
    texts_with_it = [path for path, text in texts().items() if owner_and_name in text and path.suffix != ".ipynb"]
    assert texts_with_it == [ROOT / "pyproject.toml"]
    for path in (ROOT / "book").glob(
        "*.ipynb"
    ):  # its outputs may show the address: code printed it, a test compares it
        assert owner_and_name not in "".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def images(markdown: str) -> list[str]:
    """The addresses of a page's images, in Markdown or HTML, less those on the web."""
    found = re.findall(r"!\[[^\]]*\]\(\s*<?([^)\s>]+)", markdown) + re.findall(
        r"<img[^>]*\bsrc=[\"']([^\"']+)", markdown
    )
    return [address for address in found if "://" not in address]


def test_images_of_the_readme_are_there():
    shown = images((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown and [address for address in shown if ROOT / address not in tracked()] == []


def test_images_of_a_page_are_found():
    page = '![a b](c/d.png) ![](e.svg "title") <img width="3" src="f.png"> ![](https://g.org/h.png) [i](j.png)'
    assert images(page) == ["c/d.png", "e.svg", "f.png"]


def test_no_file_knows_a_machine():
    folders = "|".join(["home", "Users", "root", "work", "farm"])
    hosts = "|".join([r"files\.python" + "hosted", r"deb\.deb" + "ian", r"registry\.npm" + "js"])
    pattern = re.compile(rf"(?<![\w.])/(?:{folders})/\w|[A-Z]:\\Users|{hosts}")
    found = {path.name: hit.group(0) for path, text in texts().items() if (hit := pattern.search(text))}
    assert found == {}


def test_nothing_loads_what_can_run_code():
    """The calls that ruff has no rule for; the next test but one names those that it has."""
    for path, tree in parsed("recbook", "lessons_py", "benchmarks", "build_book.py").items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Call) and unsafe(node)), f"{path}:{node.lineno}"


def unsafe(call: ast.Call) -> bool:
    """Whether an argument of a call lets the code run that a file or a repository holds."""
    true = {word.arg for word in call.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
    any_object = ast.unparse(call.func) == "torch.load" and "weights_only" not in true
    return any_object or bool(true & {"allow_pickle", "trust_remote_code"})


@pytest.mark.parametrize(
    "code", ["torch.load(f)", "np.load(f, allow_pickle=True)", "Model.from_pretrained(x, trust_remote_code=True)"]
)
def test_an_unsafe_call_is_seen(code):
    assert unsafe(ast.parse(code).body[0].value)
    assert not unsafe(ast.parse("torch.load(f, weights_only=True)").body[0].value)
