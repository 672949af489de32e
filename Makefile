# Everything needs Go; `test`, `integration` and `demo` also need root, and apt for what they find missing.
# SHARED is a folder with WIT, guests and the component model's test suite, for the tests that read them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export SHARED ?= $(abspath ../shared)
FUZZTIME ?= 10s

MODULES := . integration
SHIM := containerd-shim-spin-v2
BIN ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX ?= /usr/local
DEPS := cmd/$(SHIM)/deps.txt
# What these tests depend on is not only Go files that the go command sees: their verdict is never a cached one.
integration_tests = go test -C integration -count=1 -timeout 20m -json ./...
# The linter is no part of any go.mod: its dependencies are many, and none of ours.
lint = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run --config $(CURDIR)/.golangci.yml ./...
list_deps = CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go list -deps -f '{{if not .Standard}}{{.ImportPath}}{{end}}' ./cmd/$(SHIM) | LC_ALL=C sort

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-12s %s\n", $$1, $$2 }'

.PHONY: build
build: ## Build the static binary bin/containerd-shim-spin-v2
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X github.com/spinkube/containerd-shim-spin-go/pkg/shim.version=$(VERSION)" -o $(BIN)/$(SHIM) ./cmd/$(SHIM)

.PHONY: install
install: build ## Install it below PREFIX (default /usr/local), where containerd finds it
	@install -D -m 0755 $(BIN)/$(SHIM) $(DESTDIR)$(PREFIX)/bin/$(SHIM)

.PHONY: test
test: ## Set up everything and run every test
	@{ status=0; for m in $(MODULES); do (cd $$m && CGO_ENABLED=0 go test -json ./...) || status=1; done; exit $$status; } | go run -C integration ./cmd/testsum

.PHONY: check
check: ## Check what needs no test run: format, vet, lint, tidy modules, builds for both processors, list of dependencies
	@unformatted=$$(git ls-files -z '*.go' | xargs -0 gofmt -l); [ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	@for m in $(MODULES); do go vet -C $$m ./...; done
	@for m in $(MODULES); do (cd $$m && $(lint)); done
	@for m in $$(git ls-files '*go.mod'); do go mod tidy -C $$(dirname $$m) -diff; done
	@for arch in amd64 arm64; do CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath ./...; done
	@diff -u $(DEPS) <($(list_deps)) || { echo "dependencies changed: run make deps, and say why in RATIONALE.md"; exit 1; }
	@[ -z "$${CI-}" ] || [ -z "$$(git status --porcelain)" ] || { git status --short; echo "files that are not committed, or that something left"; exit 1; }

.PHONY: demo
demo: ## Run the demo apps under a private containerd (KEEP=1 leaves them running)
	@go run -C integration ./cmd/demo $(if $(KEEP),-keep)

.PHONY: integration
integration: ## Run the tests under real containerd alone
	@$(integration_tests) | go run -C integration ./cmd/testsum

.PHONY: spectest
spectest: ## Run the component model's test suite alone
	@go test -count=1 -v ./pkg/engine/internal/spectest/...

.PHONY: bench
bench: ## Measure the packages, then apps under containerd
	@go test -run "^$$" -bench . -benchmem ./pkg/...
	@CGO_ENABLED=0 go run -C integration ./bench $(BENCHFLAGS)

.PHONY: deps
deps: ## Rewrite the list of packages that the binary is made of
	@$(list_deps) >$(DEPS)

.PHONY: fuzz
fuzz: ## Fuzz each reader of foreign bytes for FUZZTIME
	@git grep -o '^func Fuzz[A-Za-z0-9_]*' -- 'pkg/**_test.go' | while IFS=: read -r file func; do \
		echo "$${func#func } in $$(dirname $$file)"; go test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$(dirname $$file); done
