"""Models in the formats of other programs: uint8 images in, scores of the classes out."""

import os
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

import models
from deployment.exported import needs
from deployment.facts import NAME, Facts
from models import calibration
from scoring import View

# Of what static quantisation makes 8-bit sums; the rest is exact and costs little.
_WEIGHTED = ["Conv", "MatMul", "Gemm"]


def facts_of(model: models.ImageClassifier) -> Facts:
    """What an export of the model says of itself."""
    info = model.info if isinstance(model.info, dict) else {}
    kept = {name: info[name] for name in ("dataset", "loss") if name in info}
    return Facts(
        class_names=model.class_names,
        class_ids=model.class_ids,
        view=View.of(info),
        probabilities=model.scores_are_probabilities,
        temperature=model.temperature,
        origin={"network": model.name, **kept},
    )


def write_exported(
    model: models.ImageClassifier,
    path: str | os.PathLike,
    form: str,
    quantize: str | None = None,
    examples: np.ndarray | None = None,
) -> None:
    """Writes a model in another program's format.

    The file takes `image`, uint8 `(n, S, S, 3)` with any n, and gives `scores` `(n, C)`, which are
    those of `ImageClassifier.batch_scores`, and `embedding` `(n, D)` where the model has one.

    Args:
        model: The model, which stays as it is.
        path: The file, or for a SavedModel the folder; its name ends as `facts.FORMATS` says.
        form: A key of `facts.FORMATS`.
        quantize: In the formats of `facts.QUANTIZED`, `int8` for weights and activations, or
            `float16` for weights (in ONNX for activations too).
        examples: For `int8`, images `(n, S, S, 3)` that show the range of the activations.

    Raises:
        UserError: A package is not installed.
    """
    facts = facts_of(model)
    serving = _serving(model, facts.view.image_size)
    side = facts.view.image_size
    signature = [keras.InputSpec(shape=(None, side, side, 3), dtype="uint8", name="image")]
    write = {"onnx": _write_onnx, "litert": _write_litert, "saved_model": _write_saved_model}[form]
    write(serving, os.fspath(path), signature, facts.to_json(), quantize, examples)


def _serving(model: models.ImageClassifier, side: int) -> keras.Model:
    """A network from `image`, uint8, to `scores` and perhaps `embedding`."""
    portable = _portable(model)
    image = keras.Input((side, side, 3), dtype="uint8", name="image")
    named = portable.named_outputs(portable(ops.cast(image, "float32")))
    outputs = {"scores": _Scores(portable)(named)}
    if "embedding" in named:
        outputs["embedding"] = named["embedding"]
    return keras.Model(image, outputs)


class _Scores(keras.layers.Layer):
    """From a model's outputs by name to what `ImageClassifier.batch_scores` gives."""

    def __init__(self, model: models.ImageClassifier):
        super().__init__(dtype="float32")
        self.head = model.embedding_head  # so that the class embeddings are this layer's
        self.temperature, self.are_probabilities = model.temperature, model.gives_probabilities

    def call(self, outputs):
        if self.are_probabilities:
            scores = outputs["prob"]
        else:
            scores = self.head.class_scores(outputs["embedding"])
        if self.temperature is None:
            return scores
        if self.are_probabilities:
            scores = ops.log(ops.maximum(scores, calibration.TINY))
        return ops.softmax(scores / self.temperature)


def _portable(model: models.ImageClassifier) -> models.ImageClassifier:
    """The model in float32, of plain convolutions, and of operations that all formats have."""
    harmonic = models.HarmonicConv2D, models.HarmonicFilters
    if any(isinstance(layer, harmonic) for layer in model.layers):
        model = models.fold(model)

    def copied(layer):
        config = layer.get_config() | {"dtype": "float32"}
        if config.get("activation") == "gelu":
            config["activation"] = _gelu
        return type(layer).from_config(config)

    # Without the classifier's class, whose compilation would be cloned too.
    network = keras.models.clone_model(
        keras.Model(model.inputs, model.output), clone_function=copied
    )
    network.set_weights(model.get_weights())
    return models.ImageClassifier(
        network.inputs, network.output, class_names=model.class_names, info=model.info
    )


def _gelu(x):
    # Keras' own, by the complementary error function, which neither ONNX nor LiteRT has.
    return 0.5 * x * (1.0 + ops.erf(x * 0.5**0.5))


def _write_onnx(serving, path, signature, facts, quantize, examples):
    onnx = needs("onnx")
    needs("tf2onnx")
    serving.export(path, format="onnx", input_signature=signature, verbose=False)
    if quantize == "int8":
        _quantize_onnx(path, examples)
    made = onnx.load(path)
    if quantize == "float16":
        made = needs("onnxruntime.transformers.float16").convert_float_to_float16(
            made, keep_io_types=True
        )
    for value in (*made.graph.input, *made.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(made, {NAME: facts})
    onnx.checker.check_model(made)
    onnx.save(made, path)


def _quantize_onnx(path: str, examples: np.ndarray) -> None:
    quantization = needs("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"image": images} for images in np.array_split(examples, 8) if len(images)])

        def get_next(self):
            return next(self.batches, None)

    quantization.quantize_static(
        path,
        path,
        Reader(),
        op_types_to_quantize=_WEIGHTED,
        per_channel=True,
        reduce_range=True,  # processors without VNNI add such products up without an overflow
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def _write_litert(serving, path, signature, facts, quantize, examples):
    import tensorflow as tf

    options = {}
    if quantize:
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantize == "int8":
        options["representative_dataset"] = lambda: ([image[np.newaxis]] for image in examples)
    serving.export(path, format="litert", input_signature=signature, verbose=False, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{NAME}.json", facts)


def _write_saved_model(serving, path, signature, facts, quantize, examples):
    serving.export(path, format="tf_saved_model", input_signature=signature, verbose=False)
    extra = Path(path, "assets.extra")
    extra.mkdir()
    (extra / f"{NAME}.json").write_text(facts)
