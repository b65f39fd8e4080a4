# The two commands: `make run` (install, build, answer one prompt) and `make test`.
PRESET ?= release
BUILD = build/release
CLANG_FORMAT ?= clang-format-19

.PHONY: build run test test-all test-page test-serve test-package package bench format format-check web clean bootstrap

build: bootstrap
	cmake --preset $(PRESET) >/dev/null
	cmake --build $(BUILD)

bootstrap:
	@tools/bootstrap.sh

run: build
	$(BUILD)/snug run smollm2-135m -n 64 --temp 0 "Why is the sky blue?"

test: PRESET = ci
test: build
	tools/bootstrap.sh --test
	ctest --test-dir $(BUILD) --output-on-failure

# The sanitizers and the aarch64 kernels (under qemu-user) as well.
test-all: test
	tools/bootstrap.sh --dev
	for preset in asan tsan aarch64; do \
	  cmake --preset $$preset >/dev/null && cmake --build build/$$preset && \
	  ctest --test-dir build/$$preset --output-on-failure || exit 1; done
	$(MAKE) test-page
	$(MAKE) test-package

# The page of the server in a browser.
test-page: build
	tests/page/run

# Half an hour and more of hostile clients and of faults.
test-serve: test
	SNUG_LONG=1 python3 tests/cli/serve_hostile_test.py $(BUILD)/snug $(BUILD)/tiny.gguf $(BUILD)/libfail_reads.so
	python3 tests/soak/serve_soak.py --minutes 30

# build/package: a Debian package, and a tarball and a wheel that need nothing but glibc.
package: build
	tools/bootstrap.sh --package
	cmake --preset static >/dev/null
	cmake --build build/static --target snug
	packaging/build $(BUILD) build/static build/package

# Installs them where nothing else is, and runs them.
test-package: package
	tools/bootstrap.sh --dev
	tests/package/run build/package $(BUILD)

bench: build
	$(BUILD)/snug bench smollm2-135m

SOURCES = $(shell git ls-files '*.cpp' '*.hpp')
format:
	$(CLANG_FORMAT) -i $(SOURCES)
format-check:
	tools/bootstrap.sh --dev
	$(CLANG_FORMAT) --dry-run -Werror $(SOURCES)

# The page that the server shows; what is built is part of the repository, so only who changes it needs Node.
web:
	cd web && npm ci --no-audit --no-fund && npm run build

clean:
	rm -rf build
