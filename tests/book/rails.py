"""The rails of the book: each takes a notebook (or Markdown) and returns complaints in plain words, or none.

nbval passes a notebook that was never run and skips pictures; these rails ask what it does not. `test_book.py` applies
them to every chapter, and to seeded mistakes, which they must find.
"""

import ast
import re
import tomllib
from pathlib import Path

import build_book

ROOT = Path(build_book.__file__).parent
LESSONS = ROOT / "lessons_py"
NOTEBOOKS = ROOT / "book"

SETUP = """# In Colab this installs the book's package; anywhere else it does nothing.
import sys

if "google.colab" in sys.modules:
    get_ipython().run_line_magic("pip", "install -q 'recbook[EXTRAS]==VERSION'")"""
SECTIONS = ["From page to package", "On real receipts", "Exercises", "Summary", "Further reading"]


# ---- the notebook and its outputs ----------------------------------------------------------------------------------


def code_cells(notebook) -> list:
    """The code cells that have code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def where(number: int, cell) -> str:
    """A code cell as the reader would find it: its position among the code cells, and its last line."""
    return f"code cell {number} ({cell.source.strip().splitlines()[-1][:60]!r})"


def never_run(notebook) -> list[str]:
    """Code cells without an execution count."""
    cells = enumerate(code_cells(notebook), start=1)
    return [f"{where(n, cell)} was never run" for n, cell in cells if cell.execution_count is None]


def out_of_order(notebook) -> list[str]:
    """Cells whose execution counts are not 1, 2, 3 … down the page: run out of order, or twice, or one taken out."""
    cells = enumerate(code_cells(notebook), start=1)
    return [
        f"{where(n, cell)} ran as number {cell.execution_count}, not {n}"
        for n, cell in cells
        if cell.execution_count not in (None, n)
    ]


def stale(notebook) -> list[str]:
    """Cells whose code, or code above them, is not what their outputs were made from (no clock survives a clone)."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pairs = enumerate(zip(cells, build_book.stamps(notebook), strict=True), start=1)
    return [
        f"{where(n, cell)}: its code, or code above it, is newer than its output (run: make refresh)"
        for n, (cell, stamp) in pairs
        if cell.source.strip() and cell.metadata.get("ran") != stamp
    ]


def failed(notebook) -> list[str]:
    """Tracebacks, and anything that a cell wrote to stderr: warnings and progress bars that a reader would see."""
    complaints = []
    for n, cell in enumerate(code_cells(notebook), start=1):
        complaints += [f"{where(n, cell)} failed: {o.ename}" for o in cell.outputs if o.output_type == "error"]
        noise = [o.text for o in cell.outputs if o.get("name") == "stderr"]
        complaints += [f"{where(n, cell)} wrote to stderr: {text[:60]!r}" for text in noise]
    return complaints


def outputs_missing(notebook) -> list[str]:
    """Cells that end with an expression and show nothing, figures without a picture, and reprs nobody wants to read."""
    complaints = []
    for n, cell in enumerate(code_cells(notebook), start=1):
        if cell.execution_count is None:
            continue  # never_run says so
        if shows_something(cell.source) and not cell.outputs:
            complaints.append(f"{where(n, cell)} ends with an expression and has no output")
        if "plt.show()" in cell.source and not any("image/png" in o.get("data", {}) for o in cell.outputs):
            complaints.append(f"{where(n, cell)} draws a figure and has no picture")
        for output in cell.outputs:
            plain = output.get("data", {}).get("text/plain", "")
            if "image/png" not in output.get("data", {}) and re.match(r"\[?<(Axes|matplotlib|Figure)|Text\(", plain):
                complaints.append(f"{where(n, cell)} shows a leftover: {plain[:40]!r}")
    return complaints


def shows_something(source: str) -> bool:
    """Whether a cell's last statement is an expression that the notebook would show."""
    body = ast.parse(source).body
    return bool(body) and isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";")


def unlike_lesson(notebook, lesson) -> list[str]:
    """Where the notebook differs from the one that its lesson describes: number of cells, kind, source or tags."""
    mine, theirs = notebook.cells, lesson.cells
    if len(mine) != len(theirs):
        return [f"the notebook has {len(mine)} cells, its lesson {len(theirs)} (run: make refresh)"]
    complaints = []
    for n, (cell, other) in enumerate(zip(mine, theirs, strict=True), start=1):
        if (cell.cell_type, cell.source) != (other.cell_type, other.source):
            complaints.append(f"cell {n} is not what the lesson says (run: make refresh)")
        elif cell.metadata.get("tags", []) != other.metadata.get("tags", []):
            complaints.append(f"cell {n} has other tags than in the lesson")
    return complaints


# ---- words ---------------------------------------------------------------------------------------------------------

