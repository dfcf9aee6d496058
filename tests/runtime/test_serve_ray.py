"""The service as a Ray Serve deployment: two replicas on a cluster of two nodes on this machine."""

import base64
import http.client
import io
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from galip_runtime.errors import UsageError
from galip_runtime.ray_cluster import connect
from galip_runtime.serve.ray_app import NAME, build, replica_options, settings_of
from galip_runtime.serve.settings import ServeSettings
from PIL import Image
from ray_nodes import nodes_of_ray
from serve_process import until

pytestmark = pytest.mark.xdist_group("ray")

ROOT = Path(__file__).parents[2]


def request(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def draw(port, **fields):
    status, _, data = request(port, "POST", "/v1/images/generations", {"prompt": "a red apple", **fields})
    assert status == 200, data
    pictures = [Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in json.loads(data)["data"]]
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.fixture(scope="module")
def service(shared_bundle):
    """The port of Ray's proxy before two replicas."""
    from ray import serve

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with nodes_of_ray(cpus=1) as cluster, connect(cluster.address):
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        application = build({"bundle": str(shared_bundle), "device": "cpu", "threads": "1", "queue": 8})
        _run(application)
        yield port
        serve.shutdown()


def _run(application):
    from ray import serve

    serve.run(application, name="galip", route_prefix="/")


def replicas():
    from ray.util.state import list_actors

    return list_actors(filters=[("state", "=", "ALIVE")])


def test_pictures_are_the_model_s(service, model):
    expected = model.generate(["a red apple"] * 3, seeds=[5, 6, 7])
    for _ in range(4):  # of either replica
        np.testing.assert_array_equal(draw(service, seed=5, n=3), expected)
