"""How a trained model is used: labels as tables, other programs' formats, a page in a browser."""
