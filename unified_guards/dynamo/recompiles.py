"""Each recompile in one line, where that is asked for (``UNIFIED_GUARDS_LOG=recompiles``), and how near the limit is.

Before torch compiles a function again it asks each entry why it did not fit (``guard_manager.py``), and then whether
the function has as many versions as it may have. The first notes the reasons; the second is where a recompile is told,
or that there will be none. A hit comes nowhere near. Entry points: :func:`note`, :func:`watch`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from torch._dynamo import config as dynamo_config
from torch._dynamo import convert_frame

from unified_guards import config, verify
from unified_guards._environment import Problem, logs
from unified_guards.statistics import counted

if TYPE_CHECKING:
    from unified_guards.dynamo.entry import DynamoEntry, Recompilation

logger = logging.getLogger("unified_guards.recompiles")


class Recompile(NamedTuple):
    """A function is compiled again, or would be but for a limit.

    Attributes:
        function: its name, with the file and line where it starts.
        compile_id: torch's name for the compilation, as in its logs: "0/1".
        version: which version of the function this is, counted from 1.
        most: how many versions torch keeps.
        reached: the limit of ``torch._dynamo.config`` for which it is not compiled; None if it is.
        reasons: why the versions that there are did not fit, that which was used last first.
    """

    function: str
    compile_id: str
    version: int
    most: int
    reached: str | None
    reasons: tuple[Recompilation, ...]

    def __str__(self) -> str:
        """One line."""
        first = self.reasons[0]
        more = len(self.reasons) - 1
        others = f"; {counted(more, 'more version', 'more versions')} did not fit" if more else ""
        advice = "" if first.advice is None else f" | {' | '.join(first.advice.lines())}"
        if self.reached is None:
            head = f"compiled again, version {self.version} of at most {self.most}"
        else:
            head = (
                f"not compiled again, for {self.reached} ({self.most}) is reached: runs eagerly where no version fits"
            )
        return f"{self.function} [{self.compile_id}] {head}, because of: {first.text}{others}{advice}"


class _Thread(threading.local):
    def __init__(self) -> None:
        self.noted: list[tuple[DynamoEntry, Recompilation]] = []


_thread = _Thread()

#: What was compiled again, for the report of `bench --script`; None outside of that.
collected: list[Recompile] | None = None


def note(entry: DynamoEntry, why: Recompilation) -> None:
    """Called for each entry that did not fit a call for which torch is about to compile."""
    if why.compile_id is None:
        return  # asked by something else, as a stance that forbids compiling
    if _thread.noted and _thread.noted[-1][1].compile_id != why.compile_id:
        _thread.noted.clear()  # an earlier compilation went wrong before it came to the limit
    _thread.noted.append((entry, why))


def watch(put: Callable[[Any, str, Any], None]) -> None:
    """Has torch's question for the limit tell of the recompile."""
    name = "exceeds_recompile_limit"
    original = vars(convert_frame)[name]

    def exceeds_recompile_limit(cache_size: Any, compile_id: Any) -> Any:
        answer = original(cache_size, compile_id)
        with contextlib.suppress(Exception):  # only for reading: a logger of the user's may raise, and torch must go on
            _decided(str(compile_id), cache_size, *answer)
        return answer

    exceeds_recompile_limit.__doc__ = original.__doc__
    put(convert_frame, name, exceeds_recompile_limit)


def warn_of_wrong_log() -> None:
    """Warns once of a wrong ``UNIFIED_GUARDS_LOG``."""
    found = logs()
    if isinstance(found, Problem) and not config.is_assigned("log"):
        verify.warn_once(found)


def _decided(compile_id: str, cache_size: Any, exceeded: bool, limit: str) -> None:
    noted, _thread.noted = _thread.noted, []
    noted = [(entry, why) for entry, why in noted if why.compile_id == compile_id]
    if not noted:
        return
    reached = limit if exceeded else None
    most: int = getattr(dynamo_config, limit or "recompile_limit")
    reasons = tuple(why for _, why in noted)
    if reached is not None:
        reasons = tuple(entry.not_for(why, reached, most) for entry, why in noted)
    version = cache_size.num_cache_entries_with_same_id_matched_objs + 1
    made = Recompile(noted[0][0].function, compile_id, version, most, reached, reasons)
    if collected is not None:
        collected.append(made)
    if "recompiles" in config.log.split(","):
        logger.warning("%s", made)


__all__ = ["Recompile", "collected", "logger", "note", "warn_of_wrong_log", "watch"]
