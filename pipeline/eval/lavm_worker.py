"""The worker of a LAVM's evaluation: chooses exemplars, has each query predicted, scores it.

A unit is one query with all methods. Queries are worked on a few at a time, for a model draws the
frames of many sentences together; what it draws for one depends on its own seed alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from manifests.tables import MANIFEST
from pipeline.config import Config, config_from
from pipeline.errors import BadImage, ConfigError
from pipeline.eval.lavm_config import GREEDY, VARIANTS, visual_sentence
from pipeline.eval.lavm_pictures import Known
from pipeline.eval.lavm_pool import encoded_pool, open_prompts, open_queries, pool_places
from pipeline.eval.lavm_protocol import (
    SCORERS,
    LavmMethod,
    LavmProtocol,
    Metrics,
    Pick,
    measured,
    picked,
    placed,
)
from pipeline.eval.lavm_rows import (
    PREDICTIONS,
    UNDEFINED,
    Call,
    Row,
    Told,
    call_row,
    prediction_row,
    schema,
    score_rows,
)
from pipeline.eval.token_cache import batches, cropped, pixels_of, squashed
from pipeline.samples import rng_for
from pipeline.shards import Ledger, Passed, Unit, Work
from pipeline.sources.decode import decode

if TYPE_CHECKING:
    import pyarrow as pa

MAIN = "scores"
HELD = 256
"""Exemplars whose codes are held: the richest of many shortlists are the same few."""
_SEEDS = 2**31


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A query as it is predicted."""

    item_id: str
    codes: np.ndarray
    """Of the crop: what exemplars are chosen by."""
    shown: np.ndarray
    """Codes of the view that the model is shown."""
    truth: np.ndarray | None
    """uint8 HWC, through the same view; None where there is none."""
    lacking: str
    """Why there is no truth."""
    people: tuple[list[float], ...]
    """COCO's keypoints in that view."""


@dataclass(frozen=True, slots=True, eq=False)
class Exemplar:
    """A picture of the pool as it is shown."""

    image_id: str
    image: np.ndarray
    """Codes of its view."""
    steps: tuple[np.ndarray, ...]
    """Codes of its frames' view, the final one last."""
    final: np.ndarray
    """The final frame, uint8 HWC."""


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """A query as one method puts it to the model."""

    query: Query
    method: LavmMethod
    pick: Pick
    exemplars: tuple[Exemplar, ...]
    sentence: np.ndarray


def open_worker(settings: dict[str, Any]) -> LavmWorker:
    """A worker from plain settings: `config`, `design` (a LAVM protocol) and `subject`."""
    asked = LavmProtocol.of(settings["design"])
    return LavmWorker(config_from(settings["config"]), asked, settings["subject"])


