"""Serve language models that have been made to forget: unlearning layers, bundles and tenants.

Importing this package imports nothing else: vLLM loads it in every one of its processes.
"""

__version__ = "0.1.0"
