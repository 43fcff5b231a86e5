"""Our own layers: standardisation of raw images, batch normalisation and padding of channels."""

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from models import running_averages
from models.replicas import num_replicas, replica_index


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
    - The running variance is an unbiased estimate: the batch variance times n/(n−1−ε) for n values
      per channel, and for images (rank 4, the fused path of Keras 2.2) also times n/(n−1).

    The batch itself is normalised with its biased variance, and all statistics are float32.
    With `training=False` or `trainable=False` the running averages are used and not updated;
    before the first step they are mean 0 and variance 1.

    Several devices normalise each their own share of a batch. With `groups` above 1 one device
    does the same: a batch of B images is normalised in groups of B / `groups` consecutive images,
    each with its own statistics. Like the replicas of Keras 2.2, each group updates the running
    averages on its own, the groups of all devices one after the other: with K of them a step
    moves the averages as K steps with one would. A batch that `groups` does not divide raises
    `ValueError`, or TensorFlow's `InvalidArgumentError` where its size is not known when the step
    is traced. See `set_batch_norm_groups`.

    `step`, the number of updates so far (K for a batch), is saved and restored with the layer and
    is one of its `non_trainable_variables`, but not of its `weights`: it is no parameter of the
    network.

    Args:
        momentum: Decay of the running averages, between 0 and 1.
        epsilon: Added to the variance.
        affine: Whether learned `gamma` and `beta` scale and shift what is normalised.
        gamma_regularizer, beta_regularizer: Of these two.

    Source: Ioffe & Szegedy, https://arxiv.org/abs/1502.03167; debiasing as in Kingma & Ba,
    https://arxiv.org/abs/1412.6980, section 3.
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        affine: bool = True,
        gamma_regularizer=None,
        beta_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must be between 0 and 1, not {momentum}")
        self.momentum = momentum
        self.epsilon = epsilon
        self.affine = affine
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        # A property of the run and not of the network, hence in no configuration or file: what
        # was trained in groups, or on as many devices, is used and trained further without them.
        self.groups = 1

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

        self.gamma = self.beta = None
        if self.affine:
            self.gamma = add_vector("gamma", "ones", regularizer=self.gamma_regularizer)
            self.beta = add_vector("beta", "zeros", regularizer=self.beta_regularizer)
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

        batch = inputs.shape[0]
        if batch is not None and batch % self.groups:
            raise ValueError(
                f"{self.name}: {batch} images cannot be normalised in {self.groups} groups of "
                f"equal size; the batch size must be divisible by {self.groups}"
            )
        size = _size(inputs)
        is_image = len(inputs.shape) == 4
        if is_image and keras.backend.backend() == "tensorflow":
            outputs, mean, variance = self._fused(inputs)  # already times n/(n−1)
        else:
            outputs, mean, variance = self._composed(inputs)
            if is_image:
                n = running_averages.values_per_channel([self], size)
                variance *= n / running_averages.degrees_of_freedom(n)
        running_averages.update(running_averages.Statistics(self, size, mean, variance))
        return outputs

    def _normalize(self, inputs, mean, variance):
        scale, shift = ops.rsqrt(variance + self.epsilon), 0.0
        if self.affine:
            scale, shift = self.gamma * scale, self.beta
        outputs = ops.cast(inputs, "float32") * scale + (shift - mean * scale)
        return ops.cast(outputs, self.compute_dtype)

    def _composed(self, inputs):
        """Normalises a batch with what every backend has.

        Returns:
            The normalised batch, and over the groups (see `_over_groups`) their means and their
            biased variances; the last two are `(channels,)` and float32.
        """
        shape = ops.shape(inputs)
        # An axis of the groups, and no loop over them: where the batch is sharded over devices
        # that divide the groups, the compiler then keeps each group's statistics on its device.
        grouped = ops.reshape(ops.cast(inputs, "float32"), (self.groups, -1, *shape[1:]))
        axes = list(range(1, len(shape)))
        mean, variance = ops.moments(grouped, axes=axes, keepdims=True)
        outputs = ops.reshape(self._normalize(grouped, mean, variance), shape)
        mean, variance = (ops.squeeze(values, axis=axes) for values in (mean, variance))
        return outputs, self._over_groups(mean), self._over_groups(variance)

    def _fused(self, inputs):
        """TensorFlow's own kernel: the same numbers at a fraction of the passes over the data.

        Without XLA what `keras.ops` composes is not fused, least of all its gradient: on a CPU
        a training step of resnet-32-fc takes 1.4 times as long, and 1.2 times in 4 groups.

        Returns:
            As `_composed`, but with the unbiased variance.
        """
        import tensorflow as tf

        channels = inputs.shape[-1]
        scale = self.gamma.value if self.affine else tf.ones(channels)
        offset = self.beta.value if self.affine else tf.zeros(channels)

        def normalize(group):
            empty = tf.constant((), tf.float32)
            outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=group,
                scale=scale,
                offset=offset,
                mean=empty,
                variance=empty,
                epsilon=self.epsilon,
            )
            return outputs, mean, variance

        if self.groups * num_replicas() == 1:
            return normalize(inputs)
        groups = [normalize(group) for group in tf.split(inputs, self.groups)]
        outputs, means, variances = zip(*groups, strict=True)
        mean, variance = (self._over_groups(tf.stack(values)) for values in (means, variances))
        return tf.concat(outputs, 0), mean, variance

    def _over_groups(self, values):
        """The mean of `(groups, channels)` with which one update does what one a group would.

        A later group counts more, as its value has decayed less. Each device gives its part, such
        that the mean over the devices, as which they combine their averages, is the whole.
        """
        devices = num_replicas()
        updates = devices * self.groups
        if updates == 1:
            return values[0]
        weights = self.momentum ** np.arange(self.groups - 1, -1, -1)
        weights *= devices * (1 - self.momentum) / (1 - self.momentum**updates)
        weights = ops.convert_to_tensor(weights[:, np.newaxis], "float32")
        if devices > 1:
            later = self.groups * (devices - 1.0 - replica_index())
            weights *= ops.exp(math.log(self.momentum) * later)
        return ops.sum(values * weights, axis=0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "affine": self.affine,
            "gamma_regularizer": keras.regularizers.serialize(self.gamma_regularizer),
            "beta_regularizer": keras.regularizers.serialize(self.beta_regularizer),
        }


def _size(inputs):
    """The number of values of a batch, by a single operation: tracing a network pays for each."""
    if keras.backend.backend() != "tensorflow":
        return ops.size(inputs)
    import tensorflow as tf

    return tf.size(inputs, tf.int64)  # of int32, large batches have too many


def set_batch_norm_groups(model: keras.Model, groups: int) -> None:
    """Lets every `BatchNormalization` of a model, and of models in it, normalise in groups.

    To be called before the model is trained: a training step that is compiled keeps its groups.

    Args:
        groups: Number of groups that a batch, as the layers see it, is split into; at least 1.
            Under `tf.distribute` a layer sees the batch of one replica, so it takes the replica's
            share of the groups. Under `keras.distribution` it sees the global batch; the number
            of devices should divide the groups, lest features have to travel between devices.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.groups = groups
        elif isinstance(layer, keras.Model):
            set_batch_norm_groups(layer, groups)
