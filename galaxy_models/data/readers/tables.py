"""Catalogues in CSV or Parquet, read so that ids stay text and every complaint names its row."""

import codecs
import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxy_models.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Whole numbers up to here are exact in floats of this many bits.
_EXACT_FLOAT = {16: 2**11, 32: 2**24, 64: 2**53}
# Fractions that were divided, multiplied or stored as float32 miss their bounds by no more than this.
_ROUNDING = 1e-6
# How catalogues write that a class is unknown, in lower case.
_MISSING = frozenset({"nan", "null", "none", "n/a", "na"})
# The first of those that divide the column names equally often is taken.
_SEPARATORS = (",", ";", "\t")
_QUOTED = re.compile(r'"[^"]*"')


class Table:
    """A catalogue's columns.

    Attributes:
        name: how messages call it.
        columns: its column names, in order.
        num_rows: at least 1.
    """

    def __init__(self, name: str, data: Any) -> None:
        self.name = name
        self.columns: list[str] = list(data.column_names)
        self.num_rows: int = data.num_rows
        self._data = data
        repeated = sorted({column for column in self.columns if self.columns.count(column) > 1})
        if repeated:
            raise DataError(f"{name}: found the column {repeated[0]!r} twice, expected each name once: rename one")
        if self.num_rows == 0:
            raise DataError(f"{name}: found no rows below the column names, expected one row per galaxy")

    def require(self, column: str, purpose: str) -> str:
        """Return the column's name if the table has it.

        Raises:
            DataError: it has not; the message names those it has.
        """
        if column not in self.columns:
            found = ", ".join(self.columns[:12]) + (", ..." if len(self.columns) > 12 else "")
            raise DataError(f"{self.name}: found no column {column!r} for {purpose}, only {found}: name another")
        return column

    def find(self, names: Sequence[str]) -> str | None:
        """The first of these names that the table has, whatever their case; None if it has none."""
        by_lower = {column.lower(): column for column in reversed(self.columns)}
        return next((by_lower[name] for name in names if name in by_lower), None)

    def text(self, column: str) -> list[str]:
        """A column as text, without blanks around it; whole numbers keep every digit.

        Raises:
            DataError: a value is missing (NaN included), is a number that was rounded when it was stored, or bytes
                that are not UTF-8.
        """
        import pyarrow as pa

        values = self._without_bytes(column)
        if pa.types.is_floating(values.type):
            values = self._whole_numbers(column, values)
        texts = [str(value).strip() if value is not None else "" for value in values.to_pylist()]
        if "" in texts:
            raise DataError(
                f"{self.name}: row {texts.index('') + 1}, column {column}: found no value, expected one: "
                "fill it in or remove the row"
            )
        return texts

    def classes(self, column: str) -> list[str]:
        """A column of class names as text; the usual words for an unknown one, such as `nan`, are no classes.

        Raises:
            DataError: a class is missing.
        """
        texts = self.text(column)
        for row, text in enumerate(texts, start=1):
            if text.casefold() in _MISSING:
                raise DataError(
                    f"{self.name}: row {row}, column {column}: found no value ({text!r}), expected a class: "
                    "fill it in, remove the row or rename the class"
                )
        return texts

    def require_unique(self, ids: Sequence[str]) -> None:
        """Insist that each row has an id of its own.

        Raises:
            DataError: two rows have the same; the message names both.
        """
        rows: dict[str, int] = {}
        for row, object_id in enumerate(ids, start=1):
            if rows.setdefault(object_id, row) != row:
                raise DataError(
                    f"{self.name}: rows {rows[object_id]} and {row}: found the id {object_id} twice, expected each "
                    "once: rename or remove one"
                )

    def _without_bytes(self, column: str) -> Any:
        """A column; bytes, which is what text of a FITS table becomes, as text without what filled them up."""
        import pyarrow as pa

        values = self._data.column(column)
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if not any(
            is_kind(kind) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
        ):
            return values
        texts: list[str | None] = []
        for row, value in enumerate(values.to_pylist(), start=1):
            try:
                texts.append(None if value is None else value.rstrip(b" \0").decode())
            except UnicodeDecodeError:
                raise DataError(
                    f"{self.name}: row {row}, column {column}: found bytes that are not UTF-8 ({value!r:.40}), "
                    "expected text: store the column as text"
                ) from None
        return pa.chunked_array([texts], pa.string())

    def _whole_numbers(self, column: str, values: Any) -> Any:
        import pyarrow as pa

        largest = _EXACT_FLOAT[values.type.bit_width]
        numbers = [None if value is None or math.isnan(value) else value for value in values.to_pylist()]
        for row, value in enumerate(numbers, start=1):
            if value is not None and not (value.is_integer() and abs(value) <= largest):
                raise DataError(
                    f"{self.name}: row {row}, column {column}: found the rounded number {value!r}, expected text or "
                    "a whole number: store the column as text"
                )
        return pa.array(numbers, pa.int64())

    def fractions(self, columns: Sequence[str], ids: Sequence[str]) -> "NDArray[np.float64]":
        """Vote fractions.

        Args:
            columns: their columns.
            ids: of each row, for messages.

        Returns:
            (N, A) float64, each in [0, 1]; a rounding error beyond these bounds is cut off.

        Raises:
            DataError: a value is missing, no number or outside [0, 1].
        """
        import numpy as np

        fractions = np.empty((self.num_rows, len(columns)))
        for index, column in enumerate(columns):
            fractions[:, index] = self._numbers(column)
        wrong = np.argwhere(~((fractions >= -_ROUNDING) & (fractions <= 1 + _ROUNDING)))
        if len(wrong):
            row, index = (int(place) for place in wrong[0])
            found = self._data.column(columns[index])[row].as_py()
            raise DataError(
                f"{self.name}: row {row + 1}, id {ids[row]}, column {columns[index]}: found {found!r}, expected a "
                "vote fraction from 0 to 1: correct it or remove the row"
            )
        return fractions.clip(0.0, 1.0)

    def _numbers(self, column: str) -> "NDArray[np.float64]":
        """(N,) float64, NaN where the value is no number."""
        import numpy as np
        import pyarrow as pa

        values = self._without_bytes(column)
        try:
            return values.cast(pa.float64()).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return np.array([_number(value) for value in values.to_pylist()])


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return float("nan")


