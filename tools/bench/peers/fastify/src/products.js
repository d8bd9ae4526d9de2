// Products: read, list, create, update.
import { createHash } from 'node:crypto'

import { HttpError } from './problems.js'
import {
  countProducts,
  insertProduct,
  insertStored,
  loadProducts,
  selectPage,
  selectPageAfter,
  selectProduct,
  selectProductToUpdate,
  selectStored,
  updateProduct,
} from './rows.js'
import {
  inOrganization,
  pageQuery,
  product,
  productCreate,
  productPage,
  productPath,
  productUpdate,
} from './schemas.js'

const etagOf = (row) => `"${row.id}-${row.updated_at}"`

const writeCursor = (row) => Buffer.from(`${row.created_at}|${row.id}`).toString('base64url')

function readCursor(cursor) {
  const position = Buffer.from(cursor, 'base64url').toString().split('|')
  if (position.length !== 2) throw new HttpError(404, 'Not found')
  return position
}

async function loadRow(client, caller, statement, id) {
  const { rows } = await client.query({ ...statement, values: [id] })
  if (rows.length === 0) throw new HttpError(404, 'Not found')
  caller.require(rows[0].organization_id, { writing: statement === selectProductToUpdate })
  return rows[0]
}

async function insert(client, caller, organizationId, body) {
  const { sku, name, description, category, gender, materials, color } = body
  const values = [caller.id, organizationId, sku, name, description, category, gender, materials, color]
  const { rows } = await client.query({ ...insertProduct, values })
  return { ...rows[0], cover_image: null, images: [] }
}

// Creates a product once per key. A repeated request gets the stored product.
async function insertOnce(client, request, key) {
  const { caller, query, body } = request
  const fingerprint = createHash('sha256').update(query.organization_id).update(JSON.stringify(body)).digest()
  const stored = await client.query({ ...selectStored, values: [caller.id, key] })
  if (stored.rows.length > 0) {
    const [row] = stored.rows
    if (!row.fingerprint.equals(fingerprint)) throw new HttpError(422, 'The key belongs to another request')
    return JSON.parse(row.body)
  }
  const created = await insert(client, caller, query.organization_id, body)
  await client.query({ ...insertStored, values: [caller.id, key, fingerprint, JSON.stringify(created)] })
  return created
}

export default async function products(app) {
  app.addHook('preHandler', app.authenticate)

  app.get('/', { schema: { querystring: pageQuery, response: { 200: productPage } } }, async (request) => {
    const { organization_id: organizationId, cursor } = request.query
    const [skip, limit] = [Number(request.query.skip), Number(request.query.limit)]
    request.caller.require(organizationId)
    const counted = await app.pool.query({ ...countProducts, values: [organizationId] })
    const values = [organizationId, skip, limit + 1]
    const statement =
      cursor === undefined
        ? { ...selectPage, values }
        : { ...selectPageAfter, values: [...values, ...readCursor(cursor)] }
    const { rows } = await app.pool.query(statement)
    const data = await loadProducts(app.pool, rows.slice(0, limit))
    const nextCursor = rows.length > limit ? writeCursor(rows[limit - 1]) : null
    return { data, count: counted.rows[0].count, count_exact: true, next_cursor: nextCursor }
  })

  app.get(
    '/:product_id',
    { schema: { params: productPath, response: { 200: product } } },
    async (request, reply) => {
      const row = await loadRow(app.pool, request.caller, selectProduct, request.params.product_id)
      const etag = etagOf(row)
      reply.header('etag', etag)
      if (request.headers['if-none-match'] === etag) return reply.code(304).send()
      await loadProducts(app.pool, [row])
      return row
    },
  )

  app.post(
    '/',
    { schema: { querystring: inOrganization, body: productCreate, response: { 201: product } } },
    async (request, reply) => {
      const { caller, query, body } = request
      caller.require(query.organization_id, { writing: true })
      const key = request.headers['idempotency-key']
      // Without a key, one statement is the transaction.
      const created = await (key === undefined
        ? insert(app.pool, caller, query.organization_id, body)
        : app.transaction((client) => insertOnce(client, request, key)))
      reply.code(201).header('etag', etagOf(created)).header('location', `/api/v1/products/${created.id}`)
      return created
    },
  )

  app.patch(
    '/:product_id',
    { schema: { params: productPath, body: productUpdate, response: { 200: product } } },
    async (request, reply) => {
      const { product_id: id } = request.params
      const updated = await app.transaction(async (client) => {
        const row = await loadRow(client, request.caller, selectProductToUpdate, id)
        const ifMatch = request.headers['if-match']
        if (![undefined, '*', etagOf(row)].includes(ifMatch)) throw new HttpError(412, 'The product has changed')
        const columns = Object.keys(request.body)
        const values = [id, ...Object.values(request.body)]
        const { rows } = await client.query({ ...updateProduct(columns), values })
        await loadProducts(client, rows)
        return rows[0]
      })
      reply.header('etag', etagOf(updated))
      return updated
    },
  )
}
