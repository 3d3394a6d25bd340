// Properties of every schedule, over all legal (grid, n) of moderate size, for the paper's method and its ablations.
// A small simulation plays native code: it executes the rows and complains when a row reads what is not there.

import t from 'tap'
import { ParError } from '../lib/base/errors.js'
import { rowStride } from '../lib/machine/native.js'
import { createSchedule, type Schedule, type ScheduleOptions } from '../lib/decoding/schedule.js'

type Grid = ScheduleOptions['grid']

/** Runs the rows against a model of cache and tokens; returns the first violation, or ''. */
function simulate (schedule: Schedule, tables: readonly Int32Array[]): string {
  const written = new Uint8Array(schedule.tokens)
  const appended = new Uint8Array(schedule.tokens)
  let cached = 0
  for (const [k, table] of tables.entries()) {
    const rows = table.length / rowStride
    for (let i = 0; i < rows; i++) {
      const [, input, position, frame, row, column, slot] = table.subarray(i * rowStride,
        (i + 1) * rowStride) as unknown as number[]
      if (input! >= 0) {
        if (!written[input!]) return `step ${k} reads token ${input} before it is written`
        const [f, r, c] = schedule.cell(input!)
        if (frame !== f || row !== r || column !== c) return `step ${k}: cell of token ${input}`
      } else if (frame !== -1 || row !== -1 || column !== -1) return `step ${k}: class or transition token with a cell`
      if (input! < -1 - schedule.transitions) return `step ${k}: transition token out of range`
      if (position !== -1) return `step ${k}: a learned position`
      if (appended[slot!]) return `slot ${slot} appended twice`
      if (slot !== cached + i) return `slot ${slot} out of order`
      appended[slot!] = 1
    }
    cached += rows
    for (let i = 0; i < rows; i++) {
      const [predicts, , , , , , slot, sees] = table.subarray(i * rowStride, (i + 1) * rowStride) as unknown as number[]
      if (sees! > cached) return `step ${k} sees ${sees} of ${cached} slots`
      if (sees! <= slot!) return `slot ${slot} does not see itself`
      if (written[predicts!]) return `token ${predicts} written twice`
      written[predicts!] = 1
    }
    if (schedule.tokensAfter[k] !== undefined && tables === schedule.steps && schedule.tokensAfter[k] !== cached) {
      return `tokensAfter ${k}`
    }
  }
  if (!written.every(Boolean)) return 'a token is never written'
  if (!appended.every(Boolean)) return 'a slot is never appended'
  return ''
}

function isPermutation (values: Int32Array): boolean {
  return values.slice().sort().every((value, index) => value === index)
}

function * legal (limit: number): Generator<{ grid: Grid, n: number }> {
  for (let rows = 1; rows <= limit; rows++) {
    for (let columns = 1; columns <= limit; columns++) {
      for (let s = 1; s <= Math.min(rows, columns); s++) {
        if (rows % s || columns % s) continue
        yield { grid: [rows, columns], n: s * s }
        if (rows <= 6 && columns <= 6) yield { grid: [3, rows, columns], n: s * s }
      }
    }
  }
}

t.test('every legal grid and n: each cell once, nothing read before it is written, each slot appended once',
  async t => {
    let cases = 0
    const problems: string[] = []
    for (const { grid, n } of legal(16)) {
      const tokens = grid.reduce((product, size) => product * size, 1)
      for (const order of ['distant', 'raster'] as const) {
        for (const initial of ['sequential', 'none'] as const) {
          for (const groupAttention of ['full', 'causal'] as const) {
            for (const tokensPerStep of new Set([n, 1])) {
              const schedule = createSchedule({ grid, n, order, initial, groupAttention, tokensPerStep })
              const steps = initial === 'none'
                ? tokens / tokensPerStep
                : tokensPerStep + (tokens - tokensPerStep) / tokensPerStep
              const problem = simulate(schedule, schedule.steps) ||
              (schedule.steps.length === steps ? '' : `${schedule.steps.length} steps, expected ${steps}`) ||
              (isPermutation(schedule.cells) && isPermutation(schedule.sequence) ? '' : 'cells are no permutation')
              if (problem) {
                problems.push(
                `${grid.join('x')} n=${n} ${order} ${initial} ${groupAttention} ${tokensPerStep}: ${problem}`
                )
              }
              cases++
            }
          }
        }
      }
    }
    t.same(problems.slice(0, 5), [], `${cases} schedules`)
  })

