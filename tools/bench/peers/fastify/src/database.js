// The connection pool. Statements have names, so each connection prepares them once.
import fastifyPlugin from 'fastify-plugin'
import pg from 'pg'

const TIMESTAMPTZ = 1184
// Date has milliseconds, the columns have microseconds. In the time zone UTC, the text of a timestamp differs from
// RFC 3339 in two places only.
pg.types.setTypeParser(TIMESTAMPTZ, (text) => `${text.slice(0, 10)}T${text.slice(11, -3)}Z`)

async function database(app, { url }) {
  const connectionString = url.replace('postgresql+psycopg', 'postgresql')
  const pool = new pg.Pool({ connectionString, max: 20, options: '-c timezone=UTC' })
  app.decorate('pool', pool)

  // Runs a function in a transaction, with a connection that only this transaction uses.
  app.decorate('transaction', async (run) => {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      const result = await run(client)
      await client.query('COMMIT')
      return result
    } catch (error) {
      await client.query('ROLLBACK')
      throw error
    } finally {
      client.release()
    }
  })
  app.addHook('onClose', () => pool.end())
}

export default fastifyPlugin(database)
