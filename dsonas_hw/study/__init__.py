"""Studies: grids of searches and trainings, in parallel processes, resumable, into one table."""
