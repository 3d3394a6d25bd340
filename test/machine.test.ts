// What the addon finds that this process may use, on trees of /proc and /sys as many machines have them: control groups
// of both versions, of containers and of services, what is not there and what makes no sense. And once in earnest,
// where this machine lets us make a control group.

import t from 'tap'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { addon, type NativeEngine } from '../lib/machine/native.js'
import { llamaGenModel } from '../lib/checkpoint/llamagen.js'
import { transformerWeights } from '../lib/models/weights.js'

const { limits } = require('../scripts/machine.js') as { limits: (root: string) => { quota: number, free: number } }

type Tree = Record<string, string>
type LoadArguments = Parameters<NativeEngine['loadTransformer']>

/** A machine of 64 GB, half of it free, on which nothing is limited. */
const meminfo = (swap = 0): Tree =>
  ({ 'proc/meminfo': 'MemTotal:       64000000 kB\nMemFree:         1000000 kB\nMemAvailable:   32000000 ' +
    `kB\nSwapTotal:      ${2 * swap} kB\nSwapFree:       ${swap} kB\n` })
const machine = { total: 65536e6, free: 32768e6, group: '' }
const nothing = { quota: 0, quotaGroup: '' }

/** Lines of /proc/self/cgroup and of /proc/self/mountinfo among those of other file systems. */
const own = (...lines: string[]): Tree => ({ 'proc/self/cgroup': lines.map(line => `${line}\n`).join('') })
const mounted = (...lines: string[]): Tree => ({
  'proc/self/mountinfo': ['22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw',
    '23 22 0:21 / /proc rw shared:12 - proc proc rw', ...lines, '99 22 0:77 / /run rw - tmpfs tmpfs rw,size=1k']
    .map(line => `${line}\n`).join('')
})
const version2 = (root = '/', point = '/sys/fs/cgroup', tags = 'shared:9 '): string =>
  `31 23 0:26 ${root} ${point} rw,nosuid ${tags}- cgroup2 cgroup2 rw,nsdelegate`
const version1 = (controllers: string, root = '/', point = `/sys/fs/cgroup/${controllers}`): string =>
  `35 31 0:32 ${root} ${point} rw,relatime shared:15 master:3 - cgroup cgroup rw,${controllers}`
/** The files of a group. */
const group = (folder: string, files: Tree): Tree =>
  Object.fromEntries(Object.entries(files).map(([name, text]) => [`${folder}/${name}`, text]))
/** Uses 150 MB, 50 of which are pages that the system would give up; most of the file pages are those of tmpfs. */
const used2 = { 'memory.current': '150000000\n', 'memory.stat': 'anon 20000000\nfile 130000000\nshmem ' +
  '80000000\ninactive_anon 80000000\nactive_anon 20000000\ninactive_file 50000000\nactive_file 0\n' }
const used1 = {
  'memory.usage_in_bytes': '150000000\n',
  'memory.stat': 'cache 130000000\ninactive_file 1\ntotal_cache 130000000\ntotal_inactive_file 50000000\n'
}
const none1 = '9223372036854771712\n'

interface Found { memory?: { total: number, free: number, group: string }, quota?: number, quotaGroup?: string }

