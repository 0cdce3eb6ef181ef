"""Questions about signs of one look, which only reading tells apart: read, look closer, search.

What can be read in the first view is read there. Writing that is too small is looked at, several
signs at once where that is enough; then the picture is searched part by part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from pipeline.agent.actions import Action, Answer, Call, Heard
from pipeline.agent.scripts.sign_board import SURE, Board, Plate
from pipeline.agent.scripts.sign_goals import (
    GOALS,
    Goal,
    Missing,
    Told,
    Unclear,
    Unknown,
    Wanted,
)
from pipeline.agent.scripts.sign_search import (
    TRIES,
    Hunt,
    Look,
    best_look,
    doubtful,
    hunt,
    open_plates,
    together,
)
from pipeline.agent.sight import Named, Script, Sight
from pipeline.agent.writing import Writing
from pipeline.geometry import Box
from pipeline.scenes.sign_questions import NO_SIGN, NOT_READABLE

READ_PX = 4.0
"""Height of a line in a view below which it is not worth reading there."""
MOST_READ = 10
"""Signs that are read in one view."""
FITTED = (0.7, 6.0)
"""Least share of the lines' box, and most times its area, that an adjusted box may have."""

SMALL = (
    "There is writing here that is too small to read, so I look closer.",
    "I can make out signs here but not what they say; a closer look is needed.",
)
ONE = (
    "The sign {name} is too small to read surely from here. I zoom in.",
    "I need to read the sign {name} from closer up.",
)
AGAIN = (
    "The writing on the sign {name} is still unclear; I adjust the box and look again.",
    "I am not certain of the sign {name} yet. I move the box and zoom again.",
)
PART = "I have not found the sign {name}; I search this part of the picture."
DOUBT = "{said} I look at the sign once more."
HERE = "I can read the sign here: {said}."
SAYS = "Up close the sign can be read: {said}."
ABSENT = "I have looked over the whole picture, and no sign fits the question."
SMEARED = "I have found the sign, but even close up its writing cannot be read."
WORDING = (*SMALL, *ONE, *AGAIN, PART, DOUBT, HERE, SAYS, ABSENT, SMEARED)


def script_for(goal: Goal) -> Callable[[Sight, Named], Script]:
    """The script that answers questions with a goal."""

    def script(sight: Sight, named: Named) -> Script:
        yield from _run(sight, named, goal)

    return script


SCRIPTS = tuple((pattern, script_for(goal)) for pattern, goal in GOALS)
"""A question's wording, and what to do about it."""


def _run(sight: Sight, named: Named, goal: Goal) -> Script:
    """Look until the answer stands, or there is nothing left to look at."""
    board, name = Board(sight.views[0]), _name(named)
    yield from _take_in(board, 0)
    while True:
        wanted = goal(board, named)
        _remember(sight, wanted)
        if isinstance(wanted, Told):
            heard = yield _answer(wanted)
            looked = yield from _alone(
                sight, board, wanted.plate, name, DOUBT.format(said=heard.text)
            )
        else:
            looked = yield from _look(sight, board, wanted, name)
        if not looked:
            break
    wanted = goal(board, named)
    if not isinstance(wanted, Missing) or (not wanted.near and _hunt(board, wanted).is_over):
        sight.keep(_last(board, wanted))
    yield from sight.insist()


def _look(sight: Sight, board: Board, wanted: Wanted, name: str) -> Generator[Action, Heard, bool]:
    """The look that helps most; False when none is left."""
    if isinstance(wanted, Unclear):
        return (yield from _alone(sight, board, wanted.plate, name))
    search = _hunt(board, wanted)
    if isinstance(wanted, Unknown):
        others = [p for p in open_plates(board) if p is not wanted.plate]
        look: Look | None = together(search, [wanted.plate, *others])
    else:
        look = best_look(search)
    if look is None:
        doubted = doubtful(board)
        return bool(doubted) and (yield from _alone(sight, board, doubted[0], name))
    holds = any(look.box.contains(p.box) for p in open_plates(board))
    thought = sight.wording(SMALL) if holds else PART.format(name=name)
    if len(look.plates) == 1:
        return (yield from _alone(sight, board, look.plates[0], name, thought))
    return (yield from _zoom(board, 0, look.box, thought, "sign"))


def _hunt(board: Board, wanted: Wanted) -> Hunt:
    if isinstance(wanted, Missing):
        return hunt(board, wanted.near, left=wanted.left)
    return hunt(board)


