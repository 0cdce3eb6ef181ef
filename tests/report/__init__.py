"""The report: what a page shows, and what it refuses to do."""
