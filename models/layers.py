"""Our own layers: standardisation of raw images, batch normalisation and padding of channels."""

import math
from collections.abc import Sequence

import keras
from keras import ops


def kernel_l2(weight_decay: float) -> keras.regularizers.Regularizer | None:
    """The regulariser that adds `weight_decay` · ‖w‖² to the loss; `None` for 0."""
    return keras.regularizers.L2(weight_decay) if weight_decay else None


@keras.saving.register_keras_serializable(package="small_data")
class Standardize(keras.layers.Layer):
    """Turns raw RGB images into the network's input: `(x − mean) / (std + std_epsilon)`.

    Takes images `(batch, height, width, 3)` with values 0–255, uint8 or float, and gives the same
    shape in the layer's compute dtype. The arithmetic is in float32 under any dtype policy.

    Args:
        mean: Mean of the R, G and B channels (in this order whatever the `channel_order`), 0–255.
        std: Standard deviation of the R, G and B channels.
        std_epsilon: Added to `std`.
        channel_order: `"rgb"`, or `"bgr"` to hand the channels on in reverse order.
    """

    def __init__(
        self,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        std_epsilon: float = 0.0,
        channel_order: str = "rgb",
        **kwargs,
    ):
        # Autocasting would round the images to the compute dtype before the mean is subtracted.
        super().__init__(autocast=False, **kwargs)
        if channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', not {channel_order!r}")
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std must have 3 values each")
        self.std_epsilon = float(std_epsilon)
        self.channel_order = channel_order

    def call(self, images):
        divisor = [value + self.std_epsilon for value in self.std]
        images = ops.cast(images, "float32")
        images = (images - ops.array(self.mean, "float32")) / ops.array(divisor, "float32")
        if self.channel_order == "bgr":
            images = ops.flip(images, axis=-1)
        return ops.cast(images, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "std": self.std,
            "std_epsilon": self.std_epsilon,
            "channel_order": self.channel_order,
        }


@keras.saving.register_keras_serializable(package="small_data")
class PadChannels(keras.layers.Layer):
    """Appends zero channels, half before and half after the others.

    Args:
        padding: Number of channels to add in all; even.
    """

    def __init__(self, padding: int, **kwargs):
        super().__init__(**kwargs)
        if padding % 2:
            raise ValueError(f"padding must be even, not {padding}")
        self.padding = padding

    def call(self, features):
        half = self.padding // 2
        return ops.pad(features, [(0, 0)] * (len(features.shape) - 1) + [(half, half)])

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.padding)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="small_data")
class BatchNormalization(keras.layers.Layer):
    """Batch normalisation over all axes but the last, with the running averages of Keras 2.2.

    They differ from those of Keras 3 in two ways that matter in runs of few steps:

    - They are zero-debiased: after t steps, `biased average / (1 − momentum^t)`. After the first
      step they equal that batch's statistics (and not 99 % the initial 0 and 1).
    - The running variance is an unbiased estimate: the batch variance times n/(n−1) for n values
      per channel, and for images (rank 4, the fused path of Keras 2.2) also times n/(n−1−ε).

    The batch itself is normalised with its biased variance, and all statistics are float32.
    With `training=False` or `trainable=False` the running averages are used and not updated;
    before the first step they are mean 0 and variance 1.

    `step`, the number of updates so far, is saved and restored with the layer and is one of its
    `non_trainable_variables`, but not of its `weights`: it is no parameter of the network.

    Args:
        momentum: Decay of the running averages, between 0 and 1.
        epsilon: Added to the variance.

    Source: Ioffe & Szegedy, https://arxiv.org/abs/1502.03167; debiasing as in Kingma & Ba,
    https://arxiv.org/abs/1412.6980, section 3.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs):
        super().__init__(**kwargs)
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must be between 0 and 1, not {momentum}")
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape), axes={-1: input_shape[-1]})

        def add_vector(name, initializer, **kwargs):
            return self.add_weight(
                shape=(input_shape[-1],),
                initializer=initializer,
                dtype="float32",
                autocast=False,
                name=name,
                **kwargs,
            )

        self.gamma = add_vector("gamma", "ones")
        self.beta = add_vector("beta", "zeros")
        running = {"trainable": False, "aggregation": "mean"}
        self.moving_mean = add_vector("moving_mean", "zeros", **running)
        self.moving_variance = add_vector("moving_variance", "ones", **running)
        # A float, as int32 variables live in host memory on GPUs. 2^24 steps are far beyond
        # where momentum^t vanishes.
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="step",
        )

    @property
    def weights(self):
        return [weight for weight in super().weights if weight is not self.step]

    def call(self, inputs, training=None):
        if not (training and self.trainable):
            return self._normalize(inputs, self.moving_mean, self.moving_variance)

        n = ops.cast(math.prod(ops.shape(inputs)[:-1]), "float32")
        # A single value per channel has variance 0, whatever the factor: keep that finite.
        degrees_of_freedom = ops.maximum(n - 1.0, 1.0)
        is_image = len(inputs.shape) == 4
        if is_image and keras.backend.backend() == "tensorflow":
            outputs, mean, unbiased_variance = self._fused(inputs)
        else:
            mean, variance = self._moments(inputs)
            outputs = self._normalize(inputs, mean, variance)
            unbiased_variance = variance * (n / degrees_of_freedom)
        if is_image:
            unbiased_variance *= n / (degrees_of_freedom - self.epsilon)
        self._update_running_averages(mean, unbiased_variance)
        return outputs

    def _moments(self, inputs):
        """Mean and biased variance of the batch, `(channels,)`, float32."""
        inputs = ops.cast(inputs, "float32")
        return ops.moments(inputs, axes=list(range(len(inputs.shape) - 1)))

    def _normalize(self, inputs, mean, variance):
        outputs = ops.batch_normalization(
            ops.cast(inputs, "float32"),
            mean,
            variance,
            axis=-1,
            offset=self.beta,
            scale=self.gamma,
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _fused(self, inputs):
        """TensorFlow's own kernel: the same numbers at a fraction of the passes over the data.

        Without XLA what `keras.ops` composes is not fused, least of all its gradient: on a CPU
        a training step of resnet-32-fc takes 1.4 times as long.

        Returns:
            The normalised batch, its mean and its unbiased variance; the last two are float32.
        """
        import tensorflow as tf

        return tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )

    def _update_running_averages(self, mean, variance):
        # The debiased average follows from itself: m_t = m_{t−1} + α_t (x_t − m_{t−1}) with
        # α_t = (1 − momentum) / (1 − momentum^t), so the biased one need not be kept.
        # expm1 because 1 − momentum^t loses digits to cancellation in the first steps.
        self.step.assign_add(1.0)
        rate = (1.0 - self.momentum) / -ops.expm1(math.log(self.momentum) * self.step)
        self.moving_mean.assign(self.moving_mean * (1.0 - rate) + mean * rate)
        self.moving_variance.assign(self.moving_variance * (1.0 - rate) + variance * rate)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}
