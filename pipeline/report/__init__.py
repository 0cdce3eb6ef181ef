"""A run as one self-contained HTML page; reads views and the run's Parquet, nothing else."""
