"""Jobs and their results as bytes: how they get into the worker process and out of it."""

from __future__ import annotations

import msgspec

from kvstore.errors import Corruption
from kvstore.lsm.messages import CompactionJob, FlushJob, Job, JobResult, RemovalJob

_encoder = msgspec.msgpack.Encoder()
_job_decoder = msgspec.msgpack.Decoder(FlushJob | CompactionJob | RemovalJob)
_result_decoder = msgspec.msgpack.Decoder(JobResult)


def encode_job(job: Job) -> bytes:
    """A job for the worker process."""
    return _encoder.encode(job)


def decode_job(data: bytes) -> Job:
    """Inverse of `encode_job`; raises Corruption, ConfigError."""
    try:
        job: Job = _job_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption("job", str(error)) from error
    return job


def encode_result(result: JobResult) -> bytes:
    """A result from the worker process."""
    return _encoder.encode(result)


def decode_result(data: bytes) -> JobResult:
    """Inverse of `encode_result`; raises Corruption, ConfigError."""
    try:
        return _result_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption("result", str(error)) from error
