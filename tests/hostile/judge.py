"""Asks ``server.py`` for what a program saw, and compares that with what it saw under plain torch."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]


@functools.cache
def _server() -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("UNIFIED_GUARDS")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tempfile.gettempdir(),
        env=kept | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )


@functools.cache
def seen(kind: str, name: str, variant: str) -> dict[str, Any]:
    server = _server()
    assert server.stdin and server.stdout
    print(kind, name, variant, sep="\t", file=server.stdin, flush=True)
    line = server.stdout.readline()
    if not line:
        _server.cache_clear()
        raise AssertionError(f"the server ended: {server.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def stop() -> None:
    if _server.cache_info().currsize:
        server = _server()
        assert server.stdin
        server.stdin.close()
        server.wait()
        _server.cache_clear()
        seen.cache_clear()


def complaints(kind: str, name: str, variant: str) -> list[str]:
    """What is wrong with a program's run; empty where nothing is. A miss that torch does not have is allowed."""
    ours = seen(kind, name, variant)
    if ours["status"]:
        return [f"ended with status {ours['status']} and said:\n{ours['output']}"]
    if "error" in ours:
        return [ours["error"]]
    if not ours["steps"]:
        return ["the program looked at nothing"]
    if variant == "direct":
        return [
            f"{step['name']}: a false hit {step['text']}"
            for step in ours["steps"]
            if step["verdict"] and not step["right"]
        ]
    if variant in ("torch", "aot"):
        # Where plain torch is stale or ends by a signal, so may be its run; ours is compared with it.
        wrong = [step for step in ours["steps"] if variant == "aot" and step["value"] != step["eager"]]
        return [f"{step['name']}: {step['value']} {step['text']}, eager gives {step['eager']}" for step in wrong]
    torchs = seen(kind, name, "torch")
    known = [] if torchs["status"] else torchs["steps"]
    found = []
    for index, step in enumerate(ours["steps"]):
        other = known[index] if index < len(known) else None
        right = [step["eager"], *([other["value"]] if other else [])]
        if step["value"] not in right:
            found.append(f"{step['name']} ({index}): {step['value']} {step['text']}, right is one of {right}")
        elif other and other["graphs"] > step["graphs"] and not str(step["value"]).startswith("raises"):
            found.append(f"{step['name']} ({index}): a hit, torch has compiled {other['graphs']} not {step['graphs']}")
        elif other and step["ran"] and not other["ran"]:
            found.append(f"{step['name']} ({index}): compiled code ran, under plain torch it does not")
    return found