DIRECTIVES = {
    r"^\s*:::": "a ::: directive",
    r"^\s*(?:```+|~~~+)\s*\{": "a directive in a fence",
    r"(?<![`\w])\{[a-z][\w:+.-]*\}`[^`]": "a role",
    r"^\s*\([\w-]+\)=\s*$": "a target",
    r"^\s*\+\+\+": "a block break",
    r"^\s*%(?!\w)": "a MyST comment",
    r"\{\{.*?\}\}": "a substitution",
    r"<div[^>]*class=[\"'][^\"']*admonition": "an admonition in HTML, which breaks the page",
}

# What may hold digits: everything that is not a sentence, and names that have digits in them.
NOT_PROSE = [
    r"^ {0,3}#{1,6} +(?:\d+(?:\.\d+)*[.:]? )?",  # the number of a heading
    r"\$\$.+?\$\$",
    r"\$[^$\n]+\$",
    r"(?<=\])\([^)\s]*(?:\s\"[^\"]*\")?\)",  # the addresses of links and images, not their words
    r"https?://\S+",
    r"<!--.*?-->",
    r"</?[a-zA-Z][^>]*>",
    r"^\s*\d+[.)] ",  # the numbers of a list
    r"\b(?:Chapters?|Exercises?|Parts?|Sections?) \d+(?:\.\d+)?(?:(?:,| and| to| or) \d+(?:\.\d+)?)*",
    r"\((?:[A-Z][^()\d]*)?(?:19|20)\d\d[a-z]?\)",  # (2019), (Steck, 2019)
    r"\bPython \d+\.\d+",
    r"\b[A-Za-z]+(?:[-@_]?[A-Za-z]*\d[\w.]*)+(?:-\w+)*",  # BM25, GPT-2, NDCG@10, int8, all-MiniLM-L6-v2
]

# A figure that hides as code or as a formula: nothing there but a metric, a percentage or a count of thousands.
FIGURE = r"-?(?:\d?\.\d{3,}|\d+(?:\.\d+)? ?\\?%|\d{1,3}(?:,\d{3})+)"
HIDDEN = rf"(`)\s*{FIGURE}\s*`|(?<![\\$])(\$)\s*(?:{FIGURE}|\d\d+|\d*\.\d+)\s*\$(?!\$)"
TITLES = {"print", "Markdown", "set_title", "suptitle", "title"}  # calls whose words a reader reads


def without_code(markdown: str) -> str:
    """Markdown less its code, fenced and inline."""
    text = re.sub(r"^( {0,3})(`{3,}|~{3,})(?!\s*\{).*?^ {0,3}\2\s*$", "", markdown, flags=re.M | re.S)
    return re.sub(r"(?<!\})(?<!`)(`{1,2})(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", "", text, flags=re.S)


def directives(markdown: str) -> list[str]:
    """Markup that only MyST understands: Colab and GitHub would show it as it stands."""
    text = without_code(markdown)
    found = []
    for pattern, name in DIRECTIVES.items():
        found += [f"{name}: {hit.group(0).strip()!r}" for hit in re.finditer(pattern, text, flags=re.M)]
    return found


def typed_numbers(markdown: str) -> list[str]:
    """Digits typed in a sentence. A figure must be printed by code, or it will be wrong one day."""
    text = without_code(markdown)
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.M | re.S)
    return [f"typed number: {hit.group(0).strip()!r}" for hit in re.finditer(r"\S*[ ]?\S*\d\S*(?:[ ]\S+)?", text)]


def hidden_figures(markdown: str) -> list[str]:
    """Figures typed alone in backticks or between dollars. Exercises may give such values; sentences may not."""
    text = re.sub(r"^( {0,3})(`{3,}|~{3,}).*?^ {0,3}\2\s*$", "", markdown, flags=re.M | re.S)
    return [f"typed number: {hit.group(0)!r}" for hit in re.finditer(HIDDEN, text)]


def printed_numbers(source: str) -> list[str]:
    """Digits typed in what a cell prints or writes over a figure, and in what it gives to `Markdown(…)`.

    In titles and prints single digits pass, and so do f-strings, whose figures are computed; in Markdown nothing does.
    """
    complaints = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = node.args if name in TITLES else []
        for text in [*words, *(word.value for word in node.keywords if word.arg == "title")]:
            found = typed_numbers("".join(_typed(text)))
            if name != "Markdown":
                computed = any(isinstance(part, ast.FormattedValue) for part in ast.walk(text))
                found = [] if computed else [complaint for complaint in found if re.search(r"\d\d|\.\d", complaint)]
            complaints += found
    return complaints


