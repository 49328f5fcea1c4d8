"""What the tests of the book share: the wheel, an interpreter that has nothing else of this checkout, the pages."""

import os
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import build_book

ROOT = Path(build_book.__file__).parent


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """The folder of the book's HTML, rendered from the committed notebooks with warnings as errors."""
    out = tmp_path_factory.mktemp("rendered")
    command = [sys.executable, build_book.__file__, "html", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "_build" / "html"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package's wheel, built from the checkout with the build tools of this environment."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return next(out.glob("recbook-*.whl"))


@pytest.fixture(scope="session")
def stranger(wheel, tmp_path_factory) -> Path:
    """The interpreter of an environment that has the wheel, and borrows all other packages from this one.

    What lies in a folder named by a .pth file is importable, but the .pth files in it are not followed: the editable
    install of the package, if this environment has one, is not seen.
    """
    home = tmp_path_factory.mktemp("stranger") / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    own = subprocess.run(
        [str(python), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    Path(own.stdout.strip(), "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return python
