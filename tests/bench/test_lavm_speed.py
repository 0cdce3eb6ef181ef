"""How fast frames are drawn in batches, against one at a time; how fast a pool is encoded.

All sides in one run, in CPU seconds of one thread. The model is a LAVM of random weights that is
large enough for its arithmetic to count (8 M numbers, 8192 codes, sentences of the published
length: one exemplar of two levels, 1280 codes); the pool is encoded by the published VQGAN's sizes
and by a small one's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.eval.lavm_config import GREEDY, visual_sentence
from pipeline.models.weights import POCKET_LAVM
from tests.bench.test_row_cost import report
from tests.eval.test_vqgan import LAION
from tests.eval.tiny_lavm import FRAME_TOKENS, write_lavm, write_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pipeline.eval import lavm, vqgan  # noqa: E402
from pipeline.eval.token_cache import Tokenizer, open_tokenizer  # noqa: E402

pytestmark = [pytest.mark.bench, pytest.mark.torch, pytest.mark.timeout(600)]

SIZES: dict[str, Any] = {"codes": 8192, "hidden": 256, "layers": 4, "heads": 4}
BATCH = 32
ALONE = 2
"""Sentences drawn one at a time: what one costs does not depend on how many there are."""
LEAST = 5.0
"""Times more codes a second that a batch must draw."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lavm.Lavm]:
    threads = torch.get_num_threads()
    yield lavm.load(write_lavm(tmp_path_factory.mktemp("lavm"), **SIZES), threads=1)
    torch.set_num_threads(threads)


def sentences(exemplars: int) -> list[np.ndarray]:
    """A batch of different queries, spread over so many exemplars of two levels."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, SIZES["codes"], (exemplars, 3, FRAME_TOKENS))
    queries = rng.integers(0, SIZES["codes"], (BATCH, FRAME_TOKENS))
    picked = (frames[number % exemplars] for number in range(BATCH))
    return [
        visual_sentence([(image, steps)], query)
        for (image, *steps), query in zip(picked, queries, strict=True)
    ]


def timed(job: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.process_time()
    return job(), time.process_time() - begun


def as_designed(model: lavm.Lavm, sentence: np.ndarray) -> np.ndarray:
    """One frame as the original code draws it: `generate` for one sentence, read from its start."""
    ids, count = torch.from_numpy(sentence)[None], model.config.frame_tokens
    with torch.inference_mode():
        whole = model.model.generate(
            ids, do_sample=False, min_new_tokens=count, max_new_tokens=count
        )
    return whole[0, len(sentence) :].numpy()


def test_codes_a_second_in_batches_and_one_at_a_time(model: lavm.Lavm) -> None:
    shared, own = sentences(1), sentences(BATCH)
    model.predict(shared[0][-FRAME_TOKENS:], sampling=GREEDY)  # warm up
    alone, alone_s = timed(lambda: [as_designed(model, one) for one in shared[:ALONE]])
    together, shared_s = timed(lambda: model.predict_batch(shared, sampling=GREEDY))
    _, own_s = timed(lambda: model.predict_batch(own, sampling=GREEDY))
    rates = {
        "one_at_a_time": ALONE * FRAME_TOKENS / alone_s,
        "batch_shared_exemplar": BATCH * FRAME_TOKENS / shared_s,
        "batch_own_exemplars": BATCH * FRAME_TOKENS / own_s,
    }
    report(
        "lavm_generation",
        batch=BATCH,
        parameters=sum(weight.numel() for weight in model.model.parameters()),
        sentence_codes=len(shared[0]),
        **{f"{name}_codes_per_s": rate for name, rate in rates.items()},
        times_shared=rates["batch_shared_exemplar"] / rates["one_at_a_time"],
        times_own=rates["batch_own_exemplars"] / rates["one_at_a_time"],
        same=int(np.array_equal(together[:ALONE], alone)),
    )
    assert np.array_equal(together[:ALONE], alone)
    assert rates["batch_shared_exemplar"] >= LEAST * rates["one_at_a_time"]


def test_codes_a_second_of_the_pocket_model() -> None:
    threads = torch.get_num_threads()
    model = lavm.load(POCKET_LAVM, threads=1)
    rng, count = np.random.default_rng(0), model.config.frame_tokens
    frames = rng.integers(0, model.config.codes, (BATCH, 4, count))
    own = [visual_sentence([(image, steps)], query) for image, *steps, query in frames]
    model.predict(own[0], sampling=GREEDY)  # warm up
    alone, alone_s = timed(lambda: [as_designed(model, one) for one in own[:4]])
    together, own_s = timed(lambda: model.predict_batch(own, sampling=GREEDY))
    torch.set_num_threads(threads)
    assert np.array_equal(together[:4], alone)
    rates = {"one_at_a_time": 4 * count / alone_s, "batch_own_exemplars": BATCH * count / own_s}
    report(
        "lavm_generation_pocket",
        batch=BATCH,
        **{f"{name}_codes_per_s": rate for name, rate in rates.items()},
        times_own=rates["batch_own_exemplars"] / rates["one_at_a_time"],
    )


def test_images_a_second_of_a_pool(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pixels = np.random.default_rng(0).random((8, 3, 256, 256), np.float32)
    small = open_tokenizer(write_tokenizer(tmp_path))
    published = Tokenizer(vqgan.build(LAION), "random")
    small.encode(pixels[:1])
    _, small_s = timed(lambda: small.encode(pixels))
    published.encode(pixels[:1])
    _, published_s = timed(lambda: published.encode(pixels[:2]))
    torch.set_num_threads(threads)
    report(
        "lavm_pool_encoding",
        published_images_per_s=2 / published_s,
        small_images_per_s=len(pixels) / small_s,
    )
