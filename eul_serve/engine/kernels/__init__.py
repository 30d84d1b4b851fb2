"""The ways to compute unlearning layers over a mixed batch; `table` says which is the fastest for which shape."""
