'use strict'
// The one table of the run on a GPU: what was predicted (bench/predictions.json), what is promised, what came. Promises
// are shares of what the same run measured, such as a step's bytes at the bandwidth that this very card reads with:
// milliseconds of one card say nothing about another. bench/predictions.md is made from the same lines.

const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const source = path.join(root, 'bench', 'predictions.json')
const page = path.join(root, 'bench', 'predictions.md')
const kept = path.join(root, 'bench', 'results')
const cards = ['H100', 'H200']

// ---- figures: what a line's number is, from the results of one run ---------------------------------------

const absent = problem => ({ problem })
const entryOf = (report, name) => (report.measure?.parts || []).find(entry => entry.name === name)
/** A field of an entry of bench/cuda/measure.cc; the reason where there is none. */
function fieldOf (report, name, value) {
  const entry = entryOf(report, name)
  if (!entry) return absent(report.measure?.problems?.[name] || 'not measured')
  if (entry.problem) return absent(entry.problem)
  const found = value(entry)
  return found === undefined || found === null ? absent('not among the results') : { value: found }
}
/** Works on the values of others; the first that is absent says why there is none. */
function combine (figures, work) {
  return figures.find(figure => figure.problem !== undefined) || { value: work(...figures.map(({ value }) => value)) }
}

/** Steps of a picture that have n rows a sequence: all but the first n. */
const manyRowSteps = group => 576 / Number(group.split(':')[1]) - 1
/** All steps of a picture: n of one token, then groups of n. */
const stepsOf = group => (Number(group.split(':')[1]) === 1 ? 576 : Number(group.split(':')[1]) + manyRowSteps(group))

const step = (report, group, setting, field = 'graphMs') => fieldOf(report, `sweep:${group}`, entry =>
  entry.settings?.find(one => one.setting === setting)?.[field]?.median)
const bytes = (report, group) => fieldOf(report, `sweep:${group}`, ({ weightBytes, cacheBytes }) =>
  weightBytes === undefined ? undefined : weightBytes + (cacheBytes || 0))
const read = report => fieldOf(report, 'read', entry => entry.gigabytesPerSecond)
const picture = (report, group, field) =>
  fieldOf(report, `generate:${group}`, entry => entry[field]?.median ?? entry[field])

function packaged (report, model) {
  const [name, n, way] = model.split(':')
  const found = (report.generate?.results || [])
    .find(one => one.model === name && one.n === Number(n) && (one.way || '') === (way || ''))
  return found?.ms ? { value: found } : absent(found?.problem || report.generate?.problem || 'not measured')
}

