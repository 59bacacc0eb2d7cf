"""Load generation: measures the throughput and the latency of a server that speaks the API.

`workload` makes requests, `measurement` measures a level of load with `load_process`, and `quantiles` says
how exact the result is. docs/decisions/0027 explains why the load generator has its own connections.
"""
