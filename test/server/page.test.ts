// The page in Chromium, on the real server: choose, watch, compare, download, copy, go back; with the keyboard alone;
// in light, dark and narrow; keys, errors and what a server may send that nobody should trust.

import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import type { AxeResults } from 'axe-core'
import type { FastifyInstance } from 'fastify'
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import sharp from 'sharp'
import t from 'tap'
import { createSchedule } from '../../lib/decoding/schedule.js'
import { Par } from '../../lib/index.js'
import { imagenetLabels } from '../../lib/models/imagenet.js'
import {
  EngineError, type Engine, type Listener, type ModelInfo, type PictureRequest, type Result
} from '../../server/lib/engine.js'
import { LocalEngine } from '../../server/lib/local.js'
import { createServer } from '../../server/lib/server.js'
import { root } from '../support/built.js'

const chromiumPath = process.env.PARVIS_CHROMIUM ?? '/usr/bin/chromium'

interface Options { engine?: Engine, apiKeys?: string[], hash?: string, context?: BrowserContextOptions }
interface Opened { page: Page, url: string, app: FastifyInstance }
type Open = (options: Options, expected?: RegExp[]) => Promise<Opened>
type Test = Pick<typeof t, 'teardown' | 'same' | 'not' | 'equal' | 'ok' | 'match' | 'notMatch' | 'fail' | 'pass'>
/** What a panel looked like at one moment. */
interface Seen { step: number, text: string, picture: string, marked: number[], veiled: number }

/** A server of nothing but its settings: what it draws is up to each test. */
class FakeEngine implements Engine {
  readonly requests: PictureRequest[] = []
  readonly aborted: unknown[] = []

  constructor (
    readonly info: Partial<ModelInfo>,
    readonly drawing: (listener: Listener, signal: AbortSignal) => Promise<Result> = async () => ({} as Result)
  ) {}

  models (): ModelInfo[] {
    return [{
      name: 'fake', kind: { backend: 'none', precision: 'none', weights: '' }, method: 'par', supportedN: [1, 4], n: 4,
      defaultSteps: 67, grid: [16, 16], width: 32, height: 32, labels: undefined, classes: 1000, guidanceScale: 2,
      device: 'none', ...this.info
    }]
  }

  async load (): Promise<{ waiting: number, running: number }> { return { waiting: 0, running: 0 } }
  async problem (): Promise<undefined> { return undefined }
  async close (): Promise<void> {}

  async draw (request: PictureRequest, signal: AbortSignal, listener: Listener): Promise<Result> {
    this.requests.push(request)
    signal.addEventListener('abort', () => this.aborted.push(signal.reason))
    return await this.drawing(listener, signal)
  }
}

