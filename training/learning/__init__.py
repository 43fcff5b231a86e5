"""How a network learns: losses, metrics, optimiser, learning rate."""
