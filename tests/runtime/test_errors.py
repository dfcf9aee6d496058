"""The tree of errors and their exit codes."""

import re

import galip_runtime
from galip_runtime import errors


def test_the_documented_tree_is_the_tree():
    documented = re.findall(r"(\w+)(?: \(\w+Error\))?\s+exit code (\d)", errors.__doc__)
    codes = {name: int(code) for name, code in documented}
    assert codes == {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert codes == {
        "GalipError": 1,
        "UsageError": 2,
        "QualityGateFailed": 3,
        "FileRefused": 4,
        "ProviderUnavailable": 5,
        "ServiceUnavailable": 5,
        "DeadlineExceeded": 5,
    }


def test_all_are_galip_errors():
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), galip_runtime.GalipError)
    assert issubclass(galip_runtime.UsageError, ValueError)


def test_exports_of_the_package():
    for name in galip_runtime.__all__:
        assert getattr(galip_runtime, name) is not None
    assert set(galip_runtime.__all__) <= set(dir(galip_runtime))