/** A step every 20 ms, 256 of them, until it is aborted. */
async function slowly (listener: Listener, signal: AbortSignal): Promise<never> {
  for (let step = 1; step <= 256; step++) {
    signal.throwIfAborted()
    listener.step?.({ step, steps: 256, cells: [step - 1], ms: 20 * step })
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  throw new Error('Nobody stopped it')
}

t.test('the page', { bail: false }, async t => {
  if (!fs.existsSync(chromiumPath)) {
    t.fail(`There is no Chromium at ${chromiumPath}: apt-get install -y chromium, or name it in PARVIS_CHROMIUM`)
    return
  }
  const local = await LocalEngine.open({ models: ['fashion', 'fashion-arpg'], device: 'cpu' })
  const browser: Browser = await chromium.launch({
    executablePath: chromiumPath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
      '--disable-sync', '--no-first-run']
  })
  t.teardown(async () => {
    await browser.close()
    await local.close()
  })

  /** A test in fresh browsers on fresh servers. Whatever it did, nothing failed in its pages, and nothing left them. */
  async function test (name: string, body: (t: Test, opened: Open) => Promise<void>): Promise<void> {
    await t.test(name, async t => {
      const [problems, foreign]: [string[], string[]] = [[], []]
      const ends: Array<() => Promise<unknown>> = []
      const opened: Open = async ({ engine = local, apiKeys = [], hash = '', context: more = {} }, expected = []) => {
        const app = createServer({ engine, apiKeys, grace: 0 })
        ends.unshift(() => app.close())
        const url = await app.listen({ port: 0, host: '127.0.0.1' })
        const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...more })
        ends.unshift(() => context.close())
        const page = await context.newPage()
        page.setDefaultTimeout(30_000)
        page.on('console', message => {
          if (message.type() !== 'error' && message.type() !== 'warning') return
          // Only these tests read canvases back.
          if (message.text().startsWith('Canvas2D: Multiple readback')) return
          if (!expected.some(known => known.test(message.text()))) problems.push(message.text())
        })
        page.on('pageerror', error => problems.push(String(error)))
        page.on('request', request => {
          const to = request.url()
          if (!to.startsWith(`${url}/`) && !/^(data|blob):/.test(to)) foreign.push(to)
        })
        await page.goto(`${url}/${hash}`)
        await page.locator(apiKeys.length > 0 ? '#key-form' : '#app').waitFor()
        return { page, url, app }
      }
      try {
        await body(t, opened)
        t.same(problems, [], 'nothing failed in the page')
        t.same(foreign, [], 'nothing but its own server was asked')
      } finally {
        for (const end of ends) await end()
      }
    })
  }

  const par = await Par.load('fashion', { device: 'cpu' })
  t.teardown(() => par.dispose())

  await test('choose by search, draw, watch', async (t, opened) => {
    const { page } = await opened({ hash: '#n=4&seed=5' })
    t.equal(await page.locator('#settings [name=n]:checked').inputValue(), '4')
    await choose(page, 'snea', ['Sneaker'])
    t.equal(await page.locator('#class').inputValue(), 'Sneaker')
    t.equal(await page.locator('#renew').isChecked(), false, 'the seed of the address is kept')
    await watch(page)
    await page.click('#draw')
    await done(page, 1)
    const seen = await watched(page)
    const steps = seen.map(({ step }) => step)
    t.ok(seen.length > 40, `most of 67 steps were seen one by one (${seen.length})`)
    t.same(steps, [...steps].sort((a, b) => a - b), 'they go forward')
    t.equal(steps.at(-1), 67)
    t.ok(new Set(seen.map(({ text }) => text)).size > 40, 'the counter moves')
    for (const { step, text } of seen.slice(1, -1)) t.match(text, new RegExp(`^Step ${step} of 67, \\d`))
    const pictures = new Set(seen.map(({ picture }) => picture))
    t.ok(pictures.size > 20, `the picture changes while it forms (${pictures.size} pictures)`)

    // The marks are those of the schedule, not of anything that the server could make up.
    const [image] = [await par.generate({ classId: 'sneaker', n: 4, seed: 5 })]
    const { tokensAfter } = createSchedule({ grid: [16, 16], n: 4 })
    const cellsOf = (step: number): number[] =>
      [...image.tokenOrder.slice(step === 1 ? 0 : tokensAfter[step - 2], tokensAfter[step - 1])].sort((a, b) => a - b)
    const marked = seen.filter(({ step }) => step > 0)
    t.ok(marked.length > 40, 'steps are marked')
    for (const { step, marked: cells, veiled } of marked) {
      t.same(cells, cellsOf(step), `the cells of step ${step}`)
      t.equal(veiled, 256 - tokensAfter[step - 1]!, `and those that are not drawn after step ${step}`)
    }
    t.same((await look(page)).marked, [], 'the finished picture has no marks')
    t.equal(await pixels(page), hashOf(image.data), 'the picture is what the library makes')
    t.match(await page.locator('#announcer').textContent(), /^Done: Sneaker, seed 5, 67 steps, [\d.]+ (ms|s)$/)
    t.match(await page.locator('.progress').textContent(), /^67 steps, [\d.]+ (ms|s)$/)
    t.equal(await page.locator('.frame').getAttribute('aria-label'), 'Picture: Sneaker, n = 4, seed 5')
    t.equal(new URL(page.url()).hash, '#model=fashion&class=7&n=4&seed=5')

    // Back to step 20, as the slider has it.
    const slider = page.locator('.panel input[type=range]')
    await slider.fill('20')
    t.same((await look(page)).marked, cellsOf(20), 'the slider goes back')
    t.match(await slider.getAttribute('aria-valuetext'), /^Step 20 of 67: 4 cells, at row \d+ column \d+, /)
    t.not((await look(page)).picture, seen.at(-1)!.picture, 'to the preview of that time')
    await page.locator('#marks').uncheck()
    const { marked: none, veiled } = await look(page)
    t.same([none.length, veiled], [0, 0], 'marks can be turned off')
    await page.locator('#marks').check()
    t.same((await look(page)).marked, cellsOf(20))

    await watch(page)
    await page.getByRole('button', { name: 'Replay' }).click()
    await done(page, 1)
    t.ok((await watched(page)).length > 40, 'all steps again')
    t.equal(await pixels(page), hashOf(image.data))
  })

  await test('compare every n of one seed', async (t, opened) => {
    const { page } = await opened({ hash: '#class=7&seed=5' })
    t.equal(await page.locator('#compare').textContent(), 'Compare n = 1, 4, 16')
    await page.click('#compare')
    await page.locator('.panel').nth(2).waitFor()
    t.same(await page.locator('.panel-title').allTextContents(), ['n = 1', 'n = 4', 'n = 16'])
    // The one with the most cells a step is seen to end first.
    await page.locator('.panel[data-state=done] .panel-title', { hasText: 'n = 16' }).waitFor()
    t.equal(await page.locator('.panel').first().getAttribute('data-state'), 'playing')
    await page.click('#stop') // it says Skip by now
    await done(page, 3)
    const progress = await page.locator('.progress').allTextContents()
    for (const [index, n] of [1, 4, 16].entries()) {
      const image = await par.generate({ classId: 7, n, seed: 5 })
      t.match(progress[index], new RegExp(`^${image.steps} steps, [\\d.]+ (ms|s)$`))
      t.equal(await pixels(page, index), hashOf(image.data), `the picture of n = ${n}`)
    }
    t.match(progress.map(text => parseInt(text)), [256, 67, 31])
    t.equal(await page.locator('#history li').count(), 3)
    t.match(await page.locator('#announcer').textContent(),
      /^Done: Sneaker, seed 5\. n = 1: 256 steps, .+; n = 4: 67 steps, .+; n = 16: 31 steps, /)
    const boxes = await Promise.all([0, 1, 2].map(async index => await page.locator('.panel').nth(index).boundingBox()))
    t.equal(new Set(boxes.map(box => box!.y)).size, 1, 'they stand side by side')
  })

  await test('download, copy, history', async (t, opened) => {
    const { page, url } = await opened({
      hash: '#class=7&n=4&seed=5&guidance=2', context: { permissions: ['clipboard-read', 'clipboard-write'] }
    })
    await page.locator('#slow').uncheck()
    await page.click('#draw')
    await done(page, 1)
    const shown = await page.locator('#history img').getAttribute('src')
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('text=Download PNG')])
    t.equal(download.suggestedFilename(), 'sneaker-n4-seed5.png')
    const file = fs.readFileSync(await download.path())
    t.same(file.subarray(0, 8), Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'))
    t.equal(file.toString('base64'), shown!.split(',')[1], 'the bytes that the server sent')
    const { data } = await sharp(file).removeAlpha().toColourspace('srgb').raw().toBuffer({ resolveWithObject: true })
    const image = await par.generate({ classId: 7, n: 4, seed: 5, guidanceScale: 2 })
    t.equal(hashOf(data), hashOf(image.data), 'the picture of the library')

    await page.click('#copy-ts')
    await page.locator('#copy-ts', { hasText: 'Copied' }).waitFor()
    const code = await clipboard(page)
    t.equal(code, `import { Par } from 'parvis'

const par = await Par.load('fashion')
const image = await par.generate({ classId: 'sneaker', n: 4, seed: 5, guidanceScale: 2 })
await image.toFile('sneaker-n4-seed5.png')
`)
    await page.click('#copy-curl')
    await page.locator('#copy-curl', { hasText: 'Copied' }).waitFor()
    const curl = await clipboard(page)
    t.match(curl, `curl '${url}/v1/images/generations' \\\n`)
    t.notMatch(curl, 'Authorization', 'a server without keys needs none')
    const body = /-d '(.*)'\n$/.exec(curl)![1]!
    t.same(JSON.parse(body),
      { model: 'fashion', prompt: 'sneaker', seed: 5, tokens_per_step: 4, guidance_scale: 2 })
    const answer = await fetch(`${url}/v1/images/generations`, {
      method: 'POST', body, headers: { 'content-type': 'application/json' }
    })
    const { data: [made] } = await answer.json() as { data: [{ b64_json: string }] }
    const same = await sharp(Buffer.from(made.b64_json, 'base64')).removeAlpha().toColourspace('srgb').raw().toBuffer()
    t.equal(hashOf(same), hashOf(image.data), 'what the copied command asks for is this picture')
    await page.click('#copy-link')
    await page.locator('#copy-link', { hasText: 'Copied' }).waitFor()
    t.equal(await clipboard(page), `${url}/#model=fashion&class=7&n=4&seed=5&guidance=2`)

    // Another picture, then back.
    await choose(page, 'bag', ['Bag'])
    await page.getByRole('radio', { name: '16' }).check()
    await page.locator('#guidance').fill('')
    await page.click('#new-seed')
    t.not(await page.locator('#seed').inputValue(), '5')
    await page.locator('#renew').check()
    const seedBefore = await page.locator('#seed').inputValue()
    await page.click('#draw')
    await page.locator('#history li').nth(1).waitFor()
    await done(page, 1)
    t.not(await page.locator('#seed').inputValue(), seedBefore, 'a new seed for a new picture')
    t.match(await page.locator('.panel-title').textContent(), /^Bag, n = 16, seed \d+$/)
    const old = page.getByRole('button', { name: 'Sneaker, n = 4, seed 5' })
    t.equal(await old.getAttribute('aria-current'), null)
    await old.click()
    t.equal(await old.getAttribute('aria-current'), 'true')
    t.same([
      await page.locator('#class').inputValue(), await page.locator('#settings [name=n]:checked').inputValue(),
      await page.locator('#seed').inputValue(), await page.locator('#guidance').inputValue(),
      await page.locator('#renew').isChecked(), await page.locator('.panel-title').textContent()
    ], ['Sneaker', '4', '5', '2', false, 'Sneaker, n = 4, seed 5'])
    await until(page, async () => await pixels(page) === hashOf(image.data))
    await page.locator('.panel input[type=range]').fill('10')
    t.equal((await look(page)).marked.length, 4, 'its steps are kept')
    const [again] = await Promise.all([page.waitForEvent('download'), page.click('text=Download PNG')])
    t.same([again.suggestedFilename(), fs.readFileSync(await again.path())], ['sneaker-n4-seed5.png', file])
  })

  await test('a method with steps', async (t, opened) => {
    const { page } = await opened({})
    t.equal(await page.locator('#steps').isVisible(), false)
    await page.locator('#model').selectOption('fashion-arpg')
    t.equal(await page.locator('#n-field').isVisible(), false)
    t.equal(await page.locator('#compare').isVisible(), false)
    t.same([await page.locator('#steps').getAttribute('placeholder'),
      await page.locator('#guidance').getAttribute('placeholder')], ['32', '9'], 'defaults of the model')
    await page.locator('#steps').fill('8')
    await page.locator('#seed').fill('5')
    await choose(page, '9', ['Ankle boot'])
    await page.click('#draw')
    await done(page, 1)
    const arpg = await Par.load('fashion-arpg', { device: 'cpu' })
    t.teardown(() => arpg.dispose())
    const image = await arpg.generate({ classId: 9, steps: 8, seed: 5 })
    t.equal(await pixels(page), hashOf(image.data))
    t.match(await page.locator('.progress').textContent(), /^8 steps, /)
    t.match(await page.locator('#code-ts').textContent(),
      "par.generate({ classId: 'ankle boot', steps: 8, seed: 5 })\nawait image.toFile('ankle-boot-steps8-seed5.png')")
    t.match(await page.locator('#code-curl').textContent(), '"prompt":"ankle boot","seed":5,"steps":8}')
  })

  await test('stop ends the work of the server', async (t, opened) => {
    const engine = new FakeEngine({}, slowly)
    const { page } = await opened({ engine, hash: '#class=3&n=1&seed=9' })
    t.equal(await page.locator('#stop').getAttribute('aria-disabled'), 'true')
    await page.click('#draw')
    await until(page, async () => (await look(page)).step >= 5)
    t.equal(await page.locator('#stop').getAttribute('aria-disabled'), 'false')
    await page.click('#stop')
    await page.locator('.panel[data-state=stopped]').waitFor()
    await until(page, async () => engine.aborted.length === 1)
    t.match(await page.locator('.progress').textContent(), /^Stopped\. Step \d+ of 256, /)
    t.match(await page.locator('#announcer').textContent(), /^Stopped at step \d+ of 256$/)
    t.equal(await page.locator('#alert').textContent(), '', 'that is no error')
    const { step } = await look(page)
    await page.locator('.panel input[type=range]').focus()
    await page.keyboard.press('End')
    t.equal((await look(page)).step, step, 'the slider ends where the drawing did')
    await page.keyboard.press('ArrowLeft')
    t.same((await look(page)).marked, [step - 2], 'and goes back from there')
    t.equal(await page.locator('#stop').getAttribute('aria-disabled'), 'true')
    t.equal(await page.locator('#history li').count(), 0)
    t.same(engine.requests.map(({ classId, seed, options }) => [classId, seed, options]), [[3, 9, { n: 1 }]])
    // Drawing anew ends what runs, too.
    await page.click('#draw')
    await until(page, async () => engine.requests.length === 2)
    await page.click('#draw')
    await until(page, async () => engine.requests.length === 3 && engine.aborted.length === 2)
    t.equal(await page.locator('#stop').getAttribute('aria-disabled'), 'false')
    await page.click('#stop')
    await until(page, async () => engine.aborted.length === 3)
  })

  await test('errors say what to do', async (t, opened) => {
    const { page, app } = await opened({ hash: '#class=7&seed=5' }, [/status of 400/, /ERR_CONNECTION_REFUSED/])
    await page.locator('#slow').uncheck()
    await page.click('#draw')
    await done(page, 1)
    const alert = page.getByRole('alert')
    await page.locator('#class').fill('99')
    await page.click('#draw')
    await alert.locator('strong').waitFor()
    t.equal(await alert.textContent(),
      'There is no class 99: class ids of this model are 0 to 9. Choose a class from the list.')
    t.equal(await page.locator('#class').getAttribute('aria-invalid'), 'true')
    t.ok(await hasFocus(page, '#class'), 'the field has the focus')
    t.equal(await page.locator('.panel-title').textContent(), 'Sneaker, n = 4, seed 5', 'the picture stays')

    await choose(page, 'coat', ['Coat'])
    await page.locator('#seed').fill('1.5')
    await page.click('#draw')
    t.equal(await alert.textContent(), 'The seed must be a whole number from 0 to 9007199254740991.')
    t.equal(await page.locator('#class').getAttribute('aria-invalid'), null, 'the other field is right now')
    t.equal(await page.locator('#seed').getAttribute('aria-invalid'), 'true')
    await page.locator('#seed').fill('5')
    await page.click('#draw')
    await page.locator('.panel-title', { hasText: 'Coat' }).waitFor()
    await done(page, 1)
    t.equal(await alert.textContent(), '', 'it goes with the next picture')

    await app.close()
    await page.click('#draw')
    await alert.locator('strong').waitFor()
    t.match(await alert.textContent(), /^The server cannot be reached\. See whether it still runs/)
    t.equal(await page.locator('#stop').getAttribute('aria-disabled'), 'true')
  })

  await test('a line, and an error while it draws', async (t, opened) => {
    let go = (): void => {}
    const engine = new FakeEngine({}, async listener => {
      listener.queued?.(3)
      await new Promise<void>(resolve => { go = resolve })
      listener.step?.({ step: 1, steps: 67, cells: [0], ms: 1 })
      throw new EngineError('QUEUE_UNAVAILABLE', 'No worker is there <b>any more</b>')
    })
    const { page } = await opened({ engine, hash: '#seed=1' })
    await page.click('#draw')
    await page.locator('.progress', { hasText: 'Waiting: number 3 in the line' }).waitFor()
    go()
    await page.getByRole('alert').locator('strong').waitFor()
    t.match(await page.getByRole('alert').textContent(), /^No worker is there <b>any more<\/b>.* Wait a little, /)
    t.equal(await page.getByRole('alert').locator('b').count(), 0, 'what the server says is text')
    t.match(await page.locator('.progress').textContent(), /^Failed\. Step 1 of 67/)
  })

  await test('a key is asked for, kept, and never shown', async (t, opened) => {
    const key = 'right-key-4711'
    const { page, url } = await opened({
      apiKeys: [key], hash: '#class=7&n=16&seed=5', context: { permissions: ['clipboard-read', 'clipboard-write'] }
    }, [/status of 401/])
    t.equal(await page.locator('#app').isVisible(), false)
    t.equal(await page.getByRole('alert').textContent(), '', 'nobody has done anything wrong yet')
    await page.getByLabel('Key', { exact: true }).fill('wrong')
    await page.keyboard.press('Enter')
    await page.getByRole('alert').locator('strong').waitFor()
    t.match(await page.getByRole('alert').textContent(), 'The server does not accept this key.')
    t.ok(await hasFocus(page, '#key'))
    t.equal(await page.locator('#app').isVisible(), false)
    await page.getByLabel('Key', { exact: true }).fill(key)
    await page.getByRole('button', { name: 'Use this key' }).click()
    await page.locator('#app').waitFor()
    t.equal(await page.locator('#key-form').isVisible(), false)
    t.equal(await page.getByRole('alert').textContent(), '')
    await page.click('#draw')
    await done(page, 1)
    t.match(await page.locator('.progress').textContent(), /^31 steps/)
    await page.click('#copy-curl')
    await page.locator('#copy-curl', { hasText: 'Copied' }).waitFor()
    t.match(await clipboard(page), '-H "Authorization: Bearer $PARVIS_API_KEY"')
    for (const text of [await clipboard(page), await page.content(), page.url()]) t.notMatch(text, key)
    await page.reload()
    await page.locator('#app').waitFor()
    t.pass('the tab keeps the key')
    const other = await page.context().newPage()
    await other.goto(url)
    await other.locator('#key-form').waitFor()
    t.pass('another tab does not have it')
  })

  await test('the keyboard alone', async (t, opened) => {
    const { page } = await opened({})
    await page.keyboard.press('Tab')
    t.equal(await focused(page), 'Skip to the picture')
    await tabTo(t, page, '#class')
    const list = page.locator('#class-list')
    await page.keyboard.type('s')
    t.equal(await page.locator('#class').getAttribute('aria-expanded'), 'true')
    t.same(await options(page), ['Sandal', 'Shirt', 'Sneaker', 'T-shirt/top', 'Trouser', 'Dress'])
    t.equal(await active(page), 'Sandal', 'the first is proposed')
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowDown')
    t.equal(await active(page), 'Sneaker')
    await page.keyboard.press('ArrowUp')
    t.equal(await active(page), 'Shirt')
    await page.keyboard.press('Escape')
    t.equal(await list.isVisible(), false)
    t.equal(await page.locator('#class').getAttribute('aria-activedescendant'), null)
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowUp')
    t.equal(await active(page), 'Dress', 'from the first to the last')
    await page.keyboard.press('ArrowUp')
    await page.keyboard.press('ArrowUp')
    await page.keyboard.press('ArrowUp')
    await page.keyboard.press('Enter')
    t.equal(await page.locator('#class').inputValue(), 'Sneaker')
    t.equal(await list.isVisible(), false)
    t.equal(await page.locator('#history li').count(), 0, 'that Enter chose, and did not draw')
    t.equal(await page.locator('#class-list [aria-selected=true]').getAttribute('data-id'), '7')
    await tabTo(t, page, '[name=n]')
    await page.keyboard.press('ArrowRight')
    t.equal(await page.locator('#settings [name=n]:checked').inputValue(), '16')
    await tabTo(t, page, '#seed')
    await page.keyboard.press('Control+A')
    await page.keyboard.type('5')
    await tabTo(t, page, '#draw')
    await page.keyboard.press('Enter')
    await done(page, 1)
    t.equal(await page.locator('.panel-title').textContent(), 'Sneaker, n = 16, seed 5')
    t.equal(await focused(page), 'Draw', 'the focus stays')
    await tabTo(t, page, '#compare')
    await page.keyboard.press('Space')
    await page.locator('.panel').nth(2).waitFor()
    await tabTo(t, page, '#stop')
    await page.locator('#stop', { hasText: 'Skip' }).waitFor()
    await page.keyboard.press('Enter')
    await done(page, 3)
    await tabTo(t, page, '#marks')
    await page.keyboard.press('Space')
    await page.keyboard.press('Space')
    await tabTo(t, page, '.panel:nth-child(3) input[type=range]')
    await page.keyboard.press('Home')
    await page.keyboard.press('ArrowRight')
    await page.keyboard.press('ArrowRight')
    t.same([(await look(page, 2)).step, (await look(page, 2)).marked.length], [2, 1])
    await tabTo(t, page, '.panel:nth-child(3) a')
    const [download] = await Promise.all([page.waitForEvent('download'), page.keyboard.press('Enter')])
    t.equal(download.suggestedFilename(), 'sneaker-n16-seed5.png')
    await tabTo(t, page, '#code-ts')
    await tabTo(t, page, '#history li:nth-child(2) button')
    await page.keyboard.press('Enter')
    t.equal(await page.locator('.panel-title').textContent(), 'Sneaker, n = 4, seed 5')
    t.match(await focused(page), 'Sneaker, n = 4, seed 5')
    // From the class, Enter draws.
    await page.locator('#class').focus()
    await page.keyboard.press('Enter')
    await page.locator('#history li').nth(4).waitFor()
  })

  await test('a thousand classes, and a model without names', async (t, opened) => {
    const labels = [...imagenetLabels()]
    const { page } = await opened({ engine: new FakeEngine({ labels }), hash: '#seed=5' })
    await page.locator('#class').click()
    t.equal(await page.locator('[role=option]').count(), 1000)
    await page.keyboard.type('otter')
    t.same(await options(page), ['otter', 'otterhound, otter hound', "potter's wheel"], 'the best first')
    await page.locator('#class').fill('crane')
    t.equal((await options(page))[0], labels[134])
    const took = await page.evaluate<number>(`['a', 'ap', 'a', '', 'e', 'er', 'e', ''].map(text => {
      const input = document.querySelector('#class')
      const started = performance.now()
      input.value = text
      input.dispatchEvent(new Event('input', { bubbles: true }))
      document.querySelector('#class-list').getBoundingClientRect() // with its layout
      return performance.now() - started
    }).sort((a, b) => a - b)[4]`)
    t.ok(took < 300, `a letter takes ${took.toFixed(0)} ms`)
    // Two classes have this name, so code has the number; one of several names of its own is enough.
    await choose(page, '517', [labels[517]!])
    t.match(await page.locator('#code-ts').textContent(), 'classId: 517,')
    await choose(page, 'tinca', [labels[0]!])
    t.equal(await page.locator('#class').inputValue(), 'tench, Tinca tinca')
    t.match(await page.locator('#code-ts').textContent(), "classId: 'tench', n: 4, seed: 5 })")
    t.match(await page.locator('#code-ts').textContent(), "'tench-n4-seed5.png'")

    const engine = new FakeEngine({}, slowly)
    const { page: other } = await opened({ engine })
    t.equal(await other.locator('#class').getAttribute('role'), null, 'without names it is a plain field')
    t.match(await other.locator('#class-hint').textContent(), 'from 0 to 999')
    await other.locator('#class').fill('207')
    await other.keyboard.press('Enter')
    await until(other, async () => engine.requests.length === 1)
    t.equal(engine.requests[0]!.classId, 207)
    await other.click('#stop')
    await until(other, async () => engine.aborted.length === 1)
  })

  await test('what a server sends is text', async (t, opened) => {
    const evil = '<img src="/nowhere" onerror="document.title=\'taken\'">'
    const labels = [evil, "it's 'quoted' \\ $(id)", '<script>document.title="taken"</script>']
    const { page } = await opened({ engine: new FakeEngine({ name: evil, labels, classes: 3 }, slowly) })
    await page.locator('#class').click()
    t.same(await options(page), labels)
    await page.locator('[role=option]').first().click()
    await page.click('#draw')
    await until(page, async () => (await look(page)).step >= 2)
    await page.click('#stop')
    t.match(await page.locator('.panel-title').textContent(), evil)
    t.equal(await page.locator('#app img, #app script').count(), 0)
    t.equal(await page.title(), 'parvis')
    await choose(page, 'quoted', [labels[1]!])
    t.match(await page.locator('#code-ts').textContent(), "classId: 'it\\'s \\'quoted\\' \\\\ $(id)'")
    const command = (await page.locator('#code-curl').textContent())!
    const body = /-d '(.*)'\n$/.exec(command)![1]!.replaceAll("'\\''", "'")
    t.equal(JSON.parse(body).prompt, labels[1]!, 'a shell gives curl what was meant')
    t.notMatch(command.replaceAll("'\\''", '').replace(/'[^']*'/g, ''), '$', 'and nothing of it is run')
  })

  await test('little motion', async (t, opened) => {
    const { page } = await opened({ hash: '#class=7&n=4&seed=5', context: { reducedMotion: 'reduce' } })
    t.equal(await page.locator('#slow').isChecked(), false)
    await watch(page)
    await page.click('#draw')
    await done(page, 1)
    t.ok((await watched(page)).length < 6, 'the steps do not flicker by')
  })

  await test('axe-core finds nothing serious', async (t, opened) => {
    const source = fs.readFileSync(path.join(root, 'node_modules', 'axe-core', 'axe.min.js'), 'utf8')
    const check = async (page: Page, what: string): Promise<void> => {
      await page.evaluate(`globalThis.axe ?? (() => { ${source} })()`)
      const { violations, passes } = await page.evaluate<AxeResults>("axe.run({ resultTypes: ['violations'] })")
      t.ok(passes.length > 15, `axe-core looked at ${passes.length} things: ${what}`)
      t.same(violations.filter(({ impact }) => impact === 'serious' || impact === 'critical')
        .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' | ')}`), [], what)
    }
    for (const colorScheme of ['light', 'dark'] as const) {
      for (const width of [1280, 320]) {
        const where = `${colorScheme}, ${width} px`
        const { page } = await opened({
          hash: '#class=7&seed=5', context: { colorScheme, viewport: { width, height: 700 }, bypassCSP: true }
        }, [/status of 400/])
        const fits = async (): Promise<void> => {
          t.equal(await page.evaluate('document.documentElement.scrollWidth'), width, `${where}: nothing sticks out`)
        }
        await page.locator('#class').click()
        await check(page, `${where}: the list is open`)
        await page.keyboard.press('Escape')
        await page.click('#draw')
        await until(page, async () => (await look(page)).step >= 8)
        await check(page, `${where}: it draws`)
        await page.locator('#slow').uncheck()
        await page.click('#compare')
        await done(page, 3)
        await check(page, `${where}: it is compared`)
        await fits()
        await page.locator('#class').fill('99')
        await page.click('#draw')
        await page.getByRole('alert').locator('strong').waitFor()
        await check(page, `${where}: an error`)
        await fits()
        const { page: locked } = await opened({
          apiKeys: ['key'], context: { colorScheme, viewport: { width, height: 700 }, bypassCSP: true }
        }, [/status of 401/])
        await check(locked, `${where}: a key is asked for`)
      }
    }
  })
})

// ---- what the page shows

/** Types into the class search; the list must have these, and the first is taken. */
async function choose (page: Page, text: string, expected: string[]): Promise<void> {
  await page.locator('#class').fill(text)
  const found = await options(page)
  if (found.join() !== expected.join()) throw new Error(`Found ${found.join()} for ${text}`)
  await page.keyboard.press('Enter')
}

/** Names in the list, without their numbers. */
const options = async (page: Page): Promise<string[]> =>
  await page.locator('#class-list [role=option] > span:first-child').allTextContents()

const active = async (page: Page): Promise<string | null> => {
  const id = await page.locator('#class').getAttribute('aria-activedescendant')
  return await page.locator(`[id="${id}"] > span:first-child`).textContent()
}

const focused = async (page: Page): Promise<string> =>
  await page.evaluate('document.activeElement.querySelector("img")?.alt ?? document.activeElement.textContent')

const hasFocus = async (page: Page, selector: string): Promise<boolean> =>
  await page.evaluate(`document.activeElement.matches(${JSON.stringify(selector)})`)

/** Presses Tab until the focus is there, and sees that every focus on the way is visible. */
async function tabTo (t: Test, page: Page, selector: string): Promise<void> {
  for (let pressed = 0; pressed < 60; pressed++) {
    const [what, isVisible] = await page.evaluate<[string, boolean]>(`(element => {
      const { outlineStyle, outlineWidth } = getComputedStyle(element)
      return [element.outerHTML.slice(0, 80),
        element === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)]
    })(document.activeElement)`)
    if (!isVisible) t.fail(`The focus cannot be seen on ${what}`)
    if (await hasFocus(page, selector)) return
    await page.keyboard.press('Tab')
  }
  throw new Error(`Tab does not reach ${selector}`)
}

const clipboard = async (page: Page): Promise<string> => await page.evaluate('navigator.clipboard.readText()')

async function until (page: Page, test: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!await test()) {
    if (Date.now() > deadline) throw new Error(`It has not come: ${test}`)
    await page.waitForTimeout(20)
  }
}

/** So many panels, all of them finished. */
async function done (page: Page, panels: number): Promise<void> {
  await until(page, async () => await page.locator('.panel').count() === panels &&
    await page.locator('.panel[data-state=done]').count() === panels)
}

/** A hash of pixels: two of these are compared much sooner than thousands of numbers. */
const hashOf = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex')

/** The hash of the RGB pixels of a panel's picture. */
async function pixels (page: Page, index = 0): Promise<string> {
  const all = await page.evaluate<number[]>(`(canvas =>
    [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]
  )(document.querySelectorAll('.picture')[${index}])`)
  return hashOf(Uint8Array.from(all.filter((_, i) => i % 4 !== 3)))
}

/** Looks at a panel as somebody does: what is under the marks, which cells are marked, which are covered. */
const lookAt = `(index => {
  const panel = document.querySelectorAll('.panel')[index]
  const [picture, overlay] = panel.querySelectorAll('canvas')
  const [rows, columns] = panel.querySelector('.frame').dataset.grid.split(' ').map(Number)
  const { width, height } = overlay
  const { data } = overlay.getContext('2d').getImageData(0, 0, width, height)
  const marked = []
  let veiled = 0
  for (let cell = 0; cell < rows * columns; cell++) {
    const x = Math.floor((cell % columns + 0.5) * width / columns)
    const y = Math.floor((Math.floor(cell / columns) + 0.5) * height / rows)
    const [red, , blue, alpha] = data.slice(4 * (y * width + x), 4 * (y * width + x) + 4)
    if (alpha > 150 && red > 200 && blue < 80) marked.push(cell)
    else if (alpha > 150) veiled++
  }
  return {
    step: Number(panel.dataset.step), text: panel.querySelector('.progress').textContent,
    picture: picture.toDataURL(), marked, veiled
  }
})`
const look = async (page: Page, index = 0): Promise<Seen> => await page.evaluate(`${lookAt}(${index})`)

/** Looks at the first panel whenever its step changes, from now on. */
async function watch (page: Page): Promise<void> {
  await page.evaluate(`{
    const seen = globalThis.seen = []
    globalThis.observer?.disconnect()
    globalThis.observer = new MutationObserver(() => {
      const now = ${lookAt}(0)
      if (seen.at(-1)?.step !== now.step) seen.push(now)
    })
    observer.observe(document.querySelector('#panels'), {
      subtree: true, childList: true, attributes: true, attributeFilter: ['data-step']
    })
  }`)
}
const watched = async (page: Page): Promise<Seen[]> => await page.evaluate('seen')
