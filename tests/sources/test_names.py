"""Keys hold every name there can be, and lead nowhere."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.names import is_harmless, key_of, member_key, path_of

RAW_NAMES = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


@given(RAW_NAMES)
def test_every_name_of_a_file_survives_as_a_key(raw: bytes) -> None:
    name = os.fsdecode(raw)
    key = key_of(name)
    key.encode("utf-8")
    assert path_of(key) == name


@given(RAW_NAMES, RAW_NAMES)
def test_two_names_never_share_a_key(first: bytes, second: bytes) -> None:
    same = key_of(os.fsdecode(first)) == key_of(os.fsdecode(second))
    assert same == (first == second)


@pytest.mark.parametrize(
    "name", ["a%FF.jpg", "a%25.jpg", "a%2525.jpg", "%%FF", "100%.jpg", "a%20b"]
)
def test_names_that_look_escaped_survive(name: str) -> None:
    assert path_of(key_of(name)) == name


def test_ordinary_names_are_their_own_keys() -> None:
    for name in ["a/b.jpg", "100%.jpg", "a%20b.jpg", "new\nline.png", "日本/🐈.webp"]:
        assert key_of(name) == name
    assert key_of(os.fsdecode(b"caf\xe9.jpg")) == "caf%E9.jpg"


def test_half_a_character_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        key_of("\ud800.jpg")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("../../etc/passwd.jpg", "etc/passwd.jpg"),
        ("/abs/x.jpg", "abs/x.jpg"),
        ("./a//b/../c.jpg", "a/b/c.jpg"),
        ("C:\\windows\\x.jpg", "windows/x.jpg"),
        ("nul\0l.jpg", "null.jpg"),
        ("..", "unnamed"),
    ],
)
def test_members_cannot_lead_out(name: str, key: str) -> None:
    assert member_key(name) == key
    assert is_harmless(key)
    assert is_harmless(name) == (name == key)
