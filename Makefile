# make setup | demo | web | test | test-js | test-cpp | test-neon | test-long | fuzz | lint | docs | wheels
# make default-model | default-bundle | readme
# make bench | bench-cpu | bench-full | bench-peers | bench-fid | bench-training | bench-quick | bench-serve
# make test-gpu | bench-gpu, on a machine with an NVIDIA GPU
# Each sets up .venv first if it is missing, those for a GPU .venv-gpu; demo installs no tools for development.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
JS := runtime/js
NODE := $(shell node -p 'parseInt(process.versions.node) < 20 ? "" : process.execPath' 2>/dev/null)
PROMPTS := "a rose, twemoji style" "a car, flat style" "a star, noto style" "a Christmas tree, 3D style"

.PHONY: setup demo web web-page test test-js test-cpp test-neon test-long cpp-packages kernel-packages neon-packages
.PHONY: fuzz lint lint-runtime lint-galip docs wheels
.PHONY: default-model default-bundle readme clean
.PHONY: bench bench-cpu bench-full bench-peers bench-fid bench-training bench-quick bench-serve test-gpu bench-gpu
.DELETE_ON_ERROR:

setup: .venv/.ready

PIP_INSTALL := bin/pip install --disable-pip-version-check

define create-venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(1)
endef

.venv/.demo: pyproject.toml runtime/pyproject.toml
	@echo "Installing PyTorch, galip and its runtime in .venv: 1.3 GB, 1 to 5 minutes" \
		"(several GB more where pip takes PyTorch for NVIDIA GPUs, as it does on Linux)"
	$(call create-venv,.venv)
	.venv/$(PIP_INSTALL) $(TORCH) -e "./runtime[cpu,image]" -e .
	@touch $@

.venv/.ready: .venv/.demo
	.venv/$(PIP_INSTALL) -e ".[cpu,dev]"
	@touch $@

demo: .venv/.demo
	$(BIN)/galip export --out demo/bundle --overwrite
	$(BIN)/galip generate $(PROMPTS) --bundle demo/bundle --count 4 --seed 1 --out demo/pictures.png

# The page that draws in the browser, with the shipped model, served on this machine with the headers for threads.
WEB_PORT ?= 8080
web: .venv/.demo web-page
	$(BIN)/galip export --web demo/web --overwrite
	$(NODE) $(JS)/tools/serve.mjs demo/web $(WEB_PORT)

