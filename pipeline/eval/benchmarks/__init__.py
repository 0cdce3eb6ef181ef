"""Benchmarks, each in a file of its own with a function `read`."""