const cases: Array<[name: string, tree: Tree, found: Found]> = [
  ['no control groups at all', { ...meminfo() }, { memory: machine, ...nothing }],
  ['nothing to read', {}, { memory: { total: 0, free: 0, group: '' }, ...nothing }],
  ['the root group alone',
    { ...meminfo(), ...own('0::/'), ...mounted(version2()), 'sys/fs/cgroup/cgroup.procs': '1\n' },
    { memory: machine, ...nothing }],

  // ---- containers
  ['Docker, version 2, a namespace of its own',
    { ...meminfo(), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup',
      { 'memory.max': '400000000\n', 'memory.high': 'max\n', ...used2, 'cpu.max': '150000 100000\n' }) },
    { memory: { total: 4e8, free: 3e8, group: '/' }, quota: 1.5, quotaGroup: '/' }],
  ['Docker, version 2, the namespace of the host, its own group mounted',
    { ...meminfo(), ...own('0::/system.slice/docker-ab.scope'), ...mounted(
      version2('/system.slice/docker-ab.scope')
    ), ...group('sys/fs/cgroup', { 'memory.max': '400000000\n', ...used2, 'cpu.max': '50000 100000\n' }) },
    {
      memory: { total: 4e8, free: 3e8, group: '/system.slice/docker-ab.scope' }, quota: 0.5,
      quotaGroup: '/system.slice/docker-ab.scope'
    }],
  ['Docker, version 1',
    { ...meminfo(),
      ...own('11:memory:/docker/ab', '4:cpu,cpuacct:/docker/ab', '1:name=systemd:/docker/ab'),
      ...mounted(version1('cpu,cpuacct', '/docker/ab'), version1('memory', '/docker/ab')),
      ...group('sys/fs/cgroup/memory',
        { 'memory.limit_in_bytes': '400000000\n', 'memory.memsw.limit_in_bytes': '800000000\n', ...used1 }),
      ...group('sys/fs/cgroup/cpu,cpuacct', { 'cpu.cfs_quota_us': '200000\n', 'cpu.cfs_period_us': '100000\n' }) },
    { memory: { total: 4e8, free: 3e8, group: '/docker/ab' }, quota: 2, quotaGroup: '/docker/ab' }],
  ['a group below that of the container',
    { ...meminfo(), ...own('0::/docker/ab/worker'), ...mounted(version2('/docker/ab')), ...group(
      'sys/fs/cgroup', { 'memory.max': '400000000', ...used2 }
    ), ...group('sys/fs/cgroup/worker', { 'memory.max': 'max', 'cpu.max': '100000 200000' }) },
    { memory: { total: 4e8, free: 3e8, group: '/docker/ab' }, quota: 0.5, quotaGroup: '/docker/ab/worker' }],
  ['a group of a like name is not that of the container',
    { ...meminfo(), ...own('0::/docker/abc'), ...mounted(version2('/docker/ab')), ...group('sys/fs/cgroup',
      { 'memory.max': '400000000', ...used2 }), ...group('sys/fs/cgroup/c', { 'memory.max': '1000' }) },
    { memory: { total: 4e8, free: 3e8, group: '/docker/ab' }, ...nothing }],
  ['mounted from outside of the namespace',
    { ...meminfo(), ...own('0::/'), ...mounted(version2('/../..')), ...group('sys/fs/cgroup',
      { 'memory.max': '400000000', ...used2 }) },
    { memory: { total: 4e8, free: 3e8 } as never, ...nothing }],
  ['the process left its namespace',
    { ...meminfo(), ...own('0::/../../other/one'), ...mounted(version2()), ...group('sys/fs/cgroup',
      { 'memory.max': '400000000', ...used2 }), ...group('sys/fs/other/one', { 'memory.max': '1000' }) },
    { memory: { total: 4e8, free: 3e8, group: '/' }, ...nothing }],
  ['another view of the names',
    { ...meminfo(), ...own('0::/kubepods/pod1/ab'), ...mounted(version2('/docker/xy')), ...group('sys/fs/cgroup',
      {}), ...group('sys/fs/cgroup/pod1/ab', { 'memory.max': '400000000', ...used2 }) },
    { memory: { total: 4e8, free: 3e8, group: '/docker/xy/pod1/ab' }, ...nothing }],
  ['a group that was removed',
    { ...meminfo(), ...own('0::/app (deleted)'), ...mounted(version2()), ...group('sys/fs/cgroup',
      { 'cpu.max': '100000 100000' }) },
    { memory: machine, quota: 1, quotaGroup: '/' }],

  // ---- services and pods
  ['systemd, MemoryMax of the service, CPUQuota of its slice',
    { ...meminfo(),
      ...own('0::/system.slice/app.service'),
      ...mounted(version2()),
      ...group('sys/fs/cgroup/system.slice/app.service',
        { 'memory.max': '400000000', 'memory.high': 'max', ...used2, 'cpu.max': 'max 100000\n' }),
      ...group('sys/fs/cgroup/system.slice', { 'memory.max': 'max', 'cpu.max': '300000 100000\n' }) },
    { memory: { total: 4e8, free: 3e8, group: '/system.slice/app.service' }, quota: 3, quotaGroup: '/system.slice' }],
  ['systemd, MemoryHigh',
    { ...meminfo(), ...own('0::/a.service'), ...mounted(version2()), ...group(
      'sys/fs/cgroup/a.service', { 'memory.max': '900000000', 'memory.high': '400000000', ...used2 }
    ) }, { memory: { total: 4e8, free: 3e8, group: '/a.service' } }],
  ['the pod has less left than its container',
    { ...meminfo(),
      ...own('0::/kubepods.slice/pod1.slice/cri-ab.scope'),
      ...mounted(version2()),
      ...group('sys/fs/cgroup/kubepods.slice/pod1.slice/cri-ab.scope',
        { 'memory.max': '400000000', ...used2, 'cpu.max': '400000 100000' }),
      ...group('sys/fs/cgroup/kubepods.slice/pod1.slice',
        {
          'memory.max': '1000000000', 'memory.current': '950000000', 'memory.stat': 'inactive_file 100000000\n',
          'cpu.max': '250000 100000'
        }),
      ...group('sys/fs/cgroup/kubepods.slice', { 'memory.max': '60000000000' }) },
    {
      memory: { total: 1e9, free: 15e7, group: '/kubepods.slice/pod1.slice' }, quota: 2.5,
      quotaGroup: '/kubepods.slice/pod1.slice'
    }],
  ['a pod of version 1, whose limit the container does not see',
    { ...meminfo(), ...own('7:memory:/kubepods/pod1/ab'), ...mounted(version1('memory', '/kubepods/pod1/ab')), ...group(
      'sys/fs/cgroup/memory',
      {
        'memory.limit_in_bytes': none1, ...used1,
        'memory.stat': `hierarchical_memory_limit 400000000\nhierarchical_memsw_limit ${none1}${used1['memory.stat']}`
      }
    ) },
    { memory: { total: 4e8, free: 3e8, group: '/kubepods/pod1/ab' } }],
  ['a parent of version 1',
    { ...meminfo(), ...own('7:memory:/a/b'), ...mounted(version1('memory')), ...group('sys/fs/cgroup/memory',
      { 'memory.limit_in_bytes': none1 }), ...group(
      'sys/fs/cgroup/memory/a', { 'memory.limit_in_bytes': '400000000', ...used1 }
    ), ...group('sys/fs/cgroup/memory/a/b', { 'memory.limit_in_bytes': none1 }) },
    { memory: { total: 4e8, free: 3e8, group: '/a' } }],
  ['a parent of version 1 that does not count its children',
    { ...meminfo(), ...own('7:memory:/a/b'), ...mounted(version1('memory')), ...group(
      'sys/fs/cgroup/memory/a', { 'memory.limit_in_bytes': '400000000', ...used1 }
    ), ...group('sys/fs/cgroup/memory/a/b', { 'memory.limit_in_bytes': none1, 'memory.use_hierarchy': '0\n' }) },
    { memory: machine }],
  ['both versions, memory in the first',
    { ...meminfo(), ...own('5:memory:/user/me', '1:cpu,cpuacct:/', '0::/user.slice/me'), ...mounted(version1('memory'),
      version1('cpu,cpuacct'), version2('/', '/sys/fs/cgroup/unified')), ...group('sys/fs/cgroup/memory/user/me',
      { 'memory.limit_in_bytes': '400000000', ...used1 }), ...group(
      'sys/fs/cgroup/unified/user.slice/me', { 'cpu.max': '100000 100000' }
    ), ...group('sys/fs/cgroup/cpu,cpuacct', { 'cpu.cfs_quota_us': '-1\n', 'cpu.cfs_period_us': '100000\n' }) },
    { memory: { total: 4e8, free: 3e8, group: '/user/me' }, quota: 1, quotaGroup: '/user.slice/me' }],

  // ---- mounts
  ['no table of mounts', {
    ...meminfo(), ...own('0::/a'), ...group('sys/fs/cgroup/a', { 'memory.max': '400000000', ...used2 })
  }, { memory: { total: 4e8, free: 3e8, group: '/a' } }],
  ['a mount point with a space',
    { ...meminfo(), ...own('0::/a b'), ...mounted(version2('/', '/mnt/control\\040groups', '')), ...group(
      'mnt/control groups/a b', { 'memory.max': '400000000', ...used2 }
    ) }, { memory: { total: 4e8, free: 3e8, group: '/a b' } }],
  ['several mounts, one of another group, one of the own, one of all',
    { ...meminfo(), ...own('0::/a/b'), ...mounted(version2('/other', '/1'), version2('/a/b', '/2'),
      version2('/', '/3')), ...group('1', { 'memory.max': '1000' }), ...group(
      '2', { 'memory.max': '900000000' }
    ), ...group('3/a/b', { 'memory.max': '900000000' }), ...group('3/a', { 'memory.max': '400000000', ...used2 }) },
    { memory: { total: 4e8, free: 3e8, group: '/a' } }],
  ['lines that are cut off',
    {
      ...meminfo(), 'proc/self/cgroup': '0:\n0\n:\n\n7:memory\n',
      'proc/self/mountinfo': '31 23 0:26 / /x rw - cgroup2\n31\n\n - \n31 23 0:26 / /x rw - cgroup2 a b',
      ...group('x', { 'memory.max': '400000000', ...used2 })
    },
    { memory: { total: 4e8, free: 3e8, group: '/' } }],

  // ---- numbers
  ['no numbers', { ...meminfo(), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup', {
    'memory.max': 'lots', 'memory.high': '', 'memory.current': '\0', 'memory.stat': 'inactive_file\n', 'cpu.max': 'a b'
  }) }, { memory: machine, ...nothing }],
  ['numbers that are no limits',
    { ...meminfo(), ...own('0::/', '2:memory:/', '3:cpu:/'), ...mounted(version2(), version1('memory', '/', '/m'),
      version1('cpu', '/', '/c')),
    ...group(
      'sys/fs/cgroup',
      { 'memory.max': '18446744073709551615\n', 'memory.high': '99999999999999999999999999', 'cpu.max': '0 0' }
    ), ...group('m', { 'memory.limit_in_bytes': `${2n ** 60n}` }), ...group('c',
      { 'cpu.cfs_quota_us': '100000', 'cpu.cfs_period_us': '0' }) },
    { memory: machine, ...nothing }],
  ['2^60 less one is a limit, and more than there is',
    { ...meminfo(), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup',
      { 'memory.max': `${2n ** 60n - 1n}` }) }, { memory: machine }],
  ['nothing is allowed', {
    ...meminfo(), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup', { 'memory.max': '0\n' })
  }, { memory: { total: 0, free: 1, group: '/' } }],
  ['more is used than is allowed', { ...meminfo(), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup',
    { 'memory.max': '4096\n', ...used2 }) }, { memory: { total: 4096, free: 1, group: '/' } }],
  ['only a limit is known', {
    ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup', { 'memory.max': '400000000\n' })
  }, { memory: { total: 4e8, free: 4e8, group: '/' } }],
  ['a name that would write to a terminal',
    { ...meminfo(), ...own('0::/\u001b[31mé\t'), ...mounted(version2()), ...group('sys/fs/cgroup/\u001b[31mé\t',
      { 'memory.max': '400000000', ...used2 }) }, { memory: { total: 4e8, free: 3e8, group: '/?[31m???' } }],
  ['a name of 4,000 characters',
    { ...meminfo(), ...own(`0::/${'a/'.repeat(1999)}z`), ...mounted(version2()), ...group('sys/fs/cgroup',
      { 'memory.max': '400000000', ...used2 }) }, { memory: { total: 4e8, free: 3e8, group: '/' } }]
]

