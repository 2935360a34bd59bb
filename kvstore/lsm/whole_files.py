"""What is read of a file as a whole: its content, its size."""

from __future__ import annotations

from kvstore.errors import Corruption
from kvstore.lsm.readable_files import ReadableFiles


def read_file(fs: ReadableFiles, path: str) -> bytes:
    """All bytes of a file that has to be there; raises Corruption when it is not."""
    try:
        file = fs.open(path)
    except FileNotFoundError:
        raise Corruption(path, "is missing") from None
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def file_size(fs: ReadableFiles, path: str) -> int:
    """Bytes in a file; raises FileNotFoundError."""
    file = fs.open(path)
    try:
        return file.size()
    finally:
        file.close()
