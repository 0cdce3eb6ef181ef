"""Words that cannot act: a special token that is only mentioned stays text.

Owns how text is marked before a chat template sees it and how it is tokenised after. Knows nothing
of any one template; which special tokens are meant is told by whoever writes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

_QUOTE = "\ue000"
"""Stands on both sides of a special token that is only mentioned; a private-use character."""

Other = TypeVar("Other")


class Words:
    """A tokenizer that is handed text from anywhere."""

    def __init__(self, tokenizer: Any, *more: str) -> None:
        """`more` are tokens to guard that the tokenizer itself does not call special."""
        self._tokenizer = tokenizer
        known = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
        ordered = sorted(known.union(more), key=len, reverse=True)  # none hides a longer one
        self._special = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")

    def quote(self, text: str, meant: Collection[str] = ()) -> str:
        """Text whose special tokens are marked as mentioned, but for those that are `meant`."""

        def quoted(found: re.Match[str]) -> str:
            return found[0] if found[0] in meant else f"{_QUOTE}{found[0]}{_QUOTE}"

        return self._special.sub(quoted, text.replace(_QUOTE, ""))

    def tokenize(self, text: str) -> list[int]:
        """Tokens of quoted text; nothing is added before or after."""
        ids: list[int] = []
        for i, piece in enumerate(text.split(_QUOTE)):
            ids += self._continued(piece, mentioned=bool(i % 2)) if i else self._plain(piece, False)
        return ids

    def _continued(self, piece: str, mentioned: bool) -> list[int]:
        """Tokens of a piece amid a text: some tokenizers put a space before what comes first."""
        after = self._plain(_QUOTE + piece, mentioned)
        before = self._plain(_QUOTE, False)
        if piece and after[: len(before)] == before:
            return after[len(before) :]
        return self._plain(piece, mentioned)

    def _plain(self, text: str, mentioned: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=mentioned
        )
        return ids


def joined(parts: Sequence[str | Other]) -> list[str | Other]:
    """The same with neighbouring texts as one: halves of a special token are one, too."""
    whole: list[str | Other] = []
    for part in parts:
        last = whole[-1] if whole else None
        if isinstance(part, str) and isinstance(last, str):
            whole[-1] = last + part
        else:
            whole.append(part)
    return whole
