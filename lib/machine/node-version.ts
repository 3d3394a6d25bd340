// The first thing that the package looks at: an older Node would fail later, at whatever function it lacks. In syntax
// that an old Node can read, without imports, and hence without the class of parvis' errors.

const { problem } = require('../../bin/node-version.js') as { problem: (version: string) => string | undefined }

const found = problem(process.versions.node)
if (found !== undefined) throw Object.assign(new Error(`${found}.`), { name: 'ParError', code: 'NATIVE_UNAVAILABLE' })
