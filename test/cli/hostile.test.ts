// Text that others wrote, in files, file names and options: no command lets a character of it through that a terminal
// acts on, and no line break of it makes a line of its own. JSON holds the same text, escaped.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { parvis, root, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

/**
 * Window title, screen, colours, clipboard; carriage return, backspace, bell; C1; marks of direction; what cannot be
 * seen.
 */
const hostile =
  '\u001b]0;title\u0007\u001b[2J\u001b[31m\u001b]52;c;aGk=\u0007\rback\b\u009b1m\u0085\u202eright\u2066\u200b\u00ad\u2028\ufeff\u{e0041}\nFORGED'
/** The same as far as a file can be called so. */
const hostileName = hostile.replaceAll('/', '')
/** What no output may hold, written out here and not taken from the code. */
const forbidden =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\u{e0000}-\u{e007f}]/u

/** The embedded model with hostile names in all its texts. */
function hostileModel (): string {
  const bytes = fs.readFileSync(path.join(root, 'models', 'fashion', 'par-4.safetensors'))
  const length = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + length)) as Record<string, any>
  const parvis = JSON.parse(header.__metadata__.parvis)
  parvis.name = `name${hostile}`
  parvis.labels = parvis.labels.map((label: string, k: number) => k === 7 ? `Sneaker${hostile}` : label)
  header.__metadata__ = { ...header.__metadata__, parvis: JSON.stringify(parvis), [`key${hostile}`]: `value${hostile}` }
  const end = bytes.length - 8 - length
  header[`tensor${hostile}`] = { dtype: 'I64', shape: [1], data_offsets: [end, end + 8] }
  const text = Buffer.from(JSON.stringify(header))
  const padded = Buffer.concat([text, Buffer.alloc((8 - text.length % 8) % 8, ' ')])
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(BigInt(padded.length))
  const file = at(`model${hostileName}.safetensors`)
  fs.writeFileSync(file, Buffer.concat([size, padded, bytes.subarray(8 + length), Buffer.alloc(8)]))
  return file
}

const model = hostileModel()
const tokenizer = path.join(root, 'models', 'fashion', 'tokenizer.safetensors')
const both = ['--transformer', model, '--tokenizer', tokenizer]
const picture = at(`picture${hostileName}.png`)
const tokens = at(`tokens${hostileName}.json`)
const missing = at(`missing${hostileName}.pt`)

t.before(async () => {
  t.equal((await parvis(['generate', '7', '--seed', '1', '--out', picture])).code, 0)
  t.equal((await parvis(['encode', picture, '--out', tokens])).code, 0)
})

interface Checks {
  equal (found: unknown, wanted: unknown, name: string): unknown
  not (found: unknown, unwanted: unknown, name: string): unknown
  notMatch (found: string, unwanted: RegExp, name: string): unknown
}

/** Runs them all, some at a time. */
async function each (t: Checks, lines: string[][], judge: (text: string, line: string[]) => void): Promise<void> {
  const left = [...lines]
  await Promise.all(Array.from({ length: 3 }, async () => {
    for (let line = left.shift(); line; line = left.shift()) {
      const { stdout, stderr, signal } = await parvis(line, { cwd: folder })
      const text = stdout + stderr
      const name = line.map(part => part.replaceAll(hostile, '#').replaceAll(hostileName, '#').slice(-30)).join(' ')
      t.equal(signal, null, name)
      t.not(text, '', name)
      const found = forbidden.exec(text)
      t.equal(
        found &&
          `${found[0].codePointAt(0)!.toString(16)} in ${JSON.stringify(text.slice(Math.max(0, found.index - 40), found.index + 20))}`,
        null, name
      )
      t.notMatch(text, /^\s*FORGED/m, `${name}: no line of its own`)
      judge(text, line)
    }
  }))
}

