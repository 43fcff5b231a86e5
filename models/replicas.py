"""How many devices run a step at once, and which of them this is, where code can tell.

That is so on TensorFlow, where each runs the same step on a part of the batch; on JAX a step is one
program for all devices.
"""

import keras


def num_replicas() -> int:
    """How many devices run the same step on a part of the batch each."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_index():
    """Which of them runs this code, from 0, as a float32 number; on TensorFlow only."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return tf.cast(context.replica_id_in_sync_group, tf.float32)
