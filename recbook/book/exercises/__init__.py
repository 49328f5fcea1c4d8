"""The exercises' checks: one file a chapter, one `Exercise` a coding exercise, one function for the reader, `check`.

A check runs the reader's function on cases whose answers come from a reference solution. It never raises: it says that
the answer is right, or which case failed, what was expected and what came, and, where the answer is that of a typical
mistake, what the mistake is. The typical mistakes are functions too, so that a test can prove them told apart.
"""

import copy
import importlib
import reprlib
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

TOPICS = "cleaning baselines embeddings search tokens gpt training generation baskets lora quantization ranking"
# Number of a chapter -> file in this folder; the numbers that are missing are of chapters not yet written.
CHAPTERS = dict(enumerate(TOPICS.split(), start=1)) | {14: "narratives", 16: "distillation", 22: "system"}


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that readers really give, and the hint that helps."""

    answer: Callable
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One coding exercise: `cases` are argument tuples, `solution` says what each should give."""

    number: str  # "2.3": the third exercise of chapter 2
    solution: Callable
    cases: list[tuple]
    mistakes: list[Mistake] = field(default_factory=list)
    tolerance: float = 1e-6  # absolute and relative, for floats


@dataclass(frozen=True)
class Verdict:
    """What `examine` found: `passed`, and the sentence that the reader sees."""

    number: str
    passed: bool
    message: str
    mistake: int | None = None  # index of the typical mistake recognised, if any


def check(number: str, answer: Callable) -> None:
    """Print whether `answer` solves exercise `number`, such as "2.3"; if not, the first case that fails and a hint."""
    verdict = examine(number, answer)
    print(f"{'✓' if verdict.passed else '✗'} Exercise {number}: {verdict.message}")


def examine(number: str, answer: Callable) -> Verdict:
    """Run `answer` on every case of the exercise and say what happened; errors in it are part of the verdict."""
    exercise = find(number)
    for position, case in enumerate(exercise.cases, start=1):
        expected = exercise.solution(*copy.deepcopy(case))
        arguments = copy.deepcopy(case)
        try:
            got = answer(*arguments)
        except (Exception, SystemExit) as error:  # the reader's code may fail in any way, the check never
            return _failed(exercise, position, case, f"your code raised {type(error).__name__}: {_words(error)}", None)
        if got is Ellipsis or got is None:
            what = "your function returns nothing: replace the `...`, or add the missing `return`"
            return Verdict(number, False, f"not solved yet: {what}.")
        if not _agree(arguments, case, exercise.tolerance):
            return _failed(exercise, position, case, "your function changed its arguments; work on a copy", None)
        if not _agree(got, expected, exercise.tolerance):
            message = _contrast(expected, got, exercise.tolerance)
            return _failed(exercise, position, case, message, _recognise(exercise, answer))
    return Verdict(number, True, f"right, in all {len(exercise.cases)} cases.")


def find(number: str) -> Exercise:
    """The exercise with this number; a KeyError names the numbers there are."""
    chapter = number.partition(".")[0]
    if not chapter.isdigit() or int(chapter) not in CHAPTERS:
        raise KeyError(f"no exercise {number!r}: the chapters with checks are {sorted(CHAPTERS)}")
    exercises = importlib.import_module(f"recbook.book.exercises.{CHAPTERS[int(chapter)]}").EXERCISES
    for exercise in exercises:
        if exercise.number == number:
            return exercise
    raise KeyError(f"no exercise {number!r}: chapter {chapter} has {[e.number for e in exercises]}")


