"""Server reflection in both versions of its protocol, which have the same messages under two names.

grpcio-reflection has v1alpha alone; newer tools ask for v1 first, and some for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_METHOD = "ServerReflectionInfo"
SERVICE_NAMES = (f"{_OLD}.ServerReflection", f"{_NEW}.ServerReflection")


def add_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Let a server describe the services of these names, and reflection itself."""
    _describe_new_version()
    servicer: Any = reflection.aio.ReflectionServicer((*names, *SERVICE_NAMES))
    method: Any = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {_METHOD: method}) for name in SERVICE_NAMES)
    )


def _describe_new_version() -> None:
    """Make the descriptors of v1 known to protobuf: those of v1alpha, renamed."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = file.name.replace("v1alpha", "v1"), _NEW
    file.options.java_package = file.options.java_package.replace("v1alpha", "v1")
    file.options.go_package = file.options.go_package.replace("v1alpha", "v1")
    for field in (field for message in file.message_type for field in message.field if field.type_name):
        field.type_name = field.type_name.replace(_OLD, _NEW)
    for method in (method for service in file.service for method in service.method):
        method.input_type = method.input_type.replace(_OLD, _NEW)
        method.output_type = method.output_type.replace(_OLD, _NEW)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
