"""Tokens and their keys in authentication.json. Envoy checks them in tests/integration/test_gateway.py."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import hmac
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.embedded import ROOT
from tfserving.errors import ConfigError, FailedPreconditionError, InvalidInputError
from tfserving.gateway.client_tokens import add_token, list_tokens, render_authentication, revoke_tokens
from tfserving.gateway.traffic_weights import write_weights

SOURCE = ROOT / "deploy" / "gateway"


@pytest.fixture
def directory(tmp_path):
    """A copy of deploy/gateway/dynamic."""
    return shutil.copytree(SOURCE / "dynamic", tmp_path / "dynamic")


def decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def keys_in(directory):
    config = json.loads((directory / "authentication.json").read_text())["resources"][0]["typed_config"]
    return json.loads(config["providers"]["clients"]["local_jwks"]["inline_string"])["keys"]


def ids(tokens):
    return [token.token_id for token in tokens]


def test_the_shipped_file_has_no_client():
    shipped = json.loads((SOURCE / "dynamic" / "authentication.json").read_text())
    assert shipped == {"resources": [render_authentication([])]}


def test_a_token_names_its_client_and_is_signed_with_its_key(directory):
    token, secret = add_token(directory, "ranker")
    header, claims, signature = secret.split(".")
    assert json.loads(decode(header)) == {"alg": "HS256", "typ": "JWT", "kid": "ranker.1"}
    assert json.loads(decode(claims)) == {
        "iss": "tfserving",
        "sub": "ranker",
        "iat": int(token.created.timestamp()),
    }
    (key,) = keys_in(directory)
    assert key["kid"] == "ranker.1"
    assert len(decode(key["k"])) == 32
    expected = hmac.new(decode(key["k"]), f"{header}.{claims}".encode(), hashlib.sha256).digest()
    assert decode(signature) == expected


def test_a_token_expires_after_the_given_days(directory):
    token, secret = add_token(directory, "ranker", days=30)
    claims = json.loads(decode(secret.split(".")[1]))
    assert claims["exp"] - claims["iat"] == 30 * 86400
    assert list_tokens(directory) == [token]
    assert token.expires == token.created + timedelta(days=30)


def test_each_token_has_its_own_key_and_id(directory):
    secrets = {add_token(directory, client)[1] for client in ("b", "a", "b", "a-2")}
    assert len(secrets) == 4
    assert ids(list_tokens(directory)) == ["a.1", "a-2.1", "b.1", "b.2"]
    assert len({key["k"] for key in keys_in(directory)}) == 4


def test_revokes_one_token_or_all_of_a_client(directory):
    for client in ("a", "a", "b", "b"):
        add_token(directory, client)
    assert ids(revoke_tokens(directory, "a.1")) == ["a.1"]
    assert ids(revoke_tokens(directory, "b")) == ["b.1", "b.2"]
    assert ids(list_tokens(directory)) == ["a.2"]


def test_the_id_of_a_revoked_token_is_not_used_again(directory):
    for _ in range(3):
        add_token(directory, "a")
    revoke_tokens(directory, "a.3")
    assert add_token(directory, "a")[0].token_id == "a.4"
    revoke_tokens(directory, "a.1")
    revoke_tokens(directory, "a")
    assert add_token(directory, "a")[0].token_id == "a.5"
    assert add_token(directory, "b")[0].token_id == "b.1"
    modes = {(directory / name).stat().st_mode for name in ("revoked_tokens.json", "authentication.json")}
    assert len(modes) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"a": "1"}', "\xff"])
def test_rejects_numbers_that_it_did_not_write(directory, text):
    (directory / "revoked_tokens.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"revoked_tokens\.json.* restore or remove it"):
        add_token(directory, "a")


def test_without_tokens_every_request_is_refused(directory):
    before = (directory / "authentication.json").read_text()
    add_token(directory, "a")
    revoke_tokens(directory, "a")
    assert json.loads((directory / "authentication.json").read_text()) == json.loads(before)
    assert list_tokens(directory) == []


def test_revoking_an_unknown_name_changes_nothing(directory):
    add_token(directory, "a")
    before = (directory / "authentication.json").read_bytes()
    with pytest.raises(InvalidInputError, match=r"'a\.2' is neither a client nor a token \(tokens: a\.1\)"):
        revoke_tokens(directory, "a.2")
    assert (directory / "authentication.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", "a b", "a.1", "-a", "ä", "a\n", "a" * 64])
def test_rejects_an_invalid_client_name(directory, name):
    with pytest.raises(InvalidInputError, match="is not a valid client name"):
        add_token(directory, name)


@pytest.mark.parametrize("days", [0, -1, 36501])
def test_rejects_an_invalid_number_of_days(directory, days):
    with pytest.raises(InvalidInputError, match=rf"days={days} is not a valid number of days \(1-36500\)"):
        add_token(directory, "a", days=days)


def test_refuses_a_gateway_whose_clients_have_certificates(directory):
    shutil.copy(SOURCE / "client_certificates" / "authentication.json", directory)
    before = (directory / "authentication.json").read_bytes()
    for call in (lambda: add_token(directory, "a"), lambda: list_tokens(directory)):
        with pytest.raises(ConfigError, match="authenticate with certificates, not with tokens"):
            call()
    assert (directory / "authentication.json").read_bytes() == before


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"@type": "other"},
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"},
        {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"clients": {"local_jwks": {"inline_string": "{}"}}},
        },
        {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"clients": {"local_jwks": {"inline_string": '{"keys": [{"kid": "a"}]}'}}},
        },
    ],
)
def test_rejects_a_file_that_it_did_not_write(directory, config):
    resource = {**render_authentication([]), "typed_config": config}
    (directory / "authentication.json").write_text(json.dumps({"resources": [resource]}))
    with pytest.raises(ConfigError, match="was not written by tfserving clients"):
        list_tokens(directory)


def test_a_file_system_without_locks_is_reported(directory, monkeypatch):
    def fail(descriptor, operation):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", fail)
    before = (directory / "authentication.json").read_bytes()
    for change in (
        lambda: add_token(directory, "a"),
        lambda: revoke_tokens(directory, "a"),
        lambda: write_weights(directory, {"stable": 100}),
    ):
        with pytest.raises(FailedPreconditionError, match=r"cannot lock .*: Bad file descriptor; .* NFS"):
            change()
    assert (directory / "authentication.json").read_bytes() == before


def test_simultaneous_changes_are_not_lost(directory):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_token(directory, f"client{number}"), range(32)))
    assert len(list_tokens(directory)) == 32
