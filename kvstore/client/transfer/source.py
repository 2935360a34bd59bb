"""A file that is imported: read once, from its start to its end, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from kvstore.client.transfer import records
from kvstore.errors import ConfigError

_BOM = b"\xef\xbb\xbf"
_NO_TEXT: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"\xff\xfe\0\0", b"\0\0\xfe\xff"), "UTF-32, not UTF-8", "iconv -f UTF-32 -t UTF-8"),
    ((b"\xff\xfe", b"\xfe\xff"), "UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"),
    ((b"\x1f\x8b",), "compressed with gzip", "gzip -dc"),
    (tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), "compressed with bzip2", "bzip2 -dc"),
    ((b"\xfd7zXZ\0",), "compressed with xz", "xz -dc"),
    ((b"\x28\xb5\x2f\xfd",), "compressed with zstd", "zstd -dc"),
    ((b"PK\x03\x04",), "a zip archive", "unzip -p"),
)
"""How files begin that are often taken for text: what they are, and what makes text of them."""
_PIECE = 64 * 1024


class Readable(Protocol):
    """What a source needs of a file."""

    def readline(self, size: int = -1, /) -> bytes:
        """The next bytes: up to the end of the line, and `size` of them at most."""


class Source:
    """The bytes of a file without the byte order mark at its start, as lines or as pieces, once.

    `on_read` is told how many bytes have been read since the last call.
    """

    def __init__(self, file: Readable, on_read: Callable[[int], object] | None = None) -> None:
        self._file = file
        self._on_read = on_read or _nobody_asks
        self._head: bytes | None = None

    def head(self) -> bytes:
        """Its first line that is not empty, or the beginning of it, with the empty ones before it.

        Raises ConfigError for a file in another encoding, or one that is compressed.
        """
        if self._head is None:
            self._head = self._readline(_PIECE).removeprefix(_BOM)
            _check_text(self._head)
            while not self._head.strip() and (line := self._readline(_PIECE)):
                self._head += line
        return self._head

    def lines(self, most: int = 0) -> Iterator[bytes]:
        """Its lines. Of one over `most` bytes, or LINE_BYTES, only the beginning comes, a byte too long."""
        longest = (most or records.LINE_BYTES) + 1
        *whole, line = self.head().split(b"\n")
        yield from (each + b"\n" for each in whole)
        while line := self._completed(line, longest):
            yield line
            line = b""

    def pieces(self) -> Iterator[bytes]:
        """Its bytes, as they come."""
        piece = self.head()
        while piece:
            yield piece
            piece = self._file.readline(_PIECE)
            self._on_read(len(piece))

    def _completed(self, begun: bytes, longest: int) -> bytes:
        """The rest of a line that was begun, without what is over `longest`."""
        line = begun + self._readline(longest - len(begun))
        rest = line
        while len(line) == longest and rest and not rest.endswith(b"\n"):
            rest = self._readline(_PIECE)
        return line

    def _readline(self, size: int) -> bytes:
        line = self._file.readline(size)
        self._on_read(len(line))
        return line


def _check_text(head: bytes) -> None:
    for begins, what, command in _NO_TEXT:
        if head.startswith(begins):
            raise ConfigError(f"the file is {what}: pipe it in, `{command} FILE | kvctl ... -`")


def _nobody_asks(size: int) -> None:
    """For a file that nobody follows."""
