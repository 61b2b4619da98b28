# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
KERNEL ?= 6.1
# Kernels of the matrix.
KERNELS ?= 5.10 6.1 6.12 6.18 7
# The kernel for another processor, which is emulated whatever this machine can do.
KERNEL_ARM64 ?= 6.12-arm64
# Virtual machines to run at once: each keeps two thirds of a processor busy, and waits for the rest of its time.
GUESTS ?= $(shell n=$$((($$(nproc) * 3 + 1) / 2)); echo $$((n > 6 ? 6 : n)))
GO ?= go
# A package's version begins with a digit, and says of what was built between two releases which commit it was.
PKG_VERSION ?= $(shell scripts/version)
ARCH ?= $(shell $(GO) env GOARCH)
DESTDIR ?=
PREFIX ?= /usr/local
GOFLAGS_BUILD := -trimpath -ldflags '-s -w -X xfrmscope/internal/cli.version=$(VERSION)'

export CGO_ENABLED := 0

.PHONY: help build man install uninstall package generate check-generated demo test test-unit test-vm bench lint fmt clean deps-vm deps-test deps-generate deps-lint deps-package test-package lint-fast smp-vm test-matrix test-matrix-quick test-arm64 kernels-page bench-vm deps-bench

##@ Use
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the static binary bin/xfrmscope
	$(GO) build $(GOFLAGS_BUILD) -o bin/xfrmscope ./cmd/xfrmscope

