# make check   what every change must pass: under 4 minutes, no root needed
# make test    check, then the process test and interop with programs of others
# make bench   measures, and writes the table of docs/performance.md

GO    ?= go
STAGE := ./.ci/stage

.PHONY: build check test bench fmt vet staticcheck unit fuzz process interop

build:
	$(GO) build -o bin/imgate ./cmd/imgate

check: fmt vet staticcheck unit fuzz

test: check process interop

fmt:
	@$(STAGE) gofmt sh -c 'test -z "$$(gofmt -l . | tee /dev/stderr)"'

vet:
	@$(STAGE) vet $(GO) vet ./...
	@$(STAGE) "vet of tagged tests" $(GO) vet -tags process,interop ./cmd/imgate

staticcheck:
	@$(STAGE) staticcheck $(GO) tool staticcheck ./...

# The import rule, the contract suites, the crash test at every storage call,
# the tests of the shipped policies and the check of generated files are tests
# among the others.
unit:
	@$(STAGE) "contract matrix" $(GO) test -count=1 -v -run Matrix ./engine/plugin/plugintest
	@$(STAGE) tests $(GO) test -race -shuffle=on -timeout 5m ./...

fuzz:
	@$(STAGE) "fuzz smoke" ./.ci/fuzz 3s

process:
	@$(STAGE) "process test" $(GO) test -tags process -run TestKilledInTheMiddle -count=1 -v ./cmd/imgate

interop:
	@$(STAGE) interop ./.ci/interop

bench: build
	@$(STAGE) bench ./.ci/bench
