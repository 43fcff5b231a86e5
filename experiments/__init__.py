"""What many runs say together: comparing them, sweeping over their settings, repeating the paper.

A run is a directory that `learn_classifier.py` wrote, and is made by starting that script: nothing
of the training is imported here.
"""
