// Names of the files that commands write where the caller gives none, or gives a pattern for several pictures.

import path from 'node:path'
import type { ImageFormat } from '../api/image.js'
import type { VideoFormat } from '../api/video.js'
import { shownPath } from '../base/text.js'
import { isDevice } from '../base/windows.js'
import { hasN, type Method } from '../decoding/method.js'
import { UsageError } from './terminal.js'

/**
 * UTF-8 bytes of a part that is made of any text; a suffix and a number have to fit behind it, and names go up to 255.
 */
const longestPart = 120

/**
 * A part of a file name made of any text, which every system takes and no command reads as an option: no separators,
 * controls, quotes or wildcards, no dash or dot in front, no device of Windows (con, nul), no more than some length.
 */
export function safeName (text: string): string {
  const plain = text.normalize('NFC').replace(/[\p{C}\p{Z}<>:"/\\|?*]+/gu, '-').replace(/^[-. ]+/, '')
  let name = ''
  for (const character of plain) {
    if (Buffer.byteLength(name + character) > longestPart) break
    name += character
  }
  name = name.replace(/[-. ]+$/, '')
  return name === '' ? 'picture' : isDevice(name) ? `picture-${name}` : name
}

export function extensionOf (format: ImageFormat | VideoFormat): string {
  return `.${format === 'jpeg' ? 'jpg' : format}`
}

/** What a picture's name can be made of. */
export interface Named {
  classId: number
  label?: string
  n: number
  /** Default: one that has an n. */
  method?: Method | undefined
  seed: number
}

/** 'tench' of 'tench, Tinca tinca': the first of its synonyms, in small letters. */
function className ({ label, classId }: Named): string {
  const letters = label?.split(',')[0]!.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '') ?? ''
  return letters === '' ? `class-${classId}` : safeName(letters)
}

/** The name of a file of one picture, or of a sheet of several. */
export function defaultName (pictures: readonly Named[], format: ImageFormat | VideoFormat): string {
  const classes = [...new Set(pictures.map(className))]
  const subject = classes.length > 3 ? `${classes.length}-classes` : safeName(classes.join('-'))
  const { n, method, seed } = pictures[0]!
  const how = method === undefined || hasN(method) ? `n${n}` : method
  return `${subject}${pictures.length === 1 ? '' : `-x${pictures.length}`}-${how}-seed${seed}${extensionOf(format)}`
}

const placeholder = /%(0?\d?)d|\{(class|label|seed|n)\}/g

/** With a / at its end. */
export function isFolderName (out: string): boolean {
  return out.endsWith('/') || out.endsWith(path.sep)
}

/** Whether a name stands for several files: a folder, or one with places to fill in. */
export function isPattern (out: string): boolean {
  return isFolderName(out) || new RegExp(placeholder).test(out)
}

/**
 * A name for each picture.
 * @param out a folder (with a / at its end), a pattern (%d the number of the picture, %03d with zeros, {class} the name
 * of its class, {seed}, {n}), a plain name that is numbered; absent: names made of class, n and seed
 */
export function namesOf (
  pictures: readonly Named[], out: string | undefined, format: ImageFormat | VideoFormat
): string[] {
  if (out === undefined || isFolderName(out)) {
    return different(pictures.map(picture => path.join(out ?? '', defaultName([picture], format))))
  }
  const pattern = patternOf(out)
  const names = pictures.map((picture, k) => {
    let hasLabel = false
    const name = pattern.replace(placeholder, (_, width: string | undefined, what: string | undefined) => {
      if (what === 'class' || what === 'label') {
        hasLabel = true
        return className(picture)
      }
      return what === undefined ? numberText(k, width!) : String(picture[what as 'seed' | 'n'])
    })
    // {class}{n} of the class `com` is the name of a device of Windows, which nobody has asked for.
    return hasLabel && isDevice(path.basename(name)) ? name.replace(/[^/\\]*$/, 'picture-$&') : name
  })
  const twice = names.find((name, k) => names.indexOf(name) !== k)
  if (twice !== undefined) {
    throw new UsageError(`--out gives several pictures the name ${shownPath(twice)}; put %d into it, their number`)
  }
  return names
}

/**
 * A name for each picture that comes out of a file.
 * @param sources the file of each
 * @param out as for `namesOf`, but without {class}, {seed} and {n}, which nobody knows here; a plain name stays as it
 * is for a single picture; absent or a folder: names made of those of the sources and a suffix
 */
export function outputNames (
  sources: readonly string[], out: string | undefined, suffix: string, format: ImageFormat
): string[] {
  if (out !== undefined && !isFolderName(out)) {
    const unknown = /\{(class|label|seed|n)\}/.exec(out)?.[0]
    if (unknown !== undefined) {
      throw new UsageError(
        `--out has ${unknown}, which only \`parvis generate\` fills in; put %d into it, the number of the picture`
      )
    }
    if (sources.length === 1 && !isPattern(out)) return [out]
    return sources.map((_, k) => numbered(out, k))
  }
  const stems = sources.map(source =>
    safeName(source === '-' ? 'stdin' : path.basename(source, path.extname(source))) + suffix)
  const [inAll, numbers, used] = [new Map<string, number>(), new Map<string, number>(), new Set<string>()]
  const key = (name: string): string => name.toLowerCase() // some file systems tell no case
  for (const stem of stems) inAll.set(key(stem), (inAll.get(key(stem)) ?? 0) + 1)
  return stems.map(stem => {
    let number = (numbers.get(key(stem)) ?? 0) + 1
    let name = inAll.get(key(stem)) === 1 ? stem : `${stem}-${number}`
    while (used.has(key(name))) name = `${stem}-${++number}`
    numbers.set(key(stem), number)
    used.add(key(name))
    return path.join(out ?? '', name + extensionOf(format))
  })
}

/** The pattern that a plain name stands for where several files are written. */
function patternOf (out: string): string {
  return new RegExp(placeholder).test(out) ? out : out.replace(/(\.[^./\\]*)?$/, '-%d$1')
}

/** The file of a frame of a video. @param k from 0, as the number in the name is */
export const numberedFrame = (pattern: string, k: number): string =>
  pattern.replace(/%(0?\d?)d/g, (_, width: string) => numberText(k - 1, width))

/** %d of a pattern, filled in. @param k from 0 */
function numbered (out: string, k: number): string {
  return patternOf(out).replace(/%(0?\d?)d/g, (_, width: string) => numberText(k, width))
}

/** Padded as C does it. */
function numberText (k: number, width: string): string {
  return String(k + 1).padStart(Number(width), width.startsWith('0') ? '0' : ' ')
}

/** Numbers behind names that came before. */
function different (names: readonly string[]): string[] {
  const used = new Set<string>()
  return names.map(name => {
    const extension = path.extname(name)
    let own = name
    for (let k = 2; used.has(own.toLowerCase()); k++) {
      own = `${name.slice(0, name.length - extension.length)}-${k}${extension}`
    }
    used.add(own.toLowerCase())
    return own
  })
}
