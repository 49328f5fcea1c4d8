"""Every chapter keeps to the rails, and the rails can stop one that does not: each is tried on a seeded mistake."""

import copy
import re
import subprocess
import sys

import nbformat
import pytest
import rails
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import build_book
from recbook import freshness

CHAPTERS = build_book.chapters()
PAGES = sorted(rails.NOTEBOOKS.glob("*.md"))


def read(chapter: str):
    return nbformat.read(rails.NOTEBOOKS / f"{chapter}.ipynb", as_version=4)


# ---- the chapters --------------------------------------------------------------------------------------------------


def test_every_lesson_has_a_notebook_and_every_notebook_a_lesson():
    assert CHAPTERS == sorted(path.stem for path in rails.NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize(
    "rail", [rails.never_run, rails.out_of_order, rails.stale, rails.failed], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_was_run_whole_and_in_order(chapter, rail):
    assert rail(read(chapter)) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_shows_what_it_should(chapter):
    assert rails.outputs_missing(read(chapter)) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_is_its_lesson(chapter):
    assert rails.unlike_lesson(read(chapter), build_book.lesson(chapter)) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_types_no_number_and_no_directive(chapter):
    assert rails.prose(read(chapter)) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_bounds_the_figures_that_nbval_does_not_compare(chapter):
    assert rails.unbounded(build_book.lesson(chapter)) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_chapter_has_its_parts(chapter):
    assert rails.anatomy(read(chapter), chapter) == []


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_notebook_holds_nothing_that_changes_from_run_to_run(chapter):
    notebook, lesson = read(chapter), build_book.lesson(chapter)
    assert notebook.metadata == lesson.metadata
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in lesson.cells]
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags", "ran"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_opening_shows_the_cost_as_last_measured_and_the_way_into_colab(chapter):
    from recbook.book import page as book_page

    shown = "".join(o.data.get("text/html", "") for o in rails.code_cells(read(chapter))[1].outputs)
    assert book_page.cost(chapter) in shown
    assert f"{build_book.repository().removeprefix('https://github.com/')}/blob/main/book/{chapter}.ipynb" in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_types_no_number_and_no_directive(page):
    text = page.read_text(encoding="utf-8")
    assert rails.directives(text) + rails.typed_numbers(text) + rails.hidden_figures(text) == []


def test_contents_list_every_chapter_in_order_and_every_page():
    contents = yaml.safe_load((rails.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [contents["root"]] + [entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    assert [name for name in files if re.match(r"\d\d_", name)] == CHAPTERS
    assert {name for name in files if name not in CHAPTERS} == {path.stem for path in PAGES}


# ---- seeded mistakes -----------------------------------------------------------------------------------------------


@pytest.fixture
def sound():
    """A small notebook that keeps to the rails, as `make refresh` would leave it."""
    figure = new_output(
        "display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 1x1 with 1 Axes>"}
    )
    cells = [
        new_markdown_cell(
            "# Sums\n\nAt the end you can add. $1 + 1 = 2$, as in [Chapter 1](01_sums.ipynb) and `x[0]`."
        ),
        new_code_cell("import matplotlib.pyplot as plt\n\na = 20 + 1", execution_count=1),
        new_code_cell("2 * a", execution_count=2, outputs=[result("42", 2)]),
        new_code_cell("plt.plot([a])\nplt.show()", execution_count=3, outputs=[figure]),
    ]
    return stamped(new_notebook(cells=cells, metadata={"kernelspec": build_book.KERNEL}))


def result(text: str, count: int):
    return new_output("execute_result", data={"text/plain": text}, execution_count=count)


def stamped(notebook):
    for cell, stamp in zip(rails.code_cells(notebook), build_book.stamps(notebook), strict=True):
        cell.metadata["ran"] = stamp
    return notebook


def every_complaint(notebook) -> list[str]:
    checks = [rails.never_run, rails.out_of_order, rails.stale, rails.failed, rails.outputs_missing, rails.prose]
    return [complaint for check in checks for complaint in check(notebook)]


def test_a_sound_notebook_passes(sound):
    assert every_complaint(sound) == []


def test_a_notebook_that_was_never_run_is_stopped(sound):
    for cell in rails.code_cells(sound):
        cell.execution_count, cell.outputs = None, []
    assert len(rails.never_run(sound)) == 3


def test_cells_run_out_of_order_are_stopped(sound):
    cells = rails.code_cells(sound)
    cells[0].execution_count, cells[1].execution_count = 2, 1
    assert len(rails.out_of_order(sound)) == 2
    cells[0].execution_count, cells[1].execution_count = 1, 3  # one run is missing
    assert len(rails.out_of_order(sound)) == 1


def test_code_newer_than_its_output_is_stopped_and_so_is_all_that_follows(sound):
    rails.code_cells(sound)[1].source = "3 * a"
    complaints = rails.stale(sound)
    assert ["code cell 2" in complaints[0], "code cell 3" in complaints[1]] == [True, True] and len(complaints) == 2


@pytest.fixture
def little_package(tmp_path, monkeypatch):
    """A package of some modules with a data file, and figures on record, in the place of the real ones."""
    files = {
        "recbook/__init__.py": "",
        "recbook/page.py": "",
        "recbook/shop.py": "from recbook.room import words\n\n\ndef used(): pass\n\ndef other(): import recbook.rare\n",
        "recbook/room/__init__.py": "",
        "recbook/room/words.py": "",
        "recbook/room/words.json": "1",
        "recbook/rare.py": "",
        "recbook/apart.py": "",
        "results/search.json": "1",
        "results/search_shop.json": "1",
        "results/tokens_shop.json": "1",
        "results/chapters.json": "1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(freshness, "PACKAGE", tmp_path / "recbook")
    return tmp_path


CHAPTER = "from recbook import page, shop\n\nshop.used()\nfigures = page.load('search'), page.load(f'tokens_{2}')"


def test_outputs_older_than_what_they_come_from_are_stopped_and_others_are_not(sound, little_package):
    rails.code_cells(sound)[0].source = CHAPTER
    stamped(sound)
    for name, stale in {
        "recbook/page.py": True, "recbook/shop.py": True, "recbook/room/words.py": True,
        "recbook/room/words.json": True,
        "recbook/rare.py": False, "recbook/apart.py": False,
        "results/search.json": True, "results/search_shop.json": False, "results/tokens_shop.json": True,
        "results/chapters.json": False,  # every refresh writes it
    }.items():  # fmt: skip
        assert rails.stale(sound) == []
        path = little_package / name
        kept = path.read_text()
        path.write_text(kept + ("\n# a comment\n" if path.suffix == ".py" else " "))
        assert len(rails.stale(sound)) == 3 * stale, name
        path.write_text(kept)


def test_what_changes_during_a_run_makes_its_outputs_stale(little_package):
    code = f"open({str(little_package / 'recbook' / 'page.py')!r}, 'w').write('1')\nfrom os import path as page"
    notebook = new_notebook(cells=[new_code_cell(f"{code}\nif False:\n    import recbook.page")])
    notebook.metadata = {"kernelspec": build_book.KERNEL}
    build_book.execute(notebook)
    assert len(rails.stale(notebook)) == 1


@pytest.fixture
def little_book(little_package):
    """A chapter of the little package, run, in a book of its own."""
    (little_package / "lessons_py").mkdir()
    path = little_package / "lessons_py" / "01_sums.py"
    path.write_text("# %% [markdown]\n# # Sums\n\n# %%\n" + CHAPTER.replace("shop.used()", "2") + "\n")
    notebook = build_book.lesson("01_sums")
    rails.code_cells(notebook)[0].update(execution_count=1, outputs=[result("42", 1)])
    nbformat.write(stamped(notebook), little_package / "01_sums.ipynb")
    build_book.write(notebook, little_package / "book" / "01_sums.ipynb")
    return little_package


def test_refresh_runs_the_stale_chapters_alone_and_carries_prose_over(little_book, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(build_book, "run_into_book", ran.extend)
    monkeypatch.setattr(build_book, "readme", lambda: None)
    lesson, kept = little_book / "lessons_py" / "01_sums.py", little_book / "book" / "01_sums.ipynb"
    (little_book / "recbook" / "apart.py").write_text("1")
    lesson.write_text(lesson.read_text().replace("# # Sums", "# # Great sums"))
    build_book.refresh([])
    notebook = nbformat.read(kept, as_version=4)
    assert ran == [] and "all outputs are fresh" in capsys.readouterr().out
    assert notebook.cells[0].source == "# Great sums" and rails.stale(notebook) == []
    assert rails.code_cells(notebook)[0].outputs[0].data["text/plain"] == "42"
    build_book.refresh(["01_sums"])
    assert ran == ["01_sums"]
    (little_book / "recbook" / "room" / "words.py").write_text("# a comment\n")
    build_book.refresh([])
    assert ran == ["01_sums"] * 2
    kept.unlink()
    assert not build_book.fresh("01_sums")


def test_an_edit_of_prose_leaves_outputs_fresh(sound):
    sound.cells[0].source += " And more."
    assert rails.stale(sound) == []


def test_a_traceback_and_a_warning_are_stopped(sound):
    sound.cells[2].outputs = [new_output("error", ename="KeyError", evalue="a", traceback=[])]
    sound.cells[3].outputs.append(new_output("stream", name="stderr", text="FutureWarning: soon"))
    assert ["KeyError" in rails.failed(sound)[0], "FutureWarning" in rails.failed(sound)[1]] == [True, True]


def test_an_empty_output_a_lost_picture_and_a_leftover_are_stopped(sound):
    sound.cells[2].outputs = []
    sound.cells[3].outputs = [result("[<matplotlib.lines.Line2D at 0x7f>]", 3)]
    empty, picture, leftover = rails.outputs_missing(sound)
    assert "no output" in empty and "no picture" in picture and "leftover" in leftover


def test_a_lesson_edited_without_its_notebook_is_stopped(sound):
    lesson = copy.deepcopy(sound)
    assert rails.unlike_lesson(sound, lesson) == []
    lesson.cells[0].source = "# Sums\n\nAt the end you can subtract."
    assert rails.unlike_lesson(sound, lesson) == ["cell 1 is not what the lesson says (run: make refresh)"]
    lesson.cells[0].source = sound.cells[0].source
    lesson.cells[2].metadata["tags"] = ["nbval-ignore-output"]
    assert rails.unlike_lesson(sound, lesson) == ["cell 3 has other tags than in the lesson"]
    del lesson.cells[2]
    assert "3" in rails.unlike_lesson(sound, lesson)[0]


def test_a_real_lesson_edited_on_disk_is_stopped(tmp_path, monkeypatch):
    chapter = CHAPTERS[0]
    source, notebook = (rails.LESSONS / f"{chapter}.py").read_text(encoding="utf-8"), build_book.lesson(chapter)
    (tmp_path / "lessons_py").mkdir()
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    copied = tmp_path / "lessons_py" / f"{chapter}.py"
    copied.write_text(source, encoding="utf-8")
    assert rails.unlike_lesson(notebook, build_book.lesson(chapter)) == []
    copied.write_text(source.replace("**You will learn**", "**You may learn**", 1), encoding="utf-8")
    assert rails.unlike_lesson(notebook, build_book.lesson(chapter)) != []


@pytest.mark.parametrize(
    "text",
    [
        "The log holds 541,909 lines.",
        "About 30% of them return.",
        "It takes 5 s.",
        "Half, or .5, of it.",
        "In 2011 the shop was open.",
        "> **Pitfall.** It has 3 causes.",
        "- first, 12 of them",
        "| method | NDCG |\n|---|---|\n| EASE | .218 |",
        "Use `k`, say 10, of them.",
        "a 60-day half-life",
        "<details><summary>Answer</summary>\n\nIt is 7.\n\n</details>",
        "All of them (541,909 lines, counted in 2011).",
        "(It took 12 seconds in 2011)",
        "See [541,909 lines](a.ipynb).",
        "![Its 17 products](images/map.png)",
        "## EASE reaches 0.31",
        "### 2.1 The 17 that are left",
    ],
)
def test_a_typed_number_is_stopped(text):
    assert rails.typed_numbers(text) != []


@pytest.mark.parametrize(
    "text",
    [
        "## 2.1 Ten is ten",
        "### Exercise 2.3: ten",
        "# Chapter 4",
        "`k = 10` and ``a`1`` and $k = 10$ and $$\nx^2\n$$",
        "```python\nk = 10\n```",
        "~~~\n10\n~~~",
        "See [Section 3](03_a.ipynb#4), Chapter 4, Chapters 1 to 4 and Exercise 2.3.",
        "Steck (2019), and others (Krichene and Rendle, 2020).",
        "BM25, GPT-2, NF4, int8, UTF-8 and all-MiniLM-L6-v2 are names; so is NDCG@10.",
        "1. first\n2. second",
        '<span style="width:10px">wide</span> <!-- 3 -->',
        "![A map](images/map2.png)",
        "Python 3.11 or newer",
        "<https://doi.org/10.24432/C5BW33>",
    ],
)
def test_a_number_that_is_no_typed_figure_passes(text):
    assert rails.typed_numbers(text) == []


@pytest.mark.parametrize(
    "text",
    [
        ":::{note}\nMind.\n:::",
        "```{note}\nMind.\n```",
        "See {ref}`there` now.",
        "See {doc}`/a`.",
        "(a-target)=\n# A",
        "Hello {{ name }}",
        "% a comment",
        "+++",
        '<div class="admonition note">\n\nMind.\n\n</div>',
    ],
)
def test_a_directive_is_stopped(text):
    assert rails.directives(text) != []


def test_markup_that_renders_everywhere_passes():
    text = (
        "> **Pitfall.** Mind `{ref}` and `{{x}}`.\n\n```python\nf'{a}`'\n%time\n```\n\n<details>\n\n$a$\n\n</details>"
    )
    assert rails.directives(text) == []


@pytest.mark.parametrize(
    "text",
    ["`NDCG@10` is `0.931` here", "It took $45$ seconds", "It is $0.31$.", "`541,909` of them", "`12.5%`", "$31\\%$"],
)
def test_a_figure_typed_as_code_or_formula_is_stopped_outside_exercises(text, sound):
    sound.cells.append(new_markdown_cell(text))
    assert len(rails.prose(sound)) == 1
    sound.cells.insert(-1, new_markdown_cell("## Exercises"))
    assert rails.prose(sound) == []
    sound.cells.insert(-1, new_markdown_cell("## Summary"))
    assert len(rails.prose(sound)) == 1


@pytest.mark.parametrize(
    "text",
    ["`17850`, `12/1/2010`, `0.9`", "$k = 10$", "$0$ and $1$", "`k = 0.931`", "$$\n0.931\n$$", "```\n0.931\n```"],
)
def test_an_example_as_code_or_formula_passes(text):
    assert rails.hidden_figures(text) == []


@pytest.mark.parametrize(
    "code",
    [
        'print("17 lines were lost")',
        'axes.set(title="EASE has 0.31")',
        'axes.set_title("EASE has .31")',
        'figure.suptitle("17 " + "lines")',
        'plt.title("17 lines")',
        'table.plot(title="17 lines")',
        'Markdown("{} of 17".format(3))',
        'Markdown("%s of 17" % a)',
        'Markdown(f"{17} lines")',
        'IPython.display.Markdown("17 lines")',
        'Markdown(f"{a} of 7")',
    ],
)
def test_a_figure_typed_in_code_that_shows_it_is_stopped(code):
    assert rails.printed_numbers(code) != []


@pytest.mark.parametrize(
    "code",
    [
        'axes.set(xlabel="NDCG@10", title="NDCG@10 of 3 methods")',
        'print(f"{a:.2f} seconds, int8")',
        'print("a", 10, sep="20")',
        'open("17.txt")',
        '"17 lines".title()',
        'Markdown(f"{a:,.2f} of {b}")',
    ],
)
def test_a_computed_figure_or_a_name_in_code_passes(code):
    assert rails.printed_numbers(code) == []


@pytest.mark.parametrize(
    ("code", "complaints"),
    [
        ("page.opening('a')", 0),
        ("codes, vectors = workshop.embeddings()", 0),
        ("fig, ax = plt.subplots()\nax.plot(a)\nplt.show()", 0),
        ("def draw(a):\n    print(len(a))\n    plt.show()\n\n\ndraw(a)", 0),
        ("b = measure()\nassert b < 3\nb", 0),
        ("b = measure()\nb", 1),
        ("print(a)", 1),
        ("b = measure()\nassert True\nb", 1),
        ("def draw(a):\n    plt.show()\n\n\ndraw(measure())", 1),
    ],
)
def test_an_ignored_output_that_nothing_bounds_is_stopped(code, complaints, sound):
    sound.cells.append(new_code_cell(code))
    assert rails.unbounded(sound) == []
    sound.cells[-1].metadata["tags"] = ["nbval-ignore-output"]
    assert len(rails.unbounded(sound)) == complaints


def test_a_number_typed_in_a_sentence_that_code_prints_is_stopped(sound):
    sound.cells.append(new_code_cell('Markdown(f"It is {a:,.2f} of " + f"**{b}** and 17 more")'))
    assert [complaint for complaint in rails.prose(sound) if "17" in complaint]
    sound.cells[-1].source = 'Markdown(f"It is {a:,.2f} of {round(b, 2)} lines")'
    assert rails.prose(sound) == []


def test_a_chapter_without_its_parts_is_stopped():
    chapter = CHAPTERS[0]
    for change, words in [
        (lambda cells: cells.pop(1), "setup cell"),
        (lambda cells: cells.pop(2), "page.opening"),
        (lambda cells: cells[3].update(source="**You will learn** nothing."), "You need"),
        (lambda cells: [c.update(source=c.source.replace("# Summary", "# Sum")) for c in cells], "'Summary'"),
        (lambda cells: [c.update(source=c.source.replace("# Exercise 1.1", "# Exercise 1.7")) for c in cells], "1.7"),
        (lambda cells: cells[0].update(source="A sentence."), "title"),
    ]:
        notebook = read(chapter)
        change(notebook.cells)
        assert any(words in complaint for complaint in rails.anatomy(notebook, chapter)), words


def test_nbval_stops_a_changed_output(sound, tmp_path):
    sound.cells = sound.cells[:3]
    sound.cells[1].source = "a = 20 + 1"
    assert nbval(sound, tmp_path / "sound.ipynb") == 0
    sound.cells[2].outputs = [result("43", 2)]
    assert nbval(sound, tmp_path / "broken_output.ipynb") == 1


def nbval(notebook, path) -> int:
    nbformat.write(notebook, path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "--nbval-current-env",
        path.name,
    ]
    return subprocess.run(command, cwd=path.parent, capture_output=True, timeout=120).returncode
