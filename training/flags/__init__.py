"""How flags are declared and read; which of them `learn_classifier.py` has, and what is refused."""
