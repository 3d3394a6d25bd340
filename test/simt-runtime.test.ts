// The host side of the SIMT layer: queues, events, graphs, memory and failures as CUDA has them, and every mistake that
// it is there for shows, whenever queued work happens to run.

import t from 'tap'
import { build, executeOn } from './support/simt.js'

const seeds = [1, 2, 3, 4, 5]
const right = { code: 0, out: 'right\n', err: '' }

t.test('the runtime of the SIMT layer', async t => {
  const program = await build('runtime-self', ['test/simt/runtime-self.cc'])

  for (const seed of seeds) {
    for (const name of ['order', 'null-stream', 'pageable', 'events', 'graph', 'forbidden', 'copies', 'threads']) {
      t.same(await executeOn(`seed=${seed}`, program, name), right, `${name}, seed ${seed}`)
    }
    for (const name of ['early', 'reused']) {
      t.same(await executeOn(`seed=${seed}`, program, name), { ...right, out: 'wrong\n' }, `${name}, seed ${seed}`)
    }
  }

  for (const seed of seeds) {
    for (const ahead of [0, 1, 3]) {
      const machine = `seed=${seed},ahead=${ahead}`
      t.same(await executeOn(machine, program, 'overlap'), right, `kernels that may overlap: ${machine}`)
      t.same(await executeOn(machine, program, 'hasty'), { ...right, out: ahead === 0 ? 'right\n' : 'wrong\n' },
        `one that reads too early: ${machine}`)
      const { out, err } = await executeOn(machine, program, 'never-waits')
      t.equal(out, 'right\n', `a thread that does not wait is an error: ${machine}`)
      t.match(
        err, /kernel .*neverWaits, block .*, thread \(0,0,0\): ends without having waited for the kernels before it/
      )
    }
  }

  const machines: Array<[string, string]> = [
    ['memory', 'memory=64M'],
    ['failures', 'devices=2,fail=malloc:2,fail=launch:3'],
    ['devices', 'devices=2,memory=1M/2M,capability=7.5/9.0,name=old/new'],
    ['no-device', 'devices=0'],
    ['no-driver', 'driver=0'],
    ['no-driver', 'driver=0,devices=0']
  ]
  for (const [name, machine] of machines) t.same(await executeOn(machine, program, name), right, `${name}: ${machine}`)

  const sticky = await executeOn('', program, 'sticky')
  t.equal(sticky.out, 'right\n', 'a kernel that failed breaks its device for good')
  t.match(sticky.err, /kernel .*failing, block \(0,0,0\), thread \(0,0,0\): __shfl_sync/, 'and says where')

  const shared = await executeOn('devices=4,capability=8.9/9.0/8.0/12.0', program, 'shared')
  t.equal(shared.out, 'right\n', `more shared memory than a block may have: ${shared.err}`)
  t.match(shared.err, /kernel .*failing: 101377 bytes of shared memory, and a block of this device may have 101376/,
    'says how much')
  t.match(
    shared.err,
    /kernel .*withArray.*, block .*: 101504 bytes of shared memory, and a block of this device may have 101376/,
    'static arrays count'
  )
  t.match(
    shared.err,
    /kernel .*withArray.*, block .*: 53248 bytes of shared memory, and a block of this device may have 49152 without asking/
  )

  const typo = await executeOn('devises=2', program, 'order')
  t.match(typo.err, /`devises=2` means nothing here/, 'a machine that is not understood is refused')

  const messages: Array<[string, RegExp, RegExp?]> = [
    ['overrun', /kernel .*overrun, block \(0,0,0\), thread \(0,0,0\): invalid access/, /heap-buffer-overflow/],
    ['freed-device', /kernel .*addTo, .*: invalid access/, /heap-use-after-free/],
    ['freed-pinned', /heap-use-after-free/],
    ['host-touches', /the host touches memory of device 0/, /use-after-poison/],
    ['foreign-device', /a kernel touches memory of device 1/, /kernel .*addTo, .*: invalid access/]
  ]
  for (const [name, ...expected] of messages) {
    const { out, err } = await executeOn('devices=2', program, name)
    t.not(out, 'right\n', `${name} is caught`)
    for (const message of expected) if (message) t.match(err, message, `${name} says so`)
  }
})
