"""How batches are made: decoding, augmentation, caching, order, reading threads."""
