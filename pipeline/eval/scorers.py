"""What an answer says by rule, and what the answers to a benchmark add up to.

Pure text and arrays: nothing here knows of models, files or runs. A rule that cannot tell says so
(`value` None); it does not guess and it does not count as wrong.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from pipeline.answers import extract_answer, matches, option_index
from pipeline.errors import ConfigError, nearest
from pipeline.samples import Score

Label = Literal["yes", "no", "other"]

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark",
    "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""MME's tasks."""

_THOUGHT_ENDS, _ANSWER, _ANSWER_ENDS = "</think>", "<answer>", "</answer>"
_MARKDOWN = re.compile(r"[*_`]+")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_NAMED = re.compile(
    r"(?i:answer|option|choice)(?i:\s+is)?\s*:?\s*(?i:option|choice)?\s*"
    r"(?:\(([A-Za-z])\)|([A-Z])(?![\w']))"
)
_MARKED = re.compile(r"\(?([A-Za-z])[).:](?=\s|$)")
_NEGATED = re.compile(r"\b(?:no|not|nor|none|never|neither|without|cannot)\b|n't\b", re.IGNORECASE)
_PUBLISHED_OPTION = re.compile(r"\(([A-D])\)\s+([^\n]+)")
_WORD = re.compile(r"[^\W_]+")


def answer_in(text: str) -> str:
    """What a reply answers: after its thoughts, inside `<answer>` where there is such a tag.

    A tag that is not closed, as where a reply ends at a stop string, runs to the end.
    """
    said = text.rpartition(_THOUGHT_ENDS)[2]
    inside = extract_answer(said)
    if inside or _ANSWER not in said:
        return inside or said.strip()
    return said.rpartition(_ANSWER)[2].partition(_ANSWER_ENDS)[0].strip()


def match_option(
    text: str, options: Sequence[str], label: str, *, published: bool = False
) -> Score:
    """Whether a reply names the right option, given by its letter: 1, 0, or None for neither.

    An option is named by its letter, its words, or both when they agree; an empty answer is wrong.
    `published` is the rule of the Chain-of-Focus scorer, and a reply that it hands to a judge is
    None; it raises `KeyError` for a letter that no option has. Otherwise that is `ConfigError`.
    """
    if published:
        return _as_published(text, options, label)
    right = _place(label, options)
    if right is None:
        raise ConfigError(f"'{label}' is the letter of none of {len(options)} options.")
    said = answer_in(text)
    if not said:
        return Score("", "option", 0.0, "no_answer: The answer is empty")
    given = read_option(said, options)
    if given is None:
        return Score("", "option", None, f"no one option is named in {said[:200]!r}")
    named = chr(ord("A") + given)
    return Score("", "option", float(options[given] == options[right]), f"read as {named}")


def read_option(said: str, options: Sequence[str]) -> int | None:
    """The place of the one option that an answer names; None where it names none, or several."""
    plain = _MARKDOWN.sub("", _BOXED.sub(r"\1", said)).strip()
    lines = (plain, *plain.splitlines())
    exact = {option_index(line.strip(" .\"'“”‘’"), options) for line in lines} - {None}
    if exact:
        return exact.pop() if len(exact) == 1 else None
    named = {_place(found[1] or found[2], options) for found in _NAMED.finditer(plain)}
    if marked := _MARKED.match(plain):
        named.add(_place(marked[1], options))
    named |= _at_the_start(plain, options)
    if not _NEGATED.search(plain):
        named |= _in_words(plain, options)
    named.discard(None)
    return named.pop() if len(named) == 1 else None


def published_options(text: str) -> dict[str, str]:
    """Options by letter, as the Chain-of-Focus scorer finds them in a question's text."""
    return dict(_PUBLISHED_OPTION.findall(text))


def match_words(text: str, target: str) -> Score:
    """Whether a reply is the target, case, white space and punctuation aside: 1 or 0."""
    said = answer_in(text)
    if not said:
        return Score("", "exact", 0.0, "no_answer: The answer is empty")
    right = matches(said, target)
    return Score("", "exact", float(right), "" if right else f"answered {said[:200]!r}")


def mme_label(text: str) -> Label:
    """What MME's own script reads: "yes", else "no", among the first four characters."""
    head = text.lower()[:4]
    return "yes" if "yes" in head else "no" if "no" in head else "other"


def pope_label(text: str) -> Label:
    """What POPE's own script reads: "no" where the first sentence has one of its words for it.

    Whatever is not a "no", an empty answer included, is a "yes".
    """
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"}.intersection(words) else "yes"


def strict_label(text: str) -> Label:
    """The one of "yes" and "no" that stands anywhere in a text as a word; "other" for both."""
    found = {"yes", "no"}.intersection(_WORD.findall(text.lower()))
    return "other" if len(found) != 1 else "yes" if "yes" in found else "no"


