// The SIMT layer itself: right kernels give their numbers in any order of fibers, and every kind of mistake that it is
// there for is caught, with a message that says where.

import t from 'tap'
import { build, execute, executeOn } from './support/simt.js'

const seeds = [1, 2, 3]

t.test('the SIMT layer', async t => {
  const program = await build('self', ['test/simt/self.cc'])

  for (const name of ['sum', 'warp', 'half-mask', 'async', 'bulk', 'cluster', 'mma', 'mma-trans']) {
    for (const seed of seeds) {
      t.same(await execute(program, name, seed), { code: 0, out: 'right\n', err: '' }, `${name}, order ${seed}`)
    }
  }

  // Mistakes that show as other numbers than the right ones.
  for (const name of ['sum-no-barrier', 'warp-no-first', 'warp-no-second', 'async-no-wait', 'bulk-no-wait']) {
    for (const seed of seeds) {
      t.same(await execute(program, name, seed), { code: 0, out: 'wrong\n', err: '' }, `${name}, order ${seed}`)
    }
  }

  const messages: Array<[string, RegExp, RegExp?]> = [
    ['overrun-static', /kernel .*overrunStatic, block \(0,0,0\), thread \(64,0,0\): invalid access/,
      /0 bytes past the end of table \(256 bytes\)/],
    ['overrun-dynamic', /kernel .*overrunDynamic, block \(0,0,0\), thread \(63,0,0\): invalid access/,
      /past the end of dynamic shared memory \(252 bytes\)/],
    ['overrun-global', /kernel .*overrunGlobal, block \(0,0,0\), thread \(64,0,0\): invalid access/],
    ['overrun-prefetch', /kernel .*prefetchBeyond, block \(0,0,0\), thread \(0,0,0\): invalid access/],
    ['deadlock', /kernel .*halfShuffles: deadlock/,
      /threads at __shfl_xor_sync at self.cc:\d+: 31 \(0, 1, 2, 3, ... 31\)\n.*__syncthreads at self.cc:\d+: 33 \(5, 32/],
    ['deadlock-mbarrier', /kernel .*noArrival: deadlock/, /mbarrier.wait at self.cc:\d+: 32/],
    ['spin', /kernel .*spin: more than 200000 switches/],
    ['diverged-shuffle',
      /kernel .*divergedShuffle, .*__shfl_xor_sync meets lane \d+ of its warp in __shfl_xor_sync at self.cc:\d+: the warp diverged/],
    ['diverged-block', /kernel .*divergedBlock, .*the block diverged/],
    ['cluster-no-second', /kernel .*sumCluster.*, .*the block of rank \d has ended, and its shared memory is read/],
    ['foreign-lane', /kernel .*foreignLane, .*reads lane 20, which its mask leaves out/]
  ]
  for (const [name, ...expected] of messages) {
    for (const seed of seeds) {
      const { out, err } = await execute(program, name, seed)
      t.not(out, 'right\n', `${name} is caught, order ${seed}`)
      for (const message of expected) if (message) t.match(err, message, `${name} says so, order ${seed}`)
    }
  }
  for (const seed of seeds) {
    const { out } = await execute(program, 'cluster-no-first', seed)
    t.not(out, 'right\n', `blocks of a cluster that do not meet are caught, order ${seed}`)
  }
  t.same(await execute(program, 'cluster-odd', 1), { code: 0, out: 'wrong\n', err: '' }, 'blocks that fill no cluster')
  t.same(await executeOn('capability=8.9', program, 'cluster', 1), { code: 0, out: 'wrong\n', err: '' },
    'a device without clusters')
  t.same(await execute(program, 'too-many-threads', 1), { code: 0, out: 'wrong\n', err: '' },
    'a launch that no device takes')
})
