.DEFAULT_GOAL := help
# A name other than /bin/sh, or make 3.81 (macOS) looks commands up in its own PATH instead of the one below.
SHELL := sh
SYSTEM_PATH := $(PATH)
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: help run observe test chaos bench check format proto schema charts dashboards cluster deploy undeploy e2e clean installed-run installed tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: installed-run ## three greeters and a gateway on this machine (REPLICAS=5, PORT=8080)
	@exec node services/lab/main.ts

LOCAL_TOOLS := $(wildcard ../shared/tools/install)

observe: installed-run ## Jaeger and Prometheus for what make run runs, as far as they are installed
	@$(if $(LOCAL_TOOLS),command -v jaeger >/dev/null || $(LOCAL_TOOLS) jaeger)
	@exec node services/lab/observe/main.ts

RUN_TESTS = node --test --test-concurrency=2 \
  --test-reporter=spec --test-reporter-destination=stdout \
  --test-reporter=./tests/harness/tests-ran.ts --test-reporter-destination=stderr

TESTS ?= 'services/**/*.test.ts' 'tests/*.test.ts' 'tests/!(chaos|cluster|browser|helm)/**/*.test.ts'

test: check tools ## make check, then all tests (TESTS=services/hello/hello.test.ts for one file)
	@echo "left out here: tests/chaos (make chaos) and tests/cluster (make e2e$$( \
	  kubectl config current-context >/dev/null 2>&1 || echo ', which needs a cluster: kubectl knows none'))"
	@exec $(RUN_TESTS) --test-timeout=120000 $(TESTS)

# The peers of the bench have packages of their own, which nothing else installs.
bench: installed ## we beside our peers: CPU a request and more; writes bench/results (SUITES=gateway for one, 15 minutes for all)
	@cmp -s bench/package-lock.json bench/node_modules/.installed || { \
	  echo 'installing the peers (npm ci in bench) …' && (cd bench && $(NPM_CI) >/dev/null) && \
	  cp bench/package-lock.json bench/node_modules/.installed; }
	@tsc --noEmit -p bench
	@exec node bench/main.ts $(SUITES)

CHAOS ?= 'tests/chaos/*.test.ts'

chaos: installed ## what is guaranteed, each claim with a control that must fail; writes docs/guarantees.md (6 minutes)
	@exec $(RUN_TESTS) --test-timeout=400000 \
	  --test-reporter=./tests/harness/guarantees-report.ts --test-reporter-destination=stderr $(CHAOS)

check: installed ## types, lint, format, import rules, the contract, the charts and what is generated
	tsc --noEmit
	oxlint --type-aware --deny-warnings
	biome format .
	depcruise deploy helm services tests
	buf lint
	@$(BUF_PROTO) -o - | cmp - proto/descriptors.binpb || { echo 'proto/descriptors.binpb is not what the .proto files say: make proto' >&2; exit 1; }
	@$(BUF_GOOGLE) -o - | cmp - services/gateway/google.binpb || { echo 'services/gateway/google.binpb is not what third_party says: make proto' >&2; exit 1; }
	@$(BUF_HEALTH) -o - | cmp - services/runtime/server/health.binpb || { echo 'services/runtime/server/health.binpb is not what grpc-health-check says: make proto' >&2; exit 1; }
	@$(SCHEMA) | cmp - services/gateway/config.schema.json || { echo 'services/gateway/config.schema.json is not what config-file.ts says: make schema' >&2; exit 1; }
	@for chart in $(CHARTS); do \
	  $(VALUES_SCHEMA) | cmp - helm/$$chart/values.schema.json && $(CHART_README) | cmp - helm/$$chart/README.md || { \
	  echo "helm/$$chart is not what values.yaml and helm/values-schema.ts say: make charts" >&2; exit 1; }; done
	@for dashboard in $(DASHBOARDS); do $(DASHBOARD) | cmp - $(DASHBOARD_FILE) || { \
	  echo "$(DASHBOARD_FILE) is not what dashboards.ts says: make dashboards" >&2; exit 1; }; done
	@$(RUN_TESTS) --test-timeout=120000 'tests/helm/*.test.ts'

cluster: ## look for the cluster of the current kube-context, or make a kind cluster
	@deploy/cluster.sh up

deploy: cluster ## build the images and install both charts there (NAMESPACE=tandem, IMAGES=tandem)
	@deploy/cluster.sh deploy

undeploy: ## remove what make deploy installed
	@deploy/cluster.sh undeploy

# Two files at a time, and then those that take all of a small machine, or its API server, by themselves.
E2E_ALONE := rolling-update scaling api-server
E2E ?= 'tests/cluster/!(rolling-update|scaling|api-server).test.ts' $(E2E_ALONE:%=tests/cluster/%.test.ts)
export E2E_IMAGES = $(or $(IMAGES),tandem)
export E2E_TAG ?= e2e

