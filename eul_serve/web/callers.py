"""Who makes an HTTP request: tenants for the endpoint, administrators for the page."""

from __future__ import annotations

import base64
import binascii

from eul_serve.errors import IdentityError
from eul_serve.identity import Credentials, identify
from eul_serve.identity.bearer import authorization, bearer_token
from eul_serve.rpc.current import ADMIN, CALLER
from eul_serve.swap.policy_source import PolicySource
from eul_serve.web.app import Identify
from eul_serve.web.exchange import Exchange


def tenants(policies: PolicySource) -> Identify:
    """Return what lets tenants through, by token or certificate, as gRPC does."""

    def know(exchange: Exchange) -> None:
        credentials = Credentials(token=bearer_token(exchange.headers), names=exchange.names)
        CALLER.set(identify(credentials, policies.current, policies.ring))

    return know


def administrators(policies: PolicySource) -> Identify:
    """Return what lets administrators through: by token, certificate, or the token as a browser's password."""

    def know(exchange: Exchange) -> None:
        scheme, secret = authorization(exchange.headers)
        token = secret if scheme == "bearer" else _password(secret) if scheme == "basic" else None
        ADMIN.set(policies.current.identify_admin(token, exchange.names))

    return know


def _password(secret: str | None) -> str:
    """Return the password of HTTP's basic scheme; whatever stands before the colon is nobody's name here."""
    try:
        pair = base64.b64decode(secret or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise IdentityError("the `authorization` header is not well formed; give an administrator's token") from error
    return pair.partition(":")[2]
