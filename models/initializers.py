"""How weights begin in networks that follow PyTorch's; new ones at each call, for the seed."""

import keras


def fan_out_normal() -> keras.initializers.Initializer:
    """Normal of variance 2 / (size of the kernel · output channels), not truncated.

    He et al., https://arxiv.org/abs/1502.01852, section 2.2, of the backward pass.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def linear_uniform() -> keras.initializers.Initializer:
    """Uniform in ±1/√inputs, as PyTorch's `Linear` begins."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
