"""Scripts of policy `scripted` for puzzles: each knows its question's wording and sees views."""
