"""What the failures of the storage libraries mean to a person: one place that turns them into our errors.

Their own texts are left out, and so are they as a cause: some quote what the server or the environment said, and a
credential must not get into a log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from eul_serve.errors import BusyError, CapacityError, EulError, InputError, NotFoundError

# By code, status and name of class, because the classes come from half a dozen optional packages. The first that fits.
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
}
_REFUSED = {"401", "403", "AccessDenied", "InvalidToken", "AuthorizationHeaderMalformed", "PermissionError"}
_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "ClientConnectorError",
    "ServiceRequestError",
}
_BUSY = {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "429", "500", "502", "503", "504"}
_NO_ANSWER = {"HTTPClientError", "ResponseParserError", "ServerError", "TimeoutError", "ConnectionError"}
_MEANING: tuple[tuple[type[Exception], set[str], str], ...] = (
    (NotFoundError, {"NoSuchBucket", "ContainerNotFound"}, "there is no such bucket; make it, or name another"),
    (FileNotFoundError, {"404", "NoSuchUpload", "InvalidPart", "FileNotFoundError"}, "not found"),
    (FileExistsError, {"409", "412", "FileExistsError"}, "is there already"),
    (
        CapacityError,
        {"507", "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"},
        "the store is full or a quota is used up; free space and run again",
    ),
    (
        InputError,
        _NO_CREDENTIALS,
        "no usable credentials ({}); set AWS_PROFILE, AWS_ACCESS_KEY_ID and the like, or what the store's tools read",
    ),
    (InputError, _REFUSED, "access refused ({}); check the credentials and what they may do there"),
    (
        InputError,
        {"SSLError", "ClientConnectorCertificateError"},
        "its certificate is not trusted ({}); name the authority's file in AWS_CA_BUNDLE",
    ),
    (
        NotFoundError,
        _UNREACHABLE,
        "nothing answers there ({}); check the endpoint (AWS_ENDPOINT_URL) and the network",
    ),
    (BusyError, _BUSY | _NO_ANSWER, "no answer after several tries ({}); run again later"),
)
_DULL = {
    "object",
    "BaseException",
    "Exception",
    "OSError",
    "PermissionError",
    "NoneType",
    "ClientError",
    "BotoCoreError",
}


@contextmanager
def object_errors(where: str) -> Iterator[None]:
    """Turn what a storage library raises into one of ours.

    FileNotFoundError and FileExistsError are passed on, for the caller to decide what a missing object means.

    Args:
        where: The registry's URL, for messages.

    Raises:
        FileNotFoundError: There is no such object or upload.
        FileExistsError: There is an object already.
        NotFoundError: There is no such bucket, or nothing listens at the endpoint.
        CapacityError: The store is full, or a quota is used up.
        BusyError: It had no time, or did not answer, as often as the library tried.
        InputError: It refused, or there are no credentials.
        ImportError: A package is missing.
    """
    try:
        yield
    except (EulError, ImportError):
        raise
    except Exception as error:
        raise _translated(error, where) from None


def failure_codes(error: BaseException) -> set[str]:
    """Return what identifies a failure: the store's code, the HTTP status, and the names of its classes.

    Args:
        error: What a storage library raised; s3fs has botocore's error as its cause.

    Returns:
        All that could be found.
    """
    codes = set()
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code", "")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        for field in ("status_code", "error_code", "code", "status"):
            if isinstance(value := getattr(one, field, None), int | str):
                codes.add(str(value))
        codes.update(kind.__name__ for kind in type(one).__mro__)
    return codes


def _translated(error: Exception, where: str) -> Exception:
    codes = failure_codes(error)
    for kind, known, words in _MEANING:
        if codes & known:
            return kind(f"{where}: {words.format(_reason(codes))}")
    return InputError(f"{where}: the store answered {_reason(codes)}; check the URL and the store's own log")


def _reason(codes: set[str]) -> str:
    """Return the most telling code: a store's own word, then a class, then a status; never a text."""
    words = sorted(code for code in codes - _DULL if code.isidentifier())
    return (words + sorted(code for code in codes if code.isdigit()) + ["an error"])[0]
