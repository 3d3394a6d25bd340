// The programs that check and measure on a device (CMakeLists.txt beside this) compile with nvcc, in the standard of
// that build: where there is no GPU nothing else looks at them, and a device is lent for too short a time to find out
// there.

import t from 'tap'
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { nvcc, withoutNvcc } from '../support/ptx.js'
import { inParallel, root } from '../support/simt.js'

t.setTimeout(600_000)

const run = promisify(execFile)

t.test('programs for a device compile', { skip: withoutNvcc }, async t => {
  const lists = fs.readFileSync(path.join(__dirname, 'CMakeLists.txt'), 'utf8')
  const cases = /set\(cases ([^)]+)\)/.exec(lists)![1]!.split(' ').map(name => `test/simt/${name}.cc`)
  const others = [...lists.matchAll(/parvis_check\((\w+|[\w-]+) (\S+?)\)/g)].map(([, , file]) => file!)
    .filter(file => !file.includes('${name}'))
    .map(file => file.startsWith('${PROJECT_SOURCE_DIR}/')
      ? file.slice('${PROJECT_SOURCE_DIR}/'.length)
      : `test/cuda/${file}`)
  t.ok(cases.length >= 9, `${cases.length} programs of cases`)
  t.same(others.sort(), ['bench/cuda/measure.cc', 'bench/cuda/trace.cc', 'bench/cuda/vq.cu', 'test/cuda/shapes.cc'])
  const flags = ['-x', 'cu', '-std=c++17', '--fmad=false', '-Iinclude', '--diag-suppress=2810', '-arch=compute_90',
    '-Dmain=programMain', '-c', '-o']
  const folder = t.testdir()
  const failures = await inParallel([...others, ...cases], async (source, i) => {
    try {
      const traced = source === 'bench/cuda/trace.cc' ? ['-DPARVIS_TRACE'] : []
      await run(nvcc!.path, [...traced, ...flags, path.join(folder, `${i}.o`), source], { cwd: root })
      return ''
    } catch (error) {
      return `${(error as { stderr?: string }).stderr ?? ''}${(error as Error).message}`
    }
  })
  for (const [i, source] of [...others, ...cases].entries()) t.equal(failures[i], '', source)
})
