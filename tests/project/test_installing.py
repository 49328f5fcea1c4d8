"""Installing and making: what is asked for, what the Makefile does, what a missing browser does."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.project.files import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_environment_yml_asks_for_what_the_project_asks_for():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    packages = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    extras = PROJECT["optional-dependencies"]
    wanted = {line for name in extras if name != "test" for line in extras[name]} | set(PROJECT["dependencies"])
    assert sorted(packages) == sorted([line for line in wanted if not line.startswith("recbook[")] + ["-e ."])
    assert f"python{PROJECT['requires-python']}" in environment


def test_makefile_offers_the_two_commands_and_says_so():
    said = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True).stdout
    assert "make book" in said and "make test" in said


def test_build_refuses_an_old_python(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "book", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "Python 3.11 or newer" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_make_test_installs_what_tests_need_and_make_book_only_what_the_book_needs(tmp_path):
    def installs(target: str) -> str:
        command = ["make", "-C", str(ROOT), "-n", target, f"VENV={tmp_path / 'venv'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return " ".join(re.findall(r"--editable '(.+?)'", done.stdout))

    assert (installs("book"), installs("test"), installs("lab")) == (".[book]", ".[test]", ".[book]")


@pytest.mark.parametrize(("needed", "code", "word"), [("1", 1, "error"), ("", 0, "skipped")])
def test_a_missing_browser_fails_where_it_is_needed_and_skips_elsewhere(needed, code, word, tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-k",
        "first_page",
        "tests/book/test_browser.py",
    ]
    surroundings = os.environ | {"PATH": str(tmp_path), "RECBOOK_NEEDS_BROWSER": needed}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    assert (done.returncode, word in done.stdout, "no chromium" in done.stdout) == (code, True, True), done.stdout
    assert "export RECBOOK_NEEDS_BROWSER=1" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_hooks_before_a_commit_run_what_is_installed_and_download_nothing():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [each["repo"] for each in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system" and shutil.which(program, path=Path(sys.executable).parent), program
