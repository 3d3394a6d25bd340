#!/bin/bash
# Packs what scripts/device.sh needs into .carry/ (ignored by git), for a machine with a GPU that has neither Node nor a
# registry, and builds the programs for it here. docs/gpu-development.md says how it travels.
#   bash scripts/carry.sh [90]        packs for GPUs of that compute capability; tells the sizes, and fails above 63 MiB
#   bash scripts/carry.sh --lean      empties large files that the run does not read
#   bash scripts/carry.sh --restore   brings them back
exec node "$(dirname "$0")/device/carry.js" "$@"
