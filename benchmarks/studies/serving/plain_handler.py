"""A service as one writes it in ten minutes, to compare with: `uvicorn studies.serving.plain_handler:app`.

FastAPI calls the handler in a thread for each request. `BUNDLE` names the bundle.
"""

import io
import os

import galip_runtime
from fastapi import FastAPI, Response

app = FastAPI()
model = galip_runtime.load(os.environ.get("BUNDLE"), device="cpu")


@app.get("/v1/picture")
def picture(prompt: str, seed: int) -> Response:
    """Return a picture as a PNG file."""
    (image,) = model.generate(prompt, seed=seed, as_pil=True)
    data = io.BytesIO()
    image.save(data, "PNG")
    return Response(data.getvalue(), media_type="image/png")


@app.get("/readyz")
def ready() -> str:
    """Answer."""
    return "ready"
