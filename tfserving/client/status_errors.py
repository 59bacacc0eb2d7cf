"""From a status that a transport reports to the error that a user gets."""

from __future__ import annotations

from tfserving.errors import TfServingError, error_for

# tensorflow_model_server's gRPC library says this when all of its threads are busy.
_NO_THREAD = "threadpool exhausted"
# A gRPC server with default settings ends a connection on which a client asks too often whether it is there;
# asked every 10 s, it does after 200 s without an answer to the call (grpcio 1.85).
_TOO_MANY_PINGS = "too many pings"

# The REST transports' word for a reply that is not in HTTP.
NO_HTTP = "no http reply"

_MENDS_BY_TEXT = {
    _NO_THREAD: "start the server with a higher --grpc_max_threads",
    _TOO_MANY_PINGS: "for calls of more than three minutes: keepalive=Keepalive(interval=300)",
    "connect an http1.x server": "that is a port for HTTP: gRPC's is 8500 by default",
    NO_HTTP: "that is no port for HTTP: REST's is 8501 by default",
}
_MENDS = {
    "UNAVAILABLE": "is the server running there? gRPC answers on port 8500, REST on 8501, by default",
    "DEADLINE_EXCEEDED": "raise timeout=, or give the model a warmup if it was its first call",
    "UNAUTHENTICATED": 'give a token: metadata={"authorization": "Bearer ..."}',
}


def failure(
    code: str, text: str, *, address: str, model: str | None, answered: bool = True
) -> TfServingError:
    """The error for a canonical status name and the text that came with it.

    Args:
        code: e.g. "NOT_FOUND".
        text: the server's own words, or the transport's.
        address: whom was asked.
        model: the model that the call was for.
        answered: whether the words are the server's.
    """
    about = f", model {model!r}" if model else ""
    low = text.lower()
    mend = next((mend for words, mend in _MENDS_BY_TEXT.items() if words in low), _MENDS.get(code))
    message = f"{address}{about}: {code}: {text or 'no reason given'}{f' ({mend})' if mend else ''}"
    return error_for(code)(
        message, code=code, address=address, model=model, server_message=text if answered else None
    )


def worth_retrying(error: TfServingError) -> bool:
    """Whether asking again may help: no answer, half an answer, or all of the server's threads were busy.

    Other exhaustion (memory, message size) would only come again.
    """
    text = (error.server_message or str(error)).lower()
    if error.code == "DATA_LOSS":  # a reply that broke off; a server's own DATA_LOSS would come again
        return error.server_message is None
    if error.code == "UNAVAILABLE":
        return _TOO_MANY_PINGS not in text
    return error.code == "RESOURCE_EXHAUSTED" and _NO_THREAD in text
