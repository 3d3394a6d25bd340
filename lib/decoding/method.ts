// The methods of decoding that parvis runs.

/** 'llamagen': token by token in raster order. */
export type Method = 'par' | 'llamagen' | 'arpg' | 'lpd' | 'randar'

/** Whether n says how large its steps are. */
export const hasN = (method: Method): boolean => method === 'par' || method === 'llamagen'

/** How messages call a method. */
export const methodNames: Readonly<Record<Method, string>> =
  { par: 'PAR', llamagen: 'LlamaGen', arpg: 'ARPG', lpd: 'LPD', randar: 'RandAR' }
