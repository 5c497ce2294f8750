"""The same records in every kind of file are the same prompts; a damaged one names file and line or row."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo.artifacts.sources.files import source_files
from nemo_sspo.artifacts.sources.prompts import read_prompts
from nemo_sspo.artifacts.sources.records import first_fields
from nemo_sspo.errors import UserError

ROWS = [
    {"id": "1", "prompt": "one", "system": None},
    {"id": "2", "prompt": 'two, "quoted"\nand a second line', "system": "Be brief"},
    {"id": "3", "prompt": "drei ü 😀", "system": " "},
]
EXPECTED = [
    ({"role": "user", "content": "one"},),
    ({"role": "system", "content": "Be brief"}, {"role": "user", "content": 'two, "quoted"\nand a second line'}),
    ({"role": "user", "content": "drei ü 😀"},),
]


def json_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _gzip(path: Path, rows: list[dict]) -> Path:
    (file := path / "p.jsonl.gz").write_bytes(gzip.compress(json_lines(rows)))
    return file


def _list(path: Path, rows: list[dict]) -> Path:
    (file := path / "p.json").write_text(json.dumps(rows))
    return file


def _indented_list(path: Path, rows: list[dict]) -> Path:
    (file := path / "p.json").write_text("\ufeff" + json.dumps(rows, indent=2))
    return file


def _csv(path: Path, rows: list[dict]) -> Path:
    with (file := path / "p.csv").open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def _csv_of_a_spreadsheet(path: Path, rows: list[dict]) -> Path:
    """With a byte order mark and the line ends of Windows, and compressed."""
    text = _csv(path, rows).read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"\r\nand", b"\nand")
    (file := path / "p.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text))
    return file


def _parquet(path: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path / "p.parquet")
    return path / "p.parquet"


def arrow(file: Path, rows: list[dict], kind: Callable = pa.ipc.new_stream) -> Path:
    table = pa.Table.from_pylist(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(file), "wb") as sink, kind(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return file


def _arrow_stream(path: Path, rows: list[dict]) -> Path:
    return arrow(path / "p.arrow", rows)


def _arrow_file(path: Path, rows: list[dict]) -> Path:
    return arrow(path / "p.arrow", rows, pa.ipc.new_file)


@pytest.mark.parametrize(
    "store",
    [_gzip, _list, _indented_list, _csv, _csv_of_a_spreadsheet, _parquet, _arrow_stream, _arrow_file],
)
def test_every_container_holds_the_same_prompts(tmp_path: Path, store: Callable[[Path, list[dict]], Path]) -> None:
    file = store(tmp_path, ROWS)
    read = read_prompts(str(file))
    assert [conversation.messages for conversation in read.conversations] == EXPECTED
    assert {"prompt", "id"} <= set(first_fields(str(file)))


@pytest.mark.parametrize(
    ("store", "places"),
    [
        (_gzip, ["line 1", "line 2", "line 3"]),
        (_list, ["row 1", "row 2", "row 3"]),
        (_csv, ["line 2", "line 3", "line 5"]),  # as an editor counts them: the second record has two lines
        (_arrow_stream, ["row 1", "row 2", "row 3"]),
    ],
)
def test_a_record_is_named_by_its_place(tmp_path: Path, store: Callable[[Path, list[dict]], Path], places) -> None:
    file = store(tmp_path, ROWS)
    assert [each.where for each in read_prompts(str(file)).conversations] == [f"{file} {place}" for place in places]


def test_what_datasets_saves_is_read_without_its_cache_and_other_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    shuffled = datasets.Dataset.from_list([{"prompt": str(n)} for n in range(9)]).shuffle(seed=3).select(range(5))
    shuffled.save_to_disk(str(tmp_path / "one"), num_shards=2)
    again = datasets.load_from_disk(str(tmp_path / "one"))
    again.map(lambda row: {"prompt": "of the cache"})  # leaves a cache file beside the data
    assert list((tmp_path / "one").glob("cache-*.arrow"))
    read = read_prompts(str(tmp_path / "one"))
    assert [each.messages[0]["content"] for each in read.conversations] == shuffled["prompt"][:]
    datasets.DatasetDict(test=again.select([0]), train=again).save_to_disk(str(tmp_path / "splits"))
    assert len(read_prompts(str(tmp_path / "splits")).conversations) == 5
    found = source_files(tmp_path / "splits")
    assert [file.parent.name for file in found.taken] == ["train"]
    assert found.left_out == ("test/data-00000-of-00001.arrow",)  # not the descriptions beside the data


def test_an_arrow_file_that_no_saved_data_set_names_is_not_read_of_a_folder(tmp_path: Path) -> None:
    arrow(tmp_path / "set" / "data.arrow", ROWS)
    with pytest.raises(UserError, match=r"no \.parquet, \.jsonl, \.jsonl\.gz or \.csv file .*, only data\.arrow$"):
        read_prompts(str(tmp_path / "set"))
    (tmp_path / "set" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    assert len(read_prompts(str(tmp_path / "set")).conversations) == 3
    (tmp_path / "set" / "state.json").write_text("[1]")
    with pytest.raises(UserError, match=r"state\.json: expected a JSON object$"):
        read_prompts(str(tmp_path / "set"))


def test_a_folder_is_read_in_one_kind_of_file(tmp_path: Path) -> None:
    names = {"a.csv": b"prompt\nc\n", "b.jsonl.gz": gzip.compress(b'{"prompt": "z"}'), "c.jsonl": b'{"prompt": "j"}'}
    read = []
    for name in names:
        (tmp_path / name).write_bytes(names[name])
        found = source_files(tmp_path)
        assert len(found.taken) + len(found.left_out) == len(list(tmp_path.iterdir()))
        read.append([each.messages[0]["content"] for each in read_prompts(str(tmp_path)).conversations])
    assert read == [["c"], ["z"], ["j"]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl.gz", b'{"prompt": "a"}\n', r"p\.jsonl\.gz: not a whole gzip file \(Not a gzipped file"),
        ("p.jsonl.gz", gzip.compress(json_lines(ROWS))[:-9], r"p\.jsonl\.gz: not a whole gzip file"),
        ("p.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n{"prompt": '), r"p\.jsonl\.gz line 2: not JSON"),
        ("p.parquet.gz", b"", r"p\.parquet\.gz: unknown kind of file; give \.jsonl"),
        ("p.json", b'[{"prompt": "a"},\n {"prompt": "a",}]', r"p\.json line 2: not JSON"),
        ("p.json", b'[{"prompt": "a"}, {"text": "b"}]', r"p\.json row 2: neither `prompt` nor"),
        ("p.json", b'[{"prompt": "a"}]\n[{"prompt": "b"}]', r"p\.json line 2: not JSON \(Extra data"),
        ("p.csv", b"", r"p\.csv: none of prompt, .* among its columns \[\]"),
        (
            "p.csv",
            b"text;id\na;1\n",
            r"p\.csv: none of prompt, .* among its columns \['text;id'\]; rename one, or name",
        ),
        ("p.csv", b"prompt,id\na,1\n\nb, c,2\n", r"p\.csv line 4: 3 cells, and its header names 2; put a text with"),
        ("p.csv", b"prompt,id\na\n", r"p\.csv line 2: 1 cells, and its header names 2"),
        ("p.csv", b'prompt\nx\n"a\nb\n', r"p\.csv line 3: not CSV \(unexpected end of data\); every quote that opens"),
        ("p.csv", b"prompt,prompt\na,b\n", r"p\.csv line 1: its header has 'prompt' twice"),
        (
            "p.csv",
            b"prompt\na\ncaf\xe9\n",
            r"p\.csv line 3: not UTF-8 \(byte 0xe9 at column 4\); save the file as UTF-8",
        ),
        ("p.csv", b"prompt,id\na,1\n,2\n", r"p\.csv line 3: neither `prompt` nor `messages` among its fields \['id'\]"),
        ("p.csv", b"messages\n\"[{'role': 1}]\"\n", r"p\.csv line 2: `messages` is text; expected a list of messages"),
        ("p.arrow", b"ARROW no", r"p\.arrow: not a readable Arrow file"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_truncated_arrow_file_is_named(tmp_path: Path) -> None:
    whole = arrow(tmp_path / "p.arrow", ROWS).read_bytes()
    (tmp_path / "p.arrow").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UserError, match=r"p\.arrow: not a readable Arrow file"):
        read_prompts(str(tmp_path / "p.arrow"))


def test_a_list_that_is_too_large_to_be_held_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(b"[\n" + (b'{"prompt": "' + b"x" * 2**22 + b'"},\n') * 17)
    with pytest.raises(UserError, match=r"p\.json: one JSON list of more than \d+ bytes; write it as JSON Lines: jq"):
        read_prompts(str(tmp_path / "p.json"))


def test_a_list_is_read_item_by_item(tmp_path: Path) -> None:
    """Twenty million objects would take a gigabyte; the first of them is refused before."""
    (tmp_path / "p.json").write_bytes(b"[" + b"{}," * 20_000_000 + b"{}]")
    with pytest.raises(UserError, match=r"p\.json row 1: neither `prompt` nor"):
        read_prompts(str(tmp_path / "p.json"))


def test_a_file_that_grows_beyond_what_text_does_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress((b" " * 2**20 + b"\n") * 100))
    with pytest.raises(UserError, match=r"p\.jsonl\.gz line \d+: over 200 times as large as compressed: no text is"):
        read_prompts(str(tmp_path / "p.jsonl.gz"))
