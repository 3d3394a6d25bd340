// Where the Hub and the cache are, and who asks, by the environment variables of Hugging Face's libraries.

import t from 'tap'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { accessToken, cacheFolder, endpoint, offlineBy, proxyHint } from '../../lib/hub/location.js'
import { temporaryFolder } from '../cli/run.js'

t.test('folders, as huggingface_hub finds them', { skip: process.platform === 'win32' && 'paths of Unix' }, async t => {
  const HOME = '/home/me'
  for (const [env, expected] of [
    [{}, '/home/me/.cache/huggingface/hub'],
    [{ XDG_CACHE_HOME: '/c' }, '/c/huggingface/hub'],
    [{ HF_HOME: '/h', XDG_CACHE_HOME: '/c' }, '/h/hub'],
    [{ HF_HUB_CACHE: '/own', HF_HOME: '/h' }, '/own'],
    [{ HUGGINGFACE_HUB_CACHE: '/old' }, '/old'],
    [{ HF_HOME: '~/hf' }, '/home/me/hf/hub'],
    [{ HF_HUB_CACHE: '~' }, '/home/me'],
    [{ HF_HOME: '$SCRATCH/hf', SCRATCH: '/scratch/me' }, '/scratch/me/hf/hub'],
    [{ HF_HUB_CACHE: '${SCRATCH}_x/$NONE/${NONE}/$', SCRATCH: '/s' }, '/s_x/$NONE/${NONE}/$'],
    [{ XDG_CACHE_HOME: '$HOME/c' }, '/home/me/c/huggingface/hub'],
    [{ HF_HUB_CACHE: '/a~b/~' }, '/a~b/~'],
    [{ HF_HUB_CACHE: '$A', A: '$A/x' }, path.resolve('$A/x')] // once, not again
  ] as Array<[Record<string, string>, string]>) t.equal(cacheFolder({ HOME, ...env }), expected, JSON.stringify(env))
  t.throws(() => cacheFolder({ HOME, HF_HOME: '~somebody/hf' }),
    { code: 'INVALID_OPTION', message: /HF_HOME.*another user/ })

  // Containers run as users whom nobody has heard of.
  const { userInfo } = os
  t.teardown(() => { os.userInfo = userInfo })
  t.equal(cacheFolder({ HOME: '' }), path.join(userInfo().homedir, '.cache', 'huggingface', 'hub'))
  os.userInfo = (() => {
    throw Object.assign(new Error('uv_os_get_passwd returned ENOENT'), { code: 'ERR_SYSTEM_ERROR' })
  }) as never
  for (const env of [{}, { HOME: '' }, { HF_HUB_CACHE: '~/x' }]) {
    t.throws(() => cacheFolder(env), { code: 'FILE_NOT_FOUND', message: /no home folder.*HF_HOME/ })
  }
  t.equal(cacheFolder({ HF_HOME: '/h' }), '/h/hub')
  t.equal(await accessToken({}), undefined)
})

t.test('the endpoint', async t => {
  t.equal(endpoint({}), 'https://huggingface.co')
  t.equal(endpoint({ HF_ENDPOINT: ' https://Mirror.example:8443/api/hf// ' }), 'https://mirror.example:8443/api/hf')
  for (const given of [
    'https://me:secret@mirror.example', 'http://secret@mirror.example', 'https://mirror.example/?key=secret',
    'https://mirror.example/#secret', 'ftp://me:secret@mirror.example',
    'me:secret@mirror.example', 'https://:secret@', 'file:///etc/passwd', 'javascript:1', 'mirror.example',
    '//mirror.example', 'https://', '\u001b]0;x\u0007', 'https://a b/'
  ]) {
    t.throws(() => endpoint({ HF_ENDPOINT: given }), { code: 'INVALID_OPTION', message: /^HF_ENDPOINT/ }, given)
    t.notMatch(refusal(given), /secret|\u001b/, 'no password, no control character')
  }
  function refusal (given: string): string {
    try {
      return endpoint({ HF_ENDPOINT: given })
    } catch (error) {
      return (error as Error).message
    }
  }
})

