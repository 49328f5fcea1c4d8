"""Run the chapters and render the book: `python build_book.py book | html | refresh | bench | readme | lock`.

- `book` runs every lesson on copies under _build/, then renders those copies. It never writes to book/.
- `html` renders the notebooks of book/ as they stand, with their committed outputs.
- `refresh` turns lessons into the notebooks of book/, with outputs, and measures them (results/chapters.json): those
  whose outputs come from other code, figures or data files than today's, or the ones that are named, or all.
- `bench` measures the figures of results/ whose code or data has changed since: see benchmarks/plan.txt.
- `readme` draws the README's scoreboard from results/, as `refresh` does in passing.
- `lock` writes constraints.txt anew: every package that the book and its tests install, at one version.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "_build"
PATIENCE = 10  # times as long as last measured a chapter's cell may take, on a machine that is busy with other work
BOARD = "<!-- scoreboard -->", "<!-- /scoreboard -->"  # in the README: between them stands what `board` draws
CHAIN = "system_scoreboard_online-retail"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


# ---- chapters ------------------------------------------------------------------------------------------------------


def chapters() -> list[str]:
    """The names of the chapters, such as "01_cleaning", in the order of the book."""
    return sorted(path.stem for path in (ROOT / "lessons_py").glob("[0-9][0-9]_*.py"))


def lesson(chapter: str):
    """The notebook that a lesson describes: no outputs yet, and nothing in it that differs from one run to the next."""
    import jupytext

    path = ROOT / "lessons_py" / f"{chapter}.py"
    if not path.exists():
        raise SystemExit(f"There is no chapter {chapter!r}; the chapters are: {', '.join(chapters()) or 'none yet'}.")
    notebook = jupytext.read(path)
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = f"{digest}-{seen[digest]}"  # follows from the text, so that a diff shows only what changed
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
    return notebook


def foundations(notebook) -> bytes:
    """A hash of what a chapter's outputs are made from beside its code: the modules it rests on, the results it shows.

    Of the package, what the chapter imports, and what that imports in turn, counts with comments and docstrings, since
    pages show sources; so do the data files of those modules, and the checks of the chapter's exercises.
    """
    from recbook import freshness

    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    topics = re.findall(r'page\.opening\("\d\d_(\w+)"\)', code)
    starts = [freshness.Source("chapter", code), *(f"recbook.book.exercises.{topic}" for topic in topics)]
    digest = hashlib.sha256(freshness.fingerprint(*starts, shown=True).encode())
    for path in shown_results(code):
        digest.update(f"{path.name}\0{path.read_text(encoding='utf-8')}\0".encode())
    return digest.digest()


def shown_results(code: str) -> list[Path]:
    """The results files that a chapter may show: those whose names, or beginnings with a "_", stand in its code.

    results/chapters.json is left out: a refresh writes it, and only the openings show it, which have their own test.
    """
    texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant) and node.value}
    names = {text for text in texts if isinstance(text, str)}
    begins = tuple(name for name in names if "_" in name)  # a plain word may be a column's or a label
    files = [path for path in sorted((ROOT / "results").glob("*.json")) if path.stem != "chapters"]
    return [path for path in files if path.stem in names or path.stem.startswith(begins)]


def stamps(notebook) -> list[str]:
    """For each code cell, a hash of its code, all code before it and the `foundations`: what its outputs come from."""
    chain, result = hashlib.sha256(foundations(notebook)), []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            chain.update(cell.source.encode() + b"\0")
            result.append(chain.hexdigest()[:16])
    return result


def title(notebook) -> str:
    """The words of the notebook's first heading."""
    return re.search(r"^# (.+)$", notebook.cells[0].source, re.M).group(1).strip()


# ---- running -------------------------------------------------------------------------------------------------------


