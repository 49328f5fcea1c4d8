"""freshness: what code rests on, followed through imports; and what of a source makes no difference."""

from pathlib import Path

import pytest

from recbook import freshness
from recbook.freshness import Source, bare, data_files, fingerprint, reached

FILES = {
    "__init__.py": "",
    "ground.py": '"""The ground."""\n\nimport numpy\n\nX = 1  # of all\n',
    "room/__init__.py": '"""A room."""\n',
    "room/first.py": 'from recbook import ground\n\nDATA = "first.json"\n\n\ndef small():\n    return ground.X\n',
    "room/first.json": "{}",
    "far/__init__.py": "",
    "far/away.json": "{}",
    "room/lazy.py": (
        "def light():\n    pass\n\n\n"
        "def heavy():\n    import torch\n    from recbook.room.first import small as s\n    s()\n"
        "\n\ndef both():\n    light()\n    heavy()\n"
    ),
    "room/two.py": (
        "def one():\n    from recbook.room import first as x\n    x.small()\n\n\n"
        "def other():\n    from recbook.room import lazy as x\n    x.light()\n"
    ),
    "room/shape.py": (
        "class Shape:\n    def area(self):\n        from recbook.room import first\n        return first.small()\n"
    ),
}


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "recbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(freshness, "PACKAGE", tmp_path / "recbook")
    return tmp_path / "recbook"


def names(code: str) -> set[str]:
    return set(reached(Source("chapter", code))[0]) - {"recbook", "recbook.room"}


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("x = 1", set()),
        ("import recbook.ground", {"recbook.ground"}),
        ("from recbook import ground as g\ng.X", {"recbook.ground"}),
        ("from recbook.room import first", {"recbook.room.first", "recbook.ground"}),
        ("from recbook.room.first import small", {"recbook.room.first", "recbook.ground"}),
        ("def f():\n    from recbook.room import first", {"recbook.room.first", "recbook.ground"}),
        ("from recbook.room import lazy\nlazy.light()", {"recbook.room.lazy"}),
        ("from recbook.room.lazy import light", {"recbook.room.lazy"}),
        ("from recbook.room import lazy\nlazy.heavy()", {"recbook.room.lazy", "recbook.room.first", "recbook.ground"}),
        ("from recbook.room.lazy import both", {"recbook.room.lazy"}),
        ("from recbook.room.lazy import both as b\nb()", {"recbook.room.lazy", "recbook.room.first", "recbook.ground"}),
        ("run = ['-m', 'recbook.room.first']", {"recbook.room.first", "recbook.ground"}),
        ("from recbook.room import two\ntwo.other()", {"recbook.room.two", "recbook.room.lazy"}),
        ("from recbook.room import shape", {"recbook.room.shape", "recbook.room.first", "recbook.ground"}),
    ],
)
def test_imports_are_followed_as_far_as_they_are_used(code, modules):
    assert names(code) == modules


def test_a_module_that_is_named_counts_whole():
    assert set(reached("recbook.room.lazy")[0]) >= {"recbook.room.first", "recbook.ground"}
    assert "recbook.room.first" not in reached("recbook.room.lazy.light")[0]


def test_packages_are_those_that_what_counts_imports():
    assert reached(Source("chapter", "from recbook.room import lazy\nlazy.light()"))[1] == {"recbook"}
    assert reached(Source("chapter", "from recbook.room import lazy\nlazy.both()"))[1] == {"recbook", "torch", "numpy"}


def test_data_files_are_those_of_the_rooms():
    assert [path.name for path in data_files(reached("recbook.room.first")[0])] == ["first.json"]
    assert data_files(reached("recbook.ground")[0]) == []
    assert [path.name for path in data_files(reached(Source("script", "files('recbook.far')"))[0])] == ["away.json"]


def test_a_start_that_is_nothing_is_refused():
    for name in ("recbook.room.typo", "recbook.room.first.typo", "numpy", "recbook.ground.X"):
        with pytest.raises(ValueError, match=f"{name} is neither a module of recbook nor a function in one"):
            fingerprint(name)


