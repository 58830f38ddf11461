"""``python -m unified_guards bench``: what unified guards save on this machine, or in the user's own program."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unified_guards.cli.run import missing

if TYPE_CHECKING:
    from unified_guards.bench.runner import Summary

#: The exit status where a program ran well and there was nothing to measure in it.
NOT_MEASURED = 3

_ABOUT = """\
Without --script, small models with random weights are compiled with torch's guards and with unified ones, each in a
process of its own, on one thread. With it, your own program is run so, once in each round:

  python -m unified_guards bench --script train.py --its --own arguments
  python -m unified_guards bench --script -m package.module

A step of your program lasts from one call of a compiled function to its next call. What is printed is how long it
takes, how much of it is guards and how much the rest of the calls of compiled code, with torch's guards and with
unified ones, and a verdict: worth it (5 % of the step or more), hardly (1 %), or not. A program that ends soon is run
up to six times.

"In place" is what a program pays: the guards' memory is cold because the model has just run. Both figures include the
same part of a microsecond of the profiler's. A program has to call compiled code at least six times after the last
compilation, and 30 times is good; what it prints is not shown. Other processes that it starts are not measured.

Exit status: 0 if something was measured, whatever the verdict; 3 if your program ran well and there was nothing to
measure (nothing compiled, too few calls, a profiler of its own); 2 for wrong options; 1 if a result of a workload is
wrong or a process of it failed. If your program fails, its own exit status.

workloads:
"""


def _about() -> str:
    from unified_guards.bench import workloads  # noqa: F401  (registers them)
    from unified_guards.bench.registry import NEEDS, WORKLOADS

    lines = []
    for name, build in WORKLOADS.items():
        about = (build.__doc__ or "").partition(chr(10))[0]
        lines.append(f"  {name:<12} {about}{f' Needs {NEEDS[name]}.' if name in NEEDS else ''}")
    return _ABOUT + "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command."""
    parser.description, parser.epilog = "Measures what unified guards save, before and after.", _about()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", action="append", metavar="NAME", help="this workload; may be given several times")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="processes for each kind of guards (2; --script: 1 to 3)"
    )
    parser.add_argument("--steps", type=int, default=30, metavar="N", help="steps that a figure is the median of (30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table, to a .png or .svg; needs matplotlib")
    parser.add_argument(
        "--script", nargs=argparse.REMAINDER, metavar="...", help="your own program and its arguments; comes last"
    )


def _problem(arguments: argparse.Namespace) -> str | None:
    """What to tell the user before anything is measured; None if all is well."""
    if any(number is not None and number < 1 for number in (arguments.rounds, arguments.steps)):
        return "--rounds and --steps are 1 or more"
    for option in ("json", "plot"):
        path = getattr(arguments, option)
        if path is not None and not path.absolute().parent.is_dir():
            return f"--{option}: there is no folder {str(path.parent)!r}"
    return _problem_of_plot(arguments.plot) or _problem_of_names(arguments)


def _problem_of_plot(path: Path | None) -> str | None:
    if path is None:
        return None
    if path.suffix not in (".png", ".svg"):
        return f"--plot writes .png or .svg, and was given {str(path)!r}"
    from unified_guards.bench import plots

    if not plots.is_possible():
        return "--plot needs matplotlib, which is not installed. Run: pip install matplotlib"
    return None


def _problem_of_names(arguments: argparse.Namespace) -> str | None:
    if arguments.script is not None:
        if arguments.only:
            return "--only picks workloads; with --script there is only your program"
        if arguments.script in ([], ["-m"]):
            return "--script needs a program: --script train.py, or --script -m package.module"
        is_module = arguments.script[0] == "-m"
        return missing(arguments.script[1 if is_module else 0], is_module=is_module)
    from unified_guards.bench import workloads  # noqa: F401  (registers them)
    from unified_guards.bench.registry import WORKLOADS, lacks

    for name in arguments.only or ():
        if name not in WORKLOADS:
            return f"no workload is called {name!r}; there are {', '.join(WORKLOADS)}"
        package = lacks(name)
        if package is not None:
            return f"{name} needs {package}, which is not installed. Run: pip install {package}"
    return None


def _workloads(arguments: argparse.Namespace) -> tuple[int, str, dict[str, Any], list[Any]]:
    """Measures the workloads: exit status, table, what goes to JSON, panels of the plot."""
    from unified_guards.bench import plots, runner
    from unified_guards.bench.registry import WORKLOADS, lacks

    lacking = {name: package for name in WORKLOADS if (package := lacks(name)) is not None}
    names = [name for name in WORKLOADS if (name in arguments.only if arguments.only else name not in lacking)]
    child = runner.Child("unified_guards.bench.child")
    samples, failed = runner.run(
        child, names, ["torch", "unified"], rounds=arguments.rounds or 2, steps=arguments.steps, memory=False
    )
    summary = runner.summarise(samples)
    problems = runner.problems(summary) + ([f"{failed} child processes failed"] if failed else [])
    words = list(_words(summary))
    lines = [_table(summary), *(["", *words] if words else [])]
    lines += [f"\n{name} needs {package}: pip install {package}" for name, package in lacking.items()]
    lines += [f"\nWRONG: {problem}" for problem in problems]
    medians = {name: {backend: each.as_dict() for backend, each in sides.items()} for name, sides in summary.items()}
    measured = {name: _pair(sides, "lookup_us") for name, sides in summary.items()}
    pairs = {name: (pair[0], pair[1]) for name, pair in measured.items() if None not in pair and all(pair)}
    panels = [plots.Pairs("guard lookups of a step, in place", "µs", pairs)] if pairs else []  # type: ignore[arg-type]
    content = {"problems": problems, "medians": medians, "samples": samples}
    return (1 if problems else 0), "\n".join(lines), content, panels


