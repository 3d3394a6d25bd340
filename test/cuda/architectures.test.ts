// Which devices a build has code for, and why not others (cuda/architectures.h): rules and words, no driver asked.

import t from 'tap'
import { build, execute } from '../support/simt.js'

t.test('what a build covers', async t => {
  const { code, out, err } = await execute(await build('architectures', ['test/simt/architectures.cc']))
  const lines = out.split('\n').filter(Boolean)
  for (const line of lines) t.ok(line.startsWith('ok '), line.replace(/^(not )?ok /, ''))
  t.same({ code, err }, { code: 0, err: '' })
  t.ok(lines.length >= 45, `${lines.length} cases`)
})
