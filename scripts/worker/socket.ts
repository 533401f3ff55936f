// Calls through a socket of a process beside this one. Its path is relative: absolute ones may be longer than the system takes.
import { request } from 'node:http'

/** What was answered, whatever its status. Rejects where nobody listens or the answer breaks off. */
export const callSocket = (socketPath: string, path = '/', body?: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const call = request({ socketPath, path, method: body === undefined ? 'GET' : 'POST' }, (answer) => {
      let said = ''
      answer.setEncoding('utf8').on('data', (part) => {
        said += part
      })
      answer.on('end', () => resolve(said)).on('error', reject)
    })
    call.on('error', reject)
    call.end(body)
  })
