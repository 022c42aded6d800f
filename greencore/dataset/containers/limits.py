"""Size limits of a file of rows, and the errors of what exceeds them."""

from dataclasses import dataclass

from greencore.dataset import InvalidRow

NO_LIMIT = 2**60  # more than any file has, and a size that the libraries can count to


class UnusableFile(ValueError):
    """A file that cannot be used as a whole; the message continues a sentence that begins with the file."""


@dataclass(frozen=True)
class ReadLimits:
    """Largest number of `rows`, of `row_bytes` of one row, and of `bytes` of the whole file, decompressed."""

    rows: int = NO_LIMIT
    row_bytes: int = NO_LIMIT
    bytes: int = NO_LIMIT

    def check_rows(self, rows: int) -> None:
        """Raise `UnusableFile` above the number of rows."""
        if rows > self.rows:
            raise UnusableFile(f"holds more than {self.rows} rows, the most that this service takes")

    def check_bytes(self, size: int) -> None:
        """Raise `UnusableFile` above the size of the decompressed or converted file."""
        if size > self.bytes:
            raise UnusableFile(f"expands to more than {self.bytes} bytes, the most that this service takes")

    def long_row(self, number: int) -> InvalidRow:
        """Return the error of a row above the size of a row."""
        return InvalidRow(number, None, f"is longer than {self.row_bytes} bytes, the most that a row may have")
