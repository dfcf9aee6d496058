"""A loaded model in forked processes, in copies and in pickles."""

import copy
import os
import pickle
import shutil
import subprocess
import sys
import threading

import galip_runtime
import numpy as np
import pytest
from error_checks import assert_names, expect_error
from galip_runtime import FileRefused
from galip_runtime.forks import Lock
from stub_bundle import make_stub_bundle

DEVICES = ("cpu", "openvino")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")

CHILD = """
import gc, multiprocessing, os, sys, threading
import galip_runtime
model = galip_runtime.load(sys.argv[1], device=sys.argv[2], threads=2)
first = model.generate("red", [1, 2, 3])
if sys.argv[3] == "busy":
    def generate():
        while True:
            model.generate("red", [4])
    threading.Thread(target=generate, daemon=True).start()
os.chdir("/")
pid = os.fork()
if pid == 0:
    if sys.argv[3] == "del":
        del model
        gc.collect()
    elif sys.argv[3] != "exit":
        assert (model.generate("red", [1, 2, 3]) == first).all()
    if sys.argv[3] == "grandchild":
        grandchild = os.fork()
        if grandchild == 0:
            assert (model.generate("the", [1]) == model.generate("the", [1])).all()
            sys.exit(0)
        assert os.waitpid(grandchild, 0)[1] == 0
    if sys.argv[3] == "_exit":
        os._exit(0)
    sys.exit(0)
code = os.waitpid(pid, 0)[1]
assert (model.generate("red", [1, 2, 3]) == first).all()
print("ended", code, flush=True)
os._exit(0)
"""


@forks
@pytest.mark.parametrize("action", ["generate", "exit", "del", "_exit", "grandchild", "busy"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_forked_child_generates_the_same_and_ends(bundle, device, action):
    relative = os.path.relpath(bundle)
    process = subprocess.run(
        [sys.executable, "-c", CHILD, relative, device, action], capture_output=True, text=True, timeout=120
    )
    assert process.stdout == "ended 0\n", process.stderr


LOADING = """
import os, sys, threading
import galip_runtime
model = galip_runtime.load(sys.argv[1], device=sys.argv[2], threads=2)
first, models = model.generate("red", [1, 2, 3]), []
def load():
    while True:
        models.append(galip_runtime.load(sys.argv[1], device=sys.argv[2], threads=2))
threading.Thread(target=load, daemon=True).start()
codes = []
for _ in range(5):
    if (pid := os.fork()) == 0:
        os._exit(0 if (model.generate("red", [1, 2, 3]) == first).all() else 1)
    codes.append(os.waitpid(pid, 0)[1])
print("ended", codes, flush=True)
os._exit(0)
"""


@forks
@pytest.mark.parametrize("device", DEVICES)
def test_a_child_forked_while_another_thread_loads(bundle, device):
    process = subprocess.run(
        [sys.executable, "-c", LOADING, str(bundle), device], capture_output=True, text=True, timeout=120
    )
    assert process.stdout == "ended [0, 0, 0, 0, 0]\n", process.stderr


FREED = """
import os, sys
import galip_runtime
model, other = (galip_runtime.load(sys.argv[1], device=sys.argv[2], threads=2) for _ in range(2))
first = model.generate("red", [1, 2, 3])
del other
if (pid := os.fork()) == 0:
    try:
        os._exit(0 if (model.generate("red", [1, 2, 3]) == first).all() else 1)
    except galip_runtime.ProviderUnavailable as error:
        print(error, flush=True)
        os._exit(5)
code = os.waitpid(pid, 0)[1]
assert (galip_runtime.load(sys.argv[1], device=sys.argv[2]).generate("red", [1, 2, 3]) == first).all()
os._exit(os.waitstatus_to_exitcode(code))
"""


@forks
@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("openvino", 5)])
def test_a_child_forked_after_a_model_was_freed(bundle, device, code):
    """OpenVINO would wait for ever there."""
    process = subprocess.run(
        [sys.executable, "-c", FREED, str(bundle), device], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == code, process.stderr
    if code:
        assert_names(process.stdout, "spawn", "cpu")  # what to use instead


@forks
def test_a_child_does_not_open_a_graph_that_has_changed(bundle):
    code = f"""
import os, galip_runtime
model = galip_runtime.load({str(bundle)!r}, device="cpu")
os.utime({str(bundle / "generator.onnx")!r}, (1, 1))
pid = os.fork()
if pid == 0:
    try:
        model.generate("red", 1)
    except galip_runtime.FileRefused:
        os._exit(4)
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 4


@forks
def test_a_lock_held_at_a_fork_is_free_in_the_child():
    lock, locked, end = Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            locked.set()
            end.wait()

    threading.Thread(target=hold).start()
    locked.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    code = os.waitpid(pid, 0)[1]
    end.set()
    assert code == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_a_copy_is_loaded_from_the_same_folder(bundle, device, duplicate):
    model = galip_runtime.load(bundle, device=device, threads=1)
    other = duplicate(model)
    assert other._runners["generator"] is not model._runners["generator"]
    assert other.info() == model.info()
    assert np.array_equal(other.generate("red", [1, 2]), model.generate("red", [1, 2]))


def test_a_pickled_model_is_loaded_from_another_working_folder(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(bundle.parent)
    model = galip_runtime.load(bundle.name, device="cpu")
    data = pickle.dumps(model)
    monkeypatch.chdir("/")
    assert np.array_equal(pickle.loads(data).generate("red", 1), model.generate("red", 1))


def test_a_pickled_model_of_a_removed_or_another_bundle_is_refused(bundle):
    data = pickle.dumps(galip_runtime.load(bundle, device="cpu"))
    shutil.rmtree(bundle)
    with expect_error(FileRefused, bundle / "manifest.json"):
        pickle.loads(data)
    make_stub_bundle(bundle, image_size=16)
    with expect_error(FileRefused, bundle):
        pickle.loads(data)
