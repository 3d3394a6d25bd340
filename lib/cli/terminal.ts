// What every command shares with the terminal: where text goes and how it looks. Standard output carries the result
// only (text, JSON or a picture), everything else goes to standard error, so that `parvis generate --json | jq` and
// `--out - | display` work. A reader that closes early (`| head`) is not an error.
//
// Text may hold what others wrote: labels, names of tensors and files, licences, answers of servers. All of it passes
// `print`, `note` or `complain`, which let no character through that a terminal acts on.

import { randomBytes } from 'node:crypto'
import { fromSystem } from '../base/files.js'
import { visible, visibleJson } from '../base/text.js'
import { clearBar } from './progress.js'

/** Flags that every command has. */
export interface CommonFlags {
  json?: boolean
  verbose?: boolean
  quiet?: boolean
}

/** The command line itself is wrong; exit code 2. */
export class UsageError extends Error {
  readonly code = 'USAGE'
}

// ---- text that others wrote

/**
 * A template whose values are made visible, line breaks too: shown`${file}: ${label}` is one line whatever they hold.
 */
export function shown (texts: TemplateStringsArray, ...values: ReadonlyArray<string | number>): string {
  return String.raw({ raw: texts }, ...values.map(value => visible(String(value))))
}

/** The same for a text of several lines, whose line breaks are its author's own. */
function shownLines (text: string): string {
  return text.split('\n').map(line => visible(line)).join('\n')
}

// ---- colour

const colours = { red: 31, green: 32, yellow: 33, bold: 1 } as const
export type Colour = keyof typeof colours

/** No file can know it, so no text out of a file can be taken for a mark of ours. */
const secret = randomBytes(8).toString('hex')
const marks = new RegExp(`<${secret}:(\\d+)>`, 'g')

/** Text that `print`, `note` and `complain` colour where colours are wanted. */
export function paint (colour: Colour, text: string): string {
  return `<${secret}:${colours[colour]}>${visible(text)}<${secret}:0>`
}

/**
 * FORCE_COLOR and NO_COLOR decide where they are set, as in Node.js itself; otherwise only terminals that know colours
 * get them.
 */
export function coloured (stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv = process.env): boolean {
  if (env.FORCE_COLOR !== undefined) return !['0', 'false'].includes(env.FORCE_COLOR)
  if (env.NO_COLOR) return false
  return stream.isTTY && env.TERM !== 'dumb' && stream.hasColors()
}

function written (text: string, stream: NodeJS.WriteStream): string {
  const colour = coloured(stream)
  return shownLines(text).replace(marks, (_, code: string) => colour ? `\u001b[${code}m` : '')
}

// ---- output

/**
 * Writes to standard output and waits until it is taken. False where the reader has gone. Bytes are written as they
 * are.
 */
export async function print (data: string | Uint8Array): Promise<boolean> {
  clearBar()
  return await new Promise((resolve, reject) => {
    process.stdout.write(typeof data === 'string' ? written(data, process.stdout) : data, error => {
      if (!error) resolve(true)
      else if (hasGone(error)) resolve(false)
      else reject(fromSystem(error, 'standard output', 'written'))
    })
  })
}

/** Whether a write failed because the reader has gone: EOF is the word of Windows for it. */
export function hasGone ({ code = '' }: NodeJS.ErrnoException): boolean {
  return ['EPIPE', 'EOF'].includes(code)
}

/**
 * Indented, with lists of numbers (shapes, tokens) on one line. A string holds no raw line break, so none is touched.
 */
export function jsonText (value: unknown): string {
  return visibleJson(JSON.stringify(value, undefined, 2)).replace(/\[\n[\s\d.,e+-]+\]/g,
    list => list.replace(/\s+/g, ' ')) + '\n'
}

export async function printJson (value: unknown): Promise<void> {
  await print(jsonText(value))
}

let quiet = false

/** --quiet: notes are left out from here on. */
export function hush (): void {
  quiet = true
}

/** The sentence about a file that was written; the file itself is the result, so --quiet leaves the sentence out. */
export async function printSummary (text: string): Promise<void> {
  if (!quiet) await print(text)
}

/** A line on standard error about what is done. A bar makes room for it. */
export function note (text: string): void {
  if (!quiet) complain(text)
}

/** A line on standard error that has to be read. */
export function complain (text: string): void {
  clearBar()
  process.stderr.write(written(text, process.stderr) + '\n')
}

/**
 * Faults of standard output (a reader that has gone, a full disk) reach `print` through its callback; without listeners
 * they would end the process with a stack. Where standard error fails there is nobody left to tell.
 */
export function catchOutputErrors (): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
}

// ---- words

/**
 * Columns of text, two blanks apart, the last one ragged; on a terminal its words go on below where the line is full.
 */
export function table (
  rows: readonly string[][], columns = process.stdout.isTTY ? process.stdout.columns : Infinity
): string {
  const cells = rows.map(row => row.map(cell => visible(cell)))
  const widths: number[] = []
  for (const row of cells) row.forEach((cell, k) => { widths[k] = Math.max(widths[k] ?? 0, widthOf(cell)) })
  return cells.flatMap(row => {
    const head = '  ' + row.slice(0, -1).map((cell, k) => cell + ' '.repeat(widths[k]! - widthOf(cell) + 2)).join('')
    const indent = widthOf(head)
    const last = row.at(-1) ?? ''
    const lines = columns - indent >= leastWrapped ? wrap(last, columns - indent) : [last]
    return lines.map((line, k) => ((k === 0 ? head : ' '.repeat(indent)) + line).trimEnd())
  }).join('\n')
}

/** Narrower columns are not wrapped: they would be a column of single words. */
const leastWrapped = 20

/** Without marks of colour. */
function widthOf (text: string): number {
  return text.replace(marks, '').length
}

/** Lines of whole words, at most `width` long where the words are. */
export function wrap (text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && widthOf(line) + 1 + widthOf(word) > width) {
      lines.push(line)
      line = word
    } else line += (line === '' ? '' : ' ') + word
  }
  return [...lines, line]
}

/** 3105489920 -> '3.11 GB' */
export function bytesText (bytes: number): string {
  if (bytes < 1000) return `${bytes} B`
  const unit = Math.min(4, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / 1000 ** unit
  return `${value < 100 ? value.toPrecision(3) : value.toFixed(0)} ${['B', 'kB', 'MB', 'GB', 'TB'][unit]}`
}
