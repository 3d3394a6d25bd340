// Work that one of several test processes does for all: nobody waits for ever for it.

import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { built, root } from './support/built.js'
import { withLock } from './support/lock.js'

t.test('work is done once, also where it does not help', async t => {
  const lock = path.join(t.testdir(), 'lock')
  let times = 0
  await withLock(lock, () => false, async () => { times++ }, 1)
  t.same([times, fs.existsSync(lock)], [1, false])
  const failing = withLock(lock, () => false, async () => { throw new Error('no compiler') }, 1)
  await t.rejects(failing, { message: 'no compiler' })
  t.notOk(fs.existsSync(lock), 'the lock goes with work that failed')
})

t.test('others wait for the one that works', async t => {
  const lock = path.join(t.testdir(), 'lock')
  let [ready, times] = [false, 0]
  const work = async (): Promise<void> => {
    times++
    await new Promise(resolve => setTimeout(resolve, 300))
    ready = true
  }
  await Promise.all([1, 2, 3].map(async () => await withLock(lock, () => ready, work, 10)))
  t.equal(times, 1)
})

t.test('a lock that was left behind counts for nothing, one that is held is named', async t => {
  const lock = path.join(t.testdir(), 'lock')
  let times = 0
  const work = async (): Promise<void> => { times++ }
  const { pid } = spawnSync(process.execPath, ['--version'])
  fs.writeFileSync(lock, String(pid))
  await withLock(lock, () => false, work, 1)
  fs.writeFileSync(lock, '')
  fs.utimesSync(lock, 1, 1)
  await withLock(lock, () => false, work, 1)
  t.equal(times, 2)
  fs.writeFileSync(lock, String(process.pid))
  const waiting = withLock(lock, () => false, work, 0.1)
  await t.rejects(waiting, { message: `Process ${process.pid} has held ${lock} for 0.1 s` })
})

t.test('a source that is newer, and compiles to the same, is built once', async t => {
  const dist = await built()
  const entry = path.join(dist, 'index.js')
  const before = fs.readFileSync(entry, 'utf8')
  const now = new Date()
  fs.utimesSync(path.join(root, 'lib', 'machine', 'limits.ts'), now, now)
  fs.utimesSync(entry, 1, 1)
  t.equal(await built(), dist)
  t.equal(fs.readFileSync(entry, 'utf8'), before)
})
