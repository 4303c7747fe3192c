"""What went wrong with a disk or an object store, in words a user can act on.

The libraries behind fsspec need not be installed, so their errors are known by the names
of their classes.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any

_TRANSIENT_NUMBERS = {
    errno.EBUSY,  # how s3fs says "slow down" and "service unavailable"
    errno.EREMOTEIO,  # and "internal error"
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
_TRANSIENT_CODES = {"RequestTimeout", "InternalError", "SlowDown", "Throttling", "502", "504"}
_UNREACHABLE = {
    "EndpointConnectionError",
    "ConnectionClosedError",
    "ProxyConnectionError",
    "ClientConnectionError",
    "ServiceRequestError",
    "gaierror",
    "ConnectionError",
}
_SLOW = {"TimeoutError", "ConnectTimeoutError", "ReadTimeoutError", "FSTimeoutError"}
_BROKEN_OFF = {
    "ClientPayloadError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseParserError",
    "ResponseStreamingError",
    "ServiceResponseError",
}

_ACCESS = (
    "access denied: check the credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE), and that they may list, read and write there"
)
_REGION = (
    "the bucket is in another region, or the endpoint is not its: set AWS_DEFAULT_REGION, or "
    "the storage option endpoint_url"
)
_TOKEN = "the session token is wrong or has expired: renew the credentials"  # noqa: S105 no secret
_CODES = {
    "NoSuchBucket": "there is no such bucket: make it, or mend its name",
    "InvalidBucketName": "the bucket's name is not valid: mend it",
    "InvalidAccessKeyId": "the store does not know the access key: check AWS_ACCESS_KEY_ID or "
    "AWS_PROFILE",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or "
    "AWS_PROFILE",
    "ExpiredToken": _TOKEN,
    "InvalidToken": _TOKEN,
    "TokenRefreshRequired": _TOKEN,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    # A request that is answered without a body has no more to say.
    "400": "the store refuses the request: check the credentials, the region and the endpoint",
}
_FILE_IN_THE_WAY = "a part of the path is a file, not a folder: mend the path"
_NUMBERS = {
    errno.ENOSPC: "the disk is full: free some space, or choose another place",
    errno.EDQUOT: "the quota is used up: free some space, or choose another place",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.EISDIR: "it is a folder, not a file: mend the path",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
}

_SECRET = re.compile(
    "secret|token|password|passwd|key|credential|sas|connection_string", re.IGNORECASE
)


def transient(error: BaseException) -> bool:
    """Whether the same request may well succeed when it is sent again."""
    names = _names(error)
    if "FileExpired" in names:
        return False
    return (
        bool(names & (_UNREACHABLE | _SLOW | _BROKEN_OFF))
        or (isinstance(error, OSError) and error.errno in _TRANSIENT_NUMBERS)
        or _code(error) in _TRANSIENT_CODES
    )


def explain(error: BaseException, *, local: bool) -> str:
    """What is wrong and what to do, as one line.

    Args:
        error: As raised by a file system.
        local: Whether it is one of this machine.
    """
    number = error.errno if isinstance(error, OSError) else None
    known = _CODES.get(_code(error) or "") or _NUMBERS.get(number or 0)
    return known or _by_kind(error, local=local)


def _by_kind(error: BaseException, *, local: bool) -> str:
    names, reason = _names(error), _first_line(error)
    if "FileExpired" in names:
        found = "it was changed while it was read: start again when it is complete"
    elif isinstance(error, FileNotFoundError):
        found = "no such file: mend the path"
    elif isinstance(error, PermissionError) and local:
        found = "permission denied: change the permissions, or choose another place"
    elif isinstance(error, PermissionError):
        found = _ACCESS
    elif "ProfileNotFound" in names:
        found = f"{reason}: mend AWS_PROFILE, or the storage option profile"
    elif any(re.search("Credential|SSO|TokenRetrieval", n) for n in names):
        found = (
            f"no credentials ({reason}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or the storage option anon=true for a public bucket"
        )
    elif names & _SLOW:
        found = "the store does not answer in time: check its address and the network"
    elif names & _UNREACHABLE:
        found = f"the store cannot be reached ({reason}): check its address and the network"
    elif transient(error):
        found = f"the store is in trouble ({reason}): try again later"
    else:
        found = f"it cannot be read or written ({reason})"
    return found


def bucket_missing(error: BaseException) -> bool:
    """Whether more is missing than a file."""
    return _code(error) == "NoSuchBucket"


def hide(message: str, options: Mapping[str, Any]) -> str:
    """The message without secrets that the options hold."""
    for secret in sorted(_secrets(options, hidden=False), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message


def _secrets(options: Mapping[str, Any], *, hidden: bool) -> Iterator[str]:
    for name, value in options.items():
        secret = hidden or _SECRET.search(str(name)) is not None
        if isinstance(value, Mapping):
            yield from _secrets(value, hidden=secret)
        elif secret and isinstance(value, str) and len(value) >= 4:
            yield value


def _names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _code(error: BaseException) -> str | None:
    """The code of an S3 error, which s3fs keeps in the cause of its own."""
    for found in (error, error.__cause__):
        response = getattr(found, "response", None)
        if isinstance(response, Mapping):
            return str(response.get("Error", {}).get("Code"))
    return None


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    lines = str(text).strip().splitlines() or [type(error).__name__]
    # Of an address its host says enough; what follows is long, and may be a signature.
    return re.sub(r"(https?://)(?:[^/\s\"']*@)?([^/\s?\"']+)[^\s\"']*", r"\1\2", lines[0])[:200]
