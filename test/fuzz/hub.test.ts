// A few seconds of answers of a Hub gone wrong. More of them:
//   PARVIS_FUZZ=100000 npm test -- test/fuzz/hub.test.ts

import t from 'tap'
import path from 'node:path'
import { fuzz } from './harness.js'
import { environment, hubFuzzer } from './hub-answers.js'

const count = Number(process.env.PARVIS_FUZZ ?? 250)
const seed = Number(process.env.PARVIS_SEED ?? 17)
t.setTimeout(60_000 + count * 100)

t.test('answers of a Hub that went wrong', async t => {
  for (const name of Object.keys(process.env)) {
    if (/^(HF_|HUGGING|TRANSFORMERS_|HTTPS?_PROXY|ALL_PROXY)/i.test(name)) delete process.env[name]
  }
  Object.assign(process.env, environment)
  const { findings, read, refused } = await fuzz(hubFuzzer,
    { seed, count, folder: path.join(__dirname, '..', '..', 'out', 'fuzz') })
  t.same(findings, [])
  t.equal(read + refused, count)
  t.ok(read > count / 10 && refused > count / 10, `${read} pulls went well, ${refused} were refused: seed ${seed}`)
  t.comment(`seed ${seed}: ${read} went well, ${refused} were refused`)
})
