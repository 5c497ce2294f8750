"""A table is written whole, holds its schema alone, and is read as nothing else."""

import pyarrow as pa
import pytest

from nemo_sspo.artifacts.table import BATCH_ROWS, Table
from nemo_sspo.errors import UserError

NUMBERS = Table("numbers.parquet", pa.schema([("x", pa.int32()), ("y", pa.string())]))
COLUMNS = {"x": [1, 2], "y": ["a", "b"]}


def test_equal_content_makes_equal_files(tmp_path):
    """Whichever way it is given."""
    ways = (COLUMNS, [{"x": 1, "y": "a"}, {"x": 2, "y": "b"}], pa.table(COLUMNS, schema=NUMBERS.schema))
    files = []
    for number, rows in enumerate(ways):
        (tmp_path / str(number)).mkdir()
        NUMBERS.write(tmp_path / str(number), rows)
        files.append((tmp_path / str(number) / NUMBERS.file).read_bytes())
    assert files[0] == files[1] == files[2]
    assert NUMBERS.read(tmp_path / "0").to_pydict() == COLUMNS
    assert NUMBERS.read(tmp_path / "0", ["y"]).to_pydict() == {"y": ["a", "b"]}


def test_nothing_of_another_schema_is_written(tmp_path):
    NUMBERS.write(tmp_path, COLUMNS)
    with pytest.raises(ValueError, match=r"numbers\.parquet cannot hold"):
        NUMBERS.write(tmp_path, pa.table({"x": [1.5], "y": ["c"]}))
    with pytest.raises(pa.ArrowInvalid):
        NUMBERS.write(tmp_path, {"x": ["no number"], "y": ["c"]})
    assert NUMBERS.read(tmp_path).to_pydict() == COLUMNS
    assert [path.name for path in tmp_path.iterdir()] == [NUMBERS.file]


def test_a_list_of_columns_is_no_table(tmp_path):
    """pyarrow would make rows of nulls of it."""
    with pytest.raises(TypeError, match=r"numbers\.parquet: columns need names"):
        NUMBERS.write(tmp_path, [[1, 2], ["a", "b"]])
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no numbers\.parquet in this artifact"):
        NUMBERS.read(tmp_path)
    NUMBERS.write(tmp_path, COLUMNS)
    with pytest.raises(UserError, match=r"numbers\.parquet: columns \['x', 'y'\] with types other than"):
        Table(NUMBERS.file, pa.schema([("x", pa.int64())])).read(tmp_path)
    (tmp_path / NUMBERS.file).write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"numbers\.parquet: not a readable Parquet file"):
        NUMBERS.read(tmp_path)


def test_in_parts_it_is_the_same_table(tmp_path):
    rows = {"x": range(2 * BATCH_ROWS + 3), "y": [f"{x % 7}" for x in range(2 * BATCH_ROWS + 3)]}
    NUMBERS.write(tmp_path, rows)
    parts = list(NUMBERS.batches(tmp_path))
    assert [part.num_rows for part in parts] == [BATCH_ROWS, BATCH_ROWS, 3]
    assert pa.concat_tables(parts).equals(NUMBERS.read(tmp_path).combine_chunks())
    some = NUMBERS.matching(tmp_path, "y", pa.array(["3", "absent"]), ["y", "x"])
    assert some["x"].to_pylist() == list(range(3, 2 * BATCH_ROWS + 3, 7))
    assert NUMBERS.matching(tmp_path, "y", pa.array([], pa.string()), ["y"]).num_rows == 0


def test_of_an_empty_table_nothing_matches(tmp_path):
    NUMBERS.write(tmp_path, {"x": [], "y": []})
    assert NUMBERS.matching(tmp_path, "y", pa.array(["3"]), ["y"]).column_names == ["y"]