/** What only the addon counts: a machine that compiles should not swap. */
const swapping: Array<[name: string, tree: Tree, memory: { total: number, free: number, group: string }]> = [
  ['swap of the machine', { ...meminfo(1e6) }, { total: 65536e6, free: 32768e6 + 1024e6, group: '' }],
  ['a group that may swap',
    { ...meminfo(1e6), ...own('0::/'), ...mounted(version2()), ...group(
      'sys/fs/cgroup', { 'memory.max': '400000000', 'memory.swap.max': 'max', ...used2 }
    ) }, { total: 4e8, free: 3e8 + 1024e6, group: '/' }],
  ['a group that may swap a little, below one that may swap less',
    { ...meminfo(1e6), ...own('0::/a/b'), ...mounted(version2()), ...group('sys/fs/cgroup/a/b', {
      'memory.max': '400000000', 'memory.swap.max': '500000000', 'memory.swap.current': '100000000', ...used2
    }), ...group('sys/fs/cgroup/a', { 'memory.swap.max': '350000000', 'memory.swap.current': '100000000' }) },
    { total: 4e8, free: 3e8 + 25e7, group: '/a/b' }],
  ['a group that may not swap', { ...meminfo(1e6), ...own('0::/'), ...mounted(version2()), ...group('sys/fs/cgroup',
    { 'memory.max': '400000000', 'memory.swap.max': '0', ...used2 }) }, { total: 4e8, free: 3e8, group: '/' }],
  ['version 1, memory and swap limited together',
    { ...meminfo(1e6), ...own('2:memory:/'), ...mounted(version1('memory')), ...group('sys/fs/cgroup/memory',
      {
        'memory.limit_in_bytes': '400000000', 'memory.memsw.limit_in_bytes': '600000000',
        'memory.memsw.usage_in_bytes': '250000000', ...used1
      }) },
    { total: 6e8, free: 4e8, group: '/' }],
  ['version 1, swap not limited',
    { ...meminfo(1e6), ...own('2:memory:/'), ...mounted(version1('memory')), ...group('sys/fs/cgroup/memory',
      { 'memory.limit_in_bytes': '400000000', ...used1 }) }, { total: 4e8, free: 3e8 + 1024e6, group: '/' }],
  ['version 1, swappiness 0',
    { ...meminfo(1e6), ...own('2:memory:/'), ...mounted(version1('memory')), ...group(
      'sys/fs/cgroup/memory', { 'memory.limit_in_bytes': '400000000', 'memory.swappiness': '0', ...used1 }
    ) }, { total: 4e8, free: 3e8, group: '/' }],
  ['the cache of ZFS',
    {
      ...meminfo(), 'proc/spl/kstat/zfs/arcstats': '13 1 0x01 3 4 5\nname                            type ' +
        'data\nhits                            4    77\nc_min                           4    ' +
          '1000000000\nc_max                           4    9\nsize                            4    ' +
            '5000000000\ncompressed_size                 4    1\n'
    },
    { total: 65536e6, free: 32768e6 + 4e9, group: '' }],
  ['the cache of ZFS is at its least', {
    ...meminfo(), 'proc/spl/kstat/zfs/arcstats': 'c_min 4 1000\nc_min  4    1000\nsize  4    10\n'
  }, { total: 65536e6, free: 32768e6, group: '' }],
  ['the cache of ZFS is that of the host',
    {
      ...meminfo(), ...mounted('40 23 0:50 /proc/meminfo /proc/meminfo rw - fuse.lxcfs lxcfs rw'),
      'proc/spl/kstat/zfs/arcstats': '\nc_min  4    0\nsize  4    5000000000\n'
    }, { total: 65536e6, free: 32768e6, group: '' }]
]

