"""From the user's files to batches: source -> store -> mixture -> loader. One sub-module per kind of data."""
