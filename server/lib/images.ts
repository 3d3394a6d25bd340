// Answers of POST /v1/images/generations and /v1/images/edits.

import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Picture, PictureRequest, Pixels, Result } from './engine.js'
import { dataUrl, fileOf } from './encode.js'
import { drawOptions, idempotencyKey, seedOf, sizeOf, type ImageFields } from './fields.js'
import type { Context } from './context.js'
import { EventStream, failStream } from './sse.js'

/** What a request asks for. @throws EngineError `MODEL_NOT_FOUND`, RequestError */
export function pictureRequest (context: Context, request: FastifyRequest, fields: ImageFields): PictureRequest {
  const size = sizeOf(fields.size, fields.n ?? 1)
  const key = idempotencyKey(request.headers)
  return {
    model: context.modelOf(fields.model).name, classId: fields.prompt, count: fields.n ?? 1,
    seed: seedOf(fields.seed, key), options: drawOptions(fields), ...(size && { size }),
    ...(key !== undefined && { idempotencyKey: key }),
    previews: fields.stream === true ? fields.partial_images ?? 0 : 0
  }
}

const now = (): number => Math.floor(Date.now() / 1000)

/** What the usage of OpenAI's API counts: one token of text, and those that were drawn. */
function usageOf (pictures: readonly Picture[]): object {
  const drawn = pictures.reduce((sum, { tokenOrder }) => sum + tokenOrder.length, 0)
  return {
    input_tokens: pictures.length, output_tokens: drawn, total_tokens: pictures.length + drawn,
    input_tokens_details: { text_tokens: pictures.length, image_tokens: 0 }
  }
}

/** What is said of a picture beside its bytes. */
function facts ({ seed, steps, n, classId, label, transformerMs, decodeMs, totalMs }: Picture): object {
  return {
    seed, steps, tokens_per_step: n, class_id: classId, label: label ?? null,
    timings: { transformer_ms: transformerMs, decode_ms: decodeMs, total_ms: totalMs }
  }
}

/** The whole answer at once. */
export async function answer (
  context: Context, reply: FastifyReply, wanted: PictureRequest, fields: ImageFields
): Promise<object> {
  const { pictures, kind }: Result = await context.draw(reply, wanted, {})
  const { output_format: format = 'png', output_compression: compression, response_format: response } = fields
  const data = await Promise.all(pictures.map(async picture => {
    const file = await fileOf(picture, format, compression)
    return {
      ...(response === 'url' ? { url: dataUrl(file, format) } : { b64_json: file.toString('base64') }),
      ...(picture.label !== undefined && { revised_prompt: picture.label }),
      ...facts(picture)
    }
  }))
  const { width, height } = pictures[0]!
  return {
    created: now(), data, size: `${width}x${height}`, output_format: format, background: 'opaque',
    model: wanted.model, kind, usage: usageOf(pictures)
  }
}

/** Events as OpenAI sends them: partial images of the first picture, then each picture. */
export async function stream (
  context: Context, request: FastifyRequest, reply: FastifyReply, wanted: PictureRequest, fields: ImageFields,
  name: 'image_generation' | 'image_edit'
): Promise<FastifyReply> {
  const { output_format: format = 'png', output_compression: compression } = fields
  let events: EventStream | undefined
  const begin = (): EventStream => {
    events ??= new EventStream(reply) // not before: bad options are a plain 400
    return events
  }
  let partial = 0
  let sending = Promise.resolve() // in their order
  const send = (type: string, pixels: Pixels, more: object): void => {
    const file = fileOf(pixels, format, compression)
    file.catch(() => {})
    sending = sending.then(async () => {
      const type_ = `${name}.${type}`
      begin().send(type_, {
        type: type_, b64_json: (await file).toString('base64'), created_at: now(),
        size: `${pixels.width}x${pixels.height}`, quality: 'auto', background: 'opaque', output_format: format, ...more
      })
    })
    sending.catch(() => {})
  }
  try {
    const { pictures, kind } = await context.draw(reply, wanted, {
      step: () => { begin() },
      preview: (pixels, step) => {
        if (begin().isFull) return
        send('partial_image', pixels, { partial_image_index: partial++, step })
      }
    })
    for (const picture of pictures) {
      send('completed', picture, { ...facts(picture), model: wanted.model, kind, usage: usageOf([picture]) })
    }
    await sending
  } catch (error) {
    failStream(request, reply, events, error)
  }
  events?.end()
  return reply
}
