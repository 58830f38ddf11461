"""``python -m unified_guards explain script.py [arguments]``: a program's guards, as a summary and as a page."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from unified_guards.cli.run import add_program, missing, run_program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command."""
    parser.description = (
        "Runs a program with unified guards installed and measured, then prints what became of the guards of each "
        "compiled function and writes a page with all of them. The program is slower meanwhile: each check is timed, "
        "and some are repeated. Its exit status is passed on."
    )
    parser.add_argument("--html", metavar="FILE", default="guards.html", help="the page; default: %(default)s")
    parser.add_argument("--function", metavar="NAME", help="only functions of this name")
    add_program(parser)


_OWN = ("--html", "--function")


def _misplaced(arguments: argparse.Namespace) -> str | None:
    """What to tell a user who gives options of this command after the program; None where nobody does.

    A ``--`` behind the program says that what follows is for the program, and is not passed on.
    """
    own = arguments.arguments
    if own[:1] == ["--"]:
        del own[0]
        return None
    if arguments.given[-len(own) - 1] == "--":  # some versions of argparse leave it out
        return None
    until = own.index("--") if "--" in own else len(own)
    at = next((at for at, text in enumerate(own[:until]) if text.partition("=")[0] in _OWN), None)
    if at is None:
        return None
    options = own[at : at + (1 if "=" in own[at] else 2)]
    rest = own[:at] + own[at + len(options) :]
    program = [*(["-m"] if arguments.is_module else []), arguments.program]
    first = " ".join(["python -m unified_guards explain", *options, *program, *rest])
    theirs = " ".join(["python -m unified_guards explain", *program, "--", *own])
    return (
        f"{options[0].partition('=')[0]} comes before the program, what comes after it is the program's own. "
        f"Run: {first} (or, if it is meant for the program: {theirs})"
    )


def _run(arguments: argparse.Namespace) -> int:
    """Runs the program; its exit status."""
    try:
        run_program(arguments.program, arguments.arguments, is_module=arguments.is_module)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the report is on what was compiled until then", file=sys.stderr)
        return 130
    except BaseException as error:  # whatever it is, the report follows
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def main(arguments: argparse.Namespace) -> int:
    """Runs the program, and reports."""
    problem = missing(arguments.program, is_module=arguments.is_module) or _misplaced(arguments)
    if problem is not None:
        arguments.error(problem)
    page = Path(arguments.html).resolve()  # now: the program may change the working directory
    if not page.parent.is_dir():
        arguments.error(f"--html {arguments.html}: there is no folder {page.parent}")
    import unified_guards
    from unified_guards.bench.steps import Clock
    from unified_guards.bench.verdict import lines_of_explained
    from unified_guards.dynamo import measure
    from unified_guards.report.explain import given_up, report_of

    os.environ["UNIFIED_GUARDS_PROFILE"] = "1"
    made_so_far = measure.compiled = []
    unified_guards.install()
    clock = Clock(lambda: len(made_so_far))
    clock.is_timing = True
    clock.install()
    status = _run(arguments)
    wanted = arguments.function
    made = [each for each in measure.compiled if wanted in (None, each.code.co_name)]
    others = given_up() if wanted is None else []
    if not made:
        reasons = "; ".join(str(each.note) for each in others)
        names = sorted({each.code.co_name for each in measure.compiled})
        why = (
            f"no compiled function is named {wanted!r}. Compiled were: {', '.join(names)}"
            if names
            else f"torch compiled nothing of the program: {reasons}"
            if reasons
            else "the program compiled nothing: it has to call torch.compile, and then what that returned"
        )
        print(f"\nunified_guards explain: {why}.", file=sys.stderr)
        return status or 1
    report = report_of(os.path.basename(arguments.program), made, others)
    program = " ".join([*(["-m"] if arguments.is_module else []), arguments.program, *arguments.arguments])
    step = "\n".join(lines_of_explained(clock, report, program))
    print(f"\n{report.summary()}\n\n{step}\n\nwritten: {report.to_html(page)}")
    return status