t.test('step counts of the paper', async t => {
  const steps = (options: ScheduleOptions): number => createSchedule(options).steps.length
  t.same([1, 4, 16].map(n => steps({ grid: [24, 24], n })), [576, 147, 51], 'table 2')
  t.same([1, 4, 16].map(n => steps({ grid: [5, 16, 16], n })), [1280, 323, 95], 'table 3, video')
  t.equal(steps({ grid: [24, 24], n: 4, initial: 'none' }), 144, 'table 4a')
  t.equal(steps({ grid: [24, 24], n: 4, groupAttention: 'causal' }), 147, 'table 4c')
  t.equal(steps({ grid: [24, 24], n: 4, order: 'raster' }), 147, 'table 4d, raster multi')
  t.equal(steps({ grid: [24, 24], n: 1, order: 'raster' }), 576, 'table 4d, raster one')
  t.equal(steps({ grid: [24, 24], n: 4, tokensPerStep: 1 }), 576, 'table 4d, distant one')
})

t.test('the order is the formula of the paper', async t => {
  for (const { grid, n } of legal(12)) {
    const schedule = createSchedule({ grid, n })
    const s = Math.sqrt(n)
    const [h, w] = [schedule.rows / s, schedule.columns / s]
    for (let q = 0; q < schedule.tokens; q++) {
      const [f, row, column] = schedule.cell(q)
      const [a, b, i, j] = [Math.floor(row / h), Math.floor(column / w), row % h, column % w]
      if (q !== ((f * h + i) * w + j) * n + a * s + b) return t.fail(`${grid.join('x')} n=${n}, token ${q}`)
      if (schedule.sequence[schedule.cells[q]!] !== q) return t.fail('inverse')
    }
  }
  t.pass()
})