const skip = process.platform !== 'linux' && 'control groups are a matter of Linux'

function plant (tree: Tree): string {
  const root = fs.mkdtempSync(path.join(t.testdir(), 'root-'))
  for (const [name, text] of Object.entries(tree)) {
    fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true })
    fs.writeFileSync(path.join(root, name), text)
  }
  return root
}

t.test('control groups', { skip }, async t => {
  const { cores } = addon().cpu()
  for (const [name, tree, found] of cases) {
    const root = plant(tree)
    const { memory, threads, quota, quotaGroup } = addon().cpu(root)
    t.match({ memory, quota, quotaGroup }, found, name)
    t.equal(threads, quota === 0 ? cores : Math.max(1, Math.min(cores, Math.ceil(quota))), `${name}: threads`)
    t.same(limits(root), { quota, free: memory.free }, `${name}: before the addon is built`)
  }
  for (const [quota, threads] of [['1 100000', 1], ['30000 100000', 1], ['100000 100000', 1],
    ['100001 100000', Math.min(2, cores)], ['99999999999 1000', cores]] as const) {
    t.equal(addon().cpu(plant({ ...own('0::/'), ...mounted(version2()), 'sys/fs/cgroup/cpu.max': quota })).threads,
      threads, `cpu.max ${quota}`)
  }
})

