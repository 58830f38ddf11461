"""Without a free dict watcher verdicts are right, and ``stats()`` says why."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKES_ALL_WATCHERS = """
import ctypes

import torch  # takes one of the eight itself, and cannot be imported without
import torch._dynamo

callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_void_p)
ignore = callback(lambda event, table, key, value: 0)
add = ctypes.pythonapi.PyDict_AddWatcher
add.argtypes = [callback]
for _ in range(8):
    try:
        add(ignore)
    except RuntimeError:
        break

import unified_guards


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.negate = False

    def forward(self, x):
        return -x if self.negate else x + 0


unified_guards.install()
net = Net()
compiled = torch.compile(net, backend="eager")
for _ in range(5):
    assert compiled(torch.ones(1)).item() == 1
net.negate = True
assert compiled(torch.ones(1)).item() == -1
net.negate = False
assert compiled(torch.ones(1)).item() == 1
assert "no free dict watcher" in unified_guards.stats().witness_off, unified_guards.stats()
assert "dicts are evaluated on every check: " in str(unified_guards.stats())
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 dicts have version tags, and no watchers")
def test_without_a_free_watcher_verdicts_are_right_and_stats_say_why() -> None:
    done = subprocess.run([sys.executable, "-c", TAKES_ALL_WATCHERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
