"""Shows an error of a user's program as python would: without the frames of ours that ran the program.

Entry points: :func:`hide_our_frames`, :func:`without_our_frames`.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path

#: What runs a program, and what measures it meanwhile.
_OURS = tuple(f"{Path(__file__).parents[1] / folder}{os.sep}" for folder in ("cli", "bench"))
_MAIN = str(Path(__file__).parents[1] / "__main__.py")
_RUNPY = ("<frozen runpy>", f"{os.sep}runpy.py")


def hide_our_frames() -> None:
    """Has errors that end this process be shown without our frames, by whatever shows them then."""
    show = sys.excepthook

    def show_without(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
        without_our_frames(error)
        show(kind, error, error.__traceback__)

    sys.excepthook = show_without


def without_our_frames(error: BaseException) -> None:
    """Takes our frames out of the traceback of an error, and of those that led to it."""
    for each in _chain(error):
        each.__traceback__ = _without(each.__traceback__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [other for other in (each.__cause__, each.__context__) if other is not None]


def _without(trace: types.TracebackType | None) -> types.TracebackType | None:
    kept: list[types.TracebackType] = []
    behind_ours = False
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        # A program may use runpy, too: only what comes before its first frame is ours.
        is_ours = file == _MAIN or file.startswith(_OURS) or (not kept and file.endswith(_RUNPY))
        if not is_ours and not (behind_ours and kept and _where(trace) == _where(kept[-1])):
            kept.append(trace)
        behind_ours, trace = is_ours, trace.tb_next
    for each, following in zip(kept, [*kept[1:], None], strict=True):
        each.tb_next = following
    return kept[0] if kept else None


def _where(trace: types.TracebackType) -> tuple[str, str, int]:
    """The same for a function of torch's and its copy that is called when a clock has been asked (bench/steps.py)."""
    code = trace.tb_frame.f_code
    return code.co_filename, code.co_name, trace.tb_lineno
