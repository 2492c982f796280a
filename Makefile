.PHONY: run test lab setup
run: setup
	.build/release/martlet run
