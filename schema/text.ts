// Text to bytes, in a buffer of its own, as the Web Crypto calls want it.

export const utf8 = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(new TextEncoder().encode(text))
