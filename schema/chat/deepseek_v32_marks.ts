// The strings of DeepSeek-V3.2's chat format that both its renderer and its parser know.

export const BOS = '<｜begin▁of▁sentence｜>'
export const EOS = '<｜end▁of▁sentence｜>'
/** Marks every tag of a tool call; one token of its own. */
export const DSML = '｜DSML｜'
