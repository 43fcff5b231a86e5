"""How a training survives: snapshots, exact resumption, signals."""
