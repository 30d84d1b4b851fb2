"""Fusion: the layers of many requests as one bundle.

members.py     the layers that go into a bundle, out of trained layers and fused bundles
store.py       `fusion.safetensors`: what a later fusion or revocation needs
regression.py  the paper's closed form
solve.py       the closed form against a retain Gram
concat.py      side by side, and corrected by it
fuse.py        the whole: check, fuse, take a request out again
"""
