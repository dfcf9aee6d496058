"""The checks of errors find what they are to find: tests that rely on them must be able to fail."""

import pytest
from error_checks import expect_error, is_named
from galip_runtime import FileRefused, ProviderUnavailable, UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed -1 is too small", -1),
        ("at most 100,000 characters", 100_000),
        ("GPU 2.", 2),
        ('pip install "onnxruntime>=1.22"', "onnxruntime>=1.22"),
        ("/tmp/run-0/bundle/generator.onnx was cut", "generator.onnx"),
    ],
)
def test_named_values(text, value):
    assert is_named(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12 rows", 2),
        ("/tmp/run-0/bundle", 0),
        ("version 1.2", 2),
        ("2.5", 2),
        ("cuda-bindings", "cuda"),
        ("", "x"),
    ],
)
def test_values_inside_longer_words_do_not_count(text, value):
    assert not is_named(text, value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (UsageError, ()),
        (ProviderUnavailable, ()),
        (FileRefused, ("generator.onnx",)),
        (FileRefused, ("a", "b")),
    ],
)
def test_another_error_fails_the_test(kind, values):
    def check():
        with expect_error(kind, *values):
            raise FileRefused("a is broken")

    with pytest.raises((AssertionError, FileRefused)):
        check()


def test_no_error_fails_the_test():
    def check():
        with expect_error(UsageError):
            pass

    with pytest.raises(pytest.fail.Exception):
        check()
