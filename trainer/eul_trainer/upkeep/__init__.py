"""What keeps a long run safe and visible, and never changes the layer: checkpoints, logs, pace, interruption."""
