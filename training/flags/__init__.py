"""Which flags there are, and what of them is refused."""
