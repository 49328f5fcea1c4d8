"""A chapter's opening: the way into Colab, the measured cost, the system with the right part lit."""

import re
from pathlib import Path

import pytest

from recbook.book import page

LESSONS = sorted(path.stem for path in (Path(__file__).parents[2] / "lessons_py").glob("*.py"))


@pytest.mark.parametrize("chapter", LESSONS)
def test_every_chapter_lights_exactly_its_stage(chapter):
    html = page.system_map(chapter)
    assert html.count("aria-current") == 1
    lit = re.search(r'aria-current="step".*?>([^<]+)<br>', html).group(1)
    assert chapter in dict((stage, chapters) for stage, _, chapters in page.STAGES)[lit]


def test_an_unknown_chapter_lights_nothing():
    assert "aria-current" not in page.system_map("99_nothing")


def test_the_repository_is_the_one_of_pyproject():
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert page.repository() == re.search(r'Repository = "(.+)"', pyproject).group(1)


def test_cost_comes_from_the_results(monkeypatch):
    rows = [
        {"chapter": "01_cleaning", "metric": "seconds", "value": 12.4},
        {"chapter": "01_cleaning", "metric": "peak_gb", "value": 0.56},
    ]
    monkeypatch.setattr(page, "has_results", lambda name: name == "chapters")
    monkeypatch.setattr(page, "load_results", lambda name: {"rows": rows})
    assert page.cost("01_cleaning") == "12 seconds and 0.6 GB on two CPU cores, as last measured"
    assert page.cost("02_baselines") == "not yet measured"


def test_opening_links_this_chapter_in_colab(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", lambda thing: shown.append(thing.data))
    page.opening("03_embeddings")
    assert re.search(r'href="https://colab\.research\.google\.com/github/[^"]+/book/03_embeddings\.ipynb"', shown[0])
    assert "system-map" in shown[1]


def test_source_shows_the_function_as_written():
    code = page.source(page.cost)
    assert code.data.startswith("def cost(chapter: str)") and code.language == "python"