man: ## Write man pages and shell completions below bin/share
	rm -rf bin/share
	$(GO) run -ldflags '-X xfrmscope/internal/cli.version=$(VERSION)' ./cmd/xfrmscope-docs bin/share
	gzip -9n bin/share/man/*.8

install: build man ## Install below $(DESTDIR)$(PREFIX): binary, man pages, completions, systemd unit
	install -D -m 755 bin/xfrmscope $(DESTDIR)$(PREFIX)/bin/xfrmscope
	install -d $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 644 bin/share/man/*.8.gz $(DESTDIR)$(PREFIX)/share/man/man8/
	install -D -m 644 bin/share/completions/bash-completion/completions/xfrmscope $(DESTDIR)$(PREFIX)/share/bash-completion/completions/xfrmscope
	install -D -m 644 bin/share/completions/zsh/vendor-completions/_xfrmscope $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_xfrmscope
	install -D -m 644 bin/share/completions/fish/vendor_completions.d/xfrmscope.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/xfrmscope.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/bin/xfrmscope|$(PREFIX)/bin/xfrmscope|' deploy/systemd/xfrmscope.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/xfrmscope.service

uninstall: ## Remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/xfrmscope $(DESTDIR)$(PREFIX)/share/man/man8/xfrmscope*.8.gz \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/xfrmscope $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_xfrmscope \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/xfrmscope.fish $(DESTDIR)$(PREFIX)/lib/systemd/system/xfrmscope.service

package: build man ## Make a deb and an rpm in bin/ (nfpm)
	for format in deb rpm; do \
		VERSION='$(PKG_VERSION)' ARCH='$(ARCH)' $(GO) tool -modfile=deploy/package/go.mod nfpm package -f deploy/package/nfpm.yaml -p $$format -t bin/; \
	done

demo: build ## Raise a live faulty tunnel, diagnose it, show the report (installs what it needs, as root)
	scripts/demo

##@ Test
test: build test-unit check-generated test-package ## Everything: unit, BPF natively, real tunnels in VMs of each kernel (installs what it needs, as root)
	$(MAKE) test-vm KERNEL=$(KERNEL)
	$(MAKE) test-matrix-quick KERNELS='$(filter-out $(KERNEL),$(KERNELS))'
	$(MAKE) smp-vm KERNEL=6.12
	$(MAKE) initramfs-vm KERNEL=$(KERNEL)

test-unit: deps-test lint-fast ## Unit tests and BPF programs natively through BPF_PROG_TEST_RUN
	$(GO) test -count=1 ./...

test-vm: deps-vm build ## Boot a Debian kernel (KERNEL=5.10|6.1|6.12|6.18|7) and run every lab scenario in it
	scripts/vm/test -a 3 -j $(GUESTS) -t 3600 $(KERNEL)

test-package: deps-package package ## Install the deb and the rpm below a folder, run what they brought, remove them
	scripts/package-test bin/xfrmscope_$(PKG_VERSION)_$(ARCH).deb bin/xfrmscope-$(PKG_VERSION)-1.*.rpm

test-matrix: deps-vm build ## Run every lab scenario on each of KERNELS; records and output go to bin/matrix
	scripts/vm/matrix -a 2 -j $(GUESTS) $(KERNELS)

test-matrix-quick: deps-vm build ## Load and attach everything on each of KERNELS, and run three scenarios there
	scripts/vm/matrix -q -a 1 -j $$(($(GUESTS) + 1)) -o bin/matrix-quick $(KERNELS)

test-arm64: deps-vm build ## Load and attach everything on an emulated arm64 (KERNEL_ARM64), and run four scenarios there
	scripts/vm/matrix $(KERNEL_ARM64) -- smoke 'scenario=^(TestOneOfTwoSuffers|TestPeerRestarted|TestPolicies|TestPMTUGateway)$$'

kernels-page: ## Make docs/kernels.md of the records that test-matrix and test-arm64 left
	cp bin/matrix/*.json internal/lab/kernels/data/
	$(GO) test -count=1 ./internal/lab/kernels -run TestPage -update

smp-vm: deps-vm build ## Boot KERNEL with two processors, and saturate one of them
	scripts/vm/test -a 1 -c 2 $(KERNEL) smp

.PHONY: soak
DURATION ?= 30m
soak: deps-vm build ## Have serve watch loaded tunnels in a VM for DURATION (30m): every count exact, memory flat
	XFRMSCOPE_SOAK=$(DURATION) scripts/vm/test -t 100000 -r TestSoak $(KERNEL) scenario

.PHONY: initramfs-vm
initramfs-vm: deps-vm ## Boot KERNEL with nothing but xfrmscope and a test, by the script that docs/ci.md shows
	scripts/vm/initramfs $(KERNEL)

bench: deps-bench build ## What everything costs, as docs/performance.md tells it: some 8 minutes, as root, on an otherwise idle machine
	$(GO) run ./internal/lab/wirebench
	$(GO) run ./internal/lab/wirebench -ring
	$(GO) run ./internal/lab/vethbench
	$(GO) test -run '^$$' -bench 'HostDrop|AnyDrop|Inner' -benchtime 200000x -count 3 ./internal/bpfobj
	$(GO) test -run '^$$' -bench Replay ./internal/replay
	$(GO) test -run '^$$' -bench Tshark -benchtime 3x ./internal/replay
	$(GO) test -run '^$$' -bench 'Sample|Snapshot' -benchtime 5x ./internal/reader
	$(GO) test -run '^$$' -bench Scrape -benchtime 20x ./internal/export

bench-vm: deps-vm ## Count each program's instructions for a packet in a VM, fail if it takes more than before (UPDATE=yes keeps the counts)
	scripts/vm/bench $(if $(UPDATE),-u) 6.12

##@ Develop
GENERATED := internal/bpfobj internal/lab/wirebench internal/lab/vethbench

generate: deps-generate ## Compile the kernel programs (clang 19) into internal/bpfobj
	$(GO) generate $(addprefix ./,$(GENERATED))

check-generated: generate ## Fail when the committed objects are not what the sources give
	git diff --stat --exit-code -- $(GENERATED)
	@test -z "$$(git ls-files --others --exclude-standard -- $(GENERATED))" || { echo "generated files are not committed" >&2; exit 1; }

C_FILES = bpf/*.c bpf/bench/*.[ch] bpf/lib/*.h bpf/headers/kernel.h

lint-fast: ## gofmt and go vet
	@test -z "$$(gofmt -l cmd deploy internal)" || { echo "run make fmt: $$(gofmt -l cmd deploy internal)" >&2; exit 1; }
	$(GO) vet ./...

lint: lint-fast deps-generate deps-lint ## gofmt, vet, staticcheck, who may import what, shellcheck, clang-format
	$(GO) tool staticcheck ./...
	$(GO) test -count=1 ./internal/rooms
	shellcheck -x .ci/run scripts/deps scripts/demo scripts/package-test scripts/version scripts/vm/* deploy/package/*.sh
	clang-format-19 --dry-run --Werror $(C_FILES)

.PHONY: vuln
# The database is a Go module, so it comes where other modules come from. What is judged is the toolchain that go.mod names.
vuln: export GOTOOLCHAIN := $(shell sed -n 's/^toolchain //p' go.mod)
vuln: ## Known vulnerabilities in what is linked in (govulncheck, and the newest database of them)
	database=$$($(GO) mod download -json golang.org/x/vulndb@latest | sed -n 's/^.*"Dir": "\(.*\)".*$$/\1/p'); \
	rm -rf .cache/vulndb; \
	$(GO) run golang.org/x/vulndb/cmd/indexdb@latest -vulns "$$database/data/osv" -out .cache/vulndb
	$(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db file://$(CURDIR)/.cache/vulndb ./...

fmt: deps-generate ## Format Go and C
	gofmt -w cmd deploy internal
	clang-format-19 -i $(C_FILES)

clean: ## Remove what was built and downloaded
	rm -rf bin .cache

deps-test:
	scripts/deps test
deps-vm:
	scripts/deps vm
deps-generate:
	scripts/deps generate
deps-bench:
	scripts/deps bench
deps-package:
	scripts/deps package
deps-lint:
	scripts/deps lint
