"""Attacks: ways to bring back what a bundle hides, each with a budget, each saying how much comes back.

prompts.py    other words, other formats, the beginning of the answer, examples: everything a caller can type
"""
