"""Measures of answers: pure functions from texts and rows to numbers."""
