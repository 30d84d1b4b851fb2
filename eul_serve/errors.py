"""The error tree of both packages.

    EulError
      InputError            a file, row, flag or setting is not acceptable        exit 2   INVALID_ARGUMENT
      BundleFormatError     files that are not a valid bundle                     exit 2   INVALID_ARGUMENT
      BundleMismatchError   a valid bundle, but for another base model            exit 3   FAILED_PRECONDITION
      NotFoundError         no such bundle, revision or alias                     exit 4   NOT_FOUND
      IdentityError         the caller is not known                               exit 5   UNAUTHENTICATED
      RefusedError          known caller, but policy or the registry says no      exit 5   PERMISSION_DENIED
        CanaryError         a bundle does not hide what its canaries say          exit 5   PERMISSION_DENIED
        BannedError         a revision is banned, or was deleted for good         exit 5   PERMISSION_DENIED
        UntrustedError      nobody whom the policy believes signed a bundle       exit 5   PERMISSION_DENIED
      CapacityError         no free slot, disk full                               exit 6   RESOURCE_EXHAUSTED
        BusyError           too much at this moment; the same may pass later      exit 6   RESOURCE_EXHAUSTED
      EngineError           the engine is dead, not live yet, or not ours         exit 7   UNAVAILABLE

Every message names the value at fault, what is allowed, and the next step. The exit statuses are those of
`eul` and `eul-train`; the gRPC codes are mapped in one table, `eul_serve/rpc/status.py`.
"""

from __future__ import annotations


class EulError(Exception):
    """Root of every error that the two packages raise on purpose."""

    exit_status = 1
    """Exit status of the command lines, 1 to 7."""


class InputError(EulError):
    """A file, row, flag or setting is not acceptable; the message names it and what is allowed."""

    exit_status = 2


class BundleFormatError(EulError):
    """Files that claim to be a bundle break the format; names the tensor or field, expected and found."""

    exit_status = 2


class BundleMismatchError(EulError):
    """A valid bundle that was made for another base model, shape or dtype."""

    exit_status = 3


class NotFoundError(EulError):
    """No such bundle, revision or alias, or none that the caller may know of."""

    exit_status = 4


class IdentityError(EulError):
    """The caller could not be identified."""

    exit_status = 5


class RefusedError(EulError):
    """The caller is known and the request well formed, but a policy or a rule of the registry says no."""

    exit_status = 5


class CanaryError(RefusedError):
    """A bundle's canaries failed or could not be asked, so a server does not serve it; no caller is told that much."""


class BannedError(RefusedError):
    """A person has ordered that a revision is banned or deleted; no caller of a server is told that much."""


class UntrustedError(RefusedError):
    """Nobody whom the policy believes has signed a bundle; no caller of a server is told that much."""


class CapacityError(EulError):
    """No room: slots all pinned, or disk full."""

    exit_status = 6


class BusyError(CapacityError):
    """Too much at this moment: a quota is used up, or too many requests run or wait. The same may pass later."""

    def __init__(self, message: str, limit: str = "", retry_seconds: float = 1.0) -> None:
        """Say what is used up.

        Args:
            message: One line.
            limit: Name of the limit, as a policy or an option calls it.
            retry_seconds: Seconds after which it is worth to try again.
        """
        super().__init__(message)
        self.limit, self.retry_seconds = limit, retry_seconds


class EngineError(EulError):
    """The engine is dead, or its workers do not run our plugin."""

    exit_status = 7
