"""Several worker processes of the service: they share a port, and one that dies is replaced."""

import os
import re
import signal
import sys
from contextlib import suppress

import pytest
from error_checks import assert_names
from serve_process import Background, Process, until
from stub_bundle import make_stub_bundle

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

KEYS = ("first-key-first-key", "second-key-second-key")


def counted(service, name):
    """The sum over all workers, as /metrics of whichever worker answers gives it."""
    text = service.request("GET", "/metrics")[2].decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


def test_workers_draw_count_together_and_end_in_order(shared_bundle, tmp_path):
    with Process(shared_bundle, "--workers", 2, folder=tmp_path, batch_seconds=0.1) as service:
        assert len(service.workers()) == 2
        answers = Background(lambda index: service.draw(seed=index), 8).join()
        assert [status for status, _, _ in answers] == [200] * 8
        assert counted(service, "galip_pictures_total") == 8
        workers = service.workers()
        calls = service.burst(6)
        assert service.stop() == 0
        assert {status for status, _, _ in calls.join()} == {200}
        assert not [worker for worker in workers if os.path.exists(f"/proc/{worker}")]
        assert not list(service.temporary.iterdir())
        assert "Traceback" not in service.log


def test_a_killed_worker_is_replaced_while_the_other_goes_on(shared_bundle, tmp_path):
    with Process(shared_bundle, "--workers", 2, folder=tmp_path) as service:
        before = service.workers()
        assert service.draw()[0] == 200
        drawn = counted(service, "galip_pictures_total")
        os.kill(before[0], signal.SIGKILL)
        failed = 0
        for index in range(20):
            try:
                assert service.draw(seed=index)[0] == 200
                drawn += 1
            except ConnectionError:  # it had reached the worker that was killed
                failed += 1
        assert failed <= 1
        after = until(
            lambda: len(service.workers()) == 2 and before[0] not in service.workers() and service.workers()
        )
        assert before[1] in after
        assert_names(service.wait_for("worker .* ended.*")[0], before[0], "signal 9")
        assert counted(service, "galip_pictures_total") >= drawn - failed
        assert service.stop() == 0


def test_all_workers_are_killed_at_once(shared_bundle, tmp_path):
    with Process(shared_bundle, "--workers", 2, folder=tmp_path) as service:
        before = service.workers()
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        until(lambda: len(service.workers()) == 2 and not set(before) & set(service.workers()))
        assert service.draw()[0] == 200
        assert service.stop(signal.SIGINT) == 0


def test_workers_that_are_killed_while_they_load_do_not_end_it(shared_bundle, tmp_path):
    with Process(shared_bundle, "--workers", 2, folder=tmp_path) as service:
        for _ in range(3):  # the second and third time nothing but workers that load
            until(service.workers)
            for worker in service.workers():
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        until(lambda: len(service.workers()) == 2)
        assert service.draw()[0] == 200
        assert service.stop() == 0


def test_a_bundle_that_cannot_be_loaded_ends_it_with_one_error(tmp_path):
    bundle = make_stub_bundle(tmp_path / "bundle")
    (bundle / "generator.onnx").write_bytes(b"x" * (bundle / "generator.onnx").stat().st_size)
    with Process(bundle, "--workers", 3, folder=tmp_path, ready=False) as service:
        assert service.ended() == 4
        assert service.log.count("generator.onnx") == service.log.count("error: ") == 1
        assert "Traceback" not in service.log
        assert not list(service.temporary.iterdir())


def test_a_bundle_that_breaks_later_does_not_end_the_worker_that_has_it(tmp_path):
    bundle = make_stub_bundle(tmp_path / "bundle")
    with Process(bundle, "--workers", 2, folder=tmp_path) as service:
        first, second = service.workers()
        (bundle / "manifest.json").rename(tmp_path / "manifest.json")
        os.kill(first, signal.SIGKILL)
        service.wait_for("could not start")
        assert service.draw()[0] == 200
        (tmp_path / "manifest.json").rename(bundle / "manifest.json")
        workers = until(lambda: len(service.workers()) == 2 and service.workers())
        assert second in workers
        assert service.stop() == 0


def test_a_second_signal_ends_all_at_once(shared_bundle, tmp_path):
    with Process(
        shared_bundle, "--workers", 2, "--max-batch", 1, folder=tmp_path, batch_seconds=300
    ) as service:
        workers = service.workers()
        calls = Background(lambda _: service.draw(), 4)
        until(lambda: counted(service, "galip_queue_length") >= 2)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("stopping")
        assert service.stop(signal.SIGTERM, 20) == 130
        assert all(isinstance(result, Exception) for result in calls.join())
        assert not [worker for worker in workers if os.path.exists(f"/proc/{worker}")]
        assert not list(service.temporary.iterdir())


def test_a_signal_to_every_process_counts_once(shared_bundle, tmp_path):
    """As systemd sends it."""
    with Process(
        shared_bundle, "--workers", 2, "--max-batch", 2, folder=tmp_path, batch_seconds=0.3
    ) as service:
        calls = service.burst(8)
        for number in (signal.SIGTERM, signal.SIGTERM):
            for worker in service.workers():
                os.kill(worker, number)
        os.kill(service.process.pid, signal.SIGTERM)
        assert service.ended() == 0
        assert sorted(calls.join()) == [(200, "close", index) for index in range(8)]


def test_ctrl_c_is_the_supervisors_to_handle(shared_bundle, tmp_path):
    """A terminal sends it to all processes of the group."""
    with Process(
        shared_bundle, "--workers", 2, "--max-batch", 2, folder=tmp_path, batch_seconds=0.3
    ) as service:
        calls = service.burst(8)
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.ended() == 0
        assert sorted(calls.join()) == [(200, "close", index) for index in range(8)]


def test_workers_end_with_their_supervisor(shared_bundle, tmp_path):
    with Process(shared_bundle, "--workers", 2, folder=tmp_path) as service:
        workers = service.workers()
        service.process.kill()
        until(lambda: not [worker for worker in workers if is_running(worker)])
    with Process(
        shared_bundle, "--workers", 2, folder=tmp_path
    ) as service:  # which removes what that one left
        assert len(list(service.temporary.glob(".galip-*"))) == 1
        assert service.stop() == 0


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_keys_are_read_again_at_sighup(shared_bundle, tmp_path, workers):
    file = tmp_path / "keys"

    def write(*keys):
        file.write_text("# keys\n\n" + "".join(f"{key}\n" for key in keys))
        file.chmod(0o600)

    def statuses(service, key, calls=6):
        headers = {"Authorization": f"Bearer {key}"}
        return {service.draw(headers=headers)[0] for _ in range(calls)}

    write(KEYS[0])
    options = ["--workers", workers, "--api-key-file", file]
    with Process(shared_bundle, *options, folder=tmp_path) as service:
        assert service.draw()[0] == 401
        assert statuses(service, KEYS[0]) == {200}
        assert statuses(service, KEYS[1]) == {401}
        before = service.workers()
        write(KEYS[1])
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.log.count("read again") == workers)
        assert statuses(service, KEYS[0]) == {401}
        assert statuses(service, KEYS[1]) == {200}
        file.write_text("short\n")
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.log.count("stay as they were") == workers)
        assert statuses(service, KEYS[1]) == {200}
        assert service.workers() == before
        assert not any(key in service.log for key in (*KEYS, "short\n"))
        assert service.stop() == 0
