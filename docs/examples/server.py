"""A server of one's own: POST a picture's bytes to /classify, and the five most probable classes come back as JSON.

    pip install numpy onnxruntime pillow starlette uvicorn
    MODEL=models/photos-small-data/model.onnx uvicorn server:app

It needs the ONNX file and nothing else of alexnet.
"""

import asyncio
import io
import json
import os

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

MAX_BYTES = 20_000_000
MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
AT_A_TIME = 2  # pictures that are decoded, which takes up to 500 MB each; a proxy before it bounds the uploads


class Classifier:
    """The model of an ONNX file."""

    def __init__(self, path: str) -> None:
        # With a GPU: ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(facts["classes"])
        self.words: dict[str, str] = json.loads(facts["words"])  # for labels that are WordNet ids
        self.size = self.session.get_inputs()[0].shape[1]  # 256, unless the recipe has another

    def classify(self, content: bytes, top: int = 5) -> list[dict[str, object]]:
        """The most probable classes of a picture. Raises OSError or ValueError if ``content`` is no picture."""
        image = as_input(content, self.size)[None]  # (1, 256, 256, 3)
        (probabilities,) = self.session.run(["probabilities"], {"image": image})  # (1, classes)
        best = np.argsort(-probabilities[0], kind="stable")[:top]
        labels = [self.classes[i] for i in best]
        return [
            {"label": label, "name": self.words.get(label, label), "probability": float(probabilities[0, i])}
            for i, label in zip(best, labels, strict=True)
        ]


def as_input(content: bytes, size: int) -> np.ndarray:
    """A picture as `alexnet prep` makes it: the shorter side to ``size``, the central square, (size, size, 3) uint8."""
    opened = Image.open(io.BytesIO(content), formats=FORMATS)  # which reads its size, and no pixels yet
    if opened.width * opened.height > MAX_PIXELS:
        raise ValueError(f"more than {MAX_PIXELS:,} pixels")
    picture = ImageOps.exif_transpose(opened).convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BILINEAR))


def create_app(path: str) -> Starlette:
    """The server's routes, for the model in the ONNX file ``path``."""
    classifier, places = Classifier(path), asyncio.Semaphore(AT_A_TIME)

    async def classify(request: Request) -> JSONResponse:
        content = bytearray()
        try:
            async for chunk in request.stream():
                content += chunk
                if len(content) > MAX_BYTES:
                    return JSONResponse({"error": f"more than {MAX_BYTES:,} bytes"}, 413)
            async with places:  # other requests go on meanwhile
                classes = await run_in_threadpool(classifier.classify, bytes(content))
        except ClientDisconnect:
            return JSONResponse({"error": "the picture did not come to its end"}, 400)
        except Exception:  # Pillow raises all kinds of errors on damaged pictures
            return JSONResponse({"error": "not a picture that can be read"}, 400)
        return JSONResponse({"classes": classes})

    return Starlette(routes=[Route("/classify", classify, methods=["POST"])])


if "MODEL" in os.environ:
    app = create_app(os.environ["MODEL"])
