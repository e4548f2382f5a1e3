# `make` alone lists the targets; `make test` is what CI runs.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run test race lint bench bench-baseline bench-compare chaos fuzz deps build clean help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

# Non-empty: a test whose tool (redis-server, nginx, chromium, node) is missing fails.
REQUIRE_TOOLS ?= 1
# Of one package; a hanging test is told by its stack traces, not by CI's patience.
TIMEOUT  ?= 10m
FUZZTIME ?= 30s
BENCH    ?= .
BENCHTIME ?= 200ms
# Of each benchmark: benchstat needs six to tell a difference from noise.
COUNT    ?= 6
BASELINE := tests/bench/baseline.txt

run: ## start a gateway with an embedded Redis on 127.0.0.1:3000
	go run ./cmd/gateway

test: deps lint race ## install what is missing, lint, run every test

# -count=1: results depend on programs that the test cache does not see. -p 1: the
# tests of several packages start many processes each, and one at a time is enough.
race: ## every test under the race detector, and without it what is other code then
	go build -race ./...
	go test -count=1 -timeout $(TIMEOUT) ./internal/transport ./server
	REQUIRE_TOOLS=$(REQUIRE_TOOLS) scripts/gotest.sh -race -count=1 -p 1 -timeout $(TIMEOUT) ./...

lint: ## gofmt, go vet, staticcheck, govulncheck
	@unformatted=$$(find . -name node_modules -prune -o -name '*.go' -print | xargs gofmt -l) && \
		{ [ -z "$$unformatted" ] || { echo "not gofmt'd:" $$unformatted; exit 1; }; }
	go vet ./...
	go run $(STATICCHECK) ./...
	@$(vulncheck)

# A machine without the vulnerability database may test; any finding, and any
# other failure, stops.
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

# The machine is in a comment, so that results of another one are still compared.
# A benchmark that fails is told apart from tee's success by its last line.
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

chaos: deps ## minutes of faults while clients listen; prints what each cost
	REQUIRE_TOOLS=$(REQUIRE_TOOLS) go test -race -count=1 -v -timeout 30m -run 'TestNothing|TestTheChecker' ./tests/chaos -chaos.long

fuzz: ## every fuzz target for FUZZTIME each
	@grep -rEo --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]*' . | \
	while IFS=: read -r file target; do \
		go test -run '^$$' -fuzz "^$${target#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

deps: ## install redis-server, nginx, chromium and npm's packages, if missing
	@scripts/deps.sh

build: ## bin/gateway, static
	CGO_ENABLED=0 go build -trimpath -ldflags=-s -o bin/gateway ./cmd/gateway

clean: ## remove what builds and tests leave
	rm -rf bin artefacts coverage.out
	find . -name node_modules -prune -o \( -name '*.test' -o -name '*.prof' \) -type f -exec rm -f {} +

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
