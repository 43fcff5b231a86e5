"""Shows a page to drop images on, and labels them with a dumped or exported model.

    python serve.py M.keras

then open http://127.0.0.1:8000. Programs send images as files of a form to `POST /classify`, and
get JSON. Only this machine can reach it, unless `--host` says otherwise.
"""

import argparse
import dataclasses
import functools
import os
import signal
import socket
import threading

from utils import UserError, run_script, say  # first: it says in a line what fails to load

# isort: split
from deployment.loading import SUFFIXES
from training.devices import flags as devices
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from training.reporting import flags as reporting

# Seconds that requests have to be answered in when the server is to end.
_LAST = 10
LOCAL = ("127.0.0.1", "localhost")
FLAGS = (
    dataclasses.replace(
        reporting.LABELLING_MODELS, name="model", action="store", required=None, nargs="+"
    ),
    Flag(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen; 0.0.0.0 is everywhere, and then anyone in the network can use it",
    ),
    Flag(
        "--port",
        type=number(int, least=0, most=65535),
        default=8000,
        metavar="N",
        help="where to listen; 0 takes a free one",
    ),
    Flag(
        "--top_k",
        type=number(int, least=1),
        default=5,
        metavar="K",
        help="how many classes to show",
    ),
    Flag(
        "--max_waiting",
        type=number(int, least=1),
        default=256,
        metavar="N",
        help="requests at a time; others are told to come again (status 503)",
    ),
    Flag(
        "--max_images",
        type=number(int, least=1),
        default=16,
        metavar="N",
        help="images in a request",
    ),
    Flag(
        "--max_megabytes",
        type=number(above=0, most=1000),
        default=20,
        metavar="MB",
        help="of a request",
    ),
    dataclasses.replace(reporting.BATCH_SIZE, default=32, help="images computed at a time"),
)


def parse_arguments() -> argparse.Namespace:
    """The checked command line."""
    parser = Parser(description=__doc__.split("\n")[0])
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args()
    for path in args.model:
        paths.check_input_file("model", path, SUFFIXES)
    devices.backend()
    return args


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: {reason}; give another --port, or 0 for a free one"
        ) from None


def main() -> None:
    args = parse_arguments()
    try:
        import multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise UserError(
            f"the Python package {error.name} is not installed: pip install -r "
            "requirements-serve.txt"
        ) from None

    from deployment import loading, serving
    from deployment.batching import Batcher

    with listen(args.host, args.port) as listening:
        models = loading.load_models(args.model)
        first = models[0]
        facts = {
            "models": [os.path.basename(path) for path in args.model],
            "classes": list(first.class_names),
            "scores": "probabilities" if first.scores_are_probabilities else "similarities",
        }
        limits = serving.Limits(args.max_waiting, args.max_images, int(args.max_megabytes * 1e6))
        hosts = LOCAL if args.host in LOCAL else ("*",)
        explain = None
        if len(models) == 1 and args.model[0].endswith(".keras"):
            from reports.attention import grad_cam

            explain = functools.partial(grad_cam, first)
        with Batcher(models, args.batch_size, explain) as batcher:
            app = serving.make_app(batcher, facts, limits, args.top_k, hosts)
            server = uvicorn.Server(
                uvicorn.Config(
                    app, log_config=None, access_log=False, timeout_graceful_shutdown=_LAST
                )
            )

            def end(*_):
                server.should_exit = True

            # In a thread of its own it leaves the signals to this one.
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            for sign in (signal.SIGINT, signal.SIGTERM):
                signal.signal(sign, end)
            thread.start()
            address = f"[{args.host}]" if ":" in args.host else args.host
            say(f"http://{address}:{listening.getsockname()[1]} (Ctrl-C ends it)")
            if args.host not in (*LOCAL, "::1"):
                say("Whoever can reach this machine can use it.")
            while thread.is_alive():
                thread.join(0.2)


if __name__ == "__main__":
    run_script(main)
