"""The paper's tables with a small model: every method on TOFU, IMDB and SAMSum, beside a model retrained without.

scale.py     tiny, small and full: rows, epochs and steps
case.py      the rows of one table cell, by task, split and seed
measures.py  what is measured of a model: probability, ROUGE, truth ratio, accuracy on label words
methods.py   every method by name, as a function that gives a model to measure
runner.py    teach, apply, measure, write down
results.py   mean, spread and distance to the retrained model, as JSON and as a Markdown table
"""
