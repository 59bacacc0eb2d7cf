"""The embedded server: the APIs of tensorflow_model_server, in Python, on TensorFlow's own runtime.

- `server_options` and `flags`: every option with its default and help text; the command line that sets them.
- `main`: startup, main loop, shutdown.
- `grpc` and `rest`: decode requests and encode responses. `service` handles the requests of both.
- `core`: decides which versions are served, loads and unloads them.
- `runtime`: runs them; nothing else imports TensorFlow.
- `observability`: metrics and the access log.
"""
