"""On what devices a training runs: data parallelism over GPUs and over processes."""
