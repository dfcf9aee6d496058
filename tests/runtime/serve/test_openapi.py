"""`/openapi.json` and `/docs`: what they say is what the service does, and nothing comes from elsewhere."""

import re

import jsonschema
import pytest
import schemathesis
from galip_runtime.noise import MAX_SEED
from galip_runtime.serve.app import create_app
from galip_runtime.serve.settings import ServeSettings
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from serve_answers import GENERATIONS
from starlette.testclient import TestClient

DRAWING = (GENERATIONS, "/v1/picture", "/v1/interpolations")


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json").json()


def schema_of(document, name):
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_the_description_has_this_services_limits(document, model):
    schemas = document["components"]["schemas"]
    text = str(schemas["GenerationRequest"])
    assert "'8x8'" in text
    assert f"galip-{model.digest[:12]}" in text
    assert "'maximum': 10" in text
    assert schemas["InterpolationRequest"]["properties"]["steps"]["maximum"] == 64
    assert "HTTPValidationError" not in schemas


def test_the_limit_of_a_seed_is_an_integer(client):
    assert f'"exclusiveMaximum":{MAX_SEED + 1}' in client.get("/openapi.json").text


def test_every_route_of_the_service_is_described(document):
    assert set(document["paths"]) == {
        GENERATIONS,
        "/v1/picture",
        "/v1/interpolations",
        "/v1/models",
        "/v1/models/{model_id}",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert ("429" in operation["responses"]) == (
                path in (GENERATIONS, "/v1/picture", "/v1/interpolations")
            )


@pytest.mark.parametrize(
    ("seed", "fits"),
    [(0, True), (MAX_SEED, True), (-1, False), (MAX_SEED + 1, False), (1.5, False), (None, True)]
    + [(text, True) for text in ("0", "7", "18446744073709551615", "9999999999999999999")]
    + [
        (text, False) for text in ("", "-1", "07", "1.0", "18446744073709551616", "99999999999999999999", "x")
    ],
)
def test_the_schema_of_a_seed_is_exact(client, document, seed, fits):
    body = {"prompt": "a", "seed": seed}
    validator = jsonschema.Draft202012Validator(schema_of(document, "GenerationRequest"))
    assert validator.is_valid(body) == fits
    assert (client.post(GENERATIONS, json=body).status_code == 200) == fits


@pytest.mark.parametrize("prompts", range(6))
@pytest.mark.parametrize("seeds", [None, 0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "more", [{}, {"square": True}, {"seed": 1}, {"steps": 9}, {"square": False, "steps": 65}]
)
def test_the_schema_of_interpolations_is_exact(client, document, prompts, seeds, more):
    body = {"prompts": ["a"] * prompts, "steps": 2} | more
    if seeds is not None:
        body["seeds"] = [1] * seeds
    validator = jsonschema.Draft202012Validator(schema_of(document, "InterpolationRequest"))
    answered = client.post("/v1/interpolations", json=body).status_code
    assert answered == (200 if validator.is_valid(body) else 400)


def test_a_key_is_part_of_the_description_where_one_is_asked_for(start, document, tmp_path):
    assert "securitySchemes" not in document["components"]
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text("a-key-of-sixteen-characters")
    described = start(api_key_file=path).get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert described["paths"][GENERATIONS]["post"]["security"] == [{"key": []}]
    assert "security" not in described["paths"]["/healthz"]["get"]


def test_the_documentation_comes_from_the_service_alone(client):
    page = client.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(addresses) == 3
    for address in addresses:
        assert not address.startswith(("/", "http"))
        assert client.get(f"/{address}").status_code == 200
    assert "http" not in re.sub("<!--.*?-->", "", page.text)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]


def test_schemathesis_finds_no_answer_that_is_not_described(model):
    """A short run; `st run` on a running service takes as long as one likes."""
    app = create_app(ServeSettings(), model)
    with TestClient(app, "http://localhost"):  # runs the lifespan, which schemathesis does not
        schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "localhost"})
        for result in schema.get_all_operations():
            operation = result.ok()
            check_operation(operation, GenerationMode.POSITIVE)
            if operation.path in DRAWING:
                check_operation(operation, GenerationMode.NEGATIVE)


def check_operation(operation, mode):
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=15,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case):
        case.call_and_validate(headers={"Host": "localhost"})

    check()
