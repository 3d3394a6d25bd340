// The methods of decoding that parvis runs.

/** 'llamagen': token by token in raster order. */
export type Method = 'par' | 'llamagen' | 'arpg' | 'lpd' | 'randar'

/** How messages call a method. */
export const methodNames: Readonly<Record<Method, string>> =
  { par: 'PAR', llamagen: 'LlamaGen', arpg: 'ARPG', lpd: 'LPD', randar: 'RandAR' }
