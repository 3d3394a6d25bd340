// The command line: `parvis-server` answers requests, `parvis-server worker` computes for servers on a queue.

import fs from 'node:fs'
import os from 'node:os'
import { Command, InvalidArgumentError, Option } from 'commander'
import pino from 'pino'
import type { LoadOptions } from 'parvis'
import type { Engine } from './engine.js'
import { LocalEngine, type ModelSource } from './local.js'
import { QueueEngine } from './queue.js'
import { createServer } from './server.js'
import { QueueWorker } from './worker.js'

const { version } = require('../package.json') as { version: string }

interface Common {
  model: string[]
  models?: string
  device: LoadOptions['device']
  precision: LoadOptions['precision']
  threads?: number
  maxBatch?: number
  queue?: string
  queueCa?: string
  logLevel: string
  grace: number
}

export interface Serve extends Common {
  host: string
  port: number
  apiKey: string[]
  apiKeyFile?: string
  maxQueue: number
  maxBody: number
  maxUpload: number
  deadline: number
  origin: string[]
  mixed: boolean
  page: boolean
}

export interface Work extends Common {
  concurrency: number
}

const whole = (min: number, max: number) => (text: string): number => {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new InvalidArgumentError(`A whole number from ${min} to ${max} is expected.`)
  }
  return value
}
const names = (text: string, before: string[] | undefined): string[] =>
  [...(before ?? []), ...text.split(',').map(name => name.trim()).filter(Boolean)]
const each = (text: string, before: string[] | undefined): string[] => [...(before ?? []), text]

