"""The tokens of the gateway's clients: JSON Web Tokens, each signed with its own key.

authentication.json contains the keys, so that a token is revoked when its key is removed. Only the gateway
knows them: a client gets the token, and cannot make another one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from tfserving.errors import ConfigError, InvalidInputError
from tfserving.gateway.dynamic_files import lock, read_resource, replace_json, write_resource

_FILE = "authentication.json"
# Outside authentication.json, which has no place for it without keys.
_NUMBERS_FILE = "revoked_tokens.json"
_ISSUER = "tfserving"
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEY_BYTES = 32
_MAX_DAYS = 36500

_EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
_JWT = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


@dataclass(frozen=True)
class ClientToken:
    """A token that the gateway accepts.

    Attributes:
        token_id: CLIENT.NUMBER, the `kid` of the token.
        client: its `sub`, the name in the gateway's log and the subject of its rate limit.
        created: in UTC.
        expires: in UTC; None for never.
    """

    token_id: str
    client: str
    created: datetime
    expires: datetime | None


def list_tokens(directory: Path) -> list[ClientToken]:
    """Return the tokens that have not been revoked, by client and number.

    Args:
        directory: contains authentication.json.

    Raises:
        ConfigError: the file is not valid, or clients authenticate with certificates.
    """
    return [_token_of(key) for key in _read_keys(directory)]


def add_token(directory: Path, client: str, *, days: int | None = None) -> tuple[ClientToken, str]:
    """Create a token for a client, which may have others, and return it with its secret text.

    Args:
        directory: contains authentication.json.
        client: letters, digits, "_" and "-".
        days: until it expires; None for never.

    Raises:
        InvalidInputError: the name or the number of days is not valid.
        ConfigError: the file is not valid, or clients authenticate with certificates.
    """
    if not _CLIENT.fullmatch(client):
        raise InvalidInputError(
            f"{client!r} is not a valid client name (up to 63 letters, digits, '_' and '-'; "
            "must start with a letter or a digit)"
        )
    if days is not None and not 1 <= days <= _MAX_DAYS:
        raise InvalidInputError(f"days={days} is not a valid number of days (1-{_MAX_DAYS})")
    created = datetime.now(timezone.utc).replace(microsecond=0)
    expires = None if days is None else created + timedelta(days=days)
    secret = secrets.token_bytes(_KEY_BYTES)
    with lock(directory):
        keys = _read_keys(directory)
        numbers = [_number_of(key) for key in keys if _token_of(key).client == client]
        numbers.append(_read_revoked_numbers(directory).get(client, 0))
        token_id = f"{client}.{max(numbers) + 1}"
        key = {"kty": "oct", "alg": "HS256", "kid": token_id, "k": _encode(secret)}
        key["created"] = created.isoformat()
        if expires:
            key["expires"] = expires.isoformat()
        keys = sorted([*keys, key], key=lambda one: (_token_of(one).client, _number_of(one)))
        write_resource(directory / _FILE, render_authentication(keys))
    claims: dict[str, Any] = {"iss": _ISSUER, "sub": client, "iat": int(created.timestamp())}
    if expires:
        claims["exp"] = int(expires.timestamp())
    return _token_of(key), _sign({"alg": "HS256", "typ": "JWT", "kid": token_id}, claims, secret)


def revoke_tokens(directory: Path, name: str) -> list[ClientToken]:
    """Revoke the token with this ID, or all tokens of the client with this name; return them.

    Raises:
        InvalidInputError: there is no such token or client.
        ConfigError: the file is not valid, or clients authenticate with certificates.
    """
    with lock(directory):
        keys = _read_keys(directory)
        revoked = [key for key in keys if name in (key["kid"], _token_of(key).client)]
        if not revoked:
            known = ", ".join(key["kid"] for key in keys) or "none"
            raise InvalidInputError(
                f"{name!r} is neither a client nor a token (tokens: {known}); nothing was changed"
            )
        numbers = _read_revoked_numbers(directory)
        for key in revoked:
            client = _token_of(key).client
            numbers[client] = max(numbers.get(client, 0), _number_of(key))
        replace_json(directory / _NUMBERS_FILE, numbers, like=directory / _FILE)
        kept = [key for key in keys if key not in revoked]
        write_resource(directory / _FILE, render_authentication(kept))
    return [_token_of(key) for key in revoked]


def render_authentication(keys: list[dict[str, str]]) -> dict[str, Any]:
    """The resource of authentication.json that accepts the tokens of these keys.

    Envoy rejects a set without keys, and would go on to accept the tokens of the set before it. So without
    keys, another filter refuses every request.
    """
    config: dict[str, Any]
    if keys:
        provider = {
            "issuer": _ISSUER,
            # By default, a query parameter can contain the token too, and paths are logged.
            "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
            "claim_to_headers": [{"header_name": "x-client-id", "claim_name": "sub"}],
            "local_jwks": {"inline_string": json.dumps({"keys": keys})},
        }
        rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "clients"}}
        config = {"@type": _JWT, "providers": {"clients": provider}, "rules": [rule]}
    else:
        config = {"@type": _RBAC, "rules": {"action": "ALLOW", "policies": {}}}
    return {"@type": _EXTENSION, "name": "authentication", "typed_config": config}


def _read_revoked_numbers(directory: Path) -> dict[str, int]:
    """The highest number of a revoked token of each client. No other token gets its ID."""
    path = directory / _NUMBERS_FILE
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; restore or remove it") from error
    if isinstance(numbers, dict) and all(isinstance(number, int) for number in numbers.values()):
        return numbers
    raise ConfigError(f"{path} was not written by tfserving clients; restore or remove it")


def _read_keys(directory: Path) -> list[dict[str, str]]:
    path = directory / _FILE
    resource = read_resource(path, "TypedExtensionConfig")
    try:
        match resource["typed_config"]:
            case {"@type": type_url, "rules": {"policies": policies}} if type_url == _RBAC:
                if policies:
                    raise ConfigError(
                        f"{path}: clients of this gateway authenticate with certificates, not with tokens; "
                        "for tokens, replace it by dynamic/authentication.json of deploy/gateway"
                    )
                return []
            case {"@type": type_url, "providers": {"clients": provider}} if type_url == _JWT:
                keys: list[dict[str, str]] = json.loads(provider["local_jwks"]["inline_string"])["keys"]
                for key in keys:
                    _token_of(key)
                    _number_of(key)
                return keys
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} was not written by tfserving clients: {error!r}; restore it") from error
    raise ConfigError(f"{path} was not written by tfserving clients; restore it")


def _token_of(key: dict[str, str]) -> ClientToken:
    expires = key.get("expires")
    return ClientToken(
        token_id=key["kid"],
        client=key["kid"].rpartition(".")[0],
        created=datetime.fromisoformat(key["created"]),
        expires=datetime.fromisoformat(expires) if expires else None,
    )


def _number_of(key: dict[str, str]) -> int:
    return int(key["kid"].rpartition(".")[2])


def _sign(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    """A JSON Web Token (RFC 7519) with HMAC-SHA256."""
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    text = ".".join(map(_encode, parts))
    return f"{text}.{_encode(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
