// A long fuzz run of the readers: `node scripts/fuzz.js [--count 1000000] [--seed 1] [--only pickle,zip] [--minutes
// 20]`. Prints what each fuzzer found, with the seed and the number of the input, and keeps those inputs in out/fuzz/.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { fuzz } from './harness.js'
import { readers } from './readers.js'

const { values } = parseArgs({ options: {
  count: { type: 'string', default: '1000000' },
  seed: { type: 'string', default: '1' },
  only: { type: 'string' },
  minutes: { type: 'string', default: '600' }
} })

/** Inputs between two lines. */
const batch = 1000

async function main (): Promise<void> {
  const folder = mkdtempSync(path.join(tmpdir(), 'parvis-fuzz-'))
  const fuzzers = readers(folder)
    .filter(({ name }) => values.only === undefined || values.only.split(',').includes(name))
  const [seed, each] = [Number(values.seed), Math.ceil(Number(values.count) / fuzzers.length)]
  const end = Date.now() + Number(values.minutes) * 60_000
  let found = 0
  const sums = fuzzers.map(({ name }) => ({ name, inputs: 0, refused: 0, read: 0, block: 0, memory: 0, findings: 0 }))
  for (let from = 0; from < each && Date.now() < end; from += batch) {
    for (const [k, fuzzer] of fuzzers.entries()) {
      const outcome = await fuzz(fuzzer,
        { seed, from, count: Math.min(batch, each - from), folder: path.join('out', 'fuzz') })
      for (const { index, why, file } of outcome.findings) {
        console.log(`${fuzzer.name} seed ${seed} input ${index}: ${why}\n  ${file}`)
      }
      found += outcome.findings.length
      const sum = sums[k]!
      sum.inputs += outcome.count
      sum.refused += outcome.refused
      sum.read += outcome.read
      sum.findings += outcome.findings.length
      sum.block = Math.max(sum.block, Math.round(outcome.block))
      sum.memory = Math.max(sum.memory, Math.round(outcome.memory / 1e6))
    }
    if (from % (20 * batch) === 0) console.log(`seed ${seed}, ${JSON.stringify(sums)}`)
  }
  console.log(`seed ${seed}, block in ms, memory in MB`)
  console.table(sums)
  rmSync(folder, { recursive: true })
  process.exitCode = found === 0 ? 0 : 1
}

main().catch((error: unknown) => {
  console.error(error)
  process.exitCode = 2
})
