"""The networks: `build_model` makes one; importing this package lets Keras load a saved one.

import models
model = models.load_model("M.keras")
classes, scores = model.classify(images)  # raw RGB images, 0–255
"""

from models.building import CosineHead, EmbeddingHead, Preprocessing, build_model
from models.classifier import ImageClassifier, pooling_layer
from models.folding import fold
from models.harmonic import HarmonicConv2D, HarmonicFilters
from models.heads import CosineClassifier, EmbeddingOutput
from models.layers import BatchNormalization, PadChannels, Standardize, set_batch_norm_groups
from models.replicas import num_replicas
from models.saving import keep_temperature, load_model, save_model, save_weights

__all__ = [
    "BatchNormalization",
    "CosineClassifier",
    "CosineHead",
    "EmbeddingHead",
    "EmbeddingOutput",
    "HarmonicConv2D",
    "HarmonicFilters",
    "ImageClassifier",
    "PadChannels",
    "Preprocessing",
    "Standardize",
    "build_model",
    "fold",
    "keep_temperature",
    "load_model",
    "num_replicas",
    "pooling_layer",
    "save_model",
    "save_weights",
    "set_batch_norm_groups",
]
