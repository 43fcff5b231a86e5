"""Trains an image classifier from scratch: the experiment, readable from top to bottom.

    python learn_classifier.py --dataset CIFAR-100 --data_root DIR --embedding onehot \\
        --architecture resnet-110-wfc --sgdr_max_lr 0.1

prints a line per epoch, and at the end the final scores and the `Average Accuracy`. docs/ has
the published commands, `--help` every flag.
"""

import sys
from argparse import Namespace

import datasets
import embeddings
import sgdr
from training import data
from training.devices import processes
from training.devices.flags import batch_multiple, check_process_arguments
from training.flags import arguments
from training.reporting.flags import accuracy_name, check_top_k
from training.resuming import signals, snapshots
from utils import printable, run_script


def build_classifier(args: Namespace, dataset):
    """The network of a run, compiled with its losses, accuracies and optimiser.

    Args:
        args: Resolved arguments.
        dataset: The data set to train on.
    """
    import models
    from training.learning import losses

    head = None
    if args.embedding:
        kind = losses.EMBEDDING_LOSSES[args.loss]
        head = models.EmbeddingHead(
            embeddings.class_embeddings(args.embedding, dataset.class_ids, dataset.class_names),
            kind.output,
            kind.metric,
            classifier_branch=bool(args.cls_weight),
            classifier_base=args.cls_base,
        )
    model = models.build_model(
        args.architecture,
        dataset.class_names,
        class_ids=dataset.class_ids,
        head=head,
        preprocessing=models.Preprocessing(
            dataset.mean,
            dataset.std,
            dataset.std_epsilon,
            dataset.channel_order,
            image_size=args.image_size,
            test_resize=dataset.spec.test_resize,
        ),
        weight_decay=args.weight_decay,
        # What evaluation needs to know months later.
        info={
            "dataset": args.dataset,
            "seed": args.seed,
            "split_seed": args.split_seed,
            "exif_rotation": dataset.spec.exif_rotation,
            "test_fraction": args.test_fraction,
            "loss": args.loss or "cross_entropy",
            "cls_weight": args.cls_weight,
            "label_smoothing": args.label_smoothing,
        },
    )
    models.set_batch_norm_groups(model, args.bn_groups // models.num_replicas())
    losses.compile_model(args, model)
    return model


def check_images(args: Namespace) -> int:
    """Decodes every image of the data set and lists the bad ones; the exit status, 1 if any."""
    options = data.loading_options(args) | {"check_files": False}
    dataset = datasets.load_dataset(args.dataset, args.data_root, **options)
    bad, doubtful = dataset.check_images()
    total = len(dataset.train) + len(dataset.test)
    lines = [*doubtful, *bad, f"{dataset.name}: {len(bad)} of {total} images cannot be read"]
    if doubtful:
        lines.append(f"{dataset.name}: {len(doubtful)} images are of one colour or nearly black")
    print("\n".join(map(printable, lines)))
    return 1 if bad else 0


def main() -> int | None:
    args = arguments.training_parser().parse_args()
    check_process_arguments(args)
    place = None if args.check_data else processes.find_place(args)
    with processes.together(place, arguments.common_arguments(args)) as group:
        return run(args, group)


def run(args: Namespace, group) -> int | None:
    """A run, alone or as one of several processes.

    Args:
        args: As parsed.
        group: The processes (`training.devices.processes.Group`), or `None`.
    """
    # ---------------------------------------------------------------- arguments
    # Checked before anything is loaded: importing Keras and its backend takes seconds.
    if group:
        args.num_processes = group.count
        if group.index:
            arguments.write_nothing(args)
    arguments.check_training_arguments(args)
    if args.check_data:
        return check_images(args)
    loaded = arguments.load_snapshot(args)
    if group:
        loaded = processes.share_snapshot(group, loaded)
    stop = signals.StopSignals(group)
    stop.install()

    import keras

    from training.devices import distribution
    from training.resuming import saving

    keras.utils.set_random_seed(args.seed)
    if args.deterministic:
        saving.make_deterministic()
    keras.config.set_dtype_policy(args.precision)
    devices = distribution.choose(args, group)
    with devices.scope():
        train(args, loaded, stop, devices)
    return None


def train(args: Namespace, loaded, stop, devices) -> None:
    """Trains, evaluates and writes what was asked for, in the scope of the devices.

    Args:
        args: Resolved arguments.
        loaded: The snapshot that is continued, or `None`.
        stop: The signals that end the run (`training.resuming.signals.StopSignals`).
        devices: What shares the batches (`training.devices.distribution.Distribution`).
    """
    import models
    from training import finetuning, fitting
    from training.learning import accumulation, callbacks
    from training.reporting import epochs, evaluation, report
    from training.resuming import saving

    # ---------------------------------------------------------------- data
    dataset = datasets.load_dataset(args.dataset, args.data_root, **data.loading_options(args))
    args.cache = dataset.cache  # of `auto`, what it came to
    check_top_k(args.top_k_acc, len(dataset.class_names))
    reading = {
        **data.reading_options(args),
        "label_keys": ("embedding", "prob") if args.cls_weight else None,
        "share": devices.share,
    }
    multiple = batch_multiple(args)
    train_batches = dataset.train_batches(
        args.batch_size,
        seed=args.seed,
        multiple=multiple,
        parts=args.accumulate_steps,
        **reading,
    )
    judging = {"batch_size": args.val_batch_size, "multiple": args.gpus, **reading}
    val_batches = dataset.validation_batches(**judging)
    test_batches = dataset.test_batches(**judging)
    images_per_epoch = len(dataset.train) * dataset.train_repeats
    if args.accumulate_steps > 1:
        filled = -(-images_per_epoch // multiple) * multiple
        train_batches = accumulation.SplitBatches(
            train_batches, filled, args.batch_size, args.accumulate_steps
        )

    # ---------------------------------------------------------------- model
    model = build_classifier(args, dataset)
    print(
        f"{dataset.name}: {len(dataset.train)} training images, {images_per_epoch} per epoch, "
        f"{f'{len(dataset.validation)} validation and ' if dataset.validation else ''}"
        f"{len(dataset.test)} test images, {len(dataset.class_names)} classes\n"
        f"{args.architecture}: {report.count_parameters(model)['trainable']:,} trainable "
        f"parameters, on {report.describe_devices(devices)}",
        flush=True,
    )

    # ---------------------------------------------------------------- fit
    show_bar = sys.stdout.isatty() and not args.no_progress
    history = epochs.EpochReport(
        images_per_epoch, args.epochs, args.log_dir, print_line=not show_bar
    )
    schedule = sgdr.with_decay(sgdr.make_schedule(args), args.max_decay, args.epochs)
    watched = [
        *callbacks.learning_rate(schedule, len(train_batches), args),
        callbacks.StopOnDivergence(),
        history,
    ]
    if args.snapshot_best:
        watched.append(saving.BestModel(f"{args.snapshot}.best.keras", args.snapshot_best))
    keeping = {"stop": stop, "data": saving.describe_data(dataset, model)}
    if devices.group:
        processes.check_same_data(devices.group, keeping["data"])
    seconds = 0.0
    with datasets.reading_errors(train_batches, val_batches, test_batches):
        with stop.deferred():
            if args.finetune and not (loaded and loaded.snapshot.phase == snapshots.ALL_LAYERS):
                batches = (train_batches, val_batches)
                seconds = finetuning.train_new_layers(
                    args, model, batches, images_per_epoch, loaded, show_bar, **keeping
                )
                loaded = None
            progress = saving.Snapshots(
                args,
                watched,
                steps_per_epoch=len(train_batches),
                loaded=loaded,
                seconds_before=seconds,
                **keeping,
            )
            if loaded:
                saving.restore(model, loaded, progress.data, args.snapshot)
            fitting.fit(
                model,
                train_batches,
                val_batches,
                epochs=args.epochs,
                progress=progress,
                verbose=int(show_bar),
            )

        # ------------------------------------------------------------ evaluate
        result = evaluation.evaluate(
            model,
            test_batches,
            dataset.test.labels,
            top_k=args.top_k_acc,
            features=processes.as_first(devices.group, bool(args.feature_dump)),
        )
    best = history.best_epoch(accuracy_name(args))
    print(report.final_lines(result, best, report.selected_on(args)))

    # ---------------------------------------------------------------- dump
    if args.model_dump:
        models.save_model(model, args.model_dump)
    if args.weight_dump:
        models.save_weights(model, args.weight_dump)
    if args.feature_dump:
        report.write_features(args.feature_dump, result, dataset)
    if args.log_dir:
        report.write_predictions(
            f"{args.log_dir}/predictions.csv",
            dataset.image_names(dataset.test),
            result,
            dataset.class_names,
        )
        report.write_result(args, model, dataset, result, best, progress.seconds, devices)


if __name__ == "__main__":
    run_script(main)