def prepare(home: Path, keep_data: bool) -> None:
    """Give the kernels to come a folder for their artifacts, and the embedded shop unless the user named receipts."""
    home.mkdir(parents=True, exist_ok=True)
    os.environ["RECBOOK_HOME"] = str(home)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("MPLBACKEND", None)  # a backend without inline pictures would leave the chapters without any
    if not keep_data:  # outputs of the book are those of its defaults
        for name in ("RECBOOK_DATA", "RECBOOK_SCALE", "RECBOOK_PRODUCT_CODE", "RECBOOK_DATE_FORMAT", "OPENAI_MODEL"):
            os.environ.pop(name, None)
    data = os.environ.get("RECBOOK_DATA", "")
    if data and Path(data).exists():
        os.environ["RECBOOK_DATA"] = str(Path(data).resolve())  # kernels run in another folder


def patience(chapter: str) -> int:
    """The seconds that one cell of a chapter may take: ten times what the whole chapter took last, or ten minutes."""
    from recbook.baselines.results import has_results, load_results

    rows = load_results("chapters")["rows"] if has_results("chapters") else []
    seconds = [row["value"] for row in rows if (row["chapter"], row["metric"]) == (chapter, "seconds")]
    return round(max(600, PATIENCE * max(seconds, default=0)))


def execute(notebook, timeout: int = 600) -> tuple[float, float]:
    """Run the notebook's cells in place, in an empty folder; the seconds taken, and the kernel's peak memory in GB.

    `timeout`: seconds that a cell may take.
    """
    from nbclient import NotebookClient

    made_from = stamps(notebook)  # before the run: what changes while it runs is not what made the outputs
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            extra_arguments=["--log-level=40"],  # errors only: what the kernel's own log says is not for readers
            resources={"metadata": {"path": empty}},
        )
        start = time.perf_counter()
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                try:
                    client.execute_cell(cell, index)
                except Exception as error:
                    error.add_note(cell.source)  # `failure` shows it
                    raise
            seconds = time.perf_counter() - start
            peak = peak_gigabytes(client.km.provisioner.pid)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, stamp in zip(code, made_from, strict=True):
        cell.metadata["ran"] = stamp
    return seconds, peak


def peak_gigabytes(process: int) -> float:
    """The most memory that a process ever held, in GB (10^9 bytes); nan where the system has no /proc."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text()).group(1)) * 1024 / 1e9


def run_chapter(chapter: str, folder: Path) -> tuple[float, float] | None:
    """Run a lesson, write its notebook into `folder`, print one line; seconds and peak GB, or None if a cell failed."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    print(f"  {chapter:<20}", end="", flush=True)
    notebook, start = lesson(chapter), time.perf_counter()
    try:
        seconds, peak = execute(notebook, patience(chapter))
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{time.perf_counter() - start:6.1f} s  FAILED\n{failure(error)}", flush=True)
        return None
    write(notebook, folder / f"{chapter}.ipynb")
    print(f"{seconds:6.1f} s  ok, {peak:.2f} GB at most", flush=True)
    return seconds, peak


def failure(error: Exception) -> str:
    """The code of the cell that failed, which `execute` noted on the error, and the error itself, indented."""
    name, what = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error).splitlines()[0])
    lines = ["in the cell", *(f"    {line}" for line in error.__notes__[-1].splitlines()), f"{name}: {what}"]
    return "\n".join(f"      {line}" for line in lines)


def write(notebook, path: Path) -> None:
    """Write a notebook, whole or not at all."""
    import nbformat

    from recbook.storage import whole_file

    with whole_file(path) as file:
        file.write((nbformat.writes(notebook) + "\n").encode())


# ---- measuring -----------------------------------------------------------------------------------------------------


def fresh(chapter: str) -> bool:
    """Whether the notebook in book/ has the code of its lesson, and its outputs come from that code as it stands."""
    import nbformat

    path = ROOT / "book" / f"{chapter}.ipynb"
    if not path.exists():
        return False
    kept = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    wanted = lesson(chapter)
    code = [cell for cell in wanted.cells if cell.cell_type == "code"]
    same = [cell.source for cell in kept] == [cell.source for cell in code]
    return same and [cell.metadata.get("ran") for cell in kept] == stamps(wanted)


