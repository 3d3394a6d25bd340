'use strict'
// Everything that only a machine with a GPU can show: bash scripts/device.sh [OUT] on a machine that is lent for
// minutes. Correctness comes first, then measurements, one at a time. A part that fails or runs out of time stops no
// other, and the table is printed whatever happens: when time is over, and when somebody ends this process. OUT gets
// device.json (everything, written anew after each part) and log.txt.
//
//   node scripts/device.js [OUT] [--call 1|2] [--minutes M] [--only LIST]
//   node scripts/device.js --plan                      which parts there are, and how long each may take
//   node scripts/device.js --tests                     npm run test:cuda: what is right or wrong, as long as it takes
//   node scripts/device.js --predictions [RESULTS...]  makes bench/predictions.md, from files device.json; without
//                                                      a name from those in bench/results
//
// PARVIS_DEVICE_ANYWAY=90 tries this script without a GPU, with what is built for that architecture: nothing counts.

const { spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')
const checks = require('./checks')
const work = require('./device/parts')
const plan = require('./device/plan')
const predictions = require('./device/predictions')

const { root } = checks
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    call: { type: 'string', default: '1' },
    minutes: { type: 'string' },
    only: { type: 'string' },
    plan: { type: 'boolean' },
    tests: { type: 'boolean' },
    predictions: { type: 'boolean' }
  }
})

// ---- bench/predictions.md --------------------------------------------------------------------------------

function writePredictions () {
  const named = positionals.map(file => JSON.parse(fs.readFileSync(file, 'utf8')))
  const reports = positionals.length > 0 ? named : predictions.runs()
  fs.writeFileSync(predictions.page, predictions.markdown(reports))
  console.log(`${path.relative(root, predictions.page)}, from ${reports.length} runs`)
}

// ---- npm run test:cuda -----------------------------------------------------------------------------------

/** Why no GPU can be used, in the words of `parvis doctor`; undefined: one can. Asked in a process of its own. */
function reason () {
  const script = 'require(process.argv[1]).cuda().then(probe => process.stdout.write(JSON.stringify(probe)))'
  const child = spawnSync(process.execPath, ['-e', script, checks.addon], { encoding: 'utf8', timeout: 120000 })
  if (child.status !== 0) return `${checks.addon} does not load: ${child.stderr.trim().split('\n').at(-1)}`
  return JSON.parse(child.stdout).reason
}

/** Ends with `N passed, N failed`. What has not run has not passed. */
async function runTests () {
  const log = path.join(root, 'out', 'test-cuda.log')
  const total = { passed: 0, failed: 0 }
  const fail = text => {
    total.failed++
    console.log(`\n  FAILED  ${text}\n`)
  }
  const tests = async () => {
    fs.mkdirSync(path.dirname(log), { recursive: true })
    fs.writeFileSync(log, '')
    // Known at once, and compiling for a GPU that is not there takes minutes.
    if (!checks.gpu() && !fs.existsSync('/proc/driver/nvidia/version')) {
      return fail('no GPU can be used here, so nothing was tested: no NVIDIA driver was found')
    }
    const gpu = checks.gpu()
    if (!gpu) return fail('the driver has a GPU, but nvidia-smi, which tells its architecture, does not run')
    console.log(`${gpu.name}, driver ${gpu.driver}`)
    const missing = checks.missingTools()
    const stale = checks.unfit(gpu.architecture)
    if (stale && missing.length > 0) return fail(`${stale}, and building it takes ${missing.join(', ')}`)
    if (stale) {
      console.log(`building the programs and the addon: ${stale}`)
      const made = await checks.build({ architecture: gpu.architecture, seconds: 1800, log })
      if (made.problem) return fail(`building: ${made.problem}; see ${log}`)
    }
    const typescript = require('./prepare')
    if (typescript.isStale() && !typescript.build()) return fail('dist/ could not be built; the reason is above')
    const why = reason()
    if (why) return fail(`no GPU can be used here, so nothing was tested: ${why}`)
    for (const name of plan.testParts) {
      const result = await testPart(name, log)
      if (result.problem) fail(`${name}: ${result.problem}`)
      total.passed += result.passed || 0
      for (const failure of result.failures || []) {
        if (echoed.includes(name)) total.failed++ // it has been said
        else fail(`${name}: ${failure}`)
      }
      for (const skipped of result.skipped || []) console.log(`skipped  ${name}: ${skipped}`)
      const ok = !result.problem && result.failures.length === 0
      console.log(`${ok ? 'ok    ' : 'not ok'}  ${name}  ${result.passed || 0} passed`)
    }
  }
  await tests().catch(error => fail(error.stack))
  console.log(`${total.passed} passed, ${total.failed} failed`)
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
}

