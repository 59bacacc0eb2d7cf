"""tfserving clients: create, list and revoke the tokens of the gateway's clients."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tfserving.cli.command import new_parser, run_command
from tfserving.cli.gateway_dir import add_gateway_dir
from tfserving.cli.release_options import add_release_options, print_json
from tfserving.cli.text_table import print_table
from tfserving.gateway.client_tokens import ClientToken, add_token, list_tokens, revoke_tokens


def main(argv: Sequence[str] | None = None, *, prog: str = "tfserving clients") -> int:
    """Run the subcommand and return its exit status."""
    parser = new_parser(
        prog,
        "Creates, lists and revokes the tokens of the gateway's clients. "
        "A change takes effect within a second.",
        f"examples:\n  {prog} add ranker > ranker.token\n  {prog} list\n  {prog} revoke ranker\n\n"
        "To replace a token: add another one, give it to the client, and revoke the old one by its ID.\n",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    add = actions.add_parser("add", help="print a new token for a client", allow_abbrev=False)
    add.add_argument(
        "client", metavar="CLIENT", help="the name of the client in the log and for its rate limit"
    )
    add.add_argument("--days", type=int, metavar="N", help="days until the token expires; default: never")
    listing = actions.add_parser("list", help="print the tokens without their secrets", allow_abbrev=False)
    revoke = actions.add_parser(
        "revoke", help="revoke the tokens of a client, or one token", allow_abbrev=False
    )
    revoke.add_argument("name", metavar="CLIENT|TOKEN_ID", help="a client, or a token ID from list")
    add_release_options(listing, "json")
    for action, run in ((add, _add), (listing, _list), (revoke, _revoke)):
        add_gateway_dir(action)
        action.set_defaults(run=lambda arguments, run=run: run(arguments, prog))
    return run_command(parser, argv, lambda arguments: arguments.run(arguments))


def _add(arguments: argparse.Namespace, prog: str) -> None:
    token, secret = add_token(arguments.gateway_dir, arguments.client, days=arguments.days)
    print(
        f"{prog}: created token {token.token_id}; it is not shown again, keep it like a password",
        file=sys.stderr,
    )
    print(secret)


def _list(arguments: argparse.Namespace, _prog: str) -> None:
    tokens = list_tokens(arguments.gateway_dir)
    if arguments.json:
        print_json({"tokens": [_document(token) for token in tokens]})
        return
    rows = []
    for token in tokens:
        expires = f"{token.expires:%Y-%m-%d}" if token.expires else "never"
        rows.append((token.token_id, token.client, f"{token.created:%Y-%m-%d}", expires))
    print_table(("TOKEN", "CLIENT", "CREATED", "EXPIRES"), rows)


def _document(token: ClientToken) -> dict[str, str | None]:
    return {
        "token": token.token_id,
        "client": token.client,
        "created": token.created.isoformat(),
        "expires": token.expires.isoformat() if token.expires else None,
    }


def _revoke(arguments: argparse.Namespace, _prog: str) -> None:
    for token in revoke_tokens(arguments.gateway_dir, arguments.name):
        print(f"revoked {token.token_id}")
