"""Running the command inside the test's process."""

import pytest
from runtime.stub_bundle import make_stub_bundle

from galip.cli import main


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_stub_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


@pytest.fixture
def run(capsys):
    """Runs the command here; gives its exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return done.value.code, output.out, output.err

    return call


@pytest.fixture
def fail(run):
    """Runs a command that a user got wrong; gives stderr."""

    def call(code, *arguments):
        actual, out, err = run(*arguments)
        assert actual == code, err
        assert out == ""
        assert "Traceback" not in err
        assert "\ngalip: " in "\n" + err  # progress may come before it
        return err

    return call
