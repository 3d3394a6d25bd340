// Tokens of pictures, once the model that they are for is known.

import { tokenArray } from '../base/validate.js'
import type { Pause } from '../pictures/resample.js'

/** Tokens of pictures checked; lets the event loop go on, because lists may be long. */
export async function checkTokens (
  list: readonly unknown[], name: string | undefined, vocabulary: number, length: number | undefined, pause: Pause
): Promise<Int32Array[]> {
  const pictures: Int32Array[] = []
  for (const [i, picture] of list.entries()) {
    pictures.push(tokenArray(picture, name ?? `tokens[${i}]`, vocabulary, length))
    const waiting = pause()
    if (waiting) await waiting
  }
  return pictures
}
