"""Clients of `galip serve`: the methods of a loaded model, drawn by a service elsewhere.

    from galip_runtime.client import Client

    with Client("http://127.0.0.1:8000") as client:
        pictures = client.generate(["a red apple"], seeds=[7])  # uint8 (N, H, W, 3)

They need httpx and Pillow, the extra [client], and no onnxruntime.
"""

from galip_runtime.client.asynchronous import AsyncClient
from galip_runtime.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]
