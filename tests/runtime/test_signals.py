"""A child process does not see signals that are held back, not even the first one of a program."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import multiprocessing, signal
from galip_runtime.signals import held_back

def blocked():
    return sorted(each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

def child():
    print(blocked())

if __name__ == "__main__":
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=child)
        with held_back("SIGINT", "SIGHUP"):
            process.start()
        process.join()
    print(blocked())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows blocks no signals")
def test_signals_are_held_back_from_the_first_child_on(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["['SIGHUP', 'SIGINT']", "['SIGHUP', 'SIGINT']", "[]"]
