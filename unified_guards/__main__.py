"""``python -m unified_guards run script.py [arguments]``: an unchanged program with unified guards installed."""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence

import unified_guards


def _parser() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    about = (unified_guards.__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m unified_guards", description=about)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="run an unchanged program with unified guards installed",
        description="Runs a program as python would, with unified guards installed in it and in the Python processes "
        "that it starts. Its exit status is passed on.",
    )
    run.add_argument("--stats", action="store_true", help="print unified_guards.stats() to stderr at the end")
    run.add_argument("-m", dest="is_module", action="store_true", help="PROGRAM is a module, as in python -m")
    run.add_argument("program", metavar="PROGRAM", help="a script, or with -m a module")
    run.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="the program's own arguments")
    return parser, run


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # a parent is missing; a relative name
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    parser, run = _parser()
    options = parser.parse_args(arguments)
    program = options.program
    if options.is_module:
        if not _has_module(program):
            run.error(f"there is no module named {program!r} (a file is run without -m)")
    elif not os.path.exists(program):
        run.error(f"there is no file {program!r} in {os.getcwd()} (a module is run with -m)")

    unified_guards.install()
    os.environ["UNIFIED_GUARDS"] = "1"
    if options.stats:
        atexit.register(lambda: print(f"\nunified_guards.stats()\n{unified_guards.stats()}", file=sys.stderr))
    sys.argv = [program, *options.arguments]
    if options.is_module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = os.path.dirname(os.path.realpath(program))
    runpy.run_path(os.path.abspath(program), run_name="__main__")


if __name__ == "__main__":
    main()
