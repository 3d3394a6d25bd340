// The peers: a stand-in in Python's place that answers, dies, is silent or talks nonsense; and the real programs where
// this machine has PyTorch.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { findTorch, Peer, Peers, peersOf, type PeerProgram } from '../../lib/bench/peers.js'
import { root } from '../cli/run.js'

/** A program of one line of JavaScript; `line` is the command, `say` answers. */
const program = (body: string, name = 'eager'): PeerProgram => ({
  name, python: process.execPath,
  args: ['-e', "const say = text => process.stdout.write(text + '\\n'); require('readline').createInterface({ " +
    `input: process.stdin }).on('line', line => { ${body} })`]
})
const ours = { median: 2, least: 1, greatest: 3 }

t.test('answers, and what is said beside them', async t => {
  const said: string[] = []
  const peer = new Peer(program(
    "say('doing tuning'); say('compiled 43000.5'); say('note each layer'); say(line === 'a' ? '100' : '1e2')"
  ), text => said.push(text))
  t.teardown(() => peer.end())
  t.equal(await peer.ask('a', 20000), 100)
  await peer.time('b', 2, 20000)
  t.same(peer.times, [100, 100])
  t.match(said, ['eager: tuning'])
  t.match(peer.result('bfloat16', ours, 10),
    {
      name: 'eager', precision: 'bfloat16', ms: { median: 10 }, ratio: 5, ratioOfLeast: 10, compileMs: 43000.5,
      notes: ['each layer']
    })
  t.notOk('threads' in peer.result('bfloat16', ours)!)
})

t.test('what goes wrong is a sentence, and the others go on', async t => {
  const wrong: Array<[body: string, reason: RegExp, limit?: number]> = [
    ["process.stderr.write('Traceback\\nImportError: no torch\\n'); process.exit(3)",
      /^The program ended with exit code 3: ImportError: no torch$/],
    ["process.kill(process.pid, 'SIGKILL')", /^The program ended by SIGKILL$/],
    ['', /^The program did not answer "picture bfloat16" within 1 s; more --seconds/, 1000],
    ["say('doing nothing')", /^The program did not answer/, 1000],
    ["say('Loading weights...')", /^The program answered "Loading weights\.\.\." instead of milliseconds$/],
    ["say('')", /answered "" instead/], ["say('-1')", /answered "-1"/], ["say('NaN')", /answered "NaN"/],
    ["say('compiled soon')", /answered "compiled soon"/],
    ["say('cannot PyTorch finds no CUDA device.')", /^PyTorch finds no CUDA device$/]
  ]
  for (const [body, reason, limit = 20000] of wrong) {
    const peers = new Peers([program(body), program("say('5')", 'compiled')])
    for (const peer of peers.alive) {
      await peer.ask('picture bfloat16', limit === 1000 && peer.name === 'compiled' ? 20000 : limit)
    }
    t.same(peers.alive.map(({ name }) => name), ['compiled'], body)
    for (const peer of peers.alive) await peer.time('picture bfloat16', 2, 20000, false)
    t.same(peers.results('bfloat16', ours).map(({ name, ms }) => [name, ms.median]), [['compiled', 5]])
    t.match(peers.notRun('L, n = 4'), [{ what: 'PyTorch, eager: L, n = 4', reason }])
    t.equal(peers.notRun('').length, 1)
    peers.end()
  }
  // One that fails half-way has no row.
  const late = new Peer(program('say(globalThis.second ? "?" : "7"); globalThis.second = true'))
  await late.time('a', 3, 20000)
  t.equal(late.result('bfloat16', ours), undefined)
  t.ok(Number.isNaN(await late.ask('a', 20000)), 'it is not asked again')
  const none = new Peer({ name: 'none', python: path.join(root, 'no-such-python'), args: [] })
  await none.ask('a', 20000)
  t.match(none.failure, /^The program could not be started: .*ENOENT/)
})

t.test('its processes end with it', { skip: process.platform === 'win32' && 'no process groups' }, async t => {
  const peer = new Peer(program(
    "const child = require('child_process').spawn('sleep', ['60'], { stdio: 'ignore' }); say(String(child.pid))"
  ))
  const pid = await peer.ask('start', 20000)
  process.kill(pid, 0)
  peer.end()
  const gone = (): boolean => {
    try {
      process.kill(pid, 0)
      return fs.existsSync(`/proc/${pid}/stat`) && / Z /.test(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))
    } catch {
      return true
    }
  }
  for (let i = 0; i < 100 && !gone(); i++) await sleep(50)
  t.ok(gone())
})

