"""What a result rests on: the code that made it, all that this code imports, and the data files that belong to it.

A chapter's outputs, a kept artifact and a measured figure are fresh as long as none of that has changed. Sources are
read, nothing is run. What a module imports at its top counts as soon as anything of it is used; what a function imports
counts only for code that mentions the function. So whoever asks `workshop` for receipts does not rest on the language
model that another function of `workshop` trains.
"""

import ast
import hashlib
import io
import re
import tokenize
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


class Source:
    """A piece of Python: its functions, its other statements, and what the names in it stand for."""

    def __init__(self, name: str, code: str):
        """`name` is the module's dotted name; code that is no module of the package may have any."""
        body = ast.parse(code).body
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.rest = [node for node in body if not isinstance(node, ast.FunctionDef)]
        self.names = {function: f"{name}.{function}" for function in self.functions}
        for node in self.rest:
            self.names |= _imported_names(node)

    def mentioned(self, node: ast.AST) -> set[str]:
        """The dotted names that a statement of this source imports or mentions, such as recbook.book.page.opening.

        A module whose whole name stands in a string, as for `python -m` or `import_module`, is mentioned too.
        """
        found, names = set(), self.names | _imported_names(node)  # what a function imports hides what its module does
        for part in ast.walk(node):
            if isinstance(part, ast.Import):
                found |= {alias.name for alias in part.names}
            elif isinstance(part, ast.ImportFrom):
                dotted = {f"{part.module}.{alias.name}" for alias in part.names}
                found |= {part.module or "", *filter(module, dotted)}  # a function counts where it is used
            elif isinstance(part, ast.Name | ast.Attribute):
                first, dot, rest = ast.unparse(part).partition(".")
                found |= {names[first] + dot + rest} if first in names else set()
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and module(part.value):
                found.add(part.value)
        return found

    def imported(self, node: ast.AST) -> set[str]:
        """The top names of the packages that a statement imports, wherever in it the import stands."""
        parts = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
        return {name.partition(".")[0] for part in parts for name in self.mentioned(part)}


def _imported_names(node: ast.AST) -> dict[str, str]:
    """What the names stand for that a statement imports, wherever in it the import stands."""
    names: dict[str, str] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{part.module}.{alias.name}" for alias in part.names}
        elif isinstance(part, ast.Import):
            names |= {alias.asname: alias.name for alias in part.names if alias.asname}
    return names


def module(name: str) -> tuple[Path, Source] | None:
    """The file and source of a module of the package, by its dotted name; None if that is no module."""
    if not re.fullmatch(rf"{PACKAGE.name}(\.\w+)*", name):
        return None
    place = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path, _source(name, path, path.stat().st_mtime_ns)
    return None


@cache
def _source(name: str, path: Path, written: int) -> Source:
    """A module's source, parsed again only if its file was written again."""
    return Source(name, path.read_text(encoding="utf-8"))


def reached(*starts: Source | str) -> tuple[dict[str, Path], set[str]]:
    """The modules that pieces of code rest on, by name, and the top names of all packages that they may import.

    A start is a `Source` (all of it counts), or the name of a module of the package (all of it) or of a function.
    """
    files: dict[str, Path] = {}
    packages: set[str] = set()
    waiting = [(start, [*start.rest, *start.functions.values()]) for start in starts if isinstance(start, Source)]
    asked, seen = {start for start in starts if isinstance(start, str)}, set()
    whole = {name for name in asked if module(name)}
    while waiting or asked:
        for source, nodes in waiting:
            for node in nodes:
                packages |= source.imported(node)
                asked |= source.mentioned(node)
        waiting, new = [], sorted(asked - seen)
        seen |= asked
        asked = set()
        for name in new:
            parent, _, last = name.rpartition(".")
            if found := module(name):
                files[name] = found[0]
                waiting.append((found[1], [*found[1].rest, *(found[1].functions.values() if name in whole else [])]))
            elif (found := module(parent)) and last in found[1].functions:
                waiting.append((found[1], [found[1].functions[last]]))
            if parent.startswith(PACKAGE.name):
                asked.add(parent)  # an attribute of a class or a constant; and a package's own __init__
    return files, packages


def data_files(modules: dict[str, Path]) -> list[Path]:
    """The data files that these modules read: those in a module's folder whose names stand in its source."""
    folders = {path.parent for path in modules.values()}
    near = {folder: [path for path in folder.iterdir() if path.suffix == ".json"] for folder in folders}
    texts = {path: path.read_text(encoding="utf-8") for path in modules.values()}
    return sorted({data for path, text in texts.items() for data in near[path.parent] if f'"{data.name}"' in text})


def fingerprint(*starts: Source | str, shown: bool = False) -> str:
    """The sha256 of the code that these starts rest on (see `reached`), their own apart, and of its data files.

    Comments, docstrings and layout make no difference, unless the code itself is `shown`, as it is on a page.
    """
    modules, _ = reached(*starts)
    digest = hashlib.sha256()
    for name, path in sorted(modules.items()):
        text = path.read_text(encoding="utf-8")
        digest.update(f"{name}\0{text if shown else bare(text)}\0".encode())
    for path in data_files(modules):
        digest.update(f"{path.name}\0{path.read_text(encoding='utf-8')}\0".encode())
    return digest.hexdigest()


def bare(code: str) -> str:
    """Code without comments, docstrings, empty lines and spaces at the ends of lines: what of a source can run."""
    lines = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    return "\n".join(line.rstrip() for line in lines if line.strip())