def same(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether two answers are equal: floats within the tolerance, containers item by item, frames with their labels."""
    if isinstance(expected, pd.DataFrame | pd.Series):
        if type(got) is not type(expected) or got.shape != expected.shape:
            return False
        assert_equal = getattr(pd.testing, f"assert_{'frame' if expected.ndim == 2 else 'series'}_equal")
        names = {} if expected.ndim == 2 else {"check_names": False}
        try:
            assert_equal(got, expected, check_dtype=False, atol=tolerance, rtol=tolerance, **names)
        except AssertionError:
            return False
        return True
    if sparse.issparse(expected):
        return same(got.toarray() if sparse.issparse(got) else got, expected.toarray(), tolerance)
    if isinstance(expected, dict):
        return (
            isinstance(got, dict)
            and got.keys() == expected.keys()
            and all(same(got[key], expected[key], tolerance) for key in expected)
        )
    if isinstance(expected, str | bool | set | frozenset | pd.Timestamp) or callable(expected):
        return got == expected
    if isinstance(expected, list | tuple):
        return (
            isinstance(got, list | tuple | np.ndarray)
            and len(got) == len(expected)
            and all(same(*pair, tolerance) for pair in zip(got, expected, strict=True))
        )
    try:
        got_array, expected_array = np.asarray(got), np.asarray(expected)
        if expected_array.dtype.kind in "fc":
            return got_array.shape == expected_array.shape and np.allclose(
                got_array.astype(float), expected_array, rtol=tolerance, atol=tolerance, equal_nan=True
            )
        return np.array_equal(got_array, expected_array)
    except (TypeError, ValueError):
        return False


def _agree(got: Any, expected: Any, tolerance: float) -> bool:
    """`same`, for an answer that may be anything: one that cannot even be compared is not the right one."""
    try:
        return bool(same(got, expected, tolerance))
    except Exception:
        return False


def _words(value: Any, form: Callable = str) -> str:
    """`value` as `form` writes it, or its type where its own code for that fails."""
    try:
        return form(value)
    except Exception:
        return f"an object of type {type(value).__name__}"


def _recognise(exercise: Exercise, answer: Callable) -> int | None:
    """The index of the typical mistake that `answer` agrees with on every case, if there is one."""
    for index, mistake in enumerate(exercise.mistakes):
        try:
            pairs = [(answer(*copy.deepcopy(case)), mistake.answer(*copy.deepcopy(case))) for case in exercise.cases]
        except (Exception, SystemExit):  # an answer that fails on a later case is no match
            pairs = []
        if pairs and all(_agree(got, wrong, exercise.tolerance) for got, wrong in pairs):
            return index
    return None


def _contrast(expected: Any, got: Any, tolerance: float) -> str:
    """What should have come and what came; of two dictionaries only the items that differ."""
    if type(expected) is type(got) is dict:
        shared = [key for key in expected if key in got and _agree(got[key], expected[key], tolerance)]
        expected, got = ({key: value for key, value in each.items() if key not in shared} for each in (expected, got))
    texts = _short(expected), _words(got, _short)
    if any("\n" in text for text in texts):
        return f"expected {texts[0]}\n  got {texts[1]}"
    return f"expected {texts[0]}, got {texts[1]}"


def _failed(exercise: Exercise, position: int, case: tuple, what: str, mistake: int | None) -> Verdict:
    """The verdict on a case: what went wrong first, then the hint, and the case itself last, as it may be long."""
    hint = "" if mistake is None else f"\n  Hint: {exercise.mistakes[mistake].hint}"
    message = f"not yet. In case {position}, {what}{hint}\n  Case {position}: {_short(case, rows=3)}"
    return Verdict(exercise.number, False, message, mistake)


def _short(value: Any, rows: int = 8) -> str:
    """A value as a few readable characters: a frame by its first rows, an array or anything else shortened."""
    if isinstance(value, tuple):
        return "(" + ", ".join(_short(item, rows) for item in value) + ")"
    if isinstance(value, pd.DataFrame | pd.Series):
        count = f", the first {rows} of {len(value)} rows" if len(value) > rows else f" of {len(value)} rows"
        return f"{type(value).__name__}{count}:\n{textwrap.indent(str(value.head(rows)), '    ')}"
    if sparse.issparse(value):
        value = value.toarray()
    if isinstance(value, np.generic):
        value = value.item()  # 0.6, not np.float64(0.6)
    if isinstance(value, np.ndarray):
        return np.array2string(value, precision=4, threshold=20)
    shortener = reprlib.Repr()
    shortener.maxlist = shortener.maxtuple = shortener.maxdict = 8
    shortener.maxstring = shortener.maxother = 120
    return shortener.repr(value)
