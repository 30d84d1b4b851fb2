"""Canaries: texts that a bundle hides, measured, and a copy of the bundle that a server must see hide them."""
