"""How many images a running `serve.py` labels a second, and how long one waits.

    python serve.py M.keras
    python benchmarks/serving.py --image photo.jpg --clients 50

Each client sends the image in a request of its own, one after the other.
"""

import argparse
import http.client
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np


def form(content: bytes) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a request with one file."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def client(address: str, content: bytes, requests: int) -> list[tuple[int, float]]:
    """Status and seconds of each of a client's requests."""
    found = []
    connection = http.client.HTTPConnection(address, timeout=60)
    for _ in range(requests):
        body, headers = form(content)
        started = time.perf_counter()
        connection.request("POST", "/classify", body, headers)
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, time.perf_counter() - started))
    connection.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--address", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--image", required=True, metavar="FILE")
    parser.add_argument("--clients", type=int, default=50, metavar="N")
    parser.add_argument("--requests", type=int, default=20, metavar="N", help="of each client")
    args = parser.parse_args()
    content = Path(args.image).read_bytes()
    client(args.address, content, 1)
    started = time.perf_counter()
    with ThreadPoolExecutor(args.clients) as pool:
        tasks = [
            pool.submit(client, args.address, content, args.requests) for _ in range(args.clients)
        ]
        found = [item for task in tasks for item in task.result()]
    seconds = time.perf_counter() - started
    statuses = Counter(status for status, _ in found)
    waits = np.array([wait for _, wait in found])
    print(f"{len(found)} requests of {args.clients} clients, statuses: {dict(statuses)}")
    print(
        f"{statuses[200] / seconds:.0f} images/s; waiting: {np.median(waits) * 1000:.0f} ms in the "
        f"median, {np.quantile(waits, 0.95) * 1000:.0f} ms for the slowest twentieth"
    )


if __name__ == "__main__":
    main()
