// Element types by the names that the two formats give them. Three carry weights, and int8 does with scales; the rest
// are known so that a file which also holds counters or masks can be listed and its bounds checked.

import type { DType, StoredType } from '../machine/native.js'

/** Bits an element, by PyTorch's name. */
export const elementBits: ReadonlyMap<string, number> = new Map([
  ['float32', 32], ['float16', 16], ['bfloat16', 16], ['float64', 64],
  ['int64', 64], ['int32', 32], ['int16', 16], ['int8', 8], ['uint64', 64], ['uint32', 32], ['uint16', 16],
  ['uint8', 8], ['bool', 8],
  ['complex32', 32], ['complex64', 64], ['complex128', 128],
  ['qint8', 8], ['quint8', 8], ['qint32', 32], ['quint4x2', 8], ['quint2x4', 8],
  ['float8_e4m3fn', 8], ['float8_e5m2', 8], ['float8_e4m3fnuz', 8], ['float8_e5m2fnuz', 8], ['float8_e8m0fnu', 8],
  ['float4', 4], ['float6_e2m3', 6], ['float6_e3m2', 6]
])

/** PyTorch's storage classes. */
export const storageTypes: ReadonlyMap<string, string> = new Map([
  ['FloatStorage', 'float32'], ['HalfStorage', 'float16'], ['BFloat16Storage', 'bfloat16'],
  ['DoubleStorage', 'float64'],
  ['LongStorage', 'int64'], ['IntStorage', 'int32'], ['ShortStorage', 'int16'], ['CharStorage', 'int8'],
  ['ByteStorage', 'uint8'],
  ['BoolStorage', 'bool'], ['ComplexFloatStorage', 'complex64'], ['ComplexDoubleStorage', 'complex128'],
  ['QInt8Storage', 'qint8'], ['QUInt8Storage', 'quint8'], ['QInt32Storage', 'qint32'], ['QUInt4x2Storage', 'quint4x2'],
  ['QUInt2x4Storage', 'quint2x4'],
  ['UntypedStorage', 'uint8'], ['TypedStorage', 'uint8']
])

/** The dtype strings of .safetensors. */
export const safetensorsTypes: ReadonlyMap<string, string> = new Map([
  ['F32', 'float32'], ['F16', 'float16'], ['BF16', 'bfloat16'], ['F64', 'float64'],
  ['I64', 'int64'], ['I32', 'int32'], ['I16', 'int16'], ['I8', 'int8'], ['U64', 'uint64'], ['U32', 'uint32'],
  ['U16', 'uint16'], ['U8', 'uint8'],
  ['BOOL', 'bool'], ['C64', 'complex64'], ['F8_E4M3', 'float8_e4m3fn'], ['F8_E5M2', 'float8_e5m2'],
  ['F8_E4M3FNUZ', 'float8_e4m3fnuz'], ['F8_E5M2FNUZ', 'float8_e5m2fnuz'],
  ['F8_E8M0', 'float8_e8m0fnu'],
  ['F4', 'float4'], ['F6_E2M3', 'float6_e2m3'], ['F6_E3M2', 'float6_e3m2']
])

/** Is it one of the three types that weights may have? */
export function isWeightType (dtype: string): dtype is DType {
  return dtype === 'float32' || dtype === 'float16' || dtype === 'bfloat16'
}

/** Bytes an element. */
export function elementBytes (dtype: StoredType): 1 | 2 | 4 {
  return dtype === 'float32' ? 4 : dtype === 'int8' ? 1 : 2
}

/** Elements of a shape, or undefined when a size is no whole number >= 0 or the product is not exact. */
export function countElements (shape: readonly unknown[]): number | undefined {
  let count = 1
  for (const size of shape) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined
    count *= size
    if (!Number.isSafeInteger(count)) return undefined
  }
  return count
}
