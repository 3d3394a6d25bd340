// The methods of decoding that parvis runs.

/** 'llamagen': token by token in raster order. 'nbp': videos, n tokens a step in raster order behind a text. */
export type Method = 'par' | 'llamagen' | 'arpg' | 'lpd' | 'randar' | 'nbp'

/** Whether n says how large its steps are. */
export const hasN = (method: Method): boolean => method === 'par' || method === 'llamagen' || method === 'nbp'

/** How messages call a method. */
export const methodNames: Readonly<Record<Method, string>> =
  { par: 'PAR', llamagen: 'LlamaGen', arpg: 'ARPG', lpd: 'LPD', randar: 'RandAR', nbp: 'NBP' }
