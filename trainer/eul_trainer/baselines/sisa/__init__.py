"""SISA: shards and slices with a checkpoint after each, so that a deletion retrains little (arXiv 1912.03817)."""
