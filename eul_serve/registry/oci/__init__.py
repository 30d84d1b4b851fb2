"""A registry in an OCI registry."""

from eul_serve.registry.oci.store import OciStore

__all__ = ["OciStore"]
