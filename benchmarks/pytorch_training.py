"""`resnet-50` and the ResNets for CIFAR in PyTorch, trained as here: what ours are timed beside.

The same layers, weights, cosine loss, weight decay and optimiser as `models` and `training` have,
in the layout and precision that PyTorch is fastest with: channels last, `torch.compile`, autocast,
fused parameter updates. Left out is what PyTorch's own batch normalisation has not: its running
averages begin at mean 0 and variance 1 and are not debiased. A training step does not use them.

Nothing here imports Keras: a process that starts with PyTorch alone is what ours is timed beside.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from architectures import get_architecture


class _ConvolutionAndNorm(nn.Module):
    """Convolution with zero padding as `padding="same"` has it, and batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        super().__init__()
        # For even sides `same` pads a stride of 2 only after the image, except where the network
        # pads itself before its first convolution.
        self.uneven = stride == 2 and size == 3
        padding = 0 if self.uneven else size // 2
        self.convolution = nn.Conv2d(inputs, outputs, size, stride, padding)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x):
        return self.norm(self.convolution(F.pad(x, (0, 1, 0, 1)) if self.uneven else x))


class _Network(nn.Module):
    """From raw images to the embedding; `named` has convolutions by the names of our layers."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        self.named: dict[str, nn.Module] = {}

    def add(self, name: str, *args) -> nn.Module:
        self.named[name] = _ConvolutionAndNorm(*args)
        return self.named[name]

    def forward(self, images):
        x = self.backbone((images.to(self.mean.dtype) - self.mean) / self.std)
        return self.dense(x.mean((2, 3)))


class _Bottleneck(nn.Module):
    def __init__(self, network: _Network, name: str, inputs: int, filters: int, stride: int):
        super().__init__()
        self.a = network.add(f"{name}_branch2a", inputs, filters, 1, stride)
        self.b = network.add(f"{name}_branch2b", filters, filters, 3)
        self.c = network.add(f"{name}_branch2c", filters, 4 * filters, 1)
        self.shortcut = nn.Identity()
        if name.endswith("a"):
            self.shortcut = network.add(f"{name}_branch1", inputs, 4 * filters, 1, stride)

    def forward(self, x):
        return F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))) + self.shortcut(x))


class ResNet50(_Network):
    """`models/resnet.py`."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], dimensions: int):
        super().__init__(mean, std)
        # After a ReLU, zeros and the pooling's own padding are the same to a maximum.
        blocks = [self.add("_conv1", 3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1)]
        inputs = 64
        for stage, (filters, number) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
            for letter in "abcdef"[:number]:
                stride = 2 if letter == "a" and stage > 2 else 1
                blocks.append(_Bottleneck(self, f"{stage}{letter}", inputs, filters, stride))
                inputs = 4 * filters
        self.backbone = nn.Sequential(*blocks)
        self.dense = nn.Linear(inputs, dimensions)


