// The 101 classes of UCF-101 in the order of their names, and how NBP's models (Ren et al. 2025, 2502.07737) are told
// of them: each name as tokens of LLaMA's vocabulary, without `<s>` in front and `</s>` behind. So no tokenizer of text
// is needed. The names are those of the data set's folders, as words.

/** Text tokens of LLaMA (1 and 2). */
export const llamaTokens = 32000
const begin = 1
const end = 2

const classes: ReadonlyArray<readonly [label: string, ...tokens: number[]]> = [
  ['apply eye makeup', 3394, 10977, 1207, 786],
  ['apply lipstick', 3394, 17441, 303, 860],
  ['archery', 3190, 708],
  ['baby crawling', 24354, 29349, 1847],
  ['balance beam', 17346, 22913],
  ['band marching', 3719, 8575, 292],
  ['baseball pitch', 21573, 15905],
  ['basketball', 20305],
  ['basketball dunk', 20305, 270, 2960],
  ['bench press', 3856, 305, 3965],
  ['biking', 289, 638, 292],
  ['billiards', 11118, 29875, 3163],
  ['blow dry hair', 13031, 15589, 11315],
  ['blowing candles', 13031, 292, 23794, 793],
  ['body weight squats', 3573, 7688, 10674, 1446],
  ['bowling', 12580, 1847],
  ['boxing punching bag', 3800, 292, 282, 3322, 292, 19548],
  ['boxing speed bag', 3800, 292, 6210, 19548],
  ['breast stroke', 24207, 19782],
  ['brushing teeth', 1506, 21616, 25287],
  ['clean and jerk', 5941, 322, 432, 5968],
  ['cliff diving', 1067, 2593, 1933, 292],
  ['cricket bowling', 2181, 8522, 12580, 1847],
  ['cricket shot', 2181, 8522, 10322],
  ['cutting in kitchen', 28967, 297, 29181],
  ['diving', 1933, 292],
  ['drumming', 24103, 4056],
  ['fencing', 285, 16750],
  ['field hockey penalty', 1746, 18881, 27368],
  ['floor gymnastics', 11904, 330, 12050, 579, 1199],
  ['frisbee catch', 1424, 275, 915, 29872, 4380],
  ['front crawl', 4565, 29349, 29880],
  ['golf swing', 29416, 24500],
  ['haircut', 447, 2076, 329],
  ['hammer throw', 16366, 1050, 3183],
  ['hammering', 16366, 1050, 292],
  ['handstand pushups', 1361, 1689, 5503, 14340],
  ['handstand walking', 1361, 1689, 22049],
  ['head massage', 2343, 4158, 482],
  ['high jump', 1880, 12500],
  ['horse race', 10435, 8175],
  ['horse riding', 10435, 364, 4821],
  ['hula hoop', 298, 2497, 5089, 459],
  ['ice dancing', 14890, 6025, 3277],
  ['javelin throw', 432, 6447, 262, 3183],
  ['juggling balls', 8740, 29887, 1847, 26563],
  ['jump rope', 12500, 696, 412],
  ['jumping jack', 12500, 292, 28015],
  ['kayaking', 413, 388, 5086],
  ['knitting', 889, 5367],
  ['long jump', 1472, 12500],
  ['lunges', 13030, 267],
  ['military parade', 9121, 1702, 311],
  ['mixing', 24907],
  ['mopping floor', 2730, 3262, 11904],
  ['nunchucks', 302, 3322, 2707, 29879],
  ['parallel bars', 8943, 22306],
  ['pizza tossing', 282, 24990, 28189, 292],
  ['playing cello', 8743, 274, 3156],
  ['playing daf', 8743, 1146, 29888],
  ['playing dhol', 8743, 270, 5391],
  ['playing flute', 8743, 1652, 1082],
  ['playing guitar', 8743, 11210],
  ['playing piano', 8743, 11914],
  ['playing sitar', 8743, 269, 3673],
  ['playing tabla', 8743, 4434, 433],
  ['playing violin', 8743, 5537, 262],
  ['pole vault', 22775, 325, 1292],
  ['pommel horse', 282, 3011, 295, 10435],
  ['pull ups', 8206, 24081],
  ['punch', 282, 3322],
  ['push ups', 5503, 24081],
  ['rafting', 1153, 615, 292],
  ['rock climbing indoor', 7679, 10784, 10549, 1399, 16946],
  ['rope climbing', 696, 412, 10784, 10549],
  ['rowing', 1948, 292],
  ['salsa spin', 269, 1338, 29874, 10917],
  ['shaving beard', 528, 5555, 367, 538],
  ['shotput', 10322, 649],
  ['skate boarding', 2071, 403, 7613, 292],
  ['skiing', 14993, 292],
  ['skijet', 2071, 823, 300],
  ['sky diving', 14744, 1933, 292],
  ['soccer juggling', 269, 11953, 8740, 29887, 1847],
  ['soccer penalty', 269, 11953, 27368],
  ['still rings', 1603, 28774],
  ['sumo wrestling', 2533, 29877, 24613, 1847],
  ['surfing', 1190, 29888, 292],
  ['swing', 24500],
  ['table tennis shot', 1591, 22556, 10322],
  ['tai chi', 260, 1794, 18558],
  ['tennis swing', 22556, 24500],
  ['throw discus', 3183, 2313, 375],
  ['trampoline jumping', 534, 1160, 26496, 12500, 292],
  ['typing', 19229],
  ['uneven bars', 1597, 854, 22306],
  ['volleyball spiking', 1700, 2330, 2135, 805, 638, 292],
  ['walking with dog', 22049, 411, 11203],
  ['wall pushups', 10090, 5503, 14340],
  ['writing on board', 5007, 373, 7613],
  ['yo yo', 24800, 24800]
]

/** Class names, by class id. */
export const ucfLabels: readonly string[] = Object.freeze(classes.map(([label]) => label))

/** The text of a class as NBP's models read it: `<s>`, the name, and `</s>` up to the length. */
export function ucfPrefix (classId: number, length: number): number[] {
  const [, ...tokens] = classes[classId]!
  return padded([begin, ...tokens], length)
}

/** Text of any kind, filled up with `</s>`. */
export function padded (tokens: readonly number[], length: number): number[] {
  return [...tokens, ...Array.from<number>({ length }).fill(end)].slice(0, length)
}