def _pair(sides: dict[str, Summary], key: str) -> list[float | None]:
    return [sides[backend].median(key) if backend in sides else None for backend in ("torch", "unified")]


def _shares(sides: dict[str, Summary]) -> str:
    """The share of the whole step that is guards, with torch's and with ours."""
    from unified_guards.bench.verdict import percent

    pairs = zip(_pair(sides, "lookup_us"), _pair(sides, "step_us"), strict=True)
    return " / ".join("-" if lookup is None or not step else percent(lookup / step) for lookup, step in pairs)


def _words(summary: dict[str, dict[str, Summary]]) -> Iterator[str]:
    """Of each workload whose lookups are much faster and whose step is hardly so: why."""
    from unified_guards.bench.runner import ratio
    from unified_guards.bench.verdict import percent

    for name, sides in summary.items():
        lookups, step = ratio(sides, "lookup_us"), ratio(sides, "step_us")
        if lookups is None or step is None or lookups < 2 or step >= 1.05:
            continue
        times = [[s["step_us"] for s in side.samples if s["step_us"] is not None] for side in sides.values()]
        varied = max((max(found) - min(found)) / min(found) for found in times)
        varies = f", and its time varies by {percent(varied)} from process to process" if len(times[0]) > 1 else ""
        yield (
            f"{name}: lookups are {lookups:.1f}x as fast and the whole step {step:.2f}x, because guards are "
            f"{_shares(sides).partition(' /')[0]} of it{varies}."
        )


def _table(summary: dict[str, dict[str, Summary]]) -> str:
    from unified_guards.bench.runner import CHECKS, format_number, markdown, ratio

    head = [
        "workload",
        "guards",
        CHECKS,
        "lookups a step",
        "lookup in place, torch (µs)",
        "unified (µs)",
        "torch / unified",
    ]
    head += ["whole step, torch (µs)", "unified (µs)", "guards of the step", "guard building"]
    rows = []
    for name, sides in summary.items():
        any_side = next(iter(sides.values()))
        ours = sides.get("unified")
        guards = [format_number(None if ours is None else ours.median(key)) for key in ("lifted", "checks")]
        counts = [*guards, format_number(any_side.median("lookups_per_step"))]
        times = [[format_number(value) for value in _pair(sides, key)] for key in ("lookup_us", "step_us")]
        saving, building = ratio(sides, "lookup_us"), ratio(sides, "guard_build_s")
        row = [name, *counts, *times[0], "-" if saving is None else f"{saving:.2f}x", *times[1], _shares(sides)]
        rows.append([*row, "-" if building is None else f"{(1 / building - 1) * 100:+.0f} %"])
    return markdown(head, rows)


def _script(arguments: argparse.Namespace) -> tuple[int, str, dict[str, Any], list[Any]]:
    """Measures the user's program, and returns the same four things as :func:`_workloads`."""
    from unified_guards.bench import compare

    is_module = arguments.script[0] == "-m"
    name, *own = arguments.script[1:] if is_module else arguments.script
    program = compare.Program(name, own, is_module)
    try:
        comparison = compare.Comparison(program, compare.measure(program, arguments.rounds))
    except compare.ProgramFailed as error:
        return error.status, str(error), {}, []
    has_figures = comparison.nothing_to_compare() is None
    panels = comparison.panels() if has_figures else []
    return (0 if has_figures else NOT_MEASURED), str(comparison), comparison.as_dict(), panels


def main(arguments: argparse.Namespace) -> int:
    """Measures, prints a table, and writes the files that were asked for. Returns the exit status."""
    problem = _problem(arguments)
    if problem is not None:
        arguments.error(problem)
    status, said, content, panels = (_workloads if arguments.script is None else _script)(arguments)
    is_report = status in (0, NOT_MEASURED)
    print(f"\n{said}" if is_report else said, file=sys.stdout if is_report else sys.stderr)
    if arguments.json is not None and content:
        from unified_guards.bench.runner import environment

        arguments.json.write_text(json.dumps({"environment": environment(), **content}, indent=1) + "\n")
    if arguments.plot is not None and panels:
        from unified_guards.bench import plots

        plots.draw(arguments.plot, panels, columns=1)
        print(f"\nDrawn: {arguments.plot}")
    return status
