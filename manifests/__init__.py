"""What a run has made, as SQL: table schemas, views, and a connection over a folder of runs."""
