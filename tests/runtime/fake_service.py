"""`galip serve` as a transport of httpx: it draws with a model, and fails on demand."""

import base64
import json

import httpx
from galip_runtime.image import encode_png, grid


class FakeService:
    """Answers as the service does. `failures`: what to answer or raise first, one a request to draw."""

    def __init__(self, model, max_images=3):
        self.model, self.max_images = model, max_images
        self.failures = []
        self.requests = []

    @property
    def sent(self):
        """The bodies of the requests to draw."""
        return [json.loads(request.content) for request in self.requests if request.method == "POST"]

    def transport(self):
        return httpx.MockTransport(self.answer)

    def answer(self, request):
        self.requests.append(request)
        if self.failures and request.method == "POST":
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return httpx.Response(failure.status_code, headers=failure.headers, content=failure.content)
        if request.url.path.endswith("/v1/models"):
            size = self.model.dimensions
            entry = {"id": "galip-1", "size": f"{size.image_width}x{size.image_height}"}
            return httpx.Response(200, json={"data": [entry | {"max_images": self.max_images}]})
        body = json.loads(request.content)
        if request.url.path.endswith("/v1/interpolations"):
            return self.interpolations(body)
        return self.pictures(body)

    def pictures(self, body):
        assert len(body["seeds"]) <= self.max_images
        files = [
            self.model.png(body["prompt"], seed, truncation=body.get("truncation")) for seed in body["seeds"]
        ]
        data = [{"b64_json": base64.b64encode(file).decode()} for file in files]
        return httpx.Response(200, json={"data": data})

    def interpolations(self, body):
        assert body["output_format"] == "sheet"
        pictures = self.model.interpolate(
            body["prompts"],
            body["steps"],
            seeds=body["seeds"],
            square=body["square"],
            truncation=body.get("truncation"),
        )
        return httpx.Response(200, content=encode_png(grid(pictures, body["columns"], body["gap"])))


def error(status, message="what was wrong", **headers):
    """An error in the service's form."""
    return httpx.Response(status, json={"error": {"message": message}}, headers=headers)
