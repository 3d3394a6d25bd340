// Errors as OpenAI's API has them, and the status of each.

/** The body of an answer that is an error. */
export interface Failure {
  error: {
    message: string
    type: 'invalid_request_error' | 'authentication_error' | 'rate_limit_error' | 'server_error'
    /** The field that is wrong, where one is. */
    param: string | null
    code: string
  }
}

/** An answer that is an error: thrown where a request is looked at. */
export class RequestError extends Error {
  constructor (readonly status: number, readonly code: string, message: string, readonly param: string | null = null) {
    super(message)
    this.name = 'RequestError'
  }
}

/** Options of the library by the names of the fields that they come from. */
const fields: Readonly<Record<string, string>> = {
  classId: 'prompt', n: 'tokens_per_step', steps: 'steps', guidanceScale: 'guidance_scale', topK: 'top_k',
  topP: 'top_p', temperature: 'temperature', seed: 'seed', size: 'size', stepSchedule: 'step_schedule', known: 'mask',
  guidanceSchedule: 'guidance_schedule', draw: 'draw'
}
/** Fields that codes are about. */
const fieldOf: Readonly<Record<string, string>> = {
  BAD_CLASS_ID: 'prompt', MODEL_NOT_FOUND: 'model', UNSUPPORTED_N: 'tokens_per_step'
}
/** Whose fault each code of ParError and EngineError is, as a status. Others are defects: 500, without a message. */
const statuses: Readonly<Record<string, number>> = {
  BAD_CLASS_ID: 400, UNSUPPORTED_N: 400, INVALID_OPTION: 400, BAD_IMAGE: 400, MODEL_NOT_FOUND: 404, QUEUE_FULL: 429,
  SERVER_BUSY: 429, OUT_OF_MEMORY: 503, DISPOSED: 503, DEVICE_UNAVAILABLE: 503, SHUTTING_DOWN: 503,
  QUEUE_UNAVAILABLE: 503, DEADLINE_EXCEEDED: 504
}
const types: Readonly<Record<number, Failure['error']['type']>> = {
  401: 'authentication_error', 429: 'rate_limit_error'
}

const typeOf = (status: number): Failure['error']['type'] =>
  types[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error')

/** Status and body for any error. `isDefect`: the log must have it, since the answer does not. */
export function failureOf (error: unknown): { status: number, body: Failure, isDefect: boolean } {
  const { message, code, statusCode, validation } = error as {
    message?: string, code?: string, statusCode?: number
    validation?: Array<{ instancePath: string, params: { additionalProperty?: string, missingProperty?: string } }>
  }
  const failure = (status: number, code: string, message: string, param: string | null = null) =>
    ({ status, body: { error: { message, type: typeOf(status), param, code } }, isDefect: false })
  if (error instanceof RequestError) return failure(error.status, error.code, error.message, error.param)
  if (validation?.[0]) {
    const { instancePath, params } = validation[0]
    const field = params.additionalProperty ?? params.missingProperty ?? instancePath.split('/')[1] ?? null
    const unknown = params.additionalProperty === undefined ? '' : ', which no field of this request is called'
    return failure(400, 'invalid_value', `${message}${unknown && `: '${field}'${unknown}`}`, field)
  }
  const known = code !== undefined && Object.hasOwn(statuses, code) ? statuses[code] : undefined
  if (known !== undefined) {
    const option = /^[a-zA-Z]+/.exec(message ?? '')?.[0] ?? ''
    const field = fieldOf[code!] ?? (Object.hasOwn(fields, option) ? fields[option]! : null)
    return failure(known, code!.toLowerCase(), message ?? '', field)
  }
  // Of Fastify: a body that is too large, or no JSON.
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    const name = statusCode === 413 ? 'body_too_large' : statusCode === 415 ? 'unsupported_media_type' : 'bad_request'
    return failure(statusCode, name, message ?? '')
  }
  return {
    ...failure(500, 'internal_error', 'The server failed. Its log has the reason, under the id of this request.'),
    isDefect: true
  }
}
