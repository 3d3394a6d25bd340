// The page of the server. It asks /api/models what can be drawn and POSTs to /api/draw, whose events come while the
// picture forms. Everything that the server sends goes into the page as text, never as HTML.

const { document, getComputedStyle, getSelection, Image, location, matchMedia, ResizeObserver } = globalThis
const byId = id => document.getElementById(id)

/** Pictures that the history keeps; those behind the newest few keep their cells, but not their previews. */
const maxHistory = 24
const maxWithPreviews = 8
/** Milliseconds of a step in slow motion, and between two views for those who want little motion. */
const slowPace = 1000 / 30
const calmPace = 500
/** A screen reader hears of steps at most this often. */
const announceEvery = 4000
const maxSeed = Number.MAX_SAFE_INTEGER

const calm = matchMedia('(prefers-reduced-motion: reduce)')
const dark = matchMedia('(prefers-color-scheme: dark)')

/** An element with properties and children; texts become text nodes. */
function element (name, properties = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value
    else made.setAttribute(key, value)
  }
  made.append(...children)
  return made
}

function milliseconds (ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}
const count = (number, word) => `${number} ${word}${number === 1 ? '' : 's'}`

// ---- what is said

const announcer = byId('announcer')
let announcedAt = -Infinity

/** For screen readers. Words about progress wait their turn and are dropped where they come too soon. */
function announce (text, isProgress = false) {
  const now = performance.now()
  if (isProgress && now - announcedAt < announceEvery) return
  announcedAt = now
  announcer.textContent = text
}

/** What helps against an error, by the code that the server gives. */
const cures = {
  bad_class_id: 'Choose a class from the list.',
  unsupported_n: 'Choose one of the values of n that are shown.',
  model_not_found: 'Load this page again to see which models there are.',
  queue_full: 'Wait a little, then draw again.',
  out_of_memory: 'Wait until other pictures are done, then draw again.',
  queue_unavailable: 'Wait a little, then draw again. If this stays, ask who runs the server.',
  deadline_exceeded: 'Draw again, or choose a larger n or fewer steps.',
  shutting_down: 'Start the server again, then load this page again.',
  internal_error: 'Draw again. If it fails again, look at the log of the server.',
  no_model: 'Wait a little, then load this page again.',
  unreachable: 'See whether it still runs, then draw again.',
  cut_off: 'See whether the server still runs, then draw again.'
}

/** An error that is shown: its code, and the field that it is about, where the server says so. */
class Failure extends Error {
  constructor (message, code, param) {
    super(message)
    this.code = String(code ?? '').toLowerCase()
    this.param = param
  }
}

const fieldOf = {
  class: 'class', prompt: 'class', model: 'model', seed: 'seed', steps: 'steps', guidance_scale: 'guidance',
  n: 'n-choices', tokens_per_step: 'n-choices'
}

function showFailure (failure) {
  const cure = cures[failure.code] ?? ''
  const message = /[.?!]$/.test(failure.message) ? failure.message : `${failure.message}.`
  byId('alert').replaceChildren(element('strong', {}, message), cure && ` ${cure}`)
  const id = fieldOf[failure.code === 'bad_class_id' ? 'class' : failure.param]
  const field = id && byId(id)
  if (!field || app.hidden) return
  if (field.matches('input')) {
    field.setAttribute('aria-invalid', 'true')
    field.setAttribute('aria-errormessage', 'alert')
  }
  const target = field.matches('div') ? field.querySelector('input:checked') : field
  target?.focus()
}

function clearFailure () {
  byId('alert').replaceChildren()
  for (const field of document.querySelectorAll('[aria-invalid]')) {
    field.removeAttribute('aria-invalid')
    field.removeAttribute('aria-errormessage')
  }
}

// ---- the server

let key = ''
try { key = sessionStorage.getItem('parvis-key') ?? '' } catch { /* the browser keeps nothing: one tab, one key */ }

/** @throws Failure with the server's own words; an abort as it is */
async function ask (path, init = {}) {
  const headers = { ...init.headers, ...(key && { authorization: `Bearer ${key}` }) }
  let response
  try {
    response = await fetch(path, { ...init, headers })
  } catch (error) {
    if (init.signal?.aborted) throw error
    throw new Failure('The server cannot be reached.', 'unreachable')
  }
  if (response.ok) return response
  const { error } = await response.json().catch(() => ({}))
  const message = typeof error?.message === 'string' ? error.message : `The server answered ${response.status}.`
  throw new Failure(message, response.status === 401 ? 'key' : error?.code, error?.param)
}

/** Server-sent events of an answer: [name, data]. @throws Failure where the connection breaks; an abort as it is */
async function * eventsOf (response, signal) {
  const reader = response.body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(error => { throw signal.aborted ? error : cutOff() })
      rest += decoder.decode(value, { stream: !done })
      const blocks = rest.replaceAll('\r\n', '\n').split('\n\n')
      rest = blocks.pop()
      for (const block of blocks) {
        const lines = block.split('\n')
        const of = name => lines.filter(line => line.startsWith(`${name}:`))
          .map(line => line.slice(name.length + 1).replace(/^ /, '')).join('\n')
        const data = of('data')
        if (data) yield [of('event'), JSON.parse(data)]
      }
      if (done) return
    }
  } finally {
    reader.cancel().catch(() => {})
  }
}

const cutOff = () => new Failure('The connection ended before the picture was done.', 'cut_off')

/** The picture of a data: URL, which only PNG is taken of; resolves when it can be drawn. */
async function pictureOf (url) {
  const damaged = () => new Failure('The server sent a picture that cannot be shown.', 'internal_error')
  if (!/^data:image\/png;base64,/.test(url)) throw damaged()
  const image = new Image()
  image.src = url
  await image.decode().catch(() => { throw damaged() })
  return image
}

