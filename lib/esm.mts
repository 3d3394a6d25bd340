// The same module for `import`: one instance of everything, whichever way it is loaded. What the default import of a CommonJS
// module is differs between Node, Bun and bundlers, so the instance is imported by its name.

export * from './index.js'
export { par as default } from './api/default.js'
