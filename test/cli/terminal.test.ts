// What the command line makes of text: the bar, tables, colours, help on terminals of any width, names of files.

import t from 'tap'
import { defaultName, namesOf, safeName } from '../../lib/cli/names.js'
import { columnsOf } from '../../lib/cli/picture.js'
import { barText } from '../../lib/cli/progress.js'
import { coloured, shown, table, wrap } from '../../lib/cli/terminal.js'
import { parvis, temporaryFolder } from './run.js'

t.test('the bar', async t => {
  t.equal(barText(0.45, '12/60 pictures', 3.2, 40).replace(/[█░]/g, '#'), '#########  45%  12/60 pictures  ETA 3 s')
  t.equal(barText(0.45, '12/60 pictures', 3.2, 40).length, 39, 'one column less than the terminal has')
  t.match(barText(0.5, '12/60 pictures', 90, 120), /^█{15}░{15}  50% {2}12\/60 pictures {2}ETA 90 s$/)
  t.match(barText(0, 'loading the model', NaN, 80), /^░{30} {3}0% {2}loading the model$/,
    'no time where nothing is known')
  t.match(barText(0.1, 'x', 7300, 80), /ETA 2 h 2 min$/)
  t.equal(barText(1 / 3, 'a\u001b[2J\nb', 0, 80).slice(31), ' 33%  a\\u001b[2J\\u000ab')
  for (let columns = 10; columns < 130; columns++) {
    for (const text of ['1/2 pictures', 'x'.repeat(200)]) {
      t.ok(barText(0.5, text, 10, columns).length < columns, `${columns} columns`)
    }
  }
})

t.test('tables wrap their last column at words', async t => {
  t.equal(table([['a', 'bb'], ['long', 'c']]), '  a     bb\n  long  c')
  t.equal(table([['name', 'some words that go on below them'], ['x', 'y']], 30),
    '  name  some words that go on\n        below them\n  x     y')
  t.equal(table([['a\nb', '\u001b[1m']]), '  a\\u000ab  \\u001b[1m')
  t.same(wrap('one two three', 7), ['one two', 'three'])
  t.same(wrap('unbroken', 3), ['unbroken'])
  t.equal(shown`${'a\nb'}: ${7}\n`, 'a\\u000ab: 7\n', 'only the values are made visible')
})

