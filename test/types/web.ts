// What a web application writes with parvis, compiled under several settings and versions of TypeScript by
// test/types.test.ts. The types of the web (Response, Blob) are those of lib "dom" or of @types/node.

import par, {
  animate, createSchedule, Image, Par, ParError, pull, type DecodeOptions, type EncodeOptions, type GenerateOptions,
  type LoadOptions, type PresetOptions, type ScoreOptions
} from 'parvis'

/** The route of docs/recipes.md. */
export async function GET (request: Request, { params }: { params: Promise<{ class: string }> }) {
  try {
    const image = await par.generate({ classId: (await params).class, signal: request.signal })
    return new Response(await image.toBuffer('webp'), { headers: { 'content-type': 'image/webp' } })
  } catch (error) {
    if (request.signal.aborted) return new Response(null, { status: 499 })      // nobody reads this answer
    const known = error instanceof ParError && ['BAD_CLASS_ID', 'UNSUPPORTED_N', 'INVALID_OPTION'].includes(error.code)
    const body = { code: known ? error.code : 'INTERNAL', message: known ? error.message : 'failed' }
    return Response.json(body, { status: known ? 400 : 500 })
  }
}

/** A route: everything that comes out of a query may be absent. */
export async function POST (query: {
  classId: string, seed?: number | undefined, n?: number | undefined, size?: number | undefined
}, signal: AbortSignal | undefined): Promise<Response> {
  const { classId, seed, n, size } = query
  const image = await par.generate({
    classId, seed, n, size, signal, guidanceScale: undefined, topK: undefined, onProgress: undefined, order: undefined
  })
  return new Response(await image.toBuffer('webp'), { headers: { 'content-type': 'image/webp' } })
}

export async function others (some: undefined | number): Promise<void> {
  const image = await par.generate({ classId: 1, seed: some })
  void new Blob([image.data])
  void new Blob([image.bytes()])
  void new Response(image.bytes())
  void new Response(await image.toBlob())
  const form = new FormData()
  form.append('picture', new Blob([await image.toBuffer()]), 'picture.png')
  await fetch('https://example.org', { method: 'POST', body: await image.toBuffer('raw') })
  const own: Image = new Image(new Uint8Array(3), 1, 1)
  const options: [LoadOptions, PresetOptions, GenerateOptions, ScoreOptions, DecodeOptions, EncodeOptions] = [
    {
      transformer: undefined, tokenizer: undefined, threads: some, device: undefined, precision: undefined,
      signal: undefined
    },
    { pull: undefined, onPull: undefined, cache: undefined, threads: some },
    { classId: 1, n: some, temperature: some, greedy: undefined },
    { tokens: image.tokens, classId: 1, n: some, logits: undefined, method: undefined },
    { size: some, format: undefined, grid: some }, { grid: some, crop: undefined, background: undefined }
  ]
  await Par.load(options[0])
  await par.decode(image.tokens, { size: some, format: undefined })
  await par.encode(own, { grid: some, background: undefined })
  createSchedule({ grid: [16, 16], n: 4, order: undefined, initial: undefined })
  await pull('par-xl-4x', { cache: undefined, signal: undefined })
  void animate
}

/** What fetch and an upload bring. */
export async function pictures (response: Response, request: Request, file: File): Promise<void> {
  if (response.body && request.body) {
    await Promise.all([par.encode(response.body), par.prepare(request.body), par.classify(response.body)])
  }
  await Promise.all([par.encode(response), par.encode(file), par.encode(file.stream())])
}
