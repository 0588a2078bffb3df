"""The reader of every JSON Lines file that users pass."""

import gzip

import pytest

from lr_exp.data.json_lines import read_json_lines
from tests.support.files import one_line_error

LINES = '\ufeff{"a": 1.50}\r\n\n{"a": "two\u2028"}\n'.encode()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_lines_are_read_plain_or_compressed_whatever_the_name(tmp_path, compress):
    path = tmp_path / "q.jsonl"
    path.write_bytes(compress(LINES))
    read = [(number, record) for number, _, record in read_json_lines(path, parse_float=str)]
    assert read == [(1, {"a": "1.50"}), (3, {"a": "two\u2028"})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a": 1, "a": 2}', "line 1: the key 'a' occurs twice"),
        (b'{"a": {"b": 1, "b": 1}}', "line 1: the key 'b' occurs twice"),
        (b"{}\n[1]", "line 2: not an object"),
        (b'{"a": NaN}', "line 1: not JSON (NaN is not a JSON number)"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b"\xff\xfe", "line 1: not UTF-8"),
        (gzip.compress(LINES * 99, mtime=0)[:-20], "cannot be read (Compressed file ended"),
        (b"\x1f\x8b not gzip", "cannot be read (Unknown compression method)"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, content, says):
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with one_line_error(path, says):
        list(read_json_lines(path))
