"""Train unlearning layers, fuse them into bundles, and measure what was forgotten."""
