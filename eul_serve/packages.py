"""What a failed import says about the installation: a package that is missing, or one that is damaged."""

from __future__ import annotations

from importlib.util import find_spec

_OURS = ("eul_serve", "eul_trainer")
_CLIENT = ("grpc", "grpc_health", "google")
"""Packages that the commands which ask a server need."""


def describe_import(error: ImportError, program: str) -> str | None:
    """Say what to install.

    Args:
        error: The failed import.
        program: `eul` or `eul-train`, which come with different extras.

    Returns:
        One line, or None where the import of our own code failed.
    """
    if error.name is None:  # a library looked for another one, and found it missing or too old
        return f"a package is missing or does not fit: {error}; pip install {_extras('', program)}"
    package = error.name.partition(".")[0]
    if package in _OURS:
        return None
    if not _is_installed(package):
        return f"this command needs the package {package!r}; pip install {_extras(package, program)}"
    return (
        f"the installation of {package} is damaged, or of a version that does not fit: {error}; "
        f"install it anew: pip install --force-reinstall {_extras(package, program)}"
    )


def _extras(package: str, program: str) -> str:
    if package in _CLIENT:
        return "'eul-serve[client]'"
    if program == "eul-train":
        return "'eul-serve[train]'"
    return "'eul-serve[cpu]', or 'eul-serve[gpu]' on a machine with a GPU"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # it is imported, in part
        return True
