// What does not depend on where this code runs. Test environments (Jest, vitest) and vm contexts run modules beside a
// set of globals of their own: typed arrays and errors that the addon and Node make then fail `instanceof`, fetch or
// TextDecoder may be missing, and AbortController may be a stand-in that Node's own functions refuse. So values are
// told by brand, and what Node brings is taken from its modules.

import * as util from 'node:util'
import vm from 'node:vm'

export const { isInt32Array, isUint8Array, isUint8ClampedArray, isFloat32Array, isFloat64Array } = util.types

/** An error of any realm, DOMException included. */
export function isError (value: unknown): value is Error {
  return util.types.isNativeError(value) || brand(value) === 'DOMException'
}

export function isUrl (value: unknown): value is URL {
  return brand(value) === 'URL'
}

function brand (value: unknown): string {
  try {
    return Object.prototype.toString.call(value).slice(8, -1)
  } catch {
    return '' // a Proxy that was revoked
  }
}

// `length` of a typed array can be hidden by a property of its own, which native code does not see.
const lengthOf = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), 'length')!.get!

/** Elements that a typed array of any realm really has. */
export function trueLength (array: Uint8Array | Int32Array | Float32Array): number {
  return lengthOf.call(array) as number
}

/** Node's own fetch and what goes with it. Looked up when called: Node loads them at first use. */
export function nodeWeb (): Pick<typeof globalThis, 'fetch' | 'Response'> {
  return vm.runInThisContext('globalThis') as typeof globalThis
}

// The one way to it that no test environment replaces. Bun has no such function, and its test environments replace
// nothing.
export const NodeAbortController = typeof util.transferableAbortController === 'function'
  ? util.transferableAbortController().constructor as typeof AbortController
  : AbortController
const NodeAbortSignal = new NodeAbortController().signal.constructor as typeof AbortSignal

/** Signals of other realms and of polyfills -> Node's own that follow them. */
const followers = new WeakMap<object, AbortSignal>()

/** Node's own signal that is aborted when this one is: of another realm, of jsdom, or of a polyfill. */
export function nodeSignal (signal: AbortSignal): AbortSignal {
  const given: object = signal
  if (given instanceof NodeAbortSignal) return signal
  const known = followers.get(signal)
  if (known) return known
  const controller = new NodeAbortController()
  // A polyfill may know no reasons; undefined becomes an AbortError.
  const follow = (): void => controller.abort(signal.reason)
  if (signal.aborted) follow()
  else signal.addEventListener('abort', follow, { once: true })
  followers.set(signal, controller.signal)
  return controller.signal
}