t.test('what can be swapped out or given up', { skip }, async t => {
  for (const [name, tree, memory] of swapping) t.match(addon().cpu(plant(tree)).memory, memory, name)
})

/** What loads a transformer of these sizes in float32, but for its weights: memory is taken before the file is read. */
function large ({ vocabularySize, dim }: { vocabularySize: number, dim: number }): LoadArguments {
  const model = llamaGenModel({
    layers: 1, dim, heads: dim / 64, kvHeads: 1, headSize: 64, feedForward: 64, vocabularySize, classes: 1,
    specials: 0
  })
  const weights = transformerWeights(model).map(([role, shape]) => (
    { role, parts: [{ name: role, dtype: 'float32' as const, shape: [...shape], offset: 0 }] }
  ))
  return [__filename, weights, model, 'float32']
}

t.test('the check is turned off', {
  skip: skip || (fs.readFileSync('/proc/sys/vm/overcommit_memory', 'utf8').trim() === '1' &&
    'this system promises any amount of memory')
}, async t => {
  const engine = addon().createEngine({ device: 'cpu', threads: 1 })
  const terabytes = async (): Promise<unknown> =>
    await engine.loadTransformer(...large({ vocabularySize: 1 << 24, dim: 1 << 17 })).catch((error: unknown) => error)
  const { PARVIS_MEMORY_CHECK: before } = process.env
  try {
    for (const on of [undefined, '', '1', 'on', '0', 'off', 'false']) {
      if (on === undefined) delete process.env.PARVIS_MEMORY_CHECK
      else process.env.PARVIS_MEMORY_CHECK = on
      const checked = !['0', 'off', 'false'].includes(on ?? '')
      t.equal(addon().cpu().memory.checked, checked, `PARVIS_MEMORY_CHECK=${on}`)
      const error = await terabytes()
      t.match(error, { parvisCode: 'OUT_OF_MEMORY' })
      // Without the check it is the system that refuses, and what is free is not compared.
      t.equal(/ are free.*PARVIS_MEMORY_CHECK=0/.test((error as Error).message), checked, (error as Error).message)
    }
  } finally {
    if (before !== undefined) process.env.PARVIS_MEMORY_CHECK = before
    else delete process.env.PARVIS_MEMORY_CHECK
    await engine.dispose()
  }
})

