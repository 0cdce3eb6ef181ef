"""Raw episodes written by hand, honest summaries of them, and summaries that make things up.

Each summary is the thoughts of the path's steps and the final one, in the manner of a language
model that was asked to rewrite its notes as one coherent path.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from pipeline.geometry import Box
from pipeline.samples import Sample
from pipeline.trajectory import FocusStep, Observation, TraceTurn, Trajectory

IMAGE = Image.new("RGB", (1200, 900))
WHOLE = Observation(Box(0, 0, 1200, 900), (336, 252))


@dataclass(frozen=True)
class Raw:
    """A question, what was done about it, and which looks the summary keeps."""

    question: str
    answer: str
    turns: tuple[TraceTurn, ...]
    boxes: tuple[Box, ...]
    options: tuple[str, ...] = ()

    @property
    def sample(self) -> Sample:
        return Sample("raw#0", "raw", IMAGE, IMAGE.size, self.question, self.options)

    def path(self, *thoughts: str, boxes: tuple[Box, ...] | None = None) -> Trajectory:
        """The path whose steps say all but the last thought."""
        kept = self.boxes[len(self.boxes) - len(thoughts) + 1 :] if boxes is None else boxes
        steps = tuple(
            FocusStep(thought, (box,), (True,), observation=WHOLE)
            for thought, box in zip(thoughts[:-1], kept, strict=True)
        )
        last = thoughts[-1]
        return Trajectory(
            "raw#0", 336, 0, WHOLE, steps, last, self.answer, "answered", "endpoint:m"
        )


def _does(thought: str, tool: str, arguments: str, result: str) -> tuple[TraceTurn, TraceTurn]:
    call = TraceTurn("policy", thought, tool, f"{tool}({arguments})")
    return call, TraceTurn("tool", "", tool, result)


def _answers(thought: str, answer: str) -> TraceTurn:
    return TraceTurn("policy", f"{thought} Answer: {answer}")


TAG = Raw(
    "What is written on the red star?",
    "A7K",
    (
        *_does(
            "I see several small coloured tags; one of them seems to be a red star.",
            "locate",
            "view 0, red star",
            "red star [100, 120, 140, 160], red circle [700, 500, 742, 540]",
        ),
        *_does(
            "There are two reddish candidates. The first is in the upper left.",
            "zoom",
            "view 0, [100, 120, 140, 160], red star",
            "view 1",
        ),
        *_does("", "read", "view 1, [100, 120, 140, 160], red star", "unclear"),
        *_does(
            "The letters are blurred; the last could be a K. I take a tighter box.",
            "zoom",
            "view 1, [105, 128, 136, 152], code",
            "view 2",
        ),
        *_does("", "read", "view 2, [105, 128, 136, 152], code", "A7K"),
        _answers("Now the code is sharp: A7K on the red star.", "A7K"),
    ),
    (Box(100, 120, 140, 160), Box(105, 128, 136, 152)),
)
SHOP = Raw(
    "What is the name of the shop behind the yellow taxi?",
    "Miller & Sons",
    (
        *_does(
            "A busy street with a yellow taxi on the left. Behind it is a shop front with a green "
            "awning, but its sign is tiny.",
            "zoom",
            "view 0, [210, 300, 420, 470], shop sign",
            "view 1",
        ),
        *_does(
            "That shows the awning and a poster saying SALE. The name must be above it.",
            "zoom",
            "view 0, [205, 240, 430, 310], sign above the awning",
            "view 2",
        ),
        _answers(
            "The board above the awning reads Miller & Sons in white letters.", "Miller & Sons"
        ),
    ),
    (Box(210, 300, 420, 470), Box(205, 240, 430, 310)),
)
BOATS = Raw(
    "How many boats are moored at the pier?",
    "4",
    (
        *_does(
            "There is a pier at the far right with some boats, too small to count.",
            "locate",
            "view 0, boat",
            "found",
        ),
        *_does("", "zoom", "view 0, [900, 380, 1150, 520], pier", "view 1"),
        *_does(
            "I count three on this side, and something behind the last one.",
            "zoom",
            "view 1, [1060, 400, 1150, 480], end of the pier",
            "view 2",
        ),
        TraceTurn("policy", "Three boats. Answer: 3"),
        TraceTurn("critic", "A mast is visible behind the third boat; check the end of the pier."),
        *_does(
            "I look at the end of the pier again, a little wider.",
            "zoom",
            "view 0, [1030, 380, 1180, 500], end of the pier",
            "view 3",
        ),
        _answers("A fourth boat, a small blue one, lies behind the third: four in all.", "4"),
    ),
    (
        Box(900, 380, 1150, 520),
        Box(1060, 400, 1150, 480),
        Box(1030, 380, 1180, 500),
    ),
)
SIGNS = Raw(
    "What is written below the word on the sign nearest to the one that says GATE?",
    "238",
    (
        *_does("", "locate", "view 0, writing", "[128, 118, 170, 152], [228, 128, 268, 160]"),
        *_does(
            "There is writing here that is too small to read, so I look closer.",
            "zoom",
            "view 0, [128, 118, 268, 160], sign",
            "view 1",
        ),
        *_does("", "read", "view 1, [128, 118, 170, 152], sign", "GATE / 471"),
        *_does("", "read", "view 1, [228, 128, 268, 160], sign", "HALL / 23?"),
        *_does(
            "I need to read the sign GATE's neighbour from closer up.",
            "zoom",
            "view 1, [228, 128, 268, 160], sign",
            "view 2",
        ),
        *_does("", "read", "view 2, [228, 128, 268, 160], sign", "HALL / 238"),
        _answers("Up close the sign can be read: HALL 238.", "238"),
    ),
    (Box(128, 118, 268, 160), Box(228, 128, 268, 160)),
)
BIRD = Raw(
    "What colour is the bird on the roof?",
    "black",
    (
        *_does(
            "A house with a brick chimney; a dot on the ridge may be the bird.",
            "zoom",
            "view 0, [600, 100, 660, 150], bird",
            "view 1",
        ),
        _answers("It is a crow: black all over, even the beak.", "(A)"),
    ),
    (Box(600, 100, 660, 150),),
    options=("black", "white", "brown"),
)
CLOCK = Raw(
    "What time does the clock on the tower show?",
    "10:25",
    (
        *_does(
            "The tower is near [512, 40, 560, 96] of what I see; the clock face is a blur.",
            "zoom",
            "view 0, [530, 60, 590, 120], clock",
            "view 1",
        ),
        *_does(
            "The hands show 10:25, or 5:50 if I mistake them; I look closer to tell them apart.",
            "zoom",
            "view 1, [545, 75, 575, 105], clock hands",
            "view 2",
        ),
        _answers("The short hand is just past ten and the long one at five: 10:25.", "10:25"),
    ),
    (Box(530, 60, 590, 120), Box(545, 75, 575, 105)),
)

HONEST: tuple[tuple[Raw, tuple[str, ...]], ...] = (
    (TAG, ("I spot a red star in the upper left, too small to read, so I zoom in on it.",
           "The letters are still blurred, so I tighten the box around the code.",
           "Now the code is sharp: the red star says A7K.")),
    (TAG, ("Two red tags are in the picture; I look closer at the one that may be the star.",
           "It is the star, but its writing is unclear. Zooming in further on the code.",
           "The code on the red star is clearly \"A7K\".")),
    (TAG, ("Among the coloured tags, one at [100, 120, 140, 160] seems to be the red star.",
           "A tighter view, [105, 128, 136, 152], should make the letters readable.",
           "It reads A7K.")),
    (TAG, ("The writing on the tag cannot be made out even up close; its last letter could be K.",
           "After two looks the writing is legible: A7K.")),
    (TAG, ("First, I find the star. It is reddish and sits in the top left part of the image.",
           "The text remains fuzzy. A second, closer look is needed.",
           "At this magnification the code reads A7K.")),
    (SHOP, ("Behind the yellow taxi there is a shop with a green awning; its sign is too small.",
            "I only found a poster that says \"SALE\", so I look above the awning.",
            "The board above the awning reads Miller & Sons.")),
    (SHOP, ("The shop's name should be above the green awning, so I zoom in there.",
            "The sign says \"Miller & Sons\" in white letters.")),
    (SHOP, ("I see a taxi on the left side of a busy street and zoom in on the storefront.",
            "The first view shows the awning and a SALE poster, not the name. I move up.",
            "White lettering on the sign gives the name: Miller & Sons.")),
    (SHOP, ("A yellow cab stands on the left. I examine the shop behind it.",
            "The awnings are visible now, but the shop name must be higher up.",
            "The name over the awning is Miller & Sons, so that is the answer.")),
    (SHOP, ("Looking at the area above the awning, where a shop would have its name.",
            "It's Miller & Sons.")),
    (BOATS, ("The pier at the far right has boats that are too small to count; I zoom in.",
             "I can count 3 boats here, with something behind the last one, so I look there.",
             "A mast behind the third boat needs checking, so I widen my view of the pier's end.",
             "Behind the third boat lies a small blue one, which makes four boats.")),
    (BOATS, ("Three boats are visible, but a mast suggests another one. I look again, wider.",
             "There is a fourth, small and blue, so there are 4 boats in total.")),
    (BOATS, ("On this side there are three; something is hidden behind the last of them.",
             "The end of the pier deserves another look.",
             "In all I count four boats.")),
    (BOATS, ("I check the far end of the pier once more, with a slightly larger box.",
             "A little blue boat was hidden behind the third one: the answer is 4.")),
    (BOATS, ("To count the boats, I first zoom in on the pier on the right.",
             "Now three can be counted and there may be one more at the end.",
             "A reviewer pointed out a mast, so I look at that spot again.",
             "Four boats are moored there.")),
    (SIGNS, ("There is small writing on two signs; I zoom in on both.",
             "One sign says GATE with 471 below. Its neighbour says HALL but the rest is unclear.",
             "Up close the neighbour reads HALL 238, so the answer is 238.")),
    (SIGNS, ("The signs are too small to read from here. A closer look will help.",
             "The sign next to \"GATE 471\" is the one that matters; I zoom in on it.",
             "Below the word HALL it says 238.")),
    (SIGNS, ("I found GATE and, right next to it, a sign starting with HALL, which I enlarge.",
             "The code below HALL is 238.")),
    (SIGNS, ("Writing can be seen in two places. I look at them together.",
             "GATE is on the left. The nearest sign needs a closer look.",
             "That sign reads \"HALL / 238\".")),
    (SIGNS, ("I need the sign that hangs nearest to GATE; it is hard to read, so I zoom in.",
             "It says HALL, and 238 below.")),
    (BIRD, ("A small dot on the ridge of the house could be the bird. Let me zoom in.",
            "It is a crow, black from head to tail, so the answer is (A).")),
    (BIRD, ("The bird on the roof is too small to tell its colour, so I look closer.",
            "Seen up close, the bird is entirely black, including its beak.")),
    (BIRD, ("Near the brick chimney there is something that may be the bird.",
            "The crow's feathers are black. Option A is correct.")),
    (BIRD, ("I can't tell from here whether the bird is black, white or brown, so I zoom in.",
            "It turns out to be black.")),
    (BIRD, ("I look at the roof. The ridge has a dot on it, maybe a bird.",
            "A black crow.")),
    (CLOCK, ("The tower's clock face is a blur at this size; I enlarge it.",
             "The time seems to be 10:25 or perhaps 5:50, so I look at the hands more closely.",
             "The short hand is just past 10 and the long hand is at 5, which means 10:25.")),
    (CLOCK, ("I need to see the clock on the tower, near [512, 40, 560, 96].",
             "The hands are hard to tell apart. One more zoom.",
             "The clock shows 10:25.")),
    (CLOCK, ("To distinguish the hands (10:25 versus 5:50), I zoom in once more.",
             "The shorter hand points just past ten, so it is 10:25.")),
    (CLOCK, ("I zoom in on the clock tower.",
             "There are two possible readings; the hands need a closer look.",
             "With the long hand at five and the short one past ten, it is twenty-five past ten.")),
    (CLOCK, ("The clock is blurred from this distance, so I take a closer look at it.",
             "I take an even closer look at its hands.",
             "It's 10:25 on the tower clock.")),
)  # fmt: skip

_ELSEWHERE = Box(40, 700, 120, 780)

INVENTED: tuple[tuple[Raw, str, tuple[str, ...], tuple[Box, ...] | None], ...] = (
    (TAG, "unseen_fact", ("I spot the red star next to a blue square.", "A tighter box.",
                          "It says A7K."), None),
    (TAG, "unseen_fact", ("I see the red star.", "The code starts with X9.", "It says A7K."), None),
    (TAG, "unseen_fact", ("I zoom in.", "I zoom in again.",
                          "The star says A7K, below the word CLOSED."), None),
    (TAG, "early_answer", ("The red star says A7K, which I check up close.", "A tighter box.",
                           "It says A7K."), None),
    (TAG, "unseen_box", ("I look at [40, 700, 120, 780].", "A tighter box.", "It says A7K."), None),
    (TAG, "unseen_box", ("I look at the star.", "A tighter box.", "It says A7K."),
     (_ELSEWHERE, Box(105, 128, 136, 152))),
    (TAG, "unseen_fact", ("Among five tags I see the red star.", "A tighter box.", "A7K."), None),
    (SHOP, "early_answer", ("The shop behind the taxi, Miller & Sons, is worth a look.",
                            "I look above the awning.", "It reads Miller & Sons."), None),
    (SHOP, "unseen_fact", ("Behind the yellow taxi is a shop with a red awning.",
                           "I look above it.", "It reads Miller & Sons."), None),
    (SHOP, "unseen_fact", ("I zoom in on the shop.", "A poster says \"Open daily\", so I move up.",
                           "It reads Miller & Sons."), None),
    (SHOP, "unseen_fact", ("I zoom in on the shop.", "I look above the awning.",
                           "The sign reads Miller & Sons, founded in 1887."), None),
    (SHOP, "unseen_fact", ("This street in London has a taxi.", "I look above the awning.",
                           "It reads Miller & Sons."), None),
    (SHOP, "unseen_box", ("I zoom in on the shop.", "I look above the awning.",
                          "In [40, 700, 120, 780] it reads Miller & Sons."), None),
    (SHOP, "unseen_fact", ("The shop has white letters on its sign.", "I look above the awning.",
                           "It reads Miller & Sons."), None),
    (BOATS, "unseen_fact", ("I zoom in on the pier with its seven boats.", "I look at its end.",
                            "I look again.", "Four boats."), None),
    (BOATS, "early_answer", ("There are 4 boats at the pier; I make sure.", "I look at its end.",
                             "I look again.", "Four boats."), None),
    (BOATS, "early_answer", ("I zoom in.", "I count four boats here already.", "I look again.",
                             "Four boats."), None),
    (BOATS, "unseen_fact", ("I zoom in.", "I look at its end.", "I look again.",
                            "Four boats: the last, a green one, is the Esmeralda."), None),
    (BOATS, "unseen_fact", ("I zoom in on the red boats.", "I look at its end.", "I look again.",
                            "Four boats."), None),
    (BOATS, "unseen_box", ("I zoom in.", "I look at its end.", "I look again.", "Four boats."),
     (Box(900, 380, 1150, 520), _ELSEWHERE, Box(1030, 380, 1180, 500))),
    (SIGNS, "unseen_fact", ("I zoom in on the signs.", "GATE 471 hangs beside DOCK; I look there.",
                            "It says HALL 238."), None),
    (SIGNS, "early_answer", ("I zoom in on the signs.",
                             "The neighbour of GATE seems to say 238; I check it.",
                             "It says HALL 238."), None),
    (SIGNS, "unseen_fact", ("The sign GATE 471 is here; I look at its neighbour.",
                            "I look closer.", "It says HALL 238."), None),
    (SIGNS, "unseen_fact", ("I zoom in.", "I look closer.",
                            "It says HALL 238, and further right PUMP 662."), None),
    (BIRD, "unseen_fact", ("A dot on the ridge may be the bird.",
                           "It is black with a yellow beak."), None),
    (BIRD, "unseen_fact", ("Two birds sit on the roof; I zoom in on them.", "It is black."), None),
    (BIRD, "unseen_fact", ("A dot near the antenna of number 42 may be the bird.",
                           "It is black."), None),
    (CLOCK, "early_answer", ("The clock shows 10:25; I make sure.", "I look closer.",
                             "It is 10:25."), None),
    (CLOCK, "unseen_fact", ("I zoom in on the tower.", "It shows 3:40 or 5:50; I look closer.",
                            "It is 10:25."), None),
    (CLOCK, "unseen_fact", ("I zoom in on the tower of St Mary's.", "I look closer.",
                            "It is 10:25."), None),
)  # fmt: skip
"""A summary, the worst that is wrong with it, and the boxes of its steps where they are wrong."""