t.test('tokens', async t => {
  const folder = temporaryFolder()
  const file = path.join(folder, 'token')
  const read = async (content: string): Promise<unknown> => {
    fs.writeFileSync(file, content)
    return await accessToken({ HF_TOKEN_PATH: file }).then(token => token?.value,
      (error: { code: string }) => error.code)
  }
  t.equal(await read('hf_a\n'), 'hf_a')
  t.equal(await read('\ufeff  hf_a\r\n\n'), 'hf_a')
  t.equal(await read('\n'), undefined)
  for (const bad of ['hf_a\nhf_b', 'hf a', 'hf_\u0000', 'hf_\u00e9', 'hf_\u001b[2J']) {
    t.equal(await read(bad), 'INVALID_OPTION', JSON.stringify(bad))
  }
  t.equal(await read('x'.repeat(1 << 20)), 'FILE_NOT_FOUND', 'no token is so long')
  t.equal(await accessToken({ HF_TOKEN_PATH: path.join(folder, 'none') }), undefined)
  await t.rejects(accessToken({ HF_TOKEN_PATH: folder }), { code: 'FILE_NOT_FOUND', message: /HF_TOKEN_PATH/ })
  t.match(await accessToken({ HF_TOKEN: ' hf_b ', HF_TOKEN_PATH: folder }), { value: 'hf_b', from: 'HF_TOKEN' })
  const split = await accessToken({ HF_TOKEN: 'hf_a\r\nx-evil: 1' }).catch((error: Error & { code: string }) => error)
  t.match(split, { code: 'INVALID_OPTION', message: /HF_TOKEN/ })
  t.notMatch((split as Error).message, /hf_a/)
  fs.mkdirSync(path.join(folder, 'home', 'token'), { recursive: true })
  t.equal(await accessToken({ HF_HOME: path.join(folder, 'home') }), undefined, 'the usual place is only looked at')
})

t.test('offline', async t => {
  for (const value of ['1', 'true', 'TRUE', 'yes', 'On', ' 1 ']) {
    t.equal(offlineBy({ HF_HUB_OFFLINE: value }), 'HF_HUB_OFFLINE', value)
  }
  t.equal(offlineBy({ TRANSFORMERS_OFFLINE: '1' }), 'TRANSFORMERS_OFFLINE')
  for (const value of ['', '0', 'false', 'no', 'off', '2']) {
    t.equal(offlineBy({ HF_HUB_OFFLINE: value }), undefined, value)
  }
})

t.test('a proxy that this Node.js goes past', async t => {
  const hub = new URL('https://huggingface.co')
  const hint = (env: Record<string, string>, version = '20.17.0', flags: string[] = []): string =>
    proxyHint(hub, env, { version, flags })
  const proxy = { HTTPS_PROXY: 'http://me:secret@proxy:3128' }
  t.equal(hint({}), '')
  t.match(hint(proxy), /HTTPS_PROXY is set, but Node\.js 20\.17\.0 does not use it: .*22\.21.*24.*NODE_USE_ENV_PROXY=1/)
  t.match(hint({ https_proxy: 'http://proxy' }, '24.4.0'), /https_proxy is set, but .*only with NODE_USE_ENV_PROXY=1/)
  t.match(hint({ ...proxy, NODE_USE_ENV_PROXY: '1' }, '22.21.0'), /and used: check that proxy/)
  t.match(hint({ ...proxy, NODE_USE_ENV_PROXY: '1' }, '22.20.0'), /does not use it/)
  t.match(hint(proxy, '24.5.0', ['--use-env-proxy']), /and used/)
  t.equal(hint({ HTTP_PROXY: 'http://proxy' }), '', 'for the other scheme')
  t.match(hint({ ALL_PROXY: 'socks://proxy' }), /ALL_PROXY/)
  for (const spared of ['*', 'huggingface.co', '.co', 'x.org, huggingface.co:443', '*.co']) {
    t.equal(hint({ ...proxy, NO_PROXY: spared }), '', spared)
  }
  t.not(hint({ ...proxy, no_proxy: 'face.co' }), '', 'whole parts of the name')
  t.notMatch(hint(proxy), /secret/)
})
