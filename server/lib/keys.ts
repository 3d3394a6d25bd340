// API keys: compared in constant time, by their hashes, which are equally long.

import { createHash, timingSafeEqual } from 'node:crypto'

const hashOf = (text: string): Buffer => createHash('sha256').update(text).digest()

/** Whether an `Authorization` header has one of the keys. All of them are compared, whichever it is. */
export function keyCheck (keys: readonly string[]): (header: string | undefined) => boolean {
  // A request without a key is compared as the empty one.
  if (keys.some(key => key === '' || /\s/.test(key))) throw new TypeError('An API key is empty, or has blanks')
  const known = keys.map(hashOf)
  return header => {
    const given = hashOf(/^Bearer +(\S+) *$/i.exec(header ?? '')?.[1] ?? '')
    let isKnown = false
    for (const key of known) isKnown = timingSafeEqual(key, given) || isKnown
    return isKnown
  }
}
