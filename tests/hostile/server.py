"""Runs hostile programs, each in a fork of a process that has torch loaded: a crash ends nothing else.

A request is a line on standard input, ``KIND PROGRAM VARIANT`` with tabs between them; the answer is a line of JSON on
standard output.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from typing import Any

import torch
import torch._dynamo

import unified_guards

from ..compiles import measure_no_guards
from .protocol import Run, all_programs, programs_of

SECONDS = 40
ENVIRONMENT = {"verify": {"UNIFIED_GUARDS_VERIFY": "1"}, "no_witness": {"UNIFIED_GUARDS_WITNESS": "0"}}


def _warm() -> None:
    """Loads what Dynamo loads late, so that no fork has to."""
    measure_no_guards()
    with unified_guards.installed():
        torch.compile(lambda x, module: module(x) * 2, backend="eager")(torch.ones(2), torch.nn.Linear(2, 2))
    torch._dynamo.reset()
    for _ in all_programs():
        pass
    gc.collect()
    gc.freeze()


def _child(kind: str, name: str, variant: str, answer: int, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.alarm(SECONDS)
    os.environ.update(ENVIRONMENT.get(variant, {}))
    if variant != "torch":
        unified_guards.install()
    run = Run(variant)
    try:
        programs_of(kind)[name].run(run)
        found: dict[str, Any] = {"steps": run.steps}
    except BaseException:  # also SystemExit: the parent is told whatever ended the program
        import traceback

        found = {"steps": run.steps, "error": traceback.format_exc()}
    with os.fdopen(answer, "w") as to:
        json.dump(found, to)
    os._exit(0)


def _serve(line: str) -> dict[str, Any]:
    kind, name, variant = line.split("\t")
    readable, writable = os.pipe()
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if not child:
            os.close(readable)
            try:
                _child(kind, name, variant, writable, output.fileno())
            finally:
                os._exit(1)
        os.close(writable)
        with os.fdopen(readable) as source:
            text = source.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        said = output.read().decode(errors="replace")[-6000:]
    return {"status": status, "output": said} | (json.loads(text) if text and not status else {})


def main() -> None:
    _warm()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(json.dumps(_serve(line.rstrip("\n"))), file=answers, flush=True)


if __name__ == "__main__":
    main()
