"""`/metrics`: one registry for each app, and one for all worker processes where they share a folder."""

import subprocess
import sys
from pathlib import Path

from serve_answers import GENERATIONS

WORKER = """
import sys
import galip_runtime
from galip_runtime.serve.app import create_app
from galip_runtime.serve.settings import ServeSettings
from starlette.testclient import TestClient

model = galip_runtime.load(sys.argv[1], device="cpu", threads=1)
with TestClient(create_app(ServeSettings(), model), "http://localhost") as client:
    for _ in range(int(sys.argv[2])):
        assert client.post("/v1/images/generations", json={"prompt": "a", "n": 2}).status_code == 200
    print(client.get("/metrics").text)
"""


def test_each_app_counts_for_itself(start):
    first, second = start(), start()
    first.post(GENERATIONS, json={"prompt": "a"})
    assert "galip_pictures_total 1.0" in first.get("/metrics").text
    assert "galip_pictures_total 0.0" in second.get("/metrics").text


def test_requests_are_counted_by_route_and_status(start):
    client = start()
    for path in ("/v1/models/galip", "/v1/models/other", "/nothing/1", "/nothing/2"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'galip_requests_total{route="/v1/models/{model_id}",status="200"} 1.0' in text
    assert 'galip_requests_total{route="/v1/models/{model_id}",status="404"} 1.0' in text
    assert 'galip_requests_total{route="other",status="404"} 2.0' in text  # bounded, whatever is asked for
    assert 'galip_rejected_total{reason="not_found"} 2.0' in text


def test_workers_that_share_a_folder_are_added_up(shared_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    texts = [
        subprocess.run(
            [sys.executable, "-c", WORKER, str(shared_bundle), str(count)],
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        ).stdout
        for count in (1, 2)
    ]
    assert "galip_pictures_total 2.0" in texts[0]
    assert "galip_pictures_total 6.0" in texts[1]
    assert 'galip_request_seconds_count{phase="total"} 3.0' in texts[1]
    assert "galip_queue_length 0.0" in texts[1]
    assert list(Path(tmp_path).glob("*.db"))
