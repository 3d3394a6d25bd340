// POST /v1/images/edits: a picture is completed. Its transparent cells, or those of a mask, are drawn anew.

import type { FastifyRequest } from 'fastify'
import { checkPicture, keptCells } from './encode.js'
import type { PictureRequest } from './engine.js'
import { RequestError } from './failures.js'
import { imageBody, imageProperties, type ImageFields } from './fields.js'
import { pictureRequest } from './images.js'
import type { Context } from './context.js'

/** @throws RequestError for fields that are wrong; EngineError */
export async function readEdit (
  context: Context, request: FastifyRequest
): Promise<{ wanted: PictureRequest, fields: ImageFields }> {
  if (!request.isMultipart()) {
    throw new RequestError(415, 'unsupported_media_type', 'Send the picture and its mask as multipart/form-data')
  }
  const { fields, files } = await readForm(request)
  const validate = request.compileValidationSchema(imageBody)
  if (!validate(fields)) {
    throw Object.assign(new Error(`body ${validate.errors?.[0]?.message ?? ''}`), { validation: validate.errors })
  }
  const body = fields as unknown as ImageFields
  const { image, mask } = files
  if (!image) throw new RequestError(400, 'invalid_value', 'The image is missing', 'image')
  await checkPicture(image, 'image')
  if (mask) await checkPicture(mask, 'mask')
  const { grid } = context.modelOf(body.model)
  const kept = await keptCells(mask ?? image, grid, mask ? 'mask' : 'image')
  const param = mask ? 'mask' : 'image'
  if (!kept.includes(true)) {
    throw new RequestError(400, 'invalid_value', 'Nothing is kept: every cell has transparent pixels', param)
  }
  if (!kept.includes(false)) {
    throw new RequestError(400, 'invalid_value', 'Nothing is left to draw: no cell has transparent pixels', param)
  }
  return { wanted: { ...pictureRequest(context, request, body), known: { image, mask: kept } }, fields: body }
}

interface Form { fields: Record<string, unknown>, files: Partial<Record<'image' | 'mask', Uint8Array>> }

async function readForm (request: FastifyRequest): Promise<Form> {
  const form: Form = { fields: Object.create(null) as Record<string, unknown>, files: {} }
  try {
    for await (const part of request.parts()) {
      const name = part.fieldname.replace(/\[\]$/, '').slice(0, 100)
      if (part.type === 'field') {
        if (typeof part.value !== 'string') throw new RequestError(400, 'invalid_value', `${name} must be text`, name)
        form.fields[name] = valueOf(name, part.value)
        continue
      }
      const bytes = await part.toBuffer() // 413 where it is too large
      if (name !== 'image' && name !== 'mask') {
        throw new RequestError(400, 'invalid_value', `There is no file '${name}': image and mask`, null)
      }
      if (form.files[name]) throw new RequestError(400, 'invalid_value', `There is one ${name} only`, name)
      form.files[name] = bytes
    }
    return form
  } catch (error) {
    request.raw.unpipe()
    request.raw.resume() // the rest is not looked at
    if (error instanceof RequestError || (error as { statusCode?: number }).statusCode !== undefined) throw error
    throw new RequestError(400, 'bad_request', 'The form is malformed, or was cut off')
  }
}

/** A field of a form is text: what the schema calls a number or a boolean is made one. */
function valueOf (name: string, text: string): unknown {
  const property = Object.hasOwn(imageProperties, name)
    ? imageProperties[name as keyof typeof imageProperties] as { type?: string }
    : undefined
  if (property?.type === 'boolean') return text === 'true' ? true : text === 'false' ? false : text
  const isNumber = property?.type === 'integer' || property?.type === 'number'
  return isNumber && /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text) ? Number(text) : text
}
