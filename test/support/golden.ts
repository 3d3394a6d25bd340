// Finds golden fixtures: those copied into the repository, else the shared folder beside it (vq-f4 is too large to
// copy; vq-small is its twin).

import { existsSync } from 'node:fs'
import path from 'node:path'

const folders = [path.join(__dirname, '../fixtures/golden'), path.join(__dirname, '../../../shared/golden')]

/** Path of a golden file, e.g. `golden('par-4x/model.pt')`; undefined where it is in neither place. */
export function findGolden (name: string): string | undefined {
  return folders.map(folder => path.join(folder, name)).find(file => existsSync(file))
}

/** As findGolden, but a missing fixture is an error. */
export function golden (name: string): string {
  const file = findGolden(name)
  if (file === undefined) {
    throw new Error(`golden fixture ${name} is neither in test/fixtures/golden nor in ../shared/golden`)
  }
  return file
}
