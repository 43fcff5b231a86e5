"""The optimiser of a training, also where several devices run the same step."""

from argparse import Namespace

import keras
from keras import ops

import models
from training.learning import averaging


def make_optimizer(args: Namespace) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent with momentum 0.9, AdamW or Muon, as resolved arguments ask.

    Made in the scope of the distribution that the network is trained in.
    """
    several = models.num_replicas() > 1
    parts = args.accumulate_steps
    options = {
        # Keras 2's `clipnorm` was the norm of all gradients together, which is called this today.
        "global_clipnorm": args.clipgrad or None,
        "gradient_accumulation_steps": parts if parts > 1 else None,
    }
    if args.ema:
        # The parts of a batch are steps for Keras.
        momentum = averaging.momentum(args.ema, args.batch_size / parts)
        options |= {"use_ema": True, "ema_momentum": momentum}
    # As everywhere here, the gradient of the decay is 2·L·w.
    decay = 2 * args.weight_decay if args.optimizer != "sgd" else None
    if args.optimizer == "adamw":
        return AdamW(weight_decay=decay, **options)
    if args.optimizer == "muon":
        options["nesterov"] = args.nesterov
        return Muon(weight_decay=decay, adam_weight_decay=decay, **options)
    sgd = MergedSGD if several else SGD
    optimizer = sgd(momentum=0.9, nesterov=args.nesterov, **options)
    if several and keras.config.dtype_policy().compute_dtype == "float16":
        return MergedLossScale(optimizer)
    return optimizer


def sum_over_replicas(grads):
    """The sums of all replicas' gradients, for each of them; in a step that replicas run."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(grads))


class AveragesBeside:
    """Of an optimiser with averages (`use_ema`): the network keeps its own weights.

    Keras puts the averages in their place whenever `fit` ends, also if the training goes on after
    that. `averaging.use_averages` does so at the end of it all.
    """

    def finalize_variable_values(self, var_list):
        pass

    def _update_model_variables_moving_average(self, trainable_variables):
        # As in Keras, of a third of its operations: a step starts the sooner for it. The first
        # average is the first step's weights.
        kept = self.ema_momentum * ops.cast(ops.not_equal(self.iterations, 0), "float32")
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            average.assign(variable + kept * (average - variable))


class AdamW(AveragesBeside, keras.optimizers.AdamW):
    """Keras' AdamW. (Loshchilov & Hutter, *Decoupled Weight Decay Regularization*, ICLR 2019.)"""


class Muon(AveragesBeside, keras.optimizers.Muon):
    """Keras' Muon, here for the kernels of convolutions, each as one matrix.

    Keras takes matrices alone. The rows are a kernel's places and input channels, the columns its
    filters. In place of the momentum goes the orthogonal matrix nearest to it, roughly, times 0.2
    times the root of its longer side: changes are as large as those of Adam. Everything else is
    AdamW's. (Jordan et al., *Muon: An optimizer for hidden layers in neural networks*, 2024; the
    factors: Liu et al., *Muon is scalable for LLM training*, arXiv 2502.16982.)
    """

    def _should_use_adamw(self, variable):
        return len(variable.shape) < 3

    def _muon_update_step(self, gradient, variable, lr, m):
        self.assign(m, self.momentum * m + gradient)
        step = gradient + self.momentum * m if self.nesterov else m
        matrix = ops.reshape(step, (-1, variable.shape[-1]))
        change = self.lr_adjust(lr * self.zeropower_via_newtonschulz5(matrix, self.ns_steps))
        self.assign_sub(variable, ops.reshape(change, variable.shape))


