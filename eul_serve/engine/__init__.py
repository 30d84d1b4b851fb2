"""The engine: unlearning layers inside vLLM.

`base` is the interface that the rest of the server sees; the other files import vllm, and nothing else does.
"""
