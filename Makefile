# make demo | test | check | generate ...; `make help` lists them.

# Everything that is built goes here; tests and demo find executables and components by it.
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
COMPONENTS := $(CARGO_TARGET_DIR)/components
WASM_WORKSPACES := $(wildcard plugins/Cargo.toml tests/guests/Cargo.toml)
# Executables of the test bed know their checkout by this; a target directory may be shared by several.
TESTBED := CARGO_MANIFEST_DIR=$(CURDIR)/tests $(CARGO_TARGET_DIR)/debug
# `make mutants MUTANTS="E2 W"`: only those whose names contain one of these.
MUTANTS ?=
# `make bench BENCH="P9 P10"`: only these; `make bench QUICK=1`: small numbers, to see that it works.
BENCH ?=
QUICK ?=
# Cargo's profile of what is measured: `release` is what is shipped, and takes minutes more to link.
BENCH_PROFILE ?= bench-host
# Where `make cluster` has its cluster.
CLUSTER ?= /tmp/reef-cluster
# `make e2e E2E="--kubeconfig FILE --registry HOST:PORT"`: on a cluster that is there, instead of a node of our own.
E2E ?=
# `make demo KEEP=1` leaves the demo's cluster running.
KEEP ?=

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: demo
demo: build control-plane ## Build all, start a real control plane, run the host with a real plugin, and show what happens
	@$(TESTBED)/reef-demo $(if $(KEEP),--keep)

# Most tests wait for an API server rather than compute.
RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: test
test: export RUST_TEST_THREADS := $(RUST_TEST_THREADS)
test: build tools ## Every test: pure rooms, SDK, plugins, and the promises on a real API server
	cargo test --workspace --locked
	cargo test --manifest-path plugins/Cargo.toml --workspace --locked --target-dir $(CARGO_TARGET_DIR)/plugins

# `make soak SEED=7` replays a run; `make soak SOAK=websites`: only this one.
SEED ?=
SOAK ?=

.PHONY: soak
soak: build control-plane ## Minutes of edits, faults and kills by seed; in the end everything must be as after a clean run: SOAK=websites
	@SEED=$(SEED) $(TESTBED)/reef-soak $(SOAK)

.PHONY: build
build: preflight executables components ## The host, the test bed and all components

.PHONY: preflight
preflight:
	@tests/scripts/preflight

.PHONY: executables
executables: preflight
	@[ -e $(CARGO_TARGET_DIR)/debug/reef ] || echo "building the host and its dependencies: some 15 minutes on two cores the first time"
	cargo build --workspace --all-targets --locked

.PHONY: components
components: preflight ## The plugins and the tests' guests, as WebAssembly components
	@set -e; for workspace in $(WASM_WORKSPACES); do \
		echo "cargo build --manifest-path $$workspace --target wasm32-wasip2 --release"; \
		cargo build --manifest-path $$workspace --workspace --locked --target wasm32-wasip2 --release --target-dir $(COMPONENTS); \
	done

.PHONY: tools
tools: executables ## etcd, kube-apiserver, controller-manager, kubectl, registry, crane, cosign and helm: found, or built once from their Go modules
	@$(TESTBED)/reef-testbed tools

.PHONY: control-plane
control-plane: executables ## Of these, what a local control plane needs: etcd, kube-apiserver, controller-manager, kubectl
	@$(TESTBED)/reef-testbed tools --control-plane

.PHONY: node-tools
node-tools: executables ## What runs pods beside a control plane: scheduler, kubelet, kube-proxy, containerd; runc and nft must be there
	@$(TESTBED)/reef-testbed tools --node

.PHONY: image
image: preflight ## Reef's image, without a container engine: an OCI layout and a .tar in target/image
	@deploy/image/build

.PHONY: cluster
cluster: node-tools ## A cluster on this machine with a node that runs pods, and a registry; needs root: CLUSTER=/tmp/reef-cluster
	@$(TESTBED)/reef-testbed up --node $(CLUSTER)

.PHONY: cluster-down
cluster-down: ## End that cluster, without a trace
	@$(TESTBED)/reef-testbed down $(CLUSTER)

