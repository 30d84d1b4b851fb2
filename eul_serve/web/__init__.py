"""HTTP: one server, one edge, routes by exact name. What is answered is for the rooms beside it."""