def mme_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """MME's totals from rows {category, image_id, answer, said}, paired by picture in any order.

    For each task 100·acc + 100·acc+ (at most 200), and its parts; `perception` and `cognition` with
    the most that the tasks at hand allow (`…_max`: 2000 and 800 for all); `strict` is the share
    that is right when yes or no may stand anywhere. A picture with a question that is unscored
    (`said` None) is left out and its questions are counted in `unscored`. Raises `ConfigError` for
    no rows, an unknown task, and a picture whose questions are not one yes and one no.
    """
    tasks: dict[str, list[bool]] = defaultdict(list)
    both: dict[str, list[bool]] = defaultdict(list)
    counts = {"unscored": 0.0, "other": 0.0, "strict": 0.0}
    for (task, _), pair in _pairs(rows).items():
        if any(row["said"] is None for row in pair):
            counts["unscored"] += len(pair)
            continue
        labels = [mme_label(row["said"]) for row in pair]
        right = [said == _gold(row) for said, row in zip(labels, pair, strict=True)]
        tasks[task] += right
        both[task].append(all(right))
        counts["other"] += labels.count("other")
        counts["strict"] += sum(strict_label(row["said"]) == _gold(row) for row in pair)
    asked = sum(map(len, tasks.values()))
    counts["strict"] = 100 * counts["strict"] / asked if asked else 0.0
    told = _totals(tasks, both)
    return told | counts


def mask_metrics(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """How well a mask, HW, is another: `iou`, `foreground_acc` (recall), `pixel_acc`, `black_rate`.

    What is not 0 is foreground. NaN, as in the published metric, for an `iou` of two empty masks
    and a `foreground_acc` without foreground: leave those out and say how many. Raises `ValueError`
    unless the shapes are the same, HW, and not empty.
    """
    one, other = np.asarray(pred) != 0, np.asarray(gt) != 0
    if one.shape != other.shape or one.ndim != 2 or not one.size:
        raise ValueError(f"Masks of {one.shape} and {other.shape} cannot be compared.")
    shared, either, wanted = (one & other).sum(), (one | other).sum(), other.sum()
    return {
        "iou": float(shared / either) if either else float("nan"),
        "foreground_acc": float(shared / wanted) if wanted else float("nan"),
        "pixel_acc": float((one == other).mean()),
        "black_rate": float((~one).mean()),
    }


def _as_published(text: str, options: Sequence[str], label: str) -> Score:
    """The rules in the order of the published judge (facts of arXiv 2505.15436, evaluation)."""
    right = {chr(ord("A") + n): option for n, option in enumerate(options)}[label]
    said = extract_answer(text, which="first", dotall=False)
    value: float | None = None
    if len(said) == 1:
        value = float(said == label)
    elif (len(said) == 2 and "." in said) or (len(said) == 3 and "(" in said and ")" in said):
        value = float(label in said)
    elif f"({label}) {right}" in said:
        value = 1.0
    return Score("", "option-published", value, f"read {said[:200]!r}")


def _place(label: str, options: Sequence[str]) -> int | None:
    """The place of the option with this letter."""
    bare = label.strip("() .:")
    place = ord(bare.upper()) - ord("A") if len(bare) == 1 and bare.isascii() else -1
    return place if 0 <= place < len(options) else None


def _at_the_start(said: str, options: Sequence[str]) -> set[int | None]:
    """The options whose words a text begins with, a comma or the like behind them: "No, it …"."""
    starts = (re.escape(option.strip(" .")) + r"\s*[,.;:]" for option in options)
    return {n for n, start in enumerate(starts) if re.match(start, said, re.IGNORECASE)}


def _in_words(said: str, options: Sequence[str]) -> set[int | None]:
    """Options that occur in a text word for word, but not inside a longer option that does."""
    words = _spaced(said)
    found = {n: one for n, one in enumerate(map(_spaced, options)) if one.strip() and one in words}
    return {n for n, one in found.items() if not any(one in o for o in found.values() if o != one)}


def _spaced(text: str) -> str:
    """The words of a text between single spaces, with one at each end."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _gold(row: Mapping[str, Any]) -> str:
    return str(row["answer"]).strip().lower()


def _pairs(
    rows: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """The two questions of each picture, by task and picture."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["category"] not in PERCEPTION + COGNITION:
            message = f"MME has no task '{row['category']}'."
            raise ConfigError(message, nearest(str(row["category"]), PERCEPTION + COGNITION))
        pairs[row["category"], row["image_id"]].append(row)
    if not pairs:
        raise ConfigError("There is no answer to score.")
    for (task, image), pair in pairs.items():
        if sorted(map(_gold, pair)) != ["no", "yes"]:
            golds = ", ".join(sorted(map(_gold, pair)))
            raise ConfigError(
                f"Picture '{image}' of '{task}' has the answers {golds}.",
                "MME pairs one yes with one no: score one try of whole pictures at a time.",
            )
    return pairs


def _totals(
    tasks: Mapping[str, Sequence[bool]], both: Mapping[str, Sequence[bool]]
) -> dict[str, float]:
    told: dict[str, float] = {}
    for task, right in tasks.items():
        accuracy, plus = 100 * float(np.mean(right)), 100 * float(np.mean(both[task]))
        told |= {task: accuracy + plus, f"{task}.acc": accuracy, f"{task}.acc+": plus}
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        told[name] = sum(told.get(task, 0.0) for task in members)
        told[f"{name}_max"] = 200.0 * sum(task in tasks for task in members)
    return told
