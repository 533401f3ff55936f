// A process that writes a journal until it is killed, and says on stdout what it was promised: `open ID`, `close ID TOKENS`.
import { randomUUID } from 'node:crypto'
import { Journal } from '../../gpu-node/journal.ts'

const [dir = '', rotateBytes = '0'] = process.argv.slice(2)
const say = (line: string): void => void process.stdout.write(`${line}\n`)

const journal = await Journal.start({
  dir,
  nodeId: 'node-test',
  onFailure: () => process.exit(3),
  ...(rotateBytes === '0' ? {} : { rotateBytes: Number(rotateBytes) }),
})

const work = async (): Promise<void> => {
  for (let i = 0; ; i++) {
    const requestId = randomUUID()
    const key = { requestId, attempt: 1 }
    await journal.open({ ...key, accountId: 'a', keyId: 'k', model: 'm', openedAt: Date.now() })
    say(`open ${requestId}`)
    for (let output = 64; output <= 256; output += 64) {
      journal.progress(key, { hit: 64, miss: 3, output, reasoning: 0, firstTokenAt: Date.now() })
      await journal.sync()
      say(`progress ${requestId} ${output}`)
    }
    const output = 256 + (i % 64)
    const counts = { hit: 64, miss: 3, output, reasoning: 0, firstTokenAt: Date.now() }
    await journal.close(key, { finish: 'stop', prefix: [], counts })
    say(`close ${requestId} ${output}`)
    if (i % 3 === 0) {
      journal.acknowledge(key)
      await journal.sync()
      say(`ack ${requestId}`)
    }
  }
}

await Promise.all([work(), work(), work(), work()])
