"""What the registry's benchmarks share: bundles of any size, and the ways to move them."""
