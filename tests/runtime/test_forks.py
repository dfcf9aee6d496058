"""A loaded model in forked, spawned and copied form."""

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
    def draw():
        while True:
            model.generate("red", [4])
    threading.Thread(target=draw, daemon=True).start()
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
@pytest.mark.parametrize("how", ["draw", "exit", "del", "_exit", "grandchild", "busy"])
@pytest.mark.parametrize("device", DEVICES)
def test_a_forked_child_draws_the_same_and_ends(bundle, device, how):
    relative = os.path.relpath(bundle)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, relative, device, how], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "ended 0\n", done.stderr


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
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(bundle), device], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "ended [0, 0, 0, 0, 0]\n", done.stderr


GIVEN_BACK = """
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
def test_a_child_forked_after_a_model_was_given_back(bundle, device, code):
    """OpenVINO would wait for ever there."""
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_BACK, str(bundle), device], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, done.stderr
    assert ("spawn" in done.stdout) == (code == 5)


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
    lock, taken, done = Lock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            done.wait()

    threading.Thread(target=hold).start()
    taken.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if lock.acquire(timeout=5) else 1)
    code = os.waitpid(pid, 0)[1]
    done.set()
    assert code == 0


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_loaded_from_the_same_folder(bundle, device, again):
    model = galip_runtime.load(bundle, device=device, threads=1)
    other = again(model)
    assert other._runners["generator"] is not model._runners["generator"]
    assert other.info() == model.info()
    assert np.array_equal(other.generate("red", [1, 2]), model.generate("red", [1, 2]))


def test_a_pickled_model_is_read_in_another_folder(bundle, monkeypatch, tmp_path):
    monkeypatch.chdir(bundle.parent)
    model = galip_runtime.load(bundle.name, device="cpu")
    data = pickle.dumps(model)
    monkeypatch.chdir("/")
    assert np.array_equal(pickle.loads(data).generate("red", 1), model.generate("red", 1))


def test_what_was_pickled_of_a_bundle_that_is_gone_or_another_is_refused(bundle):
    data = pickle.dumps(galip_runtime.load(bundle, device="cpu"))
    shutil.rmtree(bundle)
    with pytest.raises(FileRefused, match=r"cannot be read|does not exist"):
        pickle.loads(data)
    make_stub_bundle(bundle, image_size=16)
    with pytest.raises(FileRefused, match="another bundle"):
        pickle.loads(data)
