"""Where work happens and how it is kept: workers, commits, journals, checks of a run directory."""
