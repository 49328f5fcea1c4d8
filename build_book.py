"""Run the chapters and render the book: `python build_book.py book | html | refresh [CHAPTER ...] | readme | lock`.

- `book` runs every lesson on copies under _build/, then renders those copies. It never writes to book/.
- `html` renders the notebooks of book/ as they stand, with their committed outputs.
- `refresh` turns lessons into the notebooks of book/, with outputs, and measures them (results/chapters.json).
- `readme` draws the README's scoreboard from results/, as `refresh` does in passing.
- `lock` writes constraints.txt anew: every package that the book and its tests install, at one version.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "_build"
CELL_TIMEOUT = 600  # seconds
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
    """The results files that a chapter may show: those whose names, or whole first words of them, stand in its code.

    results/chapters.json is left out: a refresh writes it, and only the openings show it, which have their own test.
    """
    texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant) and node.value}
    words = {text.rstrip("_") for text in texts if isinstance(text, str)}
    files = [path for path in sorted((ROOT / "results").glob("*.json")) if path.stem != "chapters"]
    return [path for path in files if any(f"{path.stem}_".startswith(f"{word}_") for word in words)]


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
    if not keep_data:
        os.environ.pop("RECBOOK_DATA", None)
    data = os.environ.get("RECBOOK_DATA", "")
    if data and Path(data).exists():
        os.environ["RECBOOK_DATA"] = str(Path(data).resolve())  # kernels run in another folder


def execute(notebook) -> tuple[float, float]:
    """Run the notebook's cells in place, in an empty folder; the seconds taken, and the kernel's peak memory in GB."""
    from nbclient import NotebookClient

    made_from = stamps(notebook)  # before the run: what changes while it runs is not what made the outputs
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT,
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
        seconds, peak = execute(notebook)
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
    """Write a notebook beside its place and rename it into place: half of one is never there."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    beside.replace(path)


# ---- measuring -----------------------------------------------------------------------------------------------------


def refresh(names: list[str]) -> None:
    """Run lessons into book/, each from nothing and on two cores, and keep what that cost in results/chapters.json."""
    if not Path("/proc/self/status").exists():
        raise SystemExit("refresh measures memory and cores as Linux shows them: run it on Linux (or in a container).")
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:2]))
    measured, start = {}, time.perf_counter()
    for chapter in names or chapters():
        with tempfile.TemporaryDirectory() as home:
            prepare(Path(home), keep_data=False)
            measured[chapter] = run_chapter(chapter, ROOT / "book")
    failed = [chapter for chapter, cost in measured.items() if cost is None]
    keep_costs({chapter: cost for chapter, cost in measured.items() if cost}, time.perf_counter() - start)
    for chapter in measured.keys() - set(failed):
        show_cost(ROOT / "book" / f"{chapter}.ipynb")
    readme()
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
    """The package's modules and their public functions and classes, with the first sentence of each docstring."""
    lines = []
    for path in sorted((ROOT / "recbook").glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines += [f"## `recbook.{path.stem}`", "", first_sentence(tree), ""]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                lines.append(f"- **`{node.name}`**: {first_sentence(node)}")
        lines.append("")
    return "\n".join(lines)


def first_sentence(node) -> str:
    """The first sentence of a module's, class's or function's docstring, on one line."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    return re.sub(r"([*_$|<])", r"\\\1", text) if "`" not in text else text


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


def lock() -> None:
    """Write constraints.txt: what pip would install for the book and its tests today, each package at one version.

    Local settings of pip are set aside, so that the lock holds what the public index has. It is what this interpreter
    on this system would install: run it on Linux, whose platform packages it then includes.
    """
    keep = {name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"}}
    pinned = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    options = ["install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", ".[test]", pinned]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *options],
        cwd=ROOT,
        env={**keep, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    names = {}
    for entry in json.loads(done.stdout)["install"]:
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
    again.add_argument("chapters", nargs="*", metavar="CHAPTER", help="such as 03_embeddings (default: all)")
    commands.add_parser("readme", help="draw the README's scoreboard from results/")
    commands.add_parser("lock", help="write constraints.txt anew")
    options = parser.parse_args()
    if options.command == "html":
        render(ROOT / "book", options.out.resolve())
    elif options.command == "refresh":
        refresh(options.chapters)
    else:
        {"book": book, "readme": readme, "lock": lock}[options.command]()


if __name__ == "__main__":
    main()
