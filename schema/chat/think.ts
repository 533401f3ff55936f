// Reasoning in think tags, as every format here writes it.

export const THINK = '<think>'
export const THINK_END = '</think>'

/** Whether what follows `prompt` is reasoning. Clients' text holds no whole tag: the renderers break them. */
export const endsInThinking = (prompt: string): boolean => prompt.lastIndexOf(THINK) > prompt.lastIndexOf(THINK_END)
