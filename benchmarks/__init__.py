"""Benchmarks: real models (`workloads`), single guard kinds (`test_microbenchmarks`) and the demonstration (`demo`)."""
