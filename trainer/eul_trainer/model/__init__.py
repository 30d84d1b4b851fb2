"""A base model in memory, what trains on it, and where: layouts, depth, precision, processes."""
