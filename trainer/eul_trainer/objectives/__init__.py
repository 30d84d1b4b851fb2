"""Objectives: pure functions of logits, targets and layer outputs. Which parameters train is decided elsewhere.

view.py     what an objective sees of a step, and what it gives back
terms.py    the terms that objectives are made of
catalog.py  every objective by name, with the rows it wants and its default settings
"""

NAMES = ("bounded", "paper", "npo", "simnpo", "graddiff", "ascent", "dpo", "rmu", "undial")
"""The objectives' names; here, so that a command line can list them without loading torch."""
