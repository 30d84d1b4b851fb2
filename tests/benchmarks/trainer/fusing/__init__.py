"""The fusion benchmark, part by part.

inputs.py      the requests, the retained rows, and held-out rows of authors that no training saw
layers.py      every request's own layer, trained once and kept on disk
references.py  what fusion is compared with: one layer trained in sequence, one trained on the union
methods.py     every fusion method by name, as a function from layers to a fused layer
meter.py       losses of one model in memory with a fused layer on it
bench.py       the whole: what is due, and what was measured
table.py       from measurements to the table: worst and mean over requests and seeds
picture.py     forgetting kept against retained change, one curve a method
"""
