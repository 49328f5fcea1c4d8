"""Every exercise can be graded: its solution passes its own check, its stub does not, typical mistakes are told apart.

The solutions are taken out of their folds in the lessons, as the reader sees them, and run in place of their stubs.
"""

import ast
import copy
import functools
import importlib
import re
import sys
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import build_book
from recbook.book import exercises


@dataclass
class Task:
    """An exercise as the lesson tells it; one that asks for no code has a number only."""

    number: str
    chapter: str
    stub: str = ""
    check: str = ""
    solution: str = ""


@functools.cache
def tasks(chapter: str) -> list[Task]:
    """The exercises of a lesson: each from its heading to the next one."""
    found: list[Task] = []
    for cell in build_book.lesson(chapter).cells:
        pieces = re.split(r"(?m)^(?=#{2,3} )", cell.source) if cell.cell_type == "markdown" else []
        for piece in pieces:
            if heading := re.match(r"### Exercise (\d+\.\d+):", piece):
                found.append(Task(heading.group(1), chapter))
            fold = re.search(r"<details><summary>Solution</summary>(.*?)</details>", piece, re.S)
            if found and fold:
                found[-1].solution = "\n".join(re.findall(r"```python\n(.*?)```", fold.group(1), re.S))
        if found and cell.cell_type == "code":
            part = "check" if re.match(r"check\(", cell.source) else "stub"
            setattr(found[-1], part, getattr(found[-1], part) or cell.source)
    return found


ALL = [task for chapter in build_book.chapters() for task in tasks(chapter)]
CODED = [task for task in ALL if task.check]
TOPICS = [exercises.CHAPTERS[int(chapter[:2])] for chapter in build_book.chapters()]
CHECKS = [
    exercise for topic in TOPICS for exercise in importlib.import_module(f"recbook.book.exercises.{topic}").EXERCISES
]


def by_number(things):
    return pytest.mark.parametrize("thing", things, ids=lambda thing: thing.number)


