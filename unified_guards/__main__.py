"""``python -m unified_guards COMMAND``: the table of commands. Each of them is a file in ``unified_guards/cli``."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import unified_guards
from unified_guards import _environment


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        module: has ``add_arguments(parser)`` and ``main(arguments) -> int``; imported when the command is asked for.
        what: its line in ``--help``.
        works_anywhere: whether it runs where unified_guards cannot be imported.
    """

    module: str
    what: str
    works_anywhere: bool = False


COMMANDS = {
    "run": Command("unified_guards.cli.run", "run an unchanged program with unified guards installed"),
    "doctor": Command("unified_guards.cli.doctor", "say whether everything fits on this machine", works_anywhere=True),
    "bench": Command("unified_guards.cli.bench", "measure what unified guards save, here or in your own program"),
    "explain": Command("unified_guards.cli.explain", "show the guards of a program"),
}


def _parser(asked: str | None) -> argparse.ArgumentParser:
    """A parser that knows every command by name and line, and the arguments of the one that is asked for."""
    about = (unified_guards.__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m unified_guards", description=about)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.what)
        own.set_defaults(error=own.error)
        if name == asked:
            importlib.import_module(command.module).add_arguments(own)
    return parser


def _version() -> str:
    """The version of the package, and what it was built for."""
    build = importlib.util.find_spec("unified_guards._build")
    built_for = None if build is None else importlib.import_module("unified_guards._build").TORCH_VERSION
    python = ".".join(map(str, sys.version_info[:3]))
    return f"unified_guards {unified_guards.__version__} (built for torch {built_for or 'none'}, Python {python})"


def _import_all() -> str | None:
    """Imports the package, of which `python -m` has imported only the name; what is wrong if that fails."""
    if hasattr(unified_guards, "install"):
        return None
    try:
        importlib.reload(unified_guards)
    except ImportError as error:
        return str(error)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given:
        _parser(None).print_help(sys.stderr)
        return 2
    options, unknown = _parser(given[0]).parse_known_args(given)
    if unknown:  # argparse would show the usage of all commands
        meant = f"; is it bench --script {' '.join(unknown)}?" if given[0] == "bench" and unknown[0][:1] != "-" else ""
        options.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    options.given = given
    command = COMMANDS[options.command]
    if not command.works_anywhere:  # the doctor looks at them itself
        _environment.tell_of_unknown_variables(lambda message: print(message, file=sys.stderr))
    problem = None if command.works_anywhere else _import_all()
    if problem is not None:
        print(f"{problem}\n`python -m unified_guards doctor` looks at everything at once.", file=sys.stderr)
        return 1
    status: int = importlib.import_module(command.module).main(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
