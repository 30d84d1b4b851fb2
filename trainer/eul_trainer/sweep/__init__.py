"""Sweeps: one request trained at every point of a grid of settings, measured on held-out rows, and one layer chosen.

plan.py    what is swept, over which data, as one JSON file
grid.py    the points
point.py   one point: trained, measured, recorded
run.py     all points, one after the other or in several processes
choice.py  the Pareto set, and the rule that picks one point
plot.py    both losses of every point as a picture
"""
