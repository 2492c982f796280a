#!/bin/bash
# The soak with faults: processes are stopped, stutter, and run out of descriptors and memory while instances come and go.
# faults.sh [SEED]
exec bash "$(dirname "$0")/soak.sh" 25 "${1:-1}" faults
