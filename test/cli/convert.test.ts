// convert: a round trip keeps what the model computes and says, and an existing file is safe.

import t from 'tap'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { golden } from '../support/golden.js'
import { parvis, temporaryFolder } from './run.js'

const folder = temporaryFolder()
const at = (name: string): string => path.join(folder, name)

/** Greedy tokens of one class, float32. */
async function greedy (transformer: string, ...options: string[]): Promise<number[]> {
  const args = ['generate', '--transformer', transformer, '--class', '3', '--greedy', '--precision', 'float32',
    '--json', '--with-tokens', ...options]
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
    t.match(JSON.parse(report),
      { format: 'safetensors', headsFrom: 'metadata', gridFrom: 'metadata', grid: [8, 8], model: { heads: 2 } })
  })
}

t.test('the source and the codebook are noted, and another tokenizer is refused', async t => {
  const [transformer, tokenizer, other] = [at('noted.safetensors'), at('vq.safetensors'), at('other.safetensors')]
  const vq = golden('vq-small/vq.pt')
  t.equal(
    (await parvis(['convert', golden('par-4x/model.pt'), transformer, '--heads', '2', '--grid', '8', '--tokenizer',
      vq])).code, 0
  )
  t.equal((await parvis(['convert', vq, tokenizer, '--precision', 'bfloat16'])).code, 0)
  const sha256 = createHash('sha256').update(fs.readFileSync(golden('par-4x/model.pt'))).digest('hex')
  const { stdout } = await parvis(['inspect', transformer])
  t.match(stdout, new RegExp(`converted +from "model\\.pt", SHA-256 ${sha256}\n`))
  t.match(stdout, /tokenizer +one whose codebook has the hash [0-9a-f]{64}\n/)

  // Another codebook of the same size: one code is not what it was.
  const bytes = fs.readFileSync(tokenizer)
  const header = JSON.parse(bytes.toString('utf8', 8,
    8 + Number(bytes.readBigUInt64LE(0)))) as Record<string, { data_offsets: [number, number] }>
  const place = 8 + Number(bytes.readBigUInt64LE(0)) + header['quantize.embedding.weight']!.data_offsets[0]
  bytes.writeUInt16LE(bytes.readUInt16LE(place) ^ 0x8000, place)
  const text = bytes.toString('latin1')
  // and no hash is noted
  fs.writeFileSync(other, Buffer.from(text.replace('codebookSha256', 'somethingOther'), 'latin1'))
  const generate = async (tokenizer: string) => await parvis(['generate', '--transformer', transformer, '--tokenizer',
    tokenizer, '--class', '3', '--seed', '1', '--precision', 'float32', '--json', '--out', at('a.png')])
  for (const good of [vq, tokenizer]) {
    const { code, stderr } = await generate(good)
    t.equal(code, 0, stderr)
  }
  const refused = await generate(other)
  t.match(refused, { code: 1, stderr: /TOKENIZER_MISMATCH/ })
  for (const side of [transformer, other]) t.ok(refused.stderr.includes(path.basename(side)), `${side} is named`)
  t.match(await parvis(['convert', golden('par-16x-hd100/model.pt'), at('no.safetensors'), '--heads', '2', '--grid',
    '8', '--tokenizer', vq]), { code: 1, stderr: /vocabulary of 320.*codebook of 256.*\[TOKENIZER_MISMATCH\]/ })
  t.match(await parvis(['convert', vq, at('no.safetensors'), '--tokenizer', vq]),
    { code: 1, stderr: /\[INVALID_OPTION\]/ })
  t.notOk(fs.existsSync(at('no.safetensors')))
})

t.test('--precision', async t => {
  const output = at('half.safetensors')
  const { code, stdout } = await parvis(['convert', golden('par-4x/model.pt'), output, '--heads', '2', '--precision',
    'bfloat16', '--json'])
  t.equal(code, 0)
  t.match(JSON.parse(stdout),
    {
      kind: 'transformer', file: output, bytes: fs.statSync(output).size, tensors: 19,
      metadata: { n: 4, heads: 2, grid: [8, 8] }
    })
  const { tensors } = JSON.parse((await parvis(['inspect', output, '--json'])).stdout) as {
    tensors: Array<{ dtype: string }>
  }
  t.same([...new Set(tensors.map(tensor => tensor.dtype))], ['bfloat16'])

  const lower = at('int8.safetensors')
  t.match(JSON.parse((await parvis(['convert', golden('par-4x/model.pt'), lower, '--heads', '2', '--precision', 'int8',
    '--json'])).stdout), { tensors: 19 + 11 }, 'eleven matrices have scales')
  t.match((await parvis(['inspect', lower])).stdout, /tensors +19 tensors, .* bfloat16 and int8/)
  t.match(await parvis(['generate', '--transformer', lower, '--tokenizer', golden('vq-small/vq.pt'), '--class', '1',
    '--device', 'cpu', '--out', at('int8.png')]), { code: 0, stderr: '' })
  t.match(await parvis(['convert', golden('vq-small/vq.pt'), at('none.safetensors'), '--precision', 'int8']),
    { code: 1, stderr: /'int8' is for transformers.*\[INVALID_OPTION\]/ })
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
  const args = (output: string): string[] =>
    ['convert', golden('llamagen/model.pt'), path.join(place, output), '--heads', '2', '--force']
  fs.writeFileSync(path.join(place, 'real'), 'old')
  fs.symlinkSync('real', path.join(place, 'link'))
  t.equal((await parvis(args('link'))).code, 0)
  t.ok(fs.lstatSync(path.join(place, 'link')).isSymbolicLink())
  t.ok(fs.statSync(path.join(place, 'real')).size > 1e6)
  execFileSync('mkfifo', [path.join(place, 'pipe')])
  for (const output of ['pipe', '../../../../dev/null']) {
    for (const line of [args(output), args(output).slice(0, -1)]) {
      t.match(await parvis(line), { code: 1, stderr: /no regular file.*\[INVALID_OPTION\]/ })
    }
  }
  t.ok(fs.lstatSync(path.join(place, 'pipe')).isFIFO())
  t.ok(fs.lstatSync('/dev/null').isCharacterDevice())
  t.same(fs.readdirSync(place).sort(), ['link', 'pipe', 'real'])
})

t.test('what is refused leaves nothing', async t => {
  const place = temporaryFolder()
  const output = path.join(place, 'out.safetensors')
  t.match(await parvis(['convert', golden('par-4x/model.pt'), output]),
    { code: 1, stderr: /Pass --heads\. \[BAD_CHECKPOINT\]/ }, 'heads unknown')
  t.match(await parvis(['convert', golden('par-4x/model.pt'), output, '--heads', '2', '-n', '16']),
    { code: 1, stderr: /\[UNSUPPORTED_N\]/ })
  t.match(await parvis(['convert', path.join(place, 'none.pt'), output]), { code: 1, stderr: /\[FILE_NOT_FOUND\]/ })
  t.match(await parvis(['convert', golden('par-4x/model.pt'), path.join(place, 'no', 'out.safetensors')]),
    { code: 2, stderr: /no folder/ })
  t.same(fs.readdirSync(place), [])
})
