#!/bin/bash
# Builds, tests and measures on a machine with a GPU, in at most eight minutes: needs CMake, nvcc, a C++ compiler and Node,
# no registry. Prints a short table last and writes OUT/device.json; exits with 1 where a check failed or could not run.
#   bash scripts/device.sh [OUT] [--minutes 8] [--only build,cases,...]     (OUT: out/device-report, or $OUT)
# The parts and their order are in device.js. A machine without Node gets it from .carry/ (scripts/carry.sh).
set -u
cd "$(dirname "$0")/.."

export PATH="$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin:/opt/torch/.venv/bin"
tools=out/device-tools
unpack() {
  local file=".carry/$1.tar.xz"
  [ -f "$file" ] && mkdir -p "$2" || return 1
  if command -v xz >/dev/null; then tar xJf "$file" -C "$2"; else python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$file" "$2"; fi
}
runs() { node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)' >/dev/null 2>&1; }
if ! runs; then
  unpack node "$tools" && export PATH="$PWD/$tools:$PATH"
fi
[ -e node_modules ] || unpack node_modules node_modules
# Without type declarations no dist/ can be made here, and the one that came along is of these sources, whatever times their
# copies have by whichever clock.
if [ ! -e dist ] || [ ! -e node_modules/@types/node ]; then
  unpack dist . && find dist -type f -exec touch -d '+1 day' {} +
fi

if runs; then
  exec node scripts/device.js "$@"
fi

# Without Node there is no test of the library and no table of promises, but the programs say what they found.
echo "device: no Node 20 here, and none in .carry/ (bash scripts/carry.sh): only the native programs are run" >&2
out=${OUT:-out/device-report}
case "${1:-}" in ''|-*) ;; *) out=$1 ;; esac
mkdir -p "$out" || exit 1
folder=out/device
generator=()
command -v ninja >/dev/null && generator=(-G Ninja)
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d '. ')
[ -n "$capability" ] || { echo "device: nvidia-smi finds no GPU" >&2; exit 1; }
{ timeout 240 cmake -S . -B "$folder" "${generator[@]}" -DPARVIS_CUDA=ON -DPARVIS_CHECKS=ON -DPARVIS_ARCHITECTURES="$capability-real" &&
  timeout 240 cmake --build "$folder" --parallel "$(nproc)"; } >"$out/build.txt" 2>&1 || { tail -40 "$out/build.txt"; exit 1; }
for name in $(cat "$folder/checks.txt") shapes; do
  timeout -k 5 75 "$folder/checks/$name" >"$out/$name.txt" 2>&1
  echo "$name: exit $?, $(grep -c '^ok' "$out/$name.txt") ok, $(grep -c '^not ok' "$out/$name.txt") not"
  grep '^not ok' "$out/$name.txt" | head -5
done
# At most eight files come back from some machines.
(cd "$out" && for file in *.txt; do echo "==== $file"; cat "$file"; done >log && rm -f ./*.txt && mv log log.txt)
timeout -k 5 150 "$folder/checks/measure" --seconds 130 --out "$out/measure.json" | grep '^not ok'
if python3 -c 'import torch' 2>/dev/null; then timeout -k 5 100 python3 bench/torch/gpu.py --seconds 60 --models XXL,3B --n 4 --out "$out/torch.json"; fi
[ -f "$out/measure.json" ] && python3 - "$out/measure.json" <<'END'
import json, sys
for part in json.load(open(sys.argv[1]))["parts"]:
    if "problem" in part:
        print(part["name"], part["problem"], sep=": ")
        continue
    numbers = {name: value for name, value in part.items() if isinstance(value, (int, float))}
    numbers.update({name: value["median"] for name, value in part.items() if isinstance(value, dict) and "median" in value})
    print(part["name"], ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), sep=": ")
    for family in part.get("families", []):
        print("   ", family["name"], f"{family['ofCeiling']:.2f} of a read")
END
exit 1
