# The front door; CMake does the work.
#   make          build/lamina, build/liblamina.a, build/liblamina.so
#   make check    installs what is missing, builds, runs all tests
#   make demo     installs what is missing, builds, fetches a small model, answers in a budget of half its size
#   make install  (PREFIX, DESTDIR)
BUILD ?= build
PREFIX ?= /usr/local
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
CMAKE_FLAGS ?=

all:
	@tools/deps --check
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS) >$(BUILD)/configure.log 2>&1 \
	    || { cat $(BUILD)/configure.log; exit 1; }
	@cmake --build $(BUILD) --parallel $(JOBS)

packages_for_%:
	@tools/deps $*

check: packages_for_check all
	@tests/run $(BUILD)

demo: packages_for_demo all
	@tools/demo $(BUILD)

install: all
	cmake --install $(BUILD)

format:
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf $(BUILD)

.PHONY: all check demo install format clean
.NOTPARALLEL:
