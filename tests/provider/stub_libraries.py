"""Libraries of CUDA without a GPU, so that onnxruntime's own CUDA provider starts on any machine.

It then parses its options, places every node, allocates and captures as on a GPU. Nothing is computed.
What the libraries have to have is read from the provider; what matters of it is in `cuda_runtime.c`, the rest
succeeds and does nothing.
"""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MAKERS = re.compile(r"cublas(Lt)?Create.*|cudnnCreate.*|\w+(Desc|Layout|Preference)Create")
OWN = {
    "cublasLtMatmulAlgoGetHeuristic": "int {name}(void *a, void *b, void *c, void *d, void *e, void *f, "
    "void *g, int wanted, void *found, int *count) {{ *count = 1; return 0; }}",
    "cublasGetMathMode": "int {name}(void *handle, int *mode) {{ *mode = 0; return 0; }}",
    "cublasGetStatusName": 'const char *{name}(int status) {{ return "stub"; }}',
    "cublasGetStatusString": 'const char *{name}(int status) {{ return "stub"; }}',
    "cudnnGetErrorString": 'const char *{name}(int status) {{ return "stub"; }}',
    "cudnnGetLastErrorString": "void {name}(char *text, unsigned long size) {{ *text = 0; }}",
    "cudnnGetVersion": "unsigned long {name}(void) {{ return 91000; }}",
    "cudnnBackendCreateDescriptor": "int {name}(int kind, void **made) "
    "{{ *made = calloc(1, 4096); return 0; }}",
    "cudnnBackendGetAttribute": "int {name}(void *of, int what, int kind, long wanted, long *count, "
    "void *into) {{ if (count) *count = 1; if (into && wanted > 0) memset(into, 0, 8); return 0; }}",
    **dict.fromkeys(
        ("cudnnGetReductionWorkspaceSize", "cudnnGetReductionIndicesSize"),
        "int {name}(void *a, void *b, void *c, void *d, unsigned long *size) {{ *size = 1024; return 0; }}",
    ),
}
"""functions whose results are read"""


def build(provider: Path, headers: Path, out: Path) -> None:
    """Libraries for `provider`, onnxruntime's, in the new folder `out`. `headers`: CUDA's."""
    out.mkdir()
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", provider], check=True, capture_output=True, text=True
    )
    wanted: dict[str, list[str]] = {"libcuda.so.1": [], "libcurand.so.10": []}
    for name in (line.split()[-1] for line in listed.stdout.splitlines()):
        function, _, library = name.partition("@")
        if library.startswith("libcu"):
            wanted.setdefault(library, []).append(function)
        elif re.fullmatch(r"cu[A-Z]\w+", function):
            wanted["libcuda.so.1"].append(function)
    loaded = set(re.findall(rb"\0(cudnn[A-Z]\w+)(?=\0)", provider.read_bytes()))  # by name, at run time
    wanted["libcudnn.so.9"] = sorted({name.decode() for name in loaded} | {"cudnnGetCudartVersion"})
    runtime = HERE / "cuda_runtime.c"
    there = set(re.findall(r"\b((?:__)?cuda[A-Z]\w+)\(", runtime.read_text()))
    for library, functions in wanted.items():
        source = out / f"{library}.c"
        lines = ["#include <stdlib.h>", "#include <string.h>"]
        lines += [_stub(each) for each in functions if each not in there]
        source.write_text("\n".join(lines) + "\n")
        versions = out / f"{library}.map"
        versions.write_text(f"{library} {{ global: *; }};\n")
        own = [runtime] if library.startswith("libcudart") else []
        call = ["cc", "-shared", "-fPIC", "-w", f"-I{headers}", *own, source, "-o", out / library]
        subprocess.run([*call, f"-Wl,-soname,{library},--version-script={versions}"], check=True)
    (out / "libcudnn.so").symlink_to("libcudnn.so.9")


def _stub(name: str) -> str:
    if name in OWN:
        return OWN[name].format(name=name)
    if MAKERS.fullmatch(name):
        return f"int {name}(void **made) {{ *made = calloc(1, 4096); return 0; }}"
    return f"int {name}() {{ return 0; }}"
