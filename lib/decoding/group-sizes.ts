// How many tokens each step of a parallel decoder draws. The sizes of a list are at least 1 and add up to the tokens of
// a picture. Formulas and tables: ARPG (2503.10568) and RandAR (2412.01827) compute them, LPD (2507.01957) publishes
// them as data.

/** How the share of tokens that are left falls from step to step. */
export type StepSchedule = 'arccos' | 'cosine'

/**
 * ARPG's sizes.
 * @param steps 1 to `tokens`
 */
export function arpgGroupSizes (tokens: number, steps: number, schedule: StepSchedule): number[] {
  const sizes: number[] = []
  let done = 0
  for (let step = 1; step < steps; step++) {
    const share = step / steps
    const ratio = schedule === 'arccos' ? Math.acos(share) / (Math.PI / 2) : Math.cos(Math.PI / 2 * share)
    const left = Math.max(1, Math.min(tokens - done - 1, Math.trunc(tokens * ratio)))
    sizes.push(tokens - done - left)
    done = tokens - left
  }
  return [...sizes, tokens - done]
}

/**
 * RandAR's sizes: one token, then as many as a cosine asks for.
 * @param steps 2 to `tokens`
 */
export function randarGroupSizes (tokens: number, steps: number): number[] {
  const sizes = [1]
  for (let [step, done] = [0, 1]; done < tokens; step++) {
    const target = Math.min(Math.trunc((1 - Math.cos(Math.PI / 2 * ((step + 2) / steps))) * tokens + 1), tokens)
    const size = Math.min(Math.max(target - done, 1), tokens - done)
    sizes.push(size)
    done += size
  }
  return sizes
}

/** Of so many steps with one size each: [size, steps]. */
const repeated = (...runs: Array<[size: number, steps: number]>): number[] =>
  runs.flatMap(([size, steps]) => new Array<number>(steps).fill(size))

/** LPD's tables, by the tokens of a picture. */
const lpdTables: Readonly<Record<number, readonly number[][]>> = {
  256: [
    [1, 15, 24, 32, 40, 45, 49, 50],
    [1, 7, 11, 15, 19, 22, 25, 28, 30, 32, 33, 33],
    [1, 4, 6, 8, 11, 13, 15, 17, 19, 20, 22, 23, 24, 24, 24, 25],
    [1, 2, 4, 5, 7, 8, 10, 11, 12, 14, 15, 16, 17, 18, 18, 19, 19, 20, 20, 20],
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 12, 13, 14, 14, 14, 15, 15, 16, 16, 16, 17, 17],
    [1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 10, 11, 11, 11, 11, 12, 12, 12, 12, 12, 12, 12, 12],
    repeated([1, 10], [2, 7], [3, 7], [4, 9], [5, 11], [6, 20])
  ],
  1024: [
    [1, 4, 6, 9, 11, 13, 16, 18, 20, 23, 25, 27, 29, 31, 33, 35, 36, 38, 40, 41, 42, 44, 45, 46, 47, 48, 48, 49, 49, 50,
      50, 50],
    [...Array.from({ length: 22 }, (_, i) => i + 1), 23, 23, 24, 25, 26, 26, 27, 28, 28, 29, 29, 30, 30, 31, 31, 32, 32,
      32, 33, 33, 33, 33, 33, 33, 33, 34]
  ]
}

/** The numbers of steps that LPD has group sizes for, ascending; the last one draws token by token. */
export const lpdSteps = (tokens: number): number[] =>
  [...(lpdTables[tokens] ?? []).map(({ length }) => length), tokens]

/** LPD's sizes; undefined for a number of steps that {@link lpdSteps} does not have. */
export function lpdGroupSizes (tokens: number, steps: number): number[] | undefined {
  if (steps === tokens) return repeated([1, tokens])
  return lpdTables[tokens]?.find(({ length }) => length === steps)?.slice()
}
