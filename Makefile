# make check   what every change must pass: under 4 minutes, no root needed
# make test    check, then the program as a process under kill, pressure and a
#              full disk, several nodes on a PostgreSQL, the Debian package, and
#              programs of others
# make soak    the same pressure, and chaos among nodes, for longer
# make bench   measures, and writes the table of docs/performance.md; only one
#              storage with BENCH_STORAGE=pebble or postgres, or idle
# make deb     the Debian package, as dist/imgate_VERSION_ARCH.deb
# make docs    writes what is generated: docs/reference, NOTICE.txt, the metrics

GO    ?= go
STAGE := ./.ci/stage
# How many inputs each fuzz target gets: a time ends a run in the middle of one,
# which now and then counts as a failure.
FUZZ ?= 1000x

.PHONY: build check test soak bench deb docs fmt vet staticcheck unit notices policies fuzz process cluster package-test interop

build:
	$(GO) build -o bin/imgate ./cmd/imgate

check: fmt vet staticcheck unit notices policies fuzz

test: check process cluster package-test interop

fmt:
	@$(STAGE) gofmt sh -c 'test -z "$$(gofmt -l . | tee /dev/stderr)"'

vet:
	@$(STAGE) vet $(GO) vet ./...
	@$(STAGE) "vet of tagged tests" $(GO) vet -tags process,interop,package,cluster ./cmd/imgate

staticcheck:
	@$(STAGE) staticcheck $(GO) tool staticcheck ./...

# The import rule, the contract suites, the crash test at every storage call,
# the tests of the shipped policies and the check of generated files are tests
# among the others.
unit:
	@$(STAGE) tests ./.ci/unit

notices:
	@$(STAGE) notices $(GO) test -count=1 ./.ci/notices ./.ci/verdict

# What ships in Rego: its format, tests and coverage, and the linter Regal.
policies:
	@$(STAGE) policies ./.ci/policies

fuzz:
	@$(STAGE) "fuzz smoke" ./.ci/fuzz $(FUZZ)

process:
	@$(STAGE) "process tests" ./.ci/process

cluster:
	@$(STAGE) "cluster tests" ./.ci/cluster

package-test: deb
	@$(STAGE) "package test" ./.ci/package

interop:
	@$(STAGE) interop ./.ci/interop

soak:
	@$(STAGE) soak env PRESSURE=30m ./.ci/process TestPressure 60m
	@$(STAGE) "chaos soak" env CHAOS=20m ./.ci/cluster TestClusterChaos 60m

bench: build
	@$(STAGE) bench ./.ci/bench

deb:
	@$(STAGE) deb ./packaging/deb/build

docs:
	$(GO) run ./cmd/imgate manual --format markdown docs/reference
	$(GO) run ./.ci/notices
	$(GO) test ./examples/monitoring -update
