// A thousand requests, of which a third are cut off, malformed, too large or over the limit: every answer has its type,
// the rest are the bytes of pictures made alone, no seat is lost, and memory stays level.

import type { AddressInfo } from 'node:net'
import sharp from 'sharp'
import t from 'tap'
import { Par } from '../../lib/index.js'
import { createServer } from '../../server/lib/server.js'
import { LocalEngine } from '../../server/lib/local.js'
import { Random } from '../fuzz/harness.js'

const turn = async (ms = 0): Promise<void> => { await new Promise(resolve => setTimeout(resolve, ms)) }
const common = { device: 'cpu', precision: 'float32' } as const
const kinds = 20
const total = 1000

t.test('a thousand requests', async t => {
  const par = await Par.load(common)
  const alone: Buffer[] = []
  for (let i = 0; i < kinds; i++) {
    alone.push(Buffer.from((await par.generate({ classId: i % 10, seed: i, n: i % 2 === 0 ? 16 : 4 })).data))
  }
  await par.dispose()
  const engine = await LocalEngine.open({ models: ['fashion'], maxQueueSize: 12, maxBatchSize: 16, ...common })
  const app = createServer({ engine, maxBodyBytes: 4096 })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(async () => { await app.close(); await engine.close() })
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/v1/images/generations`
  const random = new Random(11)
  const counts: Record<string, number> = {}
  const wrong: string[] = []
  const count = (what: string): void => { counts[what] = (counts[what] ?? 0) + 1 }

  const post = async (body: string, signal?: AbortSignal): Promise<Response> => await fetch(url, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body, ...(signal && { signal })
  })
  const expectFailure = async (response: Response, status: number, code: string): Promise<void> => {
    const { error } = await response.json() as { error?: { code?: string, message?: string, type?: string } }
    count(`${response.status} ${error?.code}`)
    if (response.status === 429 && error?.code === 'queue_full' && response.headers.get('retry-after')) {
      await turn(100)
      return
    }
    if (response.status !== status || error?.code !== code || !error.message || !error.type) {
      wrong.push(`${response.status} ${JSON.stringify(error)}`)
    }
  }
  const one = async (k: number): Promise<void> => {
    const i = k % kinds
    const body = JSON.stringify({
      prompt: i % 10, seed: i, tokens_per_step: i % 2 === 0 ? 16 : 4, ...(k % 7 === 0 && { stream: true })
    })
    if (k % 3 !== 0) {
      const response = await post(body)
      if (response.status !== 200) return await expectFailure(response, 429, 'queue_full')
      count('200')
      const text = await response.text()
      const b64 = k % 7 === 0
        ? (JSON.parse(/^data: (.*completed.*)$/m.exec(text)![1]!) as { b64_json: string }).b64_json
        : (JSON.parse(text) as { data: Array<{ b64_json: string }> }).data[0]!.b64_json
      const pixels = await sharp(Buffer.from(b64, 'base64')).removeAlpha().raw().toBuffer()
      if (!pixels.equals(alone[i]!)) wrong.push(`picture ${k} has other bytes`)
      return
    }
    switch (random.int(4)) {
      case 0: {
        const controller = new AbortController()
        setTimeout(() => { controller.abort() }, random.int(60))
        return await post(body, controller.signal).then(async response => {
          await response.text()
          count('done before it was cut off')
        }).catch(() => { count('cut off') })
      }
      case 1:
        return await expectFailure(await post(body.slice(0, 1 + random.int(body.length - 2))), 400, 'bad_request')
      case 2: return await expectFailure(await post(`{"prompt":"${'x'.repeat(5000)}"}`), 413, 'body_too_large')
      default: return await expectFailure(await post('{"prompt":"bag","n":99}'), 400, 'invalid_value')
    }
  }

  const memory: number[] = []
  let next = 0
  const client = async (): Promise<void> => {
    while (next < total) {
      const k = next++
      await one(k)
      if (k % 50 === 49) memory.push(process.memoryUsage().rss)
    }
  }
  await Promise.all(Array.from({ length: 20 }, client))
  t.comment(JSON.stringify(counts))
  t.same(wrong, [])
  t.equal(Object.values(counts).reduce((a, b) => a + b), total, 'each has one answer')
  const codes = ['200', 'cut off', '400 bad_request', '413 body_too_large', '400 invalid_value', '429 queue_full']
  for (const code of codes) {
    t.ok(counts[code]! > 10, `${code}: ${counts[code]}`)
  }
  for (let tries = 0; tries < 200 && (await engine.load('fashion')).running > 0; tries++) await turn(10)
  const { waiting, running, seats } = await engine.load('fashion')
  t.same({ waiting, running, seats }, { waiting: 0, running: 0, seats: 0 }, 'no seat is lost')
  const half = memory.length >> 1
  const most = (list: number[]): number => Math.max(...list) / 2 ** 20
  const [early, late] = [most(memory.slice(2, half)), most(memory.slice(half))]
  t.ok(late < early * 1.15 + 20, `memory: ${early.toFixed(0)} MB, then ${late.toFixed(0)} MB`)
})
