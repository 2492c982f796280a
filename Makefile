# make run: the whole system with the emulated device; make test: every test that needs no guest; make lab: those in it.
# make docs: the author's guide and the reference, as a site in .build/docs.
BUILD = swift build -c release --static-swift-stdlib
# make bench: everything measured beside its peers, in 15 minutes at most.
.PHONY: run build gvisor fuzz model tsan test bench peers lab docs setup lint format

run: build
	.build/release/martlet run

build: setup
	$(BUILD) --product martlet-host
	$(BUILD) --product martlet-stack
	$(BUILD) --product martlet-stage
	$(BUILD) --product martlet
	$(BUILD) --product martlet-loops

# A further stack for `--stack gvisor`: installs Go, so only where asked for.
gvisor: build
	Setup/gvisor.sh .build/release

test: build
	Setup/test.sh

# Each parser, each reader of shared memory and each driver on a hostile device, by libFuzzer, so many seconds each.
SECONDS_EACH = 60
fuzz: setup
	Fuzzing/run.sh $(SECONDS_EACH)

# The protocols in a model checker: who owns what through crashes, sleep and wake, memory that is taken back.
model:
	Setup/packages.sh model
	Models/model.sh

# The tests of channel, rings, pool and caches under the thread sanitizer.
tsan: setup
	Tests/Threads/run.sh

# A machine where DPDK cannot be installed is measured without it.
bench: build
	-Setup/packages.sh bench
	-$(MAKE) peers
	$(BUILD) --product martlet-seal-loop
	.build/release/martlet bench

peers: $(patsubst Benchmarks/Peers/%.c,.build/peers/%,$(wildcard Benchmarks/Peers/*.c))

.build/peers/%: Benchmarks/Peers/%.c
	@mkdir -p .build/peers
	gcc -O3 -march=native -Wall -Wextra $(shell pkg-config --cflags libdpdk) $< -o $@ $(shell pkg-config --libs libdpdk)

lab: build
	Setup/packages.sh lab
	$(BUILD) --product martlet-escape
	swift build --build-tests
	Hardware/Lab/lab.sh

docs:
	Setup/docs.sh

setup:
	Setup/packages.sh
	Setup/lwip.sh

lint:
	swift format lint --strict -r Sources Drivers Stages Hardware Benchmarks Examples Tests Package.swift

format:
	swift format -i -r Sources Drivers Stages Hardware Benchmarks Examples Tests Package.swift
