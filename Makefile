# make setup | demo | test | lint | wheels | default-model | readme
# make bench | bench-cpu | bench-full | bench-fid | bench-training
# Each sets up .venv first if it is missing.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PROMPTS := "a rose, twemoji style" "a car, flat style" "a star, noto style" "a Christmas tree, 3D style"

.PHONY: setup demo test lint wheels default-model readme clean
.PHONY: bench bench-cpu bench-full bench-fid bench-training
.DELETE_ON_ERROR:

setup: .venv/.ready

.venv/.ready: pyproject.toml runtime/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH) -e "./runtime[cpu,image]" -e ".[cpu,dev]"
	@touch $@

demo: setup
	$(BIN)/galip export --out demo/bundle --overwrite
	$(BIN)/galip generate $(PROMPTS) --bundle demo/bundle --count 4 --seed 1 --out demo/pictures.png

test: setup
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict runtime/galip_runtime
	$(BIN)/mypy galip export/galip_export benchmarks/galip_bench

wheels: setup
	$(BIN)/python -m build --wheel --outdir dist runtime
	$(BIN)/python -m build --wheel --outdir dist .

# The shipped model, from nothing: pictures, CLIP's towers, GALIP, model card and its figures. Processes of one
# thread each, a core each: layers this small gain little from a second thread.
PROCESSES ?= 2
MAKE_DEFAULT := -m galip.assets.make_default
default-model: setup
	$(BIN)/python $(MAKE_DEFAULT) towers --data data/icons128 --runs runs/default
	for stage in galip rivals; do OMP_NUM_THREADS=1 $(BIN)/torchrun --nproc-per-node $(PROCESSES) \
		$(MAKE_DEFAULT) $$stage --data data/icons128 --runs runs/default || exit; done
	$(BIN)/python $(MAKE_DEFAULT) judge --data data/icons128 --runs runs/default

# `bench` is the default suite on the shipped model, for this machine (5 minutes on two cores). `bench-cpu` and
# `bench-full` are what the READMEs say of speed, memory and parity: every way to run on a CPU, with what was left out
# beside it, and where the time goes, of the shipped model (10 minutes) and of the released size with random weights
# (40); to be run on a machine with nothing else to do. A CPU without bf16 (AVX512_BF16, AMX): take it out of the lists.
bench: setup
	mkdir -p demo
	$(BIN)/galip bench --json demo/bench.json --html demo/bench.html

CPU_PRECISIONS ?= fp32,w16a32,bf16,int8
CPU_SUBJECTS ?= released-fp32,compiled-fp32,plain-cpu-fp32,plain-openvino-fp32,bundle-cpu-fp32,$\
	bundle-cpu-w16a32,bundle-openvino-fp32,bundle-openvino-bf16,bundle-openvino-int8

# $(1): its name, $(2): the checkpoint, none for the shipped model
define measure-cpu
	mkdir -p demo
	$(BIN)/galip export $(2) --precision $(CPU_PRECISIONS) --out demo/cpu_$(1) --overwrite
	$(BIN)/galip export $(2) --rewrites none --out demo/cpu_$(1)_plain --overwrite
	$(BIN)/galip bench $(if $(2),--model $(2)) --bundle demo/cpu_$(1) --plain-bundle demo/cpu_$(1)_plain \
		--subjects $(CPU_SUBJECTS) --json benchmarks/results/cpu_$(1)_latency.json --html demo/cpu_$(1).html
	$(BIN)/python -m galip_bench.operators demo/cpu_$(1) --out benchmarks/results/cpu_$(1)_operators.json
	$(BIN)/python -m galip_bench.options demo/cpu_$(1) --out benchmarks/results/cpu_$(1)_options.json
	$(BIN)/python -m galip_bench.rewrites $(or $(2),galip/assets/default.safetensors) \
		--out benchmarks/results/cpu_$(1)_rewrites.json
endef

bench-cpu: setup
	$(call measure-cpu,default)

bench-full: setup demo/random.safetensors
	$(call measure-cpu,full,demo/random.safetensors)

demo/random.safetensors: | setup
	mkdir -p demo
	$(BIN)/python -m galip_bench.random_weights released $@

# FID of the shipped model and of what was exported from it, against the icons it was trained on (10 minutes).
FID_SUBJECTS ?= bundle-cpu-fp32,bundle-openvino-bf16,bundle-openvino-int8
SEEN := skin_tone group=people-body group=flags group=symbols group=component group=other rank>5771
data/icons128: | setup
	$(BIN)/galip data icons --out $@ --size 128

bench-fid: setup data/icons128
	mkdir -p demo
	$(BIN)/galip export --precision $(CPU_PRECISIONS) --out demo/cpu_default --overwrite
	$(BIN)/galip bench --bundle demo/cpu_default --subjects $(FID_SUBJECTS) --cold-starts 0 --rounds 12 --batch 8 --fid 600 \
		--against data/icons128 $(SEEN:%=--exclude "%") --json benchmarks/results/fid_default.json

# The READMEs' tables, from the results.
readme: setup
	$(BIN)/python -m galip_bench.readme README.md benchmarks/README.md

# How fast `galip train` is against the released code's order; to be run on a machine with nothing else to do.
bench-training: setup
	$(BIN)/python -m galip_bench.throughput --rounds 41 --out benchmarks/results/training_default.json
	$(BIN)/python -m galip_bench.throughput --model released --batch-size 4 --rounds 7 --warmup 1 \
		--out benchmarks/results/training_released.json

clean:
	rm -rf demo dist build