t.test('what commands say about hostile files', async t => {
  await each(t, [
    ['labels', '--transformer', model],
    ['labels', '--transformer', model, '--search', 'sneak'],
    ['inspect', model], ['inspect', '--tensors', model],
    ['convert', model, at(`out${hostileName}.safetensors`)],
    ['generate', ...both, '7', '--seed', '1'],
    ['generate', ...both, '7', '8', '--count', '2', '--seed', '1', '--verbose', '--out', at(`sheet${hostileName}.png`)],
    ['generate', ...both, '7', '--each', '--count', '2', '--seed', '1', '--out', at(`many${hostileName}/`)],
    ['generate', ...both, '7', '--seed', '1', '--out', 'link.png', '--verbose'],
    ['score', picture, ...both, '--class', '7', '--verbose'],
    ['score', picture, ...both, '--top', '10', '--heatmap', at(`heat${hostileName}.png`)],
    ['encode', picture, '--out', at(`again${hostileName}.npy`)],
    ['decode', tokens], ['decode', tokens, '--out', at(`back${hostileName}.png`)],
    ['reconstruct', picture, '--out', at(`compared${hostileName}.png`)]
  ], text => t.match(text, /\\u001b|\\u202e|Sneaker|picture|tokens/))
})

t.test('hostile names and values in errors', async t => {
  const errors = [
    ...['inspect', 'encode', 'decode', 'reconstruct', 'score'].map(command => [command, missing]),
    ...['inspect', 'decode', 'score'].map(command => [command, picture.replace(/png$/, 'x')]),
    ['generate', hostile], ['generate', ...both, 'sneake'], ['generate', ...both, `Sneaker${hostile}x`],
    ['generate', '7', '--prompt', hostile],
    ['generate', '7', '--out', `${missing}/x.png`], ['generate', '7', '--out', `x${hostileName}.xyz`],
    ['generate', '7', '--format', hostile],
    ['generate', '7', '--device', hostile], ['generate', '7', '--model', hostile], ['generate', '7', '--seed', hostile],
    ['generate', '7', `--x${hostile}`],
    ['generate', '7', '--transformer', missing, '--tokenizer', missing],
    ['generate', '7', '--json', '--transformer', missing, '--tokenizer', missing],
    ['encode', picture, '--background', hostile], ['encode', `https://x/${hostile}`],
    ['encode', `data:image/png,${hostile}`],
    ['labels', '--search', hostile], ['labels', '--model', hostile], ['convert', missing, at('x.safetensors')],
    ['pull', hostile],
    ['bench', '--model', hostile], ['bench', '--device', hostile], ['doctor', '--timeout', hostile], [hostile],
    ['help', hostile]
  ]
  await each(t, errors, (text, line) => {
    t.match(text, line.includes('--json') ? /"code":"[A-Z_]+"/ : /^parvis: [\s\S]*\[[A-Z_]+\]\n$/, 'an error of parvis')
    t.ok(text.length < 4000, 'no text is repeated without end')
  })
})

t.test('JSON holds the same text', async t => {
  const json = async (...line: string[]): Promise<any> => {
    const { code, stdout, stderr } = await parvis([...line, '--json'], { cwd: folder })
    t.same([code, stderr], [0, ''], line.join(' '))
    t.notMatch(stdout, forbidden, 'its JSON')
    return JSON.parse(stdout)
  }
  t.equal((await json('labels', '--transformer', model))[7].label, `Sneaker${hostile}`)
  const inspected = await json('inspect', model)
  t.equal(inspected.file, model)
  t.equal(inspected.otherTensors[0].name, `tensor${hostile}`)
  t.equal(inspected.metadata[`key${hostile}`], `value${hostile}`)
  t.equal((await json('generate', ...both, '7', '--seed', '1', '--out', 'j.png')).label, `Sneaker${hostile}`)
  t.equal((await json('encode', picture)).pictures[0].file, picture)
})

t.test('names of files made of labels are safe', async t => {
  const names = fs.readdirSync(folder).filter(name => name.endsWith('-seed1.png'))
  t.ok(names.length > 0)
  for (const name of names) t.match(name, /^[\p{L}\p{N}][\p{L}\p{N}.-]*$/u)
})
