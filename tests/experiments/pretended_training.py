"""Behaves as `learn_classifier.py` does towards whoever starts it, without learning anything.

python pretended_training.py --log_dir DIR --snapshot FILE --sgdr_max_lr R [--epochs N]

The accuracy of epoch e is `(1 - (R - 0.3)^2) * e / N`; with a rate above 1 the run fails. An epoch
takes as many seconds as the environment's EPOCH_SECONDS says. Every start appends a line to
`starts.txt` of the directory.
"""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--log_dir", type=Path)
parser.add_argument("--snapshot", type=Path)
parser.add_argument("--sgdr_max_lr", type=float)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--validation_fraction")
args, _ = parser.parse_known_args()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

with open(args.log_dir / "starts.txt", "a") as file:
    file.write("started\n")
if args.sgdr_max_lr > 1:
    print("pretended_training.py: error: the loss is not a number in epoch 1", file=sys.stderr)
    sys.exit(1)
score = 1 - (args.sgdr_max_lr - 0.3) ** 2
begun = int(args.snapshot.read_text()) if args.snapshot.exists() else 0
for epoch in range(begun + 1, args.epochs + 1):
    time.sleep(float(os.environ.get("EPOCH_SECONDS", "0")))
    rows = [f"{e},{score * e / args.epochs}" for e in range(1, epoch + 1)]
    partial = args.log_dir / "history.partial"
    partial.write_text("\n".join(["epoch,val_acc", *rows, ""]))
    partial.replace(args.log_dir / "history.csv")
    args.snapshot.write_text(str(epoch))
result = {
    "arguments": {"seed": args.seed, "sgdr_max_lr": args.sgdr_max_lr},
    "seed": args.seed,
    "final": {"acc": score + args.seed / 100, "average_acc": score},
    "test": {"n": 100},
    "best": {"val_acc": score + 0.001},
    "selected_on": "validation" if args.validation_fraction else "test",
}
(args.log_dir / "result.json").write_text(json.dumps(result))
