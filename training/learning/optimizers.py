"""The optimiser of a training, also where several devices run the same step."""

from argparse import Namespace

import keras
from keras import ops

import models


def make_optimizer(args: Namespace) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent with momentum 0.9, as resolved arguments ask for it.

    Made in the scope of the distribution that the network is trained in.
    """
    several = models.num_replicas() > 1
    sgd = MergedSGD if several else keras.optimizers.SGD
    optimizer = sgd(
        momentum=0.9,
        nesterov=args.nesterov,
        # Keras 2's `clipnorm` was the norm of all gradients together, which is called this today.
        global_clipnorm=args.clipgrad or None,
        gradient_accumulation_steps=args.accumulate_steps if args.accumulate_steps > 1 else None,
    )
    if several and keras.config.dtype_policy().compute_dtype == "float16":
        return MergedLossScale(optimizer)
    return optimizer


def sum_over_replicas(grads):
    """The sums of all replicas' gradients, for each of them; in a step that replicas run."""
    import tensorflow as tf

    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, list(grads))


class MergedSGD(keras.optimizers.SGD):
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
