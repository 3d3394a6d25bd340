// The same seed makes the same picture in every version: hashes of tokens, pixels, log-probabilities and codes, by
// instruction set, precision, model and options. They were made once and stay; a change of one needs a bug as its
// reason, and a line in the CHANGELOG. PARVIS_PIN=write adds what is not in the fixture yet, and changes nothing that
// is.

import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { built, root } from '../support/built.js'
import { golden } from '../support/golden.js'

const fixture = path.join(root, 'test', 'fixtures', 'pinned.json')
export type Hashes = Record<string, string>

const par4 = golden('par-4x/model.pt')
const tokenizer = golden('vq-small/vq.pt')

/** What is loaded, and the classes and numbers of tokens per step that are tried. */
export const goldenModels = {
  'par-4x': { load: { transformer: { path: par4, heads: 2, grid: 8 }, tokenizer }, classes: [3, 5, 1], ns: [null] },
  'par-16x-hd100': {
    load: { transformer: { path: golden('par-16x-hd100/model.pt'), heads: 2, grid: 8 } }, classes: [3, 5, 1],
    ns: [null], pixels: false
  },
  llamagen: {
    load: { transformer: { path: golden('llamagen/model.pt'), heads: 2, grid: 8 } }, classes: [3, 5, 1], ns: [null],
    pixels: false
  }
}
export const embeddedModel = { embedded: { load: {}, classes: [7, 0, 9], ns: [1, 4, 16] } }

/** What this version computes. */
export async function compute (device: string, models: object, env: NodeJS.ProcessEnv): Promise<Hashes> {
  const script = path.join(root, 'test', 'pinned', 'pictures.js')
  const args = [script, path.join(await built(), 'index.js'), device, JSON.stringify(models)]
  const { stdout } = await promisify(execFile)(process.execPath, args, { env, maxBuffer: 16 << 20, timeout: 1_000_000 })
  return JSON.parse(stdout) as Hashes
}

/** What the fixture has for these, after PARVIS_PIN=write added what it lacked. */
export function pinned (found: Hashes): Hashes {
  const all = fs.existsSync(fixture) ? JSON.parse(fs.readFileSync(fixture, 'utf8')) as Hashes : {}
  if (process.env.PARVIS_PIN === 'write') {
    const merged = { ...found, ...all }
    const sorted = Object.fromEntries(Object.entries(merged).sort(([a], [b]) => a < b ? -1 : 1))
    fs.writeFileSync(fixture, JSON.stringify(sorted, undefined, 1) + '\n')
    return sorted
  }
  return all
}
