"""Streams the content of a gzip or zstd file, up to a limit of decompressed bytes."""

import io
from pathlib import Path
from typing import Any

from greencore.dataset.containers.detection import Compression
from greencore.dataset.containers.limits import ReadLimits, UnusableFile

BUFFER_BYTES = 2**20


def open_content(file: Path, compression: Compression | None, limits: ReadLimits) -> io.BufferedReader:
    """Open the decompressed content of a file, which may be several compressed ones in a row.

    Reading raises `UnusableFile` for damaged content, and past the limit of bytes.
    """
    if compression is None:
        return io.BufferedReader(io.FileIO(file), BUFFER_BYTES)
    return io.BufferedReader(_DecompressedFile(file, compression, limits), BUFFER_BYTES)


class _DecompressedFile(io.RawIOBase):
    def __init__(self, file: Path, compression: Compression, limits: ReadLimits) -> None:
        import pyarrow

        self._stream: Any = pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), compression.value)
        self._compression, self._limits, self._bytes = compression, limits, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read(len(buffer))
        except OSError as error:
            if error.errno is not None:  # not Arrow's own
                raise
            raise UnusableFile(f"cannot be decompressed as {self._compression}: it is damaged or cut off") from error
        self._bytes += len(content)
        self._limits.check_bytes(self._bytes)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
