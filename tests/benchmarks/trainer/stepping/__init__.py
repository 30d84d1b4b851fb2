"""What the benchmarks of a step share: a plain training loop, the rows, and timing."""
