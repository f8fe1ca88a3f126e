"""Routing benchmarks: one file per source, each of which yields a `Benchmark`."""
