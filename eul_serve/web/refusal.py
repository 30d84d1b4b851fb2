"""What an HTTP caller is told when a call fails: a status, and the error object that OpenAI's clients read."""

from __future__ import annotations

import math

from eul_serve.errors import BusyError
from eul_serve.rpc.details import FIELD, reason_of
from eul_serve.rpc.status import code_of

_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error; 500 for everything that is not in the table."""
    return _STATUSES.get(code_of(error).name, 500)


def headers_of(error: BaseException) -> dict[str, str]:
    """Return the headers of a refusal: when it is worth to try again, where that is known."""
    if isinstance(error, BusyError):
        return {"retry-after": str(max(1, math.ceil(error.retry_seconds)))}
    return {}


def body_of(error: BaseException, text: str) -> dict[str, object]:
    """Return the error object.

    Args:
        error: What went wrong.
        text: What the caller reads of it.

    Returns:
        The body; `code` is the reason that gRPC callers get.
    """
    status = status_of(error)
    field = FIELD.match(text) if status == 400 else None
    return {
        "error": {
            "message": text,
            "type": _KINDS.get(status, "server_error"),
            "param": field[1].removeprefix("sampling.") if field else None,
            "code": reason_of(error).lower(),
        }
    }
