"""Helpers of the service's tests: what answers hold."""

import base64
import io

import numpy as np
from PIL import Image

GENERATIONS = "/v1/images/generations"


def pixels(data):
    """The picture of a file, uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def pictures_of(response):
    """The pictures of an answer to GENERATIONS, uint8 (N, H, W, 3)."""
    assert response.status_code == 200, response.text
    return np.stack([pixels(base64.b64decode(entry["b64_json"])) for entry in response.json()["data"]])


def error_of(response, status, code=None, param=None):
    """Check an answer's status and error, and return the error."""
    assert response.status_code == status, (response.status_code, response.text)
    assert response.headers["Content-Type"] == "application/json"
    error = response.json()["error"]
    assert set(error) - {"id"} == {"message", "type", "param", "code"}
    assert code in (None, error["code"])
    assert error["param"] == param
    return error
