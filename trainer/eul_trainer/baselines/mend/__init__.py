"""MEND: a network that edits the gradient of one row into a change of weights that stays local (arXiv 2110.11309)."""
