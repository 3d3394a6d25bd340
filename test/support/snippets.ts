// Fenced blocks of the guides, with what stands above them: `<!-- test: ... -->` in the Markdown source, a line each.
//
//   files NAME ...       stand-ins of checkpoints lie under these names (vq* is a tokenizer, the others transformers)
//   hub                  a Hub with stand-ins of par-xl-4x; the cache is empty
//   server               the example server runs; http://127.0.0.1:3000 is where it listens
//   without NAME ...     these programs do nothing here
//   quick bench          `parvis bench` checks the options given and measures the least it can
//   skip: REASON         not run; test/snippets.test.ts counts these

import fs from 'node:fs'
import path from 'node:path'
import { root } from './built.js'
import { py, writePt } from './pt-writer.js'
import { golden } from './golden.js'

export interface Snippet {
  /** 'docs/gpu.md:31': where the block begins. */
  place: string
  language: string
  code: string
  files: string[]
  without: string[]
  server: boolean
  hub: boolean
  quickBench: boolean
  /** Why it is not run. */
  skip?: string
}

export const guides = ['README.md',
  ...fs.readdirSync(path.join(root, 'docs')).filter(name => name.endsWith('.md')).sort().map(name => `docs/${name}`)]

export function snippetsOf (text: string, file: string): Snippet[] {
  const lines = text.split('\n')
  const found: Snippet[] = []
  let marks: string[] = []
  for (let k = 0; k < lines.length; k++) {
    const line = lines[k]!
    const mark = /^<!-- test: (.*) -->$/.exec(line)
    const fence = /^(```+)(.*)$/.exec(line)
    if (mark) marks.push(mark[1]!)
    else if (/<!--.*\btest\b/.test(line)) throw new Error(`${file}:${k + 1}: not understood: ${line}`)
    else if (fence) {
      const end = lines.indexOf(fence[1]!, k + 1)
      if (end < 0) throw new Error(`${file}:${k + 1}: the block does not end`)
      found.push(snippet(`${file}:${k + 1}`, fence[2]!, lines.slice(k + 1, end).join('\n') + '\n', marks))
      marks = []
      k = end
    } else if (marks.length > 0) throw new Error(`${file}:${k}: no block follows the mark`)
  }
  return found
}

function snippet (place: string, language: string, code: string, marks: readonly string[]): Snippet {
  const made: Snippet = { place, language, code, files: [], without: [], server: false, hub: false, quickBench: false }
  for (const mark of marks) {
    const [, word, rest = ''] = /^([a-z]+):? ?(.*)$/.exec(mark) ?? []
    if (word === 'files') made.files.push(...rest.split(' '))
    else if (word === 'without') made.without.push(...rest.split(' '))
    else if (mark === 'server') made.server = true
    else if (mark === 'hub') made.hub = true
    else if (mark === 'quick bench') made.quickBench = true
    else if (word === 'skip' && rest.length > 10) made.skip = rest
    else throw new Error(`${place}: unknown mark "${mark}"`)
  }
  return made
}

/**
 * What `console.log` is said to print: the comment at the end of its line, or the lines of comment that follow. A
 * comment may go on after what is printed (`// 95: video`), or leave the rest out (`// No class ...`).
 */
export function promisedOutput (code: string): string[] {
  const lines = code.split('\n')
  return lines.flatMap((line, k) => {
    if (!/\bconsole\.log\(/.test(line)) return []
    const own = /\) *\/\/ (.+)$/.exec(line)
    if (own) return [own[1]!]
    const after: string[] = []
    for (let next = k + 1; /^\/\/ /.test(lines[next] ?? ''); next++) after.push(lines[next]!.slice(3))
    return after
  })
}

export function keeps (promise: string, line: string): boolean {
  if (promise.endsWith('...')) return line.startsWith(promise.slice(0, -3).trimEnd())
  return line !== '' && (promise === line || (promise.startsWith(line) && /^\W/.test(promise.slice(line.length))))
}

// ---- stand-ins

/**
 * A transformer of a published width (hence heads), one layer, 1000 classes, 24 x 24 tokens, in the authors' format,
 * with the vocabulary of the golden tokenizer vq-small.
 */
export function standIn (name: string, folder: string, dim = 768): void {
  const file = path.join(folder, name)
  if (/^vq/.test(name)) return fs.copyFileSync(golden('vq-small/vq.pt'), file)
  const [vocabulary, feedForward] = [256, 256]
  const n = Number(/-(\d+)x/.exec(name)?.[1] ?? 1)
  const shapes: Array<[string, number[]]> = [
    ['cls_embedding.embedding_table.weight', [1001, dim]],
    ['tok_embeddings.weight', [vocabulary, dim]],
    ...(n > 1 ? [['spe_tok_embeddings.special_embeddings.weight', [n - 1, dim]] as [string, number[]]] : []),
    ['layers.0.attention.wqkv.weight', [3 * dim, dim]],
    ['layers.0.attention.wo.weight', [dim, dim]],
    ['layers.0.feed_forward.w1.weight', [feedForward, dim]],
    ['layers.0.feed_forward.w3.weight', [feedForward, dim]],
    ['layers.0.feed_forward.w2.weight', [dim, feedForward]],
    ['layers.0.attention_norm.weight', [dim]],
    ['layers.0.ffn_norm.weight', [dim]],
    ['norm.weight', [dim]],
    ['output.weight', [vocabulary, dim]]
  ]
  let state = 1
  const tensors = new Map(shapes.map(([tensor, shape]) => {
    const values = new Uint16Array(shape.reduce((product, side) => product * side, 1)) // bfloat16
    for (let i = 0; i < values.length; i++) {
      state = Math.imul(state, 1664525) + 1013904223 >>> 0
      // 1, or +-0.008 to 0.06
      values[i] = shape.length === 1 ? 0x3f80 : 0x3c00 | state >>> 31 << 15 | state >>> 16 & 0x1ff
    }
    return [tensor, py.tensor({ dtype: 'bfloat16', shape, data: new Uint8Array(values.buffer) })]
  }))
  writePt(file, { model: tensors })
}
