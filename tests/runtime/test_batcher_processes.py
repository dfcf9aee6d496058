"""Batcher and `generate_async` in forked and spawned processes, in copies, and where the program ends."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys

import galip_runtime
import pytest
from galip_runtime import Batcher
from served_processes import generate, generate_async, put_pictures

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
METHODS = multiprocessing.get_all_start_methods()


def run(code, *arguments):
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


PRELOAD = """
import asyncio, os, sys, threading
import galip_runtime
from galip_runtime import Batcher
model = galip_runtime.load(sys.argv[1], device=sys.argv[2], threads=2)
expected = model.generate("red", [1, 2, 3])
batcher = Batcher(model, lanes=2)

def check():
    assert (batcher.submit("red", [1, 2, 3]).result(60) == expected).all()
    assert (asyncio.run(batcher.generate("red", [1, 2, 3])) == expected).all()
    assert (asyncio.run(model.generate_async("red", [1, 2, 3])) == expected).all()
    assert (model.generate("red", [1, 2, 3]) == expected).all()

how = sys.argv[3]
if how != "fresh":
    check()
if how == "busy":
    def submit():
        while True:
            batcher.submit("red", [4, 5, 6]).result()
    for _ in range(3):
        threading.Thread(target=submit, daemon=True).start()
children = []
for number in range(4):  # as a preloading server forks its workers
    if (pid := os.fork()) == 0:
        assert batcher.length == 0
        check()
        if number % 2:
            batcher.close()
        sys.exit(0)
    children.append(pid)
codes = [os.waitpid(pid, 0)[1] for pid in children]
check()
print("ended", codes, flush=True)
if how == "busy":
    os._exit(0)
"""


@forks
@pytest.mark.parametrize("how", ["fresh", "used", "busy"])
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_server_that_loads_first_and_forks_its_workers(shared_bundle, device, how):
    assert run(PRELOAD, shared_bundle, device, how) == "ended [0, 0, 0, 0]\n"


@forks
def test_a_closed_batcher_is_closed_in_a_child(shared_bundle):
    code = """
import os, sys, galip_runtime
batcher = galip_runtime.Batcher(galip_runtime.load(sys.argv[1], device="cpu"))
batcher.submit("red", 1).result(60)
batcher.close()
if (pid := os.fork()) == 0:
    try:
        batcher.submit("red", 1)
    except galip_runtime.ServiceUnavailable:
        os._exit(5)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run(code, shared_bundle) == "5\n"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["model", "batcher"])
def test_multiprocessing(shared_bundle, method, kind):
    model = galip_runtime.load(shared_bundle, device="cpu", threads=1)
    subject = Batcher(model, lanes=2) if kind == "batcher" else model
    expected = generate(subject), generate_async(subject)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    processes = [context.Process(target=put_pictures, args=(subject, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get() for _ in processes] == [expected, expected]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
)
def test_a_copy_has_the_options_and_a_queue_of_its_own(model, duplicate):
    batcher = Batcher(model, max_batch=3, max_wait_ms=2.5, queue=5, lanes=2)
    expected = generate(batcher)
    batcher.close()
    other = duplicate(batcher)
    assert (other.max_batch, other.max_wait_ms, other.capacity, other.lanes) == (3, 2.5, 5, 2)
    assert (other.model is model) == (duplicate is copy.copy)
    assert generate(other) == expected
    other.close()


def test_a_copy_of_a_model_has_a_batcher_of_its_own(shared_bundle):
    model = galip_runtime.load(shared_bundle, device="cpu", threads=1)
    expected = generate_async(model)
    other = pickle.loads(pickle.dumps(model))
    model.close()
    assert generate_async(other) == expected


ENDS = """
import asyncio, sys, threading, galip_runtime
model = galip_runtime.load(sys.argv[1], device="cpu", threads=2)
batcher = galip_runtime.Batcher(model, queue=1000)
how = sys.argv[2]
futures = [batcher.submit("red", range(200)) for _ in range(5)]
if how == "error":
    print("error", flush=True)
    raise SystemExit(0)
if how == "asyncio":
    async def main():
        task = asyncio.create_task(model.generate_async("red", range(200)))
        await asyncio.sleep(0)
    asyncio.run(main())
if how == "waited":
    threading.Thread(target=lambda: print(futures[0].exception(60) is None)).start()
"""


@pytest.mark.parametrize("how", ["idle", "error", "asyncio", "waited"])
def test_a_program_ends_while_pictures_wait(shared_bundle, how):
    for _ in range(3):
        assert run(ENDS, shared_bundle, how) == {"error": "error\n", "waited": "True\n"}.get(how, "")
