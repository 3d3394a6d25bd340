// convert: a round trip keeps what the model computes and says, and an existing file is safe.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { golden } from '../support/golden.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

/** Greedy tokens of one class, float32. */
async function greedy (transformer: string, ...options: string[]): Promise<number[]> {
  const args = ['generate', '--transformer', transformer, '--class', '3', '--greedy', '--precision', 'float32', '--json', '--with-tokens', ...options]
  const { stdout, stderr } = await parvis(args)
  if (stderr) throw new Error(stderr)
  return (JSON.parse(stdout) as { images: Array<{ tokens: number[] }> }).images[0]!.tokens
}

for (const name of ['par-4x', 'par-16x-hd100', 'llamagen']) {
  t.test(`${name}: the converted file needs no options and computes the same`, async t => {
    const input = golden(`${name}/model.pt`)
    const output = at(`${name}.safetensors`)
    const { code, stdout, stderr } = await parvis(['convert', input, output, '--heads', '2', '--grid', '8'])
    t.equal(code, 0, stderr)
    t.equal(stderr, '')
    t.match(stdout, /transformer, \d+ tensors/)
    t.same(await greedy(output), await greedy(input, '--heads', '2', '--grid', '8'))
    const { stdout: report } = await parvis(['inspect', output, '--json'])
    t.match(JSON.parse(report), { format: 'safetensors', headsFrom: 'metadata', gridFrom: 'metadata', grid: [8, 8], model: { heads: 2 } })
  })
}

t.test('--precision', async t => {
  const output = at('half.safetensors')
  const { code, stdout } = await parvis(['convert', golden('par-4x/model.pt'), output, '--heads', '2', '--precision', 'bfloat16', '--json'])
  t.equal(code, 0)
  t.match(JSON.parse(stdout), { kind: 'transformer', file: output, bytes: fs.statSync(output).size, tensors: 19, metadata: { n: 4, heads: 2, grid: [8, 8] } })
  const { tensors } = JSON.parse((await parvis(['inspect', output, '--json'])).stdout) as { tensors: Array<{ dtype: string }> }
  t.same([...new Set(tensors.map(tensor => tensor.dtype))], ['bfloat16'])
})

t.test('an existing file is kept unless --force', async t => {
  const output = at('kept.safetensors')
  fs.writeFileSync(output, 'precious')
  const args = ['convert', golden('llamagen/model.pt'), output, '--heads', '2']
  t.match(await parvis(args), { code: 1, stderr: /exists already; --force/ })
  t.equal(fs.readFileSync(output, 'utf8'), 'precious')
  t.equal((await parvis([...args, '--force'])).code, 0)
  t.ok(fs.statSync(output).size > 1e6)
})

t.test('--force follows links and never replaces what is no file', async t => {
  const place = temporaryFolder()
  const args = (output: string): string[] => ['convert', golden('llamagen/model.pt'), path.join(place, output), '--heads', '2', '--force']
  fs.writeFileSync(path.join(place, 'real'), 'old')
  fs.symlinkSync('real', path.join(place, 'link'))
  t.equal((await parvis(args('link'))).code, 0)
  t.ok(fs.lstatSync(path.join(place, 'link')).isSymbolicLink())
  t.ok(fs.statSync(path.join(place, 'real')).size > 1e6)
  execFileSync('mkfifo', [path.join(place, 'pipe')])
  for (const output of ['pipe', '../../../../dev/null']) {
    for (const line of [args(output), args(output).slice(0, -1)]) t.match(await parvis(line), { code: 1, stderr: /no regular file.*\[INVALID_OPTION\]/ })
  }
  t.ok(fs.lstatSync(path.join(place, 'pipe')).isFIFO())
  t.ok(fs.lstatSync('/dev/null').isCharacterDevice())
  t.same(fs.readdirSync(place).sort(), ['link', 'pipe', 'real'])
})

t.test('what is refused leaves nothing', async t => {
  const place = temporaryFolder()
  const output = path.join(place, 'out.safetensors')
  t.match(await parvis(['convert', golden('par-4x/model.pt'), output]), { code: 1, stderr: /Pass --heads\. \[BAD_CHECKPOINT\]/ }, 'heads unknown')
  t.match(await parvis(['convert', golden('par-4x/model.pt'), output, '--heads', '2', '-n', '16']), { code: 1, stderr: /\[UNSUPPORTED_N\]/ })
  t.match(await parvis(['convert', path.join(place, 'none.pt'), output]), { code: 1, stderr: /\[FILE_NOT_FOUND\]/ })
  t.match(await parvis(['convert', golden('par-4x/model.pt'), path.join(place, 'no', 'out.safetensors')]), { code: 2, stderr: /no folder/ })
  t.same(fs.readdirSync(place), [])
})