t.test('a real control group', { skip }, async t => {
  const groups = makeGroups({ memory: 400e6, quota: 0.5 })
  if (groups === undefined) return t.pass('a group with limits', { skip: 'this machine lets us make no control group' })
  try {
    const { cpu, threads, code, message } = JSON.parse(within(groups.folders, `
      const { Par } = require('./dist')
      const { addon } = require('./dist/machine/native.js')
      ;(async () => {
        const par = await Par.load()
        const cpu = addon().cpu()
        const engine = addon().createEngine({ device: 'cpu', threads: 1 })
        const [file, ...rest] = ${JSON.stringify(large({ vocabularySize: 1 << 16, dim: 1024 }))}
        const failed = await engine.loadTransformer(file, ...rest).catch(error => error)
        console.log(JSON.stringify({ cpu, threads: par.info.threads, code: failed.parvisCode, message: failed.message }))
        await par.dispose()
      })()`)) as { cpu: { memory: object }, threads: number, code: string, message: string }
    t.match(cpu, { threads: 1, quota: 0.5 })
    t.match(cpu.memory, { total: Math.floor(400e6 / 4096) * 4096, group: /parvis-test/ })
    t.equal(threads, 1, 'an engine starts no more threads than the quota gives')
    t.equal(code, 'OUT_OF_MEMORY', 'not killed')
    t.match(message, /^The weights need \d+ MB of memory and \d+ MB are free of the 382 MB of the control group /)
    t.match(message, /control group \S*parvis-test\S*\. .*PARVIS_MEMORY_CHECK=0/)
  } finally {
    groups.remove()
  }
})

/**
 * Groups with these limits, by whichever version of control groups this machine has; undefined where it lets us make
 * none.
 */
function makeGroups (
  { memory, quota }: { memory: number, quota: number }
): { folders: string[], remove: () => void } | undefined {
  const lines = fs.readFileSync('/proc/self/cgroup', 'utf8').split('\n').map(line => line.split(':'))
  const place = (controller: string): string =>
    lines.find(([, names]) => names!.split(',').includes(controller))?.[2] ?? '/'
  const name = `parvis-test-${process.pid}`
  const folders: string[] = []
  const make = (folder: string, files: Tree): void => {
    fs.mkdirSync(folder)
    if (!folders.includes(folder)) folders.push(folder)
    for (const [file, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, file), text)
  }
  const remove = (): void => { for (const folder of folders) fs.rmdirSync(folder) }
  try {
    if (fs.existsSync('/sys/fs/cgroup/cgroup.controllers')) {
      make(path.join('/sys/fs/cgroup', name), { 'memory.max': `${memory}`, 'cpu.max': `${quota * 1e5} 100000` })
    } else {
      make(path.join('/sys/fs/cgroup/memory', place('memory'), name), { 'memory.limit_in_bytes': `${memory}` })
      make(path.join('/sys/fs/cgroup/cpu', place('cpu'), name),
        { 'cpu.cfs_quota_us': `${quota * 1e5}`, 'cpu.cfs_period_us': '100000' })
    }
    return { folders, remove }
  } catch {
    remove()
    return undefined
  }
}

/** What a program prints that runs in these groups. */
function within (folders: string[], program: string): string {
  const script = `${folders.map(folder => `echo $$ > '${folder}/cgroup.procs' && `).join('')}exec "$0" -e "$1"`
  const { stdout, stderr } = spawnSync('sh', ['-c', script, process.execPath, program],
    { encoding: 'utf8', cwd: path.join(__dirname, '..') })
  return stdout || JSON.stringify({ message: stderr })
}
