// The API as an OpenAPI document, from the schemas that requests are checked with.

import { imageBody, imageProperties } from './fields.js'

const { version } = require('../package.json') as { version: string }

const json = (schema: object): object => ({ content: { 'application/json': { schema } } })
const ref = (name: string): object => ({ $ref: `#/components/schemas/${name}` })

export function openApi (hasKeys: boolean): object {
  const failures = Object.fromEntries([
    ['400', 'A field is wrong.'], ['401', 'The API key is missing or wrong.'], ['404', 'There is no such model.'],
    ['413', 'The body is too large.'], ['429', 'Too many requests wait; Retry-After says when to try again.'],
    ['500', 'The server failed.'], ['503', 'The server cannot work now.'], ['504', 'The deadline has passed.']
  ].map(([status, description]) => [status, { description, ...json(ref('Error')) }]))
  const pictures = {
    description: 'The pictures; or, with stream, events image_generation.partial_image and image_generation.completed ' +
      '(of edits: image_edit.*), and error.',
    content: { 'application/json': { schema: ref('Images') }, 'text/event-stream': { schema: { type: 'string' } } }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'parvis-server', version, description: "Pictures of a class, by OpenAI's image API with fields of its own."
    },
    ...(hasKeys && { security: [{ key: [] }] }),
    paths: {
      '/v1/images/generations': {
        post: {
          summary: 'Makes pictures of a class.', operationId: 'generate',
          parameters: [{
            name: 'Idempotency-Key', in: 'header', schema: { type: 'string', maxLength: 200 },
            description: 'With a queue: a request that is sent again under its key is answered, and not computed, again.'
          }],
          requestBody: { required: true, ...json(ref('ImageRequest')) }, responses: { 200: pictures, ...failures }
        }
      },
      '/v1/images/edits': {
        post: {
          summary: 'Draws the transparent cells of a picture, or of its mask, anew.', operationId: 'edit',
          requestBody: {
            required: true,
            content: {
              'multipart/form-data': {
                schema: {
                  type: 'object', required: ['image', 'prompt'], additionalProperties: false,
                  properties: {
                    image: { type: 'string', format: 'binary' }, mask: { type: 'string', format: 'binary' },
                    ...imageProperties
                  }
                }
              }
            }
          },
          responses: { 200: pictures, ...failures }
        }
      },
      '/v1/models': {
        get: {
          summary: 'The models.', operationId: 'models',
          responses: {
            200: {
              description: 'The models.',
              ...json({
                type: 'object', properties: { object: { const: 'list' }, data: { type: 'array', items: ref('Model') } }
              })
            }
          }
        }
      },
      '/v1/models/{model}': {
        get: {
          summary: 'A model.', operationId: 'model',
          parameters: [{ name: 'model', in: 'path', required: true, schema: { type: 'string' } }],
          responses: { 200: { description: 'The model.', ...json(ref('Model')) }, 404: failures['404'] }
        }
      },
      '/healthz': { get: { summary: 'The process lives.', responses: { 200: { description: 'It does.' } } } },
      '/readyz': {
        get: {
          summary: 'Requests are served.',
          responses: { 200: { description: 'They are.' }, 503: { description: 'They are not; problem says why.' } }
        }
      },
      '/metrics': { get: { summary: 'Figures for Prometheus.', responses: { 200: { description: 'The figures.' } } } }
    },
    components: {
      ...(hasKeys && { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } }),
      schemas: {
        ImageRequest: imageBody,
        Images: {
          type: 'object',
          required: ['created', 'data'],
          properties: {
            created: { type: 'integer' }, size: { type: 'string' }, output_format: { type: 'string' },
            model: { type: 'string' }, kind: ref('Kind'),
            data: {
              type: 'array',
              items: {
                type: 'object',
                properties: {
                  b64_json: { type: 'string' }, url: { type: 'string' }, revised_prompt: { type: 'string' },
                  seed: { type: 'integer' }, steps: { type: 'integer' }, tokens_per_step: { type: 'integer' },
                  class_id: { type: 'integer' }, label: { type: ['string', 'null'] }, timings: { type: 'object' }
                }
              }
            }
          }
        },
        Kind: {
          type: 'object', description: 'What made the bytes: pictures of one seed are equal among equal kinds.',
          properties: {
            backend: { type: 'string' }, precision: { type: 'string' }, weights: { type: 'string' }
          }
        },
        Model: {
          type: 'object', required: ['id', 'object'],
          properties: {
            id: { type: 'string' }, object: { const: 'model' }, method: { type: 'string' }, size: { type: 'string' },
            classes: { type: 'integer' }, tokens_per_step: { type: 'array', items: { type: 'integer' } },
            kind: ref('Kind')
          }
        },
        Error: {
          type: 'object', required: ['error'],
          properties: {
            error: {
              type: 'object', required: ['message', 'type', 'param', 'code'],
              properties: {
                message: { type: 'string' }, type: { type: 'string' }, param: { type: ['string', 'null'] },
                code: { type: 'string' }
              }
            }
          }
        }
      }
    }
  }
}
