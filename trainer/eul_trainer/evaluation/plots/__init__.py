"""Plots of a report, each with the words that stand for it."""
