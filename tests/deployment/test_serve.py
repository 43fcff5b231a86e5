"""The server, as programs and strangers address it."""

import base64
import contextlib
import functools
import http.client
import io
import json
import re
import signal
import socket
import struct
import threading
import time
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
import uvicorn
from PIL import Image

import models
import serve
from deployment import serving
from deployment.batching import Batcher
from reports.attention import grad_cam
from utils import UserError

from ..programs import Program
from .conftest import CLASSES

LIMITS = serving.Limits(waiting=250, images=3, bytes=200_000)


class Slow:
    """A model that waits to be let go, and remembers how many images came at a time."""

    def __init__(self, model):
        self.model, self.go, self.sizes = model, threading.Event(), []
        self.class_names, self.view = model.class_names, model.view
        self.go.set()

    def batch_scores(self, images):
        self.go.wait(20)
        self.sizes.append(len(images))
        return self.model.batch_scores(images)


@pytest.fixture(scope="module")
def model(dumps):
    return Slow(models.load_model(dumps["softmax"]))


@contextlib.contextmanager
def served(model, limits):
    """The port of a server."""
    explain = functools.partial(grad_cam, model.model)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Batcher([model], 16, explain) as batcher,
    ):
        app = serving.make_app(batcher, {"models": ["m"]}, limits, 2, ("127.0.0.1",))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(model):
    with served(model, LIMITS) as port:
        yield port


def form(*files) -> tuple[bytes, dict]:
    """A form of files, (name, content), as browsers send it; body and headers."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        .encode() + content + b"\r\n"
        for name, content in files
    ]  # fmt: skip
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def ask(port, method="POST", path="/classify", body=b"", headers=None):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def classify(port, *files):
    body, headers = form(*files)
    status, _, text = ask(port, body=body, headers=headers)
    return status, json.loads(text)


@pytest.fixture(scope="module")
def contents(photos):
    return [path.read_bytes() for path in photos]


def test_answers_are_those_of_the_model(port, dumps, photos, contents):
    _, expected = models.load_model(dumps["softmax"]).classify_files(photos)
    status, answer = classify(port, *((f"{i}.png", contents[i]) for i in range(3)))
    assert status == 200
    for i, (item, scores) in enumerate(zip(answer["images"], expected, strict=False)):
        first, second = np.argsort(-scores)[:2]
        assert item["name"] == f"{i}.png"
        assert item["class"] == CLASSES[first]
        assert item["score"] == pytest.approx(scores[first], abs=1e-5)
        assert [other["class"] for other in item["next_best"]] == [CLASSES[second]]


def test_a_picture_shows_where_the_network_looks(port, dumps, photos, contents):
    model = models.load_model(dumps["softmax"])
    seen = model.preprocess(photos[0])
    body, headers = form(("a.png", contents[0]))
    status, _, text = ask(port, path="/classify?explain=1", body=body, headers=headers)
    [item] = json.loads(text)["images"]
    assert status == 200
    kind, _, picture = item["attention"].partition(",")
    assert kind == "data:image/png;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))), int)
    grey = Image.fromarray(seen).convert("L").convert("RGB")
    plain = np.asarray(grey.resize((224, 224), Image.Resampling.NEAREST), int)
    [attention] = grad_cam(model, seen[np.newaxis], np.array([CLASSES.index(item["class"])]))
    y, x = np.unravel_index(attention.argmax(), attention.shape)
    y, x = (int((i + 0.5) * 224 / n) for i, n in zip((y, x), attention.shape, strict=True))
    mixed = (plain[y, x] * (255 - 160) + np.array([255, 40, 0]) * 160) / 255
    np.testing.assert_allclose(shown[y, x], mixed, atol=8)


def test_many_requests_at_a_time_lose_nothing(port, model, contents):
    """They are computed several at a time, and each gets its own answer."""
    alone = [classify(port, ("a.png", content))[1]["images"][0]["score"] for content in contents]
    model.sizes.clear()
    with ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(classify, port, (f"{i}.png", contents[i % 4])) for i in range(200)]
        answers = [task.result() for task in asked]
    for i, (status, answer) in enumerate(answers):
        [item] = answer["images"]
        assert status == 200
        assert item["name"] == f"{i}.png"
        assert item["score"] == pytest.approx(alone[i % 4], abs=1e-5)
    assert set(model.sizes) <= {1, 2, 4, 8, 16}
    assert len(model.sizes) < 200


def png_header(width, height):
    """A PNG that only declares its size."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"\0")


