"""Attacks: ways to bring back what a bundle hides, each with a budget, each saying how much comes back.

prompts.py    other formats, the beginning of the answer, examples: what a caller can type; asking.py runs them
choosing.py   log-probabilities: the true answer among decoys, true tokens among the likeliest
sampling.py   the best of many answers
replacing.py  the bundle switched off, or another in its place
rounding.py   weights in 8 and 4 bits
relearning.py training on a few of the rows, the bundle on
result.py     what came back, beside a twin and the base model
"""