# A worker a core, each of one thread; tests/conftest.py says which tests share one. tests/provider runs onnxruntime's
# CUDA provider without a GPU, on a stub of CUDA; that onnxruntime excludes the CPU's.
test: setup .venv/.kernels $(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' -)),.venv-provider/.ready)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder \
		--ignore tests/cpp
	$(MAKE) test-js test-cpp

# The tests marked `long`, which `make test` has no time for: several minutes.
test-long: setup .venv/.kernels
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m long --ignore tests/cpp

# The JavaScript runtime: its build, its types and its tests, also in Chromium where there is one.
CHROMIUM ?= $(firstword $(wildcard /usr/bin/chromium /usr/bin/chromium-browser /usr/bin/google-chrome))
ifeq ($(NODE),)
web-page:
	@echo "The page is built with Node 20 or newer, which was not found"; exit 1

test-js:
	@echo "SKIPPED: the JavaScript tests. They need Node 20 or newer, which was not found"
else
# What `galip export --web` copies.
web-page: $(JS)/node_modules/.ready
	cd $(JS) && npm run --silent page -- $(CURDIR)/export/galip_export/page

test-js: $(JS)/node_modules/.ready
	cd $(JS) && npm run --silent build && npm run --silent check
	@[ -n "$(CHROMIUM)" ] || echo "SKIPPED: the tests in a browser. CHROMIUM=PATH names a Chromium; Debian's package has one"
	CHROMIUM=$(CHROMIUM) $(NODE) --test --test-reporter=dot tests/js/*.test.mjs
endif

$(JS)/node_modules/.ready: $(JS)/package-lock.json
	cd $(JS) && ONNXRUNTIME_NODE_INSTALL=skip npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# $(1): Debian's packages, installed where that is allowed; $(2): the tests that are skipped without them
define debian-packages
	@dpkg -s $(1) > /dev/null 2>&1 || \
		{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq --no-install-recommends $(1); } || \
		echo "$(2) may be SKIPPED. They need what these packages of Debian have: $(1)"
endef

# The example in C++.
CPP_PACKAGES := g++ cmake libicu-dev libssl-dev nlohmann-json3-dev zlib1g-dev
test-cpp: setup cpp-packages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/cpp

cpp-packages:
	$(call debian-packages,$(CPP_PACKAGES),The C++ tests)

# The compiled kernels for CPUs. Where they cannot be built, their tests are skipped, and everything else works.
KERNELS := runtime/kernels
KERNEL_PACKAGES := g++ cmake libhwy-dev
KERNEL_FILES := $(KERNELS)/CMakeLists.txt $(KERNELS)/pyproject.toml $(KERNELS)/exports.map \
	$(wildcard $(KERNELS)/src/* $(KERNELS)/include/* $(KERNELS)/galip_kernels/*.py)
.venv/.kernels: $(KERNEL_FILES) | setup kernel-packages
	@.venv/$(PIP_INSTALL) --quiet ./$(KERNELS) && touch $@ || \
		echo "galip-kernels was not built: its tests are SKIPPED. It needs a C++ compiler and Highway's headers"

kernel-packages:
	$(call debian-packages,$(KERNEL_PACKAGES),The tests of galip-kernels)

# The kernels on an emulated Arm CPU: 70 MB to download, half a minute. `make test` runs it where the packages are.
NEON_PACKAGES := cmake g++-aarch64-linux-gnu libhwy-dev qemu-user
test-neon: setup neon-packages
	$(BIN)/python -m pytest -q tests/kernels/test_check.py -k neon

neon-packages:
	$(call debian-packages,$(NEON_PACKAGES),The tests on NEON)

# Damaged, forged and hostile input, kills and threads, as many as fit in the time; FUZZ_SEED is drawn and printed.
FUZZ_MINUTES ?= 10
FUZZ_SEED ?=
FUZZ_TARGETS ?=
FUZZ_OPTIONS ?=
fuzz: setup
	OMP_NUM_THREADS=1 PYTHONPATH=tests:tests/runtime:benchmarks $(BIN)/python -m fuzz --minutes $(FUZZ_MINUTES) \
		$(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) --targets "$(FUZZ_TARGETS)" $(FUZZ_OPTIONS)

.venv-provider/.ready: runtime/pyproject.toml
	$(PYTHON) -m venv .venv-provider
	@.venv-provider/$(PIP_INSTALL) --quiet "onnxruntime-gpu>=1.27" numpy regex ftfy \
		"nvidia-cuda-runtime==13.*" "nvidia-cuda-crt==13.*" && touch $@ || \
		echo "onnxruntime-gpu is not available: tests/provider is skipped"

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(wildcard $(KERNELS)/include/*.h $(foreach folder,src tests,$(KERNELS)/$(folder)/*.h $(KERNELS)/$(folder)/*.cc))
	$(MAKE) -j 2 lint-runtime lint-galip

lint-runtime: setup
	$(BIN)/mypy --strict --cache-dir .mypy_cache/runtime runtime/galip_runtime

lint-galip: setup
	$(BIN)/mypy galip export/galip_export benchmarks/galip_bench benchmarks/studies recipes/icons

# The documentation as a site in site/. Warnings are errors, and so are links to pages or anchors that are not there.
docs: setup
	$(BIN)/zensical build --strict --clean

# galip's wheel has the page if there is Node to build it.
wheels: setup $(if $(NODE),web-page)
	$(BIN)/python -m build --wheel --outdir dist runtime
	$(BIN)/python -m build --wheel --outdir dist .
	@$(BIN)/python -m build --wheel --outdir dist $(KERNELS) || \
		echo "There is no wheel of galip-kernels: it needs a C++ compiler, CMake and Highway's headers (libhwy-dev)"

# The shipped model, from scratch: pictures, towers, GALIP in three stages, rivals, the model card and its figures.
# Stages under torchrun have a process of one thread for each core: layers this small gain little from a second thread.
PROCESSES ?= 2
MAKE_DEFAULT := -m icons.make_default
DEFAULT_TORCHRUN := OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(PROCESSES)
# $(1): the stage, $(2): what runs it
default-stage = $(2) $(MAKE_DEFAULT) $(1) --data data/icons128 --runs runs/default
default-model: export PYTHONPATH := recipes
default-model: setup
	$(call default-stage,towers,$(BIN)/python)
	$(call default-stage,galip,$(DEFAULT_TORCHRUN))
	$(call default-stage,sharp,$(DEFAULT_TORCHRUN))
	$(call default-stage,rivals,$(DEFAULT_TORCHRUN))
	$(call default-stage,judge,$(BIN)/python)
	$(MAKE) default-bundle

# Its bundle, which the runtime's wheel carries: after a change of the model or of what the exporter makes of it.
DEFAULT_BUNDLE := runtime/default_bundle/galip_default_bundle/bundle
default-bundle: setup
	$(BIN)/galip export --precision w16a32 --out $(DEFAULT_BUNDLE) --overwrite

# `bench` is the default suite on the shipped model, for this machine (5 minutes on two cores). `bench-cpu` and
# `bench-full` are what the READMEs say of speed, memory and parity: every way to run on a CPU, with what was left out
# beside it, and where the time goes, of the shipped model (10 minutes) and of the released size with random weights
# (40); to be run on a machine with nothing else to do. A CPU without bf16 (AVX512_BF16, AMX): take it out of the lists.
bench: setup
	mkdir -p demo
	$(BIN)/galip bench --json demo/bench.json --html demo/bench.html

CPU_PRECISIONS ?= fp32,w16a32,bf16,int8
CPU_SUBJECTS ?= released-fp32,compiled-fp32,plain-cpu-fp32,plain-openvino-fp32,bundle-cpu-fp32,$\
	nokernels-cpu-fp32,bundle-cpu-w16a32,bundle-openvino-fp32,bundle-openvino-bf16,bundle-openvino-int8

# What the shipped model's int8 has to keep, in dB, so that it changes FID by 0.5 % at most (bench-fid).
INT8_PSNR ?= 52
SHIPPED_INT8 = $(if $(findstring int8,$(CPU_PRECISIONS)),--int8-psnr $(INT8_PSNR))

# $(1): its name, $(2): the checkpoint, none for the shipped model
define export-cpu
	mkdir -p demo
	$(BIN)/galip export $(2) --precision $(CPU_PRECISIONS) $(if $(2),,$(SHIPPED_INT8)) --out demo/cpu_$(1) --overwrite
	$(BIN)/galip export $(2) --rewrites none --out demo/cpu_$(1)_plain --overwrite
endef

define measure-cpu
	$(call export-cpu,$(1),$(2))
	$(BIN)/galip bench $(if $(2),--model $(2)) --bundle demo/cpu_$(1) --plain-bundle demo/cpu_$(1)_plain \
		--subjects $(CPU_SUBJECTS) --max-minutes 40 --json benchmarks/results/cpu_$(1)_latency.json --html demo/cpu_$(1).html
	PYTHONPATH=benchmarks $(BIN)/python -m studies.operators demo/cpu_$(1) --out benchmarks/results/cpu_$(1)_operators.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.kernels demo/cpu_$(1) --out benchmarks/results/cpu_$(1)_kernels.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.options demo/cpu_$(1) --out benchmarks/results/cpu_$(1)_options.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.rewrites $(or $(2),galip/assets/default.safetensors) \
		--out benchmarks/results/cpu_$(1)_rewrites.json
endef

bench-cpu: setup .venv/.kernels
	$(call measure-cpu,default)

bench-full: setup .venv/.kernels demo/random.safetensors
	$(call measure-cpu,full,demo/random.safetensors)

demo/random.safetensors: | setup
	mkdir -p demo
	PYTHONPATH=benchmarks $(BIN)/python -m studies.random_weights released $@

# The generator alone, beside torch.compile, onnxruntime, OpenVINO, MNN and ncnn (14 minutes for both sizes, 20 GB of
# memory, as all are loaded at once); to be run on a machine with nothing else to do. Bundles are those of bench-cpu and
# bench-full; where there are none, or the exporter is newer, they are exported first. The results' names end in the
# CPU's instructions. A CPU with AMX gives a second result, with AMX masked.
PEERS ?= MNN==3.6.1 ncnn==1.0.20261020
PNNX ?= pnnx==20261020

.venv-peers/.ready:
	$(call create-venv,.venv-peers)
	.venv-peers/$(PIP_INSTALL) $(PEERS)
	.venv-peers/$(PIP_INSTALL) --no-deps $(PNNX)
	@touch $@

EXPORTER := $(wildcard export/galip_export/*.py)
demo/cpu_default_plain/manifest.json: $(EXPORTER) | setup
	$(call export-cpu,default)

demo/cpu_full_plain/manifest.json: $(EXPORTER) | setup demo/random.safetensors
	$(call export-cpu,full,demo/random.safetensors)

# $(1): its name, $(2): rounds, $(3): pictures at once, $(4): the checkpoint, none for the shipped model
define measure-peers
	PYTHONPATH=benchmarks $(BIN)/python -m studies.peers $(1) $(if $(4),--model $(4)) --bundle demo/cpu_$(1) \
		--plain-bundle demo/cpu_$(1)_plain --rounds $(2) --batch $(3) --out demo
endef

bench-peers: setup .venv/.kernels .venv-peers/.ready demo/cpu_default_plain/manifest.json demo/cpu_full_plain/manifest.json
	rm -f demo/peers_*.json
	$(call measure-peers,default,7,1 8)
	$(call measure-peers,full,5,1,demo/random.safetensors)
	mv demo/peers_*.json benchmarks/results

# FID of the shipped model and of what was exported from it, against the icons it was trained on (10 minutes).
FID_SUBJECTS ?= bundle-cpu-fp32,bundle-openvino-bf16,bundle-openvino-int8
SEEN := skin_tone group=people-body group=flags group=symbols group=component group=other rank>5771 variant
data/icons128: | setup
	$(BIN)/galip data icons --out $@ --size 128

bench-fid: setup data/icons128
	mkdir -p demo
	$(BIN)/galip export --precision $(CPU_PRECISIONS) $(SHIPPED_INT8) --out demo/cpu_default --overwrite
	$(BIN)/galip bench --bundle demo/cpu_default --subjects $(FID_SUBJECTS) --cold-starts 0 --rounds 12 --batch 8 --fid 600 \
		--against data/icons128 $(SEEN:%=--exclude "%") --json benchmarks/results/fid_default.json

# What only a GPU shows: pictures, providers, threads, memory, times; the end of the output says what was skipped, and why. For
# it there is an environment of its own, with the onnxruntime for GPUs, its libraries, and TensorRT where it is available;
# GPU_PYTHON names another one. `bench-gpu` is the released size with random weights, beside eager PyTorch.
GPU_PYTHON ?= .venv-gpu/bin/python
GPU_READY := $(if $(filter .venv-gpu/%,$(GPU_PYTHON)),.venv-gpu/.ready)
GPU_SUBJECTS ?= eager-fp16,compiled-fp32,bundle-cuda-fp32,bundle-cuda-fp16

.venv-gpu/.ready: pyproject.toml runtime/pyproject.toml
	$(call create-venv,.venv-gpu)
	.venv-gpu/$(PIP_INSTALL) $(TORCH) -e "./runtime[gpu,image]" -e ".[gpu,dev]"
	.venv-gpu/$(PIP_INSTALL) "onnxruntime-gpu[cuda,cudnn]"
	-.venv-gpu/$(PIP_INSTALL) -e "./runtime[trt]"
	@touch $@

test-gpu: $(GPU_READY)
	$(GPU_PYTHON) -m pytest -q -m gpu tests/gpu

bench-gpu: $(GPU_READY)
	mkdir -p demo
	PYTHONPATH=benchmarks $(GPU_PYTHON) -m studies.random_weights released demo/random.safetensors
	$(GPU_PYTHON) -m galip export demo/random.safetensors --precision fp32,fp16 --out demo/gpu_full --overwrite
	PYTHONPATH=benchmarks $(GPU_PYTHON) -m studies.gpu_options demo/gpu_full --out benchmarks/results/gpu_full_options.json
	$(GPU_PYTHON) -m galip bench --model demo/random.safetensors --bundle demo/gpu_full --subjects $(GPU_SUBJECTS) \
		--batch 1,4,16,64 --max-minutes 40 --json benchmarks/results/gpu_full_latency.json --html demo/gpu_full.html

# The tables of README and docs, from the results and from the table of devices.
readme: setup
	PYTHONPATH=benchmarks $(BIN)/python -m studies.readme README.md docs/devices.md docs/results.md benchmarks/README.md

# How long `galip train --preset quick` takes, and what one recognises then; on a machine with nothing else to do.
bench-quick: setup data/icons128
	rm -rf runs/quick
	PYTHONPATH=benchmarks $(BIN)/python -m studies.quick_training data/icons128 --out benchmarks/results/training_quick.json

# How fast `galip train` is against the released code's order; to be run on a machine with nothing else to do.
bench-training: setup
	PYTHONPATH=benchmarks $(BIN)/python -m studies.throughput --rounds 41 --out benchmarks/results/training_default.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.throughput --model released --batch-size 4 --rounds 7 --warmup 1 \
		--out benchmarks/results/training_released.json

# `galip serve` under load, beside a handler as one writes it in ten minutes: pictures a second, and what it withstands.
# Then sets of pictures: their size, and how fast they are made. 40 minutes, on a machine with nothing else to do; it
# needs wrk, Debian's package of that name.
bench-serve: setup demo/random.safetensors
	$(BIN)/galip export demo/random.safetensors --out demo/serve_full --overwrite
	PYTHONPATH=benchmarks $(BIN)/python -m studies.serving.throughput --out benchmarks/results/serve_default.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.serving.throughput demo/serve_full --rounds 2 --seconds 45 \
		--out benchmarks/results/serve_full.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.serving.endurance --out benchmarks/results/serve_endurance.json
	PYTHONPATH=benchmarks $(BIN)/python -m studies.sets --out benchmarks/results/sets_default.json

clean:
	rm -rf demo dist build site .cache
