"""What may be read of a stranger's files, and how what may not is told."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from src.errors import UserError
from src.files.untrusted import check_plain, inside, open_regular, plain_json, plain_yaml, read_text, shown

LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_YAML = {
    "multiplies": (LAUGHS, "more than 100,000 values"),
    "holds itself": ("a: &a [*a]", "holds itself"),
    "merges": ("a: &a {x: 1}\nb: {<<: *a}", "merges"),
    "key is a number": ("1: x", "no text"),
    "key is nothing": ("{a: {~: x}}", "no text"),
    "key is a list": ("? [a]\n: x", "no text"),
    "key twice": ("a: 1\na: 2", "twice"),
    "deep": ("[" * 500 + "]" * 500, "deep"),
    "very deep": ("[" * 50_000 + "]" * 50_000, "deep|no YAML"),
    "digits": (f"a: {'9' * 400}", "digits"),
    "large": (f"a: {2**63}", "digits"),
    "sixties": (f"a: {':'.join(['59'] * 12)}", "digits"),
    "object": ("a: !!python/object/apply:os.system [id]", "no plain value"),
    "bytes": ("a: !!binary aGk=", "no plain value"),
    "set": ("a: !!set {x, y}", "no plain value"),
    "no YAML": ("a: [", "no YAML"),
    "control character": ("a: \x1b[2J", "no YAML"),
}
BAD_JSON = {
    "deep": ("[" * 500 + "]" * 500, "deep"),
    "very deep": ("[" * 500_000, "damaged"),
    "digits": ("9" * 400, "digits"),
    "more digits": ("9" * 5000, "damaged"),
    "no JSON": ("{", "no JSON"),
}


@pytest.mark.parametrize("kind", BAD_YAML)
def test_yaml_that_is_more_than_plain_data(kind: str) -> None:
    text, said = BAD_YAML[kind]
    with pytest.raises(UserError, match=f"^the file: .*({said})"):
        plain_yaml(text, "the file")


@pytest.mark.parametrize("kind", BAD_JSON)
def test_json_that_is_more_than_a_file_of_ours(kind: str) -> None:
    text, said = BAD_JSON[kind]
    with pytest.raises(UserError, match=f"^the file: .*({said})"):
        plain_json(text, "the file")


def test_plain_values_come_as_they_are() -> None:
    text = "a: [1, -2.5, 1.0e-05, .inf, true, ~, 'x', 2020-01-01, '${b}']\nb: {c: &c [x], d: *c}\n"
    assert plain_yaml(text, "x") == {
        "a": [1, -2.5, 1e-5, float("inf"), True, None, "x", "2020-01-01", "${b}"],
        "b": {"c": ["x"], "d": ["x"]},
    }
    assert plain_yaml("", "x") is None


def test_only_regular_files_of_bounded_size_are_opened(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbftext")
    assert read_text(file) == "text"
    (tmp_path / "link").symlink_to(file)
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "link", "is a link"), (tmp_path / "pipe", "no regular file"), (Path("/dev/zero"), "no regular file"),
        (tmp_path, "no regular file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            open_regular(path)
    with pytest.raises(UserError, match="more than the 3 that"):
        read_text(file, limit=3)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="no UTF-8"):
        read_text(file)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "link", "link/x", "a\0b"])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="refused"):
        inside(tmp_path, name)
    assert inside(tmp_path, "a/b") == tmp_path / "a/b"


def test_what_multiplies_costs_nothing() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError):
        plain_yaml(LAUGHS, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10  # KiB


@pytest.mark.parametrize("value", [{1: 2}, {None: 2}, [object()], 2**64, b"x", {"a": {"b": {3}}}])
def test_values_that_are_not_plain(value: object) -> None:
    with pytest.raises(UserError, match="refused"):
        check_plain(value, "x")


def test_the_terminal_gets_no_control_characters() -> None:
    assert shown("a\x1b[2Jb\rü\x9b\u202e") == "a\\x1b[2Jb\\rü\\x9b\\u202e"
    assert len(shown("x" * 5000)) == 200
