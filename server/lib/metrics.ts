// Figures for Prometheus. Each server has a registry of its own.

import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client'
import type { Engine, Load, StepEvent } from './engine.js'

const seconds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 300]
const stepSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5]

export class Metrics {
  readonly registry = new Registry()
  readonly #requests: Histogram<'route' | 'status'>
  readonly #waiting: Histogram<'model'>
  readonly #pictures: Counter<'model'>
  readonly #pictureSeconds: Histogram<'model'>
  readonly #steps: Histogram<'model'>

  constructor (engine: Engine) {
    const { registry } = this
    const registers = [registry]
    collectDefaultMetrics({ register: registry })
    this.#requests = new Histogram({
      name: 'parvis_request_duration_seconds', help: 'Requests, from their headers to the end of the answer.',
      labelNames: ['route', 'status'], buckets: seconds, registers
    })
    this.#waiting = new Histogram({
      name: 'parvis_queue_duration_seconds', help: 'From a request for pictures to its first step.',
      labelNames: ['model'], buckets: seconds, registers
    })
    this.#pictures = new Counter({
      name: 'parvis_pictures_total', help: 'Pictures that were finished.', labelNames: ['model'], registers
    })
    this.#pictureSeconds = new Histogram({
      name: 'parvis_picture_duration_seconds', help: 'Requests for pictures, from the first step to the last pixel.',
      labelNames: ['model'], buckets: seconds, registers
    })
    this.#steps = new Histogram({
      name: 'parvis_step_duration_seconds', help: 'Steps, as a picture sees them.', labelNames: ['model'],
      buckets: stepSeconds, registers
    })
    /** What an engine tells of each model when it is asked. */
    const gauge = (name: string, help: string, key: keyof Load): void => {
      const figure = new Gauge({
        name,
        help,
        labelNames: ['model'],
        registers,
        async collect () {
          figure.reset() // models that are gone have no figures
          for (const model of engine.models()) {
            const value = (await engine.load(model.name).catch(() => undefined))?.[key]
            if (value !== undefined) figure.set({ model: model.name }, value)
          }
        }
      })
    }
    gauge('parvis_queue_waiting', 'Requests that wait for their turn.', 'waiting')
    gauge('parvis_pictures_running', 'Pictures that have a seat in a batch.', 'running')
    gauge('parvis_batch_seats', 'Seats of the batches that are open.', 'seats')
    gauge('parvis_steps', 'Passes of the transformer since the start: a step each, or several.', 'steps')
    gauge('parvis_picture_steps', 'Pictures in those passes, added up.', 'pictureSteps')
  }

  request (route: string, status: number, ms: number): void {
    this.#requests.observe({ route, status: String(status) }, ms / 1000)
  }

  /** Follows a request for pictures. */
  follow (model: string): { step: (event: StepEvent) => void, done: (pictures: number) => void } {
    const asked = performance.now()
    let began: number | undefined
    let last = asked
    return {
      step: () => {
        const now = performance.now()
        if (began === undefined) {
          began = now
          this.#waiting.observe({ model }, (now - asked) / 1000)
        } else {
          this.#steps.observe({ model }, (now - last) / 1000)
        }
        last = now
      },
      done: pictures => {
        this.#pictures.inc({ model }, pictures)
        this.#pictureSeconds.observe({ model }, (performance.now() - (began ?? asked)) / 1000)
      }
    }
  }
}
