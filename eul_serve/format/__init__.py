"""The bundle format: `docs/reference/format.md` in code. Imports neither torch, vllm nor grpc.

`eul_serve.format.weights` reads weights as tensors and is the one file here that needs torch.
"""

from eul_serve.format.base import BaseModel
from eul_serve.format.bundle import Bundle, read_bundle
from eul_serve.format.config import BundleConfig
from eul_serve.format.fingerprint import fingerprint, read_base
from eul_serve.format.listing import FileEntry
from eul_serve.format.manifest import Manifest
from eul_serve.format.names import DEFAULT_ALIAS, Reference, TensorName, check_digest, check_name
from eul_serve.format.request import ForgottenRequest
from eul_serve.format.writer import describe_files, write_bundle

__all__ = [
    "DEFAULT_ALIAS",
    "BaseModel",
    "Bundle",
    "BundleConfig",
    "FileEntry",
    "ForgottenRequest",
    "Manifest",
    "Reference",
    "TensorName",
    "check_digest",
    "check_name",
    "describe_files",
    "fingerprint",
    "read_base",
    "read_bundle",
    "write_bundle",
]
