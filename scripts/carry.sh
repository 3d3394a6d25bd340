#!/bin/bash
# Packs what scripts/device.sh needs from Node into .carry/ (ignored by git), for a machine with a GPU that has neither Node
# nor a registry: the program itself, the modules of the tests that run there, the compiled library. About 35 MB.
#   bash scripts/carry.sh
# Then take .carry/ along with the working tree; device.sh unpacks it there.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -d node_modules/tap ] || { echo "carry: npm install comes first" >&2; exit 1; }
node scripts/prepare.js
node=$(node -p 'process.execPath')
node -e 'const o = require("os"); process.exit(o.platform() === "linux" && o.arch() === "x64" ? 0 : 1)' ||
  echo "carry: this Node is for $(node -p 'process.platform + " " + process.arch'): it runs on such machines only" >&2

# Modules that no test on a device loads: the runner's screen, type declarations, other tools, picture files.
leave=(react-dom es-toolkit @sigstore @img prismjs @types @typescript node-gyp tshy
  pnpm yarn @yarnpkg @arethetypeswrong publint prebuildify typedoc @shikijs highlight.js fastify @huggingface)
pack() { xz -T0 -2 >"$1.partial" && mv "$1.partial" "$1"; }
mkdir -p .carry
tar c --dereference -C "$(dirname "$node")" "$(basename "$node")" | pack .carry/node.tar.xz
tar c --exclude='*.map' --exclude='*.d.ts' --exclude='*.d.mts' --exclude='*.d.cts' --exclude='*.md' "${leave[@]/#/--exclude=./}" \
  -C node_modules . | pack .carry/node_modules.tar.xz
tar c dist | pack .carry/dist.tar.xz
du -sh .carry
[ "$(du -sb .carry | cut -f1)" -lt $((60 << 20)) ] || { echo "carry: more than 60 MiB" >&2; exit 1; }
