"""Handlers and a mask of signals that last for a block."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from galip_runtime.signals import HANGUP, STOP, blocked, handled, stop_as_ctrl_c

pytestmark = pytest.mark.skipif(os.name == "nt", reason="these are Unix signals")
ALL = (*STOP, *HANGUP)
PROGRAM = """
import multiprocessing, signal
from galip_runtime.signals import blocked

def names():
    return sorted(each.name for each in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

def child():
    print(names())

if __name__ == "__main__":
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=child)
        with blocked(signal.SIGINT, signal.SIGHUP):
            process.start()
        process.join()
    print(names())
"""


def handlers():
    return [signal.getsignal(number) for number in ALL]


def test_handlers_are_there_in_the_block_and_put_back_after_it():
    before, seen = handlers(), []
    with handled(dict.fromkeys(ALL, lambda number, frame: seen.append(number))):
        for number in ALL:
            signal.raise_signal(number)
    assert seen == list(ALL)
    assert handlers() == before


def test_handlers_are_put_back_after_an_error():
    before = handlers()
    with pytest.raises(ZeroDivisionError), handled({signal.SIGTERM: lambda number, frame: None}):
        raise ZeroDivisionError
    assert handlers() == before


def test_a_blocked_signal_comes_after_the_block():
    seen = []
    with handled({signal.SIGTERM: lambda number, frame: seen.append(number)}):
        with blocked(signal.SIGTERM):
            signal.raise_signal(signal.SIGTERM)
            assert seen == []
        assert seen == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, *HANGUP])
def test_a_signal_to_stop_is_as_ctrl_c(number):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), stop_as_ctrl_c():
        signal.raise_signal(number)
    assert handlers() == before


def test_another_thread_changes_no_handler():
    before, seen = handlers(), []

    def work():
        with stop_as_ctrl_c():
            seen.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_signals_are_held_back_from_the_first_child_on(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines() == ["['SIGHUP', 'SIGINT']", "['SIGHUP', 'SIGINT']", "[]"]
