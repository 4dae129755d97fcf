"""What the errors of boto3, and of the network below it, mean."""

import ssl
from collections.abc import Iterator
from typing import Any

from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    MissingError,
    StorageError,
    UnreachableError,
)

_AGAIN = {
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"),
    *("ConditionalRequestConflict", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("RequestLimitExceeded", "BandwidthLimitExceeded", "IncompleteBody", "408", "409", "429"),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}
THERE = {"PreconditionFailed", "412"}
BEHIND_THE_END = {"InvalidRange", "416"}
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile"
_DENIALS = {
    "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret is wrong; check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "these credentials may not do this; check the key's policy",
    "AllAccessDisabled": "these credentials may not do this; check the key's policy",
    "ExpiredToken": "the session token has expired; get new credentials",
    "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "Unauthorized": f"access denied; {_KEYS}",
    "403": f"access denied; {_KEYS}",
    "401": f"access denied; {_KEYS}",
}
HOPELESS = {"NoSuchBucket", *_DENIALS} - {"AccessDenied", "AllAccessDisabled", "403"}
"""Codes that any other request would get as well."""
_OTHERS = {
    "NoSuchUpload": (ConflictError, "its upload was ended from elsewhere; run it again"),
    "NotImplemented": (StorageError, "this store cannot do that; use one that can"),
    "PermanentRedirect": (StorageError, "the bucket is in another region; set AWS_REGION"),
    "AuthorizationHeaderMalformed": (StorageError, "the region is wrong; set AWS_REGION"),
    "InvalidObjectState": (StorageError, "it is archived; restore it first"),
}


def refusal(error: Exception) -> str:
    """The code of an answer that is an error; "" for anything else."""
    response = getattr(error, "response", None) or {}  # None on errors of the network
    return str(response.get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later: no answer, half of one, or a busy server."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = refusal(error)
        return code in _AGAIN or (status >= 500 and code not in _OTHERS and status != 501)
    if _tls_fault(error):
        return False
    answers = (boto.IncompleteReadError, ResponseParserError)
    network = (boto.ConnectionError, boto.HTTPClientError, HTTPError, ConnectionError, TimeoutError)
    return isinstance(error, (*answers, *network))


def explained(error: Exception, where: str, bucket: str, endpoint: str) -> StorageError:
    """What a person can do about an error, as the type that fits it."""
    from botocore import exceptions as boto

    code = refusal(error)
    if code in _MISSING:
        return MissingError(f"{where} is not there")
    if code in THERE:
        return ConflictError(f"{where} is there already")
    if code == "NoSuchBucket":
        return StorageError(f"{where}: bucket {bucket!r} does not exist; create it first")
    if code in _DENIALS:
        return DeniedError(f"{where}: {_DENIALS[code]}")
    if code in _OTHERS:
        kind, hint = _OTHERS[code]
        return kind(f"{where}: {hint}")
    if is_transient(error):
        return UnreachableError(f"{where}: {_unanswered(error, code, endpoint)}")
    if fault := _tls_fault(error):
        return StorageError(f"{where}: {_tls_hint(fault, endpoint)}")
    if isinstance(error, _no_credentials()):
        return DeniedError(
            f"{where}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            f"AWS_PROFILE{_detail(error)}"
        )
    if isinstance(error, (boto.FlexibleChecksumError, boto.ChecksumError)):
        return DamagedError(f"{where} is damaged: its checksum is another; make or copy it again")
    if isinstance(error, boto.ParamValidationError) and "bucket name" in _line(error):
        return StorageError(
            f"{where}: {bucket!r} is no bucket's name, which has 3 to 63 lower-case letters, "
            "digits, dots and hyphens; correct the URI"
        )
    if isinstance(error, boto.ParamValidationError):
        return StorageError(f"{where} is no valid name on S3:{_line(error).partition(':')[2]}")
    if isinstance(error, boto.ClientError):
        said = _line(Exception(error.response.get("Error", {}).get("Message", "")))
        return StorageError(f"{where}: the store refuses with {code}: {said or 'no reason given'}")
    return StorageError(f"{where}: {type(error).__name__}: {_line(error)}")


def _unanswered(error: Exception, code: str, endpoint: str) -> str:
    from botocore.parsers import ResponseParserError

    if code:
        hint = "try again later, or check AWS_ENDPOINT_URL"
        return f"the store at {endpoint} keeps answering {code}; {hint}"
    if isinstance(error, ResponseParserError):
        return f"what answers at {endpoint} is no S3; check AWS_ENDPOINT_URL"
    return f"no answer from {endpoint}; check AWS_ENDPOINT_URL and the network"


def _no_credentials() -> tuple[type[Exception], ...]:
    from botocore import exceptions as boto

    return (
        *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError),
        *(boto.TokenRetrievalError, boto.SSOError, boto.LoginError, boto.NoAuthTokenError),
    )


def _detail(error: Exception) -> str:
    from botocore.exceptions import NoCredentialsError

    return "" if isinstance(error, NoCredentialsError) else f" ({_line(error)})"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it wraps, as causes or as arguments."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        cause = waiting.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        kwargs: dict[str, Any] = getattr(cause, "kwargs", {})
        waiting += [*cause.args, kwargs.get("error"), getattr(cause, "reason", None)]
        waiting.append(cause.__cause__)


def _tls_fault(error: Exception) -> BaseException | None:
    """What is wrong with the encryption of a connection, if that will not mend itself."""
    from botocore.exceptions import SSLError

    causes = list(_causes(error))
    faults = [cause for cause in causes if isinstance(cause, ssl.SSLError)]
    lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, TimeoutError)
    if any(isinstance(fault, lost) for fault in faults):
        return None
    if faults:
        return faults[-1]
    files = [cause for cause in causes if isinstance(cause, FileNotFoundError)]
    return (files or [error])[-1] if isinstance(error, SSLError) else None


def _tls_hint(fault: BaseException, endpoint: str) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {endpoint} is not trusted ({fault.verify_message}); give its "
            "authority's with AWS_CA_BUNDLE, or ca_bundle of the profile"
        )
    return (
        f"no encrypted connection to {endpoint} ({_line(Exception(fault))}); check "
        "AWS_ENDPOINT_URL and AWS_CA_BUNDLE, or ca_bundle of the profile"
    )
