// Help, version, wrong usage, and a reader that closes early: what the command line says before any model runs.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { bin, parvis, root, temporaryFolder } from './run.js'

const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string }

t.test('version and help', async t => {
  t.match(await parvis(['--version']), { code: 0, stdout: `parvis ${version}\n`, stderr: '' })
  for (const args of [['-V'], ['-v'], ['version']]) {
    t.match(await parvis(args), { code: 0, stdout: `parvis ${version}\n`, stderr: '' })
  }
  for (const args of [['version', '--json'], ['--version', '--json'], ['--json', '-v']]) {
    t.same(JSON.parse((await parvis(args)).stdout), { version }, args.join(' '))
  }
  for (const args of [['--help'], ['help'], ['help', 'help']]) {
    const { code, stdout, stderr } = await parvis(args)
    t.equal(code, 0)
    t.equal(stderr, '')
    for (const command of ['generate', 'complete', 'sample', 'eval', 'entropy', 'encode', 'decode', 'reconstruct',
      'score', 'inspect', 'convert', 'labels', 'models', 'pull', 'doctor', 'bench']) {
      t.match(stdout, new RegExp(`^ +${command} `, 'm'))
    }
  }
  const { code, stdout } = await parvis(['help', 'generate'])
  t.equal(code, 0)
  for (const option of ['class', 'count', 'seed', 'guidance-scale', 'temperature', 'top-k', 'top-p', 'greedy', 'out',
    'format', 'size', 'scale',
    'model', 'pull', 'transformer', 'tokenizer', 'heads', 'grid', 'device', 'precision', 'threads', 'json']) {
    t.match(stdout, `--${option}`)
  }
  for (const [command, options] of [
    ['encode', ['out', 'format', 'size', 'no-crop', 'background', 'tokenizer', 'device', 'json']],
    ['decode', ['out', 'format', 'size', 'scale', 'grid', 'tokenizer', 'device', 'json']],
    ['complete', ['keep', 'class', 'count', 'seed', 'guidance-scale', 'out', 'size', 'transformer', 'model', 'json']],
    ['sample', ['count', 'labels', 'seed', 'shard', 'top-p', 'out', 'size', 'overwrite', 'transformer', 'json']],
    ['reconstruct', ['out', 'format', 'beside', 'scale', 'size', 'no-crop', 'background', 'tokenizer', 'json']],
    ['score', ['class', 'tokens-per-step', 'guidance-scale', 'top', 'per-token', 'heatmap', 'picture', 'no-crop',
      'transformer', 'tokenizer', 'json']]
  ] as const) {
    const { stdout } = await parvis(['help', command])
    for (const option of options) t.match(stdout, `--${option}`, command)
  }
})

t.test('wrong usage ends with exit code 2 and one line', async t => {
  const cases: Array<[string[], RegExp]> = [
    [['generate'], /which class\?.*--class/],
    [['score', 'x.png', '--class', '7', '--model', 'nope'], /no model 'nope'.*par-xl-4x.*in the package: fashion/],
    [['score', 'x.png', '--class', '7', '--model', 'par-xl-4x', '--transformer', 'x.pt'],
      /--model says what --transformer would/],
    [['encode', 'x.png', '--model', 'par-xl-4x', '--tokenizer', 'x.pt'], /--model says what --tokenizer would/],
    [['generate', '--clas', '7'], /unknown option '--clas'.*--class/],
    [['gnerate'], /unknown command 'gnerate'.*generate/],
    [['generate', '--class', '7', '--top-k', '1.5'], /top-k.*whole number/],
    [['generate', '--class', '7', '--temperature', 'NaN'], /temperature.*number/],
    [['generate', '--class', '7', '--seed', '-1'], /seed.*whole number/],
    [['generate', '--class', '7', '--scale', '0'], /scale.*at least 1/],
    [['generate', '--class', '7', '--format', 'bmp'], /format.*png/],
    [['generate', '--class', '7', '--out', 'picture.xyz'], /picture\.xyz.*--format/],
    [['generate', '--class', '7', '--out', path.join(root, 'no', 'such', 'folder', 'a.png')], /there is no folder/],
    [['generate', '--class', '7', '--out', root], /folder/],
    [['generate', '--class', '7', '--json', '--out', '-'], /standard output/],
    [['generate', '--class', '7', '--heads', '2'], /--transformer/],
    [['generate', '--class', '7', '--transformer', 'a.pt'], /--tokenizer/],
    [['pull'], /which preset\? par-xl-4x \(.* GB to .* GB\), .*parvis models/],
    [['pull', 'a', 'b'], /too many arguments/],
    [['labels', '--model', 'par-9b'], /no model 'par-9b'/],
    [['pull', 'fashion'], /fashion comes with the package; there is nothing to download/],
    [['inspect'], /missing required argument/],
    [['convert', 'in.pt'], /missing required argument/],
    [['inspect', 'a', 'b'], /too many arguments/],
    [['doctor', '--timeout', '0'], /timeout.*at least 1/],
    [['inspect', 'a', '--grid', '8y8'], /grid.*24x24/],
    [['generate', '7', '--seed', '18446744073709551615'], /seed.*from 0 to 9007199254740991;/],
    [['generate', '7', '--seed', '9007199254740992'], /seed.*from 0 to 9007199254740991;/],
    [['generate', '7', '--count', '9007199254740992'], /count.*from 1 to 9007199254740991;/],
    [['generate', '7', '--temperature', '1e999'], /temperature.*from -1\.79.*e\+308 to 1\.79.*e\+308;/],
    [['generate', '7', '--size', '9007199254740992'], /size.*from 1 to 9007199254740991;/],
    [['inspect', 'a', '--grid', '8x9007199254740992'], /grid.*from 1 to 9007199254740991;/],
    [['doctor', '--timeout', '2147484'], /timeout.*from 1 to 2147483;/],
    [['inspect', ''], /file.*Give the name of a file/],
    [['convert', '', 'a.safetensors'], /Give the name of a file/],
    [['labels', '--transformer', ''], /--transformer.*Give the name of a file/],
    [['generate', '7', '--transformer', '', '--tokenizer', ''], /--transformer.*Give the name of a file/],
    [['decode', 'a.json', '--tokenizer', ''], /--tokenizer.*Give the name of a file/],
    [['bench', '--plots', ''], /--plots.*Give the name of a file/],
    [['bench', '-n', '16', '--grid', '6'], /--tokens-per-step 16 .*4 does not divide --grid 6/],
    [['inspect', 'a', '--device', 'bogus'], /--device.*Give auto, cpu, cuda or cuda:<number>/],
    [['score', 'a.png', '--heatmap', 'a.txt'], /a\.txt tells no picture format; end it in [^-]*\[USAGE\]$/m]
  ]
  for (const [args, message] of cases) {
    const { code, stdout, stderr } = await parvis(args)
    t.equal(code, 2, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, message)
    t.match(stderr, args.includes('--json') ? /"code":"USAGE"/ : /^parvis: .* \[USAGE\]\n$/)
  }
  const bare = await parvis([])
  t.equal(bare.code, 2)
  t.match(bare.stderr, 'Usage: parvis')
})