t.test('inputs and visible slots, n = 4 on 4 x 4', async t => {
  const rows = (options: Partial<ScheduleOptions> = {}): number[][] => {
    const table = createSchedule({ grid: [4, 4], n: 4, ...options }).fullSequence()
    return Array.from({ length: table.length / rowStride },
      (_, i) => [...table.subarray(i * rowStride, (i + 1) * rowStride)])
  }
  t.same(rows().map(row => row[1]), [-1, 0, 1, 2, 3, -2, -3, -4, 4, 5, 6, 7, 8, 9, 10, 11], 'inputs')
  t.same(rows().map(row => row[7]), [1, 2, 3, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16], 'sees')
  t.same(rows()[4], [4, 3, -1, 0, 2, 2, 4, 8],
    'slot 4 predicts t_4 from t_3, which sits at the top left of region (1, 1)')
  t.same(rows({ initial: 'none' }).map(row => row[1]), [-1, -2, -3, -4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    'inputs without stage 1')
  t.same(rows({ initial: 'none' }).map(row => row[7]), [4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16],
    'sees without stage 1')
  t.same(rows({ groupAttention: 'causal' }).map(row => row[7]), Array.from({ length: 16 }, (_, slot) => slot + 1),
    'causal')
  t.same(rows({ tokensPerStep: 1 }).map(row => row[1]), Array.from({ length: 16 }, (_, slot) => slot - 1),
    'distant, one by one')
  t.equal(createSchedule({ grid: [4, 4], n: 4 }).transitions, 3)
  t.equal(createSchedule({ grid: [4, 4], n: 4, tokensPerStep: 1 }).transitions, 0)
  t.equal(createSchedule({ grid: [4, 4], n: 16 }).transitions, 0, 'a single group is all stage 1')
})

t.test('the full-sequence pass is the steps in one table, and may be cut at step boundaries', async t => {
  for (const [grid, n, limit] of [[[24, 24], 4, 256], [[24, 24], 1, 100], [[8, 8], 16, 7],
    [[2, 4, 4], 4, 1000]] as Array<[Grid, number, number]>) {
    const schedule = createSchedule({ grid, n })
    t.same([...schedule.fullSequence()], schedule.steps.flatMap(step => [...step]))
    const tables = schedule.fullSequenceTables(limit)
    t.equal(tables.reduce((sum, table) => sum + table.length, 0), schedule.tokens * rowStride)
    t.ok(tables.every(table => table.length / rowStride <= Math.max(limit, n)))
    for (const table of tables) { // no row may see past its own table's end
      const last = table[table.length - 2]!
      for (let i = 7; i < table.length; i += rowStride) if (table[i]! > last + 1) t.fail('sees beyond the table')
    }
  }
})

t.test('raster and sequence order convert into each other', async t => {
  const schedule = createSchedule({ grid: [6, 4], n: 4 })
  const raster = Int32Array.from({ length: 24 }, (_, i) => 100 + i)
  t.same(schedule.toRaster(schedule.toSequence(raster)), raster)
  t.same([...schedule.toSequence(raster).subarray(0, 4)], [100, 102, 112, 114])
  t.throws(() => schedule.toRaster(new Int32Array(3)), { code: 'INVALID_OPTION' })
})

t.test('bad options', async t => {
  const hostile = { toString () { throw new Error('hostile') }, toJSON: () => 'hostile' }
  const bad: unknown[] = [
    undefined, null, 4, {}, { grid: 8, n: 4 }, { grid: [8], n: 4 }, { grid: [8, 8, 8, 8], n: 4 },
    { grid: [8, 0], n: 1 },
    { grid: [8, NaN], n: 1 }, { grid: ['8', 8], n: 1 }, { grid: [8, 8] }, { grid: [8, 8], n: 0 },
    { grid: [8, 8], n: 2 },
    { grid: [8, 8], n: 9 }, { grid: [8, 6], n: 16 }, { grid: [8, 8], n: NaN }, { grid: [8, 8], n: 4, order: 'zigzag' },
    { grid: [8, 8], n: 4, initial: 'maybe' }, { grid: [8, 8], n: 4, groupAttention: 'half' },
    { grid: [8, 8], n: 4, tokensPerStep: 3 },
    { grid: [8, 8], n: 4, tokensPerStep: 0.5 }, { grid: [8, 8], n: 5, order: 'raster' }, { grid: [1e5, 1e5], n: 1 },
    // Holes, names that are unknown, objects that cannot be turned into text.
    { grid: new Array(2), n: 1 }, { grid: new Array(3), n: 1 }, { grid: [8, , 8], n: 4 },
    { grid: [8, 8], n: 4, ordr: 'raster' }, [[8, 8], 4],
    ...[hostile, Object.create(null), Symbol('x'), null].flatMap(value => [
      { grid: value, n: 4 }, { grid: [value, 8], n: 4 }, { grid: [8, 8], n: value },
      { grid: [8, 8], n: 4, order: value }, { grid: [8, 8], n: 4, initial: value },
      { grid: [8, 8], n: 4, groupAttention: value }, { grid: [8, 8], n: 4, tokensPerStep: value }
    ])
  ]
  for (const options of bad) {
    try {
      createSchedule(options as ScheduleOptions)
      t.fail(`accepted ${JSON.stringify(options)}`)
    } catch (error) {
      t.ok(error instanceof ParError && error.code === 'INVALID_OPTION', JSON.stringify(options))
    }
  }
})