def carry_over(chapter: str) -> None:
    """Write the lesson's prose into its notebook, whose outputs are fresh: nothing needs to run again."""
    import nbformat

    path = ROOT / "book" / f"{chapter}.ipynb"
    kept, wanted = nbformat.read(path, as_version=4), lesson(chapter)
    outputs = iter([cell for cell in kept.cells if cell.cell_type == "code"])
    for cell in wanted.cells:
        if cell.cell_type == "code":
            old = next(outputs)
            cell.outputs, cell.execution_count, cell.metadata["ran"] = (
                old.outputs,
                old.execution_count,
                old.metadata["ran"],
            )
    if wanted != kept:
        write(wanted, path)


def refresh(names: list[str]) -> None:
    """Run lessons into book/, each from nothing and on two cores, and keep what that cost in results/chapters.json.

    Without names those that are not `fresh`; of the others only the prose is brought up to date.
    """
    stale = names or [chapter for chapter in chapters() if not fresh(chapter)]
    for chapter in set(chapters()) - set(stale):
        if not names:
            carry_over(chapter)
    print(f"To run: {', '.join(stale) or 'none, all outputs are fresh'}", flush=True)
    if stale:
        run_into_book(stale)
    readme()


def run_into_book(names: list[str]) -> None:
    """Run these lessons into book/ and measure them."""
    if not Path("/proc/self/status").exists():
        raise SystemExit("refresh measures memory and cores as Linux shows them: run it on Linux (or in a container).")
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
    measured, start = {}, time.perf_counter()
    for chapter in names:
        with tempfile.TemporaryDirectory() as home:
            prepare(Path(home), keep_data=False)
            measured[chapter] = run_chapter(chapter, ROOT / "book")
    failed = [chapter for chapter, cost in measured.items() if cost is None]
    keep_costs({chapter: cost for chapter, cost in measured.items() if cost}, time.perf_counter() - start)
    for chapter in measured.keys() - set(failed):
        show_cost(ROOT / "book" / f"{chapter}.ipynb")
    if failed:
        raise SystemExit(f"Failed, and left as they were in book/: {', '.join(failed)}.")


def readme() -> None:
    """Draw the README's scoreboard anew."""
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    begin, end = (text.index(mark) for mark in BOARD)
    path.write_text(text[: begin + len(BOARD[0])] + f"\n\n{board()}\n\n" + text[end:], encoding="utf-8")