/** Parts whose own output is shown. */
const echoed = ['golden', 'api']

function testPart (name, log) {
  if (name === 'cases') return work.cases({ seconds: 7200, each: 900, log })
  if (name === 'shapes') return work.shapes({ seconds: 620, log })
  return work.tests(name, { seconds: 1800, limit: 600, log, echo: text => process.stdout.write(text) })
}

// ---- a call on a machine that is lent --------------------------------------------------------------------

function runCall () {
  const call = plan.calls[options.call]
  if (!call) {
    console.error(`device: there is no call ${options.call}: it is 1 or 2`)
    process.exitCode = 1
    return
  }
  const asked = options.only?.split(',')
  const unknown = asked?.find(name => !call.parts.some(part => part.name === name))
  const minutes = Number(options.minutes ?? call.minutes)
  if (unknown !== undefined || !(minutes > 0)) {
    console.error(unknown !== undefined
      ? `device: call ${options.call} has no part "${unknown}": ${call.parts.map(({ name }) => name).join(', ')}`
      : `device: --minutes ${options.minutes} is no time`)
    process.exitCode = 1
    return
  }
  new Call(call, minutes, asked).start()
}

class Call {
  #parts
  #peerPlan
  #minutes
  /** Unpacking counts: device.sh says when it began. */
  #began = Number(process.env.PARVIS_DEVICE_BEGAN) * 1000 || Date.now()
  #out
  #log
  #folder = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-device-'))
  #started = { problem: 'PyTorch was not asked for' }
  /** The file that a program is writing, and what becomes of it if this has to end before the program does. */
  #writing
  #ended = false
  report

  constructor ({ parts, peer }, minutes, asked) {
    this.#parts = asked ? parts.filter(({ name }) => asked.includes(name)) : parts
    this.#peerPlan = peer
    this.#minutes = minutes
    this.report = {
      date: new Date().toISOString(),
      call: Number(options.call),
      minutes,
      parts: {},
      measure: { parts: [], problems: {} },
      peers: []
    }
  }

