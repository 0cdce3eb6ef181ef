"""Names of files and tar members as keys: storable as UTF-8, reversible, without ways out.

The rule: a key is the relative posix path; a byte of a name that is not UTF-8 is written `%FF`
(capitals), and so that every key has one name, a `%` in front of `25` or of such a byte's two
digits is written `%25`. Everything else stays as it is, newlines and emoji included.
"""

from __future__ import annotations

import re

_LITERAL = re.compile(r"%(?=25|[89A-F][0-9A-F])")
_ESCAPED = re.compile(rb"%(25|[89A-F][0-9A-F])")
_STRAY_BYTE = re.compile("[\udc80-\udcff]")


def key_of(path: str) -> str:
    """The key for a relative path; raises `UnicodeEncodeError` for a name no key can hold."""
    if "%" in path:
        path = _LITERAL.sub("%25", path)
    if path.isascii():
        return path
    key = _STRAY_BYTE.sub(lambda match: f"%{ord(match[0]) - 0xDC00:02X}", path)
    key.encode("utf-8")
    return key


def path_of(key: str) -> str:
    """The relative path that a key stands for: the inverse of `key_of`."""
    if "%" not in key:
        return key
    plain = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), key.encode("utf-8"))
    return plain.decode("utf-8", "surrogateescape")


def member_key(name: str) -> str:
    """A tar member's name as a key: relative, without `.`, `..`, drive letters or NUL.

    Members are never written to disk; this keeps their names harmless for whoever joins paths.
    """
    parts = name.replace("\\", "/").replace("\0", "").split("/")
    kept = [part for part in parts if part not in ("", ".", "..") and not _is_drive(part)]
    return key_of("/".join(kept)) or "unnamed"


def is_harmless(key: str) -> bool:
    """Whether a key from someone else's annotations stays below its folder."""
    return member_key(path_of(key)) == key


def _is_drive(part: str) -> bool:
    return len(part) == 2 and part[1] == ":" and part[0].isalpha()
