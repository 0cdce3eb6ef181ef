"""Measurements: `make bench` prints them as JSON lines; nothing here asserts a time."""