# A cluster without a registry, where there is one beside the project: it makes the images that others pull.
LOCAL_CLUSTER := $(wildcard ../shared/cluster)
export CLUSTER_UP ?= $(addsuffix /up,$(LOCAL_CLUSTER))

e2e: installed cluster ## the tests on that cluster (17 minutes; CLUSTER_UP: the command that starts its API server)
	@$(if $(LOCAL_CLUSTER),$(LOCAL_CLUSTER)/images && $(LOCAL_CLUSTER)/images-extra jaeger prometheus)
	@deploy/cluster.sh images $(E2E_TAG) greeter gateway dev
	@set -e; for files in $(E2E); do $(RUN_TESTS) --test-timeout=1800000 "$$files"; done

format: installed ## format the code
	biome format --write .

BUF_PROTO := buf build proto --as-file-descriptor-set
BUF_GOOGLE := buf build third_party/googleapis --as-file-descriptor-set --exclude-source-info
BUF_HEALTH := buf build node_modules/grpc-health-check/proto --as-file-descriptor-set --exclude-source-info

proto: installed ## rebuild the descriptors from the .proto files
	$(BUF_PROTO) -o proto/descriptors.binpb
	$(BUF_GOOGLE) -o services/gateway/google.binpb
	$(BUF_HEALTH) -o services/runtime/server/health.binpb

SCHEMA := node services/gateway/config-schema.ts | biome format --stdin-file-path=services/gateway/config.schema.json

schema: installed ## rebuild the JSON Schema of the gateway's YAML file, and of the charts' values
	$(SCHEMA) > services/gateway/config.schema.json
	@$(MAKE) --no-print-directory charts

CHARTS := greeter gateway
VALUES_SCHEMA = node helm/values-schema.ts $$chart | biome format --stdin-file-path=helm/$$chart/values.schema.json
CHART_README = node helm/readme.ts $$chart

charts: installed ## rebuild the charts' READMEs and JSON Schemas
	@set -e; for chart in $(CHARTS); do \
	  $(VALUES_SCHEMA) > .values.schema.json && mv .values.schema.json helm/$$chart/values.schema.json; \
	  $(CHART_README) > .README.md && mv .README.md helm/$$chart/README.md; done

DASHBOARDS := service channel gateway runtime
DASHBOARD_FILE = deploy/observability/dashboards/$$dashboard.json
DASHBOARD = node deploy/observability/dashboards.ts $$dashboard | biome format --stdin-file-path=$(DASHBOARD_FILE)

dashboards: installed ## rebuild the Grafana dashboards
	@set -e; for dashboard in $(DASHBOARDS); do $(DASHBOARD) > .dashboard.json && mv .dashboard.json $(DASHBOARD_FILE); done

clean: ## remove what was installed
	rm -rf node_modules

# The stamp of an installation is the lock file that it was made from. npm runs on the machine's own Node, because it
# replaces the pinned one; its warnings about that Node's age are not shown. `make run` leaves out what only tests need.
NPM_CI = PATH='$(SYSTEM_PATH)' npm ci --loglevel=error --include=optional

installed-run:
	@cmp -s package-lock.json node_modules/.installed || cmp -s package-lock.json node_modules/.installed-run || { \
	  echo 'installing packages (npm ci --omit=dev) …' && $(NPM_CI) --omit=dev >/dev/null && \
	  cp package-lock.json node_modules/.installed-run; }
	@$(NODE_24)

installed:
	@cmp -s package-lock.json node_modules/.installed || { \
	  echo 'installing packages (npm ci) …' && $(NPM_CI) --include=dev >/dev/null && \
	  cp package-lock.json node_modules/.installed; }
	@$(NODE_24)

# Where npm has no Node 24 for the platform, such as Apple silicon, the one on the PATH must do.
NODE_24 = test -x node_modules/.bin/node || \
  node -e 'const [a, b, c] = process.versions.node.split(".").map(Number); process.exit(a === 24 && (b > 11 || (b === 11 && c >= 1)) ? 0 : 1)' 2>/dev/null || \
  { echo "npm has no Node 24 for this platform and the PATH has $$(node -v 2>/dev/null || echo none): install Node 24 (24.11.1 or newer), https://nodejs.org" >&2; exit 1; }

tools:
	@for tool in grpcurl ghz redis-server jaeger promtool prometheus; do command -v $$tool >/dev/null && continue; \
	  if [ -n "$(CI)" ]; then echo "$$tool is not installed" >&2; exit 1; fi; \
	  echo "$$tool is not installed: the tests that call it are skipped" >&2; done
