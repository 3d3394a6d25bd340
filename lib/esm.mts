// The same module for `import`: one instance of everything, whichever way it is loaded. Node gives a CommonJS module
// as the default import, hence the step through `.default`. The type is named, because bundlers' type resolution sees
// another default import than Node does, and what is inferred here would be read by both.

import commonjs from './index.js'
import type { DefaultPar } from './default.js'

export * from './index.js'
const par: DefaultPar = commonjs.default
export default par
