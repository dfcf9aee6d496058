"""The service as a Ray Serve deployment: two replicas on a cluster of two nodes on this machine."""

import base64
import http.client
import io
import json
import socket
from pathlib import Path

import numpy as np
import pytest
import yaml
from galip_runtime.errors import UsageError
from galip_runtime.ray_cluster import connect
from galip_runtime.serve.ray_app import NAME, build, replica_options, settings_of
from galip_runtime.serve.settings import ServeSettings
from PIL import Image
from ray_nodes import nodes_of_ray
from serve_process import Background, until

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
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in json.loads(data)["data"]
    ]
    return np.stack([np.asarray(picture) for picture in pictures])


@pytest.fixture(scope="module")
def service(shared_bundle):
    """The port of Ray's proxy before two replicas, one on each node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with nodes_of_ray(cpus=1) as cluster, connect(cluster.address):
        from ray import serve

        serve.start(http_options={"host": "127.0.0.1", "port": port})
        arguments = {"bundle": str(shared_bundle), "device": "cpu", "threads": "1", "queue": 8}
        serve.run(build({**arguments, "min_replicas": 2, "max_replicas": 2}), name="galip", route_prefix="/")
        yield port
        serve.shutdown()


def replicas():
    """The names of the replicas' actors."""
    import ray

    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["name"].startswith("SERVE_REPLICA::")}


def running():
    from ray import serve

    (application,) = serve.status().applications.values()
    return application.deployments[NAME].replica_states.get("RUNNING", 0)


def test_pictures_are_the_model_s(service, model):
    assert running() == 2
    expected = model.generate(["a red apple"] * 3, seeds=[5, 6, 7])
    for _ in range(4):  # of either replica
        np.testing.assert_array_equal(draw(service, seed=5, n=3), expected)


def test_routes_without_pictures(service):
    for path in ("/healthz", "/readyz", "/v1/models", "/metrics", "/openapi.json"):
        assert request(service, "GET", path)[0] == 200, path
    status, _, data = request(service, "GET", "/nothing")
    assert status == 404
    assert "error" in json.loads(data)


def test_beyond_the_queue_is_429(service):
    statuses = []

    def ask(index):
        body = {"prompt": "x", "n": 8, "seed": index}
        statuses.append(request(service, "POST", "/v1/images/generations", body)[0])

    Background(ask, 24).join()
    assert len(statuses) == 24
    assert 200 in statuses
    assert set(statuses) <= {200, 429}


def test_a_killed_replica_is_replaced(service, model):
    import ray

    before = replicas()
    assert len(before) == 2
    victim = sorted(before)[0]
    ray.kill(ray.get_actor(victim, namespace="serve"))
    until(lambda: victim not in replicas() and len(replicas()) == 2 and running() == 2, 120)
    assert len(replicas() & before) == 1
    expected = model.generate(["a red apple"], seeds=[9])
    np.testing.assert_array_equal(draw(service, seed=9), expected)


def test_settings_of_a_replica(shared_bundle):
    settings = settings_of(
        {"bundle": str(shared_bundle), "queue": "16", "max_wait_ms": "2.5", "insecure": "true"}
    )
    assert (settings.bundle, settings.queue, settings.max_wait_ms) == (shared_bundle, 16, 2.5)
    assert settings.insecure is True
    assert settings.threads == 2
    assert settings_of({"cors": "https://a.example,https://b.example"}).cors[1] == "https://b.example"
    for name, wrong in (("port", 80), ("workers", 2), ("qeue", 3), ("queue", "many"), ("queue", 0)):
        with pytest.raises(UsageError, match=name):
            settings_of({name: wrong})


def test_what_ray_is_told(shared_bundle):
    settings = ServeSettings(
        bundle=shared_bundle, device="cuda:1", threads=3, queue=32, grace=12.5, max_batch=4
    )
    options = replica_options(settings, 2, 1)
    assert options["ray_actor_options"] == {"num_cpus": 3, "num_gpus": 1}
    assert options["max_ongoing_requests"] > settings.queue
    assert options["graceful_shutdown_timeout_s"] > settings.grace
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 2)


def test_the_ready_configuration_is_valid():
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load((ROOT / "docker" / "ray-serve.yaml").read_text())
    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    settings = settings_of(application.args)
    (deployment,) = config["applications"][0]["deployments"]
    defaults = replica_options(settings, 2, 8)
    assert deployment["name"] == NAME
    assert deployment.keys() - {"name"} <= defaults.keys()
    assert deployment["max_ongoing_requests"] == defaults["max_ongoing_requests"]
    assert deployment["max_queued_requests"] == defaults["max_queued_requests"]
    assert deployment["graceful_shutdown_timeout_s"] == defaults["graceful_shutdown_timeout_s"]
    assert deployment["ray_actor_options"]["num_cpus"] == settings.threads
    assert deployment["autoscaling_config"]["target_ongoing_requests"] == 2 * settings.max_batch
