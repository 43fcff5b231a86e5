"""Scores models that learn_classifier.py dumped, on a data set's test images.

    python evaluate_classifier.py --model A.keras --model B.keras --dataset Flowers --data_root DIR

prints one table; `--json FILE` writes the same numbers. With `--hierarchy` the table also says how
bad the mistakes are.
"""

import argparse

from utils import UsageError, UserError, run_script  # first: it says in a line what fails to load

# isort: split
import numpy as np

import architectures
import datasets
from training import data
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag, FlagGroup, add_groups
from training.flags.parser import Parser
from training.reporting import flags as reporting

GROUPS = (
    FlagGroup(
        "scoring",
        (
            reporting.MODELS,
            reporting.BATCH_SIZE,
            Flag("--json", metavar="FILE.json", help="also write the scores to this file"),
            Flag(
                "--predictions",
                metavar="FILE.csv",
                help="also write a row for each image: path, true class, and the best five with "
                "their scores; of several models those of their ensemble",
            ),
            reporting.TOP_K,
            reporting.TTA,
        ),
    ),
    data.FLAGS,
    FlagGroup(
        "hierarchy",
        (
            Flag(
                "--hierarchy",
                metavar="FILE",
                help="class hierarchy: also report how far off the mistakes are, and for "
                "probabilities the decisions of least risk (crm_…)",
            ),
            *reporting.HIERARCHY_FORMAT,
        ),
    ),
)


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    add_groups(parser, GROUPS)
    args = parser.parse_args()
    for path in args.model:
        paths.check_input_file("--model", path, ".keras")
    devices.backend()
    data.check_data_arguments(args)
    paths.check_output_file("--json", args.json, ".json")
    paths.check_output_file("--predictions", args.predictions, ".csv")
    if args.hierarchy:
        paths.check_input_file("--hierarchy", args.hierarchy)
    return args


def load_test_set(args: argparse.Namespace, path: str, model):
    """The data set that a model is scored on, and its labels in the model's numbering.

    Raises:
        UsageError: The model cannot take the images, does not know their classes, or may have been
            trained on some of them.
    """
    trained = model.info
    if trained["test_fraction"] and args.test_fraction not in (None, 1, trained["test_fraction"]):
        raise UsageError(
            f"--test_fraction {args.test_fraction:g}: {path} was trained with "
            f"{trained['test_fraction']:g}; of another share it may know test images already"
        )
    options = data.loading_options(args)
    options["image_size"] = args.image_size or trained["image_size"]
    architectures.check_image_size(model.name, options["image_size"])
    reporting.check_top_k(args.top_k_acc, len(model.class_names))
    # With the seed of the training, a folder's test images are those drawn then.
    options["split_seed"] = trained.get("split_seed", trained["seed"])
    # Models of before this was stored saw images as they are stored.
    options["exif_rotation"] = trained.get("exif_rotation", False)
    dataset = datasets.load_dataset(args.dataset, args.data_root, splits=("test",), **options)
    if trained["test_fraction"] and dataset.spec.test_fraction == 1 != args.test_fraction:
        raise UsageError(
            f"--test_fraction is missing: {path} was trained on a folder with "
            f"{trained['test_fraction']:g}, which tests on the images drawn then; give 1 to test "
            "on all images, if none of them was trained on"
        )
    index = {class_id: i for i, class_id in enumerate(model.class_ids)}
    classes = list(zip(dataset.class_ids, dataset.class_names, strict=True))
    unknown = [
        name
        for class_id, name in classes
        if class_id not in index or model.class_names[index[class_id]] != name
    ]
    if unknown:
        raise UsageError(
            f"--model {path}: knows {len(index)} classes of {trained['dataset']}, but not "
            f"{len(unknown)} of the {len(classes)} of --dataset {args.dataset}: "
            f"{', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}"
        )
    numbers = np.array([index[class_id] for class_id, _ in classes])
    return dataset, numbers[dataset.test.labels]


def main() -> None:
    args = parse_arguments()

    import keras

    from embeddings.evaluation import hierarchical_scores
    from embeddings.hierarchy_files import read_hierarchy
    from training.reporting import evaluation, report

    hierarchy = None
    if args.hierarchy:
        hierarchy = read_hierarchy(args.hierarchy, is_a=args.is_a, str_ids=args.str_ids)
    rows, members = [], []
    for path in args.model:
        model = evaluation.load_model(path)
        dataset, labels = load_test_set(args, path, model)
        if hierarchy:
            ids = [str(i) for i in model.class_ids] if args.str_ids else model.class_ids
            try:
                dissimilarity = hierarchy.dissimilarity(ids)
            except UserError as error:
                raise UserError(f"--hierarchy {args.hierarchy}: {error}") from None
        batches = dataset.test_batches(args.batch_size, **data.reading_options(args))
        with datasets.reading_errors(batches):
            result = evaluation.evaluate(model, batches, labels, top_k=args.top_k_acc, tta=args.tta)
        scores = result.scores
        if hierarchy:
            scores |= hierarchical_scores(
                result.class_scores,
                labels,
                dissimilarity,
                hierarchy.height,
                probabilities="prob" in model.output_names,
            )
        row = {"model": path, "image_size": dataset.image_size}
        if model.info.get("weights") == "averaged":
            row["weights"] = "averaged"
        rows.append({**row, **scores, **result.uncertainty()})
        members.append(evaluation.Member(model, dataset.image_names(dataset.test), result))
        del model
        keras.backend.clear_session(free_memory=True)
    together = members[0] if len(members) == 1 else evaluation.ensemble(members, args.top_k_acc)
    if len(members) > 1 and together:
        result = together.result
        rows.append({"model": "ensemble", **result.scores, **result.uncertainty()})
    print(report.table(rows))
    if args.predictions:
        if together is None:
            raise UserError(
                f"--predictions {args.predictions}: not written, as these models make no ensemble"
            )
        report.write_predictions(
            args.predictions, together.images, together.result, together.class_names
        )
    if args.json:
        report.write_json(args.json, {"dataset": args.dataset, "models": rows})


if __name__ == "__main__":
    run_script(main)