  start () {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => this.#end(`ended by ${signal}`))
    process.once('exit', () => fs.rmSync(this.#folder, { recursive: true, force: true }))
    setTimeout(() => this.#end('time is over'), Math.max(1, (this.#left() + plan.reserve - 3) * 1000)).unref()
    this.#run().catch(error => {
      this.report.problem = error.message
      console.error(`device: ${error.message}`)
    }).then(() => this.#end())
  }

  #seconds () { return (Date.now() - this.#began) / 1000 }
  /** Seconds until the table. */
  #left () { return this.#minutes * 60 - plan.reserve - this.#seconds() }
  #say (text) { console.log(`${this.#seconds().toFixed(0).padStart(4)} s  ${text}`) }

  async #run () {
    const anyway = process.env.PARVIS_DEVICE_ANYWAY
    const found = checks.gpu()
    if (!found && !anyway) {
      throw new Error('nvidia-smi finds no GPU here. (PARVIS_DEVICE_ANYWAY=90 tries the script without one; nothing ' +
        'counts then.)')
    }
    const gpu = found || { name: 'no GPU', driver: 'none', architecture: anyway }
    const wanted = positionals[0] || process.env.OUT || path.join(root, 'out', 'device-report')
    this.#out = this.#folderFor(path.resolve(wanted))
    this.#log = path.join(this.#out, 'log.txt')
    fs.writeFileSync(this.#log, `${this.report.date}\n${JSON.stringify(gpu)}\n`)
    this.report.device = {
      ...gpu,
      gpu: found !== undefined,
      cpu: os.cpus()[0]?.model,
      cores: os.availableParallelism(),
      node: process.version
    }
    this.#say(`${gpu.name}, driver ${gpu.driver}; ${os.availableParallelism()} cores; ${this.#out}`)
    await this.#build(gpu)

    for (const [i, part] of this.#parts.entries()) {
      const main = this.#parts[i - 1]?.name
      if (part.beside !== undefined && part.beside === main) continue // it runs with the one before
      const later = this.#parts.slice(i + 1).filter(one => one.beside !== part.name)
      const alone = part.beside === undefined ? part : { ...part, seconds: 30, least: 5 } // with --only
      const seconds = plan.limitOf(alone, later, this.#left())
      const together = [part, ...this.#parts.slice(i + 1, i + 2).filter(one => one.beside === part.name)]
      await Promise.all(together.map(one => this.#part(one, seconds)))
      // Compiling takes as long as the correctness of everything else: it begins with that.
      if (i === 0) this.#startPeer()
    }
  }

  /** Nothing is compiled where what was carried fits; else here, in time that nobody planned. */
  async #build (gpu) {
    const why = checks.unfit(gpu.architecture)
    if (!why) return this.#say('built beforehand, for this architecture and these sources')
    const missing = checks.missingTools()
    if (missing.length > 0) throw new Error(`${why}, and this machine lacks ${missing.join(', ')}`)
    this.#say(`building here: ${why}`)
    const later = plan.timed(this.#parts).reduce((sum, { least }) => sum + least, 0)
    const seconds = Math.max(20, Math.min(240, this.#left() - later))
    const built = await checks.build({ architecture: gpu.architecture, seconds, log: this.#log })
    this.#keep('build', { seconds: built.seconds, problem: built.problem, addon: built.addon })
    if (!built.problem) return this.#say(`built in ${built.seconds.toFixed(0)} s`)
    const telling = (built.out + built.err).split('\n').filter(text => /error|warning.*spill/i.test(text))
    console.log(telling.slice(0, 12).join('\n'))
    throw new Error(`the build failed: ${built.problem}`)
  }

  #startPeer () {
    if (!this.#parts.some(({ name }) => name === 'peer')) return
    this.#started = work.startPeer({ ...this.#peerPlan, log: this.#log })
  }

  /** One part within its time; an error inside is its result. */
  async #part (part, seconds) {
    const { name, groups } = part
    const asked = Date.now()
    let result = { problem: 'no time was left' }
    if (seconds > 0) {
      const { peer, answered } = this.#started
      const still = part.quiet && peer !== undefined && answered === undefined
      if (still) peer.pause()
      let timer
      try {
        // Whatever a part waits for beyond its limit, the others do not.
        const over = new Promise(resolve => {
          timer = setTimeout(() => resolve({ problem: 'took longer than its time' }), (seconds + 6) * 1000)
        })
        result = await Promise.race([this.#work(part, seconds), over])
      } catch (error) {
        result = { problem: error.message }
      } finally {
        clearTimeout(timer)
        if (still) peer.resume()
      }
    }
    if (groups) this.#merge(groups, result)
    const { parts: entries, device, ...own } = result
    this.#keep(name, { ...own, took: (Date.now() - asked) / 1000, limit: seconds })
    const count = result.failures && `${result.passed} ok, ${result.failures.length} not`
    const bad = (entries || []).filter(({ problem }) => problem).length
    const measured = entries && `${entries.length - bad} measured${bad > 0 ? `, ${bad} not` : ''}`
    const said = [result.problem, result.ended, count, measured].filter(Boolean).join('; ') || 'done'
    this.#say(`${name} (${Math.round(seconds)} s at most): ${said}`)
    for (const failure of (result.failures || []).slice(0, 8)) console.log(`        not ok  ${failure.slice(0, 200)}`)
  }

  async #work (part, seconds) {
    const { name, groups, models } = part
    const given = { seconds, log: this.#log, folder: this.#folder, date: this.report.date }
    const watch = take => file => { this.#writing = file && { file, take } }
    switch (name) {
      case 'cases': case 'shapes': case 'workers': case 'ncu': return await work[name](given)
      case 'golden': case 'api': return await work.tests(name, given)
      case 'sanitizer': return await this.#sanitizer(given)
      case 'peer': return await this.#peer(given)
      case 'package': {
        const take = result => { this.report.generate = result }
        const result = await work.pictures({ ...given, models, watch: watch(take) })
        take(result)
        return { problem: result.problem, ended: result.ended }
      }
    }
    const measured = await work.measure({ ...given, groups, watch: watch(result => this.#merge(groups, result)) })
    if (name !== 'vq' || measured.problem) return measured
    return { ...measured, operations: await work.operations({ ...given, seconds: Math.max(2, seconds / 2) }) }
  }

  /** A second call on the machine of the first goes on where that stopped; elsewhere all is new. */
  async #sanitizer (given) {
    const file = path.join(checks.folder, 'unfinished.json')
    const before = options.call === '2' ? work.read(file) : undefined
    if (before?.length === 0) return { problem: 'the first call on this machine finished every program' }
    const result = await work.sanitizer({ ...given, unfinished: before })
    if (!result.memcheck) return result
    const left = ['memcheck', 'racecheck'].flatMap(kind => result[kind].unfinished.map(name => ({ kind, name })))
    fs.writeFileSync(file, JSON.stringify(left))
    return before ? { ...result, only: before } : result
  }

  async #peer (given) {
    const result = await work.alternate({ started: this.#started, ...given })
    this.#started.peer?.end()
    const { entry, ...peer } = result
    this.report.peers.push({ ...this.#peerPlan, ...peer })
    if (entry) this.#merge(entry.name, { parts: [entry] })
    return { problem: result.problem, rounds: result.rounds?.length }
  }

  /** What bench/cuda/measure.cc found; why not, for each group that it did not come to. */
  #merge (groups, { parts: entries = [], device, problem, ended }) {
    const { measure } = this.report
    if (device) measure.device = device
    for (const entry of entries) {
      measure.parts = measure.parts.filter(({ name }) => name !== entry.name).concat(entry)
    }
    for (const group of groups.split(',')) {
      const there = measure.parts.some(({ name }) => name === group)
      if (there) delete measure.problems[group]
      else measure.problems[group] = problem || ended || 'it was not measured'
    }
  }

  /** A part has ended: its result is kept before the next begins. */
  #keep (name, result) {
    this.report.parts[name] = result
    this.#write()
  }

  #write () {
    if (this.#out === undefined) return
    this.report.table = predictions.table([this.report])
    this.report.seconds = this.#seconds()
    const file = path.join(this.#out, 'device.json')
    fs.writeFileSync(file + '.partial', JSON.stringify(this.report, undefined, 1) + '\n')
    fs.renameSync(file + '.partial', file)
  }

  /** The folder for results; a temporary one where the one that is wanted cannot be written. */
  #folderFor (wanted) {
    try {
      fs.mkdirSync(wanted, { recursive: true })
      fs.writeFileSync(path.join(wanted, 'log.txt'), '')
      return wanted
    } catch (error) {
      const other = fs.mkdtempSync(path.join(os.tmpdir(), 'parvis-device-out-'))
      this.#say(`${wanted} cannot be written (${error.code || error.message}): results go to ${other}`)
      return other
    }
  }

  /** Prints the table and ends the process, with everything that it started. */
  #end (why) {
    if (this.#ended) return
    this.#ended = true
    if (why) this.#say(why)
    const had = this.#writing && work.read(this.#writing.file)
    if (had) this.#writing.take({ ...had, ended: why })
    if (why) this.report.ended = why
    this.#started.peer?.end()
    this.#write()
    const rows = this.report.table || predictions.table([this.report])
    console.log('\n' + predictions.text(rows))
    const count = verdict => rows.filter(row => row.verdict === verdict).length
    const counts = ['pass', 'FAIL', 'told', 'not run', 'no device'].map(verdict => `${count(verdict)} ${verdict}`)
    console.log(`\n${counts.join(', ')}; ${this.#seconds().toFixed(0)} s of ${Math.round(this.#minutes * 60)}` +
      (this.#out === undefined ? '' : `; ${path.join(this.#out, 'device.json')}`))
    // The first call answers for every promise, the second one for those that it came to.
    const open = rows.filter(({ verdict, wanted }) => verdict === 'not run' && wanted !== '-').length
    const good = this.report.problem === undefined && count('pass') > 0 && count('FAIL') + count('no device') === 0 &&
      (open === 0 || options.call !== '1')
    process.exitCode = good ? 0 : 1
    // What is written to a pipe must be out first.
    process.stdout.write('', () => process.exit())
  }
}

if (options.plan) console.log(plan.text())
else if (options.predictions) writePredictions()
else if (options.tests) void runTests()
else runCall()