t.test('which there are', async t => {
  const torch = { python: 'python3', version: '2.5.1', threads: 7, cpu: 'decode.py', gpu: 'gpu.py', authors: '/par' }
  t.same(peersOf(torch, 'cpu', 'L', 4, 1).map(({ name, threads }) => [name, threads]),
    [['1 thread', 1], ['7 threads', 7], ["authors' code", 1]])
  t.same(peersOf(torch, 'cpu', 'L', 4, 7).map(({ name }) => name), ['7 threads', "authors' code"])
  t.same(peersOf(torch, 'cuda:1', 'L', 4, 0, 90.5).map(({ name, args }) => [name, args.slice(1).join(' ')]), [
    ['eager', '--serve eager --models L --n 4 --device cuda:1 --seconds 90'],
    ['compiled', '--serve compiled --models L --n 4 --device cuda:1 --seconds 90'],
    ["authors' code", '/par L 4 --device cuda:1']
  ])
  t.same(peersOf({ ...torch, cpu: undefined, gpu: undefined, authors: undefined }, 'cuda:0', 'L', 4, 0), [])
})

t.test("a folder that is not the authors' checkout", async t => {
  const folder = t.testdir({ half: { autoregressive: { models: { 'gpt.py': '' } } } })
  await t.rejects(findTorch({ authors: path.join(folder, 'none') }),
    { code: 'FILE_NOT_FOUND', message: /none: there is no such folder/ })
  await t.rejects(findTorch({ authors: folder }),
    {
      code: 'INVALID_OPTION',
      message: /no checkout of the authors' code.*autoregressive\/models\/gpt\.py was looked for/
    })
  await t.rejects(findTorch({ authors: path.join(folder, 'half') }),
    { code: 'INVALID_OPTION', message: /models\/generate\.py was looked for/ })
})

t.test('the programs themselves', async t => {
  const torch = await findTorch()
  const skip = torch ? false : 'no python3 here imports torch'
  /** Asked one by one; the answers, and what is said beside them. */
  const talk = async (args: string[], commands: string[]): Promise<{ answers: number[], peer: Peer }> => {
    const peer = new Peer({ name: 'it', python: torch!.python, args })
    t.teardown(() => peer.end())
    const answers = []
    for (const command of commands) answers.push(await peer.ask(command, 120000))
    return { answers, peer }
  }
  const file = (name: string): string => path.join(root, 'bench', 'torch', name)
  const good = (answers: readonly number[]): boolean => answers.every(ms => ms > 0)

  await t.test('decode.py', { skip }, async t => {
    const { answers, peer } = await talk([file('decode.py'), 'B', '4', '1'],
      ['step bfloat16 4', 'step bfloat16 8', 'vq 4'])
    t.ok(good(answers), String(peer.failure))
    await peer.ask('step int8 4', 120000)
    t.match(peer.failure, /^It failed with \w+: /)
  })
  await t.test('gpu.py, two layers on the CPU', { skip }, async t => {
    for (const variant of ['eager', 'compiled']) {
      const { answers, peer } = await talk([file('gpu.py'), '--serve', variant, '--models', 'B', '--n', '16',
        '--check'], ['picture float32', 'picture float32']) // bfloat16 takes a minute where no instruction is for it
      t.ok(good(answers), String(peer.failure))
      peer.times.push(...answers)
      t.equal('compileMs' in peer.result('float32', ours)!, variant === 'compiled')
    }
    const { peer } = await talk(
      [file('gpu.py'), '--serve', 'eager', '--models', 'B', '--n', '16', '--device', 'cuda:99'], ['picture bfloat16']
    )
    t.type(peer.failure, 'string', 'no such device')
  })
  await t.test('authors.py, on a stand-in for their checkout that prints', { skip }, async t => {
    // Not theirs: the names that authors.py uses, with the least behind them that answers.
    const folder = t.testdir({
      autoregressive: {
        models: {
          'gpt.py': `
import torch
print("on standard output")
class Transformer(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        assert sizes == dict(vocab_size=16384, block_size=576, num_classes=1000, cls_token_num=1, model_type="c2i", spe_token_num=3, ar_token_num=4), sizes
        self.output = torch.nn.Linear(2, 2)
    def setup_caches(self, max_batch_size, max_seq_length, dtype):
        print(max_batch_size, max_seq_length, dtype)
GPT_models = {"GPT-B": Transformer}`,
          'generate.py': `
import torch._dynamo.config
import torch._inductor.config
def prefill(model, classes, at, scale, **sampling):
    assert classes.tolist() == [207, 1000] and at.tolist() == [0]
def decode_one_token_multi(model, ids, at, scale, guided, spe_token_num, **sampling):
    assert ids.shape == (1, 4) and at[0] % 4 == 0 and len(at) == 4 and spe_token_num == 4
    return ids, None`
        }
      }
    })
    const { answers, peer } = await talk([file('authors.py'), folder, 'B', '4'],
      ['step bfloat16 0', 'step bfloat16 288', 'step float32 4'])
    t.ok(good(answers), String(peer.failure))
    const later = await talk([file('authors.py'), folder, 'B', '4'], ['vq 8'])
    t.match(later.peer.failure, /^tokenizer\.tokenizer_image\.vq_model of .* cannot be imported: ModuleNotFoundError/)
    const other = await talk([file('authors.py'), folder, 'B', '1'], ['step bfloat16 0'])
    t.match(other.peer.failure, /^It failed with AssertionError/)
    t.same(fs.readdirSync(path.join(folder, 'autoregressive', 'models')).sort(), ['generate.py', 'gpt.py'],
      'nothing is left in it')
  })
})
