"""Catalogues: ids keep every digit, and each complaint names its row."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galaxy_models.data.readers.tables import parse_csv, read_table
from galaxy_models.errors import DataError

LONG_IDS = ["588848901537202306", "000123"]


def test_csv_ids_are_text() -> None:
    table = parse_csv("t.csv", "\ufeffOBJID, kind\n588848901537202306,a\n 000123 ,b\n".encode())
    assert table.columns == ["OBJID", "kind"]
    assert table.text("OBJID") == LONG_IDS


@pytest.mark.parametrize("values", [pa.array(LONG_IDS), pa.array(LONG_IDS).dictionary_encode()])
def test_parquet_text_ids(tmp_path: Path, values: pa.Array) -> None:
    pq.write_table(pa.table({"id": values}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").text("id") == LONG_IDS


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(8), pa.dictionary(pa.int8(), pa.binary())])
def test_parquet_text_as_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    # As FITS has it: filled up with blanks or NULs to one length.
    values = [b"spiral  ", "hé\0\0\0\0\0".encode(), b"spiral\0\0"]
    pq.write_table(pa.table({"kind": pa.array(values).cast(kind)}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").classes("kind") == ["spiral", "hé", "spiral"]


def test_parquet_bytes_that_are_missing_or_no_text(tmp_path: Path) -> None:
    columns = {
        "blank": pa.array([b"x", b"   "]),
        "null": pa.array([b"x", None]),
        "image": pa.array([b"x", b"\xff\xd8"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    for column in ("blank", "null"):
        with pytest.raises(DataError, match=f"row 2, column {column}: found no value"):
            table.text(column)
    with pytest.raises(
        DataError, match=r"row 2, column image: found bytes that are not UTF-8 \(b'\\xff\\xd8'\), expected"
    ):
        table.text("image")


def test_parquet_votes_as_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([b"0.25", b"1 "])}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").fractions(["a"], ["x", "y"]).tolist() == [[0.25], [1.0]]


def test_parquet_whole_numbers(tmp_path: Path) -> None:
    columns = {"id": pa.array([588848901537202306]), "small": pa.array([7.0])}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.text("id") == ["588848901537202306"]
    assert table.text("small") == ["7"]


@pytest.mark.parametrize("value", [588848901537202306.0, 1.5, float("inf")])
def test_parquet_ids_rounded_to_floats_are_refused(tmp_path: Path, value: float) -> None:
    pq.write_table(pa.table({"id": pa.array([3.0, value])}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2, column id: found the rounded number"):
        read_table(tmp_path / "t.parquet").text("id")


def test_float32_ids_are_exact_up_to_two_to_the_24(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([2.0**24, 2.0**24 + 2], pa.float32())}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"row 2, column id: found the rounded number 16777218\.0"):
        read_table(tmp_path / "t.parquet").text("id")


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_number_that_is_none_is_missing(tmp_path: Path, kind: pa.DataType) -> None:
    column = pa.array(np.array([1, np.nan], kind.to_pandas_dtype()))
    pq.write_table(pa.table({"kind": column}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2, column kind: found no value, expected one"):
        read_table(tmp_path / "t.parquet").classes("kind")


@pytest.mark.parametrize("word", ["nan", "NaN", "NULL", "None", "N/A", "na"])
def test_words_for_an_unknown_class_are_no_class(word: str) -> None:
    table = parse_csv("t.csv", f"id,kind\n1,banana\nnan,{word}\n".encode())
    with pytest.raises(DataError, match=f"row 2, column kind: found no value \\('{word}'\\), expected a class"):
        table.classes("kind")
    assert table.text("id") == ["1", "nan"]


def test_an_id_twice_names_both_rows() -> None:
    table = parse_csv("t.csv", b"id\nx\ny\nz\ny\n")
    with pytest.raises(DataError, match=r"t\.csv: rows 2 and 4: found the id y twice"):
        table.require_unique(table.text("id"))
    table.require_unique(["a", "b"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(tmp_path: Path, separator: str) -> None:
    rows = ["id,kind,note", '1,a,"x,y;z\tw"', "2,b,"]
    text = "\n".join(separator.join(row.split(",", 2)) for row in rows)
    for suffix in (".csv", ".tsv"):
        (tmp_path / f"t{suffix}").write_text(text + "\n")
        table = read_table(tmp_path / f"t{suffix}")
        assert table.columns == ["id", "kind", "note"]
        assert table.text("kind") == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("t.tsv", "id\tname, full\tclass\n1\t2\t3", ["id", "name, full", "class"]),
        ("t.tsv", "id\tx, y, z\n1\t3", ["id", "x, y, z"]),
        ("t.csv", "id\tname, full\tclass\n1\t2\t3", ["id", "name, full", "class"]),
        ("t.csv", 'id;"a,b"\n1;3', ["id", "a,b"]),
        ("t.csv", 'id;"a ""and"", b, c";class\n1;2;3', ["id", 'a "and", b, c', "class"]),
        ("t.csv", 'id,"a;b;c",class\n1,2,3', ["id", "a;b;c", "class"]),
        ("t.csv", "id,a;b\n1,3", ["id", "a;b"]),
    ],
)
def test_separators_inside_names(name: str, text: str, columns: list[str]) -> None:
    table = parse_csv(name, text.encode())
    assert table.columns == columns
    assert table.text(columns[-1]) == ["3"]


def test_empty_columns_without_a_name_are_passed_over() -> None:
    table = parse_csv("t.csv", b"id,class,,\n1,a,,\n2,b, ,\n")
    assert table.columns == ["id", "class"]
    assert table.text("class") == ["a", "b"]


def test_columns_without_a_name_that_hold_something_are_kept() -> None:
    assert parse_csv("t.csv", b",id,\n0,a,\n1,b,\n").columns == ["", "id"]
    with pytest.raises(DataError, match="found the column '' twice, expected each name once: rename one"):
        parse_csv("t.csv", b"id,,\n1,a,\n2,,b\n")


def test_a_missing_value_names_its_row() -> None:
    with pytest.raises(DataError, match="row 2, column kind: found no value"):
        parse_csv("t.csv", b"id,kind\n1,a\n2,\n").text("kind")


def test_a_missing_column_names_those_there_are() -> None:
    with pytest.raises(DataError, match="found no column 'klass' for --class-column, only id, kind"):
        parse_csv("t.csv", b"id,kind\n1,a\n").require("klass", "--class-column")


@pytest.mark.parametrize(
    ("text", "found"), [("nan", "'nan'"), ("", "''"), ("1.2", "'1.2'"), ("-0.1", "'-0.1'"), ("half", "'half'")]
)
def test_votes_outside_zero_to_one_name_row_id_and_column(text: str, found: str) -> None:
    table = parse_csv("t.csv", f"id,a,b\nx,0,1\ny,0.5,{text}\n".encode())
    with pytest.raises(DataError, match=f"row 2, id y, column b: found {found}, expected a vote fraction from 0 to 1"):
        table.fractions(["a", "b"], ["x", "y"])


def test_votes_of_a_parquet_file_with_a_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([0.5, None])}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="row 2, id y, column a: found None"):
        read_table(tmp_path / "t.parquet").fractions(["a"], ["x", "y"])


def test_votes_are_read_exactly_but_for_rounding_errors() -> None:
    table = parse_csv("t.csv", b"a,b\n0.383147,1\n1.00000001,0\n")
    np.testing.assert_array_equal(table.fractions(["b", "a"], ["x", "y"]), [[1, 0.383147], [0, 1]])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (b"\n\n", "empty file"),
        (b"id,kind\n", "no rows below the column names"),
        (b"id,id\n1,2\n", "column 'id' twice"),
        (b"id,kind\n1,2,3\n", "no readable CSV"),
        (b"id,kind\n1,\xff\xfe\n", "no readable CSV"),
        (b"\xff\xfei\x00d\x00\n\x001\x00", "no readable CSV"),
    ],
)
def test_unreadable_csv(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_csv("t.csv", data)


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but no more")
    (tmp_path / "t.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match="no readable Parquet"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"suffix '.xlsx', expected .csv, .tsv or .parquet"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="no such file"):
        read_table(tmp_path / "none.csv")
