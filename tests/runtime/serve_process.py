"""The service as a process of its own, on a free port of this machine, for tests."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

SLOW = """
import os
import time
from galip_runtime.text_to_image import TextToImage

decode = TextToImage.decode_pictures

def slow(self, *arguments):
    time.sleep(float(os.environ["TEST_SECONDS_A_BATCH"]))
    return decode(self, *arguments)

TextToImage.decode_pictures = slow
"""
READY = re.compile(r"serving .* at http://(\S+):(\d+)/")


class Process:
    """`python -m galip_runtime.serve BUNDLE --port 0 …`; leaving the block kills it if it still runs."""

    def __init__(self, bundle, *options, folder, batch_seconds=0.0, environment=None, ready=True):
        """`folder`: for the test's own files; `batch_seconds`: how long each batch takes at least."""
        self.folder, self.lines = Path(folder), []
        self.temporary = self.folder / "temporary"
        self.temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(self.temporary), **(environment or {})}
        if batch_seconds:
            (self.folder / "sitecustomize.py").write_text(SLOW)
            paths = [str(self.folder), environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
            environment["TEST_SECONDS_A_BATCH"] = str(batch_seconds)
        command = [sys.executable, "-m", "galip_runtime.serve", bundle, "--port", 0, "--device", "cpu"]
        self.process = subprocess.Popen(
            [str(word) for word in [*command, "--threads", 1, *options]],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            self.host, self.port = self.wait_for(READY).groups()
            self.port = int(self.port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the workers, too
        self.process.wait()
        self.reader.join(10)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def log(self):
        return "".join(self.lines)

    def wait_for(self, pattern, seconds=60):
        """Return the match of the pattern in the log, as soon as it is there."""
        found = until(lambda: re.search(pattern, self.log) or self.process.poll() is not None, seconds)
        found = re.search(pattern, self.log)
        assert found, self.log
        return found

    def request(self, method, path, body=None, headers=None, connection=None, timeout=60):
        """Return status, headers and body of the answer."""
        own = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = None if body is None else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            own.request(method, path, data, {**kind, **(headers or {})})
            answer = own.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            if connection is None:
                own.close()

    def draw(self, prompt="a red apple", headers=None, **fields):
        """Ask for a picture; return status, headers and the decoded answer."""
        status, got, data = self.request(
            "POST", "/v1/images/generations", {"prompt": prompt, **fields}, headers
        )
        return status, got, json.loads(data)

    def burst(self, count):
        """Send requests for pictures; return the calls once all are sent: (status, Connection, seed)."""

        def send(index):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            body = json.dumps({"prompt": "red", "seed": index})
            connection.request("POST", "/v1/images/generations", body, {"Content-Type": "application/json"})
            sent.append(index)
            answer = connection.getresponse()
            status, kept, data = answer.status, answer.getheader("Connection"), json.loads(answer.read())
            return status, kept, data["data"][0]["seed"] if status == 200 else data["error"]["message"]

        sent = []
        calls = Background(send, count)
        until(lambda: len(sent) == count)
        return calls

    def workers(self):
        """Return the ids of the worker processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [
            int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Send the signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended(seconds)

    def ended(self, seconds=60):
        code = self.process.wait(seconds)
        self.reader.join(10)
        return code


def until(condition, seconds=60):
    """Wait until the condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


class Background:
    """Calls of a function in threads, whose results or errors are kept."""

    def __init__(self, function, count):
        self.results = []
        self.threads = [threading.Thread(target=self._call, args=(function, index)) for index in range(count)]
        for thread in self.threads:
            thread.start()

    def _call(self, function, index):
        try:
            self.results.append(function(index))
        except Exception as error:
            self.results.append(error)

    def join(self, seconds=60):
        for thread in self.threads:
            thread.join(seconds)
            assert not thread.is_alive()
        return self.results
