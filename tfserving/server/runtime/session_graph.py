"""Puts the graph of a SavedModel into a session, as LoadSavedModel does (cc/saved_model/loader.cc).

TensorFlow's loader in Python creates objects for every node and holds the interpreter lock meanwhile, so
requests for other versions wait. Here the graph goes to the C++ session as bytes, without the lock
(docs/decisions/0032).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfserving.errors import UnsupportedError
from tfserving.server.runtime import native
from tfserving.server.runtime.low_priority import run_at_low_priority

_INIT_SIGNATURE = "__saved_model_init_op"
# Where TensorFlow 1 stores the name of the init op.
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")


class SessionGraphs:
    """Loads graphs into sessions.

    Args:
        tensorflow: the module.

    Raises:
        UnsupportedError: this TensorFlow has other sessions than those of the releases that were tested.
    """

    def __init__(self, tensorflow: Any) -> None:
        from tensorflow.core.protobuf.config_pb2 import CallableOptions

        self._errors = tensorflow.compat.v1.errors
        self._callable_options = CallableOptions
        self._library = _open_c_api(tensorflow)

    def load(self, session: Any, meta_graph: Any, path: Path) -> None:
        """Add a graph to an empty session, restore its variables and run its init op.

        Args:
            session: a `tf.compat.v1.Session`.
            meta_graph: the `MetaGraphDef` of TensorFlow.
            path: the directory of the SavedModel.

        Raises:
            tf.errors.OpError: an op is missing, a variable cannot be restored, or the init op fails.
        """
        from tensorflow.python.saved_model.loader_impl import get_asset_tensors

        self._extend(session, meta_graph.graph_def.SerializeToString())
        assets = get_asset_tensors(str(path), meta_graph)
        saver = meta_graph.saver_def
        if saver.restore_op_name:
            variables = os.fspath(path / "variables" / "variables")
            self._run(session, saver.restore_op_name, {saver.filename_tensor_name: variables})
        if init_op := _find_init_op(meta_graph):
            self._run(session, init_op, assets)

    def _extend(self, session: Any, graph_def: bytes) -> None:
        """Add the nodes and functions of a serialized `GraphDef` to a session."""
        library = self._library
        status = library.TF_NewStatus()
        try:
            # A TF_DeprecatedSession has only the first member of a TF_Session (c_api_internal.h)
            address = _address_of(session._session)
            run_at_low_priority(library.TF_ExtendGraph, address, graph_def, len(graph_def), status)
            if code := library.TF_GetCode(status):
                error = self._errors.exception_type_from_error_code(code)
                raise error(None, None, library.TF_Message(status).decode(errors="replace"))
        finally:
            library.TF_DeleteStatus(status)

    def _run(self, session: Any, op: str, strings: Mapping[str, str]) -> None:
        """Run an op with values of string tensors."""
        options = self._callable_options(feed=list(strings), target=[op])
        call = run_at_low_priority(session._make_callable_from_options, options)
        call(*(np.array(value, object) for value in strings.values()))


def _find_init_op(meta_graph: Any) -> str:
    """The op that initializes tables after the variables are restored, "" if there is none."""
    if _INIT_SIGNATURE in meta_graph.signature_def:
        outputs = meta_graph.signature_def[_INIT_SIGNATURE].outputs
        return str(outputs[_INIT_SIGNATURE].name).partition(":")[0]
    for key in _INIT_COLLECTIONS:
        if key in meta_graph.collection_def:
            names = meta_graph.collection_def[key].node_list.value
            if len(names) != 1:
                raise ValueError(f"the collection {key} has {len(names)} ops; expected one")
            return str(names[0])
    return ""


def _open_c_api(tensorflow: Any) -> Any:
    """The functions of TensorFlow's C API; a call of one releases the interpreter lock."""
    from tensorflow.python.client import pywrap_tf_session

    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    try:
        library = ctypes.CDLL(native.library_path(tensorflow, "tensorflow_cc"))
        for name, result, arguments in (
            ("TF_NewStatus", pointer, []),
            ("TF_DeleteStatus", None, [pointer]),
            ("TF_GetCode", ctypes.c_int, [pointer]),
            ("TF_Message", ctypes.c_char_p, [pointer]),
            ("TF_ExtendGraph", None, [pointer, ctypes.c_char_p, size, pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise _unsupported(tensorflow) from error
    # Checks _address_of with an object whose members are known: a TF_Buffer has a pointer and a size
    content = b"graph"
    buffer = pywrap_tf_session.TF_NewBufferFromString(content)
    try:
        if size.from_address(_address_of(buffer) + ctypes.sizeof(pointer)).value != len(content):
            raise _unsupported(tensorflow)
    finally:
        pywrap_tf_session.TF_DeleteBuffer(buffer)
    return library


def _address_of(wrapper: Any) -> int:
    """The address of the C++ object that an object of pybind11 wraps: its first member (struct instance)."""
    return ctypes.c_void_p.from_address(id(wrapper) + object.__basicsize__).value or 0


def _unsupported(tensorflow: Any) -> UnsupportedError:
    return UnsupportedError(
        f"TensorFlow {tensorflow.__version__} is not supported: its sessions accept no serialized graphs; "
        "install tensorflow 2.20"
    )
