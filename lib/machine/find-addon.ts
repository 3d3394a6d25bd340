// Which file the native addon is, and why none could be loaded. Places, in order: PARVIS_NATIVE alone where it is set;
// what was built on this machine; what came with the package for this platform. A file that is there and does not load
// (built for another machine, or against another C library) is no reason not to try the next one; all reasons are told
// at the end.

import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { ParError } from '../base/errors.js'
import { visible } from '../base/text.js'

/** A place that was tried. */
export interface Attempt {
  file: string
  origin: 'PARVIS_NATIVE' | 'built on this machine' | 'came with the package' | 'by PARVIS_PREBUILD'
}

interface Failure { attempt: Attempt, reason: string, cause?: unknown }

interface NodeGypBuild {
  resolve: (directory: string) => string
  parseTuple: (name: string) => { name: string } | undefined
  matchTuple: (platform: string, arch: string) => (tuple: { name: string } | undefined) => boolean
  parseTags: (file: string) => { file: string } | undefined
  matchTags: (runtime: string, abi: string) => (tags: { file: string } | undefined) => boolean
}

// Each path is written out, because that is how tools which copy an application find the files it opens.
const root = path.join(__dirname, '..', '..')
const built = path.join(__dirname, '..', '..', 'build', 'Release', 'parvis.node')
const prebuilds = path.join(__dirname, '..', '..', 'prebuilds')

/** Every place where the addon may be, whether or not there is a file, the first choice first. */
export function addonPlaces (): Attempt[] {
  const named = process.env.PARVIS_NATIVE
  if (named) return [{ file: path.resolve(named), origin: 'PARVIS_NATIVE' }]
  const other = process.env.PARVIS_PREBUILD || undefined // node-gyp-build's own: another root
  const places: Attempt[] = [other
    ? { file: path.join(other, 'build', 'Release', 'parvis.node'), origin: 'by PARVIS_PREBUILD' }
    : { file: built, origin: 'built on this machine' }]
  const prebuilt = prebuiltFile(other ? path.join(other, 'prebuilds') : prebuilds)
  if (prebuilt) places.push({ file: prebuilt, origin: 'came with the package' })
  return places
}

/** The one in `folder` that is for this platform and C library. */
function prebuiltFile (folder: string): string | undefined {
  const finder = nodeGypBuild()
  const tuple = list(folder).map(finder.parseTuple).find(finder.matchTuple(process.platform, process.arch))
  if (!tuple) return undefined
  const tags = list(path.join(folder, tuple.name)).map(finder.parseTags)
    .find(finder.matchTags('node', process.versions.modules))
  return tags && path.join(folder, tuple.name, tags.file)
}

function nodeGypBuild (): NodeGypBuild {
  try {
    return require('node-gyp-build') as NodeGypBuild
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_ACCESS_DENIED') throw error
    // It looks for /etc/alpine-release to learn the C library, which Node's permission model forbids; it does not look
    // where it is told.
    process.env.LIBC = libcText().replace(/ .*/, '')
    try {
      return require('node-gyp-build') as NodeGypBuild
    } finally {
      delete process.env.LIBC
    }
  }
}

/** Names in a folder; none where it is absent, or must not be looked at. */
function list (folder: string): string[] {
  try {
    return fs.readdirSync(folder)
  } catch {
    return []
  }
}

/** Whether a file is there, as far as Node's permission model lets it be seen. */
export function isThere (file: string): boolean {
  try {
    return fs.existsSync(file)
  } catch {
    return false
  }
}

/**
 * Loads the first that loads. @throws ParError `NATIVE_UNAVAILABLE`: every place, what was wrong there, what to type
 * next
 */
export function loadAddon (): { attempt: Attempt, addon: unknown } {
  const failures: Failure[] = []
  for (const attempt of addonPlaces()) {
    if (!isThere(attempt.file)) {
      failures.push({ attempt, reason: 'there is no such file' })
      continue
    }
    try {
      return { attempt, addon: require(attempt.file) }
    } catch (cause) {
      const [said] = (cause as Error).message.split(/\r?\n/)
      failures.push({ attempt, reason: visible(said!.replace(`${attempt.file}: `, ''), 400), cause })
    }
  }
  throw new ParError('NATIVE_UNAVAILABLE', [
    `parvis could not load its native addon on ${platformText()}, Node ${process.version}.`,
    'Tried:',
    ...failures.map(({ attempt, reason }) => `  ${attempt.file} (${attempt.origin}): ${reason}`),
    ...failures.every(({ attempt }) => attempt.origin !== 'came with the package' && attempt.origin !== 'PARVIS_NATIVE')
      ? [`  ${prebuiltText()}`]
      : [],
    `Cure: ${cure(failures)}`
  ].join('\n'), { cause: failures.find(({ cause }) => cause !== undefined)?.cause })
}

