# `make` alone lists the targets. CI runs `make quick` on each push and `make test` each night.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run quick test race lint bench bench-baseline bench-compare chaos fuzz deps build release notices clean help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Of one package's tests. A test that hangs fails with the stacks of its goroutines.
TIMEOUT  ?= 10m
FUZZTIME ?= 30s
BENCH    ?= .
BENCHTIME ?= 200ms
# Runs of each benchmark: benchstat needs six to separate a difference from noise.
COUNT    ?= 6
BASELINE := tests/bench/baseline.txt
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -X main.version=$(VERSION)

# Packages whose tests measure time or memory, so they run one at a time.
MEASURING := ./loadtest/... ./tests/chaos

run: ## start a gateway with an embedded Redis on 127.0.0.1:3000
	go run ./cmd/gateway

quick: ## go vet, tests that start no processes, node --test: about a minute, nothing to install
	go vet ./...
	scripts/gotest.sh "-short ./..."
	@if command -v node >/dev/null; then node --test --test-reporter=dot web/*.test.mjs; \
	else echo "node is not installed: the tests of web/herald.js did not run"; fi

test: deps lint race ## install missing tools, lint, run every test: about 10 minutes

# -count=1: results depend on programs that the test cache does not see. Most tests
# of processes wait, so four packages at a time keep two processors busy. The first
# run is without the race detector: internal/transport compiles other code under it.
race: ## every test under the race detector
	go build -race ./...
	@builds=$$(mktemp -d); trap 'rm -rf "$$builds"' EXIT; export GATEWAYTEST_BUILDS="$$builds"; \
	serial=$$(go list $(MEASURING)); parallel=$$(go list ./... | grep -vxF "$$serial"); \
	scripts/gotest.sh "-count=1 -timeout $(TIMEOUT) ./internal/transport ./stream ./server" \
		"-race -count=1 -p 4 -timeout $(TIMEOUT) $$parallel" \
		"-race -count=1 -p 1 -timeout $(TIMEOUT) $$serial"

lint: ## gofmt, go vet, staticcheck, govulncheck
	@unformatted=$$(find . -name node_modules -prune -o -name '*.go' -print | xargs gofmt -l) && \
		{ [ -z "$$unformatted" ] || { echo "not gofmt'd:" $$unformatted; exit 1; }; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@$(vulncheck)

# Without network there is no vulnerability database, and the check is skipped. A
# finding or any other failure stops the target.
define vulncheck
echo "go run $(GOVULNCHECK) ./..."; \
out=$$(go run $(GOVULNCHECK) ./... 2>&1) || case $$out in \
	*"fetching vulnerabilities:"*) echo "govulncheck: skipped, its database cannot be reached" ;; \
	*) printf '%s\n' "$$out"; exit 1 ;; \
esac
endef

bench: deps ## micro-benchmarks, beside the stored ones if there are any; BENCH= and COUNT= select
	@mkdir -p artefacts
	$(call benchmarks,artefacts/bench.txt)
	@[ ! -f $(BASELINE) ] || go run $(BENCHSTAT) $(BASELINE) artefacts/bench.txt

bench-baseline: deps ## store what `make bench` compares with; on a quiet machine
	@mkdir -p $(dir $(BASELINE))
	$(call benchmarks,$(BASELINE))

# The machine is in a comment, because benchstat compares only results with equal
# settings. The last line FAILED tells a failed benchmark from a successful tee.
define benchmarks
@{ echo "# $$(uname -srm), $$(nproc) cores, $$(awk '/^MemTotal/ { printf "%.1f GiB", $$2 / 1048576 }' /proc/meminfo), $$(go env GOVERSION), $$(date -u +%F)"; \
	go test -run '^$$' -bench '$(BENCH)' -benchmem -benchtime=$(BENCHTIME) -count=$(COUNT) -timeout 2h ./... || echo FAILED; } | grep -v 'no test files' | tee $(1)
@[ "$$(tail -n 1 $(1))" != FAILED ]
endef

bench-compare: ## the gateway beside a Node baseline, socket.io and nchan, in 15 minutes
	@scripts/deps.sh compare
	@mkdir -p artefacts
	REQUIRE_TOOLS=1 go test -count=1 -tags compare -run 'TestPeers|TestComparison' ./loadtest ./loadtest/target
	go run ./loadtest compare --json artefacts/compare.json --html artefacts/compare.html

chaos: deps ## minutes of faults while clients listen; prints the cost of each fault
	go test -race -count=1 -v -timeout 30m -run 'TestNothing|TestTheChecker' ./tests/chaos -chaos.long

fuzz: ## every fuzz target for FUZZTIME each
	@grep -rEo --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]*' . | \
	while IFS=: read -r file target; do \
		go test -run '^$$' -fuzz "^$${target#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

deps: ## install redis-server, nginx, chromium and npm's packages, if missing
	@scripts/deps.sh

build: ## bin/gateway, static
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/gateway ./cmd/gateway

release: ## dist/: archives for linux and darwin, amd64 and arm64, and SHA256SUMS
	scripts/release.sh $(VERSION)

notices: ## THIRD_PARTY_NOTICES, from the licences of what the gateway links
	scripts/notices.sh >THIRD_PARTY_NOTICES

clean: ## remove the files that builds and tests leave
	rm -rf bin dist artefacts coverage.out
	find . -name node_modules -prune -o \( -name '*.test' -o -name '*.prof' \) -type f -exec rm -f {} +

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
