"""Makes the wheel of one torch for every Python: ``make wheels TORCH=2.15.0``.

For each Python that is here, or in Debian, it runs ``make wheel``, which builds, repairs, checks and tests one wheel in
an environment of its own. The wheels, and the sdist, end up in ``dist/``. What a Python lacks is said at the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from tests.interpreters import CHECKOUT, Missing, find

#: What `[tool.cibuildwheel] build` names.
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
#: The last torch that has wheels for a Python, where it is none of the newest.
LAST_TORCH = {"3.10": (2, 14)}


def folder_of(python: str) -> Path:
    """Where the wheel of a Python is made, relative to the checkout."""
    return Path("build/wheels", python)


def _make(python: str, torch: str, tests: str) -> None:
    interpreter = find(python)
    print(f"\n==> a wheel for Python {python} ({interpreter.where}) and torch {torch}", flush=True)
    folder = folder_of(python)
    variables = {
        "PYTHON": interpreter.python,
        "TORCH": torch,
        "VENV": f".venv-{python}-{torch}",
        "WHEEL": str(folder),
        "DIST": str(folder / "dist"),
        "WHEEL_TESTS": tests,
    }
    interpreter.run("make", "wheel", *(f"{name}={value}" for name, value in variables.items()))


def main() -> None:
    """Makes all wheels; the exit status is 1 where one is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", required=True, help="the torch that they are for")
    parser.add_argument("--python", action="append", help="only this one; may be given several times")
    parser.add_argument("--tests", default="", help="what is run against each wheel beside the smoke test")
    asked = parser.parse_args()
    torch = tuple(map(int, asked.torch.split(".")[:2]))
    dist = CHECKOUT / "dist"
    dist.mkdir(exist_ok=True)
    missing = []
    for python in asked.python or PYTHONS:
        if torch > LAST_TORCH.get(python, torch):
            print(f"\n==> Python {python}: there is no torch {asked.torch} for it", flush=True)
            continue
        try:
            _make(python, asked.torch, asked.tests)
        except (Missing, subprocess.CalledProcessError) as error:
            missing.append(f"Python {python}: {error}")
            continue
        for made in (CHECKOUT / folder_of(python) / "dist").iterdir():
            shutil.copy(made, dist)
        shutil.rmtree(CHECKOUT / folder_of(python) / "venv")  # of several GB
    print("\n" + "\n".join(sorted(made.name for made in dist.iterdir())))
    sys.exit("\n".join(["No wheel for", *missing]) if missing else 0)


if __name__ == "__main__":
    main()
