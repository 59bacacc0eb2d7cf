"""The options for connections to servers: address, TLS and token."""

from __future__ import annotations

import argparse
import math
import os

from tfserving.client.options import MAX_TIMEOUT, Tls
from tfserving.errors import InvalidInputError

# What can contain a secret can also come from the environment, which other users cannot read.
ADDRESS_VARIABLE, TOKEN_VARIABLE = "TFSERVING_ADDRESS", "TFSERVING_TOKEN"
# Servers limit the size of headers, so a longer token would not arrive.
_LONGEST_TOKEN = 65536


def add_address_option(parser: argparse.ArgumentParser, address: str, rest_address: str) -> None:
    """Add --address; the defaults are for gRPC and for --rest."""
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        default=os.environ.get(ADDRESS_VARIABLE),
        help=f"server (default: ${ADDRESS_VARIABLE}, else {address}; with --rest {rest_address})",
    )
    parser.set_defaults(rpc_address=address, rest_address=rest_address)


def add_transport_options(parser: argparse.ArgumentParser) -> None:
    """Add --rest, and the options of `add_security_options`."""
    parser.add_argument("--rest", action="store_true", help="use the REST API instead of gRPC")
    add_security_options(parser)


def add_security_options(parser: argparse.ArgumentParser) -> None:
    """Add --tls, --ca, --cert, --key, --token and --token-file."""
    add = parser.add_argument
    add("--tls", action="store_true", help="encrypt the connection")
    add("--ca", metavar="FILE", help="PEM file with the trusted certificate authorities; implies --tls")
    add(
        "--cert",
        metavar="FILE",
        help="PEM file with the client certificate, for servers that require one; needs --key, implies --tls",
    )
    add("--key", metavar="FILE", help="PEM file with the private key of --cert")
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file", metavar="FILE", help=f"file with a bearer token to send (default: ${TOKEN_VARIABLE})"
    )
    token.add_argument(
        "--token", metavar="TEXT", help="bearer token to send; other users see it in the process list"
    )


def address_of(arguments: argparse.Namespace) -> str:
    """The address of the server."""
    default = arguments.rest_address if arguments.rest else arguments.rpc_address
    return str(arguments.address or default)


def tls_of(arguments: argparse.Namespace) -> Tls | None:
    """The options for TLS; None for a connection without it.

    Raises:
        InvalidInputError: a file is not readable, or only one of --cert and --key is given.
    """
    if (arguments.cert is None) is not (arguments.key is None):
        one, other = ("--cert", "--key") if arguments.key is None else ("--key", "--cert")
        raise InvalidInputError(f"{one} needs {other}; give the client certificate and its key, or neither")
    if arguments.ca is None and arguments.cert is None and not arguments.tls:
        return None
    return Tls(ca=arguments.ca, certificate=arguments.cert, key=arguments.key)


def metadata_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The metadata of requests: the token, if there is one.

    Raises:
        InvalidInputError: the file does not hold a token.
    """
    token = _read_token(arguments)
    return {"authorization": f"Bearer {token}"} if token else {}


def parse_seconds(text: str) -> float:
    """A number of seconds above 0, for argparse."""
    return _parse_duration(text, "seconds")


def parse_milliseconds(text: str) -> float:
    """A number of milliseconds above 0, for argparse."""
    return _parse_duration(text, "milliseconds")


def _parse_duration(text: str, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of {unit} above 0, at most {MAX_TIMEOUT:.0f}"
        )
    return value


def _read_token(arguments: argparse.Namespace) -> str:
    """The token of the command line, of a file, or of the environment; "" for none."""
    path: str | None = arguments.token_file
    if path is None:
        return arguments.token if arguments.token is not None else os.environ.get(TOKEN_VARIABLE, "")
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_TOKEN + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"--token-file: cannot read {path}: {reason}") from error
    token = content.strip().decode("ascii", "replace")
    if not token or len(content) > _LONGEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise InvalidInputError(
            f"--token-file: {path} is not a token; expected one line of at most {_LONGEST_TOKEN} bytes "
            "of printable ASCII text"
        )
    return token
