// The text with which a sequence begins, of models that read text in place of a class (NBP).

import type { TransformerPart } from '../models/models.js'
import { padded, ucfPrefix } from '../models/ucf.js'
import { invalid, show } from '../base/validate.js'

/** Tokens of text, 0 .. the number of them - 1. */
export type TextTokens = readonly number[]

/** @throws ParError `INVALID_OPTION` for models that read no text */
export function checkPrefixes (part: TransformerPart, given: readonly TextTokens[] | undefined): void {
  const { prefix, model: { classes, textTokens } } = part
  if (!given) {
    if (prefix === 0 || classes > 0) return
    throw invalid(`This model reads text (${textTokens} tokens that are not LLaMA's), and nobody knows how its classes ` +
      'are written: give prefix in place of classId')
  }
  if (prefix === 0) throw invalid('prefix is an option of models that read text (NBP); this one takes classId')
  for (const tokens of given) {
    if (tokens.length > prefix) throw invalid(`prefix holds ${tokens.length} tokens; this model reads up to ${prefix}`)
    const odd = tokens.find(token => token >= textTokens)
    if (odd !== undefined) {
      throw invalid(`prefix has the token ${show(odd)}; this model has text tokens 0 to ${textTokens - 1}`)
    }
  }
}

/**
 * What stands in front of the tokens of each sequence, numbered as native code does: behind the vocabulary.
 * @param given of each sequence; else the names of the classes are taken
 */
export function prefixesOf (
  { prefix, model: { vocabularySize } }: TransformerPart, classIds: readonly number[],
  given: readonly TextTokens[] | undefined
): readonly Int32Array[] | undefined {
  if (prefix === 0) return undefined
  const texts = given?.map(tokens => padded(tokens, prefix)) ?? classIds.map(id => ucfPrefix(id, prefix))
  return texts.map(tokens => Int32Array.from(tokens, token => vocabularySize + token))
}
