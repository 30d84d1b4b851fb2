"""What the trainer's benchmarks share: results on disk as they come, and the machine."""