t.test('colours', async t => {
  const stream = (isTTY: boolean): NodeJS.WriteStream =>
    ({ isTTY, hasColors: () => true }) as unknown as NodeJS.WriteStream
  for (const [env, terminal, pipe] of [
    [{}, true, false], [{ NO_COLOR: '1' }, false, false], [{ NO_COLOR: '' }, true, false],
    [{ TERM: 'dumb' }, false, false],
    [{ FORCE_COLOR: '1' }, true, true], [{ FORCE_COLOR: '0' }, false, false],
    [{ FORCE_COLOR: '1', NO_COLOR: '1' }, true, true]
  ] as const) {
    t.same([coloured(stream(true), env), coloured(stream(false), env)], [terminal, pipe], JSON.stringify(env))
  }
  const red = await parvis(['inspect', '/nowhere'], { env: { FORCE_COLOR: '1' } })
  t.match(red.stderr, /^\u001b\[31mparvis:\u001b\[0m \/nowhere: [^\u001b]*\n$/)
  t.notMatch((await parvis(['inspect', '/nowhere'])).stderr, '\u001b')
})

t.test('help breaks no word on terminals of 40, 60 and 80 columns', async t => {
  const commands = ['generate', 'labels', 'encode', 'decode', 'reconstruct', 'score', 'models', 'pull', 'inspect',
    'convert', 'doctor', 'bench']
  for (const columns of [40, 60, 80]) {
    const texts = await Promise.all([[], ...commands.map(command => [command])]
      .map(async line => (await parvis([...line, '--help'], { env: { COLUMNS: String(columns) } })).stdout))
    for (const text of texts) {
      // A word that is longer than the line, a pattern or an address, cannot be helped.
      const long = text.split('\n').filter(line => line.length > columns && line.trim().includes(' '))
      t.same(long, [], `${columns} columns: ${text.split('\n', 1)[0]}`)
    }
  }
  for (const [line, message] of [
    [['help', 'nosuch'], /there is no command 'nosuch'/], [['help', 'enocde'], /Did you mean encode/]
  ] as const) t.match(await parvis([...line]), { code: 2, stdout: '', stderr: message })
})

t.test('names of files', async t => {
  for (const [text, name] of [
    ['tench', 'tench'], ['-rf', 'rf'], ['..', 'picture'], ['', 'picture'], ['a/b\\c:d', 'a-b-c-d'],
    ['con', 'picture-con'], ['NUL.txt', 'picture-NUL.txt'],
    ['console', 'console'], ['a\u202e\nb', 'a-b'], ['.hidden', 'hidden'], ['x. ', 'x'], ['\u00e9t\u00e9', 'été']
  ] as const) t.equal(safeName(text), name, JSON.stringify(text))
  t.ok(Buffer.byteLength(safeName('ü'.repeat(900))) <= 120)
  t.equal(safeName('😀'.repeat(900)), '😀'.repeat(30), 'no half of a character')

  const picture = (label: string | undefined, seed = 1, classId = 7) => ({ classId, label, seed, n: 4 })
  t.equal(defaultName([picture('-rf')], 'png'), 'rf-n4-seed1.png')
  t.equal(defaultName([picture('???')], 'jpeg'), 'class-7-n4-seed1.jpg')
  t.equal(defaultName([picture(undefined)], 'png'), 'class-7-n4-seed1.png')
  t.ok(
    Buffer.byteLength(defaultName([picture('é'.repeat(900)), picture('b'.repeat(900)), picture('c'.repeat(900))],
      'png')) <= 255
  )

  const three = [picture('Bag', 1, 8), picture('Bag', 2, 8), picture('tench, Tinca tinca', 1, 0)]
  t.same(namesOf(three, undefined, 'png'), ['bag-n4-seed1.png', 'bag-n4-seed2.png', 'tench-n4-seed1.png'])
  t.same(namesOf(three, 'out/', 'webp'), ['out/bag-n4-seed1.webp', 'out/bag-n4-seed2.webp', 'out/tench-n4-seed1.webp'])
  t.same(namesOf(three, '%03d-{class}-{seed}.png', 'png'), ['001-bag-1.png', '002-bag-2.png', '003-tench-1.png'])
  t.same(namesOf(three, 'a/b.c/pic.png', 'png'), ['a/b.c/pic-1.png', 'a/b.c/pic-2.png', 'a/b.c/pic-3.png'])
  t.same(namesOf([picture('crane', 1, 1), picture('crane', 1, 2)], undefined, 'png'),
    ['crane-n4-seed1.png', 'crane-n4-seed1-2.png'])
  t.throws(() => namesOf(three, '{class}.png', 'png'), { code: 'USAGE', message: /several pictures the name bag\.png/ })
})

t.test('pictures in a row', async t => {
  for (const [classes, count, columns] of [[1, 1, 1], [1, 4, 4], [3, 1, 3], [10, 1, 10], [2, 4, 4], [1, 100, 10],
    [20, 1, 5], [2, 50, 10]] as const) {
    t.equal(columnsOf(classes, count), columns, `${classes} x ${count}`)
  }
})

t.test('what generate takes and refuses', async t => {
  const folder = temporaryFolder()
  for (const [line, message] of [
    [['--prompt', 'a dog'], /classes, not prompts; `parvis labels` lists them \[USAGE\]/],
    [['7', '-p', 'a dog'], /classes, not prompts/],
    [['7', '--out', ''], /name of the output file is empty/], [['7', '--with-tokens'], /--json too/],
    [['7', '--guidance-scale', '0'], /--guidance-scale must be/],
    [['7', '--top-p', '0'], /--top-p must be/], [['7', '--threads', '5000'], /--threads must be/],
    [['7', '--size', '9000'], /--size.* must be/],
    [['7', '--animate', 'x.png'], /\.webp or \.gif/], [['7', '8', '--animate', 'x.gif'], /one picture/],
    [['7', '--each', '--columns', '2'], /--columns/],
    [['7', '--each', '--out', '-'], /several files/], [['7', '7', '--out', '{class}.png'], /several pictures the name/]
  ] as const) {
    t.match(await parvis(['generate', ...line], { cwd: folder }), { code: 2, stdout: '', stderr: message },
      line.join(' '))
  }
  t.match(await parvis(['generate', 'a photo of a dog'], { cwd: folder }), { code: 1, stderr: /classes, not prompts/ })
})
