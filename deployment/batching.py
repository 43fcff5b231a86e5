"""One thread that computes what many requests ask for, several images at a time."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

import scoring

_END = None


class Batcher:
    """Scores single images in a thread, with those that wait beside them.

    Args:
        models: As for `scoring.score_files`.
        batch_size: Images at a time.
        explain: Says where the first model looks: takes images `(n, S, S, 3)` and classes `(n,)`
            and gives maps `(n, h, w)` in [0, 1].
    """

    def __init__(
        self,
        models: Sequence[scoring.Classifier],
        batch_size: int = 32,
        explain: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ):
        self.models, self.batch_size, self.explain = models, batch_size, explain
        self._views = [model.view for model in models]
        self._waiting: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        """Ends when all that was asked for is computed."""
        self._waiting.put(_END)
        self._thread.join()

    def views(self, path: str) -> list[np.ndarray]:
        """As `scoring.views_of_file`."""
        return scoring.views_of_file(path, self._views)

    def scores(self, views: Sequence[np.ndarray]) -> Future:
        """The scores `(C,)` of an image, when they are there."""
        return self._ask("scores", views)

    def attention(self, view: np.ndarray, label: int) -> Future:
        """The map `(h, w)` of what speaks for a class, when it is there."""
        return self._ask("attention", (view, label))

    def _ask(self, what: str, about: Any) -> Future:
        answer: Future = Future()
        self._waiting.put((what, about, answer))
        return answer

    def _work(self):
        while (first := self._waiting.get()) is not _END:
            batch, last = [first], False
            while len(batch) < self.batch_size and not self._waiting.empty():
                item = self._waiting.get()
                if item is _END:
                    last = True
                    break
                batch.append(item)
            # From here on they cannot be cancelled.
            batch = [item for item in batch if item[2].set_running_or_notify_cancel()]
            for what, compute in (("scores", self._scores), ("attention", self._attention)):
                if asked := [item[1:] for item in batch if item[0] == what]:
                    self._answer(compute, *zip(*asked, strict=True))
            if last:
                return

    def _answer(self, compute, subjects, answers):
        try:
            found = compute(subjects)
        except BaseException as error:  # each waits for an answer
            for answer in answers:
                answer.set_exception(error)
            return
        for answer, value in zip(answers, found, strict=True):
            answer.set_result(value)

    def _scores(self, subjects):
        images = [_filled(np.stack(own)) for own in zip(*subjects, strict=True)]
        return scoring.mean_scores(self.models, images)[: len(subjects)]

    def _attention(self, subjects):
        images, labels = zip(*subjects, strict=True)
        return self.explain(np.stack(images), np.array(labels))


def _filled(images: np.ndarray) -> np.ndarray:
    """Images with black ones to a power of two: a backend compiles for every number of them."""
    missing = (1 << (len(images) - 1).bit_length()) - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
