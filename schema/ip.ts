// IP addresses and CIDR ranges, version 4 and 6. A version 4 address is its mapped version 6 one, so that both compare.

interface Range {
  readonly base: bigint
  /** Leading bits, of 128, that must agree. */
  readonly bits: number
}

const GROUPS = 8
const MAPPED = 0xffff00000000n

const parse4 = (text: string): bigint | undefined => {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)) {
    return undefined
  }
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n)
}

const groupsOf = (text: string): string[] => (text === '' ? [] : text.split(':'))

const parse6 = (text: string): bigint | undefined => {
  // A dotted tail stands for the last two groups.
  const tail = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  const dotted = tail ? parse4(tail[2] ?? '') : 0n
  if (dotted === undefined) return undefined
  const plain = tail ? `${tail[1]}${(dotted >> 16n).toString(16)}:${(dotted & 0xffffn).toString(16)}` : text
  const [left = '', right, ...more] = plain.split('::')
  if (more.length > 0) return undefined
  const [head, end] = [groupsOf(left), groupsOf(right ?? '')]
  const missing = GROUPS - head.length - end.length
  if (right === undefined ? missing !== 0 : missing < 1) return undefined
  const groups = [...head, ...Array.from({ length: missing }, () => '0'), ...end]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n)
}

const parseIp = (text: string): { value: bigint; bits: 32 | 128 } | undefined => {
  const four = parse4(text)
  if (four !== undefined) return { value: MAPPED | four, bits: 32 }
  const six = parse6(text)
  return six === undefined ? undefined : { value: six, bits: 128 }
}

const parseRange = (text: string): Range | undefined => {
  const [address = '', length, ...more] = text.split('/')
  const ip = parseIp(address)
  if (!ip || more.length > 0) return undefined
  if (length === undefined) return { base: ip.value, bits: 128 }
  if (!/^\d{1,3}$/.test(length) || Number(length) > ip.bits) return undefined
  return { base: ip.value, bits: Number(length) + 128 - ip.bits }
}

export const isIpRange = (text: string): boolean => parseRange(text) !== undefined

/** True when `ip` lies in one of `ranges`; an address that cannot be read lies in none. */
export const ipInRanges = (ip: string, ranges: readonly string[]): boolean => {
  const address = parseIp(ip)
  if (!address) return false
  return ranges.some((text) => {
    const range = parseRange(text)
    return range !== undefined && (address.value ^ range.base) >> BigInt(128 - range.bits) === 0n
  })
}