class _BasicBlock(nn.Module):
    def __init__(self, network: _Network, name: str, inputs: int, filters: int):
        super().__init__()
        self.padding = (filters - inputs) // 2
        self.x = network.add(f"{name}x", inputs, filters, 3, 2 if self.padding else 1)
        self.y = network.add(f"{name}y", filters, filters, 3)

    def forward(self, x):
        features = self.y(F.relu(self.x(x)))
        if self.padding:
            x = F.pad(F.avg_pool2d(x, 2), (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(features + x)


class CifarResNet(_Network):
    """`models/cifar_resnet.py`."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        dimensions: int,
        *,
        blocks: int,
        channels: tuple[int, int, int],
    ):
        super().__init__(mean, std)
        inputs = channels[0]
        layers = [self.add("0", 3, inputs, 3), nn.ReLU()]
        for stage, filters in enumerate(channels, start=1):
            for number in range(1, blocks + 1):
                layers.append(_BasicBlock(self, f"{stage}-{number}", inputs, filters))
                inputs = filters
        self.backbone = nn.Sequential(*layers)
        self.dense = nn.Linear(inputs, dimensions)


def make_network(
    name: str, mean: Sequence[float], std: Sequence[float], dimensions: int
) -> _Network:
    """The network that `build_model` makes of an architecture, `resnet-50` or `resnet-…fc`.

    Args:
        name: The architecture.
        mean, std: What images are standardised by.
        dimensions: Of the features, which the model's head takes.
    """
    entry = get_architecture(name)
    kind = {"resnet": ResNet50, "cifar_resnet": CifarResNet}[entry.family]
    network = kind(mean, std, dimensions, **entry.options)
    return network.to(memory_format=torch.channels_last)


def load_weights(network: _Network, weights: Mapping[str, np.ndarray]) -> None:
    """Gives a network the weights of our model, by the names of layer and weight (`a/kernel`)."""
    _load_kernel(network.dense, weights, "embedding")
    for name, module in network.named.items():
        first = {"_conv1": "conv1", "0": "conv0"}.get(name, f"res{name}")
        _load_kernel(module.convolution, weights, first)
        module.norm.weight.data = torch.tensor(weights[f"bn{name}/gamma"])
        module.norm.bias.data = torch.tensor(weights[f"bn{name}/beta"])
    network.to(memory_format=torch.channels_last)


def _load_kernel(module: nn.Module, weights: Mapping[str, np.ndarray], layer: str) -> None:
    kernel = torch.tensor(weights[f"{layer}/kernel"])
    # (height, width, in, out) to (out, in, height, width), and (in, out) to (out, in).
    module.weight.data = kernel.permute(3, 2, 0, 1) if kernel.dim() == 4 else kernel.T.contiguous()
    module.bias.data = torch.tensor(weights[f"{layer}/bias"])


def flat(network: nn.Module) -> np.ndarray:
    """All weights of a network in one vector."""
    return np.concatenate([w.detach().cpu().numpy().ravel() for w in network.parameters()])


class TorchTraining:
    """Trains a network by the cosine loss, as `model.fit` trains ours.

    Args:
        network: As `make_network` makes it; moved to the device.
        class_embeddings: `(classes, dimensions)`.
        device: As `torch.device` takes it.
        learning_rate: Of stochastic gradient descent with momentum 0.9.
        clip_norm: Gradients are scaled down to this global norm.
        weight_decay: λ of the term λ · ‖w‖² for every kernel.
        mixed: Whether layers compute in bfloat16.
        double: Whether all is in float64, as a reference for the others' rounding.
        compile_mode: As `torch.compile` takes it; `None` does not compile.
    """

    def __init__(
        self,
        network: _Network,
        class_embeddings: np.ndarray,
        device: str,
        *,
        learning_rate: float,
        clip_norm: float,
        weight_decay: float,
        mixed: bool = False,
        double: bool = False,
        compile_mode: str | None = None,
    ):
        self.device = torch.device(device)
        self.mixed = mixed
        self.network = network.to(self.device).train()
        self.class_embeddings = torch.tensor(class_embeddings, device=self.device)
        if double:
            self.network.double()
            self.class_embeddings = self.class_embeddings.double()
        self.clip_norm, self.weight_decay = clip_norm, weight_decay
        self.weights = list(self.network.parameters())
        self.kernels = [weight for weight in self.weights if weight.dim() > 1]
        self.optimizer = torch.optim.SGD(self.weights, learning_rate, momentum=0.9, fused=True)
        self._loss = self._loss_and_accuracy
        if compile_mode is not None:
            self._loss = torch.compile(self._loss, mode=compile_mode)

    def _outputs(self, images):
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            # This order of axes, with the channels last in memory, is how a batch comes.
            features = self.network(images.permute(0, 3, 1, 2))
        features = features.to(self.class_embeddings.dtype)
        squared_norm = features.square().sum(-1, keepdim=True)
        return features * squared_norm.clamp(min=1e-12).rsqrt()

    def _loss_and_accuracy(self, images, labels):
        outputs = self._outputs(images)
        loss = (1 - (self.class_embeddings[labels] * outputs).sum(-1)).mean()
        hits = (outputs.detach() @ self.class_embeddings.T).argmax(-1) == labels
        return loss, hits.float().mean()

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """The embeddings of a batch, `(batch, dimensions)`, normalised as in a training step."""
        with torch.no_grad():
            return self._outputs(torch.from_numpy(images).to(self.device)).cpu().numpy()

    def penalty(self) -> float:
        """What weight decay adds to the loss of the current weights."""
        kernels = (kernel.detach() for kernel in self.kernels)
        return self.weight_decay * sum(float(kernel.square().sum()) for kernel in kernels)

    def fit(self, images: np.ndarray, labels: np.ndarray, steps: int) -> float:
        """The mean loss of training steps, without weight decay's part, on one constant batch.

        Args:
            images: `(batch, height, width, 3)`, uint8; copied to the device in every step.
            labels: `(batch,)`.
            steps: Number of steps.
        """
        images, labels = torch.from_numpy(images), torch.from_numpy(labels).long()
        if self.device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        losses = torch.zeros((), device=self.device)
        accuracies = torch.zeros((), device=self.device)
        for _ in range(steps):
            loss, accuracy = self._loss(
                images.to(self.device, non_blocking=True),
                labels.to(self.device, non_blocking=True),
            )
            loss.backward()
            if self.weight_decay:
                # The gradient of the penalty, at a fraction of the time of its part of the loss.
                gradients = [kernel.grad for kernel in self.kernels]
                torch._foreach_add_(gradients, self.kernels, alpha=2 * self.weight_decay)
            nn.utils.clip_grad_norm_(self.weights, self.clip_norm, foreach=True)
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses += loss.detach()
            accuracies += accuracy
        return float(losses) / steps
