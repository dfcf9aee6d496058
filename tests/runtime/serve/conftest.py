"""Fixtures of the service's tests: the app on the stub bundle, and clients of it."""

from contextlib import ExitStack

import pytest
from galip_runtime.serve.app import create_app
from galip_runtime.serve.settings import ServeSettings
from starlette.testclient import TestClient


@pytest.fixture
def start(model):
    """`start(model, keys=…, **settings)`: a client of an app that has started; it ends with the test."""
    with ExitStack() as stack:

        def started(model=model, **settings):
            app = create_app(ServeSettings(**settings), model)
            client = TestClient(
                app, "http://localhost", raise_server_exceptions=False, follow_redirects=False
            )
            return stack.enter_context(client)

        yield started


@pytest.fixture(scope="module")
def client(model):
    """A client of an app with the default settings, for all tests of a file."""
    app = create_app(ServeSettings(), model)
    with TestClient(app, "http://localhost", raise_server_exceptions=False, follow_redirects=False) as client:
        yield client
