'use strict'
// What `npm run lint` asks of TypeScript and JavaScript: the style of neostandard, lines of at most 120 columns, and
// mistakes that the compiler does not see.

const neostandard = require('neostandard')

const columns = 120

/**
 * Lines that are too long. One may be longer where it cannot be shorter: inside a template of several lines, such as
 * the program that a test runs; where a literal, most often a regular expression, stands alone; and where it holds a
 * URL.
 */
const lineLength = {
  meta: { type: 'layout', schema: [], messages: { long: '{{length}} columns, and {{columns}} are allowed' } },
  create (context) {
    const literals = []
    const add = node => { literals.push(node.loc) }
    const excuses = (line, text) => {
      if (/https?:\/\/\S{30}/.test(text)) return true
      return literals.some(({ start, end }) => start.line < end.line
        ? start.line <= line && line <= end.line
        : start.line === line && text.trim().length - (end.column - start.column) <= 20)
    }
    return {
      Literal: add,
      TemplateLiteral: add,
      'Program:exit' () {
        for (const [index, text] of context.sourceCode.lines.entries()) {
          const line = index + 1
          if (text.length <= columns || excuses(line, text)) continue
          const loc = { start: { line, column: columns }, end: { line, column: text.length } }
          context.report({ loc, messageId: 'long', data: { length: String(text.length), columns: String(columns) } })
        }
      }
    }
  }
}

module.exports = [
  ...neostandard({ ts: true, noJsx: true, ignores: ['**/dist/', 'build/', 'out/', 'docs/api/', '**/node_modules/'] }),
  {
    name: 'parvis',
    plugins: { parvis: { rules: { 'line-length': lineLength } } },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      'parvis/line-length': 'error',
      // Lists are filled up to the end of the line.
      '@stylistic/object-property-newline': 'off',
      '@stylistic/object-curly-newline': ['error', { consistent: true }],
      // `void work()` says that nobody waits for it.
      'no-void': ['error', { allowAsStatement: true }],
      // Control characters and columns of blanks are what many regular expressions here are about.
      'no-control-regex': 'off',
      'no-regex-spaces': 'off',
      // Constructors of typed arrays come from tables, loops wait for what others change, and one element of an
      // iterator may do.
      'new-cap': 'off',
      'no-unmodified-loop-condition': 'off',
      'no-unreachable-loop': 'off',
      'no-unused-vars': ['error',
        { args: 'none', caughtErrors: 'none', ignoreRestSiblings: true, varsIgnorePattern: '^_' }]
    }
  },
  {
    // The compiler does that, and knows more: noUnusedLocals, noUnusedParameters.
    name: 'parvis/typescript',
    files: ['**/*.ts'],
    rules: { 'no-unused-vars': 'off', '@typescript-eslint/no-unused-vars': 'off' }
  },
  {
    // Of the library also what only types tell.
    name: 'parvis/promises',
    files: ['lib/**/*.ts'],
    languageOptions: { parserOptions: { project: 'tsconfig.build.json', tsconfigRootDir: __dirname } },
    rules: {
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: false }]
    }
  },
  {
    // Programs for versions of Node.js that know no shorthands, and must be told that they are too old.
    name: 'parvis/old',
    files: ['bin/*.js'],
    rules: { 'object-shorthand': 'off' }
  },
  {
    name: 'parvis/tests',
    files: ['test/**'],
    languageOptions: { globals: { expect: 'readonly', it: 'readonly' } },
    // What is wrong on purpose: holes in arrays, errors that are none, texts that look like templates.
    rules: { 'no-sparse-arrays': 'off', 'no-template-curly-in-string': 'off', 'no-throw-literal': 'off' }
  }
]
