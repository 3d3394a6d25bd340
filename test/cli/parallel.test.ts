// ARPG, LPD and RandAR on the command line: their flags, what is said of them, orders from a file.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { Par } from '../../lib/api/par.js'
import { parallelFile, tokenizerFile } from '../support/fixtures.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)
const modelOf = (name: 'arpg' | 'lpd' | 'randar'): string[] =>
  ['--transformer', parallelFile(name).path, '--grid', '8x8', '--tokenizer', tokenizerFile(), '--precision', 'float32']

t.test('generate', async t => {
  const { code, stdout, stderr } = await parvis(['generate', '--class', '3', '--seed', '5', '--steps', '9',
    '--step-schedule', 'cosine', '--guidance-schedule', 'constant', '--guidance-scale', '3', ...modelOf('arpg'),
    '--out', at('a.png')])
  t.same([code, stderr], [0, ''])
  t.match(stdout, /a\.png: class 3, 32 x 32 px[^]*\nARPG, 9 steps, seed 5, /)
  const named = await parvis(['generate', '3', '--seed', '5', '--steps', '9', ...modelOf('arpg')], { cwd: folder })
  t.match(named.stdout, 'class-3-arpg-seed5.png')

  const par = await Par.load({ transformer: parallelFile('lpd'), tokenizer: tokenizerFile(), precision: 'float32' })
  t.teardown(() => par.dispose())
  const orders = Array.from({ length: 3 }, (_, k) => Array.from({ length: 64 }, (_, i) => (i * 5 + 7 * k) % 64))
  fs.writeFileSync(at('orders.json'), JSON.stringify(orders))
  fs.writeFileSync(at('order.json'), JSON.stringify(orders[1]))
  for (const [file, order] of [['orders.json', orders[0]!], ['order.json', orders[1]!]] as const) {
    const { stdout } = await parvis(['generate', '3', '--seed', '5', '--group-sizes', '1,3,20,40', '--token-order',
      at(file), '--json', '--with-tokens', ...modelOf('lpd'), '--out', at('b.png')])
    const image = await par.generate({ classId: 3, seed: 5, groupSizes: [1, 3, 20, 40], tokenOrder: order })
    t.same((JSON.parse(stdout) as { images: Array<{ tokens: number[] }> }).images[0]!.tokens, [...image.tokens], file)
  }
})

t.test('what is refused', async t => {
  fs.writeFileSync(at('none.json'), '{"order": []}')
  fs.writeFileSync(at('text.json'), 'no JSON')
  fs.writeFileSync(at('mixed.json'), '[[0, 1], "a"]')
  fs.writeFileSync(at('one.json'), '[[0, 1]]')
  for (const [args, message] of [
    [['--token-order', at('absent.json')], /absent\.json/],
    [['--token-order', at('none.json')], /no list; --token-order takes a JSON list of cells/],
    [['--token-order', at('text.json')], /no JSON/],
    [['--count', '2', '--token-order', at('mixed.json')], /an entry is no list of numbers/],
    [['--count', '2', '--token-order', at('one.json')], /1 orders for 2 pictures/],
    [['--token-order', at('one.json')], /each of the cells 0 to 63 once/],
    [['--token-order', folder], /folder/],
    [['--steps', '0'], /whole number of at least 1/],
    [['--steps', '65'], /steps must be from 1 to 64/],
    [['--group-sizes', '1,x'], /whole number of at least 1/],
    [['--group-sizes', '1,2', '--steps', '2'], /give one of them/],
    [['--step-schedule', 'linear'], /arccos, cosine/],
    [['-n', '4'], /n is an option of PAR/]
  ] as const) {
    const { code, stderr } = await parvis(['generate', '3', ...args, ...modelOf('arpg'), '--out', at('c.png')])
    t.not(code, 0, args.join(' '))
    t.match(stderr, message, args.join(' '))
  }
  t.notOk(fs.existsSync(at('c.png')), 'nothing is left behind')
  const { code, stderr } = await parvis(['generate', 'sneaker', '--steps', '9', '--out', at('c.png')])
  t.not(code, 0)
  t.match(stderr, /steps is an option of ARPG, LPD, RandAR\. This model is decoded by PAR/)
})

t.test('a picture is completed', async t => {
  const source = at('source.png')
  t.equal((await parvis(['generate', '3', '--seed', '5', '--steps', '9', ...modelOf('arpg'), '--out', source])).code, 0)
  const { code, stdout, stderr } = await parvis(['complete', source, '--class', '3', '--keep', 'right', '--seed', '1',
    '--steps', '20', ...modelOf('arpg'), '--out', at('completed.png')])
  t.equal(code, 0, stderr)
  t.match(stdout, /completed\.png: class \(3\), 32 x 32 px, ARPG, \d+ steps, seed 1/)
  const [, steps] = /(\d+) steps/.exec(stdout)!
  t.ok(Number(steps) < 20, 'fewer than for a whole picture')
})

t.test('a run of samples is continued with the same steps only', async t => {
  const run = (steps: string): string[] => ['sample', '--count', '6', '--seed', '2', '--steps', steps,
    ...modelOf('arpg'), '--out', `${folder}/samples/`]
  const first = await parvis(run('5'))
  t.match(first.stdout, /6 pictures, 32 x 32 px, ARPG, 5 steps, seed 2, random labels; /)
  const again = await parvis(run('5'))
  t.match(again.stdout, /complete already/)
  const other = await parvis(run('6'))
  t.not(other.code, 0)
  t.match(other.stderr, /another run: .*decoding/)
  const { n, method, steps } = JSON.parse((await parvis([...run('5'), '--json'])).stdout) as Record<string, unknown>
  t.same({ n, method, steps }, { n: undefined, method: 'arpg', steps: 5 })
})