def displayed_text(source: str) -> list[str]:
    """The typed parts of what a cell gives to `Markdown(…)`: prose too, though it stands in a code cell."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [node for node in calls if getattr(node.func, "attr", getattr(node.func, "id", "")) == "Markdown"]
    return ["".join(_typed(argument)) for node in named for argument in node.args]


def _typed(node: ast.expr) -> list[str]:
    """The literal text of a string expression, in order; what is computed, and how it is formatted, is left out."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return [text for part in node.values for text in _typed(part)]
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Constant):
        return [str(node.value.value)]  # f"{17} lines" computes nothing
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return _typed(node.left) + _typed(node.right)
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"format", "join", "strip"}:
        return _typed(node.func.value)
    return []


def prose(notebook) -> list[str]:
    """Typed numbers and directives in the notebook's Markdown, and in the sentences that its code shows."""
    complaints, exercises = [], False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            exercises = exercises or re.search(r"^## Exercises\s*$", cell.source, re.M) is not None
            exercises = exercises and not re.search(r"^## (?!Exercises)", cell.source, re.M)
            complaints += [*directives(cell.source), *typed_numbers(cell.source)]
            complaints += [] if exercises else hidden_figures(cell.source)
        elif cell.cell_type == "code":
            complaints += printed_numbers(cell.source)
            for text in displayed_text(cell.source):
                complaints += [*directives(text), *hidden_figures(text)]
    return complaints


# ---- what nbval does not compare -----------------------------------------------------------------------------------


def unbounded(notebook) -> list[str]:
    """Cells that nbval is told to ignore and that bound nothing with an `assert`: whatever they showed would pass.

    The opening is free, since it shows a cost that has a test of its own; and so is a cell that only imports, loads by
    `workshop`, or plots what a cell before it measured and bounded.
    """
    cells = code_cells(notebook)
    plots = {name for cell in cells for name in plotting_functions(cell.source)}
    return [
        f"{where(n, cell)} is tagged nbval-ignore-output and asserts nothing about what it shows"
        for n, cell in enumerate(cells, start=1)
        if "nbval-ignore-output" in cell.metadata.get("tags", []) and not bounded(cell.source, plots)
    ]


def plotting_functions(source: str) -> list[str]:
    """The functions defined in a cell that end in a picture."""
    tree = ast.parse(source)
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and "plt.show()" in ast.unparse(node)]


def bounded(source: str, plots: set[str]) -> bool:
    """Whether a cell asserts something that can be false, or calls nothing that could bring in a new figure."""
    tree = ast.parse(source)
    if any(isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant) for node in ast.walk(tree)):
        return True
    body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    calls = [node for part in body for node in ast.walk(part) if isinstance(node, ast.Call)]
    free = {"workshop", "plt", "fig", "figure", "ax", "axes", *plots}
    return all(
        ast.unparse(call).startswith("page.opening(") or re.match(r"\w*", ast.unparse(call.func)).group(0) in free
        for call in calls
    )


# ---- a chapter's anatomy -------------------------------------------------------------------------------------------


def anatomy(notebook, chapter: str) -> list[str]:
    """What the book asks of every chapter, where it asks for it."""
    if len(notebook.cells) < 4:
        return ["there is no room for title, setup cell, opening and outcomes"]
    first, setup, opening, outcomes = (cell.source for cell in notebook.cells[:4])
    headings = re.findall(
        r"^#{2,3} (.+?)\s*$", "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"), re.M
    )
    complaints = []
    if not re.match(r"# .+\n\n\S", first):
        complaints.append("the first cell is not a title, an empty line and one sentence")
    if not same_setup(setup):
        complaints.append("the second cell is not the setup cell, word for word and at the package's version")
    if f'page.opening("{chapter}")' not in opening or "nbval-ignore-output" not in notebook.cells[2].metadata.get(
        "tags", []
    ):
        complaints.append(f'the third cell is not page.opening("{chapter}"), tagged nbval-ignore-output')
    complaints += [
        f"the fourth cell lacks {words!r}" for words in ("**You will learn**", "**You need**") if words not in outcomes
    ]
    complaints += [f"no section {name!r}" for name in SECTIONS if name not in headings]
    present = [name for name in headings if name in SECTIONS]
    if present != [name for name in SECTIONS if name in present]:
        complaints.append(f"the closing sections are out of order: {present}")
    return complaints + exercise_numbers(headings, chapter)


def exercise_numbers(headings: list[str], chapter: str) -> list[str]:
    """At least four exercises, numbered from 1 in the chapter's number."""
    numbers = [found.group(1) for heading in headings if (found := re.match(r"Exercise (\d+\.\d+): \S", heading))]
    wanted = [f"{int(chapter[:2])}.{n}" for n in range(1, max(4, len(numbers)) + 1)]
    return [] if numbers == wanted else [f"exercises {numbers}, not {wanted}"]


def same_setup(source: str) -> bool:
    """Whether a cell is the setup cell that all chapters share; only the extras that it installs may differ."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    pattern = re.escape(SETUP.replace("VERSION", version)).replace("EXTRAS", r"[a-z]+(?:,[a-z]+)*")
    return re.fullmatch(pattern, source.strip()) is not None