/** By the name that a line of bench/predictions.json gives: each takes a run's results and the line's words. */
const figures = {
  /** Failures of a part that checks; the text also tells how many went well. */
  checks (report, name) {
    const part = report.parts?.[name]
    if (!part?.failures) return absent(part?.problem || 'not run')
    const { passed, failures, skipped = [] } = part
    if (passed + failures.length === 0) return absent('checked nothing')
    const left = skipped.length > 0 ? `, ${skipped.length} left out` : ''
    return { value: failures.length, text: `${passed} ok, ${failures.length} not${left}` }
  },
  /** Programs in which a tool of compute-sanitizer found an error; absent while any has not been looked at. */
  sanitizer (report, kind) {
    const part = report.parts?.sanitizer
    const found = part?.[kind]
    if (!found || (part.problem && found.bad.length === 0)) return absent(part?.problem || 'not run')
    const warned = found.warnings.length > 0 ? `; warnings: ${found.warnings.join(', ')}` : ''
    const text = `${found.clean.length} clean, ${found.bad.length} not${warned}`
    if (found.bad.length > 0) return { value: found.bad.length, text: `${text}: ${found.bad.join('; ')}` }
    if (found.unfinished.length > 0) return absent(`${text}; not finished: ${found.unfinished.join(' ')}`)
    return { value: 0, text }
  },
  /** Pictures that differ although model and seed are the same, under every way of launching. */
  same (report, group) {
    const pictures = fieldOf(report, `same:${group}`, entry => entry.pictures)
    const differing = fieldOf(report, `same:${group}`, entry => entry.differing)
    return combine([pictures, differing], (all, bad) => all > 0 ? bad : NaN)
  },
  repeatable (report, model) {
    return combine([packaged(report, model)], ({ repeatable, withoutOverlap }) =>
      repeatable && withoutOverlap !== false ? 0 : 1)
  },
  field: (report, name, field) => fieldOf(report, name, entry => entry[field]),
  /** Programmatic edges of a step's graph, of those that a chain of its kernels has. */
  overlappedEdges: report => combine([figures.field(report, 'probe', 'programmaticEdges'),
    figures.field(report, 'probe', 'kernels')], (edges, kernels) => edges / (kernels - 1)),
  /** What the first bytes of a stream cost beyond its bytes at the measured bandwidth. */
  coldStart: (report, megabytes) => combine([read(report), fieldOf(report, 'constants', entry =>
    entry.coldStreams?.find(one => one.megabytes === megabytes)?.us)], (rate, us) => us - megabytes * 1e3 / rate),
  step,
  /** A step's bytes at the bandwidth that was measured, of its time. */
  stepShare: (report, group, setting) => combine([bytes(report, group), read(report), step(report, group, setting)],
    (all, rate, ms) => all / (rate * 1e6) / ms),
  /** How much longer a step takes in the second setting. */
  slower: (report, group, setting, other) => combine([step(report, group, setting), step(report, group, other)],
    (ms, otherMs) => otherMs / ms),
  /** Milliseconds a picture that the first setting saves against the second. */
  saved: (report, group, setting, other) => combine([step(report, group, setting), step(report, group, other)],
    (ms, otherMs) => (otherMs - ms) * manyRowSteps(group)),
  /** The same of whole pictures: what depends on how far ahead the host is, a replayed step does not show. */
  savedPicture: (report, group, setting, other) =>
    combine([step(report, group, setting, 'pictureMs'), step(report, group, other, 'pictureMs')],
      (ms, otherMs) => otherMs - ms),
  /** One launch of a kernel, not overlapped, in microseconds. */
  kernel: (report, group, name) => fieldOf(report, `step:${group}`, entry => {
    const found = entry.kernels?.find(one => one.kernel.includes(name))
    const ms = found?.ms?.median ?? found?.ms
    return found && ms * 1e3 / found.launches
  }),
  picture,
  /** Time of a picture's steps, of what its bytes take at the bandwidth that was measured. */
  ofFloor: (report, group) => combine([bytes(report, group), read(report), picture(report, group, 'transformerMs')],
    (all, rate, ms) => ms / (all / (rate * 1e6) * stepsOf(group))),
  /** Pictures by Par.generate against those of the native program. */
  ofNative: (report, model) => combine([packaged(report, model), picture(report, model, 'ms')], ({ ms }, native) =>
    ms.median / native),
  /** Par.generate in one way against another. */
  ofPackage: (report, model, other) => combine([packaged(report, model), packaged(report, other)], (one, two) =>
    one.ms.median / two.ms.median),
  /** Time of a pass against that of a step by itself. */
  passOfStep: (report, model) => combine([packaged(report, `${model}:passes`), packaged(report, `${model}:sequential`)],
    (passes, steps) => passes.ms.median / passes.passes / (steps.ms.median / steps.passes)),
  /** How much longer the compiled peer takes, pictures in turn. */
  peer (report, group) {
    const [model, n] = group.split(':')
    const found = (report.peers || []).find(one => one.model === model && one.n === Number(n))
    return found?.ours ? { value: found.theirs / found.ours } : absent(found?.problem || 'not measured')
  },
  /** One draw kernel by itself, in microseconds; `rule` begins with the word. */
  draws: (report, count, rule) => fieldOf(report, 'draws', entry => {
    const found = entry.counts?.find(one => one.draws === count && one.rule.startsWith(rule))
    return found && found.ms.median * 1e3
  })
}

/** A line's figure in the first of some runs that has it. */
function figureOf (line, reports) {
  const [name, ...words] = line.figure
  let reason
  for (const report of reports) {
    if (report.device?.gpu === false) continue // nothing of a run without a GPU counts
    const figure = figures[name](report, ...words)
    if (figure.problem === undefined && (typeof figure.value === 'boolean' || Number.isFinite(figure.value))) {
      return { ...figure, card: cards.find(card => report.device?.name?.includes(card)) }
    }
    reason = reason || figure.problem || 'not a number'
  }
  return { problem: reason }
}

// ---- the table -------------------------------------------------------------------------------------------

const lines = (file = source) => JSON.parse(fs.readFileSync(file, 'utf8')).lines

function numberText (value, unit = '') {
  if (value === undefined || value === null) return '-'
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (Array.isArray(value)) return `${value.map(one => numberText(one)).join(' to ')}${unit && ` ${unit}`}`
  return `${Number(value.toPrecision(3))}${unit && ` ${unit}`}`
}

function wantedText ({ bound, unit }) {
  if (!bound) return '-'
  const [kind, value] = Object.entries(bound)[0]
  return `${{ least: '>=', most: '<=' }[kind]} ${numberText(value, unit)}`
}

