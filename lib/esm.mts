// The same module for `import`: one instance of everything, whichever way it is loaded. Node gives a CommonJS module
// as the default import, hence the step through `.default`.

import commonjs from './index.js'

export * from './index.js'
export default commonjs.default
