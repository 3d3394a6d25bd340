// How text that parvis did not write (out of files, repositories, options, the system) is shown: control characters and
// marks that reorder a line become visible escapes, so that no text can command a terminal or forge what stands beside
// it, and long text is cut, so that no message is filled by it.

/** Characters that a quoted text or a name may have at most before it is cut. */
export const maxShownName = 120

/** Characters of a path or address that a message shows at most. */
export const maxShownPath = 200

/**
 * C0 and C1 controls, soft hyphen, zero-width and bidirectional marks, line and paragraph separators, tags, lone
 * surrogates. `\p{Cf}` would take the joiners of emoji and of Indic scripts too: they are escaped as well, and stay
 * readable.
 */
const hidden = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]|\p{Cf}|\p{Cs}/gu

/**
 * `text` with every character that a terminal would act on, or that cannot be seen, as `\u{...}`; cut to `max`
 * characters.
 */
export function visible (text: string, max = Infinity): string {
  return cut(text, max).replace(hidden, character => {
    const code = character.codePointAt(0)!
    return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`
  })
}

/**
 * JSON text in which those characters are written as escapes of JSON: the same value, and nothing that a terminal acts
 * on.
 */
export function visibleJson (json: string): string {
  return json.replace(hidden, character => character === '\n' // between values; within strings it is an escape already
    ? character
    : Array.from({ length: character.length },
      (_, k) => `\\u${character.charCodeAt(k).toString(16).padStart(4, '0')}`).join(''))
}

/** Text in UTF-8 without the mark that editors of Windows put in front of it. */
export function withoutMark<T extends Uint8Array> (bytes: T): T {
  const marked = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
  return marked ? bytes.subarray(3) as T : bytes
}

/** At most `max` characters; what is missing is told by `...`. */
export function cut (text: string, max: number): string {
  return text.length > max ? `${text.slice(0, Math.max(0, max - 3))}...` : text
}

/** The same, but what is missing is missing in the middle. */
export function cutMiddle (text: string, max: number): string {
  const half = Math.floor((max - 3) / 2)
  return text.length > max ? `${text.slice(0, half)}...${text.slice(-half)}` : text
}

/** Text from a file, in double quotes, with escapes as in JSON, cut at {@link maxShownName} characters. */
export function quote (text: string): string {
  return visible(JSON.stringify(cut(text, maxShownName)))
}

/** A path or an address given by a caller, for messages: its beginning and its end, where the file name is. */
export function shownPath (file: string): string {
  return visible(cutMiddle(file, maxShownPath))
}
