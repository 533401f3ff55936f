// The `format`s that a grammar can promise, each as a pattern of texts that every validator takes: a part of what the
// standard allows (no leap days, no leap seconds, hosts of letters).

const YEAR = '[12][0-9]{3}'
const DAY =
  '(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))'
const CLOCK = '(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?'
const ZONE = '(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])'
const LABEL = '[a-z](?:[a-z0-9]{0,14}[a-z0-9])?'
const HOST = `${LABEL}(?:\\.${LABEL}){1,3}`
const BYTE = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
const HEX4 = '[0-9a-f]{1,4}'
const NAME = '[A-Za-z0-9_-]{1,32}'

export const FORMATS: Readonly<Record<string, string>> = {
  date: `^${YEAR}-${DAY}$`,
  time: `^${CLOCK}${ZONE}$`,
  'date-time': `^${YEAR}-${DAY}T${CLOCK}${ZONE}$`,
  duration: '^P(?:[0-9]{1,4}W|[0-9]{1,4}D|(?:[0-9]{1,4}D)?T[0-9]{1,4}[HMS])$',
  email: `^${NAME}(?:\\.${NAME})?@${HOST}$`,
  hostname: `^${HOST}$`,
  ipv4: `^${BYTE}(?:\\.${BYTE}){3}$`,
  ipv6: `^${HEX4}(?::${HEX4}){7}$`,
  uuid: '^[0-9a-f]{8}-[0-9a-f]{4}-[1-5][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
  uri: `^https?://${HOST}(?:/${NAME}){0,8}/?$`,
}
