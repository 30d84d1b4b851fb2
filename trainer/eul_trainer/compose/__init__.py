"""Composites: a bundle with a tenant's fine-tune beside it, measured before it is written."""