.PHONY: e2e
e2e: node-tools build image ## Image, chart, a plugin from a registry, its pods and their Service on a node of its own, and all gone again; needs root
	@$(TESTBED)/reef-e2e $(E2E)

.PHONY: author
author: build tools ## Follow docs/plugin-author.md to the letter, in an empty directory, up to a reconciling plugin
	tests/scripts/author.sh --cluster

.PHONY: mutants
mutants: export RUST_TEST_THREADS := $(RUST_TEST_THREADS)
mutants: build tools ## Break Reef on purpose, one small defect at a time: the test that each names must turn red
	@$(TESTBED)/reef-mutants $(MUTANTS)

.PHONY: bench
bench: bench-executables components peers ## Measure Reef beside its peers, into docs/performance.md: BENCH="P9 P10", QUICK=1
	@CARGO_MANIFEST_DIR=$(CURDIR)/tests $(CARGO_TARGET_DIR)/$(BENCH_PROFILE)/reef-testbed tools --control-plane
	@CARGO_MANIFEST_DIR=$(CURDIR)/tests $(CARGO_TARGET_DIR)/$(BENCH_PROFILE)/reef-bench $(if $(QUICK),--quick) $(BENCH)

.PHONY: bench-executables
bench-executables: preflight
	@[ -e $(CARGO_TARGET_DIR)/$(BENCH_PROFILE)/reef ] || echo "building the host for measuring: some 15 minutes on two cores the first time"
	cargo build --workspace --locked --profile $(BENCH_PROFILE) --bin reef --bin reef-bench --bin reef-testbed --example bench-rooms

.PHONY: peers
peers: preflight ## The plugin hello as a kube-rs and as a controller-runtime operator, for `make bench`
	cargo build --manifest-path tests/peers/kube-rs/Cargo.toml --locked --release --target-dir $(CARGO_TARGET_DIR)/peers
	cd tests/peers/controller-runtime && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -o $(CARGO_TARGET_DIR)/peers/peer-controller-runtime .

.PHONY: check
check: format-check lint test author drift deny ## All that CI asks for

.PHONY: format
format: ## Format all Rust code
	cargo fmt --all
	@set -e; for workspace in $(WASM_WORKSPACES); do cargo fmt --all --manifest-path $$workspace; done

.PHONY: format-check
format-check: preflight
	cargo fmt --all --check
	@set -e; for workspace in $(WASM_WORKSPACES); do cargo fmt --all --check --manifest-path $$workspace; done

.PHONY: lint
lint: preflight ## Clippy, warnings denied, in every workspace
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@set -e; for workspace in $(WASM_WORKSPACES); do \
		cargo clippy --manifest-path $$workspace --workspace --locked --target wasm32-wasip2 --release --target-dir $(COMPONENTS) -- -D warnings; \
	done
	cargo clippy --manifest-path plugins/Cargo.toml --workspace --all-targets --locked --target-dir $(CARGO_TARGET_DIR)/plugins -- -D warnings

# Where helm is, which the test bed finds or builds.
HELM_PATH = $$($(TESTBED)/reef-testbed tools | awk '$$1 == "helm" { print $$3 }')

.PHONY: generate
generate: tools ## Write the generated files: the CRDs, what is rendered from the chart, and docs/promises.md
	@$(CARGO_TARGET_DIR)/debug/reef crds > crds/reef.dev_plugins.yaml
	@HELM="$(HELM_PATH)" deploy/render
	@$(TESTBED)/reef-promises

.PHONY: drift
drift: tools ## Fail if a generated file is not what would be generated, or a command of this file lacks a rule
	@$(MAKE) --no-print-directory --dry-run demo soak bench author mutants generate image cluster cluster-down e2e > /dev/null
	@$(CARGO_TARGET_DIR)/debug/reef crds | diff -u crds/reef.dev_plugins.yaml - || { echo "crds/ is not what the code says: run make generate"; exit 1; }
	@HELM="$(HELM_PATH)" deploy/render --check
	@$(TESTBED)/reef-promises --check
	@$(TESTBED)/reef-mutants --check

.PHONY: deny
deny: preflight ## Licences, banned and duplicate crates, sources; advisories where their database can be reached
	@tests/scripts/deny
