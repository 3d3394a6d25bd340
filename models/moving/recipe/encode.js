// Tokens of clips, by the package: encode.py writes clips to standard input, [17, 32, 32] grey bytes each, and reads
// their tokens from standard output, 320 bytes each. The package gives PyTorch's tokens
// (test/golden-video-tokenizer.test.ts), in a fifth of its time. Needs the package built.

const path = require('node:path')
const { Par } = require('../../../dist/index.js')

const [frames, side] = [17, 32]
const size = frames * side * side

async function main () {
  const threads = Number(process.env.FASHION_THREADS ?? 1)
  const tokenizer = path.join(__dirname, '../tokenizer.safetensors')
  const par = await Par.load({ tokenizer, device: 'cpu', precision: 'float32', threads })
  let waiting = Buffer.alloc(0)
  for await (const chunk of process.stdin) {
    waiting = Buffer.concat([waiting, chunk])
    while (waiting.length >= size) {
      const data = new Uint8Array(3 * size)
      for (let i = 0; i < size; i++) data.fill(waiting[i], 3 * i, 3 * i + 3)
      waiting = waiting.subarray(size)
      process.stdout.write(Uint8Array.from(await par.encodeVideo({ data, frames, width: side, height: side })))
    }
  }
  await par.dispose()
}

main().catch(error => {
  console.error(error)
  process.exitCode = 1
})
