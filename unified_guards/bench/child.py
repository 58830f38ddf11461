"""What ``python -m unified_guards bench`` starts for one workload and one backend; prints a sample."""

from __future__ import annotations

import argparse

import unified_guards.bench.workloads  # noqa: F401  (registers them)
from unified_guards.bench import measure
from unified_guards.bench.registry import WORKLOADS


def main() -> None:
    """Measures and prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m unified_guards.bench.child")
    parser.add_argument("name", choices=WORKLOADS)
    parser.add_argument("--child", dest="backend", choices=measure.BACKENDS, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    measure.print_sample(options.name, options.backend, steps=options.steps)


if __name__ == "__main__":
    main()
