"""A typed client of a server; needs neither torch, vllm nor the server's code."""

from eul_serve.client.answers import Answer, BundleAlias, Classification, Part, Usage
from eul_serve.client.client import Client, Settings
from eul_serve.client.token import read_token

__all__ = ["Answer", "BundleAlias", "Classification", "Client", "Part", "Settings", "Usage", "read_token"]
