// Which file the native addon is, and why none could be loaded. Places, in order: PARVIS_NATIVE alone where it is set; what
// was built on this machine; what came with the package for this platform. A file that is there and does not load (built
// for another machine, or against another C library) is no reason not to try the next one; all reasons are told at the end.

import fs from 'node:fs'
import path from 'node:path'
import { ParError } from './errors.js'

/** A place that was tried. */
export interface Attempt {
  file: string
  origin: 'PARVIS_NATIVE' | 'built on this machine' | 'came with the package' | 'by PARVIS_PREBUILD'
}

interface NodeGypBuild {
  resolve: (directory: string) => string
  parseTuple: (name: string) => { name: string } | undefined
  matchTuple: (platform: string, arch: string) => (tuple: { name: string } | undefined) => boolean
  parseTags: (file: string) => { file: string } | undefined
  matchTags: (runtime: string, abi: string) => (tags: { file: string } | undefined) => boolean
}

/** Every place where the addon may be, whether or not there is a file, the first choice first. */
export function addonPlaces (root: string): Attempt[] {
  const named = process.env.PARVIS_NATIVE
  if (named) return [{ file: path.resolve(named), origin: 'PARVIS_NATIVE' }]
  const other = process.env.PARVIS_PREBUILD || undefined // node-gyp-build's own: another root
  const base = other ?? root
  const places: Attempt[] = [{ file: path.join(base, 'build', 'Release', 'parvis.node'), origin: other ? 'by PARVIS_PREBUILD' : 'built on this machine' }]
  const prebuilt = prebuiltFile(base)
  if (prebuilt) places.push({ file: prebuilt, origin: 'came with the package' })
  return places
}

/** The one in prebuilds/ that is for this platform and C library. */
function prebuiltFile (root: string): string | undefined {
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  const finder = require('node-gyp-build') as NodeGypBuild
  const folder = path.join(root, 'prebuilds')
  const list = (place: string): string[] => fs.existsSync(place) ? fs.readdirSync(place) : []
  const tuple = list(folder).map(finder.parseTuple).find(finder.matchTuple(process.platform, process.arch))
  if (!tuple) return undefined
  const tags = list(path.join(folder, tuple.name)).map(finder.parseTags).find(finder.matchTags('node', process.versions.modules))
  return tags && path.join(folder, tuple.name, tags.file)
}

/** Loads the first that loads. @throws ParError `NATIVE_UNAVAILABLE`: every place, what was wrong there, what to type next */
export function loadAddon (root: string): { attempt: Attempt, addon: unknown } {
  const failures: Array<{ attempt: Attempt, reason: string, cause?: unknown }> = []
  for (const attempt of addonPlaces(root)) {
    if (!fs.existsSync(attempt.file)) {
      failures.push({ attempt, reason: 'there is no such file' })
      continue
    }
    try {
      // eslint-disable-next-line @typescript-eslint/no-require-imports
      return { attempt, addon: require(attempt.file) }
    } catch (cause) {
      failures.push({ attempt, reason: (cause as Error).message.split('\n')[0]!.replace(`${attempt.file}: `, ''), cause })
    }
  }
  throw new ParError('NATIVE_UNAVAILABLE', [
    `parvis could not load its native addon on ${platformText()}, Node ${process.version}.`,
    'Tried:',
    ...failures.map(({ attempt, reason }) => `  ${attempt.file} (${attempt.origin}): ${reason}`),
    ...failures.every(({ attempt }) => attempt.origin !== 'came with the package' && attempt.origin !== 'PARVIS_NATIVE') ? [`  ${prebuiltText(root)}`] : [],
    `Cure: ${cure(root, failures.map(({ reason }) => reason).join('\n'))}`
  ].join('\n'), { cause: failures.find(({ cause }) => cause !== undefined)?.cause })
}

/** What to type, by what was seen. */
function cure (root: string, reasons: string): string {
  const build = `cd ${root} && node scripts/install.js --build`
  if (process.env.PARVIS_NATIVE) return 'set PARVIS_NATIVE to the .node file of this version of parvis for this platform, or unset it.'
  const glibc = /version `(GLIBC_[\d.]+)' not found/.exec(reasons)
  if (glibc) return `the addon needs ${glibc[1]!.replace('GLIBC_', 'glibc ')} or newer, and here is ${libcText()}. Build it on this machine (CMake 3.21, a C++20 compiler): ${build}`
  if (/invalid ELF header|wrong ELF class|file too short|wrong architecture|not a valid Win32|mach-o/i.test(reasons)) {
    return `a file is damaged or for another platform, as when node_modules is copied from another machine. Remove node_modules and install again there, or build it here: ${build}`
  }
  return `build it with CMake 3.21 or newer and a C++20 compiler: ${build}\n` +
    '(where a package manager did not run install scripts, nothing was built yet: the same command does it)'
}

function prebuiltText (root: string): string {
  const folder = path.join(root, 'prebuilds')
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : []
  return names.length === 0
    ? `${folder}: this package holds no prebuilt addons`
    : `${folder}: nothing prebuilt for ${platformText()}; there is ${names.map(name => `${name}${/^linux/.test(name) ? ' (glibc)' : ''}`).join(', ')}`
}

const platformText = (): string => `${process.platform}-${process.arch}${process.platform === 'linux' ? ` (${libcText()})` : ''}`

/** 'glibc 2.36' or 'musl'. */
function libcText (): string {
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime ? `glibc ${header.glibcVersionRuntime}` : 'musl'
}
