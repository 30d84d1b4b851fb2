"""A socket at an address, and the one line for an address that cannot be listened on."""

from __future__ import annotations

import socket

from eul_serve.address import Address
from eul_serve.errors import InputError


def bound(address: Address) -> socket.socket:
    """Return a socket that is bound to an address and does not listen yet.

    Args:
        address: The address; any free port where it is 0.

    Returns:
        The socket; the caller closes it.

    Raises:
        InputError: The address is taken or not ours.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(target)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise InputError(
            f"address {address}: cannot listen: {error.strerror}; name a free port of this machine"
        ) from error
    return found
