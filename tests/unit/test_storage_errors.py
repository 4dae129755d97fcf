"""What the failures of boto3 and of the network mean: a type, and one line with a fix."""

import socket
import ssl
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    E2eftError,
    MissingError,
    StorageError,
    UnreachableError,
    as_json,
    from_json,
)
from e2eft.storage.s3_errors import explained, is_transient

URL = "http://store:8333"
WHERE = "s3://bucket/key"


def answer(code: str, status: int = 400, text: str = "it says") -> boto.ClientError:
    error: Any = {"Code": code, "Message": text}
    about: Any = {"HTTPStatusCode": status}
    return boto.ClientError({"Error": error, "ResponseMetadata": about}, "GetObject")


def tls(error: Exception) -> boto.SSLError:
    return boto.SSLError(endpoint_url=URL, error=http.SSLError(error))


REFUSED = http.NewConnectionError(None, "refused")  # type: ignore[arg-type]
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate")
UNTRUSTED.verify_message = "self-signed certificate"
AGAIN: list[tuple[Exception, str]] = [
    (boto.EndpointConnectionError(endpoint_url=URL, error=REFUSED), "no answer from"),
    (boto.EndpointConnectionError(endpoint_url=URL, error=socket.gaierror(-2, "?")), "no answer"),
    (boto.ConnectTimeoutError(endpoint_url=URL), "no answer from"),
    (boto.ReadTimeoutError(endpoint_url=URL), "no answer from"),
    (boto.ConnectionClosedError(endpoint_url=URL), "no answer from"),
    (boto.ProxyConnectionError(proxy_url=URL), "no answer from"),
    (boto.ResponseStreamingError(error=http.ProtocolError("cut")), "no answer from"),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), "no answer from"),
    (boto.HTTPClientError(error=OSError("network is unreachable")), "no answer from"),
    (http.ProtocolError("cut"), "no answer from"),
    (http.ReadTimeoutError(None, "/", "late"), "no answer from"),  # type: ignore[arg-type]
    (ConnectionResetError(104, "reset"), "no answer from"),
    (TimeoutError("late"), "no answer from"),
    (tls(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")), "no answer from"),
    (ResponseParserError("no element found: line 1"), "is no S3"),
    *((answer(code, 503), f"keeps answering {code}") for code in ("SlowDown", "503", "Whatever")),
    *((answer(code, 409), code) for code in ("ConditionalRequestConflict", "OperationAborted")),
    *((answer(code, 400), code) for code in ("RequestTimeout", "IncompleteBody", "Throttling")),
    (answer("InternalError", 200), "keeps answering InternalError"),
]
FINAL: list[tuple[Exception, type[StorageError], str]] = [
    (answer("NoSuchKey", 404), MissingError, "is not there"),
    (answer("404", 404), MissingError, "is not there"),
    (answer("NoSuchBucket", 404), StorageError, "bucket 'bucket' does not exist; create it first"),
    (answer("NoSuchUpload", 404), ConflictError, "its upload was ended from elsewhere; run it ag"),
    (answer("PreconditionFailed", 412), ConflictError, "is there already"),
    (answer("412", 412), ConflictError, "is there already"),
    (answer("403", 403), DeniedError, "access denied; check AWS_ACCESS_KEY_ID"),
    (answer("AccessDenied", 403), DeniedError, "check the key's policy"),
    (answer("InvalidAccessKeyId", 403), DeniedError, "check AWS_ACCESS_KEY_ID"),
    (answer("SignatureDoesNotMatch", 403), DeniedError, "check AWS_SECRET_ACCESS_KEY"),
    (answer("ExpiredToken", 400), DeniedError, "get new credentials"),
    (answer("RequestTimeTooSkewed", 403), DeniedError, "clock is wrong; set it"),
    (answer("NotImplemented", 501), StorageError, "this store cannot do that; use one that can"),
    (answer("501", 501), StorageError, "the store refuses with 501"),
    (answer("PermanentRedirect", 301), StorageError, "in another region; set AWS_REGION"),
    (answer("Odd", 400, "two\nlines"), StorageError, "the store refuses with Odd: two lines"),
    (boto.NoCredentialsError(), DeniedError, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or"),
    (boto.SSOTokenLoadError(error_msg="x"), DeniedError, "AWS_PROFILE (Error loading SSO Token"),
    (boto.FlexibleChecksumError(error_msg="x"), DamagedError, "its checksum is another"),
    (
        boto.ParamValidationError(
            report='Invalid bucket name "bucket": must match the regex "^x$"'
        ),
        StorageError,
        "'bucket' is no bucket's name, which has 3 to 63 lower-case letters, digits, dots and",
    ),
    (boto.ParamValidationError(report="Invalid length for Key"), StorageError, "length for Key"),
    (tls(UNTRUSTED), StorageError, f"{URL} is not trusted (self-signed certificate); give its"),
    (tls(FileNotFoundError(2, "No such file")), StorageError, "check AWS_ENDPOINT_URL and AWS_CA"),
    (tls(ssl.SSLError(1, "[SSL] record layer failure")), StorageError, "no encrypted connection"),
]


@pytest.mark.parametrize(("error", "text"), AGAIN, ids=lambda value: type(value).__name__)
def test_what_may_pass_is_waited_for_and_then_unreachable(error: Exception, text: str) -> None:
    assert is_transient(error)
    told = explained(error, WHERE, "bucket", URL)
    assert type(told) is UnreachableError and URL in str(told)
    check(told, text)


@pytest.mark.parametrize(("error", "kind", "text"), FINAL, ids=lambda value: type(value).__name__)
def test_what_will_not_pass_is_told_at_once(
    error: Exception, kind: type[StorageError], text: str
) -> None:
    assert not is_transient(error)
    told = explained(error, WHERE, "bucket", URL)
    assert type(told) is kind
    check(told, text)


def check(told: E2eftError, text: str) -> None:
    assert text in str(told) and str(told).startswith(WHERE) and "\n" not in str(told)
    again = from_json(as_json(told))
    assert type(again) is type(told) and str(again) == str(told)
