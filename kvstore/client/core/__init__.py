"""The client without I/O: routing, attempts, calls and sessions are machines of time and replies.

Inputs are calls with the time; outputs go to a `Port`. Shells give it a transport and a clock: kvstore.client
by asyncio and gRPC, kvstore.sim.client in virtual time. No module here imports asyncio, grpc or time.
"""
