"""What a result rests on: the code that made it, all that this code imports, and the data files that belong to it.

A chapter's outputs, a kept artifact and a measured figure are fresh as long as none of that has changed. Sources are
read, nothing is run. Of a module count its top statements and the functions that are mentioned by code that counts, and
of these what they import. So whoever asks `workshop` for receipts does not rest on the language model that another
function of `workshop` trains, nor on that function.
"""

import ast
import hashlib
import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent
WHOLE = ".*"  # after a module's name: all its functions count


class Source:
    """A piece of Python: its functions, its other statements, and what the names in it stand for."""

    def __init__(self, name: str, code: str):
        """`name` is the module's dotted name; code that is no module of the package may have any."""
        body = [node for node in ast.parse(code).body if not _only_for_types(node)]
        self.code = code
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.rest = [node for node in body if not isinstance(node, ast.FunctionDef)]
        self.names = {function: f"{name}.{function}" for function in self.functions}
        for node in self.rest:
            self.names |= _imported_names(node)

    def mentioned(self, node: ast.AST) -> set[str]:
        """The dotted names that a statement of this source imports or mentions, such as recbook.book.page.opening.

        A module that is used as an object (`getattr(module, name)`), or whose name stands in a string, as for
        `python -m`, counts whole: its name has `WHOLE` behind it.
        """
        found, names = set(), self.names | _imported_names(node)  # what a function imports hides what its module does
        owners = {id(part.value) for part in ast.walk(node) if isinstance(part, ast.Attribute)}
        for part in ast.walk(node):
            if isinstance(part, ast.Import):
                found |= {alias.name for alias in part.names}
            elif isinstance(part, ast.ImportFrom):
                dotted = {f"{part.module}.{alias.name}" for alias in part.names}
                found |= {part.module or "", *filter(module, dotted)}  # a function counts where it is used
                found |= {f"{part.module}{WHOLE}" for alias in part.names if alias.name == "*"}
            elif isinstance(part, ast.Name | ast.Attribute):
                first, dot, rest = ast.unparse(part).partition(".")
                if first in names:
                    name = names[first] + dot + rest
                    found.add(name + WHOLE if id(part) not in owners and module(name) else name)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and module(part.value):
                found.add(part.value + WHOLE)
        return found

    def imported(self, node: ast.AST) -> set[str]:
        """The top names of the packages that a statement imports, wherever in it the import stands."""
        parts = [part for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)]
        return {name.partition(".")[0] for part in parts for name in self.mentioned(part)}

    def text(self, functions: set[str]) -> str:
        """The code without its other functions."""
        lines = self.code.splitlines()
        for name, node in self.functions.items():
            if name not in functions:
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                last = node.end_lineno or first
                lines[first - 1 : last] = [""] * (last - first + 1)
        return "\n".join(lines)


class Reached(NamedTuple):
    """A module of the package that code rests on, and those of its functions that count."""

    path: Path
    source: Source
    functions: set[str]


def _only_for_types(node: ast.stmt) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, which never runs, so that no result can rest on it."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imported_names(node: ast.AST) -> dict[str, str]:
    """What the names stand for that a statement imports, wherever in it the import stands."""
    names: dict[str, str] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{part.module}.{alias.name}" for alias in part.names}
        elif isinstance(part, ast.Import):
            first = {alias.name.partition(".")[0] for alias in part.names if not alias.asname}
            names |= {name: name for name in first}
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


def reached(*starts: Source | str) -> tuple[dict[str, Reached], set[str]]:
    """The modules that pieces of code rest on, by name, and the top names of all packages that they may import.

    A start is a `Source`, or the name of a module of the package: all of it counts; or the name of a function.
    ValueError: a name that is neither, which would rest on nothing.
    """
    found: dict[str, Reached] = {}
    packages: set[str] = set()
    waiting = [(start, [*start.rest, *start.functions.values()]) for start in starts if isinstance(start, Source)]
    asked = {f"{start}{WHOLE}" if module(start) else start for start in starts if isinstance(start, str)}
    if unknown := sorted(name for name in asked if not name.endswith(WHOLE) and not _function(name)):
        raise ValueError(f"{unknown[0]} is neither a module of {PACKAGE.name} nor a function in one")
    seen: set[str] = set()
    while waiting or asked:
        for source, nodes in waiting:
            for node in nodes:
                packages |= source.imported(node)
                asked |= source.mentioned(node)
        waiting, new = [], sorted(asked - seen)
        seen |= asked
        asked = set()
        for name in new:
            parent, _, last = name.removesuffix(WHOLE).rpartition(".")
            if (own := module(name.removesuffix(WHOLE))) and name.removesuffix(WHOLE) not in found:
                found[name.removesuffix(WHOLE)] = Reached(*own, set())
                waiting.append((own[1], own[1].rest))
            if own and name.endswith(WHOLE):
                found[name.removesuffix(WHOLE)].functions.update(own[1].functions)
                waiting.append((own[1], list(own[1].functions.values())))
            elif not own and (function := _function(name)):
                if parent not in found:
                    found[parent] = Reached(*function, set())
                    waiting.append((function[1], function[1].rest))
                found[parent].functions.add(last)
                waiting.append((function[1], [function[1].functions[last]]))
            if parent.startswith(PACKAGE.name):
                asked.add(parent)  # an attribute of a class or a constant; and a room's own __init__
    return found, packages


def _function(name: str) -> tuple[Path, Source] | None:
    """The file and source of the module that has a function of this dotted name."""
    parent, _, last = name.rpartition(".")
    owner = module(parent)
    return owner if owner and last in owner[1].functions else None


def data_files(modules: dict[str, Reached]) -> list[Path]:
    """The data files of the rooms that these modules stand in: all in their folders that is no Python."""
    folders = {found.path.parent for found in modules.values()} - {PACKAGE}
    return sorted(path for folder in folders for path in folder.iterdir() if path.is_file() and path.suffix != ".py")


def fingerprint(*starts: Source | str, shown: bool = False) -> str:
    """The sha256 of the code that these starts rest on (see `reached`), `Source`s themselves apart, and of its data.

    Comments, docstrings, empty lines and the package's version make no difference, unless the code itself is `shown`,
    as it is on a page. ValueError: see `reached`.
    """
    modules, _ = reached(*starts)
    digest = hashlib.sha256()
    for name, found in sorted(modules.items()):
        text = found.source.text(found.functions)
        if shown or name != PACKAGE.name:
            digest.update(f"{name}\0{text if shown else bare(text)}\0".encode())
    for path in data_files(modules):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def bare(code: str) -> str:
    """Code without comments, docstrings, empty lines and spaces at the ends of lines; texts in it stay as they are."""
    lines, kept, begun = code.splitlines(), set(), 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        row, kind = token.start[0], tokenize.tok_name[token.type]
        if kind == "COMMENT":
            lines[row - 1] = lines[row - 1][: token.start[1]]
        begun = row if kind == "FSTRING_START" else begun  # Python 3.12 and later take f-strings apart
        if kind in ("STRING", "FSTRING_END"):
            kept |= set(range(begun if kind == "FSTRING_END" else row, token.end[0]))  # lines that end inside a text
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            text = node.body[0]
            first, last = text.lineno, text.end_lineno or text.lineno
            before, after = lines[first - 1][: text.col_offset], lines[last - 1][text.end_col_offset :]
            lines[first - 1 : last] = [before + after, *[""] * (last - first)]
            kept -= set(range(first, last + 1))
    numbered = enumerate(lines, start=1)
    return "\n".join(line if row in kept else line.rstrip() for row, line in numbered if row in kept or line.strip())