class SGD(AveragesBeside, keras.optimizers.SGD):
    """Keras' stochastic gradient descent with momentum, of fewer operations on TensorFlow.

    Keras has some fifteen operations per variable, and a network of 110 layers has 440 variables:
    tracing and optimising them took as long as a dozen steps. Here TensorFlow's own operation
    updates a variable and its momentum, and clipping scales the learning rate instead of every
    gradient. The numbers are the same up to rounding, and so are the optimiser's variables.
    """

    def _clip_gradients(self, grads):
        if keras.backend.backend() != "tensorflow" or self.clipnorm or self.clipvalue:
            return super()._clip_gradients(grads)
        return grads  # `_backend_update_step` clips

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if keras.backend.backend() != "tensorflow":
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            return
        import tensorflow as tf

        rate = tf.convert_to_tensor(learning_rate)
        if self.global_clipnorm:
            rate *= clipping_factor(grads, self.global_clipnorm)
        update = rate, tf.constant(self.momentum, rate.dtype)
        if tf.distribute.has_strategy():
            super()._backend_update_step(grads, trainable_variables, update)
            return
        for grad, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(grad, variable.value, update)

    def update_step(self, gradient, variable, learning_rate):
        """As in Keras; on TensorFlow `learning_rate` is the pair of rate and momentum."""
        if keras.backend.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        rate, momentum = learning_rate
        # `accum = momentum · accum - rate · grad`, and then as Keras' `update_step`.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[self._get_variable_index(variable)].value.handle,
            lr=rate,
            grad=gradient,
            momentum=momentum,
            use_nesterov=self.nesterov,
        )


def clipping_factor(grads, clip_norm: float):
    """What scales gradients down to a global norm where theirs is greater; on TensorFlow.

    It is NaN where the norm is not finite.
    """
    import tensorflow as tf

    # Biases, scales and shifts are most of a network's weights by number, so they are joined.
    vectors = [grad for grad in grads if grad.shape.rank == 1]
    parts = [grad for grad in grads if grad.shape.rank != 1]
    if vectors:
        parts.append(tf.concat(vectors, axis=0))
    norm = tf.sqrt(2.0 * tf.add_n([tf.nn.l2_loss(part) for part in parts]))
    return tf.minimum(1.0, clip_norm / norm) + (norm - norm)


class MergedSGD(SGD):
    """Stochastic gradient descent for the replicas of a `tf.distribute.Strategy`.

    Keras 3 clips the gradients of each replica before it adds them up, so that the norm that is
    clipped depends on the number of replicas; here they are added up first. And it cannot
    accumulate gradients there, as replicas must not meet within a condition; here all of them
    together are within it.
    """

    merged_before = False

    def apply(self, grads, trainable_variables=None):
        """As in Keras, with the sum of the replicas' gradients."""
        grads = grads if self.merged_before else sum_over_replicas(grads)
        super().apply(grads, trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # Keras would do now what is done already

    def _backend_apply_gradients(self, grads, trainable_variables):
        if not self.gradient_accumulation_steps:
            super()._backend_apply_gradients(grads, trainable_variables)
            return
        import tensorflow as tf

        steps = self.gradient_accumulation_steps
        sums = [
            self._accumulated_gradients[self._get_variable_index(v)] for v in trainable_variables
        ]

        def update(grads):
            grads = [(grad + total) / steps for grad, total in zip(grads, sums, strict=True)]
            grads = self._clip_gradients(grads)
            self._backend_update_step(grads, trainable_variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def add(grads):
            self._backend_increment_gradient_accumulators(grads, sums)

        def update_or_add(strategy, grads):
            def in_replicas(function):
                return lambda: strategy.extended.call_for_each_replica(function, args=(grads,))

            is_last_part = ops.equal((self._iterations + 1) % steps, 0)
            ops.cond(is_last_part, in_replicas(update), in_replicas(add))

        tf.distribute.get_replica_context().merge_call(update_or_add, args=(grads,))


class MergedLossScale(keras.optimizers.LossScaleOptimizer):
    """Loss scaling around a `MergedSGD`, which looks for infinities in the sum of all gradients.

    Keras 3 looks at those of the first replica alone, and would let infinities of others pass.
    """

    def __init__(self, inner_optimizer: MergedSGD, **kwargs):
        super().__init__(inner_optimizer, **kwargs)
        inner_optimizer.merged_before = True

    def apply(self, grads, trainable_variables=None):
        """As in Keras, with the sum of the replicas' gradients."""
        super().apply(sum_over_replicas(grads), trainable_variables)
