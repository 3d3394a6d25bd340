'use strict'
// Which Node.js parvis needs (zlib.crc32, and what sharp asks for). Read before anything else by the command, the
// package and the install script, so it is written for the oldest Node that may read it: nothing newer than 2015, no
// `node:` names.

/** Majors with their first minor; every later major will do. Of package.json, engines. */
const first = { 20: 17, 22: 2 }
const newest = 22

/** Why this Node will not do, and what will; undefined where it will do. */
function problem (version) {
  const parts = String(version).split('.').map(Number)
  if (parts[0] > newest || parts[1] >= first[parts[0]]) return undefined
  const needed = parts[0] > 20
    ? newest + '.' + first[newest] + ' or newer, or 20.17 or newer of Node.js 20'
    : '20.' + first[20] + ' or newer'
  return 'parvis needs Node.js ' + needed + ', this is ' + version
}

module.exports = { problem: problem }
