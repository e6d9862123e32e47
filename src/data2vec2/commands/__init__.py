"""One verb a file: what the command line does, as Python functions."""
