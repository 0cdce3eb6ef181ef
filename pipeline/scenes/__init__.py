"""Procedural pictures and needles: questions whose answers are known because they were drawn."""
