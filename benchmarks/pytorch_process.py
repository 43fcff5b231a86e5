"""PyTorch in a process of its own, which takes turns with the one that has Keras and JAX.

In one process, importing Triton, as PyTorch does on a GPU, after JAX ended in a segmentation fault.
"""

import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from multiprocessing.managers import BaseManager
from typing import Any

import numpy as np


class PyTorch:
    """What that process does; it keeps trainings by name."""

    def __init__(self):
        import torch

        threading.Thread(target=_end_with_parent, daemon=True).start()
        from benchmarks import pytorch_training

        self._torch, self._module = torch, pytorch_training
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._trainings: dict[str, pytorch_training.TorchTraining] = {}

    def version(self) -> str:
        return self._torch.__version__

    def finds_gpu(self) -> bool:
        return self._device == "cuda"

    def use_tf32(self, allowed: bool) -> None:
        """Whether GPUs may compute float32 convolutions and products in TF32."""
        self._torch.backends.cudnn.allow_tf32 = allowed
        self._torch.set_float32_matmul_precision("high" if allowed else "highest")

    def add(
        self,
        name: str,
        network: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        class_embeddings: np.ndarray,
        **options,
    ) -> None:
        """Makes a training.

        Args:
            name: Of the training.
            network: What `make_network` takes.
            weights: What `load_weights` takes.
            class_embeddings, **options: What `TorchTraining` takes.
        """
        self._trainings[name] = self._module.TorchTraining(
            self._network(network, weights), class_embeddings, self._device, **options
        )

    def _network(self, network: Mapping[str, Any], weights: Mapping[str, np.ndarray]):
        made = self._module.make_network(**network)
        self._module.load_weights(made, weights)
        return made

    def flat(self, network: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """Our weights in the order in which `weights` has them."""
        return self._module.flat(self._network(network, weights))

    def weights(self, name: str) -> np.ndarray:
        """All weights of a training's network, in one vector."""
        return self._module.flat(self._trainings[name].network)

    def outputs(self, name: str, images: np.ndarray) -> np.ndarray:
        return self._trainings[name].outputs(images)

    def losses(self, name: str, images: np.ndarray, labels: np.ndarray, steps: int) -> list[float]:
        """The losses of training steps, with weight decay's part."""
        training = self._trainings[name]
        return [training.penalty() + training.fit(images, labels, 1) for _ in range(steps)]

    def seconds(self, name: str, images: np.ndarray, labels: np.ndarray, steps: int) -> float:
        """The time of training steps; before them, two that compile and take the memory."""
        training = self._trainings[name]
        training.fit(images, labels, 2)
        started = time.perf_counter()
        training.fit(images, labels, steps)
        seconds = time.perf_counter() - started
        self._torch.cuda.empty_cache()
        return seconds

    def profile(
        self, name: str, images: np.ndarray, labels: np.ndarray, steps: int, path: str
    ) -> Counter:
        """Writes a trace for chrome; nanoseconds of training steps by operation."""
        from benchmarks.operations import torch_operations

        training = self._trainings[name]
        training.fit(images, labels, 2)
        with self._torch.profiler.profile() as profiler:
            training.fit(images, labels, steps)
        profiler.export_chrome_trace(path)
        return torch_operations(profiler)

    def release(self) -> None:
        """Forgets all trainings and frees what they held on the device."""
        self._trainings.clear()
        self._torch.compiler.reset()
        self._torch.cuda.empty_cache()


def _end_with_parent() -> None:
    """A manager's process would outlive one that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)


class Process(BaseManager):
    """The process; within its `with`, `PyTorch()` gives the object in it."""

    def __init__(self):
        # A new interpreter: what was imported here does not exist there.
        super().__init__(ctx=multiprocessing.get_context("spawn"))


Process.register("PyTorch", PyTorch)
