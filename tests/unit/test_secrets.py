"""What is shown of URIs, and that nothing secret is left in texts that quote them."""

import base64
import logging
from urllib.parse import quote, quote_plus

import pytest

from e2eft.secrets import DiscreetFormatter, shown, shown_in, without_secrets

UNCHANGED = [
    "http://mlflow:5000",
    "http://[::1]:5000/x@y",
    "https://host/models/e2eft@champion",
    "https://host:5000/models/e2eft@champion?page=2",
    "sqlite:////home/me@work/ml:flow@home/mlflow.db",
    "sqlite:///a@b/mlflow.db",
    "sqlite:///C:/a@b/mlflow.db",
    "sqlite://",
    "file:///data/me@work/x",
    "s3://bucket/a:b@c/d?token=1#x@y",
    "me@work/shards",
    "models:/e2eft-depth@champion",
    "postgresql://host:5432/db",
    "postgresql://host/db?sslmode=require",
    "",
]
STRIPPED = {
    "http://user:pass@host": "http://host",
    "http://user:pass@host:5000/path": "http://host:5000/path",
    "http://user:pass@[2001:db8::1]:5000/": "http://[2001:db8::1]:5000/",
    "http://user:p@ss@host": "http://host",
    "http://user:p%40ss%2F@host": "http://host",
    "http://user:p/ss@host:5000": "http://host:5000",
    "http://user:p?s#s@host": "http://host",
    "http://user:12#x@host": "http://host",
    "http://user@host": "http://host",
    "http://:pass@host": "http://host",
    "https://ghp_token@host/x": "https://host/x",
    "https://ghp_token:@host/x": "https://host/x",
    "HTTP://user:pass@host": "HTTP://host",
    "s3://AKIA:se/cr+et@bucket/prefix": "s3://bucket/prefix",
    "postgresql://user:pass@host/db": "postgresql://host/db",
    "postgresql+psycopg://user:p/a?s#s@host:5432/db": "postgresql+psycopg://host:5432/db",
    "postgresql://user:p@ss@host/db": "postgresql://host/db",
    "postgresql://user@host/db": "postgresql://host/db",
    "postgresql://host/db?user=me&password=x&sslmode=require":
        "postgresql://host/db?user=me&password=***&sslmode=require",
    "mysql+pymysql://user:1234/5@host/db": "mysql+pymysql://host/db",
    "sqlite+pysqlcipher://:passphrase@/file.db": "sqlite+pysqlcipher:///file.db",
    "https://host/x?X-Amz-Credential=a&X-Amz-Signature=b&page=1":
        "https://host/x?X-Amz-Credential=***&X-Amz-Signature=***&page=1",
    "https://host/x?sig=a%3D#access_token=b": "https://host/x?sig=***#access_token=***",
}  # fmt: skip


@pytest.mark.parametrize("uri", UNCHANGED)
def test_uris_without_secrets_stay_as_they_are(uri: str) -> None:
    assert shown(uri) == uri
    assert without_secrets(f"MLflow at {uri} does not answer") == (
        f"MLflow at {uri} does not answer"
    )


def test_a_path_is_no_uri() -> None:
    assert shown("/data/a://b@c/d") == "/data/a://b@c/d"


@pytest.mark.parametrize("uri", STRIPPED)
def test_userinfo_and_secret_parameters_are_not_shown(uri: str) -> None:
    assert shown(uri) == STRIPPED[uri]
    assert shown(STRIPPED[uri]) == STRIPPED[uri]
    assert without_secrets(f"at '{uri}':") == f"at '{STRIPPED[uri]}':"
    tree = {"a": [uri, 1, None], "b": {"c": (uri,)}}
    hidden = STRIPPED[uri]
    assert shown_in(tree) == {"a": [hidden, 1, None], "b": {"c": [hidden]}}


@pytest.mark.parametrize("password", ["hunter22", "hu@nter/22?x#y", "pä ss+wörd%", "a&b=c;d'e\"f"])
@pytest.mark.parametrize("form", ["http://me:{}@host:5000", "postgresql://me:{}@host/db"])
def test_texts_of_others_keep_nothing_of_a_known_uri(password: str, form: str) -> None:
    for written in {password, quote(password, safe="")}:
        uri = form.format(written)
        texts = [
            f"cannot connect to {uri}: no route",
            f"Failed to parse: {uri}",
            f"redirected to /login?next={quote(uri, safe='')}&x=1",
            f"password {password!s} refused; {quote(password)}; {quote_plus(password)}",
            "Authorization: Basic " + base64.b64encode(f"me:{password}".encode()).decode(),
            f"could not translate host name {password.rpartition('@')[2]!s}@host",
        ]
        for text in texts:
            left = without_secrets(text, uri)
            assert password not in left and written not in left
            assert quote(password, safe="") not in left and quote_plus(password) not in left
            assert base64.b64encode(f"me:{password}".encode()).decode() not in left
        assert "nter/22" not in without_secrets(texts[5], uri)
    assert "no route" in without_secrets(texts[0], uri) and "host" in without_secrets(texts[0], uri)


def test_encoded_uris_and_the_environments_secrets_are_found_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded = quote("http://me:unknown-pass@host:5000/x", safe="")
    assert without_secrets(f"next={encoded}&a=b") == (
        f"next={quote('http://host:5000/x', safe='')}&a=b"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:from-environment@host")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/XUtn+FEMI")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "xyz")
    said = "from-environment, wJalr/XUtn+FEMI, wJalr%2FXUtn%2BFEMI, xyzzy"
    assert without_secrets(said) == "***, ***, ***, xyzzy"


def test_log_records_and_their_tracebacks_are_discreet(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        raise ValueError("no answer from http://me:hunter22@host")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.WARNING, "", 0, "at %s", ("http://me:hunter22@host",), None
        )
        record.exc_info = (type(error), error, error.__traceback__)
    text = DiscreetFormatter("%(message)s").format(record)
    assert text.startswith("at http://host\nTraceback") and "hunter22" not in text
