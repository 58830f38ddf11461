"""Threads that miss together compile once.

Torch compiles one frame at a time, under a lock. Whoever waited for the lock compiles as well, though what it needs may
have been compiled meanwhile. So a thread that has the lock and is about to compile looks first whether there are
entries that its gate has not asked. If so, :class:`AskAgain` unwinds torch's wrapper, which has run nothing of the
function yet, and the gate is asked again. Nobody waits where torch would not. Entry points: :func:`look_again`,
:func:`is_finished`, :func:`is_added`.
"""

from __future__ import annotations

import sys
import time
import types
import weakref
from typing import TYPE_CHECKING, Any

from torch._dynamo import convert_frame
from torch.nn.modules.module import Module

from unified_guards import _C

if TYPE_CHECKING:
    from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper


class AskAgain(BaseException):
    """Caught by the wrapper in whose name it is raised (``dynamo/dispatch.py``); no user sees it."""


#: The code of what is between a wrapper and Dynamo's conversion of the frame that the wrapper calls.
_BETWEEN = (
    convert_frame.CatchErrorsWrapper.__call__,
    convert_frame.ConvertFrame.__call__,
    convert_frame.ConvertFrameAssert.__call__,
    Module._wrapped_call_impl,
    Module._call_impl,
)

#: What was compiled for a code object (its ``id``) and is not in torch's list yet: torch adds it without the lock.
_finished: dict[int, weakref.ref[UnifiedGuardManagerWrapper]] = {}
#: It takes torch microseconds, unless an exception comes in between and somebody keeps that.
_LONGEST = 1.0


def is_finished(code: types.CodeType, manager: UnifiedGuardManagerWrapper) -> None:
    """Called when the guards of an entry are built, under torch's lock."""
    for key in [key for key, held in list(_finished.items()) if held() is None]:
        _finished.pop(key, None)
    _finished[id(code)] = weakref.ref(manager)


def is_added(manager: UnifiedGuardManagerWrapper) -> None:
    """Called when torch has added the entry of a guard manager to its list."""
    for key in [key for key, held in list(_finished.items()) if held() is manager]:
        _finished.pop(key, None)


def look_again(frame: Any) -> object:
    """Called under torch's lock, before a frame is compiled.

    Raises:
        AskAgain: there are entries that the gate of the call has not asked.
    """
    code = frame.f_code
    wrapper = _wrapper_above(sys._getframe(1))
    missed = None if wrapper is None else _C.take_miss(wrapper, code)
    if missed is not None:
        _wait_for_what_is_finished(code)
        if _C.has_other_entries(code, *missed):
            raise AskAgain
    return _C.LONG_WAY


def _wrapper_above(frame: types.FrameType | None) -> types.FrameType | None:
    """The frame of the wrapper that has called the function that is about to be compiled."""
    while frame is not None and any(frame.f_code is each.__code__ for each in _BETWEEN):
        frame = frame.f_back
    catches = frame is not None and any(constant is AskAgain for constant in frame.f_code.co_consts)
    return frame if catches else None


def _wait_for_what_is_finished(code: types.CodeType) -> None:
    end = time.monotonic() + _LONGEST
    while (held := _finished.get(id(code))) is not None and held() is not None and time.monotonic() < end:
        time.sleep(1e-4)


__all__ = ["AskAgain", "is_added", "is_finished", "look_again"]
