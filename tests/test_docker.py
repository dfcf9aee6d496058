"""What is in docker/: linted and checked against schemas, since no container is built here.

The health check and the start command of the images are run as they stand.
"""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import galip_runtime
import pytest
import yaml
from galip_runtime.serve.__main__ import _parser
from serve_process import READY, Process
from stub_bundle import make_stub_bundle

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
NOT_MANIFESTS = {"kustomization.yaml", "prometheus-adapter.yaml"}
USER = 10001


def tool(name):
    return str(Path(sysconfig.get_path("scripts")) / name)


def run(*command):
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def instructions(path):
    """The instructions of a Dockerfile, (name, rest), in order, each on one line."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last(path, name):
    return [rest for each, rest in instructions(path) if each == name][-1]


def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def manifest(name):
    return yaml.safe_load((DOCKER / "kubernetes" / name).read_text())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path):
    run(tool("hadolint"), "--failure-threshold", "style", str(path))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_safe_by_default(path):
    names = [name for name, _ in instructions(path)]
    assert names.count("FROM") == 2
    assert last(path, "USER") == f"{USER}:{USER}"
    assert names.index("USER") > len(names) - 1 - names[::-1].index("FROM")  # of the last stage
    start = json.loads(last(path, "ENTRYPOINT")) + json.loads(last(path, "CMD"))
    assert start[:3] == ["python", "-m", "galip_runtime.serve"]
    options = _parser().parse_args(start[3:])
    assert options.host == "0.0.0.0"
    assert str(options.api_key_file) == "/run/secrets/galip_keys"
    assert not options.insecure
    assert "add" not in [name.lower() for name in names]
    assert f"ARG VERSION={galip_runtime.__version__}" in path.read_text()
    labels = dict(word.split("=", 1) for word in shlex.split(last(path, "LABEL")))
    assert labels["org.opencontainers.image.licenses"] == "MIT"
    for name, rest in instructions(path):
        if name == "FROM":
            image = rest.split()[0]
            assert image.startswith("${"), "the images are arguments, so that a mirror can be named"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_exists_and_is_not_ignored(path):
    """.dockerignore leaves out everything that it does not name."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    allowed = [line[1:] for line in lines if line.startswith("!")]
    for name, rest in instructions(path):
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed), source


def test_the_same_files_are_packaged_as_in_the_wheel():
    """The build in an image has no more than what is copied: pyproject.toml must not name other files."""
    text = (ROOT / "runtime" / "pyproject.toml").read_text()
    assert 'packages = ["galip_runtime", "default_bundle/galip_default_bundle"]' in text
    assert re.findall(r'^readme = "(.*)"', text, re.MULTILINE) == ["README.md"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_the_health_check_tells_whether_the_service_lives(path, tmp_path):
    command = json.loads(last(path, "HEALTHCHECK").split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    bundle = make_stub_bundle(tmp_path / "bundle")
    environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}

    def rc(port):
        code = command[2].replace(":8000/", f":{port}/")
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=False
        ).returncode

    with Process(bundle, folder=tmp_path) as service:
        assert READY.search(service.log)
        assert rc(service.port) == 0
        assert service.stop() == 0
        assert rc(service.port) != 0


def test_it_runs_where_nothing_but_tmp_can_be_written(tmp_path):
    """As in the image: a bundle and a current folder that are read-only, the cache below /tmp."""
    bundle = make_stub_bundle(tmp_path / "bundle")
    home = tmp_path / "home"
    home.mkdir()
    for file in [*bundle.rglob("*"), bundle, home]:
        file.chmod(0o555 if file.is_dir() else 0o444)
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-enough-characters\n")
    keys.chmod(0o440)  # as Kubernetes mounts a secret
    environment = {"HOME": str(home), "GALIP_CACHE": str(tmp_path / "tmp")}
    with Process(bundle, "--api-key-file", keys, folder=tmp_path, environment=environment) as service:
        key = {"Authorization": "Bearer a-key-of-enough-characters"}
        assert service.draw(headers=key)[0] == 200
        assert service.stop() == 0
    assert not any(home.iterdir())


def test_compose_fits_its_schema():
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(DOCKER / "compose.yaml"))


def test_compose_gives_no_more_than_is_needed():
    services = compose()["services"]
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert not service["image"].endswith(":latest")
    galip = services["galip"]
    assert any(entry.startswith("/tmp") for entry in galip["tmpfs"])
    assert (ROOT / galip["build"]["dockerfile"]).is_file()
    options = _parser().parse_args(galip["command"])
    assert str(options.api_key_file) == "/run/secrets/galip_keys"
    assert float(galip["stop_grace_period"].removesuffix("s")) > options.grace
    assert not (DOCKER / "galip_keys.txt").exists()
    assert "docker/galip_keys.txt" in (ROOT / ".gitignore").read_text()


def test_prometheus_scrapes_the_service_with_its_key():
    services, config = compose()["services"], yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["galip:8000"]}]
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"]["credentials_file"] == "/run/secrets/galip_keys"
    assert "galip_keys" in services["prometheus"]["secrets"]
    assert str(USER) in services["prometheus"]["group_add"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_kubernetes_schema(path):
    if path.name in NOT_MANIFESTS:
        assert yaml.safe_load(path.read_text())
        return
    run(tool("kubernetes-validate"), "--strict", str(path))


def test_the_kustomization_has_every_manifest():
    kustomization = manifest("kustomization.yaml")
    assert set(kustomization["resources"]) == {path.name for path in MANIFESTS} - NOT_MANIFESTS
    (image,) = kustomization["images"]
    assert image["newTag"] == version("galip-runtime")


def test_pods_are_restricted():
    """The rules of the pod security standard `restricted`, and what the service needs."""
    spec = manifest("deployment.yaml")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert spec["securityContext"]["fsGroup"] == USER
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/tmp", "/run/galip"}
    assert next(each["secret"] for each in spec["volumes"] if "secret" in each)["defaultMode"] == 0o440
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    options = _parser().parse_args(container["args"])
    assert str(options.api_key_file) == "/run/galip/keys"
    assert str(options.threads) == container["resources"]["requests"]["cpu"]
    pause = int(re.search(r"sleep\((\d+)\)", container["lifecycle"]["preStop"]["exec"]["command"][-1])[1])
    assert spec["terminationGracePeriodSeconds"] >= options.grace + pause + 10
    for probe, route in (("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": route, "port": "http"}


def test_selectors_and_metrics_agree():
    deployment, scaler = manifest("deployment.yaml"), manifest("autoscaler.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifest("service.yaml")["spec"]["selector"].items() <= labels.items()
    assert manifest("disruption.yaml")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]
    (metric,) = scaler["spec"]["metrics"]
    (rule,) = manifest("prometheus-adapter.yaml")["rules"]["custom"]
    assert metric["pods"]["metric"]["name"] == rule["name"]["as"]
    assert rule["seriesQuery"].startswith(rule["name"]["as"])


def test_no_registry_is_named():
    """Images come from wherever Docker is set up to get them."""
    for path in [*DOCKERFILES, DOCKER / "compose.yaml", *MANIFESTS]:
        text = path.read_text()
        images = re.findall(r"^\s*(?:- )?image: (\S+)|^ARG \w+=(\S+/\S+|python\S+)", text, re.MULTILINE)
        for image in ("".join(pair) for pair in images):
            assert "." not in image.split("/")[0].split(":")[0], image