t.test('errors as JSON', async t => {
  const { code, stdout, stderr } = await parvis(['generate', '--json', '--class', '7', '--seed', 'x'])
  t.equal(code, 2)
  t.equal(stdout, '')
  t.match(JSON.parse(stderr), { error: { code: 'USAGE', message: /seed/ } })
})

t.test('the stack appears only where it is asked for', async t => {
  const missing = path.join(temporaryFolder(), 'missing.pt')
  const plain = await parvis(['inspect', missing])
  t.equal(plain.code, 1)
  t.match(plain.stderr, /^parvis: .*missing\.pt.* \[FILE_NOT_FOUND\]\n$/)
  t.match((await parvis(['inspect', missing, '--verbose'])).stderr, /\n +at /)
  t.match((await parvis(['inspect', missing], { env: { PARVIS_DEBUG: '1' } })).stderr, /\n +at /)
})

t.test('a reader that has gone is no error', async t => {
  const { code, signal, stderr } = await parvis(['labels'], { started: child => child.stdout!.destroy() })
  t.same({ code, signal, stderr }, { code: 0, signal: null, stderr: '' })
})

t.test('a full disk is an error like any other', {
  skip: !fs.existsSync('/dev/full') && 'there is no /dev/full'
}, async t => {
  const full = fs.openSync('/dev/full', 'w')
  t.teardown(() => fs.closeSync(full))
  const model = path.join(root, 'models', 'fashion', 'par-4.safetensors')
  for (const args of [['labels'], ['labels', '--json'], ['inspect', model], ['--help'], ['--version'],
    ['help', 'generate'], ['generate', '--class', '7', '-n', '16', '--out', '-']]) {
    const { status, stderr } = spawnSync(process.execPath, [bin, ...args],
      { encoding: 'utf8', stdio: ['ignore', full, 'pipe'] })
    t.equal(status, 1, args.join(' '))
    t.match(stderr, args.includes('--json')
      ? /^\{"error":\{"code":"FILE_NOT_FOUND"/
      : /^parvis: standard output: cannot be written: no space is left\..* \[FILE_NOT_FOUND\]\n$/)
  }
  const silent = spawnSync(process.execPath, [bin, 'inspect', '/nowhere'], { stdio: ['ignore', 'pipe', full] })
  t.same({ status: silent.status, signal: silent.signal }, { status: 1, signal: null },
    'standard error may be full too')
})

t.test('a clone that was not built says so', async t => {
  const folder = temporaryFolder()
  fs.cpSync(path.join(root, 'bin'), path.join(folder, 'bin'), { recursive: true })
  const child = spawnSync(process.execPath, [path.join(folder, 'bin', 'parvis.js'), '--version'], { encoding: 'utf8' })
  t.equal(child.status, 1)
  t.match(child.stderr, /not built yet.*\n.*npm install/)
  t.notMatch(child.stderr, /\n +at /)
})
