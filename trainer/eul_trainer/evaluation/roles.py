"""What systems that are no bundle are called, in a file that needs no torch: pages and verdicts read them too."""

from __future__ import annotations

BASE = "base"
"""The model as it is, with no bundle."""
TWIN = "twin"
"""A model that was taught the same without what is to be forgotten."""
