# `make` lists what there is. The work is done by the scripts in .ci and tests, so that CI runs the same.

.PHONY: help demo test build bench fuzz fmt

help:
	@echo 'make demo    two snapshots of a Docker volume with changes between, a restore as of the first, and what each cost'
	@echo '             (VOLUME=name or DIR=path: of your own data, which is only read)'
	@echo 'make test    everything that CI runs'
	@echo 'make build   the release binary'
	@echo 'make bench   the benchmarks, and a report of them (VOLUME_DIR=path, FULL=1; see .ci/bench)'
	@echo 'make fuzz    every fuzz target, SECONDS=60 each'
	@echo 'make fmt     format the sources'
	@echo 'demo, test and build install the Debian packages that are missing, with sudo when not root, and say which.'

demo:
	@.ci/packages demo
	@.ci/cargo build --release --locked
	@bash -c '. .ci/environment && ICECORE="$$TARGET_DIR/release/icecore" tests/demo.sh'

test:
	@bash .ci/run

build:
	@.ci/packages build
	@.ci/cargo build --release --locked
	@bash -c '. .ci/environment && echo "the program is $$TARGET_DIR/release/icecore"'

bench:
	@.ci/packages build
	@.ci/bench

fuzz:
	@.ci/packages build
	@.ci/fuzz $(or $(SECONDS),60)

fmt:
	@.ci/cargo fmt
	@.ci/cargo fmt --manifest-path fuzz/Cargo.toml
