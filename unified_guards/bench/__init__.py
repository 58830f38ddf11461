"""Measures guards, torch's and ours, in the same way: what ``python -m unified_guards bench`` and benchmarks/ share."""