function blobOf (url) {
  const bytes = Uint8Array.from(atob(url.slice(url.indexOf(',') + 1)), letter => letter.charCodeAt(0))
  return new Blob([bytes], { type: 'image/png' })
}

// ---- classes: an input with a list, as the WAI-ARIA authoring practices describe a combobox

/** As the library compares names. */
const normal = name => name.toLowerCase().replace(/['’]/g, '').replace(/[\s_-]+/g, ' ').replace(/ ?, ?/g, ', ').trim()

class ClassSearch {
  #input = byId('class')
  #list = byId('class-list')
  #opener = byId('class-open')
  #hint = byId('class-hint')
  /** { id, label, name, item }, by class id; empty where the model has no names. */
  #all = []
  #found = []
  #active
  /** The class that the input holds, and the option that is marked as such, also while something else is typed. */
  #chosen
  #selected

  constructor (changed) {
    const input = this.#input
    input.addEventListener('input', () => {
      this.#chosen = undefined
      if (this.#all.length > 0) this.#open(input.value, true)
      changed()
    })
    input.addEventListener('click', () => { if (!this.isOpen) this.#open() })
    input.addEventListener('focus', () => input.select())
    input.addEventListener('blur', () => { this.#settle(); this.#close(); changed() })
    input.addEventListener('keydown', event => { if (this.#key(event)) event.preventDefault(); changed() })
    // The list must not take the focus: it stays in the input.
    this.#list.addEventListener('mousedown', event => event.preventDefault())
    this.#list.addEventListener('click', event => {
      const item = event.target.closest('[role=option]')
      if (item) this.#choose(this.#all[Number(item.dataset.id)])
      changed()
    })
    this.#opener.addEventListener('mousedown', event => event.preventDefault())
    this.#opener.addEventListener('click', () => {
      const wasOpen = this.isOpen
      input.focus()
      if (wasOpen) this.#close()
      else this.#open()
    })
  }

  get isOpen () { return !this.#list.hidden }

  setModel ({ labels, classes }) {
    this.#close()
    const before = this.value
    this.#all = (labels ?? []).map((label, id) => ({
      id, label, name: normal(label),
      item: element('li', { id: `class-${id}`, role: 'option', 'data-id': String(id), 'aria-selected': 'false' },
        element('span', {}, label), element('span', { className: 'number' }, String(id)))
    }))
    this.#chosen = this.#selected = undefined
    const isCombobox = this.#all.length > 0
    const roles = {
      role: 'combobox', 'aria-autocomplete': 'list', 'aria-controls': 'class-list', 'aria-expanded': 'false'
    }
    for (const [name, value] of Object.entries(roles)) {
      if (isCombobox) this.#input.setAttribute(name, value)
      else this.#input.removeAttribute(name)
    }
    this.#opener.hidden = !isCombobox
    this.#input.inputMode = isCombobox ? 'text' : 'numeric'
    this.#hint.textContent = isCombobox
      ? `${classes} classes. Type a part of a name, or a number.`
      : `This model has no class names. Type a number from 0 to ${classes - 1}.`
    this.value = before === '' ? 0 : before
  }

  /** A class number, or what was typed. */
  get value () {
    if (this.#chosen) return this.#chosen.id
    const text = this.#input.value.trim()
    return /^\d{1,15}$/.test(text) ? Number(text) : text
  }

  set value (value) {
    const option = this.#optionOf(String(value))
    this.#chosen = undefined
    if (option) this.#choose(option)
    else this.#input.value = String(value)
  }

  /** What the class is called, to people. */
  get label () { return this.#chosen?.label ?? (typeof this.value === 'number' ? `class ${this.value}` : this.value) }

  /** The shortest name that means this class and no other, for code; its number where there is none. */
  get shortest () {
    const { value } = this
    if (!this.#chosen) return value
    const name = this.#chosen.label.split(',')[0].trim().toLowerCase()
    const holders = this.#all.filter(option => option.name.split(', ').includes(normal(name)))
    return name !== '' && holders.length === 1 && !/^\d+$/.test(name) ? name : value
  }

  /** The class that a number or a whole name means. */
  #optionOf (text) {
    const name = normal(text)
    const named = this.#all.filter(option => option.name === name || option.name.split(', ').includes(name))
    // The server says which classes share a name.
    if (named.length > 0) return named.length === 1 ? named[0] : undefined
    return /^\d{1,15}$/.test(name) ? this.#all[Number(name)] : undefined
  }

  #settle () {
    if (this.#chosen) return
    const option = this.#optionOf(this.#input.value)
    if (option) this.#choose(option)
  }

  #choose (option) {
    this.#selected?.item.setAttribute('aria-selected', 'false')
    this.#chosen = this.#selected = option
    option.item.setAttribute('aria-selected', 'true')
    this.#input.value = option.label
    this.#close()
  }

  /** Classes with this in their names: first those that are called so, then those that begin with it, then the rest. */
  #search (text) {
    const part = normal(text)
    if (part === '') return this.#all
    const ranks = [[], [], [], []]
    for (const option of this.#all) {
      const { id, name } = option
      const isCalledSo = String(id) === part || (name.includes(part) && name.split(', ').includes(part))
      if (isCalledSo) ranks[0].push(option)
      else if (name.startsWith(part) || name.includes(`, ${part}`)) ranks[1].push(option)
      else if (name.includes(` ${part}`)) ranks[2].push(option)
      else if (name.includes(part)) ranks[3].push(option)
    }
    return ranks.flat()
  }

  #open (text = '', isTyping = false) {
    this.#found = this.#search(text)
    if (this.#found.length === 0) {
      this.#close()
      announce('No class matches')
      return
    }
    this.#list.replaceChildren(...this.#found.map(({ item }) => item))
    this.#list.hidden = false
    this.#expanded(true)
    this.#activate(isTyping ? (text.trim() === '' ? undefined : this.#found[0]) : this.#chosen)
    if (isTyping) announce(this.#found.length === 1 ? '1 class matches' : `${this.#found.length} classes match`, true)
  }

  #close () {
    this.#list.hidden = true
    this.#expanded(false)
    this.#activate(undefined)
  }

  #expanded (isOpen) {
    if (this.#input.hasAttribute('role')) this.#input.setAttribute('aria-expanded', String(isOpen))
    this.#opener.setAttribute('aria-expanded', String(isOpen))
  }

  #activate (option) {
    this.#active?.item.classList.remove('active')
    this.#active = option
    if (!option) {
      this.#input.removeAttribute('aria-activedescendant')
      this.#list.scrollTop = 0
      return
    }
    const { item } = option
    item.classList.add('active')
    this.#input.setAttribute('aria-activedescendant', item.id)
    // scrollIntoView would move the whole page.
    const list = this.#list
    const [top, bottom] = [item.offsetTop, item.offsetTop + item.offsetHeight]
    if (top < list.scrollTop) list.scrollTop = top
    else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight
  }

  /** Whether the key is used up. */
  #key ({ key, altKey, ctrlKey, metaKey }) {
    if (this.#all.length === 0 || ctrlKey || metaKey) return false
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[key]
    if (move !== undefined) {
      if (!this.isOpen) {
        if (Math.abs(move) > 1 || (altKey && move < 0)) return false
        this.#open(this.#chosen ? '' : this.#input.value)
        if (!altKey && !this.#active) this.#activate(move > 0 ? this.#found[0] : this.#found.at(-1))
        return true
      }
      if (altKey && move < 0) {
        if (this.#active) this.#choose(this.#active)
        this.#close()
        return true
      }
      const [from, last] = [this.#found.indexOf(this.#active), this.#found.length - 1]
      let to = from + move
      if (from < 0) to = move > 0 ? 0 : last
      else if (to < 0) to = from === 0 ? last : 0
      else if (to > last) to = from === last ? 0 : last
      this.#activate(this.#found[to])
      return true
    }
    if (!this.isOpen) return false
    if (key === 'Enter' || key === 'Tab') {
      if (this.#active) this.#choose(this.#active)
      else this.#settle()
      this.#close()
      return key === 'Enter'
    }
    if (key === 'Escape') {
      this.#close()
      return true
    }
    return false
  }
}

// ---- a picture that forms: what came from the server, and a panel that shows it

/**
 * One picture, from its request on. `cells` is a list a step, `stepOf` the step of each raster cell (0: none yet),
 * `previews` are what was to be seen as of some steps.
 */
function newRecord (settings, grid) {
  return {
    settings, grid, cells: [], times: [], stepOf: new Int32Array(grid[0] * grid[1]), steps: 0, previews: [],
    /** waiting, drawing, done, stopped or failed */
    state: 'waiting', place: 0, picture: undefined, image: undefined, download: undefined
  }
}

const withN = ({ n }) => n === undefined ? '' : `n = ${n}`

/** 'Sneaker, n = 4, seed 5' */
function titleOf ({ settings }) {
  const { label, steps, seed } = settings
  return [label, withN(settings), steps && count(steps, 'step'), `seed ${seed}`].filter(Boolean).join(', ')
}

/** sneaker-n4-seed5.png */
function fileNameOf ({ shortest, n, steps, seed }) {
  const name = typeof shortest === 'number' ? `class${shortest}` : shortest
  const slug = name.normalize('NFKD').toLowerCase().replace(/[^a-z0-9]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 60)
  const parts = [slug || 'picture', n && `n${n}`, steps && `steps${steps}`, seed === undefined ? '' : `seed${seed}`]
  return `${parts.filter(Boolean).join('-')}.png`
}

let panelsMade = 0

class Panel {
  #record
  /** The step that is shown, and whether the picture is shown by itself, without marks. */
  #shown = 0
  #isClean = false
  #isPlaying = false
  #timer
  #tickedAt = 0
  #due = 0
  /** What the canvases show, and how many pixels of the screen there are. */
  #painting
  #painted
  #size = [0, 0]
  #ended
  #title = element('h3', { className: 'panel-title' })
  #picture = element('canvas', { className: 'picture' })
  #overlay = element('canvas', { className: 'overlay' })
  #frame = element('div', { className: 'frame', role: 'img' }, this.#picture, this.#overlay)
  #progress = element('p', { className: 'progress' })
  #detail = element('p', { className: 'hint detail' })
  #slider = element('input', { type: 'range', min: '0', max: '1', value: '0', step: '1', disabled: true })
  #replay = element('button', { type: 'button' }, 'Replay')
  #download = element('a', { className: 'button' }, 'Download PNG')

  constructor (changed) {
    const id = `step-${++panelsMade}`
    this.#slider.id = id
    this.changed = changed
    this.element = element('article', { className: 'panel' }, this.#title, this.#frame, this.#progress, this.#detail,
      element('div', { className: 'scrub' }, element('label', { htmlFor: id }, 'Step'), this.#slider),
      element('div', { className: 'row' }, this.#replay, this.#download))
    this.#slider.addEventListener('input', () => {
      this.#pause()
      this.#shown = this.#slider.valueAsNumber
      this.#isClean = false
      this.#render()
    })
    this.#replay.addEventListener('click', () => this.replay())
    // The overlay has the pixels of the screen, so that lines are sharp at any size.
    new ResizeObserver(() => {
      const ratio = globalThis.devicePixelRatio
      this.#size = [this.#frame.clientWidth, this.#frame.clientHeight].map(side => Math.round(side * ratio))
      ;[this.#overlay.width, this.#overlay.height] = this.#size
      this.#painted = undefined
      this.paint()
    }).observe(this.#frame)
  }

  /** Follows a record that is about to be drawn. Resolves when all of it has been seen, or no more will come. */
  follow (record, title) {
    this.#pause()
    this.#record = record
    this.#title.textContent = title
    this.#shown = 0
    this.#isClean = false
    this.#isPlaying = true
    this.#tickedAt = -Infinity
    this.#prepare()
    this.#render()
    return new Promise(resolve => { this.#ended = resolve })
  }

  /** Shows a record as it ended. */
  show (record, title) {
    this.#pause()
    this.#record = record
    this.#title.textContent = title
    this.#prepare()
    this.skip()
  }

  #prepare () {
    const { grid, settings } = this.#record
    const { width, height } = settings.info
    this.#picture.width = width
    this.#picture.height = height
    this.#painting = this.#painted = undefined
    this.#picture.classList.toggle('crisp', width <= 160)
    this.#frame.style.aspectRatio = `${width} / ${height}`
    this.#frame.dataset.grid = grid.join(' ')
  }

  get isPlaying () { return this.#isPlaying }

  /** Something came from the server. */
  update () {
    if (!this.#isPlaying) {
      this.#render()
      return
    }
    this.#schedule()
    if (this.#shown === 0) this.#render()
  }

  #schedule () {
    if (this.#timer !== undefined) return
    const pace = byId('slow').checked ? slowPace : calm.matches ? calmPace : 16
    const now = performance.now()
    const wait = Math.max(0, this.#tickedAt + pace - now)
    this.#due = now + wait
    this.#timer = setTimeout(() => { this.#timer = undefined; this.#tick(pace) }, wait)
  }

  #tick (pace) {
    const { cells, state } = this.#record
    const now = performance.now()
    if (byId('slow').checked) {
      // Where the browser wakes this page late, it catches up.
      const steps = 1 + Math.floor((now - this.#due) / pace)
      this.#shown = Math.min(this.#shown + steps, cells.length)
    } else {
      this.#shown = cells.length
    }
    this.#tickedAt = now
    const isLast = this.#shown === cells.length
    // The marks of the last step are seen for a moment too.
    if (isLast && state !== 'waiting' && state !== 'drawing') {
      this.#render()
      this.#timer = setTimeout(() => { this.#timer = undefined; this.skip() }, pace)
      return
    }
    this.#render()
    if (!isLast) this.#schedule()
  }

  replay () {
    this.#pause()
    this.#shown = 0
    this.#isClean = false
    this.#isPlaying = true
    this.#tickedAt = performance.now()
    this.changed()
    this.#render()
    this.#schedule()
  }

  #pause () {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const wasPlaying = this.#isPlaying
    this.#isPlaying = false
    this.#ended?.()
    this.#ended = undefined
    if (wasPlaying) this.changed()
  }

  /** To the end of what there is; the picture without marks, where there is one. */
  skip () {
    this.#shown = this.#record.cells.length
    this.#isClean = this.#record.state === 'done'
    this.#pause()
    this.#render()
  }

  #render () {
    const record = this.#record
    const { cells, times, steps, state, place, picture, settings } = record
    const shown = this.#shown
    const all = steps || cells.length
    const isOver = state !== 'waiting' && state !== 'drawing'
    const isStill = isOver && !this.#isPlaying
    const at = `Step ${shown} of ${all}`
    this.element.dataset.state = isOver && !isStill ? 'playing' : state
    this.element.dataset.step = String(shown)
    if (this.#isClean) {
      const [number, word] = count(picture.steps, 'step').split(' ')
      this.#progress.replaceChildren(
        element('strong', {}, number), ` ${word}, `, element('strong', {}, milliseconds(picture.ms)))
    } else if (state === 'waiting') {
      this.#progress.textContent = place > 0 ? `Waiting: number ${place} in the line` : 'Waiting'
    } else if (cells.length === 0) {
      this.#progress.textContent = { none: 'Choose a class and press Draw.', drawing: 'Drawing' }[state] ?? 'Not drawn'
    } else {
      const end = { stopped: 'Stopped. ', failed: 'Failed. ' }[state] ?? ''
      this.#progress.textContent = `${end}${at}${shown > 0 ? `, ${milliseconds(times[shown - 1])}` : ''}`
    }
    this.#detail.textContent = picture && isStill
      ? `${milliseconds(picture.transformer_ms)} of steps, ${milliseconds(picture.decode_ms)} of decoding`
      : ' '
    // While it forms, the slider shows how far it has come; then it goes back and forth.
    this.#slider.disabled = !isOver || cells.length === 0
    this.#slider.max = String((isOver ? cells.length : all) || 1)
    this.#slider.value = String(shown)
    this.#slider.setAttribute('aria-valuetext',
      shown === 0 ? 'Before the first step' : `${at}: ${this.#cellsOf(shown)}`)
    this.#replay.hidden = !isStill || cells.length === 0
    this.#download.hidden = !isStill || !record.download
    if (record.download) {
      this.#download.href = record.download
      this.#download.download = fileNameOf(settings)
    }
    const name = this.#isClean ? `Picture: ${titleOf(record)}` : `Picture that forms: ${titleOf(record)}`
    this.#frame.setAttribute('aria-label', state === 'none' ? 'No picture yet' : name)
    this.paint()
  }

  /** '4 cells, at row 1 column 3, ...' */
  #cellsOf (step) {
    const cells = this.#record.cells[step - 1]
    const columns = this.#record.grid[1]
    const places = cells.slice(0, 4).map(cell => `row ${Math.floor(cell / columns) + 1} column ${cell % columns + 1}`)
    if (cells.length === 0) return 'no cell'
    return `${count(cells.length, 'cell')}, at ${places.join(', ')}${cells.length > 4 ? ' and others' : ''}`
  }

  /** Draws picture and marks from what is known; it is called at any time, in any order. */
  paint () {
    const record = this.#record
    if (!record) return
    const shown = this.#shown
    const preview = record.previews.findLast(({ step }) => step <= shown)
    const isWhole = record.image && shown === record.cells.length
    const image = isWhole ? record.image : preview?.image
    const from = isWhole ? shown : preview?.step ?? 0
    const { width, height } = this.#picture
    const context = this.#picture.getContext('2d')
    const before = this.#painting
    const isSame = before && before.image === image && before.step <= shown
    if (!isSame) {
      context.clearRect(0, 0, width, height)
      if (image) context.drawImage(image, 0, 0, width, height)
    }
    // Once the picture is there, it has the cells that were drawn since the preview.
    const step = record.image ? shown : from
    for (const cells of record.cells.slice(isSame ? before.step : from, step)) {
      for (const cell of cells) {
        const box = this.#boxOf(cell, width, height)
        context.drawImage(record.image, ...box, ...box)
      }
    }
    this.#painting = { image, step }
    this.#paintMarks(step < shown ? step : Infinity)
  }

  /** Left, top, width and height of a cell where all cells have so much room. */
  #boxOf (cell, width, height) {
    const [rows, columns] = this.#record.grid
    const [row, column] = [Math.floor(cell / columns), cell % columns]
    const [x, y] = [Math.round(column * width / columns), Math.round(row * height / rows)]
    return [x, y, Math.round((column + 1) * width / columns) - x, Math.round((row + 1) * height / rows) - y]
  }

  /** @param known the step up to which the picture beneath is drawn; Infinity: all that is shown */
  #paintMarks (known) {
    const { cells, stepOf } = this.#record
    const [shown, before, [width, height]] = [this.#shown, this.#painted, this.#size]
    const isMarked = !this.#isClean && byId('marks').checked && width > 0
    const colour = colours()
    this.#painted = { shown, known, isMarked, colour }
    const context = this.#overlay.getContext('2d')
    if (!isMarked) {
      context.clearRect(0, 0, width, height)
      return
    }
    // From one step to the next only the cells of the last few change, and a slow machine has enough to do.
    const isNext = before?.isMarked && before.known === known && before.colour === colour && before.shown <= shown
    if (isNext) {
      for (const step of cells.slice(Math.max(0, before.shown - fading.length), shown)) {
        for (const cell of step) this.#paintCell(context, cell, known, colour)
      }
    } else {
      for (let cell = 0; cell < stepOf.length; cell++) this.#paintCell(context, cell, known, colour)
    }
  }

  /** Paints inside the cell alone, so that each can be painted by itself. */
  #paintCell (context, cell, known, { veil, line, mark, edge, halo }) {
    const [x, y, w, h] = this.#boxOf(cell, ...this.#size)
    const step = this.#record.stepOf[cell]
    const age = this.#shown - step
    context.clearRect(x, y, w, h)
    if (step === 0 || age < 0) {
      context.fillStyle = veil
      context.fillRect(x, y, w, h)
      context.fillStyle = line
      context.fillRect(x, y, w, 1)
      context.fillRect(x, y + 1, 1, h - 1)
      return
    }
    // A cell that the picture does not have yet keeps some colour, since its place shows a neighbour.
    context.globalAlpha = Math.max(fading[age] ?? 0, step > known ? fading.at(-1) : 0)
    context.fillStyle = mark
    context.fillRect(x, y, w, h)
    context.globalAlpha = 1
    if (age > 0) return
    // A dark and a light line, so that the cell stands out of any picture.
    const thick = Math.max(1, Math.min(Math.round(2 * globalThis.devicePixelRatio), Math.floor(w / 6)))
    for (const [colour, inset] of [[halo, thick / 2], [edge, thick * 1.5]]) {
      context.strokeStyle = colour
      context.lineWidth = thick
      context.strokeRect(x + inset, y + inset, w - 2 * inset, h - 2 * inset)
    }
  }
}

/** How strongly a cell is marked, by the steps since its own. */
const fading = [0.75, 0.45, 0.3, 0.15]

let coloursNow
/** Colours of the marks, out of the style sheet: they are others in the dark. */
function colours () {
  if (!coloursNow) {
    const style = getComputedStyle(document.documentElement)
    coloursNow = Object.fromEntries(['veil', 'line', 'mark', 'edge', 'halo']
      .map(name => [name, style.getPropertyValue(`--cell-${name}`).trim()]))
  }
  return coloursNow
}

// ---- settings

const app = byId('app')
const modelSelect = byId('model')
let models = []
let hasKeys = false
const classSearch = new ClassSearch(() => showCode())

const modelNow = () => models.find(({ name }) => name === modelSelect.value) ?? models[0]
const hasN = ({ method, supportedN }) => method === 'par' && supportedN.length > 1
const hasSteps = ({ method }) => method === 'arpg' || method === 'lpd' || method === 'randar'
const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000

function setModel (name) {
  const model = models.find(other => other.name === name) ?? models[0]
  modelSelect.value = model.name
  classSearch.setModel(model)
  const before = Number(document.querySelector('[name=n]:checked')?.value)
  const chosen = model.supportedN.includes(before) ? before : model.n
  byId('n-field').hidden = !hasN(model)
  byId('n-choices').replaceChildren(...(hasN(model) ? model.supportedN : []).map(n => element('label', {},
    element('input', { type: 'radio', name: 'n', value: String(n), checked: n === chosen }), ` ${n}`)))
  byId('steps-field').hidden = !hasSteps(model)
  byId('steps').placeholder = String(model.defaultSteps)
  byId('steps').max = String(model.grid[0] * model.grid[1])
  byId('guidance').placeholder = String(model.guidanceScale)
  byId('compare').hidden = !hasN(model)
  byId('compare').textContent = `Compare n = ${model.supportedN.join(', ')}`
}

/** The number of a field; undefined where it is empty. @throws Failure where it is no number of its range */
function numberOf (id, what, isWhole, min, max) {
  const { value, validity } = byId(id)
  if (value === '' && !validity.badInput) return undefined
  const number = Number(value)
  const isGood = !validity.badInput && number >= min && number <= max && (!isWhole || Number.isInteger(number))
  if (isGood) return number
  const kind = isWhole ? 'a whole number' : 'a number'
  const field = id === 'guidance' ? 'guidance_scale' : id
  throw new Failure(`${what} must be ${kind} from ${min} to ${max}.`, 'invalid', field)
}

/** What the form asks for. @throws Failure */
function readSettings () {
  const info = modelNow()
  const [rows, columns] = info.grid
  return {
    info, model: info.name, classId: classSearch.value, label: classSearch.label, shortest: classSearch.shortest,
    n: hasN(info) ? Number(document.querySelector('[name=n]:checked').value) : undefined,
    steps: hasSteps(info) ? numberOf('steps', 'The number of steps', true, 1, rows * columns) : undefined,
    seed: numberOf('seed', 'The seed', true, 0, maxSeed),
    guidance: numberOf('guidance', 'The guidance', false, 1, 1000)
  }
}

function writeSettings ({ model, classId, n, steps, seed, guidance }) {
  if (model !== undefined && models.some(({ name }) => name === model)) setModel(model)
  if (classId !== undefined) classSearch.value = classId
  for (const radio of document.querySelectorAll('[name=n]')) if (Number(radio.value) === n) radio.checked = true
  byId('steps').value = steps ?? ''
  if (seed !== undefined) byId('seed').value = seed
  byId('guidance').value = guidance ?? ''
  showCode()
}

/** Settings in the address, so that they can be sent to others: #class=7&n=4&seed=5 */
function hashOf ({ model, classId, n, steps, seed, guidance }) {
  const given = { model: models.length > 1 ? model : undefined, class: classId, n, steps, seed, guidance }
  return `#${new URLSearchParams(Object.entries(given).filter(([, value]) => value !== undefined))}`
}

function readHash () {
  const hash = new URLSearchParams(location.hash.slice(1))
  const numberIn = name => /^\d+(\.\d+)?$/.test(hash.get(name) ?? '') ? Number(hash.get(name)) : undefined
  if ([...hash.keys()].length === 0) return
  writeSettings({
    model: hash.get('model') ?? undefined, classId: hash.get('class') ?? undefined, n: numberIn('n'),
    steps: numberIn('steps'), seed: numberIn('seed'), guidance: numberIn('guidance')
  })
  // Who was sent a seed wants that picture.
  if (hash.has('seed')) byId('renew').checked = false
}

// ---- code

/** A string as TypeScript has it. */
const quoted = text => `'${JSON.stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`
/** A string as a shell takes it, whatever is in it. */
const shellQuoted = text => `'${text.replaceAll("'", "'\\''")}'`

function typescriptOf (settings) {
  const { model, shortest, n, steps, seed, guidance } = settings
  const options = Object.entries({
    classId: typeof shortest === 'number' ? shortest : quoted(shortest), n, steps, seed, guidanceScale: guidance
  }).filter(([, value]) => value !== undefined).map(([name, value]) => `${name}: ${value}`).join(', ')
  return `import { Par } from 'parvis'\n\nconst par = await Par.load(${quoted(model)})\n` +
    `const image = await par.generate({ ${options} })\n` +
    `await image.toFile(${quoted(fileNameOf(settings))})\n`
}

function curlOf ({ model, shortest, n, steps, seed, guidance }) {
  const body = { model, prompt: shortest, seed, tokens_per_step: n, steps, guidance_scale: guidance }
  const url = new URL('v1/images/generations', document.baseURI)
  url.hash = ''
  // The key stays where it is: what is copied may be sent to others.
  const authorization = hasKeys ? '  -H "Authorization: Bearer $PARVIS_API_KEY" \\\n' : ''
  return `curl ${shellQuoted(url.href)} \\\n${authorization}  -H 'Content-Type: application/json' \\\n` +
    `  -d ${shellQuoted(JSON.stringify(body))}\n`
}

function showCode () {
  if (models.length === 0) return
  try {
    const settings = readSettings()
    byId('code-ts').textContent = typescriptOf(settings)
    byId('code-curl').textContent = curlOf(settings)
  } catch { /* a number is half typed: the code stays as it was */ }
}

/** Copies; where the browser allows that to secure pages only, it selects the text and says so. */
async function copy (text, what, shown) {
  try {
    await navigator.clipboard.writeText(text)
    announce(`Copied: ${what}`)
    return true
  } catch {
    if (shown) getSelection().selectAllChildren(shown)
    announce('This browser does not let the page copy. The text is selected: press Control and C.')
    return false
  }
}

async function copyFrom (button, text, what, shown) {
  const before = button.dataset.text ??= button.textContent
  button.textContent = await copy(text, what, shown) ? 'Copied' : 'Press Ctrl+C'
  setTimeout(() => { button.textContent = before }, 2000)
}

// ---- drawing

/** What runs: its controller, and whether the server still works. */
let work
let panels = []
let shownRecord

function placePanels (placed, heading) {
  panels = placed
  byId('panels').replaceChildren(...panels.map(panel => panel.element))
  byId('panels').classList.toggle('many', panels.length > 1)
  byId('stage-title').textContent = heading
}

function showState () {
  const stop = byId('stop')
  const isPlaying = panels.some(panel => panel.isPlaying)
  stop.setAttribute('aria-disabled', String(!work && !isPlaying))
  stop.textContent = !work && isPlaying ? 'Skip' : 'Stop'
}

/** On narrow screens the picture is below the form. */
function seeStage () {
  const { top } = byId('stage').getBoundingClientRect()
  if (top >= 0 && top < globalThis.innerHeight * 0.7) return
  byId('stage').scrollIntoView({ block: 'start', behavior: calm.matches ? 'auto' : 'smooth' })
}

/** One picture. Its events go into the record; the panel shows them at its own pace. @throws Failure */
async function drawInto (record, panel, signal) {
  const { model, classId, seed, n, steps, guidance } = record.settings
  const body = JSON.stringify({ model, class: classId, seed, n, steps, guidance_scale: guidance })
  const pending = []
  try {
    const response = await ask('api/draw', {
      method: 'POST', body, signal, headers: { 'content-type': 'application/json', accept: 'text/event-stream' }
    })
    for await (const [name, data] of eventsOf(response, signal)) {
      if (name === 'queued') {
        record.place = data.place
        if (data.place > 0) announce(`Waiting: number ${data.place} in the line`, true)
      } else if (name === 'begun') {
        record.settings.seed = data.seed
      } else if (name === 'step') {
        record.state = 'drawing'
        record.steps = data.steps
        for (const cell of data.cells) record.stepOf[cell] = data.step
        // Steps are numbered from 1; one that a proxy swallowed is an empty one.
        while (record.cells.length < data.step - 1) {
          record.cells.push([])
          record.times.push(data.ms)
        }
        record.cells.push(data.cells)
        record.times.push(data.ms)
        announce(`Step ${data.step} of ${data.steps}`, true)
      } else if (name === 'preview') {
        pending.push(pictureOf(data.image).then(image => {
          record.previews.push({ step: data.step, image })
          record.previews.sort((a, b) => a.step - b.step)
          panel.paint()
        }))
      } else if (name === 'picture') {
        record.picture = data
        record.image = await pictureOf(data.image)
        record.download = URL.createObjectURL(blobOf(data.image))
      } else if (name === 'error') {
        throw new Failure(data.error.message, data.error.code, data.error.param)
      }
      panel.update()
    }
    await Promise.all(pending)
    if (!record.picture) throw cutOff()
    record.state = 'done'
    panel.update()
  } catch (error) {
    void Promise.allSettled(pending)
    record.state = signal.aborted ? 'stopped' : 'failed'
    panel.skip()
    throw error
  }
}

/** Draws one picture for each of the settings, one after the other, so that none slows another. */
async function draw (list, heading) {
  work?.controller.abort()
  for (const panel of panels) if (panel.isPlaying) panel.skip()
  clearFailure()
  const mine = work = { controller: new AbortController() }
  const before = { panels, heading: byId('stage-title').textContent }
  placePanels(Array.from({ length: list.length }, () => new Panel(showState)), heading)
  globalThis.history.replaceState(null, '', hashOf(readSettings()))
  const records = list.map(settings => newRecord(settings, settings.info.grid))
  const seen = records.map((record, index) =>
    panels[index].follow(record, list.length > 1 ? withN(record.settings) : titleOf(record)))
  const shownHere = panels
  showState()
  seeStage()
  try {
    for (const [index, record] of records.entries()) {
      announce(`Drawing ${titleOf(record)}`)
      await drawInto(record, shownHere[index], mine.controller.signal)
      remember(record)
    }
  } catch (error) {
    if (work !== mine) return
    for (const record of records) if (record.state === 'waiting') record.state = 'stopped'
    for (const panel of shownHere) if (panel.isPlaying) panel.skip()
    const { steps, cells } = records.find(({ state }) => state !== 'done')
    // Where nothing was drawn, what was there stays.
    if (records[0].cells.length === 0) placePanels(before.panels, before.heading)
    const place = cells.length > 0 ? ` at step ${cells.length} of ${steps}` : ''
    if (mine.controller.signal.aborted) announce(`Stopped${place}`)
    else if (error.code === 'key') showKeyForm('The server does not accept this key.')
    else showFailure(error instanceof Failure ? error : new Failure('The page failed.', 'internal_error'))
    // A mistake of this page: the console has it.
    if (!mine.controller.signal.aborted && !(error instanceof Failure)) throw error
    return
  } finally {
    if (work === mine) work = undefined
    showState()
  }
  await Promise.all(seen)
  if (work || panels !== shownHere) return
  const figures = ({ picture }) => `${count(picture.steps, 'step')}, ${milliseconds(picture.ms)}`
  const { label, seed } = list[0]
  announce(records.length > 1
    ? `Done: ${label}, seed ${seed}. ${records.map(record => `${withN(record.settings)}: ${figures(record)}`).join('; ')}`
    : `Done: ${label}, seed ${seed}, ${figures(records[0])}`)
}

function stop () {
  if (work) work.controller.abort()
  else for (const panel of panels) if (panel.isPlaying) panel.skip()
}

/** Settings with a seed in any case, which the form shows from then on. */
function settingsToDraw (isNew) {
  clearFailure()
  if (isNew || byId('seed').value === '') {
    // A seed that is no number is told of first, and not written over.
    readSettings()
    byId('seed').value = String(randomSeed())
    showCode()
  }
  return readSettings()
}

/** Does something that may find a mistake in the form. */
function orSay (action) {
  try {
    action()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    showFailure(error)
  }
}

// ---- history

const remembered = []

function remember (record) {
  const title = titleOf(record)
  const image = element('img', { src: record.picture.image, alt: title, width: 72, height: 72 })
  image.classList.toggle('crisp', record.picture.width <= 160)
  const button = element('button', { type: 'button', title }, image)
  button.addEventListener('click', () => restore(record))
  record.item = element('li', {}, button)
  remembered.unshift(record)
  byId('history').prepend(record.item)
  byId('history-empty').hidden = true
  for (const old of remembered.splice(maxHistory)) {
    old.item.remove()
    URL.revokeObjectURL(old.download)
  }
  for (const old of remembered.slice(maxWithPreviews)) old.previews = []
  markShown(panels.length === 1 ? record : undefined)
}

function markShown (record) {
  shownRecord?.item.firstChild.removeAttribute('aria-current')
  shownRecord = record
  record?.item.firstChild.setAttribute('aria-current', 'true')
}

function restore (record) {
  const isRunning = work
  work = undefined
  isRunning?.controller.abort()
  clearFailure()
  writeSettings(record.settings)
  byId('renew').checked = false
  placePanels([new Panel(showState)], 'Picture')
  panels[0].show(record, titleOf(record))
  globalThis.history.replaceState(null, '', hashOf(record.settings))
  markShown(record)
  showState()
  seeStage()
  announce(`Shown: ${titleOf(record)}, ${count(record.picture.steps, 'step')}, ${milliseconds(record.picture.ms)}`)
}

// ---- beginning

function showKeyForm (message) {
  app.hidden = true
  byId('key-form').hidden = false
  const input = byId('key')
  if (message) {
    byId('alert').replaceChildren(element('strong', {}, message), ' Type it again.')
    input.setAttribute('aria-invalid', 'true')
  }
  input.focus()
  input.select()
}

async function begin () {
  let answer
  try {
    answer = await (await ask('api/models')).json()
  } catch (error) {
    if (error.code === 'key') showKeyForm(key && 'The server does not accept this key.')
    else showFailure(new Failure(`The models could not be read. ${error.message}`, 'models'))
    return
  }
  clearFailure()
  const isAgain = models.length > 0
  models = answer.models
  hasKeys = answer.auth === true
  const hadForm = !byId('key-form').hidden
  byId('key-form').hidden = true
  if (models.length === 0) {
    showFailure(new Failure('This server has no model at the moment.', 'no_model'))
    return
  }
  app.hidden = false
  if (hadForm) byId('class').focus() // the key form is gone, and the focus with it
  if (isAgain && models.some(({ name }) => name === modelSelect.value)) return
  modelSelect.replaceChildren(...models.map(({ name }) => element('option', { value: name }, name)))
  setModel(models[0].name)
  byId('seed').value = String(randomSeed())
  byId('renew').checked = true
  byId('slow').checked = !calm.matches
  readHash()
  placePanels([new Panel(showState)], 'Picture')
  const settings = readFirst()
  panels[0].show({ ...newRecord(settings, settings.info.grid), state: 'none' }, 'No picture yet')
  showCode()
}

/** Settings for the empty panel, whatever the address said. */
function readFirst () {
  const info = modelNow()
  return { info, model: info.name, label: classSearch.label, shortest: classSearch.shortest, seed: byId('seed').value }
}

byId('key-form').addEventListener('submit', event => {
  event.preventDefault()
  key = byId('key').value.trim()
  try { sessionStorage.setItem('parvis-key', key) } catch { /* it is kept in this page alone */ }
  byId('key').removeAttribute('aria-invalid')
  void begin()
})
byId('settings').addEventListener('submit', event => {
  event.preventDefault()
  orSay(() => { void draw([settingsToDraw(byId('renew').checked)], 'Picture') })
})
byId('compare').addEventListener('click', () => orSay(() => {
  const settings = settingsToDraw(false)
  void draw(settings.info.supportedN.map(n => ({ ...settings, n })), `${settings.label}, seed ${settings.seed}`)
}))
byId('stop').addEventListener('click', stop)
byId('new-seed').addEventListener('click', () => {
  byId('seed').value = String(randomSeed())
  announce(`Seed ${byId('seed').value}`)
  showCode()
})
// A seed that was typed is meant to be used.
byId('seed').addEventListener('input', () => { byId('renew').checked = false })
byId('settings').addEventListener('input', showCode)
modelSelect.addEventListener('change', () => { setModel(modelSelect.value); showCode() })
byId('marks').addEventListener('change', () => {
  byId('legend').hidden = !byId('marks').checked
  panels.forEach(panel => panel.paint())
})
byId('copy-ts').addEventListener('click', ({ currentTarget }) =>
  copyFrom(currentTarget, byId('code-ts').textContent, 'TypeScript', byId('code-ts')))
byId('copy-curl').addEventListener('click', ({ currentTarget }) =>
  copyFrom(currentTarget, byId('code-curl').textContent, 'curl', byId('code-curl')))
byId('copy-link').addEventListener('click', ({ currentTarget }) => orSay(() => {
  clearFailure()
  globalThis.history.replaceState(null, '', hashOf(readSettings()))
  void copyFrom(currentTarget, location.href, 'link')
}))
globalThis.addEventListener('hashchange', () => { if (models.length > 0) readHash() })
dark.addEventListener('change', () => { coloursNow = undefined; panels.forEach(panel => panel.paint()) })

await begin()