/** What to do, by what was seen. It names no file that is not there. */
function cure (failures: Failure[]): string {
  const codes = failures.map(({ cause }) => (cause as NodeJS.ErrnoException | undefined)?.code)
  const reasons = failures.map(({ reason }) => reason).join('\n')
  if (codes.includes('ERR_DLOPEN_DISABLED')) {
    return 'permission' in process
      ? 'Node was started with its permission model, which forbids addons. Start it with --allow-addons and ' +
        `--allow-fs-read=${path.join(root, '*')} too.`
      : 'Node was started with --no-addons. Start it without (NODE_OPTIONS counts as well).'
  }
  if (codes.includes('ERR_ACCESS_DENIED')) {
    return `Node was started with its permission model. Start it with --allow-fs-read=${path.join(root, '*')} too.`
  }
  if (process.env.PARVIS_NATIVE) {
    return 'set PARVIS_NATIVE to the .node file of this version of parvis for this platform, or unset it.'
  }
  const incomplete = packageProblem()
  if (incomplete !== undefined) return incomplete
  // Out of sight of those tools: what builds the addon does not belong into an application.
  const build = (createRequire(path.join(root, 'package.json'))('./scripts/addon.js') as { buildCommand: () => string })
    .buildCommand()
  const glibc = /version `(GLIBC_[\d.]+)' not found/.exec(reasons)
  if (glibc) {
    return `the addon needs ${glibc[1]!.replace('GLIBC_', 'glibc ')} or newer, and here is ${libcText()}. Build it ` +
      `on this machine (CMake 3.21, a C++20 compiler): ${build}`
  }
  if (/invalid ELF header|wrong ELF class|file too short|wrong architecture|not a valid Win32|mach-o/i.test(reasons)) {
    return 'a file is damaged or for another platform, as when node_modules is copied from another machine. Remove ' +
      `node_modules and install again there, or build it here: ${build}`
  }
  return `build it with CMake 3.21 or newer and a C++20 compiler: ${build}\n` +
    '(where a package manager did not run install scripts, nothing was built yet: the same command does it)'
}

/**
 * What is wrong with the package's folder, and what to do; undefined where it is whole. A bundler puts this code
 * elsewhere, and a tracer that copies an application may leave out what is only opened at run time.
 */
export function packageProblem (): string | undefined {
  let name: unknown
  try {
    ({ name } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { name?: unknown })
  } catch {}
  if (name !== 'parvis') {
    return `${root} is not the folder of the package parvis: a bundler has put its code elsewhere, and the addon ` +
      'and the embedded model do not follow. ' +
      'Leave parvis out of the bundle (esbuild: --external:parvis; webpack, Rollup, Vite: externals; Next.js: ' +
        'serverExternalPackages) and install it beside the bundle. ' +
      'Or set PARVIS_NATIVE to the file parvis.node of an installed package, and give Par.load the files of a model.'
  }
  const missing = ['scripts/install.js', 'CMakeLists.txt', 'models/fashion/tokenizer.safetensors']
    .filter(file => !isThere(path.join(root, file)))
  if (missing.length === 0) return undefined
  return `the folder ${root} is incomplete (${missing.join(', ')}: not there). A tool that copies or traces an ` +
    'application has left files out: ' +
    'have it take node_modules/parvis/prebuilds/** and node_modules/parvis/models/** along (Next.js: ' +
      'outputFileTracingIncludes).'
}

function prebuiltText (): string {
  const names = list(prebuilds)
  return names.length === 0
    ? `${prebuilds}: this package holds no prebuilt addons`
    : `${prebuilds}: nothing prebuilt for ${platformText()}; there ` +
      `is ${names.map(name => `${name}${/^linux/.test(name) ? ' (glibc)' : ''}`).join(', ')}`
}

const platformText = (): string =>
  `${process.platform}-${process.arch}${process.platform === 'linux' ? ` (${libcText()})` : ''}`

/** 'glibc 2.36' or 'musl'. */
function libcText (): string {
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl'
}