function common (command: Command): Command {
  return command
    .option('--model <names>', 'models by name, a comma list: embedded ones or presets (default: fashion)', names)
    .option('--models <file>', 'a JSON file of models by name, with options of Par.load: ' +
      '{ "mine": { "transformer": "mine.safetensors", "tokenizer": "vq.pt" } }')
    .option('--device <device>', 'auto, cpu, cuda or cuda:<number>', 'auto')
    .addOption(new Option('--precision <type>', 'type of the weights').choices(['auto', 'float32', 'bfloat16', 'int8'])
      .default('auto'))
    .option('--threads <number>', 'CPU threads (default: one per core)', whole(1, 1024))
    .option('--max-batch <pictures>', 'pictures that run together at most (default: what memory allows)', whole(1, 64))
    .addOption(new Option('--queue <url>', 'Redis: redis://host:6379 or rediss://. A password may be given in ' +
      'PARVIS_REDIS_PASSWORD instead').env('PARVIS_QUEUE'))
    .option('--queue-ca <file>', 'certificate of the authority that signed that of Redis')
    .option('--grace <seconds>', 'time that running work is given at the end', whole(0, 86400), 30)
    .addOption(new Option('--log-level <level>', 'what is logged').default('info')
      .choices(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']))
}

/** What the commands do. */
export interface Commands {
  serve: (options: Serve) => Promise<void>
  work: (options: Work) => Promise<void>
}

/** The command line, which is read and handed to one of the commands. */
export function program (run: Commands): Command {
  const root = new Command('parvis-server')
    .description("Serve parvis over HTTP: OpenAI's image API, and a page that shows how pictures form.")
    .version(version).showHelpAfterError('(parvis-server --help lists the options)')
    .enablePositionalOptions()
  common(root)
    .option('--host <address>', 'address to listen on; 0.0.0.0: every one', '127.0.0.1')
    .option('--port <number>', 'port to listen on; 0: a free one', whole(0, 65535), 8080)
    .option('--api-key <key>', 'a key that clients must send; several: give it several times. Others on this machine ' +
      'may read it: prefer --api-key-file or PARVIS_API_KEYS', each)
    .option('--api-key-file <file>', 'a file of keys, one a line')
    .option('--max-queue <requests>', 'requests that may wait; one more is answered with 429', whole(0, 1e6), 64)
    .option('--max-body <bytes>', 'largest JSON body', whole(1024, 2 ** 30), 64 << 10)
    .option('--max-upload <bytes>', 'largest picture that is sent', whole(1024, 2 ** 30), 16 << 20)
    .option('--deadline <seconds>', 'time that a request may take, with its time in the queue', whole(1, 86400), 300)
    .option('--origin <url>', 'a page elsewhere that browsers may let use the API; several: give it several times',
      each)
    .option('--mixed', 'with --queue: let workers of any kind answer; the answer says which did', false)
    .option('--no-page', 'do not serve the page')
    .action(run.serve)
  const worker = new Command('worker')
    .description('Compute for servers on the same queue. Any number of workers may run, on any machines.')
    .option('--concurrency <jobs>', 'jobs that run together', whole(1, 64), 8)
    .showHelpAfterError('(parvis-server worker --help lists the options)')
  common(worker).action(run.work)
  root.addCommand(worker)
  return root
}

/** Runs the command of these arguments; sets the exit code. */
export function main (args: string[]): void {
  program({ serve, work }).parseAsync(args, { from: 'user' }).catch((error: unknown) => {
    const { message, code } = error as { message?: string, code?: string }
    process.stderr.write(`parvis-server: ${message ?? String(error)}${code === undefined ? '' : ` [${code}]`}\n`)
    process.exitCode = 1
  })
}

/** A file of text, without the mark that editors of Windows put in front of it. */
function textOf (file: string): string {
  return fs.readFileSync(file, 'utf8').replace(/^\ufeff/, '')
}

/** By name, and of the file that --models names. Names come from whoever starts the server, never from a client. */
function sources ({ model, models }: Common): Array<string | ModelSource> {
  const named: Array<string | ModelSource> = model ?? (models === undefined ? ['fashion'] : [])
  if (models === undefined) return named
  const listed: unknown = JSON.parse(textOf(models))
  if (typeof listed !== 'object' || listed === null || Array.isArray(listed)) {
    throw new Error(`${models} must hold an object of models by name`)
  }
  return [...named, ...Object.entries(listed).map(([name, load]) => ({ name, load: load as LoadOptions }))]
}

async function localEngine (options: Common, more: { maxQueueSize?: number, hash?: boolean }): Promise<LocalEngine> {
  return await LocalEngine.open({
    models: sources(options), device: options.device, precision: options.precision, threads: options.threads,
    maxBatchSize: options.maxBatch, ...more
  })
}

const queueOptions = ({ queue, queueCa }: Common): { url: string, ca?: string } =>
  ({ url: queue!, ...(queueCa !== undefined && { ca: textOf(queueCa) }) })

/** Max bytes of a picture that crosses the queue. */
const maxQueuedUpload = 16 << 20

async function serve (options: Serve): Promise<void> {
  if (options.queue !== undefined && options.maxUpload > maxQueuedUpload) {
    throw new Error(`With --queue, --max-upload is at most ${maxQueuedUpload}`)
  }
  const log = pino({ level: options.logLevel, redact: ['req.headers.authorization'] })
  const engine: Engine = options.queue === undefined
    ? await localEngine(options, { maxQueueSize: options.maxQueue })
    : await QueueEngine.open({ ...queueOptions(options), maxWaiting: options.maxQueue, mixed: options.mixed, log })
  const server = createServer({
    engine,
    apiKeys: keysOf(options),
    maxBodyBytes: options.maxBody,
    maxUploadBytes: options.maxUpload,
    deadline: options.deadline,
    maxRequests: options.maxQueue + 64,
    grace: options.grace,
    origins: options.origin ?? [],
    page: options.page,
    logger: log
  })
  untilSignal(log, async () => {
    try {
      await server.close()
    } finally {
      await engine.close()
    }
  })
  try {
    await server.listen({ host: options.host, port: options.port })
  } catch (error) {
    await engine.close()
    throw error
  }
  if (!['127.0.0.1', '::1', 'localhost'].includes(options.host) && keysOf(options).length === 0) {
    log.warn({ host: options.host }, 'other machines may reach this server, and no API key is asked for')
  }
  for (const { name, device, kind } of engine.models()) log.info({ model: name, device, kind }, 'model')
}

async function work (options: Work): Promise<void> {
  if (options.queue === undefined) throw new Error('A worker needs --queue redis://host:6379')
  const log = pino({ level: options.logLevel })
  const engine = await localEngine(options, { hash: true })
  const worker = await QueueWorker.open({
    ...queueOptions(options), engine, concurrency: options.concurrency, graceMs: options.grace * 1000, log
  })
  log.info({ models: engine.models().map(({ name }) => name), host: os.hostname() }, 'worker')
  untilSignal(log, async () => {
    try {
      await worker.close()
    } finally {
      await engine.close()
    }
  })
}

/** Keys of the command line, of a file, and of PARVIS_API_KEYS (a comma list). */
function keysOf ({ apiKey, apiKeyFile }: Serve): string[] {
  const lines = apiKeyFile === undefined ? [] : textOf(apiKeyFile).split('\n')
  const keys = [...(apiKey ?? []), ...lines, ...(process.env.PARVIS_API_KEYS ?? '').split(',')].map(key => key.trim())
    .filter(Boolean)
  const bad = keys.find(key => /\s/.test(key) || key.length < 8)
  if (bad !== undefined) throw new Error('An API key has at least 8 characters, none of them a blank')
  const isAsked = apiKey !== undefined || apiKeyFile !== undefined || process.env.PARVIS_API_KEYS !== undefined
  if (isAsked && keys.length === 0) throw new Error('API keys are asked for, but none is given')
  return keys
}

/** Ends in order at the first SIGTERM or SIGINT (Windows: Ctrl-Break too), at once at the second. */
function untilSignal (log: pino.Logger, end: () => Promise<void>): void {
  let isEnding = false
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGBREAK'] as const) {
    process.on(signal, () => {
      if (isEnding) process.exit(signal === 'SIGTERM' ? 143 : 130)
      isEnding = true
      log.info({ signal }, 'draining: running requests are finished, new ones are refused')
      end().then(() => { log.info('ended') }, (error: unknown) => {
        log.error(error, 'the end went wrong')
        process.exitCode = 1
      })
    })
  }
}
