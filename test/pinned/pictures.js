// Hashes of what the public API computes, in a process of its own: PARVIS_ISA or the addon of the simulated GPU decide
// where. Prints one JSON object, { 'instruction set, precision, model, case': hash }.
//   node pictures.js DIST DEVICE MODELS
'use strict'

const { createHash } = require('node:crypto')

const [module_, device, models] = process.argv.slice(2)
const { Par } = require(module_)

/** What the picture, the score or the codes are made of, whatever they are called. */
function hash (...arrays) {
  const sum = createHash('sha256')
  for (const array of arrays) sum.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
  return sum.digest('hex').slice(0, 20)
}
const ofImages = images =>
  hash(
    ...[images].flat().flatMap(({ tokens, data, seed }) => [tokens, data ?? tokens, BigUint64Array.of(BigInt(seed))])
  )

/** Options of generate() by name. Class numbers fit the model. */
function requests (classes, ns, brief) {
  const [a, b, c] = classes
  const all = {}
  for (const n of ns) {
    const own = n ? { n } : {}
    const add = (name, options) => { all[`n=${n ?? 'own'}, ${name}`] = { classId: a, seed: 1, ...own, ...options } }
    add('alone', {})
    add('a list', { classId: [a, b, b, c, a], seed: 41 })
    add('no guidance', { guidanceScale: 1 })
    add('a list without guidance', { classId: [b, c], guidanceScale: 1, seed: 2 ** 40 })
    add('greedy', { greedy: true, guidanceScale: 1.5 })
    add('top-k', { topK: 20, temperature: 0.9 })
    add('top-p', { topP: 0.8, guidanceScale: 3 })
    add('all rules', { classId: [c, a], topK: 100, topP: 0.95, temperature: 1.2, guidanceScale: 1.345 })
  }
  if (brief) return Object.fromEntries(Object.entries(all).filter(([name]) => /alone|all rules/.test(name)))
  const n = ns[1] ?? ns[0]
  const own = n ? { n } : {}
  const ablations = [{ order: 'raster' }, { initial: 'none' }, { groupAttention: 'causal' }, { tokensPerStep: 1 }]
  for (const ablation of ablations) all[JSON.stringify(ablation)] = { classId: [a, b], seed: 3, ...own, ...ablation }
  return all
}

async function main () {
  const found = {}
  for (const [name, { load, classes, ns, pixels = true, brief = false }] of Object.entries(JSON.parse(models))) {
    for (const precision of ['float32', 'bfloat16', ...device === 'cpu' ? ['int8'] : []]) {
      const par = await Par.load({ ...load, device, precision })
      const place = `${device === 'cpu' ? par.info.isa : device}, ${precision}, ${name}`
      const put = (what, value) => { found[`${place}, ${what}`] = value }
      for (const [what, options] of Object.entries(requests(classes, ns, brief))) {
        // Not every ablation is possible with every n.
        put(what, await par.generate(options).then(ofImages, ({ code }) => code))
      }
      for (const n of ns) {
        const image = await par.generate({ classId: classes[0], seed: 9, ...n && { n } })
        for (const method of brief ? ['full'] : ['full', 'cached']) {
          const [{ logProbs }] = await par.score({ tokens: [image.tokens], classId: classes[1], ...n && { n }, method })
          put(`n=${n ?? 'own'}, score, ${method}`, hash(logProbs))
        }
        if (!pixels) continue
        const exact = await par.decode(image.tokens, { format: 'float32' })
        put(`n=${n ?? 'own'}, pixels as numbers`, hash(exact.data))
        put(`n=${n ?? 'own'}, codes`, hash(await par.encode(image)))
      }
      await par.dispose()
    }
  }
  console.log(JSON.stringify(found))
}
main().catch(error => { console.error(error); process.exitCode = 1 })
