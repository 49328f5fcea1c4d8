"""The page of the package, and what the pages around the chapters say of rooms, modules, names and files."""

import ast
import re
import textwrap

import pytest

import build_book

ROOT = build_book.ROOT
ROOMS = sorted(path.parent for path in (ROOT / "recbook").glob("*/__init__.py"))
MODULES = sorted(
    path for path in (ROOT / "recbook").rglob("*.py") if path.name != "__init__.py" and path.parent.name != "exercises"
)
MODULES.append(ROOT / "recbook" / "book" / "exercises" / "__init__.py")  # beside it are the answers: not on the page
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *sorted((ROOT / "book").glob("*.md"))]


@pytest.fixture(scope="module")
def page() -> str:
    return build_book.api()


def section(page: str, module: str) -> str:
    """What the page says of one module."""
    return re.split(r"^##", page.split(f"\n`{module}`\\\n")[1], maxsplit=1, flags=re.M)[0]


# ---- the page of the package ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_names_its_modules_in_their_order_of_reading(room):
    held = {path for path in room.glob("*.py") if path.name != "__init__.py"} | set(room.glob("*/__init__.py"))
    order = build_book.reading_order(room)
    assert set(order) == held and len(order) == len(held)


def test_the_page_has_the_chapters_in_the_order_of_the_book_and_links_to_them(page):
    headings = re.findall(r"^## (\d+)\. (.+)\n\n\[Chapter (\d+)\]\((\w+)\.ipynb\): ", page, flags=re.M)
    assert [chapter for *_, chapter in headings] == build_book.chapters()
    for number, name, linked, chapter in headings:
        assert (number, linked) == (str(int(chapter[:2])),) * 2
        assert name == build_book.title(build_book.lesson(chapter))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_page_has_every_public_function_class_and_method_with_its_signature(path, page):
    """What is written as a signature is read back as Python: it is the parameters and the type of the source."""
    told = section(page, build_book.module_name(path))
    shown = re.findall(r"^( *)- \*\*`(\w+)`\*\*(?:`(.*)`)?\\$", told, flags=re.M)
    wanted = []
    for node in build_book.public(ast.parse(path.read_text(encoding="utf-8"))):
        wanted.append(("", node))
        wanted += [("  ", method) for method in build_book.public(node) if isinstance(node, ast.ClassDef)]
    assert [(indent, name) for indent, name, _ in shown] == [(indent, node.name) for indent, node in wanted]
    for (_, name, text), (indent, node) in zip(shown, wanted, strict=True):
        if isinstance(node, ast.FunctionDef) and text.startswith("("):
            read = ast.parse(f"def {name}{text}: ...").body[0]
            if indent and node.args.args and node.args.args[0].arg in ("self", "cls"):
                read.args.args.insert(0, node.args.args[0])
            assert ast.dump(read.args) == ast.dump(node.args)
            assert ast.dump(read.returns) == ast.dump(node.returns) if node.returns else read.returns is None


def entries(source: str) -> list[str]:
    """The items of the page for a source, without what they say."""
    nodes = build_book.public(ast.parse(textwrap.dedent(source)))
    nodes += [method for node in nodes if isinstance(node, ast.ClassDef) for method in build_book.public(node)]
    return [build_book.entry(node).partition("\\\n")[0] for node in nodes]


