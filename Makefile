# make run: the whole system with the emulated device; make test: every test that needs no guest; make lab: those in it.
# make docs: the author's guide and the reference, as a site in .build/docs.
BUILD = swift build -c release --static-swift-stdlib
.PHONY: run build test lab docs setup lint format

run: build
	.build/release/martlet run

build: setup
	$(BUILD) --product martlet-host
	$(BUILD) --product martlet-stack
	$(BUILD) --product martlet

test: build
	Setup/test.sh

lab: build
	Setup/packages.sh lab
	swift build --build-tests
	Hardware/Lab/lab.sh

docs:
	Setup/docs.sh

setup:
	Setup/packages.sh
	Setup/lwip.sh

lint:
	swift format lint --strict -r Sources Drivers Hardware Tests Package.swift

format:
	swift format -i -r Sources Drivers Hardware Tests Package.swift
