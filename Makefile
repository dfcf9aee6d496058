# make setup | demo | test | lint | wheels | default-model | bench | bench-full | bench-fid | bench-training | readme
# Each sets up .venv first if it is missing.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
PROMPTS := "a rose, twemoji style" "a car, flat style" "a star, noto style" "a Christmas tree, 3D style"

.PHONY: setup demo test lint wheels default-model bench bench-full bench-fid bench-training readme clean
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

# What the README says of speed, memory and parity; to be run on a machine with nothing else to do. The first one
# measures the shipped model (4 minutes on two cores), the second one the released size with random weights (15).
bench: setup
	mkdir -p demo
	$(BIN)/galip bench --json benchmarks/results/bench_default.json --html demo/bench_default.html

bench-full: setup
	mkdir -p demo
	$(BIN)/python -m galip_bench.random_weights released demo/random.safetensors
	$(BIN)/galip bench --model demo/random.safetensors --json benchmarks/results/bench_full.json \
		--html demo/bench_full.html

# FID of the shipped model and of what was exported from it, against the icons it was trained on (15 minutes).
SEEN := skin_tone group=people-body group=flags group=symbols group=component group=other rank>5771
data/icons128: | setup
	$(BIN)/galip data icons --out $@ --size 128

bench-fid: setup data/icons128
	$(BIN)/galip bench --subjects eager-bf16,bundle-cpu-fp32 --cold-starts 0 --rounds 12 --fid 1000 \
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