def _alone(
    sight: Sight, board: Board, plate: Plate, name: str, thought: str = ""
) -> Generator[Action, Heard, bool]:
    """A look at one sign, with the box adjusted unless it is the first that shows it larger."""
    if plate.tries >= TRIES:
        return False
    plate.tries += 1
    if plate.tries == 1 and board.can_be_finer(plate):
        said = thought or sight.wording(ONE, name=name)
        return (yield from _zoom(board, plate.view, plate.box, said, "sign"))
    plate.tries = TRIES
    box = yield from _adjusted(board, plate)
    said = thought or sight.wording(AGAIN, name=name)
    return (yield from _zoom(board, plate.view, box, said, "sign"))


def _adjusted(board: Board, plate: Plate) -> Generator[Action, Heard, Box]:
    """The plate's outline around its lines; a wider box where there is none that fits."""
    heard = yield Call("adjust_box", plate.view, box=plate.box, instruction="fit")
    if heard.box is not None and _fits(heard.box, plate.box):
        return heard.box
    heard = yield Call("adjust_box", plate.view, box=plate.box, instruction="enlarge")
    return heard.box or plate.box


def _fits(box: Box, lines: Box) -> bool:
    """Whether a box may be the outline of the sign with these lines."""
    held = box.intersection(lines) / lines.area
    return held >= FITTED[0] and box.area <= FITTED[1] * lines.area


def _zoom(
    board: Board, view: int, box: Box, thought: str, label: str
) -> Generator[Action, Heard, bool]:
    """Look at a box and take in what it shows."""
    heard = yield Call("zoom", view, thought, box, label)
    if heard.view is None:
        return False
    board.views.append(heard.view)
    yield from _take_in(board, heard.index)
    return True


def _take_in(board: Board, view: int) -> Generator[Action, Heard, None]:
    """Find and read the writing in a view."""
    heard = yield Call("locate", view, phrase="writing")
    writing = [one for one in heard.writing if board.is_possible(view, one)]
    plates = board.enter(view, writing)
    worth = [(p, w) for p, w in zip(plates, writing, strict=True) if w.tall >= READ_PX]
    for plate, one in worth[:MOST_READ]:
        if plate.is_read and plate.view != view:
            continue
        yield from _read(board, plate, view, one)
    board.join()


def _read(board: Board, plate: Plate, view: int, one: Writing) -> Script:
    """Read a sign; where one of its lines alone can be read, the place of the other, too."""
    to_source = board.views[view].to_source
    heard = yield Call("read", view, box=to_source(one.box), phrase="sign")
    board.note(plate, view, one, heard.lines)
    beliefs = plate.word.meant.belief, plate.code.meant.belief
    if max(beliefs) >= SURE > min(beliefs):
        missing = one.other_line(above=beliefs[0] < beliefs[1])
        heard = yield Call("read", view, box=to_source(missing.box), phrase="sign")
        board.note(plate, view, missing, heard.lines)


def _remember(sight: Sight, wanted: Wanted) -> None:
    """Keep the best answer so far for when the tools are off."""
    if isinstance(wanted, Told):
        sight.keep(_answer(wanted))
    elif isinstance(wanted, Unclear) and wanted.guess:
        sight.keep(_answer(wanted.guess))
    elif isinstance(wanted, Unclear) and wanted.plate.tries:
        sight.keep(_not_readable(wanted.plate))


def _answer(told: Told) -> Answer:
    """What was read, with the views that it follows from."""
    said = f"{told.plate.word.meant.text} {told.plate.code.meant.text}".strip()
    views = sorted({one.view for one in told.others} - {told.read.view, 0})
    wording = SAYS if told.read.view else HERE
    return Answer(told.text, wording.format(said=said), told.read.view, told.read.box, tuple(views))


def _last(board: Board, wanted: Wanted) -> Answer:
    """The answer when there is nothing left to look at."""
    if isinstance(wanted, Told):
        return _answer(wanted)
    if isinstance(wanted, Unclear):
        return _answer(wanted.guess) if wanted.guess else _not_readable(wanted.plate)
    last = len(board.views) - 1
    return Answer(NO_SIGN, ABSENT, last, support=tuple(range(1, last)))


def _not_readable(plate: Plate) -> Answer:
    views = {one.view for one in plate.words} - {plate.view, 0}
    return Answer(NOT_READABLE, SMEARED, plate.view, support=tuple(sorted(views)))


def _name(named: Named) -> str:
    """What the question names, for thoughts."""
    return " or ".join(named.values())
