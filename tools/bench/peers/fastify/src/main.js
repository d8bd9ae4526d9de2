// The product operations of the contract in Fastify, with JSON schemas for requests and responses, and pg.
import fastify from 'fastify'

import authentication from './authentication.js'
import database from './database.js'
import problems from './problems.js'
import products from './products.js'

const app = fastify({
  logger: false,
  keepAliveTimeout: 30_000,
  // The contract requires all violations of a body, unknown properties among them, and no conversion of types.
  ajv: { customOptions: { allErrors: true, removeAdditional: false, coerceTypes: false } },
})
app.register(problems)
app.register(database, { url: process.env.DATABASE_URL })
app.register(authentication, { secret: process.env.SECRET_KEY })
app.register(products, { prefix: '/api/v1/products' })

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => app.close().then(() => process.exit(0)))
}
await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
