"""The reader of every JSON Lines file that users pass."""

import pytest

from lr_exp.data.json_lines import read_json_lines
from tests.support.files import one_line_error

LINES = '\ufeff{"a": 1.50}\r\n\n{"a": "two\u2028"}\n'.encode()


def test_lines_are_read_with_their_numbers(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_bytes(LINES)
    read = [(number, record) for number, _, record in read_json_lines(path, parse_float=str)]
    assert read == [(1, {"a": "1.50"}), (3, {"a": "two\u2028"})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{}\n[1]", "line 2: not an object"),
        (b'{"a": NaN}', "line 1: not JSON (NaN is not a JSON number)"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b"\xff\xfe", "line 1: not UTF-8"),
        (b"\x1f\x8b gzip", "line 1: not UTF-8"),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, content, says):
    path = tmp_path / "q.jsonl"
    path.write_bytes(content)
    with one_line_error(path, says):
        list(read_json_lines(path))
