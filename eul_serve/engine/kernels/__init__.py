"""GPU kernels that add unlearning layers to a mixed batch, and the metadata that they read."""
