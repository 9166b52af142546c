# SPDX-License-Identifier: MIT
# A thin front for meson. `make help` lists the targets; CC, BUILD, JOBS, PREFIX, DESTDIR and PROMPT (of the demo) may be
# set on the command line.
BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX ?= /usr/local
MESON_FLAGS ?=
NINJA = ninja -C $(BUILD) -j$(JOBS)
PROMPT ?=
SETUP = test -f $(1)/build.ninja || meson setup $(1) --prefix $(PREFIX) $(MESON_FLAGS) $(2)
SANITIZE = -Dbuildtype=debugoptimized -Db_lundef=false

.PHONY: all help need deps demo test quick asan tsan chaos bench canary fuzz lint install uninstall clean

all: need
	@$(call SETUP,$(BUILD)) >/dev/null
	@$(NINJA)
	@echo "built $(BUILD)/aulos"

help:
	@echo "make            build $(BUILD)/aulos"
	@echo "make deps       install the Debian packages that are missing, and say which"
	@echo "make demo       from nothing to a sound: packages, build, server, one prompt, one audio file"
	@echo "make test       packages, build, every test; ends with N passed, N failed, N skipped"
	@echo "make quick      the tests that take less than a minute"
	@echo "make asan       every test under AddressSanitizer and UndefinedBehaviorSanitizer"
	@echo "make tsan       jobs, http, thread pool and scenarios under ThreadSanitizer"
	@echo "make lint       include order, style, symbols, headers, links"
	@echo "make chaos      server and workers killed CHAOS_KILLS (default 1000) times under load, and nothing lost: minutes"
	@echo "make bench      speed on this machine, beside transformers and nginx where they are installed"
	@echo "make canary     many jobs over many adapters at once, each sample compared with one made alone (CANARY_JOBS, default 1000)"
	@echo "make fuzz       each parser for FUZZ_SECONDS (default 60) under libFuzzer"
	@echo "make install    into PREFIX (default /usr/local), under DESTDIR"

need:
	@command -v meson >/dev/null && command -v ninja >/dev/null && command -v $${CC:-cc} >/dev/null || \
	  { echo "meson, ninja or a C compiler is missing: run 'make deps' first (it installs Debian packages)" >&2; exit 1; }

deps:
	@tools/deps.sh build run

demo:
	@tools/deps.sh build run
	@$(MAKE) --no-print-directory all
	@python3 tools/demo.py $(BUILD) "$(PROMPT)"

test:
	@tools/deps.sh build run test
	@$(call SETUP,$(BUILD)) >/dev/null
	@python3 tools/run_tests.py --build $(BUILD) --jobs $(JOBS)

quick: need
	@$(call SETUP,$(BUILD)) >/dev/null
	@python3 tools/run_tests.py --build $(BUILD) --jobs $(JOBS) --only quick

asan: need
	@$(call SETUP,$(BUILD)-asan,$(SANITIZE) -Db_sanitize=address$(,)undefined) >/dev/null
	@python3 tools/run_tests.py --build $(BUILD)-asan --jobs $(JOBS) --only quick,slow,api

tsan: need
	@$(call SETUP,$(BUILD)-tsan,$(SANITIZE) -Db_sanitize=thread) >/dev/null
	@python3 tools/run_tests.py --build $(BUILD)-tsan --jobs $(JOBS) --only quick,slow,api --threaded

chaos: all
	@python3 tests/chaos/chaos.py $(BUILD) --kills $${CHAOS_KILLS:-1000}

bench: all
	@$(BUILD)/aulos bench
	@python3 bench/batch_jobs.py $(BUILD)
	@python3 bench/bench_http.py $(BUILD)
	@python3 bench/compare_transformers.py $(BUILD)
	@python3 bench/ranges.py $(BUILD)
	@python3 bench/jobs.py $(BUILD)

canary: all
	@AULOS_BIN=$(abspath $(BUILD))/aulos AULOS_CANARY_JOBS=$${CANARY_JOBS:-1000} python3 -m pytest -q -s tests/api/test_canary.py

fuzz: need
	@tools/fuzz.sh $(BUILD)-fuzz $${FUZZ_SECONDS:-60}

lint: all
	@python3 tools/lint.py --build $(BUILD)

install: all
	@meson install -C $(BUILD) --no-rebuild

uninstall:
	@ninja -C $(BUILD) uninstall

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz $(BUILD)-clang

# A comma inside $(call ...).
, := ,
