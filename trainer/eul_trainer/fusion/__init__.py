"""Fusion: the layers of many requests as one bundle.

settings.py    what can be chosen; methods.py which method reads it
members.py     the layers that go into a bundle, out of trained layers and fused bundles
store.py       `fusion.safetensors`: what a later fusion or revocation needs; layout.py and reader.py check it
job.py         what a method takes and gives
concat.py, regression.py, compress.py, distil.py, gate.py   one method each
correct.py     the solve against retained rows (solve.py), its limit (limit.py), and healing (heal.py)
retained.py    retained rows and the model: moments, and how much losses rise; hooks.py puts layers there
fuse.py        the whole: check, fuse, write; revoke.py takes requests out; trial.py measures and writes nothing
"""
