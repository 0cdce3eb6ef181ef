"""Published zoom datasets, read as they were published: one file per layout."""
