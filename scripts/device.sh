#!/bin/bash
# Starts scripts/device.js, which checks and measures everything on a machine with a GPU. A machine without Node gets it,
# the modules, dist/ and the programs from .carry/ (scripts/carry.sh), each of which is unpacked once.
#   bash scripts/device.sh [OUT] [--call 1|2] [--minutes 6.6] [--only probe,cases,...]     (OUT: out/device-report, or $OUT)
set -u
cd "$(dirname "$0")/.."
PARVIS_DEVICE_BEGAN=$(date +%s)
export PARVIS_DEVICE_BEGAN PATH="$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin:/opt/torch/.venv/bin"
tools=out/device-tools

# unpack NAME FOLDER: .carry/NAME.tar.xz, unless what is there came out of the same archive.
unpack() {
  local archive=.carry/$1.tar.xz known=$tools/$1.sum sum
  [ -f "$archive" ] || return 0
  sum=$(cksum <"$archive")
  [ "$sum" = "$(cat "$known" 2>/dev/null)" ] && return 0
  mkdir -p "$2" "$tools"
  if command -v xz >/dev/null; then
    tar xJf "$archive" -C "$2" || return 1
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$archive" "$2" || return 1
  fi
  echo "$sum" >"$known"
}
# What is here without having come from an archive is the work of whoever develops here, and stays.
foreign() { [ -e "$1" ] && [ ! -e "$tools/$2.sum" ]; }
runs() { node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' >/dev/null 2>&1; }

runs || { unpack node "$tools" && export PATH="$PWD/$tools:$PATH"; }
foreign node_modules modules || unpack modules .
# It was compiled from these sources, whatever times their copies have by whichever clock.
foreign dist dist || { unpack dist . && [ -e dist/.built ] && touch -d '+1 day' dist/.built; }
foreign out/device programs || unpack programs .
runs || { echo "device: no Node 20 is here, and none in .carry/ (bash scripts/carry.sh)" >&2; exit 1; }
exec node scripts/device.js "$@"
