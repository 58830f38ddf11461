"""``python -m unified_guards run script.py [arguments]``: an unchanged program with unified guards installed."""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import runpy
import sys

from unified_guards.cli.tracebacks import hide_our_frames


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command."""
    parser.description = (
        "Runs a program as python would, with unified guards installed in it and in the Python processes that it "
        "starts. Its exit status is passed on."
    )
    parser.add_argument("--stats", action="store_true", help="print unified_guards.stats() to stderr at the end")
    add_program(parser)


def add_program(parser: argparse.ArgumentParser) -> None:
    """Adds a program and its own arguments: ``[-m] PROGRAM ...``. Comes last."""
    parser.add_argument("-m", dest="is_module", action="store_true", help="PROGRAM is a module, as in python -m")
    parser.add_argument("program", metavar="PROGRAM", help="a script, or with -m a module")
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="the program's own arguments")


def _has_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # the parent package is missing, or the name is a relative one
        return False


def missing(program: str, *, is_module: bool) -> str | None:
    """What to tell a user who names a program that is not there; None if it is."""
    if is_module:
        return None if _has_module(program) else f"there is no module named {program!r} (a file is run without -m)"
    if os.path.exists(program):
        return None
    return f"there is no file {program!r} in {os.getcwd()} (a module is run with -m)"


def run_program(program: str, own_arguments: list[str], *, is_module: bool) -> None:
    """Runs a program in this process as python would, and lets through whatever it raises.

    An error that ends the process is shown without our frames.
    """
    sys.argv = [program, *own_arguments]
    try:
        if is_module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
            return
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.realpath(program))
        runpy.run_path(os.path.abspath(program), run_name="__main__")
    except BaseException:
        hide_our_frames()  # from what the program may have given the interpreter to show errors with
        raise


def main(arguments: argparse.Namespace) -> int:
    """Installs and runs the program."""
    import unified_guards

    problem = missing(arguments.program, is_module=arguments.is_module)
    if problem is not None:
        arguments.error(problem)
    unified_guards.install()
    os.environ["UNIFIED_GUARDS"] = "1"
    if arguments.stats:
        atexit.register(lambda: print(f"\nunified_guards.stats()\n{unified_guards.stats()}", file=sys.stderr))
    run_program(arguments.program, arguments.arguments, is_module=arguments.is_module)
    return 0
