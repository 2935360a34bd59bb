"""The asyncio client. One event loop per process should use it: gRPC serves only one well."""

from kvstore.client.asynchronous import Bucket, Client, Session, connect

__all__ = ["Bucket", "Client", "Session", "connect"]