def test_signatures_are_those_that_a_caller_sees():
    source = """
        def found(text: str, *, k: int = 10, name="a|b") -> list[str]: ...
        def anything(*rest, **more): ...
        def _hidden(): ...
        class Trained(Base):
            def __init__(self, width: int = 4): ...
            @classmethod
            def load(cls, path: str) -> "Trained": ...
            @property
            def size(self) -> int: ...
            @size.setter
            def size(self, size: int): ...
            def _step(self): ...
        @dataclass(frozen=True)
        class Config:
            steps: int
            rate: float = 0.1
        class Wrong(ValueError): ...
    """
    assert entries(source) == [
        '- **`found`**`(text: str, *, k: int = 10, name="a|b") -> list[str]`',
        "- **`anything`**`(*rest, **more)`",
        "- **`Trained`**`(width: int = 4)`",
        "- **`Config`**`(steps: int, rate: float = 0.1)`",
        "- **`Wrong`**",
        '- **`load`**`(path: str) -> "Trained"`',
        "- **`size`**`: int`",
    ]


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("A sum. Another sentence.", "A sum."),
        ("What is it?\n\nMore.", "What is it?"),
        ("Over two\n    lines, 0.5 of it. `code` begins the next.", "Over two lines, 0.5 of it."),
        ("Costs $5 or X|Y, `a | b` and snake_case <b> [1].", r"Costs \$5 or X\|Y, `a | b` and snake\_case \<b> \[1]."),
    ],
)
def test_a_first_sentence_is_one_line_and_safe_in_markdown(docstring, sentence):
    assert build_book.first_sentence(ast.parse(f'def f():\n    """{docstring}"""').body[0]) == sentence


def test_only_chapters_that_are_written_are_linked():
    first = build_book.chapters()[0]
    assert build_book.linked("Chapter 1, then Chapter 99.") == f"[Chapter 1]({first}.ipynb), then Chapter 99."


# ---- the pages around the chapters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", build_book.chapters())
def test_a_chapters_name_leads_to_its_room_its_tests_and_its_exercises(chapter):
    topic = chapter[3:]
    assert (ROOT / "recbook" / topic / "__init__.py").exists()
    assert list((ROOT / "tests" / topic).glob("test_*.py"))
    assert (ROOT / "recbook" / "book" / "exercises" / f"{topic}.py").exists()


def test_the_readmes_tree_has_every_room_with_the_number_of_its_chapter():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^    (\w+)/ +(\d+)?", text, flags=re.M)
    assert sorted(name for name, _ in rooms) == [room.name for room in ROOMS]
    written = {chapter[3:]: str(int(chapter[:2])) for chapter in build_book.chapters()}
    numbers = [int(number) for _, number in rooms if number]
    assert written.items() <= dict(rooms).items() and numbers == sorted(numbers)
    files = re.findall(r"^    (\w+\.py) ", text, flags=re.M)
    assert sorted(files) == sorted(path.name for path in (ROOT / "recbook").glob("[a-z]*.py"))


def known(name: str) -> bool:
    """Whether a dotted name of the package is a room, a module, or something that stands in one."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        base, rest = ROOT.joinpath(*parts[:length]), parts[length:]
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.exists():
                return not rest or rest[0] in defined(file)
    return False


def defined(file) -> set[str]:
    """The names that a module's top level defines."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [node.targets for node in body if isinstance(node, ast.Assign)]
    return names | {target.id for some in targets for target in some if isinstance(target, ast.Name)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_names_files_and_links_of_a_page_exist(path):
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"`(recbook(?:\.\w+)+)", text)
    for room, things in re.findall(r"^from (recbook[\w.]*) import (.+)$", text, flags=re.M):
        names += [f"{room}.{thing.strip()}" for thing in things.split(",")]
    assert [name for name in names if not known(name)] == []
    files = re.findall(r"`((?:recbook|tests|benchmarks|results|lessons_py|book)/[\w./]*)`", text)
    files = [name for name in files if "topic" not in name]
    assert [name for name in files if not (ROOT / name).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link.partition("#")[0]).exists()] == []


def test_a_name_that_is_not_there_is_seen():
    assert known("recbook.cleaning.shop.simulate") and known("recbook.cleaning") and known("recbook.storage")
    assert not known("recbook.shop") and not known("recbook.cleaning.shop.stimulate")


def test_every_entry_of_the_glossary_leads_to_a_chapter():
    blocks = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8").split("\n\n")
    terms = [block for block in blocks if block.startswith("**")]
    assert terms and [term for term in terms if not re.search(r"\[Chapter (\d+)\]\(\d\d_\w+\.ipynb\)", term)] == []
    linked = re.findall(r"\[Chapter (\d+)\]\((\d+)_", "\n".join(terms))
    assert [(said, file) for said, file in linked if int(said) != int(file)] == []
