// A button that saves a text as a file.

const save = (name: string, text: string): void => {
  const url = URL.createObjectURL(new Blob([text], { type: 'text/csv' }))
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  // The browser reads it after the click has returned.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

export const CsvButton = ({ name, text }: { name: string; text: () => string }) => (
  <button type="button" onClick={() => save(name, text())}>
    Export CSV
  </button>
)
