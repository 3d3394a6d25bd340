#!/usr/bin/env node
'use strict'
// The command `parvis`. Plain CommonJS and nothing else, so that a clone without its build step says what is
// missing in words. The commands themselves are in lib/cli.

const fs = require('node:fs')
const path = require('node:path')

const main = path.join(__dirname, '..', 'dist', 'cli', 'main.js')
if (fs.existsSync(main)) {
  require(main).run(process.argv)
} else {
  console.error(`parvis is not built yet: ${main} does not exist.\n` +
    `Build it: cd ${path.join(__dirname, '..')} && npm install`)
  process.exitCode = 1
}