@pytest.mark.parametrize(
    ("name", "text", "changes", "shown"),
    [
        ("ground.py", FILES["ground.py"].replace("X = 1", "X = 2"), True, True),
        ("ground.py", FILES["ground.py"].replace("of all", "of some"), False, True),
        ("ground.py", FILES["ground.py"].replace("The ground", "A ground"), False, True),
        ("ground.py", FILES["ground.py"] + "\n\n", False, True),
        ("room/first.json", "[]", True, True),
        ("far/away.json", "[]", False, False),
        ("room/lazy.py", "import recbook.ground", False, False),
        ("__init__.py", "__version__ = '2'", False, True),
    ],
)
def test_a_fingerprint_changes_with_what_can_run_or_is_shown(package, name, text, changes, shown):
    before = fingerprint("recbook.room.first"), fingerprint("recbook.room.first", shown=True)
    (package / name).write_text(text)
    after = fingerprint("recbook.room.first"), fingerprint("recbook.room.first", shown=True)
    assert (before[0] != after[0], before[1] != after[1]) == (changes, shown)


def test_of_a_module_only_the_functions_count_that_are_mentioned(package):
    start = Source("chapter", "from recbook.room import lazy\nlazy.light()")
    before, whole = fingerprint(start), fingerprint("recbook.room.lazy")
    (package / "room" / "lazy.py").write_text(FILES["room/lazy.py"].replace("    heavy()", "    heavy(), light()"))
    assert fingerprint(start) == before and fingerprint("recbook.room.lazy") != whole
    (package / "room" / "lazy.py").write_text(FILES["room/lazy.py"].replace("pass", "return 1"))
    assert fingerprint(start) != before


@pytest.mark.parametrize(
    "code",
    [
        "from recbook.room import lazy\ngetattr(lazy, 'heavy')()",
        "from recbook.room import lazy as l\nm = l\nm.heavy()",
        "from recbook.room.lazy import *\nheavy()",
        "import recbook.room.lazy\nrecbook.room.lazy.heavy()",
        "['python', '-m', 'recbook.room.lazy']",
    ],
)
def test_a_function_is_not_lost_in_whatever_way_it_is_reached(code):
    assert "torch" in reached(Source("chapter", code))[1]


def test_what_is_imported_for_a_type_checker_alone_is_no_code(package):
    start = Source("chapter", "if TYPE_CHECKING:\n    from recbook.room import first")
    assert reached(start)[0] == {}


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ('class E(ValueError): """d"""', 'class E(ValueError): """other"""'),
        ("x = 1  \n\n\ny = 2", "x = 1\ny = 2  # why"),
        ('def f():\n    """d"""\n    return 1', "def f():\n    return 1"),
    ],
)
def test_what_cannot_run_makes_no_difference(code, same):
    assert bare(code) == bare(same)


@pytest.mark.parametrize(
    ("code", "other"),
    [
        ('class E(ValueError): """d"""', 'class E(KeyError): """d"""'),
        ('x = """a\n\n\nb  \n"""', 'x = """a\nb\n"""'),
        ('x = f"""a\n\n{y}\n  # b\n"""', 'x = f"""a\n{y}\n"""'),
        ("x = '# a'", "x = '# b'"),
        ("x = 1", "x = 2"),
    ],
)
def test_what_can_run_makes_a_difference(code, other):
    assert bare(code) != bare(other)


def test_bare_code_means_the_same():
    code = (
        '"""Doc."""\nimport os  # why\n\n\nclass A:\n    """Doc."""\n\n    x = "# no comment"\n\n    def f(self):\n'
        '        """Doc,\n\n        of lines."""\n        return """text\n# kept\n"""  # said\n'
    )
    wanted = 'import os\nclass A:\n    x = "# no comment"\n    def f(self):\n        return """text\n# kept\n"""'
    assert bare(code) == wanted