def board() -> str:
    """The whole chain on the real log as a table in Markdown, from results/; a sentence, if it is not measured."""
    from recbook.baselines import evaluation
    from recbook.baselines.results import has_results, load_results

    if not has_results(CHAIN):
        return "The whole chain is not yet measured: `make bench`."
    rows = [row for row in load_results(CHAIN)["rows"] if "method" in row]  # the others are of the data
    cells = {(row["method"], row["metric"], row.get("split", "all")): row for row in rows}
    lines = [
        "| method | all | repeat | explore | coverage | diversity | ms | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row["method"] for row in rows):
        ndcg = [cells[method, "ndcg@10", part] for part in evaluation.PARTS]
        judged = [f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" for cell in ndcg]
        rest = [cells[method, f"{name}@10", "all"]["value"] for name in ("coverage", "diversity")]
        costs = [cells[method, name, "all"]["value"] for name in ("milliseconds a shopper", "megabytes kept")]
        shown = [method, *judged, f"{rest[0]:.0%}", f"{rest[1]:.2f}", f"{costs[0]:.1f}", f"{costs[1]:.1f}"]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def keep_costs(measured: dict[str, tuple[float, float]], seconds: float) -> None:
    """Put seconds and peak memory of the chapters just run beside those of the others in results/chapters.json."""
    from recbook.baselines.results import describe_data, has_results, load_results, save_results
    from recbook.book import workshop

    kept = load_results("chapters")["rows"] if has_results("chapters") else []
    rows = [row for row in kept if row["chapter"] in chapters() and row["chapter"] not in measured]
    for chapter, (duration, peak) in measured.items():
        rows.append({"chapter": chapter, "metric": "seconds", "value": round(duration, 1)})
        rows.append({"chapter": chapter, "metric": "peak_gb", "value": round(peak, 2)})
    data = describe_data(workshop.raw_receipts(), workshop.data_name())
    rows.sort(key=lambda row: (row["chapter"], row["metric"]))
    save_results("chapters", rows, command="make refresh", data=data, seconds=round(seconds, 1))


def show_cost(path: Path) -> None:
    """Run a notebook's opening again: it states the cost, which is known only after the whole chapter has run."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    opening = next((n for n, cell in enumerate(code) if "page.opening(" in cell.source), None)
    if opening is None:
        return
    again = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.source) for cell in code[: opening + 1]], metadata=notebook.metadata
    )
    execute(again)
    code[opening].outputs = again.cells[opening].outputs
    write(notebook, path)


# ---- figures -------------------------------------------------------------------------------------------------------


def plan() -> list[tuple[str, str]]:
    """The names of the results files and the commands that write them: benchmarks/plan.txt. REAL: the real receipts."""
    lines = (ROOT / "benchmarks" / "plan.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]


def why_stale(name: str, command: str) -> str:
    """Why a figure must be measured again, in a few words; nothing where code, options and data are what they were.

    The embedded shop is part of the code.
    """
    from recbook.baselines import results

    if not results.has_results(name):
        return "not yet measured"
    kept = results.load_results(name)
    if not kept.get("code"):
        return "measured without a record of its code"
    if kept["code"] != results.code_behind(command):
        return "its code has changed"
    if options_of(kept["command"]) != options_of(command):
        return "it was measured with other options"
    if "REAL" in command.split() and kept["data"]["sha256"] != results.ONLINE_RETAIL_SHA256:
        return "it was measured on other receipts"
    return ""


def options_of(command: str) -> list[str]:
    """A command's words, in no order, without where its receipts and its model lie on this machine."""
    return sorted(shlex.split(re.sub(r"--(data|real|model) ('[^']*'|\S+)", "", command)))


def call(command: list[str]) -> None:
    """Run a command in the repository; CalledProcessError if it fails."""
    subprocess.run(command, cwd=ROOT, check=True)


def bench(real: str, only_list: bool = False) -> None:
    """Run the commands of the plan whose figures are not fresh, or only say which those are.

    Of other receipts than Online Retail there are no figures on record: all that takes the real receipts is measured.
    """
    from recbook.baselines.results import describe_data
    from recbook.cleaning.load import load_receipts

    receipts = str(Path(real).resolve()) if Path(real).exists() else real
    others = real != "online-retail" and describe_data(load_receipts(real), real)["name"] != "Online Retail"
    before: list[str] = []  # commands that prepare the next one
    for name, command in plan():
        if name == "-":
            before.append(command)
            continue
        why = "other receipts" if others and "REAL" in command.split() else why_stale(name, command)
        if why:
            print(f"{name}: {why}", flush=True)
        for step in [*before, command] if why and not only_list else []:
            program, *words = (receipts if word == "REAL" else word for word in shlex.split(step))
            start = [sys.executable] if program == "python" else [sys.executable, "-m", "recbook.cli"]
            call([*start, *words])
        before = []


# ---- rendering -----------------------------------------------------------------------------------------------------


def repository() -> str:
    """The repository's address, from the one place where it stands: pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]


def run_times() -> str:
    """A table of what each chapter costs, from results/chapters.json, in Markdown."""
    path = ROOT / "results" / "chapters.json"
    if not path.exists():
        return "Not measured yet: `make refresh` runs the chapters and measures them."
    results = json.loads(path.read_text(encoding="utf-8"))
    figures = {(row["chapter"], row["metric"]): row["value"] for row in results["rows"]}
    lines = ["| chapter | seconds | most memory held |", "|:--|--:|--:|"]
    for chapter in chapters():
        if (chapter, "seconds") in figures:
            seconds, peak = figures[chapter, "seconds"], figures[chapter, "peak_gb"]
            lines.append(f"| [{title(lesson(chapter))}]({chapter}.ipynb) | {seconds:.0f} | {peak:.1f} GB |")
    return "\n".join([*lines, "", f"Measured on {results['machine']}, by `{results['command']}`."])


def api() -> str:
    """The package by chapter, in the book's order, then what has no chapter, in the order of import; in Markdown."""
    taught = {chapter[3:]: f"{int(chapter[:2])}. {title(lesson(chapter))}" for chapter in chapters()}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    imported_first = re.findall(r"\w+", " ".join(reversed(layers)))
    lines = []
    for name in dict.fromkeys([*taught, *imported_first]):
        room = ROOT / "recbook" / name
        heading = f"## {taught.get(name, f'`{name}`')}"
        if room.with_suffix(".py").exists():
            lines += [heading, "", *module_api(room.with_suffix(".py"))]
        elif room.is_dir():
            lines += [heading, "", linked(plain(docstring(room / "__init__.py"))), ""]
            for path in reading_order(room):
                lines += [f"### `{module_name(path).rpartition('.')[2]}`", "", *module_api(path)]
    return "\n".join(lines)


def reading_order(room: Path) -> list[Path]:
    """The modules of a room in the order in which the docstring of the room names them."""
    named = dict.fromkeys(re.findall(r"`(\w+)`", docstring(room / "__init__.py")))
    files = [path for name in named for path in (room / f"{name}.py", room / name / "__init__.py")]
    return [path for path in files if path.exists()]


def module_name(path: Path) -> str:
    """A module's name with dots, such as "recbook.cleaning.load"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def module_api(path: Path) -> list[str]:
    """What a module says of itself, and a list of its public functions and classes with their public methods."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [f"`{module_name(path)}`\\", plain(docstring(path).split("\n\n")[0]), ""]
    for node in public(tree):
        lines.append(entry(node))
        if isinstance(node, ast.ClassDef):
            lines += ["  " + entry(method).replace("\n", "\n  ") for method in public(node)]
    return [*lines, ""]


def public(node) -> list:
    """The functions and classes in the body of a module or class whose names do not begin with an underscore."""
    found = [inner for inner in node.body if isinstance(inner, ast.FunctionDef | ast.ClassDef)]
    return [inner for inner in found if inner.name[0] != "_" and ".setter" not in decorators(inner)]


def entry(node) -> str:
    """A function, class or method as an item of a list in Markdown: its signature, below it what it does."""
    called = f"`{text}`".replace("'", '"') if (text := signature(node)) else ""
    return f"- **`{node.name}`**{called}\\\n  {first_sentence(node)}"


def signature(node) -> str:
    """A function's parameters and what it returns, or those of a class, if it has any; a property's type."""
    if isinstance(node, ast.ClassDef):
        makes = [inner for inner in node.body if isinstance(inner, ast.FunctionDef) and inner.name == "__init__"]
        fields = [ast.unparse(inner) for inner in node.body if isinstance(inner, ast.AnnAssign)]
        text = ", ".join(parameters(makes[0].args) if makes else fields)
        return f"({text})" if text else ""
    returns = ast.unparse(node.returns) if node.returns else ""
    if "property" in decorators(node):
        return f": {returns}"
    return f"({', '.join(parameters(node.args))})" + (f" -> {returns}" if returns else "")


def parameters(given: ast.arguments) -> list[str]:
    """The parameters of a function as they are written, without `self` and `cls`."""

    def written(parameter: ast.arg, default: ast.expr | None) -> str:
        equals = " = " if parameter.annotation else "="
        return ast.unparse(parameter) + (equals + ast.unparse(default) if default else "")

    defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    found = [written(*pair) for pair in zip(given.args, defaults, strict=True)]
    if given.vararg or given.kwonlyargs:
        found.append("*" + (ast.unparse(given.vararg) if given.vararg else ""))
    found += [written(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    found += ["**" + ast.unparse(given.kwarg)] if given.kwarg else []
    return found[1:] if found[:1] in (["self"], ["cls"]) else found


def decorators(node) -> str:
    """The decorators of a function or class, in one line."""
    return " ".join(ast.unparse(decorator) for decorator in node.decorator_list)


def docstring(path: Path) -> str:
    """The docstring of a module."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def first_sentence(node) -> str:
    """The first sentence of a module's, class's or function's docstring, on one line, safe in Markdown."""
    paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
    return plain(re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0])


def plain(text: str) -> str:
    """Words of a docstring on one line, with what Markdown would take for markup escaped, but for code."""
    return re.sub(r"(`[^`]*`)|([*_$|<\[])", lambda hit: hit[1] or "\\" + hit[2], " ".join(text.split()))


def linked(text: str) -> str:
    """The text with each "Chapter 7" as a link to that chapter, where it is written."""
    notebooks = {int(chapter[:2]): f"{chapter}.ipynb" for chapter in chapters()}
    return re.sub(
        r"Chapter (\d+)", lambda hit: f"[{hit[0]}]({notebooks[n]})" if (n := int(hit[1])) in notebooks else hit[0], text
    )


def shop_tables() -> dict[str, str]:
    """The tables of book/shop.md, in Markdown, from results/shop_fidelity.json."""
    rows = json.loads((ROOT / "results" / "shop_fidelity.json").read_text(encoding="utf-8"))["rows"]
    facts: dict[str, dict] = {}
    methods: dict[str, dict] = {}
    taus: dict[int, dict] = {}
    for row in rows:
        if row.get("fact", "").startswith("Kendall"):
            taus.setdefault(row["seed"], {})[row["fact"].rpartition(" ")[2]] = row["value"]
        elif "fact" in row:
            facts.setdefault(row["fact"], {})[row["log"]] = row["value"]
        elif row["split"] in ("all", "explore"):
            methods.setdefault(row["method"], {})[row["log"], row["split"]] = row["value"]
    logs = ("Online Retail", "embedded shop")

    def table(head: list[str], body: list[list[str]]) -> str:
        return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["--"] + ["--:"] * (len(head) - 1), *body])

    def short(value: float) -> str:
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

    columns = [(log, part) for part in ("all", "explore") for log in logs]
    return {
        "shop facts": table(
            ["fact", *logs],
            [[fact, *(short(of[log]) if log in of else "" for log in logs)] for fact, of in facts.items()],
        ),
        "shop methods": table(
            ["`NDCG@10`", *(f"{'real' if log == logs[0] else 'shop'}, {part}" for log, part in columns)],
            [[method, *(f"{of[column]:.3f}" for column in columns)] for method, of in methods.items()],
        ),
        "shop tau": table(
            ["seed", "all products", "new to the shopper"],
            [[str(seed), f"{of['all']:.2f}", f"{of['explore']:.2f}"] for seed, of in taus.items()],
        ),
    }


def stage(notebooks: Path, source: Path) -> None:
    """Lay out in `source` what Jupyter Book reads: pages, notebooks, settings with the address, measured figures."""
    import yaml

    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source, ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for notebook in sorted(notebooks.glob("*.ipynb")):
        shutil.copy(notebook, source)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    config["repository"] = {**config.get("repository", {}), "url": repository()}
    (source / "_config.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    shutil.copy(ROOT / "_toc.yml", source)
    for mark, text in {"run times": run_times(), "api": api(), **shop_tables()}.items():
        for page in source.glob("*.md"):
            content = page.read_text(encoding="utf-8")
            if f"<!-- {mark} -->" in content:
                page.write_text(content.replace(f"<!-- {mark} -->", text), encoding="utf-8")


def render(notebooks: Path, where: Path) -> None:
    """Render the book into `where`/_build/html with warnings as errors, and say where its first page is."""
    source, html, start = where / "_build" / "source", where / "_build" / "html", time.perf_counter()
    missing = [chapter for chapter in chapters() if not (notebooks / f"{chapter}.ipynb").exists()]
    if missing:
        raise SystemExit(
            f"No notebook yet for {', '.join(missing)}. Make it: python build_book.py refresh {missing[0]}"
        )
    stage(notebooks, source)
    shutil.rmtree(html, ignore_errors=True)
    program = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["build", str(source), "--path-output", str(where), "--warningiserror", "--keep-going", "--all", "-q"]
    done = subprocess.run([sys.executable, "-c", program, *options], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"The book does not render:\n{done.stdout}\n{done.stderr}")
    shutil.rmtree(source)
    print(f"Rendered in {time.perf_counter() - start:.0f} s. Open {html / 'index.html'}")


def book() -> None:
    """Run every chapter on a copy, render the copies, say how long each took; exit with an error if one failed."""
    prepare(BUILD / "home", keep_data=True)
    folder, names = BUILD / "chapters", chapters()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Running {len(names)} chapters on {os.environ.get('RECBOOK_DATA') or 'the embedded shop'}:", flush=True)
    costs = {chapter: run_chapter(chapter, folder) for chapter in names}
    failed = [chapter for chapter, cost in costs.items() if cost is None]
    if failed:
        raise SystemExit(f"Not rendered, since {', '.join(failed)} failed (see above).")
    render(folder, ROOT)
    for chapter, (seconds, _) in costs.items():
        print(f"  {chapter:<20}{seconds:6.1f} s")
    print(f"  {'in all':<20}{sum(seconds for seconds, _ in costs.values()):6.1f} s")


# ---- locking -------------------------------------------------------------------------------------------------------


# Runs pip as if its Python were of the version that the first argument names. `--python-version` alone chooses releases
# by it, but leaves markers such as `python_version < "3.12"` to the Python that runs pip.
PIP_AS = """
import platform, runpy, sys
version = sys.argv.pop(1)
platform.python_version, platform.python_version_tuple = lambda: version, lambda: tuple(version.split("."))
runpy.run_module("pip", run_name="__main__")
"""


def oldest_python() -> str:
    """The first release of the oldest Python that pyproject.toml promises, such as "3.11.0"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["requires-python"].removeprefix(">=") + ".0"


def resolve(python: str, *wanted: str) -> dict:
    """What pip would install today of what is wanted, and all that needs, for that Python (wheels only): its report.

    Local settings of pip are set aside, so that it holds what the public index has.
    """
    keep = {name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"}}
    # pip resolves for another Python only without sources, and into a folder of its own, which a dry run never makes
    other = ["--python-version", python, "--only-binary", ":all:", "--target", str(BUILD / "lock")]
    options = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", *other, *wanted]
    done = subprocess.run(
        [sys.executable, "-c", PIP_AS, python, *options],
        cwd=ROOT,
        env={**keep, "PIP_CONFIG_FILE": os.devnull},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    if (used := report["environment"]["python_full_version"]) != python:
        raise SystemExit(f"This pip resolves for Python {used}, not {python}: PIP_AS no longer tells it the version.")
    return report


def lock() -> None:
    """Write constraints.txt: what pip would install for the book and its tests today, each package at one version.

    It is for the `oldest_python`, whichever runs this: no release in it wants a newer one. And it is what this system
    would install: run it on Linux, whose platform packages it then includes.
    """
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    report = resolve(oldest_python(), ".[test]", pinned)
    names = {}
    for entry in report["install"]:
        name = re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower()
        names[name] = entry["metadata"]["version"].partition("+")[0]
    names.pop("recbook")
    head = (
        "# The lock of `make book` and `make test` on Linux; made by `make lock`, never by hand (but for torch's "
        "version). Other systems add their own platform packages, unlocked.\n"
    )
    text = head + "".join(f"{name}=={version}\n" for name, version in sorted(names.items()))
    (ROOT / "constraints.txt").write_text(text, encoding="utf-8")
    print(f"constraints.txt: {len(names)} packages")


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("book", help="run every chapter on a copy, and render")
    html = commands.add_parser("html", help="render the committed outputs")
    html.add_argument("--out", type=Path, default=ROOT, help="folder that gets _build/html (default: the repository)")
    again = commands.add_parser("refresh", help="run lessons into book/ and measure them")
    again.add_argument("chapters", nargs="*", metavar="CHAPTER", help="such as 03_embeddings (default: the stale ones)")
    again.add_argument("--all", action="store_true", help="all chapters, stale or not")
    measure = commands.add_parser("bench", help="measure the figures of results/ that are not fresh")
    measure.add_argument(
        "--real", default="online-retail", metavar="RECEIPTS", help="the real receipts, if you have them"
    )
    measure.add_argument("--list", action="store_true", help="only say which commands would run, and why")
    commands.add_parser("readme", help="draw the README's scoreboard from results/")
    commands.add_parser("lock", help="write constraints.txt anew")
    options = parser.parse_args()
    if options.command == "html":
        render(ROOT / "book", options.out.resolve())
    elif options.command == "refresh":
        refresh(chapters() if options.all else options.chapters)
    elif options.command == "bench":
        bench(options.real, options.list)
    else:
        {"book": book, "readme": readme, "lock": lock}[options.command]()


if __name__ == "__main__":
    main()
