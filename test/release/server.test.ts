// Both tarballs in an empty folder: the server answers with the checkout's picture. The library alone brings nothing of
// the server's.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import t from 'tap'
import par from '../../lib/index.js'
import { missing, network, root, run, tarball, temporary } from './tarball.js'

t.setTimeout(600_000)

t.test('the server of a release', { skip: missing }, async t => {
  const folder = temporary()
  const server = path.join(root, 'out', 'release', 'parvis-server.tgz')
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 'user', version: '1.0.0', private: true }))
  const env = { ...network, HOME: temporary(), PATH: process.env.PATH }
  const install = (...packages: string[]): void => {
    const { status, stdout, stderr } = run('npm',
      ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...packages], { cwd: folder, env })
    t.equal(status, 0, `${packages.map(name => path.basename(name)).join(', ')}: ${status === 0 ? '' : stdout + stderr}`)
  }
  install(tarball)
  const foreign = fs.readdirSync(path.join(folder, 'node_modules'))
    .filter(name => /fastify|bullmq|redis|pino|prom/.test(name))
  t.same(foreign, [], 'the library brings nothing of the server')
  const own = JSON.parse(fs.readFileSync(path.join(folder, 'node_modules', 'parvis', 'package.json'), 'utf8')) as {
    dependencies: object
  }
  t.same(Object.keys(own.dependencies),
    ['@huggingface/hub', 'cli-progress', 'commander', 'node-gyp-build', 'sharp', 'yauzl'])
  install(server)
  const script = path.join(folder, 'node_modules', '.bin', 'parvis-server')
  t.notOk(fs.existsSync(path.join(folder, 'node_modules', 'parvis-server', 'node_modules', 'parvis')),
    'it uses the library that is installed')
  const child = spawn(process.execPath, [script, '--port', '0', '--device', 'cpu'], { cwd: folder, env })
  t.teardown(() => child.kill('SIGKILL'))
  let said = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', text => { said += String(text) })
  let url: string | undefined
  for (let tries = 0; tries < 300 && !url; tries++) {
    await new Promise(resolve => setTimeout(resolve, 100))
    url = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0]
  }
  t.ok(url, said.slice(0, 2000))
  const answer = await fetch(`${url}/v1/images/generations`, {
    method: 'POST', headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'sneaker', seed: 5, tokens_per_step: 4 })
  })
  const { data } = await answer.json() as { data: Array<{ b64_json: string }> }
  const image = await par.generate({ classId: 'sneaker', seed: 5, n: 4 })
  const pixels = await sharp(Buffer.from(data[0]!.b64_json, 'base64')).removeAlpha().raw().toBuffer()
  t.ok(pixels.equals(Buffer.from(image.data)), "the checkout's picture")
  t.equal((await fetch(url!)).status, 200, 'the page')
})