def read_table(path: Path) -> Table:
    """Read a catalogue.

    Args:
        path: a file whose name ends in .csv, .tsv or .parquet.

    Raises:
        DataError: it does not exist, is of another kind, empty or damaged.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, expected a catalogue in CSV or Parquet: check the path")
    if path.suffix.lower() in (".csv", ".tsv"):
        return parse_csv(path.name, path.read_bytes())
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise DataError(f"{path}: found the suffix {path.suffix!r}, expected .csv, .tsv or .parquet")

    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One file, not a data set: a folder named `class=x` above it must not become a column.
        return Table(path.name, pq.ParquetFile(path).read())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: found no readable Parquet ({_first_line(error)}): write the file again") from None


def parse_csv(name: str, data: bytes) -> Table:
    """Parse a CSV with a line of column names; every value stays the text it is.

    The separator is the one that divides the column names most often, outside of quotes; in a `.tsv` it is the tab if
    there is one. Columns without a name and without a value, which spreadsheets leave at the end, are passed over.

    Args:
        name: the file's name, for messages.
        data: its content, in UTF-8.

    Raises:
        DataError: it is empty, damaged or not UTF-8.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    data = data.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    if not data.strip():
        raise DataError(f"{name}: found an empty file, expected a line of column names and a row per galaxy")
    try:
        header = data.split(b"\n", 1)[0].decode().strip("\r")
        separator, columns = _split_header(name, header)
        table = arrow_csv.read_csv(
            io.BytesIO(data),
            read_options=arrow_csv.ReadOptions(column_names=columns, skip_rows=1),
            parse_options=arrow_csv.ParseOptions(delimiter=separator),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: found no readable CSV ({_first_line(error)}): correct the file") from None
    kept = [index for index, column in enumerate(columns) if column or not _is_empty(table.column(index))]
    return Table(name, table.select(kept))


def _split_header(name: str, header: str) -> tuple[str, list[str]]:
    """The separator and the column names."""
    bare = _QUOTED.sub("", header)
    is_tabbed = name.lower().endswith(".tsv") and "\t" in bare
    separator = "\t" if is_tabbed else max(_SEPARATORS, key=bare.count)
    return separator, [column.strip() for column in next(csv.reader([header], delimiter=separator))]


def _is_empty(column: Any) -> bool:
    return not any(value.strip() for value in column.unique().to_pylist())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
