"""Trains an image classifier from scratch: the experiment, readable from top to bottom.

    python learn_classifier.py --dataset CIFAR-100 --data_root DIR --embedding onehot \\
        --architecture resnet-110-wfc --sgdr_max_lr 0.1

prints a line per epoch, and at the end the final scores and the `Average Accuracy`. docs/ has
the published commands, `--help` every flag.
"""

import sys
from argparse import Namespace

from utils import run_script  # first: it says in a line what fails to load

# isort: split
import embeddings
import sgdr
from training import data, starting
from training.flags import arguments
from training.reporting.flags import accuracy_name
from training.starting import Session


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
    elif args.loss:
        head = models.CosineHead(args.loss, args.tvmf_kappa or 0.0)  # κ is that of t-vmf alone
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
            exif_rotation=dataset.spec.exif_rotation,
        ),
        # AdamW has the decay, not the loss.
        weight_decay=args.weight_decay if args.optimizer == "sgd" else 0.0,
        decay_all=args.weight_decay_on == "all",
        harmonic=args.harmonic,
        # What evaluation needs to know months later.
        info={
            "dataset": args.dataset,
            "seed": args.seed,
            "split_seed": args.split_seed,
            "test_fraction": args.test_fraction,
            "loss": args.loss or "cross_entropy",
            "cls_weight": args.cls_weight,
            "label_smoothing": args.label_smoothing,
            "weights": "last",
        },
    )
    models.set_batch_norm_groups(model, args.bn_groups // models.num_replicas())
    losses.compile_model(args, model)
    return model


def train(args: Namespace, session: Session) -> None:
    """Trains, evaluates and writes what was asked for.

    Args:
        args: Resolved arguments.
        session: What the training runs in: devices, processes, signals and a snapshot.
    """
    import models
    from training import fitting, phases
    from training.learning import averaging, callbacks
    from training.reporting import epochs, evaluation, report
    from training.reporting.progress import progress_line

    # ---------------------------------------------------------------- data
    dataset = data.load_dataset(args)
    batches = data.make_batches(args, dataset, session.devices.share)

    # ---------------------------------------------------------------- model
    model = build_classifier(args, dataset)
    print(report.describe_run(args, dataset, model, session.devices), flush=True)

    # ---------------------------------------------------------------- fit
    schedule = sgdr.make_schedule(args, batches.images_per_epoch)
    schedule = sgdr.with_decay(schedule, args.max_decay, args.epochs)
    print(schedule.describe(args.epochs), flush=True)
    validation = fitting.Validation(
        batches.validation,
        (dataset.validation or dataset.test).labels,
        top_k=args.top_k_acc,
        every=args.val_every,
        also_after=[*(schedule.cycle_ends(args.epochs) if args.val_every else ()), args.epochs],
    )
    history = epochs.EpochReport(batches.images_per_epoch, args.epochs, args.log_dir)
    if batches.finish:
        size = f"{args.finish_size} x {args.finish_size}"
        print(f"from epoch {batches.finish.begins + 1} on images of {size} pixels", flush=True)
    watched = [
        *callbacks.learning_rate(schedule, len(batches.train), args),
        callbacks.StopOnDivergence(),
        *progress_line(args, args.epochs, len(batches.train)),
        history,
    ]
    with batches.reading_errors(lambda: session.stop.advice):
        progress = phases.train(args, model, dataset, batches, validation, watched, session)

        # ------------------------------------------------------------ evaluate
        last = batches.finish.batches if batches.finish else batches
        features = session.agreed(bool(args.feature_dump))

        def evaluated(**options):
            options |= {"top_k": args.top_k_acc, "features": features}
            return evaluation.evaluate(model, last.test, dataset.test.labels, **options)

        result, others = validation.last, {}
        if dataset.validation or features or validation.last_epoch != args.epochs:
            result = evaluated()
        if args.ema:
            others["last_weights"] = result
            averaging.use_averages(model, last.train, args.epochs)
            result = evaluated()
        if args.tta:
            others["without_tta"] = result
            result = evaluated(tta=args.tta)
    best = history.best_epoch(accuracy_name(args))
    print(report.final_lines(result, best, report.selected_on(args), others))

    # ---------------------------------------------------------------- dump
    with report.all_written(args.snapshot) as written:
        if args.model_dump:
            if session.loaded:
                models.keep_temperature(model, args.model_dump)
            with written("--model_dump"):
                models.save_model(model, args.model_dump)
        if args.plain_dump:
            with written("--plain_dump"):
                models.save_model(models.fold(model), args.plain_dump)
        if args.weight_dump:
            with written("--weight_dump"):
                models.save_weights(model, args.weight_dump)
        if args.feature_dump:
            with written("--feature_dump"):
                report.write_features(args.feature_dump, result, dataset)
        if args.log_dir:
            with written("--log_dir"):
                names = dataset.image_names(dataset.test)
                path = f"{args.log_dir}/predictions.csv"
                report.write_predictions(path, names, result, dataset.class_names)
            with written("--log_dir"):
                report.write_result(
                    args, model, dataset, result, best, progress.seconds, session.devices, others
                )

    # ---------------------------------------------------------------- report
    if args.output and not args.no_report:
        from reports import writing

        # A model that several devices share is not asked again.
        alone = model if session.devices.replicas == 1 else None
        writing.write_after_training(args, alone, dataset, result)


def main() -> int | None:
    args = arguments.parse_training_arguments()
    if args.check_data:
        return data.check_images(arguments.check_training_arguments(args))
    with starting.started(args) as session:
        train(args, session)
    return None


if __name__ == "__main__":
    # With --check_data the output is all there is.
    run_script(main, only_reports="--check_data" not in sys.argv)