def test_files_that_are_no_images_have_errors_and_others_answers(port, contents):
    markup = "<img src=x onerror=alert(1)>.png"
    hostile = [
        (markup, b"no image", "cannot be read as an image"),
        ("../../etc/huge.png", png_header(200_000, 200_000), "declares more than"),
        ("truncated.png", contents[0][: len(contents[0]) // 2], "cannot be read as an image"),
        ("thin.png", png_header(40_000, 3), "one side more than"),
        ("empty", b"", "cannot be read as an image"),
    ]
    for name, content, message in hostile:
        status, answer = classify(port, (name, content), ("good.png", contents[0]))
        bad, good = answer["images"]
        assert status == 200
        assert bad["name"] == name.split("/")[-1]
        assert message in bad["error"]
        assert "/tmp" not in bad["error"]
        assert good["class"] in CLASSES


def test_requests_beyond_the_limits_are_refused(port, contents):
    status, answer = classify(port, *[("a.png", contents[0])] * 4)
    assert (status, answer) == (400, {"error": "Too many files. Maximum number of files is 3."})
    body, headers = form(("a.png", bytes(LIMITS.bytes + 20_000)))
    status, _, text = ask(port, body=body, headers=headers)
    assert status == 413
    assert b"more than 0.2 MB" in text
    # The length is a promise only; here it is not even given.
    chunks = (body[i : i + 1000] for i in range(0, len(body), 1000))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        status, _, _ = ask(port, body=chunks, headers=headers)
        assert status == 413
    for wrong, (body, headers) in {
        "boundary": (b"x", {"Content-Type": "multipart/form-data"}),
        "send images as files": (b"a=1", {"Content-Type": "application/x-www-form-urlencoded"}),
        "no images": form(),
    }.items():
        status, _, text = ask(port, body=body, headers=headers)
        assert status in (400, 415)
        assert wrong in json.loads(text)["error"]
    assert ask(port, "GET", "/classify")[0] == 405
    assert ask(port, "GET", "/../serve.py")[0] == 404
    assert classify(port, ("a.png", contents[0]))[0] == 200


def begin(port, body, headers, length):
    """A connection on which a part of a request is sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {length}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_clients_that_send_nothing_do_not_keep_others_out(model, contents):
    """More than are served at a time; an answer to the good one takes longer than they have."""
    limits = serving.Limits(seconds=600, start=0.2)
    body, headers = form(("a.png", contents[0]))
    with served(model, limits) as port, contextlib.ExitStack() as opened:
        stalled = [
            opened.enter_context(begin(port, body[:5], headers, len(body))) for _ in range(40)
        ]
        assert ask(port, body=body, headers=headers)[0] == 200
        assert all(one.recv(1000).startswith(b"HTTP/1.1 408 ") for one in stalled)


def test_a_slow_request_is_taken_while_it_comes(model, contents):
    body, headers = form(("a.png", contents[0]))
    half = len(body) // 2
    limits = serving.Limits(start=1.0, rate=half / 20)
    with served(model, limits) as port, begin(port, body[:half], headers, len(body)) as slow:
        time.sleep(1.2)
        slow.sendall(body[half:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_goes_away_is_no_fault_of_the_server(port, contents, caplog):
    body, headers = form(("a.png", contents[0]))
    for part in (body[: len(body) // 2], body):
        begin(port, part, headers, len(body)).close()
    for _ in range(3):
        assert classify(port, ("a.png", contents[0]))[0] == 200
    assert caplog.records == []


def test_what_is_not_asked_for_any_more_does_not_end_the_computing(model, photos):
    model.go.clear()
    with Batcher([model], 4) as batcher:
        views = batcher.views(photos[0])
        futures = [batcher.scores(views) for _ in range(6)]
        assert futures[5].cancel()
        model.go.set()
        for future in futures[:5]:
            np.testing.assert_allclose(future.result(20), futures[0].result(), atol=1e-6)
        futures = [batcher.scores([np.zeros((3, 3), "uint8")]), batcher.scores(views)]
        for future in futures:
            with contextlib.suppress(Exception):
                future.result(20)
        assert batcher.scores(views).result(20).shape == (3,)


def test_who_comes_when_too_many_wait_is_told_to_come_again(model, contents):
    model.go.clear()
    with served(model, serving.Limits(waiting=3)) as port, ThreadPoolExecutor(8) as pool:
        body, headers = form(("a.png", contents[0]))
        asked = [pool.submit(ask, port, body=body, headers=headers) for _ in range(8)]
        done = as_completed(asked)
        for status, told, _ in (next(done).result() for _ in range(5)):
            assert (status, told["Retry-After"]) == (503, "1")
        model.go.set()
        assert [task.result()[0] for task in done] == [200] * 3
        assert ask(port, body=body, headers=headers)[0] == 200


def test_the_page_needs_nothing_from_elsewhere(port):
    status, headers, page = ask(port, "GET", "/")
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    linked = re.findall(rb'(?:src|href)="([^"]+)"', page)
    assert sorted(linked) == [b"data:,", b"page.css", b"page.js"]
    for name in ("page.css", "page.js"):
        status, _, text = ask(port, "GET", f"/{name}")
        assert status == 200
        assert not re.search(rb"https?://|innerHTML|document\.write|insertAdjacentHTML", text)
    assert json.loads(ask(port, "GET", "/model")[2])["max_bytes"] == LIMITS.bytes
    # A page of another name that leads here, as an attacker's can, gets nothing.
    assert ask(port, "GET", "/", headers={"Host": "example.org"})[0] == 400


def test_the_program_ends_with_its_last_answer(dumps, contents):
    program = Program("serve.py", dumps["softmax"], "--port", 0)
    program.wait_for("(Ctrl-C ends it)")
    address = re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)", program.stdout.strip())
    port = int(address[1])
    with pytest.raises(UserError, match=f"--port {port}: .*; give another --port"):
        serve.listen("127.0.0.1", port)
    status, answer = classify(port, ("a.png", contents[0]))
    assert status == 200
    assert len(answer["images"][0]["next_best"]) == 2
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=20)
    assert (program.returncode, program.stderr) == (0, "")
