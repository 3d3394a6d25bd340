// docs/errors.md lists every code there is and no other; the exit codes are those that come.

import t from 'tap'
import fs from 'node:fs'
import path from 'node:path'
import { parvis, root } from '../cli/run.js'
import { built } from '../support/built.js'

const source = fs.readFileSync(path.join(root, 'lib', 'base', 'errors.ts'), 'utf8')
const guide = fs.readFileSync(path.join(root, 'docs', 'errors.md'), 'utf8')
const commands = fs.readFileSync(path.join(root, 'docs', 'command-line.md'), 'utf8')

t.test('codes', async t => {
  const codes = [...source.matchAll(/^ {2}\| '([A-Z_]+)'$/gm)].map(match => match[1])
  t.ok(codes.length >= 14, `${codes.length} codes of ParErrorCode`)
  const rows = [...guide.matchAll(/^\| `([A-Z_]+)` \| (.+) \| (.+) \|$/gm)]
  t.same(rows.map(row => row[1]), codes, 'docs/errors.md: the same, in the same order')
  for (const [, code, cause, cure] of rows) t.ok(cause!.length > 10 && cure!.length > 10, `${code}: cause and cure`)
})

t.test('exit codes', async t => {
  await built()
  const listed = [...guide.matchAll(/^\| (\d+) \| .+ \|$/gm)].map(row => Number(row[1]))
  t.same([...commands.matchAll(/^\| (\d+) \| .+ \|$/gm)].map(row => Number(row[1])), listed,
    'docs/command-line.md has the same')
  const stopped = async (signal: NodeJS.Signals): Promise<number | null> => {
    // Work for minutes, and a signal once the process listens: before that the system would end it.
    const { code } = await parvis(['generate', '--class', '7', '-n', '1', '--count', '60000', '--out', '-',
      '--verbose'], {
      started: child => child.stderr!.once('data', () => child.kill(signal))
    })
    return code
  }
  t.same([
    (await parvis(['labels'])).code,
    (await parvis(['inspect', 'nowhere.pt'])).code,
    (await parvis(['generate', '--clas', '7'])).code,
    await stopped('SIGHUP'),
    await stopped('SIGINT'),
    await stopped('SIGTERM')
  ], listed)
})
