'use strict'
// bash scripts/carry.sh: packs into .carry/ what a machine with a GPU lacks that has nothing but CUDA and Python: Node,
// the modules that tests load, dist/, and the programs and the addon, built here. See docs/gpu-development.md.
//
//   node scripts/device/carry.js [90]        packs, for GPUs of that compute capability, and tells the sizes
//   node scripts/device/carry.js --lean      empties large files that the run does not read, and tells the sizes
//   node scripts/device/carry.js --restore   brings them back
//
// The device tool carries 64 MiB in all, the working tree included, which is most of that by itself. `--lean` therefore
// empties files that git has. They are marked (skip-worktree), so that git takes them for unchanged and no commit can
// hold them empty; `--restore` writes them from git's index again.

const { execFileSync, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')
const checks = require('../checks')

const { root } = checks
const carry = path.join(root, '.carry')
const stage = path.join(root, 'out', 'carry')
/** Bytes that may travel: a mebibyte less than the tool allows, for what it counts beside the files. */
const most = 63 * 2 ** 20
/** Large files that no part of the run reads: models and fixtures of methods that its tests do not have. */
const unread = ['models/moving', ...['arpg', 'lpd', 'nbp', 'par-video-4x', 'randar']
  .map(name => `test/fixtures/golden/${name}`)]
/** What the tests and programs that run there ask for by name; what those load comes with them. */
const wanted = ['tap', 'tap-parser', 'typescript', 'node-gyp-build', 'yauzl', 'sharp']
/** The library of sharp, which the dynamic linker loads and not Node. */
const linked = 'node_modules/@img/sharp-libvips-linux-x64'

class CarryError extends Error {}

// ---- sizes -----------------------------------------------------------------------------------------------

/** Bytes of files; those that are not there are none. */
const bytesOf = files => files.reduce((sum, file) =>
  sum + (fs.lstatSync(file, { throwIfNoEntry: false })?.size ?? 0), 0)

/** Every file under a folder; none where there is no folder. */
function filesIn (folder) {
  if (!fs.existsSync(folder)) return []
  return fs.readdirSync(folder, { recursive: true, withFileTypes: true }).filter(one => !one.isDirectory())
    .map(one => path.join(one.parentPath ?? one.path, one.name))
}

const mebibytes = bytes => `${(bytes / 2 ** 20).toFixed(1)} MiB`

/** What is said of two sizes, and whether both may travel together. */
function judged (carried, tree, limit = most) {
  const sum = carried + tree
  const text = `carried: ${mebibytes(carried)}; tree: ${mebibytes(tree)}; together: ${mebibytes(sum)}`
  return sum <= limit
    ? { fits: true, text: `${text} of ${mebibytes(limit)}` }
    : { fits: false, text: `${text}, and ${mebibytes(limit)} may travel` }
}

// ---- git -------------------------------------------------------------------------------------------------

const gitIn = folder => (args, input) =>
  execFileSync('git', args, { cwd: folder, input, encoding: 'utf8', maxBuffer: 1 << 28 })
const list = text => text.split('\0').filter(Boolean)
const lines = names => names.map(name => `${name}\0`).join('')

/** Files of a checkout that travel: those that git has or would take, and the folder shared/. */
function travelling (folder) {
  const git = gitIn(folder)
  const files = list(git(['ls-files', '-z', '--cached', '--others', '--exclude-standard']))
  return [...new Set([...files.map(name => path.join(folder, name)), ...filesIn(path.join(folder, 'shared'))])]
}

/** Those of `places` that are marked. */
const marked = (git, places) => list(git(['ls-files', '-z', '-v', '--', ...places]))
  .filter(line => line.startsWith('S ')).map(line => line.slice(2))

/** Empties what git has under `places`, and marks it. Returns the number of files. */
function lean (folder = root, places = unread) {
  const git = gitIn(folder)
  const changed = git(['status', '--porcelain', '--', ...places]).trim()
  if (changed) throw new CarryError(`these files have changes, and stay as they are:\n${changed}`)
  const already = new Set(marked(git, places))
  const files = list(git(['ls-files', '-z', '--', ...places])).filter(name => !already.has(name))
  git(['update-index', '-z', '--skip-worktree', '--stdin'], lines(files))
  for (const name of files) fs.truncateSync(path.join(folder, name))
  return files.length
}

/** Brings back what is empty and takes the marks off; a file with anything in it is left for git to show. */
function restore (folder = root, places = unread) {
  const git = gitIn(folder)
  const files = marked(git, places)
  git(['update-index', '-z', '--no-skip-worktree', '--stdin'], lines(files))
  const empty = files.filter(name => bytesOf([path.join(folder, name)]) === 0)
  git(['checkout-index', '-f', '-u', '-z', '--stdin'], lines(empty))
  const changed = git(['status', '--porcelain', '--', ...places]).trim()
  if (changed) throw new CarryError(`these files are not what git has:\n${changed}`)
  return files.length
}

// ---- packing ---------------------------------------------------------------------------------------------

/** Folders of node_modules that are loaded with `wanted`, as Node finds them here. */
function modules () {
  const script = `
    for (const name of ${JSON.stringify(wanted)}) require(name)
    process.stdout.write(JSON.stringify(Object.keys(require.cache)))`
  const child = spawnSync(process.execPath, ['-e', script], { cwd: root, encoding: 'utf8' })
  const found = /\[.*\]/.exec(child.stdout)
  if (!found) throw new CarryError(`the modules of the tests do not load: ${child.stderr.trim().split('\n').at(-1)}`)
  const ours = path.join(root, 'node_modules') + path.sep
  const folders = JSON.parse(found[0]).filter(file => file.startsWith(ours)).map(file => {
    const at = file.lastIndexOf(`${path.sep}node_modules${path.sep}`) + '/node_modules/'.length
    const [scope, name] = file.slice(at).split(path.sep)
    return path.relative(root, file.slice(0, at) + (scope.startsWith('@') ? path.join(scope, name) : scope))
  })
  return [...new Set(folders)].sort()
}

/** Writes .carry/NAME.tar.xz whole or not at all. `dictionary`: so far back xz looks for what it has seen. */
function pack (name, tarArguments, dictionary = '8MiB') {
  fs.mkdirSync(carry, { recursive: true })
  const file = path.join(carry, `${name}.tar.xz`)
  const command = 'set -o pipefail; file=$1 dictionary=$2; shift 2; ' +
    'tar c --sort=name --owner=0 --group=0 "$@" | xz -T0 --lzma2=preset=6,dict="$dictionary" >"$file.partial" && ' +
    'mv "$file.partial" "$file"'
  const child = spawnSync('bash', ['-c', command, 'pack', file, dictionary, ...tarArguments],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (child.status !== 0) throw new CarryError(`packing ${name} failed`)
  console.log(`${path.relative(root, file)}: ${mebibytes(bytesOf([file]))}`)
}

/** A copy without symbols, where there is a tool for that. */
function stripped (file, copy) {
  fs.mkdirSync(path.dirname(copy), { recursive: true })
  fs.copyFileSync(file, copy)
  spawnSync('strip', [copy], { stdio: 'ignore' })
}

/** Takes longest by far, and the same program is packed only once. */
function packNode () {
  const key = [process.execPath, process.version, bytesOf([fs.realpathSync(process.execPath)])].join(' ')
  const known = path.join(stage, 'node.key')
  const archive = path.join(carry, 'node.tar.xz')
  if (fs.existsSync(archive) && fs.existsSync(known) && fs.readFileSync(known, 'utf8') === key) {
    return console.log(`.carry/node.tar.xz: ${mebibytes(bytesOf([archive]))}, as it was`)
  }
  stripped(fs.realpathSync(process.execPath), path.join(stage, 'node', 'node'))
  pack('node', ['-C', path.join(stage, 'node'), 'node'])
  fs.writeFileSync(known, key)
}

async function packAll (architecture) {
  if (!fs.existsSync(path.join(root, 'node_modules', 'tap'))) throw new CarryError('npm install comes first')
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    console.error(`carry: this Node is for ${process.platform} ${process.arch}: it runs on such machines only`)
  }
  const typescript = require('../prepare')
  if (typescript.isStale() && !typescript.build()) throw new CarryError('dist/ could not be built')
  const why = checks.unfit(architecture)
  if (why) {
    console.log(`building for compute capability ${architecture}: ${why}`)
    const log = path.join(root, 'out', 'carry.log')
    fs.mkdirSync(path.dirname(log), { recursive: true })
    fs.writeFileSync(log, '')
    const built = await checks.build({ architecture, seconds: 3600, log })
    if (built.problem) throw new CarryError(`the build failed: ${built.problem}; see ${log}`)
    if (!built.addon) throw new CarryError('the addon was not built: node_modules has no headers for it')
  }
  packNode()
  // The runner of the tests asks for TypeScript's version and its compiler, and for nothing else of it.
  const folders = modules().filter(name => name !== path.join('node_modules', 'typescript'))
    .concat([linked, 'node_modules/typescript/package.json', 'node_modules/typescript/lib/typescript.js'])
    .filter(name => fs.existsSync(path.join(root, name)))
  pack('modules', ['--dereference', ...['map', 'd.ts', 'd.mts', 'd.cts', 'md'].map(end => `--exclude=*.${end}`),
    ...folders])
  pack('dist', ['--exclude=*.d.ts', '--exclude=*.d.mts', '--exclude=.tsbuildinfo', 'dist'])
  const own = path.join(stage, 'programs')
  fs.rmSync(own, { recursive: true, force: true })
  const files = [...filesIn(path.join(checks.folder, 'checks')), checks.addon]
  for (const file of files) stripped(file, path.join(own, path.relative(root, file)))
  for (const file of [checks.stamp, path.join(checks.folder, 'checks.txt')]) {
    fs.copyFileSync(file, path.join(own, path.relative(root, file)))
  }
  // They have one library in common: packed together, it is packed once.
  pack('programs', ['-C', own, '.'], '96MiB')
}

async function main () {
  const [word = '90'] = process.argv.slice(2)
  if (!/^(--lean|--restore|\d{2,3})$/.test(word)) {
    throw new CarryError(`"${word}" is neither a compute capability such as 90, nor --lean, nor --restore`)
  }
  if (word === '--lean') console.log(`${lean()} files are empty; \`bash scripts/carry.sh --restore\` brings them back`)
  else if (word === '--restore') console.log(`${restore()} files are back`)
  else await packAll(word)
  const { fits, text } = judged(bytesOf(filesIn(carry)), bytesOf(travelling(root)))
  console.log(text)
  if (fits || word === '--restore') return
  throw new CarryError(word === '--lean'
    ? 'too much would travel: look for large files that git does not ignore'
    : 'too much would travel with the whole tree: `bash scripts/carry.sh --lean` empties what the run does not read')
}

if (require.main === module) {
  main().catch(error => {
    console.error(`carry: ${error instanceof CarryError ? error.message : error.stack}`)
    process.exitCode = 1
  })
}

module.exports = { most, unread, judged, lean, restore, bytesOf, travelling }
