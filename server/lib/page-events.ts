// POST /api/draw: what the page is told while a picture forms.

import type { FastifyReply, FastifyRequest } from 'fastify'
import { dataUrl, fileOf } from './encode.js'
import { drawOptions, seedOf, type PageFields } from './fields.js'
import type { Context } from './context.js'
import { EventStream, failStream } from './sse.js'

export async function drawEvents (
  context: Context, request: FastifyRequest<{ Body: PageFields }>, reply: FastifyReply
): Promise<FastifyReply> {
  const { model, class: classId, seed, n, steps, guidance_scale: guidance } = request.body
  const info = context.modelOf(model)
  const wanted = {
    model: info.name, classId, count: 1, seed: seedOf(seed), previews: 'all' as const,
    options: drawOptions({ tokens_per_step: n, steps, guidance_scale: guidance } as object)
  }
  let events: EventStream | undefined
  // Bad options are a plain 400: the stream begins with the first thing that can be told.
  const begin = (): EventStream => {
    if (events) return events
    events = new EventStream(reply)
    events.send('begun', { seed: wanted.seed, model: info.name, grid: info.grid })
    return events
  }
  const previews = new Set<Promise<void>>()
  try {
    const { pictures: [picture] } = await context.draw(reply, wanted, {
      queued: place => { begin().send('queued', { place }) },
      step: event => { begin().send('step', event) },
      preview: (pixels, step) => {
        if (begin().isFull) return
        const sent: Promise<void> = fileOf(pixels, 'png').then(file => {
          begin().send('preview', { step, image: dataUrl(file, 'png') })
        }).finally(() => previews.delete(sent))
        sent.catch(() => {})
        previews.add(sent)
      }
    })
    await Promise.allSettled(previews)
    const file = await fileOf(picture!, 'png')
    begin().send('picture', {
      image: dataUrl(file, 'png'), width: picture!.width, height: picture!.height, seed: picture!.seed,
      steps: picture!.steps, n: picture!.n, class_id: picture!.classId, label: picture!.label ?? null,
      ms: picture!.totalMs, transformer_ms: picture!.transformerMs, decode_ms: picture!.decodeMs,
      token_order: picture!.tokenOrder
    })
  } catch (error) {
    failStream(request, reply, events, error)
  }
  events?.end()
  return reply
}
