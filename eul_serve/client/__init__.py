"""A typed client of a server; needs neither torch, vllm nor the server's code."""

from eul_serve.client.admin import AdminClient, Step
from eul_serve.client.aio import AsyncClient
from eul_serve.client.answers import Answer, BundleAlias, Choice, Classification, Part, Tenant, Usage
from eul_serve.client.client import Client
from eul_serve.client.settings import Retries, Settings
from eul_serve.client.token import read_token

__all__ = [
    "AdminClient",
    "Answer",
    "AsyncClient",
    "BundleAlias",
    "Choice",
    "Classification",
    "Client",
    "Part",
    "Retries",
    "Settings",
    "Step",
    "Tenant",
    "Usage",
    "read_token",
]
