// How near one picture is to another, in the two figures that papers on tokenizers print. Both are those of
// scikit-image with its default settings on bytes, which the authors' evaluation uses; the definitions differ
// elsewhere (a Gaussian window, luminance only, an assumed range), and figures of different definitions do not compare.

import { isUint8Array, trueLength } from '../base/realm.js'
import { invalid, isObject } from '../base/validate.js'

/** Pixels to compare. An `Image` of bytes is one. */
export interface Comparable {
  /** RGB, [height, width, 3] */
  data: Uint8Array
  /** Pixels. */
  width: number
  /** Pixels. */
  height: number
}

/**
 * Peak signal-to-noise ratio in decibels: `10 log10(255^2 / mean squared difference)` over all values of the three
 * channels. Identical pictures have Infinity.
 * @throws ParError `INVALID_OPTION` where sizes differ or the data are not bytes
 */
export function psnr (a: Comparable, b: Comparable): number {
  check(a, b)
  let sum = 0
  for (let i = 0; i < a.data.length; i++) sum += (a.data[i]! - b.data[i]!) ** 2
  return 10 * Math.log10(255 ** 2 / (sum / a.data.length))
}

/** Side of the window. */
const side = 7

/**
 * Structural similarity, 1 for identical pictures: the mean over channels and over all windows of 7 x 7 pixels that lie
 * inside the picture, uniform weights, sample covariance, K1 = 0.01, K2 = 0.03, range 255.
 * @throws ParError `INVALID_OPTION` where sizes differ, the data are not bytes, or a side is shorter than 7 pixels
 */
export function ssim (a: Comparable, b: Comparable): number {
  check(a, b)
  const { width, height } = a
  if (Math.min(width, height) < side) {
    throw invalid(`ssim compares windows of ${side} x ${side} pixels; these pictures are ${width} x ${height}`)
  }
  const count = side * side
  const [c1, c2] = [(0.01 * 255) ** 2, (0.03 * 255) ** 2]
  // Sums over the window's rows for each column of values; whole numbers, so that adding and taking away is exact.
  const stride = width * 3
  const sums = Array.from({ length: 5 }, () => new Float64Array(stride)) // a, b, aa, bb, ab
  const [sa, sb, saa, sbb, sab] = sums as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array]
  const addRow = (y: number, sign: 1 | -1): void => {
    for (let i = 0, at = y * stride; i < stride; i++, at++) {
      const [p, q] = [a.data[at]!, b.data[at]!]
      sa[i]! += sign * p
      sb[i]! += sign * q
      saa[i]! += sign * p * p
      sbb[i]! += sign * q * q
      sab[i]! += sign * p * q
    }
  }
  let total = 0
  for (let y = 0; y < height; y++) {
    addRow(y, 1)
    if (y < side - 1) continue
    if (y >= side) addRow(y - side, -1)
    for (let c = 0; c < 3; c++) {
      let [wa, wb, waa, wbb, wab] = [0, 0, 0, 0, 0]
      for (let x = 0; x < width; x++) {
        const enters = x * 3 + c
        wa += sa[enters]!; wb += sb[enters]!; waa += saa[enters]!; wbb += sbb[enters]!; wab += sab[enters]!
        if (x < side - 1) continue
        const [ma, mb] = [wa / count, wb / count]
        const va = (waa - wa * ma) / (count - 1)
        const vb = (wbb - wb * mb) / (count - 1)
        const vab = (wab - wa * mb) / (count - 1)
        total += (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        const leaves = (x - side + 1) * 3 + c
        wa -= sa[leaves]!; wb -= sb[leaves]!; waa -= saa[leaves]!; wbb -= sbb[leaves]!; wab -= sab[leaves]!
      }
    }
  }
  return total / (3 * (width - side + 1) * (height - side + 1))
}

function check (a: Comparable, b: Comparable): void {
  for (const picture of [a, b]) {
    const { data, width, height } = isObject(picture) ? picture : {} as Comparable
    if (!isUint8Array(data) || data.length === 0 || data.length !== width * height * 3 ||
      data.length !== trueLength(data)) {
      throw invalid(
        'Pictures are compared as RGB bytes: { data, width, height } with width * height * 3 values in a Uint8Array'
      )
    }
  }
  if (a.width !== b.width || a.height !== b.height) {
    throw invalid(
      `Pictures of one size can be compared; these are ${a.width} x ${a.height} and ${b.width} x ${b.height}`
    )
  }
}
