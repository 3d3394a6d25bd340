// Numbers and tables as text: what every part of a report is written with.

import type { Spread } from './types.js'

/** Padded, so that a terminal shows columns. */
export function table (heads: readonly string[], rows: ReadonlyArray<ReadonlyArray<string | number>>): string {
  const all = [heads, ...rows.map(row => row.map(String))].map(row => row.map(text => text.replaceAll('|', '\\|')))
  const widths = heads.map((_, k) => Math.max(3, ...all.map(row => row[k]!.length)))
  const line = (row: readonly string[]): string => `| ${row.map((text, k) => text.padEnd(widths[k]!)).join(' | ')} |`
  return [line(all[0]!), `|${widths.map(width => '-'.repeat(width + 2)).join('|')}|`, ...all.slice(1).map(line)]
    .join('\n')
}

export const list = (items: readonly string[]): string[] =>
  items.length > 0 ? [items.map(text => `- ${text}`).join('\n')] : []

/** Three digits, more only before the point. */
export function number (value: number): string {
  if (!Number.isFinite(value)) return ''
  return value.toFixed(
    value >= 100
      ? 0
      : value >= 10
        ? 1
        : value >= 1
          ? 2
          : value === 0
            ? 0
            : Math.min(8, 2 - Math.floor(Math.log10(value)))
  )
}

export const range = ({ median, least, greatest }: Spread): string =>
  `${number(median)} (${number(least)} - ${number(greatest)})`
export const percent = (value: number | undefined): string => value === undefined ? '' : `${Math.round(value * 100)}%`
export const times = (value: number): string => `${value.toFixed(2)}x`
