'use strict'
// How many compilers run side by side. Node's os.availableParallelism() knows neither the CPU quota of a container nor
// memory, and a compiler that is out of memory is killed without a word. The same rule as cpu/machine.cc but for swap,
// which cannot be asked before it is built; test/machine.test.ts holds one against the other.

const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

/** Bytes that a compiler of this project takes at most. */
const bytesPerJob = 1e9

/** CMAKE_BUILD_PARALLEL_LEVEL where it is set; else one job a core, as far as CPU quota and free memory allow. */
function buildJobs () {
  if (process.env.CMAKE_BUILD_PARALLEL_LEVEL) return process.env.CMAKE_BUILD_PARALLEL_LEVEL
  const { quota, free } = limits()
  return String(Math.max(1, Math.min(os.availableParallelism(), quota ? Math.ceil(quota) : Infinity,
    free ? Math.floor(free / bytesPerJob) : Infinity)))
}

/**
 * CPU quota in processors, and free memory in bytes without swap; 0: none, or unknown. `root`: the folder in which
 * /proc and /sys are looked for.
 */
function limits (root = '') {
  const text = name => {
    try {
      return fs.readFileSync(root + name, 'utf8')
    } catch {
      return ''
    }
  }
  const number = value =>
    /^[ \t]*\d+(?=\s|$)/.test(value) && Number.parseInt(value, 10) < 2 ** 60 ? Number.parseInt(value, 10) : Infinity
  const row = (lines, key) => number(new RegExp(`^${key}[ \t]+(.*)$`, 'm').exec(lines)?.[1] ?? '')
  const orZero = value => value === Infinity ? 0 : value

  const own = text('/proc/self/cgroup').split('\n').map(line => /^[^:]*:([^:]*):(\/.*)$/.exec(line)).filter(Boolean)
  const mounted = text('/proc/self/mountinfo').split('\n').map(line => line.split(' '))
  /** Folders of the own group of a controller ('' for version 2) and of those above it. */
  const groups = controller => {
    const whole = own.find(([, names]) => controller ? names.split(',').includes(controller) : names === '')?.[2]
      .replace(/^\/$/, '') ?? ''
    const plain = name => name.replace(/\\([0-7]{3})/g, (_, digits) => String.fromCharCode(parseInt(digits, 8)))
    const mounts = mounted.flatMap(fields => {
      const dash = fields.indexOf('-', 6)
      const fits = dash > 0 && (controller
        ? fields[dash + 1] === 'cgroup' && (fields[dash + 3] ?? '').split(',').includes(controller)
        : fields[dash + 1] === 'cgroup2')
      return fits ? [{ top: plain(fields[3]).replace(/^\/$/, ''), point: plain(fields[4]) }] : []
    })
    if (mounts.length === 0) mounts.push({ top: '', point: path.posix.join('/sys/fs/cgroup', controller) })
    const isFolder = name => fs.statSync(root + name, { throwIfNoEntry: false })?.isDirectory() ?? false
    const [best] = mounts.filter(({ top, point }) => (whole === top || whole.startsWith(`${top}/`)) &&
      isFolder(point + whole.slice(top.length))).sort((a, b) => a.top.length - b.top.length)
    const point = (best ?? mounts[0]).point
    let below = whole
    if (best) below = whole.slice(best.top.length)
    else while (below && (below.includes('/..') || !isFolder(point + below))) below = below.replace(/^\/[^/]*/, '')
    const folders = []
    for (;; below = below.slice(0, below.lastIndexOf('/'))) {
      folders.push(point + below)
      if (!below) return folders
    }
  }
  const second = groups('')
  const quotas = [
    ...second.map(folder => text(`${folder}/cpu.max`).split(' ')),
    ...groups('cpu').map(folder => [text(`${folder}/cpu.cfs_quota_us`), text(`${folder}/cpu.cfs_period_us`)])
  ].map(([quota, period = '']) => [number(quota), number(period)])
    .filter(pair => pair.every(value => value > 0 && value < Infinity))

  const free = [row(text('/proc/meminfo'), 'MemAvailable:') * 1024] // compilers that are swapped out do not end
  for (const folder of second) {
    const limit = Math.min(number(text(`${folder}/memory.max`)), number(text(`${folder}/memory.high`)))
    const held = orZero(number(text(`${folder}/memory.current`))) -
      orZero(row(text(`${folder}/memory.stat`), 'inactive_file'))
    free.push(Math.max(0, limit - Math.max(0, held)))
  }
  for (const folder of groups('memory')) {
    const stat = text(`${folder}/memory.stat`)
    const limit = Math.min(number(text(`${folder}/memory.limit_in_bytes`)), row(stat, 'hierarchical_memory_limit'))
    const held = orZero(number(text(`${folder}/memory.usage_in_bytes`))) - orZero(row(stat, 'total_inactive_file'))
    free.push(Math.max(0, limit - Math.max(0, held)))
    if (number(text(`${folder}/memory.use_hierarchy`)) === 0) break
  }
  const least = Math.min(...free)
  return {
    quota: quotas.length > 0 ? Math.min(...quotas.map(([quota, period]) => quota / period)) : 0,
    free: least === Infinity ? 0 : Math.max(1, least)
  }
}

module.exports = { buildJobs, limits }
