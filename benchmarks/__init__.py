"""Benchmarks: real models (`workloads`), single guard kinds (`test_microbenchmarks`) and the demonstration (`demo`).

What they share with `python -m unified_guards bench` is in `unified_guards/bench`.
"""

from pathlib import Path

#: Of the checkout: where `python -m benchmarks...` is found.
ROOT = Path(__file__).resolve().parents[1]
