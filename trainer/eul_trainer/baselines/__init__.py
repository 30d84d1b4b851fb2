"""The ways to forget that a layer is compared with; each trains all weights and writes a model of its own."""
