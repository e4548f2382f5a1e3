# `make` alone lists the targets; `make test` is what CI runs.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run test race lint bench chaos fuzz deps build clean help

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# Non-empty: a test whose tool (redis-server, nginx, chromium, node) is missing fails.
REQUIRE_TOOLS ?= 1
# Of one package; a hanging test is told by its stack traces, not by CI's patience.
TIMEOUT  ?= 10m
FUZZTIME ?= 30s
BENCH    ?= .

run: ## start a gateway with an embedded Redis on 127.0.0.1:3000
	go run ./cmd/gateway

test: deps lint race ## install what is missing, lint, run every test

# -count=1: results depend on programs that the test cache does not see. -p 1: the
# tests of several packages start many processes each, and one at a time is enough.
race: ## every test under the race detector
	go build -race ./...
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

bench: ## benchmarks; BENCH= selects
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

chaos: deps ## minutes of faults while clients listen; prints what each cost
	REQUIRE_TOOLS=$(REQUIRE_TOOLS) go test -race -count=1 -v -timeout 30m -run 'TestNothing|TestTheChecker' ./chaos -chaos.long

fuzz: ## every fuzz target for FUZZTIME each
	@grep -rEo --include='*_test.go' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]*' . | \
	while IFS=: read -r file target; do \
		go test -run '^$$' -fuzz "^$${target#func }\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")" || exit 1; \
	done

deps: ## install redis-server, nginx, chromium and the Node clients, if missing
	@scripts/deps.sh

build: ## bin/gateway, static
	CGO_ENABLED=0 go build -trimpath -ldflags=-s -o bin/gateway ./cmd/gateway

clean: ## remove what builds and tests leave
	rm -rf bin artefacts coverage.out
	find . -name node_modules -prune -o \( -name '*.test' -o -name '*.prof' \) -type f -exec rm -f {} +

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
