#!/usr/bin/env node
'use strict'
// The command `parvis`. Plain CommonJS that every Node can read, so that one that is too old, or a clone without its
// build step, is told in words. The commands themselves are in lib/cli.

const fs = require('fs')
const path = require('path')
const problem = require('./node-version.js').problem(process.versions.node)

const main = path.join(__dirname, '..', 'dist', 'cli', 'main.js')
if (problem !== undefined) {
  console.error(problem + '.')
  process.exitCode = 1
} else if (fs.existsSync(main)) {
  require(main).run(process.argv)
} else {
  console.error('parvis is not built yet: ' + main + ' does not exist.\n' +
    'Build it: cd ' + path.join(__dirname, '..') + ' && npm install')
  process.exitCode = 1
}
