"""A page to drop images on, and the same for programs: `POST /classify`."""

import asyncio
import base64
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from deployment.batching import Batcher
from deployment.labels import as_json, best_labels
from utils import UserError, one_line

_PAGE = Path(__file__).parent / "page"
# Nothing but this server's own files, and pictures that the page has already.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Around a file in a form: its name and boundaries.
_AROUND = 4096
# Requests that are received and answered at a time; so much disk and memory do images take.
_AT_ONCE = 32
_HOW = "send images as files of a form, as `curl -F image=@photo.jpg` does"
_BUSY = {"Retry-After": "1"}


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        waiting: Requests at a time; who comes then is told to come again (503).
        images: In a request.
        bytes: Of a request's images together.
        seconds: In which a request has to arrive.
        start: Seconds after which it must have come with `rate` or faster; whoever sends nothing
            keeps its place no longer than that.
        rate: Bytes a second.
    """

    waiting: int = 256
    images: int = 16
    bytes: int = 20_000_000
    seconds: float = 30.0
    start: float = 2.0
    rate: float = 50_000.0

    def allowed(self, size: int) -> float:
        """Seconds that a request may take of which `size` bytes have arrived."""
        return min(self.seconds, self.start + size / self.rate)

    @property
    def request_bytes(self) -> int:
        """Bytes of a whole request, in which names and boundaries are around the images."""
        return self.bytes + self.images * _AROUND


def make_app(
    batcher: Batcher,
    facts: dict[str, Any],
    limits: Limits,
    top_k: int,
    hosts: Sequence[str] = ("*",),
) -> Starlette:
    """The server as an ASGI application.

    Args:
        batcher: Computes the scores; it runs already.
        facts: What `/model` tells, a JSON object.
        limits: What it takes.
        top_k: Classes in an answer.
        hosts: By which names it may be addressed, so that no web page of another name can.
    """
    service = _Service(batcher, limits, top_k)
    told = facts | {"max_bytes": limits.bytes, "explains": batcher.explain is not None}

    async def model(_):
        return _Answer(told, headers=_HEADERS)

    def file(name):
        async def send(_):
            return FileResponse(_PAGE / name, headers=_HEADERS)

        return send

    routes = [
        Route("/", file("index.html")),
        Route("/page.css", file("page.css")),
        Route("/page.js", file("page.js")),
        Route("/model", model),
        Route("/classify", service.classify, methods=["POST"]),
    ]
    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))]
    errors = {HTTPException: _explained}
    return Starlette(routes=routes, middleware=middleware, exception_handlers=errors)


async def _explained(_, error: HTTPException) -> JSONResponse:
    headers = _HEADERS | dict(error.headers or {})
    return _Answer({"error": error.detail}, error.status_code, headers)


class _Answer(JSONResponse):
    """JSON in ASCII, which can hold whatever is in the names of a foreign model."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode()


class _Bounded(Request):
    """A request whose body ends with an error when it is too large.

    Attributes:
        limits: What is too large.
        arrived: Is told how many bytes there are so far.
    """

    limits: Limits
    arrived: Callable[[int], None]

    async def stream(self):
        size = 0
        async for chunk in super().stream():
            size += len(chunk)
            if size > self.limits.request_bytes:
                raise _too_large(self.limits)
            self.arrived(size)
            yield chunk


def _too_large(limits: Limits) -> HTTPException:
    # What is left of it is not read.
    return HTTPException(
        413, f"more than {limits.bytes / 1e6:g} MB; send smaller images", {"Connection": "close"}
    )


class _Service:
    def __init__(self, batcher: Batcher, limits: Limits, top_k: int):
        self.batcher, self.limits, self.top_k = batcher, limits, top_k
        self.waiting = 0
        self.slots = asyncio.Semaphore(_AT_ONCE)
        # What a thread has freed of a large image, the C library keeps for it.
        self.readers = ThreadPoolExecutor(min(4, os.cpu_count() or 1))

    async def classify(self, request: Request) -> JSONResponse:
        """Labels the images of a form; those that cannot be read have an error in their place."""
        if self.waiting >= self.limits.waiting:
            raise HTTPException(503, "too many requests wait already; come again", _BUSY)
        self.waiting += 1
        try:
            explain = request.query_params.get("explain") == "1"
            if explain and self.batcher.explain is None:
                raise HTTPException(400, "of this model nothing says where it looks")
            async with self.slots:
                answers = await self._answers(request, explain)
            return _Answer({"images": answers}, headers=_HEADERS)
        finally:
            self.waiting -= 1

    async def _answers(self, request: Request, explain: bool) -> list[dict[str, Any]]:
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.request_bytes:
            raise _too_large(self.limits)
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(415, _HOW)
        bounded = _Bounded(request.scope, request.receive)
        bounded.limits = self.limits
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(began + self.limits.allowed(0)) as end:
                bounded.arrived = lambda size: end.reschedule(began + self.limits.allowed(size))
                form = await bounded.form(max_files=self.limits.images, max_fields=0)
        except ClientDisconnect:
            raise HTTPException(400, "the request ended before it was whole") from None
        except TimeoutError:
            raise HTTPException(
                408,
                f"the request comes too slowly: expected {self.limits.rate / 1000:g} kB a second, "
                f"and all of it in {self.limits.seconds:g} s",
            ) from None
        try:
            uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not uploads:
                raise HTTPException(400, f"no images; {_HOW}")
            return await asyncio.gather(*(self._answer(upload, explain) for upload in uploads))
        finally:
            await form.close()

    async def _answer(self, upload: UploadFile, explain: bool) -> dict[str, Any]:
        name = os.path.basename((upload.filename or "image").replace("\\", "/"))
        try:
            reading = asyncio.get_running_loop().run_in_executor(self.readers, self._read, upload)
            views = await reading
        except UserError as error:
            return {"name": name, "error": one_line(error)}
        scores = await asyncio.wrap_future(self.batcher.scores(views))
        names = self.batcher.models[0].class_names
        answer = {"name": name, **as_json(best_labels(scores, names, self.top_k))}
        if explain:
            best = int(scores.argmax())
            attention = await asyncio.wrap_future(self.batcher.attention(views[0], best))
            answer["attention"] = await asyncio.to_thread(_picture, views[0], attention)
        return answer

    def _read(self, upload: UploadFile) -> list[np.ndarray]:
        with tempfile.NamedTemporaryFile() as file:
            shutil.copyfileobj(upload.file, file)
            file.flush()
            try:
                return self.batcher.views(file.name)
            except UserError as error:
                text = str(error).removeprefix(f"{file.name}: ")
                raise UserError(text.replace(file.name, "the file")) from None


def _picture(view: np.ndarray, attention: np.ndarray) -> str:
    """What the network saw, in grey and red where it looked, as a PNG in a `data:` address."""
    side = max(224, view.shape[0])
    # In grey, as red on a red flower says nothing.
    grey_view = Image.fromarray(view).convert("L").convert("RGB")
    image = grey_view.resize((side, side), Image.Resampling.NEAREST)
    grey = Image.fromarray((attention * 160).astype(np.uint8))
    mask = grey.resize((side, side), Image.Resampling.BILINEAR)
    image.paste((255, 40, 0), mask=mask)
    file = io.BytesIO()
    image.save(file, "png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