/** How far a number is from what was predicted, in words; '' where it is inside or nothing was predicted. */
function beside (value, predicted) {
  if (predicted === undefined || predicted === null || typeof value !== 'number') return ''
  const [low, high] = Array.isArray(predicted) ? predicted : [predicted, predicted]
  const edge = value < low ? low : value > high ? high : undefined
  if (!edge) return ''
  const percent = Math.round(Math.abs(value / edge - 1) * 100)
  if (percent === 0) return ''
  // A share of a number of the other sign would be none.
  return `, ${value / edge > 0 ? `${percent}% ` : ''}${value > edge ? 'above' : 'below'}`
}

/**
 * The rows: { id, what, predicted, wanted, came, verdict }. Verdicts: pass and FAIL of what is promised, told of what
 * is only told, `not run`, and `no device` where no run had a GPU.
 */
function table (reports, all = lines()) {
  const withDevice = reports.some(({ device }) => device !== undefined && device.gpu !== false)
  const card = cards.find(one => reports.some(({ device }) => device?.name?.includes(one)))
  return all.map(line => {
    const row = {
      id: line.id, what: line.what, predicted: numberText(line.predicted?.[card], line.unit), wanted: wantedText(line)
    }
    if (!withDevice) return { ...row, came: 'no device', verdict: 'no device' }
    const figure = figureOf(line, reports)
    if (figure.problem !== undefined) return { ...row, came: figure.problem, verdict: 'not run' }
    const { value, text } = figure
    const came = (text || numberText(value, line.unit)) + (text ? '' : beside(value, line.predicted?.[figure.card]))
    if (!line.bound) return { ...row, came, value, verdict: 'told' }
    const { least = -Infinity, most = Infinity } = line.bound
    return { ...row, came, value, verdict: value >= least && value <= most ? 'pass' : 'FAIL' }
  })
}

/** The rows as text for a terminal. */
function text (rows) {
  const all = [{ what: 'what', predicted: 'predicted', wanted: 'wanted', came: 'came', verdict: 'verdict' }, ...rows]
  const width = (key, most) => Math.min(most, Math.max(...all.map(row => row[key].length)))
  const columns = [['what', 90], ['predicted', 20], ['wanted', 12], ['came', 90]].map(([key, most]) =>
    [key, width(key, most)])
  return all.map(row => [...columns.map(([key, size]) => row[key].slice(0, size).padEnd(size)), row.verdict].join('  '))
    .join('\n')
}

/** The runs on a GPU that are kept in bench/results. */
function runs (folder = kept) {
  return fs.readdirSync(folder).filter(name => name.endsWith('.json')).sort()
    .map(name => JSON.parse(fs.readFileSync(path.join(folder, name), 'utf8')))
    .filter(report => report.device?.gpu === true && report.measure !== undefined)
}

/** bench/predictions.md: the lines of both cards, and what came in the runs. */
function markdown (reports, all = lines()) {
  const rows = table(reports, all)
  const names = reports.map(({ device, date }) => `${device.name}, ${date}`)
  const cell = value => value.replaceAll('|', '\\|').replaceAll('\n', ' ')
  return `# What a GPU is predicted to show, and what it did

Made from \`bench/predictions.json\` by \`node scripts/device.js --predictions [RESULTS...]\`; do not edit. RESULTS are
files \`device.json\` of \`scripts/device.sh\`; where none is named, those that \`bench/results\` has. ${names.length === 0
    ? 'No GPU has run parvis yet: every number here is a prediction.'
    : `What came is from: ${names.join('; ')}.`}

Predictions come from a model of the kernels that was made by reading them, with an error of about 12%. Its constants: an
H200 reads 4.2 TB/s and an H100 3.0 TB/s; two kernels of a replayed graph are 1.35 us apart, and 0.9 us where they overlap;
the second-level cache gives all multiprocessors 5.5 TB/s. What is wanted is a share of what the same run measured, so it
means the same on every card. A dash under "wanted": the number is told, and nothing is promised of it. Milliseconds are
of 24 x 24 tokens, batch 1, with guidance, in bfloat16, unless a line says otherwise.

| what | H100 | H200 | wanted | came | why |
|---|---|---|---|---|---|
${rows.map((row, i) => {
    const { predicted, unit, why } = all[i]
    const came = ['told', 'no device'].includes(row.verdict) ? row.came : `${row.came}: ${row.verdict}`
    return `| ${[row.what, ...cards.map(card => numberText(predicted?.[card], unit)), row.wanted, came, why].map(cell).join(' | ')} |`
  }).join('\n')}
`
}

module.exports = { page, lines, runs, table, text, markdown, figures }
