"""Files that hold a model; nothing is imported here."""
