// parvis sample --queue: the pictures of a run from workers, with the bytes of a run on one machine.

import fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { LocalEngine } from '../../server/lib/local.js'
import { QueueWorker } from '../../server/lib/worker.js'
import { parvis, temporaryFolder } from '../cli/run.js'
import { built } from '../support/built.js'
import { RedisServer } from './redis-server.js'

t.test('samples from a queue', async t => {
  await built()
  const redis = await RedisServer.start()
  const engine = await LocalEngine.open({ models: ['fashion'], device: 'cpu', precision: 'float32', hash: true })
  const worker = await QueueWorker.open({ url: redis.url, engine })
  t.teardown(async () => { await worker.close(); await engine.close(); await redis.end() })
  const folder = temporaryFolder()
  const at = (name: string): string => path.join(folder, name)
  const env = { PARVIS_REDIS_PASSWORD: redis.password }
  const queue = ['--queue', `redis://127.0.0.1:${redis.port}`]
  const common = ['--count', '40', '--seed', '7', '-n', '16', '--guidance-scale', '1.5', '--json']
  const picturesOf = (name: string): Array<[string, string]> => fs.readdirSync(at(name))
    .filter(file => file.endsWith('.png')).sort().map(file => [file, fs.readFileSync(at(`${name}/${file}`), 'base64')])

  const alone = await parvis(['sample', ...common, '--device', 'cpu', '--precision', 'float32', '--out', at('alone/')])
  t.equal(alone.code, 0, alone.stderr)
  const queued = await parvis(['sample', ...common, ...queue, '--out', at('queued/')], { env })
  t.equal(queued.code, 0, queued.stderr)
  t.match(JSON.parse(queued.stdout), { pictures: 40, made: 40, n: 16 })
  t.equal(picturesOf('alone').length, 40)
  t.same(picturesOf('queued'), picturesOf('alone'), 'the bytes of a run on one machine')

  for (const file of picturesOf('queued').slice(25)) fs.rmSync(at(`queued/${file[0]}`))
  const rest = await parvis(['sample', ...common, ...queue, '--out', at('queued/')], { env })
  t.match(JSON.parse(rest.stdout), { pictures: 40, made: 15 }, 'the same command continues it')
  t.same(picturesOf('queued'), picturesOf('alone'))

  const npz = await parvis(
    ['sample', ...common, ...queue, '--labels', 'balanced', '--size', '48', '--out', at('a.npz')], { env })
  t.equal(npz.code, 0, npz.stderr)
  t.ok(fs.statSync(at('a.npz')).size > 40 * 48 * 48 * 3)

  const refused: Array<[string[], RegExp]> = [
    [['--precision', 'float32'], /--precision is decided by the workers/],
    [['--transformer', 'x.pt'], /--transformer is decided by the workers/],
    [['--model', 'other'], /no worker serves other; served are fashion/]
  ]
  for (const [args, message] of refused) {
    const { code, stderr } = await parvis(['sample', ...common, ...queue, ...args, '--out', at('no/')], { env })
    t.match(stderr, message, args.join(' '))
    t.equal(code, 2)
  }
  const wrong = await parvis(['sample', ...common, ...queue, '--out', at('no/')],
    { env: { PARVIS_REDIS_PASSWORD: 'not-the-password' } })
  t.match(wrong.stderr, /QUEUE_UNAVAILABLE/)
  t.notMatch(wrong.stderr, /not-the-password/)
  t.ok(wrong.code! > 0)
})
