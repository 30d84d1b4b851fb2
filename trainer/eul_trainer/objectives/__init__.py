"""Objectives: pure functions of logits, targets and layer outputs. Which parameters train is decided elsewhere."""
