// What a run of the benchmarks says: the JSON of `parvis bench -o json`, from which tables and plots are made.

import type { Precision } from '../machine/native.js'

/** Milliseconds of repeated runs. */
export interface Spread { median: number, least: number, greatest: number }

/**
 * What the device itself can do, measured beside each result; `null` where nothing did (GPUs, before 'parvis-bench-3').
 */
export interface Ceilings { readBytesPerSecond: number, float32Flops: number, bfloat16Flops: number }

/** What is measured: one of each list with one of each other. */
export interface Case {
  /** 'cpu' or 'cuda:N'. */
  device: string
  precision: Precision
  batch: number
  /** Tokens a side. */
  grid: number
}

export interface StepCase extends Case {
  model: string
  /** Tokens a step. */
  n: number
}

/** Shares of the ceilings, where there are any. */
export interface Shares {
  ceilings: Ceilings | null
  ofReadCeiling?: number
  ofArithmeticCeiling?: number
}

/** The same work by PyTorch, in short runs that alternate with ours. */
export interface PeerResult {
  /** Which of them: '2 threads', 'eager', 'compiled', "authors' code". Older reports have threads only. */
  name?: string
  threads?: number
  precision: Precision
  /** Of a step or decode, as ours are; of whole pictures, their time over their steps. */
  ms: Spread
  /** Its median over ours. */
  ratio: number
  /** Its least over ours: what else runs on the machine counts for less. */
  ratioOfLeast: number
  /** Before anything was timed. */
  compileMs?: number
  /** What it says of itself. */
  notes?: string[]
}

export interface StepResult extends StepCase, Shares {
  operation: 'step'
  /** Steps of a picture. */
  steps: number
  /** Steps that were timed. `whole`: pictures were timed, each with all its steps. */
  timedSteps: number
  whole: boolean
  /** A step of n tokens; of whole pictures, their time over their steps. */
  ms: Spread
  /** Medians along the cache: a step that sees so many slots. Empty where whole pictures were timed. */
  places: Array<{ sees: number, ms: number, steps: number }>
  /** From the first step to the last of a batch, the tokenizer apart. */
  msPerBatch: number
  msPerImage: number
  imagesPerSecond: number
  tokensPerSecond: number
  /** Of an average step. */
  weightBytes: number
  cacheBytes: number
  bytes: number
  flops: number
  gigabytesPerSecond: number
  gigaflops: number
  /** Weights from a file in the system's cache into native memory; and the first step on them. */
  loadMs: number
  firstStepMs: number
  torch: PeerResult[]
}

export interface DecodeResult extends Case, Shares {
  operation: 'decode'
  model: 'VQ-16' | 'NBP tokenizer'
  /** Of a clip; absent for pictures. */
  frames?: number
  pixels: number
  /** A batch. */
  ms: Spread
  msPerImage: number
  imagesPerSecond: number
  flops: number
  gigaflops: number
  loadMs: number
  torch: PeerResult[]
}

/**
 * All launches of a name and a shape, as the step or the decode ran them. In a report of form 3 it is an operation that
 * was run by itself on random numbers.
 */
export interface OperationResult extends Case, Shares {
  partOf: 'step' | 'decode'
  /** 'VQ-16' of a decode. */
  model: string
  /** Of a step. */
  n?: number
  name: string
  shape: string
  /** So often in a step or decode. */
  times: number
  /** false, in a report of form 3: it is a part of another one, and in no sum. */
  summed?: boolean
  ms: Spread
  /** Its median so often. */
  msInAll: number
  bytes: number
  flops: number
  gigabytesPerSecond: number
  gigaflops: number
}

export type Result = StepResult | DecodeResult

/** What could not be measured, and why. */
export interface NotRun { what: string, reason: string }

/** A fresh process with the embedded model, milliseconds. */
export interface ColdStart {
  device: string
  /** Node from its start until the package is imported. */
  importMs: number
  /** Par.load: addon, engine, weights. */
  loadMs: number
  firstImageMs: number
  /** What it takes once all is warm. */
  laterImageMs: number
}

export interface Environment {
  parvis: string
  /** Commit the addon was built from, and of the checkout; '' where unknown. */
  commit: string
  checkout: string
  compiler: string
  node: string
  platform: string
  processor: string
  cores: number
  threads: number
  memoryBytes: number
  /** Instruction set of the CPU backend. */
  isa: string
  /** Of each GPU that was measured. */
  gpus: Array<{ device: string, name: string, driver: string, runtime: string }>
  /** PyTorch of the peers; absent where there are none, and in older reports. */
  torch?: string
  /** Processes that wanted a core when it began: above 0 means a machine that is not quiet. */
  load: number
  date: string
}

export interface Report {
  /** A form 2 has no operations; in a form 3 each was run by itself. */
  format: 'parvis-bench-2' | 'parvis-bench-3' | 'parvis-bench-4'
  /** Makes it again. */
  command: string
  environment: Environment
  results: Result[]
  operations?: OperationResult[]
  notRun: NotRun[]
  coldStart: ColdStart[]
}