@functools.cache
def imports(chapter: str) -> str:
    """The chapter's import lines: all that a solution may lean on."""
    code = [cell.source for cell in build_book.lesson(chapter).cells if cell.cell_type == "code"]
    nodes = [
        node for source in code for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    return "\n".join(map(ast.unparse, nodes))


def run(task: Task, source: str):
    """The function that `task` asks for, as `source` defines it after the chapter's imports."""
    name = re.match(r'check\("[\d.]+", (\w+)\)\s*$', task.check).group(1)
    module = type(sys)(f"exercise_{task.number.replace('.', '_')}")
    exec(compile(f"{imports(task.chapter)}\n{source}", module.__name__, "exec"), module.__dict__)
    return module.__dict__[name]


# ---- the lessons ---------------------------------------------------------------------------------------------------


def test_lessons_and_checks_have_the_same_exercises():
    assert [task.number for task in CODED] == [exercise.number for exercise in CHECKS]


@by_number(CODED)
def test_a_check_names_its_own_exercise_and_follows_a_stub(thing):
    assert thing.check.startswith(f'check("{thing.number}", ')
    assert "..." in thing.stub and thing.solution


@by_number(CODED)
def test_the_solution_passes(thing):
    verdict = exercises.examine(thing.number, run(thing, thing.solution))
    assert verdict.passed, verdict.message


@by_number(CODED)
def test_the_stub_does_not_pass_and_is_called_unsolved(thing):
    verdict = exercises.examine(thing.number, run(thing, thing.stub))
    assert not verdict.passed and "not solved yet" in verdict.message


# ---- the checks ----------------------------------------------------------------------------------------------------


@by_number(CHECKS)
def test_typical_mistakes_fail_and_are_told_apart(thing):
    verdicts = [exercises.examine(thing.number, mistake.answer) for mistake in thing.mistakes]
    assert len(verdicts) >= 2
    assert [verdict.passed for verdict in verdicts] == [False] * len(verdicts)
    assert [verdict.mistake for verdict in verdicts] == list(range(len(verdicts)))
    assert len({mistake.hint for mistake in thing.mistakes}) == len(verdicts)
    assert all(mistake.hint in verdict.message for mistake, verdict in zip(thing.mistakes, verdicts, strict=True))


class Hostile:
    """An answer that fails whatever is done with it."""

    def _fail(self, *arguments):
        raise RuntimeError("hostile")

    __eq__ = __ne__ = __len__ = __iter__ = __getitem__ = __array__ = __bool__ = __float__ = __repr__ = __str__ = _fail
    __hash__ = None


class Unspeakable(Exception):
    """An error whose message cannot be had."""

    def __str__(self):
        raise RuntimeError("hostile")


def raising(error):
    def answer(*arguments):
        raise error

    return answer


def endless(*arguments):
    return endless(*arguments)


def spoiling(*arguments):
    """Empties, shortens or overwrites what it was given."""
    for argument in arguments:
        if isinstance(argument, pd.DataFrame):
            del argument[argument.columns[0]]
        elif sparse.issparse(argument):
            argument.data[:] = 0
        elif isinstance(argument, np.ndarray):
            argument[...] = 0
        elif isinstance(argument, list | dict | set):
            argument.clear()
    return 0


def spoilt(exercise) -> tuple:
    """The arguments of the exercise's first case after `spoiling` had them."""
    case = copy.deepcopy(exercise.cases[0])
    spoiling(*case)
    return case


JUNK = [
    object(),
    Hostile(),
    [Hostile()],
    {"a": Hostile()},
    float("nan"),
    pd.NaT,
    pd.NA,
    "text",
    b"\0",
    10**400,
    set(),
    lambda: 0,
]
JUNK += [
    np.array([1, "a", None], dtype=object),
    np.zeros((0, 3)),
    pd.DataFrame(),
    pd.Series(dtype=float),
    iter([]),
    int,
    ...,
    None,
]
ANSWERS = [
    raising(ValueError("no")),
    raising(Unspeakable()),
    raising(SystemExit(1)),
    endless,
    spoiling,
    lambda: 0,
    None,
    7,
]
ANSWERS += [lambda *arguments, thing=thing: thing for thing in JUNK]


@by_number(CHECKS)
def test_a_check_never_raises_whatever_the_answer_does(thing, capsys):
    for answer in ANSWERS:
        exercises.check(thing.number, answer)
        said = capsys.readouterr().out
        assert said.startswith(f"✗ Exercise {thing.number}: ") and len(said) > 40


@by_number([exercise for exercise in CHECKS if not exercises.same(spoilt(exercise), exercise.cases[0], 0)])
def test_an_answer_that_changes_its_arguments_is_told_so(thing):
    def answer(*arguments):
        right = thing.solution(*copy.deepcopy(arguments))
        spoiling(*arguments)
        return right

    verdict = exercises.examine(thing.number, answer)
    assert not verdict.passed and "changed its arguments" in verdict.message


def test_a_wrong_number_is_a_clear_error():
    with pytest.raises(KeyError, match="no exercise '99.1'"):
        exercises.check("99.1", len)
    with pytest.raises(KeyError, match="chapter 1 has"):
        exercises.check("1.99", len)


def test_a_function_without_a_return_is_told_so():
    def forgetful(receipts):
        receipts.groupby("invoice")["code"].nunique()

    assert "add the missing `return`" in exercises.examine("1.2", forgetful).message


@pytest.mark.parametrize("number", ["1.2", "1.4", "1.5"])
def test_what_was_expected_stands_before_the_case_which_is_shortened(number):
    message = exercises.examine(number, exercises.find(number).mistakes[0].answer).message
    assert (
        message.index("expected") < message.index("got") < message.index("Hint") < message.index("Case 1: (DataFrame")
    )
    assert message.rpartition("Case 1:")[2].count("\n") == 4  # the header and three rows


def test_of_two_dictionaries_the_items_that_differ_are_shown():
    exercise = exercises.Exercise("0.1", lambda x: {**dict.fromkeys(range(99), 0), "a": x}, [(1,)])
    with mock.patch.object(exercises, "find", return_value=exercise):
        message = exercises.examine("0.1", lambda x: {**dict.fromkeys(range(99), 0), "a": np.int64(2)}).message
    assert "expected {'a': 1}, got {'a': 2}" in message.replace("np.int64(2)", "2")


@pytest.mark.parametrize("days", ["date", ["date", "code"]])
def test_a_sort_that_exchanges_ties_does_not_pass_1_4(days):
    """`sort_values` by one column is not stable by default, by two it is."""

    def newest(receipts):
        return receipts.sort_values(days).groupby("code")["description"].last().to_dict()

    assert exercises.examine("1.4", newest).passed == (days != "date")


def test_the_harness_can_fail_a_wrong_solution():
    exercise = exercises.Exercise("0.1", lambda x: x + 1, [(1,), (2.5,)], [exercises.Mistake(lambda x: x - 1, "Add.")])
    with mock.patch.object(exercises, "find", return_value=exercise):
        assert exercises.examine("0.1", lambda x: 1 + x).passed
        assert exercises.examine("0.1", lambda x: x - 1).mistake == 0
        near = exercises.examine("0.1", lambda x: x + 1.001)
        assert not near.passed and near.mistake is None and "expected 2" in near.message
