# Everything happens in a virtual environment of its own, .venv; nothing global is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PROMETHEUS := $(VENV)/prometheus
PTX := $(VENV)/ptx
HOT := --benchmark-autosave --benchmark-compare --benchmark-group-by=fullname --benchmark-columns=min,median,iqr

.PHONY: demo test lint types check test-peers ptx bench bench-peers messages prometheusrule lock clean

demo: $(INSTALLED)  ## train on real flights, register, serve, replay the year, swap under load
	$(BIN)/driftline demo $(ARGS)

test: lint types check ptx  ## all that a change must pass

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

check: $(INSTALLED) $(PROMETHEUS)
	$(BIN)/pytest -n auto --dist loadfile $(ARGS)
	NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 $(BIN)/pytest -n auto tests/kernels  # the CUDA drivers, in a simulator

test-peers: $(INSTALLED)  ## of those, the ones with a Triton and an MLServer, which are installed in bench/cache
	$(BIN)/pytest tests/integration/test_sidecar_peers.py $(ARGS)

ptx: $(PTX)/.installed  ## compile the CUDA kernels for two GPUs, without one; what each takes of them
	PYTHONPATH=kernels $(PTX)/bin/python tests/kernels/ptx.py

bench: $(INSTALLED)  ## what a request costs, beside the run before; the figures of README.md (needs wrk and nginx)
	$(BIN)/pytest bench/hot.py -W default $(HOT)
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(INSTALLED)  ## other model servers on the same work: bench/README.md
	$(BIN)/python -m bench.servers $(ARGS)

messages: $(INSTALLED)  ## compile the .proto files anew
	cd runtime/driftline/protocols/grpc && $(CURDIR)/$(BIN)/python -m grpc_tools.protoc -I . \
		--descriptor_set_out=messages.binpb *.proto

OPERATOR := deploy/monitoring/operator/prometheusrule.yaml
prometheusrule:  ## the rules as the Prometheus operator takes them
	@sed '/^spec:/q' $(OPERATOR) > $(OPERATOR).new
	@sed '/^#/d; s/^\(.\)/  \1/' deploy/monitoring/rules.yaml >> $(OPERATOR).new
	@mv $(OPERATOR).new $(OPERATOR)

lock: $(INSTALLED)  ## resolve constraints.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --upgrade \
		--no-header --no-annotate pyproject.toml -o constraints.txt

$(PROMETHEUS): | $(INSTALLED)  # what tests/deploy asks whether rules and queries are right
	tests/deploy/get_prometheus.sh $@

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
		|| { echo "driftline needs Python 3.11 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
		          "Name another one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) can't make virtual environments: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt \
		--editable '.[cpu,grpc,demo,dev,bench]'
	$(BIN)/python -m compileall -q runtime kernels  # where nobody may write bytecode, each process would compile
	@touch $@

# Of its own, since numba-cuda replaces numba.cuda, and with it the simulator that the tests run in.
$(PTX)/.installed: $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PTX)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PTX)/bin/python --constraint constraints.txt \
		'numba-cuda[cu13]' nvidia-cuda-nvcc==13.5.37 numba
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
