#!/bin/bash
# Builds, tests and measures on a machine with a GPU, in at most eight minutes: needs CMake, nvcc, a C++ compiler and Node,
# no registry. Prints a short table last and writes OUT/device.json; exits with 1 where a check failed or could not run.
#   bash scripts/device.sh [OUT] [--minutes 8] [--only build,cases,...]     (OUT: out/device-report, or $OUT)
# The parts and their order are in device.js. A machine without Node gets it from .carry/ (scripts/carry.sh).
set -u
cd "$(dirname "$0")/.."

export PATH="$PATH:/usr/local/cuda/bin"
tools=out/device-tools
unpack() {
  local file=".carry/$1.tar.xz"
  [ -f "$file" ] && mkdir -p "$2" || return 1
  if command -v xz >/dev/null; then tar xJf "$file" -C "$2"; else python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$file" "$2"; fi
}
if ! command -v node >/dev/null; then
  unpack node "$tools" && export PATH="$PWD/$tools:$PATH"
fi
[ -e node_modules ] || unpack node_modules node_modules
if [ ! -e dist ] && unpack dist .; then
  find dist -type f -exec touch {} + # it was made of these sources, whatever time the copies have
fi

if node --version >/dev/null 2>&1; then
  exec node scripts/device.js "$@"
fi

# Without Node there is no table and no test of the library, but the programs say what they found.
echo "device: no Node here, and none in .carry/ (bash scripts/carry.sh): only the native programs are run, without a table" >&2
folder=out/device
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
[ -n "$capability" ] || { echo "device: nvidia-smi finds no GPU" >&2; exit 1; }
timeout 240 cmake -S . -B "$folder" "${generator[@]}" -DPARVIS_CUDA=ON -DPARVIS_CHECKS=ON -DPARVIS_ARCHITECTURES="$capability-real" &&
  timeout 240 cmake --build "$folder" --parallel || exit 1
for name in $(cat "$folder/checks.txt") shapes; do
  timeout 90 "$folder/checks/$name" | grep -v '^ok' | sed "s/^/$name: /"
done
timeout 150 "$folder/checks/measure" --seconds 130
exit 1
