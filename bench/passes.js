'use strict'
// Passes in place of steps: how many a picture takes, and how long, for several numbers of steps a pass.
//
//   node bench/passes.js [--model fashion] [--transformer FILE [--grid 16]] [-n 1,4] [--passes auto,2,4,8,16,32]
//                        [--draw inverse,gumbel] [--pictures 20] [--precision auto] [--options JSON]
//
// Sequential pictures and the others alternate, picture by picture, so that a machine that is disturbed disturbs all of
// them. Times are those of the transformer alone, medians; the ratio is that of a picture and the sequential one just
// before it, its median too. A model that has no n takes `-n none`. Tokens are compared: one that differs ends the run
// with an error.

const { parseArgs } = require('node:util')
const { Par } = require('..')

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'fashion' },
    transformer: { type: 'string' },
    grid: { type: 'string' },
    n: { type: 'string', short: 'n', default: '1,4' },
    passes: { type: 'string', default: 'auto,2,4,8,16,32' },
    draw: { type: 'string', default: 'inverse,gumbel' },
    pictures: { type: 'string', default: '20' },
    precision: { type: 'string', default: 'auto' },
    options: { type: 'string', default: '{}' }
  }
})
const list = text => text.split(',').map(one => /^\d+$/.test(one) ? Number(one) : one)
const median = numbers => [...numbers].sort((a, b) => a - b)[numbers.length >> 1]

async function main () {
  for (const wanted of list(values.n)) {
    const n = wanted === 'none' ? undefined : wanted
    const { precision, transformer, grid } = values
    const par = transformer
      ? await Par.load({ transformer: { path: transformer, n, ...(grid && { grid: Number(grid) }) }, precision })
      : await Par.load(values.model, { precision })
    const { classes } = par.info.transformer
    for (const draw of list(values.draw)) {
      const request = seed => ({ classId: seed % classes, seed, n, draw, ...JSON.parse(values.options) })
      const found = new Map(list(values.passes).map(passes => [passes, { ms: [], ratios: [], count: [] }]))
      const sequential = []
      let steps = 0
      for (let seed = 0; seed < Number(values.pictures); seed++) {
        for (const [passes, of] of found) {
          const alone = await par.generate({ ...request(seed), passes: 'sequential' })
          const image = await par.generate({ ...request(seed), passes })
          const differs = image.tokens.some((token, i) => token !== alone.tokens[i])
          if (differs) throw new Error(`passes ${passes}: other tokens`)
          const [before, now] = [alone, image].map(({ timings }) => timings.transformerMs)
          steps = alone.steps
          sequential.push(before)
          of.ms.push(now)
          of.ratios.push(before / now)
          of.count.push(image.passes)
        }
      }
      const { isa, precision } = par.info
      console.log(`${transformer ?? values.model}, n = ${wanted}, ${draw}, ${isa}, ${precision}: ` +
        `${steps} steps, ${median(sequential).toFixed(1)} ms`)
      for (const [passes, { ms, ratios, count }] of found) {
        const mean = count.reduce((sum, one) => sum + one, 0) / count.length
        console.log(`  ${passes}: ${mean.toFixed(1)} passes (${(steps / mean).toFixed(2)} times fewer), ` +
          `${median(ms).toFixed(1)} ms, ${median(ratios).toFixed(2)} times as fast`)
      }
    }
    await par.dispose()
  }
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
