'use strict'
// Runs at `npm install`, in a clone and in the published package. Where an addon is present and loads, nothing
// is done; otherwise it is built from source. Nothing is downloaded: cmake-js and node-addon-api, which the user
// installs for that, bring the headers. (node-gyp-build is the loader only: its own install command would fall back to
// node-gyp.)
//
//   PARVIS_CUDA=on|off|auto   CUDA backend of the addon (default auto: where nvcc and an NVIDIA driver are found)
//   --build                   builds, whatever is there

const old = require('../bin/node-version.js').problem(process.versions.node)
if (old !== undefined) {
  console.error(old + '.')
  process.exitCode = 1
} else {
  install()
}

function install () {
  const { probe, build, cudaOption } = require('./addon')
  const present = process.argv.includes('--build') ? { problem: 'asked to' } : probe()
  const wantsCuda = cudaOption() === 'ON' && !(present.backends || []).includes('cuda')
  if (!present.problem && !wantsCuda) {
    console.log(`parvis: using the native addon ${present.file}`)
    return
  }
  console.log(
    `parvis: building the native addon (${present.problem || 'PARVIS_CUDA=on and the addon has no CUDA backend'})`
  )
  process.exitCode = build()
  if (process.exitCode) return
  const built = probe()
  if (!built.problem) return
  console.error(`parvis: the build ended well, but ${built.problem}`)
  process.exitCode = 1
}
