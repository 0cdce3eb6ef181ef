"""Questions about tags: how they are worded and understood, and how each flaw spoils one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.scenes.needles import Tag
from pipeline.scenes.tags import ALPHABET
from tests.loopback.flawed_pictures import READABLE_PX, VISIBLE_PX, Scene

QUESTION_FLAWS = (
    *("other_region", "wrong_truth", "tells_place", "tells_answer", "from_whole", "blind"),
    *("ambiguous", "vague", "yes_no"),
)
_FORMS = {
    "read": r"What is written on the (?P<what>[a-z ]+)\?",
    "says": r"What does the (?P<what>[a-z ]+) say\?",
    "told": r"What is written on the (?P<what>[a-z ]+) with [A-Z0-9]+ on it\?",
    "asks": r"Is [A-Z0-9]+ written on the (?P<what>[a-z ]+)\?",
    "color": r"What color is the (?P<what>[a-z ]+)\?",
    "corners": r"How many corners does the (?P<what>[a-z ]+) have\?",
}
CORNERS = {"square": "4", "triangle": "3", "diamond": "4", "hexagon": "6", "star": "10"}


@dataclass(frozen=True)
class Asked:
    """A question as the brain understands it."""

    text: str
    form: str
    what: str

    def answers(self, tag: Tag) -> str:
        """What the tag answers, seen well."""
        if self.form == "color":
            return tag.color
        return CORNERS.get(tag.shape, "0") if self.form == "corners" else tag.code

    @property
    def needs_px(self) -> int:
        """How wide a tag must be shown for it."""
        return VISIBLE_PX if self.form in ("color", "corners") else READABLE_PX


def asked_in(text: str) -> Asked | None:
    """The question in a text that the brain understands."""
    for form, pattern in _FORMS.items():
        found = re.search(pattern, text)
        if found:
            return Asked(found.group(), form, found["what"])
    return None


def spoilt(flaw: str, scene: Scene, tag: Tag) -> tuple[str, str, str, str] | None:
    """Question, answer, object and kind with a flaw; None where the picture has no room for it."""
    others = [one for one in scene.tags if one is not tag]
    alike = scene.named(tag.shape)
    name, code = tag.name, tag.code
    if flaw == "other_region":
        return f"What does the {others[0].name} say?", others[0].code, others[0].name, "text"
    if flaw == "wrong_truth":
        return f"What is written on the {name}?", misread(code), name, "text"
    if flaw == "tells_place":
        text = f"What is written on the {name} in the upper left corner?"
        return text, code, name, "text"
    if flaw == "tells_answer":
        return f"What is written on the {name} with {code} on it?", code, name, "text"
    if flaw == "yes_no":
        return f"Is {code} written on the {name}?", "yes", name, "text"
    if flaw == "from_whole" and len(alike) == 1:
        return f"What color is the {tag.shape}?", tag.color, tag.shape, "color"
    if flaw == "blind" and tag.shape in CORNERS:
        return f"How many corners does the {name} have?", CORNERS[tag.shape], name, "count"
    if flaw == "ambiguous" and len(alike) > 1:
        return f"What is written on the {tag.shape}?", code, tag.shape, "text"
    if flaw == "vague" and len(alike) > 1:
        return f"What does the {tag.shape} say?", code, name, "text"
    return None


def misread(answer: str) -> str:
    """Another answer: a code with another last letter, else the next number or colour."""
    if len(answer) == 4 and answer[3] in ALPHABET:
        return answer[:3] + ALPHABET[(ALPHABET.index(answer[3]) + 1) % len(ALPHABET)]
    return str(int(answer) + 1) if answer.isdigit() else f"dark {answer}"
