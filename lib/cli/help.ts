// How help looks: whole words on terminals of any width, commands in groups, examples that can be copied.

import { Help, type Command } from 'commander'
import { wrap } from './terminal.js'

/** Beyond this many columns lines are hard to read. */
const widest = 100
/** Part of the width that descriptions need beside what they describe; otherwise they stand below it. */
const share = 0.45

/** Columns of help: those of the terminal, else of the variable COLUMNS, else 80. */
export function helpWidth (): number {
  const asked = process.stdout.isTTY ? process.stdout.columns : Number(process.env.COLUMNS)
  return Math.min(widest, asked > 0 ? asked : 80)
}

const usageTitle = 'Usage: '
const usageOf = (command: Command): string => new Help().commandUsage(command)

export function styleHelp (command: Command): void {
  command.configureOutput({ getOutHelpWidth: helpWidth, getErrHelpWidth: helpWidth }).configureHelp({
    minWidthToWrap: 16,
    commandUsage: command =>
      wrap(usageOf(command), helpWidth() - usageTitle.length).join('\n' + ' '.repeat(usageTitle.length)),
    subcommandTerm: command => command.name(), // their arguments and options are in their own help
    formatItem (term, termWidth, description) {
      const width = this.helpWidth ?? helpWidth()
      const indent = termWidth + 4
      if (description === '') return `  ${term}`
      if (width - indent >= width * share) {
        const [first, ...more] = wrap(description, width - indent)
        return [`  ${term.padEnd(termWidth)}  ${first}`, ...more.map(line => ' '.repeat(indent) + line)].join('\n')
      }
      return [...wrap(term, width - 2).map(line => `  ${line}`),
        ...wrap(description, width - 6).map(line => `      ${line}`)].join('\n')
    }
  })
}

/** Command lines below the help; those that are too long go on in the next line, as a shell reads it. */
export function examples (...lines: string[]): () => string {
  return () => '\nExamples:\n' + lines.map(line => {
    const [first, ...more] = wrap(line, helpWidth() - 8)
    return `  $ ${[first, ...more.map(part => `      ${part}`)].join(' \\\n')}`
  }).join('\n')
}

/** Paragraphs below the help. */
export function remarks (title: string, rows: ReadonlyArray<readonly [term: string, text: string]>): () => string {
  const widthOfTerms = Math.max(...rows.map(([term]) => term.length))
  return () => `\n${title}:\n` + rows.map(([term, text]) => {
    const width = helpWidth()
    if (width - widthOfTerms - 4 < width * share) {
      return [`  ${term}`, ...wrap(text, width - 6).map(line => `      ${line}`)].join('\n')
    }
    return wrap(text, width - widthOfTerms - 4)
      .map((line, k) => `  ${(k === 0 ? term : '').padEnd(widthOfTerms)}  ${line}`).join('\n')
  }).join('\n')
}
