"""`run_bundle.py BUNDLE PRECISION CALLS`: pictures on the stub of a GPU, by onnxruntime's CUDA provider.

Run by a Python that has onnxruntime-gpu. Prints JSON; GALIP_CUDA_LOG gets what was asked of CUDA, with lines
`== NAME` between.
"""

import collections
import json
import os
import sys
import threading

import stub_bindings

stub_bindings.install()

import galip_runtime  # noqa: E402
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from galip_runtime import text_to_image  # noqa: E402
from galip_runtime.backends import gpu_runner, onnxruntime_gpu_runner  # noqa: E402


def mark(name):
    with open(os.environ["GALIP_CUDA_LOG"], "a") as log:
        log.write(f"== {name}\n")


def main(bundle, precision, calls):
    onnxruntime.set_default_logger_severity(4)  # cuDNN's stub plans no convolutions, which is said of each
    onnxruntime_gpu_runner.preload_libraries = lambda module: None  # the real ones may be installed, too
    for module in (text_to_image, gpu_runner):  # nothing is computed: what memory happens to have may be NaN
        module.check_finite = lambda values, graph: values
    real, sessions = onnxruntime.InferenceSession, []

    def session(model, options, **more):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        sessions.append(real(model, options, **more))
        return sessions[-1]

    onnxruntime.InferenceSession = session
    try:
        model = galip_runtime.load(bundle, device="cuda", precision=precision)
    except galip_runtime.ProviderUnavailable as error:
        print(json.dumps({"refused": str(error)}))
        return
    nodes = collections.Counter()
    for each in sessions:
        for part in each.get_provider_graph_assignment_info():
            nodes[part.ep_name] += len(part.get_nodes())
    sentence, noise = model.encode_text([f"{number} pans" for number in range(64)]), model.noise(range(64))
    sizes = (1, 2, 4, 8, 16, 32, 64)
    for size in sizes:
        model._run_condition(sentence[:size])
    for size in sizes:
        mark(f"first {size}")
        model.decode_pictures(noise[:size], sentence[:size])
        model.decode(noise[:size], sentence[:size])
        model.encode_tokens(model.tokenizer.encode(["a"] * size))
    for size in sizes:
        mark(f"again {size}")
        model._runners["generator"].run_pixels(model._inputs(noise[:size], sentence[:size]))
    mark("mixed")

    def work(seed):
        rng = np.random.default_rng(seed)
        for number in range(calls // 4):
            size = int(rng.integers(1, 65))
            (model.draw if number % 2 else model.decode)(noise[:size], sentence[:size])
            if number % 5 == 0:
                model.encode_text([f"{rng.integers(2**60)} pans" for _ in range(size)])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mark("end")
    print(json.dumps({"nodes": nodes, "providers": model.info()["providers"]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
