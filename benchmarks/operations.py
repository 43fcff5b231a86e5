"""Which operations of a training step take longest, by the traces of JAX and PyTorch."""

import re
from collections import Counter
from pathlib import Path


def jax_operations(path: Path) -> Counter:
    """Nanoseconds by kind of operation in an XLA trace."""
    import jax

    total = Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    total[re.sub(r"[._]\d+", "", stats["hlo_op"])] += event.duration_ns
    return total


def torch_operations(profiler) -> Counter:
    """Nanoseconds by kernel, on a CPU by operator."""
    import torch

    on_gpu = torch.cuda.is_available()
    total = Counter()
    for event in profiler.key_averages():
        if not on_gpu:
            total[event.key] += 1000 * event.self_cpu_time_total
        elif event.device_type == torch.autograd.DeviceType.CUDA:
            total[event.key] += 1000 * event.self_device_time_total
    return total


def print_operations(name: str, nanoseconds: Counter, steps: int, number: int = 12) -> None:
    """Prints what takes longest, in milliseconds for each of the steps."""
    from training.reporting import report

    total = sum(nanoseconds.values())
    rows = [
        {
            name: operation[:70],
            "ms/step": f"{time / 1e6 / steps:.2f}",
            "share": f"{time / total:.1%}",
        }
        for operation, time in nanoseconds.most_common(number)
    ]
    print(report.table(rows))