class LavmWorker:
    """Predicts queries; holds the model, its tokenizer and the pool's codes."""

    main = MAIN
    at_once = 1
    manifest: Mapping[str, pa.Schema] = {MAIN: MANIFEST[MAIN]}

    def __init__(self, config: Config, asked: LavmProtocol, subject: str) -> None:
        from pipeline.eval.lavm import load
        from pipeline.eval.token_cache import open_tokenizer

        device = config.policy.device
        self._asked, self._seed = asked, config.seed
        self._model = load(asked.model, variant=asked.variant, device=device)
        self._tokenizer = open_tokenizer(asked.tokenizer, device=device)
        if self._tokenizer.tokens != self._model.config.frame_tokens:
            raise ConfigError(
                f"The model's frames have {self._model.config.frame_tokens} codes, the "
                f"tokenizer's {self._tokenizer.tokens}.",
                "Give the model's own tokenizer with --tokenizer DIR.",
            )
        self._sampling = GREEDY if asked.greedy else VARIANTS[asked.variant].sampling
        self._view = VARIANTS[asked.variant].view
        self._pool, self._queries = open_prompts(asked), open_queries(asked)
        self._places, _ = pool_places(self._pool, self._queries, asked.levels)
        self._index, self._rich = encoded_pool(self._pool, self._places, self._tokenizer)
        self._exemplar = lru_cache(HELD)(self._read_exemplar)
        self.schemas: Mapping[str, pa.Schema] = {PREDICTIONS: schema()}
        side = self._tokenizer.side
        how = json.dumps(asked.semantic() | {"seed": config.seed, "side": side}, sort_keys=True)
        self._told = Told(asked.benchmark, subject, side, how)

    def units(self, work: Work) -> Generator[Unit | Passed, None, None]:
        """One unit for each query, the sentences of `batch` queries drawn together.

        A query at which workers died twice, or whose picture cannot be opened, is unscored.
        """
        for some in batches(work.entries, 1 if work.careful else self._asked.batch):
            left = [entry for entry in some if entry > work.entries.start or not work.skip]
            made = self._made(left, work)
            for entry in some:
                if entry in made:
                    yield made[entry]
                yield Passed(entry)

    def close(self) -> None:
        """Nothing is open."""

    def _made(self, entries: Sequence[int], work: Work) -> dict[int, Unit]:
        """The units of these queries."""
        made: dict[int, Unit] = {}
        puts: dict[int, list[Put]] = {}
        for entry in entries:
            known = self._queries.known[entry]
            if known.image_id in work.crashed:
                made[entry] = self._gone(known, "crashed_worker")
                continue
            work.started(known.image_id)
            try:
                query = self._query(entry)
            except BadImage as error:
                made[entry] = self._gone(known, f"{error.reason}: {error.detail}")
            else:
                puts[entry] = [self._put(query, method) for method in self._asked.methods]
        if puts:
            calls = self._drawn([put for mine in puts.values() for put in mine], work.ledger)
            pictures = self._tokenizer.decode(np.asarray([call["codes"] for call in calls]))
            told = iter(zip(calls, pictures, strict=True))
            for entry, mine in puts.items():
                made[entry] = self._unit([(put, *next(told)) for put in mine])
        return made

    def _drawn(self, puts: Sequence[Put], ledger: Ledger) -> list[Call]:
        """What the model draws for each, `codes` with what it took; equal sentences once.

        A query's seed is the same for all methods: they differ by what is shown, not by luck. What
        the ledger knows is not drawn again, also where its unit was not kept.
        """
        keys = [self._key(put) for put in puts]
        once = dict(zip(keys, puts, strict=True))
        calls: dict[str, Call] = {}
        for key in once:
            if (known := ledger.find(key)) is not None:
                calls[key] = known
                ledger.replayed(key, known)
        if fresh := {key: put for key, put in once.items() if key not in calls}:
            ledger.check()
            began = time.perf_counter()
            drawn = self._model.predict_batch(
                [put.sentence for put in fresh.values()],
                seed=[self._seed_of(put) for put in fresh.values()],
                sampling=self._sampling,
            )
            seconds = (time.perf_counter() - began) / len(fresh)
            for (key, put), codes in zip(fresh.items(), drawn, strict=True):
                size, name = len(put.sentence), self._model.name
                calls[key] = call_row(
                    self._told, put.query.item_id, put.method, name, size, codes, seconds
                )
                ledger.add(key, calls[key])
        return [calls[key] for key in keys]

    def _key(self, put: Put) -> str:
        """Names a frame that is drawn: the model, the sentence, and how it is drawn."""
        told = f"{self._model.name} {self._sampling} {self._seed_of(put)}\n".encode()
        return hashlib.sha256(told + put.sentence.tobytes()).hexdigest()

    def _seed_of(self, put: Put) -> int:
        return int(rng_for(self._seed, put.query.item_id, "codes").integers(_SEEDS))

    def _put(self, query: Query, method: LavmMethod) -> Put:
        rng = rng_for(self._seed, query.item_id, "random")
        pick = picked(self._asked, method, self._index, self._rich, query.codes, rng)
        chosen = tuple(self._exemplar(number) for number in pick.numbers)
        count = self._asked.shown(method)
        told = [(one.image, one.steps[-count:]) for one in chosen]
        return Put(query, method, pick, chosen, visual_sentence(told, query.shown))

    def _query(self, entry: int) -> Query:
        """A query's codes and truth; raises `BadImage`."""
        known, shown = self._queries.known[entry], self._queries.read(entry)
        image = decode(shown.image)
        lacking = known.unsure and f"{known.unsure}_truth"
        lacking = lacking or ("" if shown.frames else "no_truth")
        truth = None if lacking else self._seen(decode(shown.frames[-1]))
        side = self._tokenizer.side
        people = tuple(placed(one, image.size, side, self._view) for one in shown.people)
        codes, seen = self._codes([np.asarray(cropped(image, side)), self._seen(image)])
        return Query(known.image_id, codes, seen, truth, lacking, people)

    def _read_exemplar(self, number: int) -> Exemplar:
        """A picture of the pool and the frames of it that are shown."""
        place = self._places[number]
        shown = self._pool.read(place)
        pictures = [shown.image, *shown.frames[-self._asked.levels :]]
        seen = [self._seen(decode(data)) for data in pictures]
        image, *steps = self._codes(seen)
        return Exemplar(self._pool.known[place].image_id, image, tuple(steps), seen[-1])

    def _seen(self, image: Image.Image) -> np.ndarray:
        """A picture through the view that the model is shown, uint8 HWC."""
        view = cropped if self._view == "crop" else squashed
        return np.asarray(view(image, self._tokenizer.side))

    def _codes(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Codes int64 (N, tokens) of pictures of the tokenizer's size, uint8 HWC."""
        return self._tokenizer.encode(pixels_of(Image.fromarray(one)) for one in pictures)

    def _unit(self, told: Sequence[tuple[Put, Call, np.ndarray]]) -> Unit:
        """A query's rows, from what was put, what was drawn for it, and the picture of that."""
        scores: list[Row] = []
        pictured: list[Row] = []
        for put, call, picture in told:
            query, method = put.query, put.method
            names = [one.image_id for one in put.exemplars]
            values: Metrics = dict.fromkeys(SCORERS[self._asked.task])
            if query.truth is not None:
                finals = [one.final for one in put.exemplars]
                values = measured(self._asked, picture, query.truth, finals, query.people)
            more = {
                "answer": ", ".join(names),
                "visual_tokens": call["tokens_in"],
                "tokens_in": call["tokens_in"],
                "tokens_out": call["tokens_out"],
                "seconds": call["latency_s"],
            }
            why = query.lacking or UNDEFINED
            scores += score_rows(self._told, query.item_id, method, values, why, more)
            row = prediction_row(
                query.item_id, method, names, put.pick, call["codes"], picture, query.truth
            )
            pictured.append(row)
        return Unit(query.item_id, len(scores), {MAIN: scores, PREDICTIONS: pictured})

    def _gone(self, known: Known, why: str) -> Unit:
        """The unit of a query that cannot be predicted: every row of it unscored."""
        values: Metrics = dict.fromkeys(SCORERS[self._asked.task])
        rows = [
            row
            for method in self._asked.methods
            for row in score_rows(self._told, known.image_id, method, values, why, {})
        ]
        return Unit(known.image_id, len(rows), {MAIN: rows})
